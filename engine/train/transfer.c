#include "train/transfer.h"

#include "base/text.h"
#include "run/weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LAYER_DISTANCE = 64 };

/* Marks the parameters of the layer that makes value v: the nearest node upstream that has any. */
static bool mark_layer(const graph *g, value_id v, bool *reset) {
  for (int hop = 0; hop < MAX_LAYER_DISTANCE && v != VALUE_NONE; hop++) {
    int32_t producer = g->values[v].producer;
    if (producer < 0) return false;
    const node *n = &g->nodes[producer];
    bool found = false;
    for (int k = 0; k < n->in_count; k++)
      if (n->in[k] != VALUE_NONE && g->values[n->in[k]].kind == VALUE_PARAM)
        reset[n->in[k]] = found = true;
    if (found) return true;
    v = n->in_count > 0 ? n->in[0] : VALUE_NONE;
  }
  return false;
}

static bool mark_prefix(const graph *g, const char *prefix, bool *reset) {
  size_t length = strlen(prefix);
  bool found = false;
  for (int v = 0; v < g->value_count; v++) {
    const char *name = g->values[v].name;
    if (g->values[v].kind == VALUE_PARAM && strncmp(name, prefix, length) == 0 &&
        (name[length] == 0 || name[length] == '.'))
      reset[v] = found = true;
  }
  return found;
}

/* Which values of the graph are parameters that start fresh. Heap, caller frees. */
static status mark_reset(const stage_graph *graph, const stage_spec *s, bool **out) {
  bool *reset = calloc((size_t)graph->g->value_count + 1, sizeof *reset);
  if (!reset) return error_out_of_memory((size_t)graph->g->value_count);
  problems unknown = {0};
  for (int i = 0; i < s->reset_count; i++) {
    const graph_name *name = stage_graph_find(graph, s->reset[i]);
    bool found = false;
    for (int k = 0; name && k < name->count; k++)
      found |= mark_layer(graph->g, name->values[k], reset);
    if (!found && !mark_prefix(graph->g, s->reset[i], reset))
      problems_add(
          &unknown,
          error_new(ERROR_PIPELINE, s->init_at,
                    "reset: \"%s\" is neither a result of this stage's graph nor a parameter",
                    s->reset[i]));
  }
  status error = problems_take(&unknown);
  *out = error ? NULL : reset;
  if (error) free(reset);
  return error;
}

static value_id find_parameter(const graph *g, const char *name) {
  for (int v = 0; v < g->value_count; v++)
    if (g->values[v].kind == VALUE_PARAM && strcmp(g->values[v].name, name) == 0)
      return value_is_read(g, v) ? v : VALUE_NONE;
  return VALUE_NONE;
}

status transfer_check(const stage_graph *to, const stage_spec *s, const stage_graph *from,
                      const char *from_name) {
  bool *fresh;
  source_pos at = s->init_at;
  TRY(mark_reset(to, s, &fresh));
  problems found = {0};
  const graph *g = to->g, *source = from ? from->g : NULL;
  for (value_id v = 0; source && v < g->value_count; v++) {
    if (g->values[v].kind != VALUE_PARAM || fresh[v] || !value_is_read(g, v)) continue;
    value_id match = find_parameter(source, g->values[v].name);
    char have[96], want[96];
    shape_format(want, &g->values[v].type.shape);
    if (match == VALUE_NONE && s->missing_fresh) continue;
    if (match == VALUE_NONE)
      problems_add(&found, error_new(ERROR_PIPELINE, at,
                                     "parameter %s (%s) is not in stage \"%s\"; list it under "
                                     "\"reset:\" if it should start fresh, or say `missing: "
                                     "fresh`",
                                     g->values[v].name, want, from_name));
    else if (!shape_equal(&source->values[match].type.shape, &g->values[v].type.shape))
      problems_add(
          &found,
          error_new(ERROR_PIPELINE, at,
                    "parameter %s is %s here but %s in stage \"%s\"; list it under \"reset:\" "
                    "if it should start fresh",
                    g->values[v].name, want, shape_format(have, &source->values[match].type.shape),
                    from_name));
  }
  for (value_id v = 0; source && v < source->value_count; v++)
    if (source->values[v].kind == VALUE_PARAM && value_is_read(source, v) &&
        !text_starts_with(source->values[v].name, "loss.") &&
        find_parameter(g, source->values[v].name) == VALUE_NONE)
      problems_add(&found, error_new(ERROR_PIPELINE, at,
                                     "stage \"%s\" trains %s, which this stage does not have",
                                     from_name, source->values[v].name));
  free(fresh);
  return problems_take(&found);
}

