#include "train/initialize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Index of a layer's weight or bias among its inputs; −1 for an operator that is no such layer. */
static int layer_port(const op *o, const char *name) {
  const attr *a = o->attrs;
  while (a && a->name && strcmp(a->name, "init") != 0) a++;
  if (!a || !a->name) return -1;
  for (int k = 0; o->inputs[k].name; k++)
    if (o->inputs[k].flags & PORT_PARAM && strcmp(o->inputs[k].name, name) == 0) return k;
  return -1;
}

void initialize_choose(const op_use *initializer, graph *g) {
  for (int i = 0; i < g->node_count && initializer->op; i++) {
    const node *n = &g->nodes[i];
    int weight = layer_port(n->op, "weight"), bias = layer_port(n->op, "bias");
    if (weight < 0 || bias < 0 || n->backward) continue;
    value *values[] = {&g->values[n->in[weight]],
                       n->in[bias] == VALUE_NONE ? NULL : &g->values[n->in[bias]]};
    tensor in[2];
    param_spec specs[2];
    for (int k = 0; k < 2; k++)
      in[k] = values[k] ? values[k]->type : (tensor){.shape = {.rank = -1}};
    /* Initializers cannot fail: every shape will do. */
    error_free(initializer->op->params(initializer->attrs, in, 2, specs));
    for (int k = 0; k < 2; k++)
      if (values[k] && values[k]->kind == VALUE_PARAM) values[k]->init = specs[k];
  }
}

bool initialize_needs_data(const op_use *initializer) {
  return initializer->op && strcmp(initializer->op->name, "lsuv") == 0;
}

typedef struct lsuv {
  double tolerance;
  int64_t iterations;
  const reporter *report;
  bool *done;       /* per value of the graph: its layer has been dealt with */
  value_id weight;  /* of the layer in hand */
  int64_t attempts; /* at it */
  double before;
  int layers, failed;
} lsuv;

static status variance_of(program *p, value_id v, double *out) {
  int64_t n = shape_elements(&p->g->values[v].type.shape);
  float *x = malloc((size_t)n * sizeof *x);
  if (!x) return error_out_of_memory((size_t)n * sizeof *x);
  status error = program_read(p, v, x);
  double mean = 0, squares = 0;
  for (int64_t i = 0; i < n && !error; i++) mean += (double)x[i] / (double)n;
  for (int64_t i = 0; i < n && !error; i++)
    squares += ((double)x[i] - mean) * ((double)x[i] - mean);
  *out = error ? 0 : squares / (double)n;
  free(x);
  return error;
}

static status scale_parameter(program *p, value_id v, double factor) {
  int64_t n = shape_elements(&p->g->values[v].type.shape);
  float *x = malloc((size_t)n * sizeof *x);
  if (!x) return error_out_of_memory((size_t)n * sizeof *x);
  status error = program_read(p, v, x);
  for (int64_t i = 0; i < n && !error; i++) x[i] = (float)((double)x[i] * factor);
  if (!error) error = program_write(p, v, x);
  free(x);
  return error;
}

static status visit_layer(void *context, program *p, const node *n, bool *again) {
  lsuv *l = context;
  int port = layer_port(n->op, "weight");
  if (port < 0) return OK;
  value_id weight = n->in[port];
  if (p->g->values[weight].kind != VALUE_PARAM) return OK;
  const char *name = p->g->values[weight].name;
  if (l->done[weight] || !parameters_find(p->parameters, name)->fresh) return OK;
  double variance = 0;
  TRY(variance_of(p, n->out[0], &variance));
  if (weight != l->weight) {
    l->weight = weight;
    l->attempts = 0;
    l->before = variance;
  }
  bool usable = isfinite(variance) && variance > 0;
  bool reached = usable && fabs(variance - 1) <= l->tolerance;
  if (usable && !reached && l->attempts < l->iterations) {
    l->attempts++;
    *again = true;
    return scale_parameter(p, weight, 1 / sqrt(variance));
  }
  l->done[weight] = true;
  l->layers++;
  l->failed += !reached;
  report_line(l->report, "  %-8s %-52s variance %-10.4g → %.4g", reached ? "lsuv" : "not 1", name,
              l->before, variance);
  return OK;
}

/* The pass over the layers has left its mark on running statistics. */
static status restart_states(program *p) {
  for (value_id v = 0; v < p->g->value_count; v++) {
    const value *state = &p->g->values[v];
    if (state->kind != VALUE_PARAM || !state->state) continue;
    const parameter *own = parameters_find(p->parameters, state->name);
    if (own && own->fresh) TRY(parameter_initialize(p->parameters, own, 0));
  }
  return OK;
}

status initialize_layers(const op_use *initializer, program *p, const char *stage,
                         const reporter *report) {
  lsuv l = {.tolerance = *attr_number(initializer->op, initializer->attrs, "tolerance"),
            .iterations = *attr_integer(initializer->op, initializer->attrs, "iterations"),
            .report = report,
            .done = calloc((size_t)p->g->value_count + 1, sizeof *l.done),
            .weight = VALUE_NONE};
  if (!l.done) return error_out_of_memory((size_t)p->g->value_count);
  status error = program_run_forward(p, visit_layer, &l);
  free(l.done);
  if (!error) error = restart_states(p);
  if (!error)
    report_line(report, "  %d layers of stage %s brought to unit variance, %d not",
                l.layers - l.failed, stage, l.failed);
  return error;
}
