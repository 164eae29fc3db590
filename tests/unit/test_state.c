/* Training state on disk, and weights that move from one stage to the next. */
#include "step_fixture.h"

#include "run/state.h"
#include "run/weights.h"
#include "train/transfer.h"

#define STATE_FILE "strata-test-state.safetensors"
#define WEIGHTS_FILE "strata-test-weights.safetensors"

static int remove_files(void **state) {
  (void)state;
  remove(STATE_FILE);
  remove(WEIGHTS_FILE);
  return 0;
}

/* ---- state ----------------------------------------------------------------------------------- */

static void every_number_comes_back_with_its_bits(void **state) {
  (void)state;
  pipeline *p = load_tiny(NULL, NULL);
  compiled c;
  compile_tiny(&c, p, 0, 1);
  char hook[] = "{\"best\": 0.1, \"names\": [\"a\\\"b\", \"ü\"]}";
  run_state saved = {.stage = 1,
                     .epoch = 7,
                     .step = 3,
                     .updates = ((int64_t)1 << 40) + 1,
                     .elapsed_s = 0.1,
                     .sums = {{"loss", 1.0 / 3}, {"tiny", 5e-324}, {"lost", INFINITY}},
                     .sum_count = 3,
                     .numbers = {{"loss.context.weight", 0.7}},
                     .number_count = 1,
                     .measured = {{"validation.dice", 1.0 / 7}},
                     .measured_count = 1,
                     .hook_states = {[HOOK_VALIDATION] = hook},
                     .ended = "enough",
                     .identity = 0xfedcba9876543210u};
  must(state_save(STATE_FILE, &saved, &c.program));
  run_state got;
  must(state_open(STATE_FILE, &got));
  assert_int_equal(got.stage, saved.stage);
  assert_int_equal(got.epoch, saved.epoch);
  assert_int_equal(got.step, saved.step);
  assert_true(got.updates == saved.updates && got.identity == saved.identity);
  assert_true(got.elapsed_s == saved.elapsed_s);
  assert_int_equal(got.sum_count, 3);
  for (int i = 0; i < 3; i++) {
    assert_string_equal(got.sums[i].name, saved.sums[i].name);
    assert_true(got.sums[i].value == saved.sums[i].value);
  }
  assert_int_equal(got.number_count, 1);
  assert_true(got.numbers[0].value == 0.7);
  assert_int_equal(got.measured_count, 1);
  assert_true(got.measured[0].value == 1.0 / 7);
  assert_string_equal(got.hook_states[HOOK_VALIDATION], hook);
  assert_null(got.hook_states[HOOK_EPOCH_END]);
  assert_string_equal(got.ended, "enough");
  state_free(&got);
  release_tiny(&c);
  pipeline_free(p);
}

static void expect_not_finite(status error, const char *kind, const char *name, const char *what) {
  char expected[300];
  snprintf(expected, sizeof expected, "%s%s became %s", kind, name, what);
  assert_int_equal(error_code_of(error), ERROR_NUMERIC);
  assert_string_equal(error_message(error), expected);
  error_free(error);
}

/* Among the parameters or the moments, a value that is not finite keeps the last state where it is. */
static void a_state_that_is_not_finite_is_not_written(void **state) {
  (void)state;
  pipeline *p = load_tiny(NULL, NULL);
  compiled c;
  compile_tiny(&c, p, 0, 1);
  run_state s = {.updates = 1}, got;
  must(state_save(STATE_FILE, &s, &c.program));
  const parameter *last = NULL;
  for (int i = 0; i < c.parameters.count; i++)
    if (c.parameters.list[i].trained) last = &c.parameters.list[i];
  float *moment = c.program.states[1] + last->offset, *weight = c.parameters.data + last->offset;
  s.updates = 2;
  *moment = -INFINITY;
  expect_not_finite(state_save(STATE_FILE, &s, &c.program), "optimizer1/", last->name, "infinite");
  *weight = NAN;
  expect_not_finite(state_save(STATE_FILE, &s, &c.program), "parameter/", last->name, "NaN");
  expect_not_finite(parameters_write(STATE_FILE, &c.parameters, NULL), "", last->name, "NaN");
  must(state_open(STATE_FILE, &got));
  assert_true(got.updates == 1);
  state_free(&got);
  release_tiny(&c);
  pipeline_free(p);
}

