#include "train/transfer.h"

#include "base/text.h"
#include "weights/import.h"

#include <fnmatch.h>
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

/* Marks the parameters of that name, below it, or that fit it as a pattern. */
static bool mark_named(const graph *g, const char *wanted, bool *reset) {
  size_t length = strlen(wanted);
  bool found = false;
  for (int v = 0; v < g->value_count; v++) {
    const char *name = g->values[v].name;
    if (g->values[v].kind != VALUE_PARAM) continue;
    bool is_below =
        strncmp(name, wanted, length) == 0 && (name[length] == 0 || name[length] == '.');
    if (is_below || fnmatch(wanted, name, 0) == 0) reset[v] = found = true;
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
    if (!found && !mark_named(graph->g, s->reset[i], reset))
      problems_add(
          &unknown,
          error_new(ERROR_PIPELINE, s->reset_at[i],
                    "reset: \"%s\" is neither a result of this stage's graph nor a parameter",
                    s->reset[i]));
  }
  status error = problems_take(&unknown);
  *out = error ? NULL : reset;
  if (error) free(reset);
  return error;
}

static value_id find_parameter(const graph *g, const char *name) {
  value_id v = index_find(&g->parameters, name);
  return v >= 0 && value_is_read(g, v) ? v : VALUE_NONE;
}

