/* Lua schedules and hooks; a hook's state must come back as it was saved. */
#include "fuzz.h"

#include "script/script.h"

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

static status open_as(const char *source, const tree *arguments, script **out) {
  script_ref ref = {.path = "input.lua", .source = source, .arguments = arguments};
  return script_open(SCRIPT_EPOCH_END, &ref, out);
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
  error = open_as(source, arguments, &s);
  if (error) {
    fuzz_refused(error);
    error = open_as(source, NULL, &s);
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
  free(source);
  arena_free(&memory);
  return 0;
}
