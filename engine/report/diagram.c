#include "report/diagram.h"

#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
  BLOCKS_WANTED = 24,
  BLOCKS_MAX = 64,
  DEPTH_MAX = 4,
  EDGES_MAX = 1024,
  CELLS_MAX = 2048,
  SWEEPS = 8,
  BLOCK_WIDTH = 176,
  BLOCK_HEIGHT = 46,
  LANE_WIDTH = 22, /* of an edge that passes a layer */
  GAP = 22,
  LAYER_HEIGHT = 74,
  MARGIN = 8
};

/* ---- blocks --------------------------------------------------------------------------------- */

typedef struct block {
  const char *name; /* its first `length` bytes */
  int length;
  int nodes;
  int64_t parameters;
  double flops;
  shape made; /* by its last node */
  bool is_input, is_loss;
  int layer;
} block;

typedef struct edge {
  int from, to;
} edge;

typedef struct diagram {
  const graph *g;
  block blocks[BLOCKS_MAX];
  int count;
  edge edges[EDGES_MAX];
  int edge_count;
  double flops; /* of all */
} diagram;

/* Bytes of a name's first `depth` parts; terms of the loss are one deeper. */
static int prefix_of(const char *name, int depth) {
  if (strncmp(name, "loss.", 5) == 0) depth++;
  int length = 0;
  for (; name[length]; length++)
    if (name[length] == '.' && --depth == 0) break;
  return length;
}

static bool same_prefix(const block *b, const char *name, int length) {
  return !b->is_input && b->length == length && strncmp(b->name, name, (size_t)length) == 0;
}

static int64_t parameters_of(const graph *g, const node *n) {
  int64_t total = 0;
  for (int k = 0; k < n->in_count; k++)
    if (n->in[k] != VALUE_NONE && g->values[n->in[k]].kind == VALUE_PARAM)
      total += shape_elements(&g->values[n->in[k]].type.shape);
  return total;
}

/* False when there are more than BLOCKS_MAX. `block_of` has an entry for each node. Blocks are runs of
 * consecutive nodes, so that no two read each other. */
static bool make_blocks(diagram *d, int depth, int *block_of) {
  const graph *g = d->g;
  d->count = 0;
  d->flops = 0;
  for (int v = 0; v < g->value_count; v++) {
    if (g->values[v].kind != VALUE_INPUT || !value_is_read(g, v)) continue;
    if (d->count == BLOCKS_MAX) return false;
    d->blocks[d->count++] = (block){.name = g->values[v].name,
                                    .length = (int)strlen(g->values[v].name),
                                    .made = g->values[v].type.shape,
                                    .is_input = true};
  }
  for (int i = 0; i < g->node_count; i++) {
    const node *n = &g->nodes[i];
    block_of[i] = -1;
    if (n->backward) continue;
    int length = prefix_of(n->name, depth);
    if (d->count == 0 || !same_prefix(&d->blocks[d->count - 1], n->name, length)) {
      if (d->count == BLOCKS_MAX) return false;
      d->blocks[d->count++] = (block){.name = n->name, .length = length};
    }
    block *b = &d->blocks[d->count - 1];
    double flops = node_cost(g, n).flops;
    b->nodes++;
    b->parameters += parameters_of(g, n);
    b->flops += flops;
    d->flops += flops;
    b->made = g->values[n->out[0]].type.shape;
    b->is_loss |= (n->op->traits & OP_LOSS) != 0;
    block_of[i] = d->count - 1;
  }
  return true;
}

static int input_block(const diagram *d, value_id v) {
  for (int b = 0; b < d->count && d->blocks[b].is_input; b++)
    if (d->blocks[b].name == d->g->values[v].name) return b;
  return -1;
}

static void add_edge(diagram *d, int from, int to) {
  if (from < 0 || from == to || d->edge_count == EDGES_MAX) return;
  for (int e = 0; e < d->edge_count; e++)
    if (d->edges[e].from == from && d->edges[e].to == to) return;
  d->edges[d->edge_count++] = (edge){from, to};
}

