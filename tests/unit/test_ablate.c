/* The store of trials, and the processes that work on them. A shell script stands for the program:
 * what it does is the pipeline's name. */
#include "data_folder.h"

#include "ablate/jobs.h"
#include "base/files.h"
#include "base/text.h"

#include <signal.h>
#include <sys/stat.h>

static const uint64_t some_key = 0xfedcba9876543210u;

static trial new_trial(uint64_t key) {
  return (trial){.label = "arm, seed 1", .pipeline = "p.yaml", .name = "tiny", .key = key};
}

static void find(arena *memory, trial *t) {
  expect_ok(trial_find(memory, inside("out"), t));
}

static void write_in(const trial *t, const char *name, const char *text) {
  char *path = trial_file(t, name);
  expect_ok(file_write_atomic(path, text, strlen(text)));
  free(path);
}

static char *read_in(const trial *t, const char *name) {
  char *path = trial_file(t, name), *text;
  size_t length;
  expect_ok(file_read(path, 1 << 20, &text, &length));
  free(path);
  return text;
}

static bool is_in(const trial *t, const char *name) {
  char *path = trial_file(t, name);
  bool there = file_exists(path);
  free(path);
  return there;
}

/* ---- the store ------------------------------------------------------------------------------- */

static void a_new_trial_has_a_name_for_its_folder_and_no_folder(void **state) {
  (void)state;
  arena memory = {0};
  trial t = new_trial(some_key);
  find(&memory, &t);
  assert_int_equal(t.state, TRIAL_NEW);
  assert_true(text_ends_with(t.folder, "/out/trials/tiny-fedcba98"));
  assert_false(file_exists(inside("out")));
  arena_free(&memory);
}

static void what_was_recorded_is_found_whatever_the_trial_is_called(void **state) {
  (void)state;
  arena memory = {0};
  static const trial_state states[] = {TRIAL_BEGUN, TRIAL_FAILED, TRIAL_DONE};
  for (int i = 0; i < 3; i++) {
    trial t = new_trial(some_key);
    find(&memory, &t);
    trial_free(&t); /* what the round before recorded */
    t.state = states[i];
    t.seconds = 1.5 + i;
    t.error = i == 1 ? strdup("p.yaml:3:1: error: \"x\"") : NULL;
    expect_ok(trial_record(&t));
    trial again = new_trial(some_key);
    again.name = "another";
    again.label = "another arm";
    find(&memory, &again);
    assert_string_equal(again.folder, t.folder);
    assert_int_equal(again.state, states[i]);
    assert_true(again.seconds == t.seconds);
    if (t.error)
      assert_string_equal(again.error, t.error);
    else
      assert_null(again.error);
    trial_free(&t);
    trial_free(&again);
  }
  arena_free(&memory);
}

static void keys_that_begin_alike_have_folders_of_their_own(void **state) {
  (void)state;
  arena memory = {0};
  trial a = new_trial(some_key), b = new_trial(some_key ^ 1), other = new_trial(~some_key);
  find(&memory, &a);
  a.state = TRIAL_DONE;
  expect_ok(trial_record(&a));
  find(&memory, &b);
  assert_int_equal(b.state, TRIAL_NEW);
  assert_true(text_ends_with(b.folder, "/tiny-fedcba9876543211"));
  b.state = TRIAL_FAILED;
  expect_ok(trial_record(&b));
  find(&memory, &other);
  assert_int_equal(other.state, TRIAL_NEW);
  find(&memory, &a);
  assert_int_equal(a.state, TRIAL_DONE);
  arena_free(&memory);
}

static void a_trial_without_its_evaluation_is_not_done(void **state) {
  (void)state;
  arena memory = {0};
  trial t = new_trial(some_key);
  t.is_evaluated = true;
  find(&memory, &t);
  t.state = TRIAL_DONE;
  expect_ok(trial_record(&t));
  find(&memory, &t);
  assert_int_equal(t.state, TRIAL_BEGUN);
  write_in(&t, "evaluation.json", "{}");
  find(&memory, &t);
  assert_int_equal(t.state, TRIAL_DONE);
  arena_free(&memory);
}

