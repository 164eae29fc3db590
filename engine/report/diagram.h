/* A step graph as a block diagram. */
#ifndef STRATA_REPORT_DIAGRAM_H
#define STRATA_REPORT_DIAGRAM_H

#include "graph/graph.h"
#include "report/html.h"

/* Adds an SVG of the forward nodes: a block for each run of nodes with a common beginning of their
 * names, as deep as gives at most some two dozen blocks, with the shape it makes, its parameters and
 * its share of the floating-point operations; arrows where one reads what another makes. Blocks are
 * laid out in layers from top to bottom (Sugiyama, Tagawa and Toda, 1981). A graph that cannot be
 * shown that way (hundreds of names at the top) adds nothing. `id` is one that the page has not used. */
void diagram_add(text_buffer *out, const graph *g, const char *id);

#endif