static void make_edges(diagram *d, const int *block_of) {
  for (int i = 0; i < d->g->node_count; i++) {
    const node *n = &d->g->nodes[i];
    for (int k = 0; k < n->in_count && block_of[i] >= 0; k++) {
      if (n->in[k] == VALUE_NONE) continue;
      const value *v = &d->g->values[n->in[k]];
      int from = v->kind == VALUE_INPUT  ? input_block(d, n->in[k])
                 : v->kind == VALUE_TEMP ? block_of[v->producer]
                                         : -1;
      add_edge(d, from, block_of[i]);
    }
  }
}

/* As deep as keeps the diagram compact. */
static bool choose_blocks(diagram *d, int *block_of) {
  int depth = DEPTH_MAX;
  while (depth > 1 && !(make_blocks(d, depth, block_of) && d->count <= BLOCKS_WANTED)) depth--;
  if (!make_blocks(d, depth, block_of)) return false;
  make_edges(d, block_of);
  return true;
}

/* ---- layers --------------------------------------------------------------------------------- */

/* A place in a layer: a block, or an edge that passes through. */
typedef struct cell {
  int block; /* −1: passed through */
  int layer;
  double x, wanted; /* of the middle */
} cell;

typedef struct layout {
  cell cells[CELLS_MAX];
  int count;
  edge links[CELLS_MAX]; /* between cells of neighbouring layers */
  int link_edge[CELLS_MAX];
  int link_count;
  int order[CELLS_MAX]; /* cells by layer, from left to right */
  int first[BLOCKS_MAX + 2], layers;
  double width;
} layout;

static double width_of(const cell *c) {
  return c->block < 0 ? LANE_WIDTH : BLOCK_WIDTH + GAP;
}

/* Blocks are in topological order. Inputs move down to just above whoever reads them first. */
static void assign_layers(diagram *d) {
  for (int b = 0; b < d->count; b++)
    for (int e = 0; e < d->edge_count; e++)
      if (d->edges[e].to == b && d->blocks[d->edges[e].from].layer >= d->blocks[b].layer)
        d->blocks[b].layer = d->blocks[d->edges[e].from].layer + 1;
  for (int b = 0; b < d->count && d->blocks[b].is_input; b++) {
    int least = BLOCKS_MAX;
    for (int e = 0; e < d->edge_count; e++)
      if (d->edges[e].from == b && d->blocks[d->edges[e].to].layer < least)
        least = d->blocks[d->edges[e].to].layer;
    if (least < BLOCKS_MAX && least > 0) d->blocks[b].layer = least - 1;
  }
}

static int add_cell(layout *l, int block, int layer) {
  if (l->count == CELLS_MAX) return -1;
  l->cells[l->count] = (cell){.block = block, .layer = layer};
  return l->count++;
}

/* False when there are too many. */
static bool make_cells(layout *l, const diagram *d) {
  for (int b = 0; b < d->count; b++) {
    if (add_cell(l, b, d->blocks[b].layer) < 0) return false;
    if (d->blocks[b].layer >= l->layers) l->layers = d->blocks[b].layer + 1;
  }
  for (int e = 0; e < d->edge_count; e++) {
    int at = d->edges[e].from;
    for (int layer = d->blocks[at].layer + 1; layer <= d->blocks[d->edges[e].to].layer; layer++) {
      int next = layer == d->blocks[d->edges[e].to].layer ? d->edges[e].to : add_cell(l, -1, layer);
      if (next < 0 || l->link_count == CELLS_MAX) return false;
      l->link_edge[l->link_count] = e;
      l->links[l->link_count++] = (edge){at, next};
      at = next;
    }
  }
  int k = 0;
  for (int layer = 0; layer < l->layers; layer++) {
    l->first[layer] = k;
    for (int c = 0; c < l->count; c++)
      if (l->cells[c].layer == layer) l->order[k++] = c;
  }
  l->first[l->layers] = k;
  return true;
}

