/* A run stopped after every single step, each time in a process of its own, ends with the bits of a
 * run that was never stopped. */
#include "data_fixture.h"

#include "base/text.h"
#include "data/phantom.h"
#include "run/run.h"

#include <sys/wait.h>

static int steps_allowed; /* 0: no limit */

static void line(void *context, const char *text) {
  (void)context, (void)text;
}

static void update(void *context, const progress *p) {
  (void)context;
  if (strcmp(p->unit, "step") == 0 && steps_allowed > 0 && --steps_allowed == 0) run_request_stop();
}

/* A run, or its continuation, in a child process; returns its exit status. */
static int run_child(const char *root, const char *folder, bool resume, int steps) {
  fflush(NULL);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    steps_allowed = steps;
    char pipeline_path[256];
    snprintf(pipeline_path, sizeof pipeline_path, "%s/hooked.yaml", root);
    override overrides[] = {{"data.root", root},
                            {"stages.pretrain.epochs", "2"},
                            {"stages.pretrain.steps_per_epoch", "0"}, /* 3 batches: 2 + 1 */
                            {"stages.pretrain.batch", "1"},
                            {"data.sample.random_noise.probability", "1"},
                            {"stages.pretrain.schedules", "{sample.random_noise.sd: {lua: ramp}}"},
                            {"stages.segment.epochs", "3"},
                            {"stages.segment.steps_per_epoch", "2"}};
    run_options o = {.pipeline_path = pipeline_path,
                     .overrides = overrides,
                     .override_count = 8,
                     .folder = folder,
                     .resume = resume,
                     .threads = 1 + steps, /* another number for every process */
                     .report = {.line = line, .update = update}};
    status error = run_pipeline(&o, NULL);
    int result = !error ? 0 : error_code_of(error) == ERROR_INTERRUPTED ? 130 : 1;
    if (result == 1) error_print(stderr, error);
    error_free(error);
    exit(result);
  }
  int result = 0;
  assert_int_equal(waitpid(child, &result, 0), child);
  assert_true(WIFEXITED(result));
  return WEXITSTATUS(result);
}

/* metrics.jsonl without the seconds. */
static char *read_log(const char *folder) {
  char path[256];
  snprintf(path, sizeof path, "%s/metrics.jsonl", folder);
  char *data;
  size_t length;
  expect_ok(file_read(path, 1 << 20, &data, &length));
  char *to = data;
  for (const char *from = data; *from;) {
    if (text_starts_with(from, ",\"seconds\":")) from += strcspn(from, "}");
    *to++ = *from++;
  }
  *to = 0;
  return data;
}

static void expect_same_file(const char *a, const char *b, const char *name) {
  char path[2][256], *data[2];
  size_t length[2];
  snprintf(path[0], sizeof path[0], "%s/%s", a, name);
  snprintf(path[1], sizeof path[1], "%s/%s", b, name);
  for (int i = 0; i < 2; i++) expect_ok(file_read(path[i], 64 << 20, &data[i], &length[i]));
  assert_int_equal(length[0], length[1]);
  if (memcmp(data[0], data[1], length[0]) != 0) fail_msg("%s differs", name);
  free(data[0]);
  free(data[1]);
}

/* tiny.yaml with a hook in both stages that looks at the learning rate of the last step, and with
 * everything that surrounds the optimizer. */
static void write_pipeline(const char *root) {
  char path[256], *text;
  size_t length;
  expect_ok(file_read(TEST_DATA "/pipelines/tiny.yaml", 1 << 20, &text, &length));
  text_buffer hooked = {0};
  static const char *const updates[] = {"      initialize: lsuv\n"
                                        "      accumulate: 2\n"
                                        "      groups: [{match: \"vit.*\", lr_scale: 0.5}]\n"
                                        "      no_decay: [norm, bias]\n",
                                        "      ema: {decay: 0.8, warmup: true}\n"
                                        "      clip_value: 0.05\n"
                                        "      groups: [{of: norm, momentum: 0}]\n"};
  int stage = 0;
  for (char *rest = text, *next; (next = strsep(&rest, "\n"));) {
    if (text_starts_with(next, "      optimizer:"))
      text_add(&hooked, "      on_epoch_end: {lua: watch.lua}\n%s", updates[stage++]);
    text_add(&hooked, "%s\n", next);
  }
  snprintf(path, sizeof path, "%s/hooked.yaml", root);
  write_text(path, hooked.data);
  text_free(&hooked);
  free(text);
  snprintf(path, sizeof path, "%s/watch.lua", root);
  write_text(path, "return function(event)\n"
                   "  local state = event.state\n"
                   "  state.sum = (state.sum or 0) + event.get(\"lr\") + event.metrics.loss\n"
                   "  event.set(\"lr\", 0.01 / (1 + state.sum))\n"
                   "end\n");
}

static void a_run_stopped_after_every_step_equals_a_whole_one(void **state) {
  (void)state;
  char *root = temporary_folder(), whole[128], broken[128];
  char *full = realpath(root, NULL);
  snprintf(whole, sizeof whole, "%s/whole", root);
  snprintf(broken, sizeof broken, "%s/broken", root);
  expect_ok(phantom_write(root, 6, 2, &(phantom_options){.size = {32, 32, 32}, .organs = 2}));
  write_pipeline(full);
  assert_int_equal(run_child(full, whole, false, 0), 0);
  int stops = 0, result;
  while ((result = run_child(full, broken, stops > 0, 1)) == 130) assert_true(++stops < 30);
  assert_int_equal(result, 0);
  assert_int_equal(stops, 2 * 2 + 3 * 2);
  expect_same_file(whole, broken, "weights/pretrain.safetensors");
  expect_same_file(whole, broken, "weights/segment.safetensors");
  expect_same_file(whole, broken, "evaluation.json");
  char *logs[2] = {read_log(whole), read_log(broken)};
  assert_string_equal(logs[0], logs[1]);
  free(logs[0]);
  free(logs[1]);
  free(full);
  remove_folder(root);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_run_stopped_after_every_step_equals_a_whole_one),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
