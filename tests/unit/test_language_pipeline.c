#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <jansson.h>

#include "base/text.h"
#include "language/pipeline.h"

static const char base[] = TEST_DATA "/pipelines/base.yaml";

static pipeline *load(const char *path, const override *set, int count) {
  pipeline *p;
  status error = pipeline_load(path, set, count, &p);
  if (error) error_print(stderr, error);
  assert_null(error);
  return p;
}

static uint64_t identity_with(const char *key, const char *value) {
  override set = {key, value};
  pipeline *p = load(base, &set, key ? 1 : 0);
  uint64_t identity = p->identity;
  pipeline_free(p);
  return identity;
}

static void a_pipeline_is_read_with_its_defaults(void **state) {
  (void)state;
  pipeline *p = load(base, NULL, 0);
  assert_string_equal(p->name, "base");
  assert_int_equal(p->seed, 3);
  assert_string_equal(p->device, "auto");
  assert_string_equal(p->data.dataset, TEST_DATA "/pipelines/data/dataset.json");
  assert_true(p->data.split[0] == 0.5);
  assert_int_equal(p->data.prepare_count, 2);
  assert_int_equal(p->data.sample_count, 2);
  assert_string_equal(p->data.sample[0].op->name, "random_crop");
  assert_int_equal(p->data.crops_per_case, 1);
  assert_int_equal(p->data.loader_threads, 2);
  assert_int_equal(p->data.queue, 4);
  assert_non_null(tree_get(p->model.root, "graph"));
  assert_string_equal(tree_get(p->model_arguments, "features")->text, "4");
  assert_int_equal(p->stage_count, 2);
  const stage_spec *first = &p->stages[0], *second = &p->stages[1];
  assert_string_equal(first->optimizer.op->name, "adamw");
  assert_int_equal(first->epochs, 2);
  assert_int_equal(first->batch, 1);
  assert_true(first->enabled);
  assert_null(first->init_from);
  assert_string_equal(second->init_from, "pretrain");
  assert_int_equal(second->reset_count, 1);
  assert_string_equal(second->reset[0], "net.out");
  assert_int_equal(second->schedule_count, 1);
  assert_string_equal(second->schedules[0].target, "lr");
  assert_non_null(second->schedules[0].script.source);
  assert_int_equal(second->schedules[0].script.arguments->count, 1);
  assert_int_equal(second->validate_every, 1);
  assert_string_equal(second->output, "net.out");
  assert_true(p->evaluate.enabled && p->evaluate.metrics == METRICS_DEFAULT);
  assert_int_equal(p->evaluate.windows.size[2], 16);
  assert_string_equal(p->evaluate.stage, "segment");
  assert_string_equal(p->evaluate.output, "net.out");
  /* Graphs keep their expressions for the expander. */
  const tree *item = tree_get(first->graph->items[0], "shuffled");
  assert_string_equal(tree_get(item, "slabs")->text, "${slabs}");
  pipeline_free(p);
}

static void overrides_reach_every_place(void **state) {
  (void)state;
  static const override set[] = {
      {"slabs", "4"},
      {"params.roi", "[32, 32, 16]"},
      {"roi.2", "8"},
      {"seed", "9"},
      {"data.crops_per_case", "${slabs * 2}"},
      {"data.sample.random_flip.probability", "0.25"},
      {"data.prepare.crop_foreground.margin", "3"},
      {"data.cache", "none"},
      {"stages.pretrain.enabled", "false"},
      {"stages.segment.epochs", "5"},
      {"stages.segment.optimizer.adamw.weight_decay", "0.5"},
      {"stages.segment.schedule", ""},
      {"stages.segment.time_limit", "2h"},
      {"stages.pretrain.graph.shuffled.axis", "x"},
      {"model.with.features", "6"},
      {"evaluate.inferer.sliding_window.blend", "gaussian"},
      {"evaluate.hd95", "pooled"},
  };
  pipeline *p = load(base, set, sizeof set / sizeof set[0]);
  assert_int_equal(p->seed, 9);
  assert_int_equal(p->data.crops_per_case, 8);
  assert_true(p->data.no_cache);
  assert_false(p->stages[0].enabled);
  assert_int_equal(p->stages[1].epochs, 5);
  assert_int_equal(p->stages[1].schedule_count, 0);
  assert_true(p->stages[1].time_limit_s == 7200);
  /* Its source is disabled: fresh weights, and the run can say so. */
  assert_null(p->stages[1].init_from);
  assert_string_equal(p->stages[1].init_skipped, "pretrain");
  assert_string_equal(tree_get(tree_get(p->stages[0].graph->items[0], "shuffled"), "axis")->text,
                      "x");
  assert_string_equal(tree_get(p->model_arguments, "features")->text, "6");
  assert_int_equal(p->evaluate.windows.size[0], 32);
  assert_int_equal(p->evaluate.windows.size[2], 8);
  assert_int_equal(p->evaluate.windows.blend, BLEND_GAUSSIAN);
  assert_true(p->evaluate.hd95_pooled);
  pipeline_free(p);
}

