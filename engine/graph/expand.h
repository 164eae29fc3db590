/* expand: from the YAML graph items of a model and a stage to nodes.
 *
 * A graph is a list of items. An item is a mapping with one key, its name:
 *     - conv1.conv: {conv3d: x, features: 16, kernel: 3}
 *       name        operator or block: its input(s); the other keys are attributes
 * or a repeat:
 *     - repeat: 12
 *       as: i
 *       carry: {tokens: embedded}        # tokens is `embedded` in the first round …
 *       graph: [- "blocks.${i}": {transformer_block: tokens}]
 *       next: {tokens: "blocks.${i}"}    # … and this in the next
 * The items of a repeat stay visible after it under their own names ("blocks.3"), and so do the
 * carried names with their last value (with `repeat: 0`, their first). `when: ${…}` on an item
 * leaves it out when false; `parameters: conv1` lets it share those of an earlier item. A reference
 * is an earlier item's name, with `.port` for an output that is not the first. Names prefix the
 * parameters inside, so item names are PyTorch's module names. Blocks come from the file's `blocks: {name: file.yaml}` table; `model` applies the pipeline's
 * model, whose parameters carry no prefix and are shared between its uses. */
#ifndef STRATA_GRAPH_EXPAND_H
#define STRATA_GRAPH_EXPAND_H

#include "graph/graph.h"
#include "language/pipeline.h"

/* A named result of a stage graph: one value, or a list of them (`net.levels`). */
typedef struct graph_name {
  const char *name; /* "loss.context", "net.out", "net.levels" */
  value_id *values;
  int count;
} graph_name;

typedef struct graph_names {
  graph_name *list; /* in the order they were made: ports follow their item */
  int count, capacity;
  name_index index;
} graph_names;

typedef struct stage_graph {
  graph *g;
  graph_names names;
  value_id image, label;   /* inputs; label is VALUE_NONE when no item reads it */
  value_id loss;           /* weighted sum of the terms, scalar */
  const char **term_names; /* "context", "structure"; "loss" when there is only `loss` */
  value_id *terms;         /* unweighted scalar values */
  int term_count;
  const char *
      *metric_names; /* short outputs worth logging beside the losses: "structure.accuracy" */
  value_id *metrics;
  int metric_count;
  const tree *unused; /* patterns of what weight files of the model hold besides; may be NULL */
  value_id *keep; /* what program_create must keep: loss, terms, metrics, or the `only` result */
  int keep_count;
} stage_graph;

typedef struct expand_options {
  int64_t batch;
  int64_t size[3];     /* crop, voxels */
  int64_t channels;    /* of the image */
  int64_t classes;     /* of the label, background included; available as ${classes} */
  bool training;       /* differentiate, keep dropout */
  precision precision; /* of a model alone; a stage has its own */
  const char *only;    /* keep just what this result needs ("net.out"), for inference; NULL = all */
} expand_options;

/* For the stage's crops (stage_spec.crop) of images with so many channels. */
expand_options crop_options(const stage_spec *stage, int64_t channels, int64_t classes,
                            int64_t batch, bool training);
status stage_expand(pipeline *p, const stage_spec *stage, const expand_options *options,
                    stage_graph *out);

/* What a model that stands alone is differentiated by. */
typedef enum model_loss {
  MODEL_LOSS_NONE,
  MODEL_LOSS_SQUARE, /* mean of out², out being the first output */
  MODEL_LOSS_SEEDS /* Σ out · seed over every output that is one value (deep supervision too); the
                        seeds are inputs of the graph, named "seed.<output>" */
} model_loss;

/* A model alone (pipeline_load_model), applied to one input of the shape in `options`, whose
 * `training` says how dropout and running statistics behave and nothing about gradients. Every
 * output is kept: names are those of the file, list outputs "levels.0", "levels.1", … */
status model_expand(pipeline *p, const expand_options *options, model_loss loss, stage_graph *out);
void stage_graph_free(stage_graph *s);
/* Numbers the run may change between steps: "loss.context.weight", "masked.ratio" (an item's name
 * and one of its schedulable attributes). `set` changes every node that carries it, the backward
 * ones too. False when there is no such number. */
bool stage_graph_get_number(const stage_graph *s, const char *name, double *out);
bool stage_graph_set_number(stage_graph *s, const char *name, double value);
/* Its declaration, which bounds it: kernels rely on numbers being in range. NULL when there is none.
 */
const attr *stage_graph_attr(const stage_graph *s, const char *name);
/* Their names, `limit` at most: how many. */
int stage_graph_number_names(const stage_graph *s, arena *memory, const char **names, int limit);
const graph_name *stage_graph_find(const stage_graph *s, const char *name);

#endif
