#include "train/groups.h"

#include <fnmatch.h>
#include <string.h>

/* By value: is it a parameter that is trained? */
static bool *trained_parameters(graph *g) {
  bool *trained = graph_read_values(g, &g->memory);
  for (value_id v = 0; v < g->value_count; v++)
    trained[v] &= g->values[v].kind == VALUE_PARAM && g->values[v].gradient != VALUE_NONE;
  return trained;
}

/* What a parameter is follows from the operator that owns it, not from its name. */
static unsigned *parameter_sorts(graph *g) {
  unsigned *sorts = arena_alloc(&g->memory, (size_t)(g->value_count + 1) * sizeof *sorts);
  for (int i = 0; i < g->node_count; i++) {
    const node *n = &g->nodes[i];
    int ports = port_count(n->op->inputs);
    for (int k = 0; k < n->in_count && k < ports && !n->backward; k++) {
      value_id v = n->in[k];
      if (v == VALUE_NONE || g->values[v].kind != VALUE_PARAM) continue;
      if (strcmp(n->op->family, "norm") == 0) sorts[v] |= PARAMETER_NORM;
      if (strcmp(n->op->inputs[k].name, "bias") == 0) sorts[v] |= PARAMETER_BIAS;
    }
  }
  return sorts;
}

static bool matches(const char *pattern, const char *name) {
  return fnmatch(pattern, name, 0) == 0;
}

static bool fits(const group_spec *group, const char *name, unsigned sort) {
  if (group->of && !(group->of & sort)) return false;
  for (int i = 0; i < group->match_count; i++)
    if (matches(group->match[i], name)) return true;
  return group->match_count == 0;
}

/* The names between dots of all parameters, for suggestions; "conv1" of "encoder.conv1.weight". */
static const char **name_parts(graph *g, const bool *trained, int *count) {
  enum { PARTS_MAX = 4096 };
  const char **parts = arena_alloc(&g->memory, PARTS_MAX * sizeof *parts);
  *count = 0;
  for (value_id v = 0; v < g->value_count; v++) {
    if (!trained[v]) continue;
    char *rest = arena_strdup(&g->memory, g->values[v].name);
    for (char *part; (part = strsep(&rest, ".")) && *count < PARTS_MAX;) parts[(*count)++] = part;
  }
  return parts;
}

/* The first plain piece of the pattern that occurs in no parameter's name, and what is nearest. */
static const char *suggestion(graph *g, const bool *trained, const char *pattern) {
  int count;
  const char **parts = name_parts(g, trained, &count);
  char *rest = arena_strdup(&g->memory, pattern);
  for (char *piece; (piece = strsep(&rest, ".*?[]"));) {
    bool known = piece[0] == 0;
    for (int i = 0; i < count && !known; i++) known = strstr(parts[i], piece) != NULL;
    const char *near = known ? NULL : nearest_name(piece, parts, count);
    if (near) return near;
  }
  return NULL;
}

static status check_patterns(graph *g, const bool *trained, const stage_spec *s,
                             const group_spec *group) {
  problems found = {0};
  for (int i = 0; i < group->match_count; i++) {
    bool any = false;
    for (value_id v = 0; v < g->value_count && !any; v++)
      any = trained[v] && matches(group->match[i], g->values[v].name);
    if (any) continue;
    char shown[96];
    const char *near = suggestion(g, trained, group->match[i]);
    problems_add(&found,
                 error_new(ERROR_PIPELINE, group->match_at[i],
                           "stage %s: no trained parameter matches \"%s\"%s%s%s", s->name,
                           printable(group->match[i], shown), near ? "; did you mean \"" : ".",
                           near ? near : "", near ? "\"?" : ""));
  }
  return problems_take(&found);
}

status parameter_groups_open(const stage_spec *s, graph *g, parameter_groups *out) {
  size_t count = (size_t)s->group_count + 1;
  *out = (parameter_groups){
      .specs = arena_alloc(&g->memory, count * sizeof *out->specs),
      .count = (int)count,
      .of = arena_alloc(&g->memory, (size_t)(g->value_count + 1) * sizeof *out->of),
      .tensors = arena_alloc(&g->memory, count * sizeof *out->tensors),
      .elements = arena_alloc(&g->memory, count * sizeof *out->elements)};
  const unsigned *sorts = parameter_sorts(g);
  const bool *trained = trained_parameters(g);
  problems found = {0};
  for (int i = 0; i < s->group_count; i++) {
    out->specs[i] = &s->groups[i];
    problems_add(&found, check_patterns(g, trained, s, &s->groups[i]));
  }
  for (value_id v = 0; v < g->value_count; v++) {
    if (!trained[v]) continue;
    int i = 0;
    while (i < s->group_count && !fits(&s->groups[i], g->values[v].name, sorts[v])) i++;
    out->of[v] = i;
    out->tensors[i]++;
    out->elements[i] += shape_elements(&g->values[v].type.shape);
  }
  for (int i = 0; i < s->group_count && found.count == 0; i++)
    if (out->tensors[i] == 0)
      problems_add(&found, error_new(ERROR_PIPELINE, s->groups[i].at,
                                     "stage %s: no trained parameter is left for this group; a "
                                     "parameter belongs to the first group that it fits.",
                                     s->name));
  return problems_take(&found);
}

static void describe_group(const group_spec *group, text_buffer *out) {
  static const char *const sorts[] = {"norms", "biases"};
  if (!group) {
    text_add(out, "the rest");
    return;
  }
  const char *between = group->is_no_decay ? "no decay: " : "";
  for (int i = 0; i < 2; i++)
    if (group->of & (1u << i)) {
      text_add(out, "%s%s", between, sorts[i]);
      between = ", ";
    }
  if (group->of && group->match_count) text_add(out, " of ");
  for (int i = 0; i < group->match_count; i++)
    text_add(out, "%s%s", i ? ", " : "", group->match[i]);
  if (group->is_no_decay) return;
  if (group->lr_scale != 1) text_add(out, ", lr × %g", group->lr_scale);
  for (int i = 0; i < group->number_count; i++)
    text_add(out, ", %s %g", group->numbers[i].name, group->numbers[i].value);
}

void parameter_groups_describe(const parameter_groups *groups, text_buffer *out) {
  for (int i = 0; i < groups->count && groups->count > 1; i++) {
    text_add(out, "  group %d (", i);
    describe_group(groups->specs[i], out);
    text_add(out, "): %d parameter%s, %.3g M numbers\n", groups->tensors[i],
             groups->tensors[i] == 1 ? "" : "s", (double)groups->elements[i] / 1e6);
  }
}

bool stage_consumes_gradients(const stage_spec *s, const device *d) {
  return s->clip_norm == 0 && s->accumulate <= 1 && (d->is_host || s->memory_bytes > 0);
}

optimizer_use stage_optimizer(const stage_spec *s, const device *d,
                              const parameter_groups *groups) {
  return (optimizer_use){.op = s->optimizer.op,
                         .attrs = s->optimizer.attrs,
                         .clip_norm = s->clip_norm,
                         .clip_value = s->clip_value,
                         .accumulate = s->accumulate,
                         .groups = groups->specs,
                         .average_decay = s->ema_decay,
                         .average_warmup = s->ema_warmup,
                         .consume_gradients = stage_consumes_gradients(s, d)};
}