/* Every tensor on a line of its own; `unexpected` counts what must not happen. */
static status transfer_open(const weights *w, const char *path, const bool *reset,
                            const stage_spec *s, parameters *p, const reporter *report) {
  source_pos at = s->init_at;
  int loaded = 0, fresh = 0, unused = 0;
  problems unexpected = {0};
  for (int i = 0; i < p->count; i++) {
    const parameter *parameter = &p->list[i];
    const named_tensor *t = weights_find(w, parameter->name);
    char have[96], want[96];
    shape_format(want, &parameter->shape);
    if (reset[i] || (!t && s->missing_fresh)) {
      report_line(report, "  reset    %-52s                %s", parameter->name, want);
      fresh++;
    } else if (!t) {
      report_line(report, "  missing  %-52s %s", parameter->name, want);
      problems_add(
          &unexpected,
          error_new(ERROR_PIPELINE, at,
                    "parameter %s (%s) is not in %s; list it under \"reset:\" if it should "
                    "start fresh, or say `missing: fresh`",
                    parameter->name, want, path));
    } else if (!shape_equal(&t->tensor.shape, &parameter->shape) || t->tensor.dtype != DTYPE_F32) {
      report_line(report, "  mismatch %-52s %s, the file has %s", parameter->name, want,
                  shape_format(have, &t->tensor.shape));
      problems_add(&unexpected,
                   error_new(ERROR_PIPELINE, at,
                             "parameter %s is %s here but %s in %s; list it under \"reset:\" if it "
                             "should start fresh",
                             parameter->name, want, have, path));
    } else {
      status error = p->device->upload(p->device, p->data + parameter->offset, t->tensor.data,
                                       tensor_bytes(&t->tensor));
      if (error) {
        problems_free(&unexpected);
        return error;
      }
      p->list[i].fresh = false;
      report_line(report, "  loaded   %-52s norm %-9.4g %s", parameter->name,
                  tensor_norm(&t->tensor), want);
      loaded++;
    }
  }
  for (int i = 0; i < w->count; i++) {
    const char *name = w->list[i].name;
    if (parameters_find(p, name)) continue;
    char have[96];
    report_line(report, "  unused   %-52s                %s", name,
                shape_format(have, &w->list[i].tensor.shape));
    unused++;
    if (!text_starts_with(name, "loss.") && !text_ends_with(name, ".num_batches_tracked"))
      problems_add(&unexpected,
                   error_new(ERROR_PIPELINE, at, "%s holds %s, which this network does not have",
                             path, name));
  }
  report_line(report, "  %d loaded, %d reset, %d unused, %d unexpected", loaded, fresh, unused,
              unexpected.count);
  return problems_take(&unexpected);
}

status transfer_weights(const char *path, const stage_graph *graph, const stage_spec *s,
                        parameters *p, const reporter *report) {
  bool *marked;
  TRY(mark_reset(graph, s, &marked));
  bool *fresh = calloc((size_t)p->count + 1, sizeof *fresh);
  status error = fresh ? OK : error_out_of_memory((size_t)p->count);
  for (int i = 0; i < p->count && !error; i++) {
    value_id v = find_parameter(graph->g, p->list[i].name);
    fresh[i] = v != VALUE_NONE && marked[v];
  }
  weights w;
  if (!error) error = weights_read(path, &w);
  if (!error) {
    report_line(report, "weights from %s", path);
    error = transfer_open(&w, path, fresh, s, p, report);
    weights_close(&w);
  }
  free(fresh);
  free(marked);
  return error;
}
