#include "train/memory.h"

#include "graph/passes.h"
#include "graph/storage.h"
#include "train/groups.h"

#include <math.h>
#include <stdlib.h>

/* Rounded up, as it would be written in the file. */
static char *budget_format(char out[24], size_t bytes) {
  bool small = bytes < (size_t)64 << 20;
  snprintf(out, 24, small ? "%.0fKiB" : "%.0fMiB", ceil((double)bytes / (small ? 1024 : 1048576)));
  return out;
}

const char *step_memory_outside(const step_memory *m) {
  return m->use.consume_gradients ? "weights and moments" : "weights, gradients and moments";
}

/* Copies of the trained parameters: weights, gradients, moments, sums and averages. */
static int parameter_buffers(const stage_spec *s) {
  return 2 + s->optimizer.op->state_buffers + (s->accumulate > 1) + (s->ema_decay > 0);
}

double stage_update_bytes(const stage_spec *s, const graph *g) {
  return 2.0 * sizeof(float) * (double)graph_param_elements(g) * parameter_buffers(s);
}

/* As parameters_create lays them out: each begins on a cache line. */
static size_t padded_bytes(const tensor *t) {
  return (tensor_bytes(t) + 63) / 64 * 64;
}

static size_t outside(const stage_spec *s, const graph *g, bool consume_gradients) {
  size_t copies = (size_t)parameter_buffers(s) - consume_gradients, bytes = 0;
  arena memory = {0};
  const bool *is_read = graph_read_values(g, &memory);
  for (int i = 0; i < g->value_count; i++) {
    const value *v = &g->values[i];
    if (v->kind != VALUE_PARAM || !is_read[i]) continue;
    bytes += padded_bytes(&v->type) * (v->gradient == VALUE_NONE ? 1 : copies);
  }
  arena_free(&memory);
  return bytes;
}

static status budget_error(const stage_spec *s, const step_memory *m) {
  char budget[24], beside[24], arena[24], least[24];
  return error_new(ERROR_MEMORY, s->memory_at,
                   "stage %s: memory is %s, but a step holds %s of %s, and of activations %s "
                   "although everything that helps is recomputed. The smallest budget that can be "
                   "met is %s%s.",
                   s->name, format_bytes(budget, (double)s->memory_bytes),
                   format_bytes(beside, (double)m->outside_bytes), step_memory_outside(m),
                   format_bytes(arena, (double)m->again.arena_bytes),
                   budget_format(least, m->outside_bytes + m->again.arena_bytes),
                   s->batch > 1 ? "; a smaller batch needs less" : "");
}

status stage_lacks_memory(const stage_spec *s, status error) {
  if (error_code_of(error) != ERROR_MEMORY) return error;
  return error_suffix(error_prefix(error, "stage %s", s->name),
                      ". A smaller batch or smaller crops need less; so does the stage with a "
                      "budget (memory)");
}

status stage_fit_memory(const stage_spec *s, const device *d, stage_graph *graph,
                        step_memory *out) {
  *out = (step_memory){.use = {.keep = graph->keep,
                               .keep_count = graph->keep_count,
                               .threads = device_plan_threads(d),
                               .chains = d->launch_chain != NULL,
                               .consume_gradients = stage_consumes_gradients(s, d)}};
  out->outside_bytes = outside(s, graph->g, out->use.consume_gradients);
  if (d->is_host) graph_pass_moments(graph->g);
  if (d->stores_bf16) TRY(graph_choose_storage(graph->g, graph->keep, graph->keep_count));
  if (s->memory_bytes == 0) return OK;
  size_t budget = (size_t)s->memory_bytes;
  size_t arena = budget > out->outside_bytes ? budget - out->outside_bytes : 0;
  TRY(plan_within(graph->g, &out->use, arena, &out->again));
  return out->again.arena_bytes <= arena ? OK : budget_error(s, out);
}

void step_memory_describe(const step_memory *m, text_buffer *out) {
  char before[24], after[24];
  const recomputation *r = &m->again;
  if (r->nodes == 0) return;
  text_add(out,
           "%d node%s run%s twice: %.1f GFLOP and %.1f MiB moved more a step, arena %s in place "
           "of %s",
           r->nodes, r->nodes == 1 ? "" : "s", r->nodes == 1 ? "s" : "", r->flops / 1e9,
           r->bytes / 1048576, format_bytes(after, (double)r->arena_bytes),
           format_bytes(before, (double)r->arena_before_bytes));
}

bool fitted_take(fitted_stage *from, stage_graph *graph, step_memory *memory) {
  bool is_there = from->is_there;
  if (is_there) {
    *graph = from->graph;
    *memory = from->memory;
  }
  from->is_there = false;
  return is_there;
}

void fitted_free(fitted_stage *list, int count) {
  for (int i = 0; list && i < count; i++)
    if (list[i].is_there) stage_graph_free(&list[i].graph);
  free(list);
}