/* A script's reason is any bytes: it must not cost the state. */
static void a_reason_that_is_no_text_is_kept_as_far_as_it_is(void **state) {
  (void)state;
  pipeline *p = load_tiny(NULL, NULL);
  compiled c;
  compile_tiny(&c, p, 0, 1);
  run_state saved = {.ended = "caf\xe9", .end = END_HOOK}, got;
  must(state_save(STATE_FILE, &saved, &c.program));
  must(state_open(STATE_FILE, &got));
  assert_string_equal(got.ended, "caf?");
  assert_int_equal(got.end, END_HOOK);
  state_free(&got);
  release_tiny(&c);
  pipeline_free(p);
}

static void a_restored_program_goes_on_to_the_same_bits(void **state) {
  (void)state;
  pipeline *p = load_tiny_updates();
  for (int stage = 0; stage < 2;
       stage++) { /* AdamW with two moments; SGD with one, and all the rest */
    compiled whole, resumed;
    compile_tiny(&whole, p, stage, 2);
    step_tiny(&whole, 3);
    run_state s = {.stage = stage, .updates = whole.program.updates};
    must(state_save(STATE_FILE, &s, &whole.program));
    compile_tiny(&resumed, p, stage, 1);
    must(parameters_initialize(&resumed.parameters, 99));
    must(state_restore(STATE_FILE, &resumed.program));
    resumed.program.updates = s.updates;
    resumed.data = whole.data;
    step_tiny(&whole, 3);
    step_tiny(&resumed, 3);
    assert_true(digest_tiny(&whole) == digest_tiny(&resumed));
    release_tiny(&whole);
    release_tiny(&resumed);
  }
  pipeline_free(p);
}

static void another_stage_or_a_damaged_file_is_refused(void **state) {
  (void)state;
  pipeline *p = load_tiny(NULL, NULL);
  compiled first, second;
  compile_tiny(&first, p, 0, 1);
  compile_tiny(&second, p, 1, 1);
  run_state s = {.stage = 1}, got;
  must(state_save(STATE_FILE, &s, &second.program));
  must_fail(state_restore(STATE_FILE, &first.program), "lacks");
  char *data;
  size_t length;
  must(file_read(STATE_FILE, 64 << 20, &data, &length));
  static const size_t cuts[] = {0, 7, 100, 5000};
  for (int i = 0; i < 4; i++) {
    must(file_write_atomic(STATE_FILE, data, cuts[i]));
    must_fail(state_open(STATE_FILE, &got), STATE_FILE);
  }
  must(file_write_atomic(STATE_FILE, data, length - 4));
  must_fail(state_restore(STATE_FILE, &second.program), STATE_FILE);
  free(data);
  /* A weight file is no state. */
  must(parameters_write(STATE_FILE, &first.parameters, NULL));
  must_fail(state_open(STATE_FILE, &got), "is not a training state");
  remove(STATE_FILE);
  must_fail(state_open(STATE_FILE, &got), STATE_FILE);
  release_tiny(&first);
  release_tiny(&second);
  pipeline_free(p);
}

/* ---- transfer -------------------------------------------------------------------------------- */

typedef struct lines {
  int loaded, reset, unused, missing, mismatch;
} lines;

static void count_line(void *context, const char *text) {
  lines *l = context;
  l->loaded += text_starts_with(text, "  loaded ");
  l->reset += text_starts_with(text, "  reset ");
  l->unused += text_starts_with(text, "  unused ");
  l->missing += text_starts_with(text, "  missing ");
  l->mismatch += text_starts_with(text, "  mismatch ");
}

