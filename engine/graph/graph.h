/* The intermediate representation of a step graph, and the builder that makes it.
 *
 * A graph is a list of nodes in execution order and a table of values. Shapes and types are
 * inferred as each node is added, so a graph under construction is always well typed and a shape
 * mistake is reported at the YAML line of the node that made it. */
#ifndef STRATA_GRAPH_GRAPH_H
#define STRATA_GRAPH_GRAPH_H

#include "base/index.h"
#include "graph/op.h"

enum { MAX_PORTS = 64 }; /* inputs of a node; outputs are at most a quarter of that */

typedef enum value_kind {
  VALUE_INPUT, /* fed from outside before every step: image, label */
  VALUE_PARAM, /* learned, or state of its node; lives across steps */
  VALUE_TEMP   /* made by a node; lives in the arena of the step */
} value_kind;

typedef struct value {
  const char *name; /* "vit.blocks.0.attn.qkv.weight", "encoder1.layer.conv1.conv" */
  tensor type;      /* shape and dtype; data NULL */
  value_kind kind;
  int32_t producer;  /* node index, or −1 */
  param_spec init;   /* VALUE_PARAM */
  bool state;        /* VALUE_PARAM that its node keeps, not learned (PORT_STATE) */
  value_id gradient; /* VALUE_PARAM after differentiation: its gradient, or VALUE_NONE */
  int64_t classes;   /* of a label map: how many classes, or regions, it tells apart; 0: unknown */
} value;

typedef struct node {
  const op *op;
  void *attrs; /* op->attrs_bytes, owned by the graph */
  value_id *in, *out;
  int in_count, out_count;
  const char *name; /* full path of the item it came from */
  source_pos at;    /* YAML line it came from */
  bool backward;    /* made by differentiation, or recomputed for it */
  bool recomputed;  /* a forward node once more (passes.h) */
  int use;          /* of the model that it belongs to, from 0: names are the same in all of them */
} node;

/* Names the random numbers of a node: those of its gradient are the same, those of another use of
 * the model are not. */
uint64_t node_stream(const node *n);

typedef struct graph {
  arena memory;
  node *nodes;
  int node_count, node_capacity;
  value *values;
  int value_count, value_capacity;
  name_index parameters; /* their values, by name */
  bool training;
  bool stored; /* graph_choose_storage has run */
} graph;

struct builder {
  graph *g;
  source_pos at;      /* given to the nodes made from now on */
  const char *prefix; /* name given to the nodes made from now on ("" at the top) */
  const char *owner;  /* what build_apply names parameters after; NULL: the node */
  bool backward;
  int use;             /* given to the nodes made from now on */
  const op *composite; /* being lowered: the operator the user named, for messages */
  bool bad_input; /* what went wrong last is that inputs are missing, too many or of another type */
};

graph *graph_new(bool training);
void graph_free(graph *g);

const tensor *value_type(const builder *b, value_id v);
value_id build_input(builder *b, const char *name, dtype type, shape s);
/* A parameter named `name` (full name). A second call with the same name returns the same value
 * when shapes agree (weight sharing) and an error otherwise. */
status build_param(builder *b, const char *name, param_spec spec, value_id *out);

/* Adds a node with full attributes and all inputs in port order (PARAM ports included). `attrs` is
 * copied; NULL takes the defaults. `out` receives every output (op's port count). Composites are
 * lowered here. */
status build_node(builder *b, const char *op_name, const void *attrs, const value_id *in,
                  int in_count, value_id *out);
/* As build_node, but creates the parameters of PARAM ports, named <owner>.<port>; `in` holds the
 * other inputs. `name` is relative to b->prefix and becomes the node's name. */
status build_apply(builder *b, const char *name, const op *o, const void *attrs, const value_id *in,
                   int in_count, value_id *out);

/* Appends the backward nodes of `loss` (a scalar) for every parameter it depends on; sets each
 * parameter's value.gradient. A missing gradient rule on the way to a parameter is an error at the
 * node's YAML line. */
status graph_differentiate(graph *g, value_id loss);
/* The same from any values: seeds[i] is the gradient of outputs[i] (same shape). */
status graph_differentiate_from(graph *g, const value_id *outputs, const value_id *seeds,
                                int count);
/* Removes nodes none of whose outputs reach `keep` or a parameter gradient. */
void graph_prune(graph *g, const value_id *keep, int keep_count);
/* Internal consistency: order, arity, shapes re-inferred. An error is a bug in a pass. */
status graph_verify(const graph *g);
/* Stable text, one node a line (golden tests); and Graphviz. */
void graph_dump(const graph *g, FILE *out);
void graph_dot(const graph *g, FILE *out);
cost node_cost(const graph *g, const node *n);
/* Elements of the learned parameters that some node reads; running statistics do not count. */
int64_t graph_param_elements(const graph *g);
bool value_is_read(const graph *g, value_id v);
/* By value: does some node read it? In `memory`. */
bool *graph_read_values(const graph *g, arena *memory);
/* By value, how many nodes and places in `keep` read it. The caller frees. */
int *graph_reader_counts(const graph *g, const value_id *keep, int keep_count);
/* The port of an input; the last one may stand for several. */
const port *input_port(const op *o, int index);
/* Types of a node's inputs (an absent one has rank −1) and outputs: MAX_PORTS and a quarter of it. */
void node_types(const graph *g, const node *n, tensor *in, tensor *out);

#endif
