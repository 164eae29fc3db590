/* Lua schedules and hooks; a hook's state must come back as it was saved. */
#include "fuzz.h"

#include "script/script.h"

#include <math.h>

static status get_number(void *context, const char *name, double *out) {
  (void)context;
  (void)name;
  *out = 0.5;
  return OK;
}

static status set_number(void *context, const char *name, double value) {
  (void)context;
  (void)name;
  (void)value;
  return OK;
}

static void check_state(script *s) {
  char *first, *second;
  status error = script_state_save(s, &first);
  FUZZ_REQUIRE(!error);
  error = script_state_load(s, first);
  FUZZ_REQUIRE(!error);
  error = script_state_save(s, &second);
  FUZZ_REQUIRE(!error && strcmp(first, second) == 0);
  free(first);
  free(second);
}

static status open_as(script_kind kind, const char *source, const tree *arguments, script **out) {
  script_ref ref = {
      .path = "input.lua", .source = source, .arguments = arguments, .at = {"input.yaml", 3, 5}};
  return script_open(kind, &ref, out);
}

/* Whatever a function from facts to a number does, the number is a sound one or there is none. */
static void try_measures(const char *source) {
  script *s;
  double value;
  status error = open_as(SCRIPT_METRIC, source, NULL, &s);
  if (!error) {
    error = script_metric(
        s, &(metric_counts){.tp = 3, .fp = 1, .tn = 9, .class_name = "liver", .case_name = "a"},
        &value);
    FUZZ_REQUIRE(error || !isinf(value));
    script_close(s);
  }
  fuzz_refused(error);
  error = open_as(SCRIPT_CASE_WEIGHT, source, NULL, &s);
  if (!error) {
    error = script_case_weight(s,
                               &(case_facts){.name = "a",
                                             .patient = "a",
                                             .voxels = 64,
                                             .voxel_mm3 = 1,
                                             .class_names = (const char *const[]){"none", "liver"},
                                             .class_voxels = (const int64_t[]){60, 4},
                                             .class_count = 2},
                               &value);
    FUZZ_REQUIRE(error || (value >= 0 && isfinite(value)));
    script_close(s);
  }
  fuzz_refused(error);
}

/* The hooks without a state of their own, and those with classes. */
static void try_hooks(const char *source) {
  static const script_kind kinds[] = {SCRIPT_VALIDATION, SCRIPT_STAGE_END};
  for (int i = 0; i < 2; i++) {
    script *s;
    status error = open_as(kinds[i], source, NULL, &s);
    if (!error) {
      const double dice[] = {0.5};
      const hook_class liver = {1, "liver", dice};
      hook_event event = {.stage = "segment",
                          .reason = "epochs",
                          .classes = &liver,
                          .class_count = 1,
                          .class_metrics = (const char *const[]){"dice"},
                          .class_metric_count = 1};
      error = script_hook(s, &event);
      script_close(s);
    }
    fuzz_refused(error);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char arguments_text[] = "{metric: dice, patience: 2, lower: false, margin: 0}";
  arena memory = {0};
  tree *arguments;
  char *source = fuzz_text(data, size);
  script *s;
  status error =
      tree_parse(&memory, arguments_text, sizeof arguments_text - 1, "args.yaml", &arguments);
  FUZZ_REQUIRE(!error);
  /* Arguments that a script does not read are an error, so it is tried without them too. */
  error = open_as(SCRIPT_EPOCH_END, source, arguments, &s);
  if (error) {
    fuzz_refused(error);
    error = open_as(SCRIPT_EPOCH_END, source, NULL, &s);
  }
  if (!error) {
    double value;
    schedule_point at = {.step = 7, .epoch = 1, .total = 100, .steps_per_epoch = 5, .base = 1e-3};
    fuzz_refused(script_schedule(s, &at, &value));
    for (int64_t epoch = 0; epoch < 3; epoch++) {
      const char *const metrics[] = {"loss", "dice"};
      hook_event event = {.stage = "segment",
                          .epoch = epoch,
                          .step = 5 * epoch,
                          .metrics = {metrics, (const double[]){0.5, 0.25}, 2},
                          .get = get_number,
                          .set = set_number};
      error = script_hook(s, &event);
      fuzz_refused(error);
      check_state(s);
      if (error) break;
    }
    script_close(s);
    error = OK;
  }
  fuzz_refused(error);
  try_measures(source);
  try_hooks(source);
  free(source);
  arena_free(&memory);
  return 0;
}