static void a_damaged_record_is_no_record(void **state) {
  (void)state;
  arena memory = {0};
  trial t = new_trial(some_key);
  find(&memory, &t);
  t.state = TRIAL_DONE;
  expect_ok(trial_record(&t));
  static const char *const damaged[] = {
      "", "{", "[]", "{\"key\": 7}", "{\"key\": \"fedc\"}", "{\"key\": \"fedcba98765432100\"}"};
  for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++) {
    write_in(&t, "trial.json", damaged[i]);
    find(&memory, &t);
    assert_int_equal(t.state, TRIAL_NEW);
  }
  arena_free(&memory);
}

static void work_is_counted_from_the_last_line_of_the_log(void **state) {
  (void)state;
  arena memory = {0};
  trial t = new_trial(some_key);
  t.work[0] = (stage_work){"pretrain", 4, 100};
  t.work[1] = (stage_work){"segment", 2, 10};
  t.work_count = 2;
  find(&memory, &t);
  t.state = TRIAL_BEGUN;
  expect_ok(trial_record(&t));
  assert_true(trial_work(&t) == 420);
  static const struct {
    const char *log;
    double done;
  } cases[] = {
      {"", 0},
      {"{\"stage\":\"pretrain\",\"epoch\":1}", 0}, /* half a line */
      {"{\"stage\":\"pretrain\",\"epoch\":1}\n", 100},
      {"{\"stage\":\"pretrain\",\"epoch\":1}\n{\"stage\":\"pretrain\",\"epoch\":3}\n", 300},
      {"{\"stage\":\"segment\",\"epoch\":1}\n{\"stage\":\"seg", 410},
      {"{\"stage\":\"unknown\",\"epoch\":1}\n", 0},
      {"nothing\n", 0}};
  assert_true(trial_work_done(&t) == 0);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    write_in(&t, "metrics.jsonl", cases[i].log);
    assert_true(trial_work_done(&t) == cases[i].done);
  }
  t.state = TRIAL_DONE;
  assert_true(trial_work_done(&t) == 420);
  arena_free(&memory);
}

/* ---- processes ------------------------------------------------------------------------------- */

/* run PIPELINE [--set k=v]… --out FOLDER --threads N [--resume] */
static const char program_text[] =
    "#!/bin/sh\n"
    "pipeline=$2 arguments=$*\n"
    "while [ $# -gt 0 ]; do [ \"$1\" = --out ] && out=$2; shift; done\n"
    "echo \"$arguments\" >>\"$out/calls\"\n"
    "identity=0000000000000000\n"
    "case $pipeline in\n"
    "good) ;;\n"
    "changed) identity=1000000000000000 ;;\n"
    "bad) echo first; echo 'p.yaml:2:3: error: no such thing' >&2; echo last >&2; exit 1 ;;\n"
    "mute) exit 3 ;;\n"
    "killed) echo working; kill -9 $$ ;;\n"
    "slow) trap 'exit 130' INT; : >\"$out/run.json\"\n"
    "  i=0; while [ $i -lt 1500 ]; do sleep 0.02; i=$((i + 1)); done ;;\n"
    "meet) : >\"$out/../here-$$\"; i=0\n"
    "  while [ $i -lt 500 ]; do\n"
    "    [ \"$(ls \"$out/..\" | grep -c here-)\" -ge 2 ] && break; sleep 0.02; i=$((i + 1))\n"
    "  done; [ $i -lt 500 ] || exit 1 ;;\n"
    "esac\n"
    "echo '{\"data_identity\": \"0000000000000000\", \"pipeline_identity\": \"'$identity'\"}' \\\n"
    "  >\"$out/run.json\"\n";

enum { TRIALS = 4 };

typedef struct bench {
  arena memory;
  trial trials[TRIALS], *list[TRIALS];
  jobs_options o;
  char lines[4096]; /* what was reported */
} bench;

static bool stop_now;

static bool asked_to_stop(void) {
  return stop_now;
}

static void keep_line(void *context, const char *text) {
  bench *b = context;
  size_t used = strlen(b->lines);
  snprintf(b->lines + used, sizeof b->lines - used, "%s\n", text);
  stop_now |= strstr(text, "slow") != NULL;
}

static void set_up(bench *b, int jobs, const char *const pipelines[TRIALS]) {
  *b = (bench){0};
  stop_now = false;
  const char *program = arena_strdup(&b->memory, inside("program.sh"));
  expect_ok(file_write_atomic(program, program_text, strlen(program_text)));
  assert_int_equal(chmod(program, 0755), 0);
  b->o = (jobs_options){.program = program,
                        .jobs = jobs,
                        .threads = 6,
                        .stop = asked_to_stop,
                        .report = {.line = keep_line, .context = b}};
  for (int i = 0; i < TRIALS; i++) {
    b->trials[i] = new_trial(some_key + ((uint64_t)i << 40));
    b->trials[i].pipeline = b->trials[i].label = pipelines[i];
    b->list[i] = &b->trials[i];
    find(&b->memory, b->list[i]);
  }
}