/* Writes the weights of one stage, with values that tell them from fresh ones. */
static void write_stage(pipeline *p, int stage) {
  compiled c;
  compile_tiny(&c, p, stage, 1);
  for (int i = 0; i < c.parameters.count; i++) {
    const parameter *x = &c.parameters.list[i];
    for (int64_t k = 0; k < shape_elements(&x->shape); k++)
      c.parameters.data[x->offset + k] = (float)(i + 1);
  }
  must(parameters_write(WEIGHTS_FILE, &c.parameters, NULL));
  release_tiny(&c);
}

static status transfer(compiled *c, const char *reset, lines *l) {
  *l = (lines){0};
  reporter report = {.line = count_line, .context = l};
  source_pos at = NOWHERE;
  stage_spec rules = {.reset = &reset, .reset_at = &at, .reset_count = reset ? 1 : 0};
  return transfer_weights(WEIGHTS_FILE, &c->graph, &rules, &c->parameters, &report);
}

static bool is_fresh(const compiled *c, const char *name) {
  const parameter *x = parameters_find(&c->parameters, name);
  assert_non_null(x);
  float first = c->parameters.data[x->offset];
  return first != floorf(first) || first == 0;
}

static void everything_but_the_head_is_transferred(void **state) {
  (void)state;
  pipeline *p = load_tiny(NULL, NULL);
  write_stage(p, 0);
  /* A result of the graph stands for the layer that makes it; a prefix for what is named so. */
  static const char *const ways[] = {"net.out", "out.conv.conv", "out", "out.conv.conv.weight"};
  for (int i = 0; i < 4; i++) {
    compiled c;
    lines l;
    compile_tiny(&c, p, 1, 1);
    status error = transfer(&c, ways[i], &l);
    if (i == 3) {
      must_fail(error, "parameter out.conv.conv.bias is 3 here but 1 in " WEIGHTS_FILE);
      assert_int_equal(l.mismatch, 1);
    } else {
      must(error);
      assert_int_equal(l.reset, 2);
      assert_int_equal(l.loaded, c.parameters.count - 2);
      assert_int_equal(l.unused, 8); /* heads of the order loss: four levels, weight and bias */
      assert_int_equal(l.missing, 0);
      assert_true(is_fresh(&c, "out.conv.conv.weight"));
      assert_false(is_fresh(&c, "vit.blocks.3.mlp.linear2.weight"));
      assert_false(is_fresh(&c, "decoder2.conv_block.conv2.conv.weight"));
    }
    release_tiny(&c);
  }
  pipeline_free(p);
}

static void what_does_not_fit_is_an_error_that_names_it(void **state) {
  (void)state;
  pipeline *p = load_tiny(NULL, NULL), *wide = load_tiny("model.with.layers", "8");
  compiled c;
  lines l;
  /* The other way round the heads of the order loss are missing. */
  write_stage(p, 1);
  compile_tiny(&c, p, 0, 1);
  must_fail(transfer(&c, "net.out", &l),
            "8 parameters are not in " WEIGHTS_FILE ": loss.structure.heads.0.weight");
  assert_int_equal(l.missing, 8);
  must_fail(transfer(&c, "net.outt", &l), "net.outt");
  must_fail(transfer(&c, "vit.bloc", &l), "vit.bloc"); /* prefixes end at a dot */
  release_tiny(&c);
  /* A deeper network starts fresh where the file ends, if it may. */
  write_stage(p, 1);
  compile_tiny(&c, wide, 1, 1);
  must_fail(transfer(&c, NULL, &l), "vit.blocks.4.norm1.bias (24)");
  l = (lines){0};
  stage_spec rules = {.missing_fresh = true};
  reporter report = {.line = count_line, .context = &l};
  must(transfer_weights(WEIGHTS_FILE, &c.graph, &rules, &c.parameters, &report));
  assert_int_equal(l.reset, 4 * 11);
  assert_true(is_fresh(&c, "vit.blocks.4.mlp.linear1.weight"));
  assert_false(is_fresh(&c, "vit.blocks.3.mlp.linear1.weight"));
  release_tiny(&c);
  /* A deeper network leaves weights over. */
  write_stage(wide, 1);
  compile_tiny(&c, p, 1, 1);
  must_fail(transfer(&c, NULL, &l),
            "holds 44 tensors that this network does not have: vit.blocks.4.attn.out_proj.bias");
  assert_int_equal(l.unused, 4 * 11);
  release_tiny(&c);
  pipeline_free(p);
  pipeline_free(wide);
}