/* Where a cell wants to be: the mean of its neighbours above, below, or both. */
static double wanted_x(const layout *l, int c, bool above, bool below) {
  double sum = 0, count = 0;
  for (int k = 0; k < l->link_count; k++) {
    if (above && l->links[k].to == c) sum += l->cells[l->links[k].from].x, count++;
    if (below && l->links[k].from == c) sum += l->cells[l->links[k].to].x, count++;
  }
  return count > 0 ? sum / count : l->cells[c].x;
}

/* Places the cells of a layer as near to where they want to be as their order and widths allow, in the
 * sense of least squares: isotonic regression by pooling neighbours that violate the order. */
static void place_layer(layout *l, int layer) {
  int first = l->first[layer], count = l->first[layer + 1] - first;
  double mean[CELLS_MAX], offset = 0;
  int size[CELLS_MAX], pools = 0;
  double offsets[CELLS_MAX];
  for (int i = 0; i < count; i++) {
    const cell *c = &l->cells[l->order[first + i]];
    if (i > 0) offset += (width_of(&l->cells[l->order[first + i - 1]]) + width_of(c)) / 2;
    offsets[i] = offset;
    mean[pools] = c->wanted - offset;
    size[pools++] = 1;
    while (pools > 1 && mean[pools - 2] > mean[pools - 1]) {
      double total = size[pools - 2] + size[pools - 1];
      mean[pools - 2] =
          (mean[pools - 2] * size[pools - 2] + mean[pools - 1] * size[pools - 1]) / total;
      size[pools - 2] += size[pools - 1];
      pools--;
    }
  }
  for (int i = 0, pool = 0, left = count > 0 ? size[0] : 0; i < count; i++) {
    if (left == 0) left = size[++pool];
    left--;
    l->cells[l->order[first + i]].x = mean[pool] + offsets[i];
  }
}

static void sort_layer(layout *l, int layer) {
  for (int i = l->first[layer] + 1; i < l->first[layer + 1]; i++) { /* stable, and nearly sorted */
    int c = l->order[i], k = i;
    for (; k > l->first[layer] && l->cells[l->order[k - 1]].wanted > l->cells[c].wanted; k--)
      l->order[k] = l->order[k - 1];
    l->order[k] = c;
  }
}

static void sweep(layout *l, int layer, bool above, bool below, bool sort) {
  for (int i = l->first[layer]; i < l->first[layer + 1]; i++)
    l->cells[l->order[i]].wanted = wanted_x(l, l->order[i], above, below);
  if (sort) sort_layer(l, layer);
  place_layer(l, layer);
}

static void arrange(layout *l) {
  for (int layer = 0; layer < l->layers; layer++) place_layer(l, layer);
  for (int round = 0; round < SWEEPS; round++) {
    bool sort = round < SWEEPS / 2;
    for (int layer = 1; layer < l->layers; layer++) sweep(l, layer, true, !sort, sort);
    for (int layer = l->layers - 2; layer >= 0; layer--) sweep(l, layer, !sort, true, sort);
  }
  double left = INFINITY, right = -INFINITY;
  for (int c = 0; c < l->count; c++) {
    double half = l->cells[c].block < 0 ? 1 : BLOCK_WIDTH / 2.0;
    left = fmin(left, l->cells[c].x - half);
    right = fmax(right, l->cells[c].x + half);
  }
  for (int c = 0; c < l->count; c++) l->cells[c].x += MARGIN - left;
  l->width = right - left + 2 * MARGIN;
}

/* ---- SVG ------------------------------------------------------------------------------------ */

static void short_number(char out[24], double n) {
  if (n >= 1e6)
    snprintf(out, 24, "%.3g M", n / 1e6);
  else if (n >= 1e3)
    snprintf(out, 24, "%.3g k", n / 1e3);
  else
    snprintf(out, 24, "%.0f", n);
}

static double top_of(int layer) {
  return MARGIN + (double)layer * LAYER_HEIGHT;
}

