/* compare: paired statistics between finished runs. */
#include "statistics/compare.h"

#include "base/files.h"
#include "cli/command.h"

#include <stdlib.h>
#include <string.h>

/* The arms as given, and what was read for them. */
typedef struct arm_list {
  arena memory;
  arm *arms;
  int count;
  results *runs; /* of all arms */
  int run_count;
} arm_list;

/* Parts of a text between commas; empty ones are errors. */
static status split(arena *memory, const char *what, const char *text, const char ***list,
                    int *count) {
  int capacity = 0;
  for (const char *p = text;; p++) {
    size_t length = strcspn(p, ",");
    if (length == 0)
      return error_new(ERROR_USAGE, NOWHERE, "%s takes names with commas between them, not \"%s\"",
                       what, text);
    const char *part = arena_strndup(memory, p, length);
    ARENA_PUSH(memory, *list, *count, capacity, part);
    p += length;
    if (!*p) return OK;
  }
}

/* NAME=PATH,PATH or PATH,PATH; a path that exists is one, whatever is in it. */
static status read_arm(arm_list *l, const char *operand) {
  arm *a = &l->arms[l->count++];
  const char *paths = operand, *equals = strchr(operand, '='), **list = NULL;
  int count = 0;
  a->name = operand;
  a->runs = &l->runs[l->run_count];
  if (equals && equals > operand && !file_exists(operand)) {
    a->name = arena_strndup(&l->memory, operand, (size_t)(equals - operand));
    paths = equals + 1;
  }
  if (file_exists(paths)) {
    list = &paths;
    count = 1;
  } else {
    TRY(split(&l->memory, "an arm", paths, &list, &count));
  }
  for (int i = 0; i < count; i++) {
    for (int k = 0; k < i; k++)
      if (strcmp(list[k], list[i]) == 0)
        return error_new(ERROR_USAGE, NOWHERE, "%s stands in arm %s twice", list[i], a->name);
    TRY(results_read(list[i], &l->runs[l->run_count]));
    l->run_count++;
    a->run_count++;
  }
  for (int k = 0; k < l->count - 1; k++)
    if (strcmp(l->arms[k].name, a->name) == 0)
      return error_new(ERROR_USAGE, NOWHERE,
                       "two arms are called %s; give them names: base=%s ours=…", a->name, operand);
  return OK;
}

static status read_arms(arm_list *l, const arguments *a) {
  size_t runs = 0;
  for (int i = 0; i < a->operand_count; i++) {
    runs++;
    for (const char *p = a->operands[i]; *p; p++) runs += *p == ',';
  }
  l->arms = arena_alloc(&l->memory, (size_t)a->operand_count * sizeof *l->arms);
  l->runs = arena_alloc(&l->memory, runs * sizeof *l->runs);
  for (int i = 0; i < a->operand_count; i++) TRY(read_arm(l, a->operands[i]));
  return OK;
}

static status read_options(const arguments *a, arena *memory, compare_options *o) {
  *o = (compare_options){.common = a->common,
                         .resamples = a->resamples,
                         .confidence = a->confidence,
                         .seed = a->seed >= 0 ? (uint64_t)a->seed : 1};
  if (a->resamples < 0) o->resamples = 0;
  if (a->resamples >= 0 && a->resamples < 100)
    return error_new(ERROR_USAGE, NOWHERE, "--resamples takes 100 or more");
  int zeros, bootstrap;
  TRY(choose("zeros", a->zeros, (const char *const[]){"wilcox", "pratt"}, 2, &zeros));
  TRY(choose("bootstrap", a->bootstrap, (const char *const[]){"bca", "percentile"}, 2, &bootstrap));
  o->zeros = (zero_method)zeros;
  o->bootstrap = (bootstrap_method)bootstrap;
  const char **metrics = NULL, **classes = NULL;
  if (a->metrics && strcmp(a->metrics, "all") != 0)
    TRY(split(memory, "--metrics", a->metrics, &metrics, &o->metric_count));
  if (a->classes) TRY(split(memory, "--classes", a->classes, &classes, &o->class_count));
  o->metrics = metrics;
  o->classes = classes;
  return OK;
}

static status write_all(const comparison *c, const arguments *a) {
  if (a->json) TRY(comparison_write_json(c, a->json));
  if (a->csv) TRY(comparison_write_csv(c, a->csv));
  if (a->markdown)
    comparison_print_markdown(c, stdout);
  else
    comparison_print(c, stdout);
  return OK;
}

status command_compare(const arguments *a) {
  arm_list arms = {0};
  compare_options options;
  comparison c = {0};
  status error = read_options(a, &arms.memory, &options);
  if (!error) error = read_arms(&arms, a);
  if (!error) error = compare_arms(arms.arms, arms.count, &options, &c);
  if (!error) error = write_all(&c, a);
  comparison_free(&c);
  for (int i = 0; i < arms.run_count; i++) results_free(&arms.runs[i]);
  arena_free(&arms.memory);
  return error;
}