static void mistakes_are_known_from_the_graphs_alone(void **state) {
  (void)state;
  pipeline *p = load_tiny(NULL, NULL), *wide = load_tiny("model.with.layers", "8");
  stage_graph first, second, deeper;
  expand_tiny(p, 0, true, NULL, &first);
  expand_tiny(p, 1, true, NULL, &second);
  expand_tiny(wide, 1, true, NULL, &deeper);
  stage_spec head = {.reset = (const char *[]){"net.out"}, .reset_count = 1};
  source_pos at = {"typo.yaml", 3, 5};
  stage_spec typo = {.reset = (const char *[]){"net.outt"}, .reset_at = &at, .reset_count = 1};
  stage_spec all = {0};
  must(transfer_check(&second, &head, &first, "pretrain"));
  must_fail(transfer_check(&second, &typo, &first, "pretrain"), "net.outt");
  must_fail(transfer_check(&second, &all, &first, "pretrain"),
            "2 parameters have another shape than in stage \"pretrain\": out.conv.conv.weight is "
            "3×2×1×1×1 here but 1×2×1×1×1, out.conv.conv.bias is 3 here but 1;");
  must_fail(transfer_check(&deeper, &head, &first, "pretrain"),
            "44 parameters are not in stage \"pretrain\": vit.blocks.4.norm1.weight (24)");
  head.missing_fresh = true;
  must(transfer_check(&deeper, &head, &first, "pretrain"));
  head.missing_fresh = false;
  /* The same of a file. */
  write_stage(p, 0);
  head.init_from = typo.init_from = all.init_from = WEIGHTS_FILE;
  must(transfer_check_file(&second, &head));
  must_fail(transfer_check_file(&second, &typo), "net.outt");
  must_fail(transfer_check_file(&second, &all), ": out.conv.conv.weight is 3×2×1×1×1");
  must_fail(transfer_check_file(&deeper, &head), ": vit.blocks.4.norm1.weight (24)");
  head.missing_fresh = true;
  must(transfer_check_file(&deeper, &head));
  head.missing_fresh = false;
  must_fail(transfer_check(&second, &head, &deeper, "other"),
            "stage \"other\" holds 44 tensors that this network does not have: "
            "vit.blocks.4.norm1.weight");
  stage_graph_free(&first);
  stage_graph_free(&second);
  stage_graph_free(&deeper);
  pipeline_free(p);
  pipeline_free(wide);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_teardown(every_number_comes_back_with_its_bits, remove_files),
      cmocka_unit_test_teardown(a_state_that_is_not_finite_is_not_written, remove_files),
      cmocka_unit_test_teardown(a_reason_that_is_no_text_is_kept_as_far_as_it_is, remove_files),
      cmocka_unit_test_teardown(a_restored_program_goes_on_to_the_same_bits, remove_files),
      cmocka_unit_test_teardown(another_stage_or_a_damaged_file_is_refused, remove_files),
      cmocka_unit_test_teardown(everything_but_the_head_is_transferred, remove_files),
      cmocka_unit_test_teardown(what_does_not_fit_is_an_error_that_names_it, remove_files),
      cmocka_unit_test_teardown(mistakes_are_known_from_the_graphs_alone, remove_files),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