/* How often the program was run for a trial. */
static int calls_of(const trial *t) {
  char *calls = read_in(t, "calls");
  int count = 0;
  for (const char *p = calls; *p; p++) count += *p == '\n';
  free(calls);
  return count;
}

/* As another invocation finds them. */
static void find_again(bench *b) {
  for (int i = 0; i < TRIALS; i++) find(&b->memory, b->list[i]);
}

static void tear_down(bench *b) {
  for (int i = 0; i < TRIALS; i++) trial_free(&b->trials[i]);
  arena_free(&b->memory);
}

static void a_failed_trial_stops_no_other(void **state) {
  (void)state;
  static const char *const pipelines[] = {"bad", "killed", "mute", "good"};
  bench b;
  set_up(&b, 1, pipelines);
  for (int round = 0; round < 2; round++) {
    expect_ok(trials_run(b.list, TRIALS, &b.o));
    find_again(&b);
    assert_int_equal(b.trials[0].state, TRIAL_FAILED);
    assert_string_equal(b.trials[0].error, "p.yaml:2:3: error: no such thing");
    assert_int_equal(b.trials[1].state, TRIAL_FAILED);
    assert_non_null(strstr(b.trials[1].error, "signal 9"));
    assert_int_equal(b.trials[2].state, TRIAL_FAILED);
    assert_non_null(strstr(b.trials[2].error, "status 3"));
    assert_int_equal(b.trials[3].state, TRIAL_DONE);
  }
  assert_int_equal(calls_of(&b.trials[0]), 2);
  assert_int_equal(calls_of(&b.trials[3]), 1); /* what is done is not done again */
  tear_down(&b);
}

static void a_trial_that_ran_something_else_has_failed(void **state) {
  (void)state;
  static const char *const pipelines[] = {"changed", "good", "good", "good"};
  bench b;
  set_up(&b, 1, pipelines);
  expect_ok(trials_run(b.list, TRIALS, &b.o));
  assert_int_equal(b.trials[0].state, TRIAL_FAILED);
  assert_non_null(strstr(b.trials[0].error, "changed after the study had begun"));
  for (int i = 1; i < TRIALS; i++) assert_int_equal(b.trials[i].state, TRIAL_DONE);
  tear_down(&b);
}

static void a_trial_that_was_begun_is_resumed(void **state) {
  (void)state;
  static const char *const pipelines[] = {"good", "good", "good", "good"};
  bench b;
  set_up(&b, 2, pipelines);
  for (int i = 0; i < 2; i++) {
    b.trials[i].state = TRIAL_BEGUN;
    expect_ok(trial_record(&b.trials[i]));
  }
  write_in(&b.trials[1], "run.json", "{}");
  b.trials[1].overrides = (override[]){{"seed", "2"}, {"data.root", "it's here"}};
  b.trials[1].override_count = 2;
  expect_ok(trials_run(b.list, TRIALS, &b.o));
  /* One that had not got as far as a run starts anew. */
  static const char *const ends[] = {" --threads 3\n", " --threads 3 --resume\n"};
  for (int i = 0; i < 2; i++) {
    char *calls = read_in(&b.trials[i], "calls");
    assert_true(text_ends_with(calls, ends[i]));
    free(calls);
  }
  /* The log holds the command as a shell takes it. */
  char *log = read_in(&b.trials[1], "log.txt");
  assert_non_null(
      strstr(log, "$ strata run good --set seed=2 --set 'data.root=it'\\''s here' --out "));
  free(log);
  tear_down(&b);
}

static void as_many_run_at_a_time_as_asked_for(void **state) {
  (void)state;
  /* Each of these waits for another one. */
  static const char *const pipelines[] = {"meet", "meet", "good", "bad"};
  bench b;
  set_up(&b, 2, pipelines);
  expect_ok(trials_run(b.list, TRIALS, &b.o));
  for (int i = 0; i < 3; i++) assert_int_equal(b.trials[i].state, TRIAL_DONE);
  assert_int_equal(b.trials[3].state, TRIAL_FAILED);
  tear_down(&b);
}