static void assert_value(pipeline *p, const char *key, const char *text) {
  const tree *value = pipeline_value(p, key);
  if (!text) {
    assert_null(value);
    return;
  }
  assert_non_null(value);
  text_buffer shown = {0};
  tree_write(value, &shown, 0);
  assert_non_null(strstr(shown.data, text));
  text_free(&shown);
}

static void values_are_read_by_the_keys_that_set_them(void **state) {
  (void)state;
  override set[] = {{"slabs", "4"}, {"stages.pretrain.graph.shuffled.axis", "x"}};
  pipeline *p = load(base, set, 2);
  assert_value(p, "slabs", "4");
  assert_value(p, "params.slabs", "4");
  assert_value(p, "roi.1", "16");
  assert_value(p, "seed", "3");
  assert_value(p, "stages.pretrain.epochs", "2");
  assert_value(p, "stages.0.pretrain.epochs", "2");
  assert_value(p, "stages.pretrain.graph.shuffled.slabs", "4");
  assert_value(p, "stages.pretrain.graph.shuffled.axis", "x");
  assert_value(p, "stages.segment.graph.net.outputs", "${classes}"); /* known with the data */
  assert_value(p, "evaluate.inferer.sliding_window.size", "[16, 16, 16]");
  static const char *const absent[] = {"",         "sloobs", "stages.nowhere",
                                       "stages.9", "seed.x", "stages.pretrain.epochs.0",
                                       "roi.7",    "."};
  for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) assert_value(p, absent[i], NULL);
  pipeline_free(p);
}

