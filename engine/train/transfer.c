#include "train/transfer.h"

#include "base/text.h"
#include "language/tree.h"
#include "weights/import.h"

#include <fnmatch.h>
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

/* ---- what does not fit ------------------------------------------------------------------------
 */

enum { MAX_LISTED = 6 };

/* Mistakes of one sort are one message. */
typedef struct listing {
  text_buffer text; /* of the first MAX_LISTED */
  int count;
} listing;

typedef struct mistakes {
  listing missing, mismatched, unused;
} mistakes;

static void list(listing *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void list(listing *l, const char *format, ...) {
  if (l->count++ >= MAX_LISTED) return;
  if (l->count > 1) text_add(&l->text, ", ");
  va_list args;
  va_start(args, format);
  text_addv(&l->text, format, args);
  va_end(args);
}

static void list_rest(listing *l) {
  if (l->count > MAX_LISTED) text_add(&l->text, " and %d more", l->count - MAX_LISTED);
}

/* What becomes of a parameter. */
typedef enum fate { LOADED, FRESH, MISSING, MISMATCHED } fate;

/* `have`: the shape in the source, NULL when it has none of that name. */
static fate fate_of(const char *name, const shape *wanted, bool reset, const shape *have,
                    const stage_spec *s, mistakes *m) {
  char ours[96], theirs[96];
  shape_format(ours, wanted);
  if (reset || (!have && s->missing_fresh)) return FRESH;
  if (!have) {
    list(&m->missing, "%s (%s)", name, ours);
    return MISSING;
  }
  if (shape_equal(have, wanted)) return LOADED;
  list(&m->mismatched, "%s is %s here but %s", name, ours, shape_format(theirs, have));
  return MISMATCHED;
}

/* A tensor of the source that no parameter takes. */
static void check_unused(const char *name, const stage_graph *graph, mistakes *m) {
  if (text_starts_with(name, "loss.") || text_ends_with(name, ".num_batches_tracked")) return;
  for (int i = 0; graph->unused && i < graph->unused->count; i++)
    if (fnmatch(graph->unused->items[i]->text, name, 0) == 0) return;
  list(&m->unused, "%s", name);
}

/* `source`: a file, or stage "pretrain". */
static status mistakes_take(mistakes *m, const char *source, const stage_spec *s) {
  problems all = {0};
  listing *missing = &m->missing, *mismatched = &m->mismatched, *unused = &m->unused;
  list_rest(missing);
  list_rest(mismatched);
  list_rest(unused);
  if (missing->count == 1)
    problems_report(
        &all, s->init_at,
        "parameter %s is not in %s; list it under \"reset:\" if it should start fresh, or "
        "say `missing: fresh`",
        missing->text.data, source);
  else if (missing->count)
    problems_report(
        &all, s->init_at,
        "%d parameters are not in %s: %s; list them under \"reset:\" if they should start "
        "fresh, or say `missing: fresh`",
        missing->count, source, missing->text.data);
  if (mismatched->count == 1)
    problems_report(&all, s->init_at,
                    "parameter %s in %s; list it under \"reset:\" if it should start fresh",
                    mismatched->text.data, source);
  else if (mismatched->count)
    problems_report(&all, s->init_at,
                    "%d parameters have another shape than in %s: %s; list under \"reset:\" what "
                    "should start fresh",
                    mismatched->count, source, mismatched->text.data);
  if (unused->count == 1)
    problems_report(&all, s->init_at, "%s holds %s, which this network does not have%s", source,
                    unused->text.data,
                    s->init_is_file ? "; rules in `map:` rename or drop it" : "");
  else if (unused->count)
    problems_report(&all, s->init_at, "%s holds %d tensors that this network does not have: %s%s",
                    source, unused->count, unused->text.data,
                    s->init_is_file ? "; rules in `map:` rename or drop them" : "");
  text_free(&missing->text);
  text_free(&mismatched->text);
  text_free(&unused->text);
  return problems_take(&all);
}

status transfer_check(const stage_graph *to, const stage_spec *s, const stage_graph *from,
                      const char *from_name) {
  bool *fresh;
  TRY(mark_reset(to, s, &fresh));
  mistakes found = {0};
  const graph *g = to->g, *source = from->g;
  for (value_id v = 0; v < g->value_count; v++) {
    if (g->values[v].kind != VALUE_PARAM || !value_is_read(g, v)) continue;
    value_id match = find_parameter(source, g->values[v].name);
    const shape *have = match == VALUE_NONE ? NULL : &source->values[match].type.shape;
    fate_of(g->values[v].name, &g->values[v].type.shape, fresh[v], have, s, &found);
  }
  for (value_id v = 0; v < source->value_count; v++)
    if (source->values[v].kind == VALUE_PARAM && value_is_read(source, v) &&
        find_parameter(g, source->values[v].name) == VALUE_NONE)
      check_unused(source->values[v].name, to, &found);
  free(fresh);
  char name[96];
  snprintf(name, sizeof name, "stage \"%.80s\"", from_name);
  return mistakes_take(&found, name, s);
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

static const shape *shape_in(const named_tensor *t) {
  return t && t->tensor.dtype == DTYPE_F32 ? &t->tensor.shape : NULL;
}

/* Every tensor on a line of its own; "unexpected" counts what must not happen. */
static status transfer_open(const weights *w, const char *path, const bool *reset,
                            const stage_graph *graph, const stage_spec *s, parameters *p,
                            const reporter *report) {
  int loaded = 0, fresh = 0, unused = 0;
  mistakes found = {0};
  for (int i = 0; i < p->count; i++) {
    const parameter *parameter = &p->list[i];
    const named_tensor *t = weights_find(w, parameter->name);
    char have[96], want[96];
    shape_format(want, &parameter->shape);
    switch (fate_of(parameter->name, &parameter->shape, reset[i], shape_in(t), s, &found)) {
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
        error_free(mistakes_take(&found, path, s));
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
    check_unused(name, graph, &found);
  }
  report_line(report, "  %d loaded, %d reset, %d unused, %d unexpected", loaded, fresh, unused,
              found.missing.count + found.mismatched.count + found.unused.count);
  return mistakes_take(&found, path, s);
}

/* "module.out.weight" of "out.weight". */
static bool has_prefix_before(const char *name, const char *end) {
  size_t length = strlen(name), own = strlen(end);
  return length > own && name[length - own - 1] == '.' && strcmp(name + length - own, end) == 0;
}

/* Names that differ by what stands before them show which prefix has to go. */
static status no_common_name(const graph *g, const weights *w, const stage_spec *s) {
  const char *ours = NULL, *theirs = w->list[0].name;
  bool is_longer = false;
  for (value_id v = 0; v < g->value_count && !is_longer; v++) {
    if (g->values[v].kind != VALUE_PARAM || !value_is_read(g, v)) continue;
    if (!ours) ours = g->values[v].name;
    for (int i = 0; i < w->count && !is_longer; i++)
      if (has_prefix_before(w->list[i].name, g->values[v].name)) {
        is_longer = true;
        ours = g->values[v].name;
        theirs = w->list[i].name;
      }
  }
  if (is_longer)
    return error_new(
        ERROR_PIPELINE, s->init_at,
        "no tensor of %s has the name of a parameter: there it is %s, here %s. A file of "
        "rules with `strip: [%.*s]`, named by `map:`, takes off what stands before it",
        s->init_from, theirs, ours, (int)(strlen(theirs) - strlen(ours)), theirs);
  return error_new(ERROR_PIPELINE, s->init_at,
                   "no tensor of %s has the name of a parameter: there they are called %s …, here "
                   "%s …. Is it another network's? Rules in `map:` change names",
                   s->init_from, theirs, ours ? ours : "nothing");
}

status transfer_check_file(const stage_graph *to, const stage_spec *s) {
  const graph *g = to->g;
  const char *path = s->init_from;
  bool *fresh;
  weights w;
  TRY(mark_reset(to, s, &fresh));
  mistakes found = {0};
  status error = open_source(path, s, &w, NULL);
  if (error) {
    free(fresh);
    return error_locate(error_prefix(error, "stage %s: init", s->name), s->init_at);
  }
  for (value_id v = 0; v < g->value_count; v++)
    if (g->values[v].kind == VALUE_PARAM && value_is_read(g, v))
      fate_of(g->values[v].name, &g->values[v].type.shape, fresh[v],
              shape_in(weights_find(&w, g->values[v].name)), s, &found);
  int used = 0;
  for (int i = 0; i < w.count; i++)
    if (find_parameter(g, w.list[i].name) == VALUE_NONE)
      check_unused(w.list[i].name, to, &found);
    else
      used++;
  error = mistakes_take(&found, path, s);
  if (error && used == 0 && w.count > 0) { /* one mistake, not one for each sort */
    error_free(error);
    error = no_common_name(g, &w, s);
  }
  weights_close(&w);
  free(fresh);
  return error;
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
    error = transfer_open(&w, path, fresh, graph, s, p, report);
    weights_close(&w);
  }
  free(fresh);
  free(marked);
  return error;
}