static void a_stop_reaches_those_that_run_and_begins_no_other(void **state) {
  (void)state;
  static const char *const pipelines[] = {"good", "slow", "slow", "good"};
  bench b;
  set_up(&b, 2, pipelines);
  status error = trials_run(b.list, TRIALS, &b.o);
  assert_non_null(error);
  assert_int_equal(error_code_of(error), ERROR_INTERRUPTED);
  assert_non_null(strstr(error_message(error), "of 4 trials done"));
  error_free(error);
  find_again(&b);
  assert_int_equal(b.trials[1].state, TRIAL_BEGUN);
  assert_int_equal(b.trials[3].state, TRIAL_NEW);
  assert_false(is_in(&b.trials[3], "trial.json"));
  tear_down(&b);
}

static void another_program_at_the_same_trial_is_waited_for(void **state) {
  (void)state;
  static const char *const pipelines[] = {"slow", "good", "good", "good"};
  bench b;
  set_up(&b, 2, pipelines);
  /* The other one ends, with success, a moment after everything else here is done. */
  trial theirs = b.trials[0];
  expect_ok(folder_create(theirs.folder));
  char *lock = trial_file(&theirs, "trial.lock");
  char command[1200];
  snprintf(command, sizeof command,
           "flock '%s' sh -c 'touch \"%s.held\"; while [ ! -e \"%s/calls\" ]; do sleep 0.02; done; "
           "sleep 0.2; mv \"%s.json\" \"%s/trial.json\"' &",
           lock, theirs.folder, b.trials[3].folder, theirs.folder, theirs.folder);
  theirs.state = TRIAL_DONE;
  expect_ok(trial_record(&theirs));
  char *record = trial_file(&theirs, "trial.json"), aside[600];
  snprintf(aside, sizeof aside, "%s.json", theirs.folder);
  assert_int_equal(rename(record, aside), 0);
  assert_int_equal(system(command), 0);
  snprintf(aside, sizeof aside, "%s.held", theirs.folder);
  while (!file_exists(aside)) usleep(5000);
  expect_ok(trials_run(b.list, TRIALS, &b.o));
  for (int i = 0; i < TRIALS; i++) assert_int_equal(b.trials[i].state, TRIAL_DONE);
  assert_false(is_in(&b.trials[0], "calls"));
  free(record);
  free(lock);
  tear_down(&b);
}

static void a_trial_in_the_list_twice_runs_once(void **state) {
  (void)state;
  static const char *const pipelines[] = {"good", "good", "good", "good"};
  bench b;
  set_up(&b, 3, pipelines);
  b.trials[1].key = b.trials[0].key;
  find_again(&b);
  expect_ok(trials_run(b.list, TRIALS, &b.o));
  for (int i = 0; i < TRIALS; i++) assert_int_equal(b.trials[i].state, TRIAL_DONE);
  assert_int_equal(calls_of(&b.trials[0]), 1);
  tear_down(&b);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(a_new_trial_has_a_name_for_its_folder_and_no_folder, begin,
                                      end),
      cmocka_unit_test_setup_teardown(what_was_recorded_is_found_whatever_the_trial_is_called,
                                      begin, end),
      cmocka_unit_test_setup_teardown(keys_that_begin_alike_have_folders_of_their_own, begin, end),
      cmocka_unit_test_setup_teardown(a_trial_without_its_evaluation_is_not_done, begin, end),
      cmocka_unit_test_setup_teardown(a_damaged_record_is_no_record, begin, end),
      cmocka_unit_test_setup_teardown(work_is_counted_from_the_last_line_of_the_log, begin, end),
      cmocka_unit_test_setup_teardown(a_failed_trial_stops_no_other, begin, end),
      cmocka_unit_test_setup_teardown(a_trial_that_ran_something_else_has_failed, begin, end),
      cmocka_unit_test_setup_teardown(a_trial_that_was_begun_is_resumed, begin, end),
      cmocka_unit_test_setup_teardown(as_many_run_at_a_time_as_asked_for, begin, end),
      cmocka_unit_test_setup_teardown(a_stop_reaches_those_that_run_and_begins_no_other, begin,
                                      end),
      cmocka_unit_test_setup_teardown(another_program_at_the_same_trial_is_waited_for, begin, end),
      cmocka_unit_test_setup_teardown(a_trial_in_the_list_twice_runs_once, begin, end),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