static void wrong_overrides_name_themselves(void **state) {
  (void)state;
  static const struct {
    override set;
    const char *message;
  } cases[] = {
      {{"slbas", "4"}, "there is no \"slbas\" to set; did you mean \"slabs\"?"},
      {{"params.new", "4"}, "there is no \"new\" to set"},
      {{"stages.pretran.epochs", "4"}, "did you mean \"pretrain\"?"},
      {{"stages.pretrain.epoch", "4"}, "has no key \"epoch\"; did you mean \"epochs\"?"},
      {{"stages.pretrain.epochs", "-1"}, "must be from 0"},
      {{"stages.9.x", "0"}, "the list has 2 items"},
      {{"data.rot", "x"}, "data has no key \"rot\"; did you mean \"root\"?"},
      {{"data.root", "/nowhere"}, "There is no data set /nowhere/data/dataset.json."},
      {{"model.with.hidden", "4"}, "The model has no parameter \"hidden\""},
      {{"model.use", "nowhere.yaml"}, "There is no file nowhere.yaml"},
      {{"seed", "many"}, "seed: expected an integer"},
      {{"seed", "[1"}, "the value: "},
      {{"name", "run #3"}, "the value: YAML takes \"#3\" for a comment"},
      {{"seed.x", "1"}, "inside of a plain value"},
      {{"seed", "${nothing}"}, "\"nothing\" is not defined"},
      {{"", "1"}, "is not a key"},
      {{"a..b", "1"}, "is not a key"},
      {{"use", "x.yaml"}, "can only be set in the file"},
      {{"slabs", "${roi"}, "has no \"}\""},
      {{"rate", "fast"}, "needs numbers, not text"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    pipeline *p;
    status error = pipeline_load(base, &cases[i].set, 1, &p);
    assert_non_null(error);
    assert_null(p);
    if (!strstr(error_message(error), cases[i].message))
      print_error("%s: %s\n", cases[i].set.key, error_message(error));
    assert_non_null(strstr(error_message(error), cases[i].message));
    if (strcmp(cases[i].set.key, "rate") != 0) { /* used in arithmetic: wrong where it is used */
      assert_non_null(error_position(error).file);
      assert_true(text_starts_with(error_position(error).file, "--set "));
    }
    error_free(error);
  }
}

static void the_data_root_of_an_override_starts_from_the_working_folder(void **state) {
  (void)state;
  char folder[] = "strata-root-XXXXXX", path[200];
  assert_non_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/data", folder);
  assert_int_equal(mkdir(path, 0777), 0);
  snprintf(path, sizeof path, "%s/data/dataset.json", folder);
  FILE *out = fopen(path, "w");
  fclose(out);
  assert_int_equal(chdir(folder), 0);
  override set = {"data.root", "."};
  pipeline *p = load(base, &set, 1);
  assert_string_equal(p->data.dataset, "data/dataset.json");
  assert_true(text_starts_with(tree_get(tree_get(p->resolved, "data"), "root")->text, "/"));
  pipeline_free(p);
  assert_int_equal(chdir(".."), 0);
  unlink(path);
  snprintf(path, sizeof path, "%s/data", folder);
  rmdir(path);
  rmdir(folder);
}

/* What was read and written again is the same run. */
static void assert_resolves_to_itself(const pipeline *p) {
  text_buffer text = {0}, again = {0};
  tree_write(p->resolved, &text, 0);
  char path[] = "strata-resolved-XXXXXX";
  int fd = mkstemp(path);
  assert_int_equal(write(fd, text.data, text.length), text.length);
  close(fd);
  pipeline *q = load(path, NULL, 0);
  unlink(path);
  tree_write(q->resolved, &again, 0);
  assert_string_equal(text.data, again.data);
  assert_int_equal(p->identity, q->identity);
  for (int i = 0; i < p->stage_count; i++)
    for (int k = 0; k < p->stages[i].params.count; k++) {
      const char *name = p->stages[i].params.names[k];
      assert_string_equal(p->stages[i].params.values[k]->text,
                          scope_get(&q->stages[i].params, name)->text);
    }
  text_free(&text);
  text_free(&again);
  pipeline_free(q);
}

static void the_resolved_file_loads_from_anywhere_as_the_same_run(void **state) {
  (void)state;
  static const override set[] = {{"slabs", "4"}, {"name", "other"}};
  pipeline *p = load(base, set, 2);
  assert_resolves_to_itself(p);
  pipeline_free(p);
}

static void stages_can_be_taken_from_other_pipelines(void **state) {
  (void)state;
  pipeline *p = load(TEST_DATA "/pipelines/taken_same.yaml", NULL, 0);
  assert_int_equal(p->identity, identity_with(NULL, NULL));
  pipeline_free(p);

  p = load(TEST_DATA "/pipelines/taken.yaml", NULL, 0);
  const stage_spec *first = pipeline_stage(p, "first"), *second = pipeline_stage(p, "second");
  assert_int_equal(first->epochs, 5);
  assert_true(first->clip_norm == 0);
  assert_string_equal(scope_get(&first->params, "parts")->text, "4");
  assert_string_equal(scope_get(&first->params, "whole")->text, "8");
  assert_string_equal(scope_get(&first->params, "axis")->text, "x");
  assert_string_equal(scope_get(&first->params, "price")->text, "4$");
  assert_string_equal(scope_get(&first->params, "roi")->items[0]->text, "16"); /* of the file */
  assert_null(scope_get(&second->params, "parts"));
  assert_string_equal(second->init_from, "first");
  assert_true(second->missing_fresh);
  assert_int_equal(second->reset_count, 1);
  assert_int_equal(second->schedule_count, 1);
  assert_resolves_to_itself(p);
  uint64_t identity = p->identity;
  pipeline_free(p);

  static const override set[] = {{"stages.first.params.parts", "8"}};
  p = load(TEST_DATA "/pipelines/taken.yaml", set, 1);
  assert_int_equal(pipeline_stage(p, "first")->epochs, 9);
  assert_string_equal(scope_get(&p->stages[0].params, "whole")->text, "16");
  assert_int_not_equal(p->identity, identity);
  pipeline_free(p);

  static const override late[] = {{"stages.first.use", "base.yaml"}};
  status error = pipeline_load(TEST_DATA "/pipelines/taken.yaml", late, 1, &p);
  assert_non_null(strstr(error_message(error), "\"use\" can only be set in the file"));
  error_free(error);
}

static void inference_is_read_as_written(void **state) {
  (void)state;
#define WINDOW "evaluate.inferer.sliding_window."
  static const override set[] = {
      {WINDOW "overlap", ""},
      {WINDOW "step", "[0.25, 6, 1]"},
      {WINDOW "memory", "1.5 GiB"},
      {WINDOW "mirror", "[z, x]"},
      {WINDOW "blend", "gaussian_nnunet"},
      {WINDOW "batch", "4"},
      {WINDOW "average", "probabilities"},
      {"evaluate.postprocess", "[keep_largest: {applied_labels: [1, 3]}, fill_holes]"},
  };
  pipeline *p = load(base, set, sizeof set / sizeof set[0]);
  const window_spec *w = &p->evaluate.windows;
  assert_true(w->step[0] == 4 && w->step[1] == 6 && w->step[2] == 16);
  assert_true(w->mirror[0] && !w->mirror[1] && w->mirror[2]);
  assert_int_equal(w->blend, BLEND_GAUSSIAN_NNUNET);
  assert_int_equal(w->batch, 4);
  assert_int_equal(w->memory_bytes, (int64_t)3 << 29);
  assert_true(w->average_probabilities && w->sigma_scale == 0.125);
  const evaluate_spec *e = &p->evaluate;
  assert_int_equal(e->postprocess_count, 2);
  assert_string_equal(e->postprocess[0].op->name, "keep_largest");
  assert_string_equal(e->postprocess[1].op->name, "fill_holes");
  const int_list *classes = attr_integers(e->postprocess[0].op, e->postprocess[0].attrs, "classes");
  assert_true(classes->count == 2 && classes->at[0] == 1 && classes->at[1] == 3);
  assert_non_null(
      tree_get(tree_get(tree_get(p->resolved, "evaluate"), "postprocess")->items[0]->items[0],
               "classes")); /* our name for it */
  pipeline_free(p);
  p = load(base, NULL, 0);
  assert_true(p->evaluate.postprocess_count == 0 && p->evaluate.windows.batch == 1);
  pipeline_free(p);
}

static void identity_follows_what_changes_results(void **state) {
  (void)state;
  static const override same[] = {
      {"name", "x"},         {"threads", "2"},          {"data.queue", "9"},
      {"data.cache", "c"},   {"seed", "3.0"},           {"rate", "0.0001"},
      {WINDOW "batch", "3"}, {WINDOW "memory", "2GiB"}, {"stages.pretrain.checkpoint.every", "5"}};
  static const override other[] = {{"seed", "4"},
                                   {"slabs", "4"},
                                   {"model.with.features", "5"},
                                   {"stages.segment.enabled", "false"},
                                   {"stages.segment.precision", "bf16"},
                                   {WINDOW "mirror", "x"},
                                   {"evaluate.postprocess", "[keep_largest]"},
                                   {"data.sample.random_flip.axes", "[x]"},
                                   {"stages.segment.schedule.lua", "poly"},
                                   {"stages.pretrain.graph.shuffled.axis", "x"}};
  uint64_t identity = identity_with(NULL, NULL);
  for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
    assert_int_equal(identity_with(same[i].key, same[i].value), identity);
  for (size_t i = 0; i < sizeof other / sizeof other[0]; i++)
    assert_int_not_equal(identity_with(other[i].key, other[i].value), identity);
#define OWN_MODEL                                                                                  \
  "{inputs: [image], params: {outputs: required}, outputs: {out: head}, "                          \
  "graph: [head: {conv3d: image, features: '${outputs}', kernel: 1}]"
  assert_int_equal(identity_with("model", OWN_MODEL ", unused: [heads.*]}"),
                   identity_with("model", OWN_MODEL "}"));
}

static void words_of_monai_and_nnunet_mean_ours(void **state) {
  (void)state;
  pipeline *theirs = load(TEST_DATA "/pipelines/words.yaml", NULL, 0);
  pipeline *ours = load(TEST_DATA "/pipelines/own_words.yaml", NULL, 0);
  assert_true(theirs->identity == ours->identity);
  assert_true(theirs->identity != identity_with(NULL, NULL));
  text_buffer text = {0};
  tree_write(theirs->resolved, &text, 0);
  assert_null(strstr(text.data, "prob:"));
  text_free(&text);
  pipeline_free(theirs);
  pipeline_free(ours);
}

static void hostile_text_in_values_is_harmless(void **state) {
  (void)state;
  /* A dollar sign that came out of an expression is not evaluated again when read back. */
  static const override set[] = {{"rate", "1"}, {"stages.segment.doc", "\"$${slabs} \\x1b[2J\""}};
  pipeline *p = load(base, set, 2);
  text_buffer text = {0};
  tree_write(p->resolved, &text, 0);
  assert_non_null(strstr(text.data, "$${slabs}"));
  assert_null(strchr(text.data, 0x1b));
  text_free(&text);
  pipeline_free(p);
}

/* Cuts the correct pipeline short at every byte, and damages every byte: an error or a pipeline,
 * and never anything else. */
static void damaged_files_never_do_harm(void **state) {
  (void)state;
  pipeline *whole = load(base, NULL, 0); /* its paths are absolute */
  text_buffer resolved = {0};
  tree_write(whole->resolved, &resolved, 0);
  pipeline_free(whole);
  char *text = resolved.data, path[] = "strata-damaged-XXXXXX";
  size_t length = resolved.length;
  int fd = mkstemp(path);
  assert_true(fd >= 0);
  static const char damage[] = "\0\t:-[{&*!$\"'#\n\xff";
  for (size_t i = 0; i < length; i += 3) {
    for (int kind = 0; kind < 2; kind++) {
      size_t bytes = kind == 0 ? i : length;
      char kept = text[i];
      if (kind == 1) text[i] = damage[(i / 3) % (sizeof damage - 1)];
      assert_int_equal(pwrite(fd, text, bytes, 0), bytes);
      assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
      text[i] = kept;
      pipeline *p;
      status error = pipeline_load(path, NULL, 0, &p);
      assert_true((error == OK) == (p != NULL));
      error_free(error);
      pipeline_free(p);
    }
  }
  close(fd);
  unlink(path);
  text_free(&resolved);
}

static void the_schema_is_json_and_knows_every_operator(void **state) {
  (void)state;
  char *text = NULL;
  size_t length;
  FILE *out = open_memstream(&text, &length);
  schema_write(out);
  fclose(out);
  json_error_t error;
  json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &error);
  assert_non_null(root);
  json_t *definitions = json_object_get(root, "definitions");
  for (int i = 0; i < op_count(); i++) {
    const op *o = op_at(i);
    char name[128];
    snprintf(name, sizeof name, "operator.%s", o->name);
    json_t *known = json_object_get(definitions, name);
    if (o->traits & OP_NOT_IN_GRAPHS) {
      assert_null(known);
      assert_non_null(o->traits & OP_INTERNAL ? text : strstr(text, o->name));
      continue;
    }
    json_t *properties = json_object_get(known, "properties");
    for (const attr *a = o->attrs; a && a->name; a++)
      assert_non_null(json_object_get(json_object_get(properties, a->name), "description"));
  }
  json_decref(root);
  free(text);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_pipeline_is_read_with_its_defaults),
      cmocka_unit_test(overrides_reach_every_place),
      cmocka_unit_test(values_are_read_by_the_keys_that_set_them),
      cmocka_unit_test(wrong_overrides_name_themselves),
      cmocka_unit_test(the_data_root_of_an_override_starts_from_the_working_folder),
      cmocka_unit_test(the_resolved_file_loads_from_anywhere_as_the_same_run),
      cmocka_unit_test(stages_can_be_taken_from_other_pipelines),
      cmocka_unit_test(inference_is_read_as_written),
      cmocka_unit_test(identity_follows_what_changes_results),
      cmocka_unit_test(words_of_monai_and_nnunet_mean_ours),
      cmocka_unit_test(hostile_text_in_values_is_harmless),
      cmocka_unit_test(damaged_files_never_do_harm),
      cmocka_unit_test(the_schema_is_json_and_knows_every_operator),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