status transfer_check(const stage_graph *to, const stage_spec *s, const stage_graph *from,
                      const char *from_name) {
  bool *fresh;
  source_pos at = s->init_at;
  TRY(mark_reset(to, s, &fresh));
  problems found = {0};
  const graph *g = to->g, *source = from->g;
  for (value_id v = 0; v < g->value_count; v++) {
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
  for (value_id v = 0; v < source->value_count; v++)
    if (source->values[v].kind == VALUE_PARAM && value_is_read(source, v) &&
        !text_starts_with(source->values[v].name, "loss.") &&
        find_parameter(g, source->values[v].name) == VALUE_NONE)
      problems_add(&found, error_new(ERROR_PIPELINE, at,
                                     "stage \"%s\" trains %s, which this stage does not have",
                                     from_name, source->values[v].name));
  free(fresh);
  return problems_take(&found);
}

/* ---- from files -------------------------------------------------------------------------------
 */

/* Files of other programs, and those with name rules, are imported; ours are taken as they are. */
static status open_source(const char *path, const stage_spec *s, weights *out,
                          const reporter *report) {
  if (!s->init_is_file || (text_ends_with(path, ".safetensors") && !s->init_key && !s->init_map))
    return weights_read(path, out);
  const weight_source source = {.path = path, .key = s->init_key, .map = s->init_map};
  return weights_import(&source, out, report);
}

typedef enum fate { LOADED, FRESH, MISSING, MISMATCHED } fate;

/* What becomes of a parameter; the last two are mistakes, of which one more is in `unexpected`. */
static fate fate_of(const char *name, const shape *wanted, bool reset, const named_tensor *found,
                    const char *path, const stage_spec *s, problems *unexpected) {
  char have[96], want[96];
  shape_format(want, wanted);
  if (reset || (!found && s->missing_fresh)) return FRESH;
  if (!found) {
    problems_add(unexpected,
                 error_new(ERROR_PIPELINE, s->init_at,
                           "parameter %s (%s) is not in %s; list it under \"reset:\" if "
                           "it should start fresh, or say `missing: fresh`",
                           name, want, path));
    return MISSING;
  }
  if (shape_equal(&found->tensor.shape, wanted) && found->tensor.dtype == DTYPE_F32) return LOADED;
  problems_add(unexpected,
               error_new(ERROR_PIPELINE, s->init_at,
                         "parameter %s is %s here but %s in %s; list it under \"reset:\" if it "
                         "should start fresh",
                         name, want, shape_format(have, &found->tensor.shape), path));
  return MISMATCHED;
}

/* A tensor of the file that no parameter takes. */
static void check_unused(const char *name, const char *path, const stage_spec *s,
                         problems *unexpected) {
  if (text_starts_with(name, "loss.") || text_ends_with(name, ".num_batches_tracked")) return;
  problems_add(unexpected, error_new(ERROR_PIPELINE, s->init_at,
                                     "%s holds %s, which this network does not have%s", path, name,
                                     s->init_is_file ? "; rules in `map:` rename or drop it" : ""));
}

/* Every tensor on a line of its own; `unexpected` counts what must not happen. */
static status transfer_open(const weights *w, const char *path, const bool *reset,
                            const stage_spec *s, parameters *p, const reporter *report) {
  int loaded = 0, fresh = 0, unused = 0;
  problems unexpected = {0};
  for (int i = 0; i < p->count; i++) {
    const parameter *parameter = &p->list[i];
    const named_tensor *t = weights_find(w, parameter->name);
    char have[96], want[96];
    shape_format(want, &parameter->shape);
    switch (fate_of(parameter->name, &parameter->shape, reset[i], t, path, s, &unexpected)) {
    case FRESH:
      report_line(report, "  reset    %-52s                %s", parameter->name, want);
      fresh++;
      break;
    case MISSING:
      report_line(report, "  missing  %-52s %s", parameter->name, want);
      break;
    case MISMATCHED:
      report_line(report, "  mismatch %-52s %s, the file has %s", parameter->name, want,
                  shape_format(have, &t->tensor.shape));
      break;
    case LOADED: {
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
      break;
    }
    }
  }
  for (int i = 0; i < w->count; i++) {
    const char *name = w->list[i].name;
    if (parameters_find(p, name)) continue;
    char have[96];
    report_line(report, "  unused   %-52s                %s", name,
                shape_format(have, &w->list[i].tensor.shape));
    unused++;
    check_unused(name, path, s, &unexpected);
  }
  report_line(report, "  %d loaded, %d reset, %d unused, %d unexpected", loaded, fresh, unused,
              unexpected.count);
  return problems_take(&unexpected);
}

static status no_common_name(const graph *g, const weights *w, const stage_spec *s) {
  const char *ours = "";
  for (value_id v = g->value_count - 1; v >= 0; v--)
    if (g->values[v].kind == VALUE_PARAM && value_is_read(g, v)) ours = g->values[v].name;
  return error_new(ERROR_PIPELINE, s->init_at,
                   "no tensor of %s has the name of a parameter: there they are called %s …, here "
                   "%s …. `strata weights import` takes off a prefix that all share, rules in "
                   "`map:` change names",
                   s->init_from, w->list[0].name, ours);
}

status transfer_check_file(const stage_graph *to, const stage_spec *s) {
  const graph *g = to->g;
  const char *path = s->init_from;
  bool *fresh;
  weights w;
  TRY(mark_reset(to, s, &fresh));
  problems found = {0};
  status error = open_source(path, s, &w, NULL);
  if (error) {
    free(fresh);
    return error_locate(error_prefix(error, "stage %s: init", s->name), s->init_at);
  }
  for (value_id v = 0; v < g->value_count; v++)
    if (g->values[v].kind == VALUE_PARAM && value_is_read(g, v))
      fate_of(g->values[v].name, &g->values[v].type.shape, fresh[v],
              weights_find(&w, g->values[v].name), path, s, &found);
  int used = 0;
  for (int i = 0; i < w.count; i++)
    if (find_parameter(g, w.list[i].name) == VALUE_NONE)
      check_unused(w.list[i].name, path, s, &found);
    else
      used++;
  if (found.count > 0 && used == 0 && w.count > 0) { /* one mistake, not one for each name */
    problems_free(&found);
    problems_add(&found, no_common_name(g, &w, s));
  }
  weights_close(&w);
  free(fresh);
  return problems_take(&found);
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
  if (!error) report_line(report, "weights from %s", path);
  if (!error) error = open_source(path, s, &w, report);
  if (!error) {
    error = transfer_open(&w, path, fresh, s, p, report);
    weights_close(&w);
  }
  free(fresh);
  free(marked);
  return error;
}