/* Edges of a block leave in the middle of its lower side; those that pass a layer go straight down. */
static void draw_links(text_buffer *out, const layout *l, const char *id) {
  for (int k = 0; k < l->link_count; k++) {
    const cell *a = &l->cells[l->links[k].from], *b = &l->cells[l->links[k].to];
    double from = top_of(a->layer) + BLOCK_HEIGHT, to = top_of(b->layer), middle = (from + to) / 2;
    text_add(out, "<path class=\"link\" d=\"M%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1f", a->x, from,
             a->x, middle, b->x, middle, b->x, to);
    if (b->block < 0) text_add(out, "V%.1f", to + BLOCK_HEIGHT);
    if (b->block < 0)
      text_add(out, "\"/>\n");
    else
      text_add(out, "\" marker-end=\"url(#%s)\"/>\n", id);
  }
}

/* The end of a name says more than its beginning. */
static void draw_name(text_buffer *out, const block *b) {
  enum { LETTERS = 24 };
  int skip = b->length > LETTERS ? b->length - LETTERS + 1 : 0;
  while (skip && ((unsigned char)b->name[skip] & 0xC0) == 0x80) skip++;
  html_format(out, "%s%.*s", skip ? "…" : "", b->length - skip, b->name + skip);
}

static void draw_block(text_buffer *out, const diagram *d, const block *b, const cell *c) {
  char shape_text[96], number[24];
  shape made = b->made;
  if (made.rank > 1) { /* without the samples of the batch */
    memmove(made.dim, made.dim + 1, sizeof made.dim - sizeof made.dim[0]);
    made.rank--;
  }
  double x = c->x - BLOCK_WIDTH / 2.0, y = top_of(c->layer);
  double share = d->flops > 0 ? b->flops / d->flops : 0;
  text_add(out, "<g class=\"block%s\"><title>", b->is_input ? " input" : b->is_loss ? " loss" : "");
  html_format(out, "%.*s: %d operators, %lld parameters, %.3g GFLOP (%.0f %%)", b->length, b->name,
              b->nodes, (long long)b->parameters, b->flops / 1e9, share * 100);
  text_add(out,
           "</title><rect x=\"%.1f\" y=\"%.1f\" width=\"%d\" height=\"%d\" rx=\"7\"/>"
           "<rect class=\"share\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"4\" rx=\"2\"/>"
           "<text class=\"name\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">",
           x, y, BLOCK_WIDTH, BLOCK_HEIGHT, x + 6, y + BLOCK_HEIGHT - 6, share * (BLOCK_WIDTH - 12),
           c->x, y + 18);
  draw_name(out, b);
  text_add(out, "</text><text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">", c->x, y + 33);
  html_text(out, made.rank > 0 && b->made.rank > 0 ? shape_format(shape_text, &made) : "scalar");
  if (b->parameters > 0) {
    short_number(number, (double)b->parameters);
    text_add(out, " · %s", number);
  }
  text_add(out, "</text></g>\n");
}

static void draw(text_buffer *out, const diagram *d, const layout *l, const char *id) {
  double height = top_of(l->layers - 1) + BLOCK_HEIGHT + MARGIN;
  text_add(
      out,
      "<div class=\"scroll\"><svg class=\"diagram\" role=\"img\" aria-label=\"block diagram of the "
      "graph\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\">\n"
      "<defs><marker id=\"%s\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" "
      "markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0 8 4 0 8z\"/></marker></defs>\n",
      l->width, height, l->width, height, id);
  draw_links(out, l, id);
  for (int c = 0; c < l->count; c++)
    if (l->cells[c].block >= 0) draw_block(out, d, &d->blocks[l->cells[c].block], &l->cells[c]);
  text_add(out, "</svg></div>\n");
}

void diagram_add(text_buffer *out, const graph *g, const char *id) {
  diagram *d = memory_take(sizeof *d);
  layout *l = memory_take(sizeof *l);
  int *block_of = memory_take((size_t)g->node_count * sizeof *block_of);
  d->g = g;
  if (choose_blocks(d, block_of) && d->count > 0) {
    assign_layers(d);
    if (make_cells(l, d)) {
      arrange(l);
      draw(out, d, l, id);
    }
  }
  free(block_of);
  free(l);
  free(d);
}
