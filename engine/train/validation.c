/* What a stage measures on its validation cases. */
#include "base/clock.h"
#include "evaluate/custom.h"
#include "train/trainer.h"

#include <stdlib.h>

void trainer_add_result(trainer *t, const char *prefix, const char *name, double value) {
  if (t->result_count == STATE_MAX_VALUES) return;
  named_number *n = &t->results[t->result_count++];
  snprintf(n->name, TALLY_NAME_BYTES, "%s%s", prefix, name);
  n->value = value;
}

/* Loss terms and metrics on the validation cases, with the same crops and masks every time. */
static status check_losses(trainer *t) {
  run *r = t->r;
  const int64_t *crop = t->stage->crop;
  char name[256];
  snprintf(name, sizeof name, "%s/validation", t->stage->name);
  loader_options o = {.spec = t->stage->data,
                      .data = r->data,
                      .cache = r->cache,
                      .seed = r->p->seed,
                      .stage = name,
                      .role = ROLE_VALIDATION,
                      .label_free = t->check_graph.label == VALUE_NONE && !t->stage->use_labels,
                      .batch = t->check_batch,
                      .epochs = 1,
                      .size = {crop[0], crop[1], crop[2]},
                      .channels = r->data->channels,
                      .drawn_case_bytes = feed_case_bytes(&t->feed),
                      .world = 1};
  loader *l;
  tally sums = {0};
  void *note = NULL;
  const char *culprit;
  TRY(loader_open(&o, &l));
  status error = OK;
  while (!run_stop_requested()) {
    batch *b = NULL;
    double loss;
    error = loader_next(l, &b);
    if (error || !b) break;
    error = feed_write(&t->feed, b, &t->check, t->check_graph.image, t->check_graph.label);
    if (!error) error = program_start_part(&t->check, 0, 1);
    if (!error) error = tally_note(&t->check, &t->check_graph, &note);
    if (!error) error = tally_read(&sums, &t->check, &t->check_graph, note, &loss, &culprit);
    if (error) break;
  }
  r->device->forget_note(r->device, note);
  loader_close(l);
  for (int i = 0; i < sums.count && !error; i++)
    trainer_add_result(t, "validation.", sums.sums[i].name, sums.sums[i].value / sums.batches);
  return error;
}

/* Means by class over the cases, for on_validation. */
static status keep_classes(trainer *t, const evaluation *e) {
  int classes = e->class_count - 1;
  if (!t->classes) {
    t->classes = calloc((size_t)classes + 1, sizeof *t->classes);
    t->class_values = calloc((size_t)(classes * METRIC_SLOTS) + 1, sizeof *t->class_values);
    if (!t->classes || !t->class_values) return error_out_of_memory((size_t)classes * 256);
  }
  t->class_count = classes;
  t->class_metric_count = 0;
  for (int m = 0; m < METRIC_SLOTS; m++) {
    if (!(e->spec->metrics & METRIC_BIT(m))) continue;
    for (int c = 0; c < classes; c++)
      t->class_values[c * METRIC_SLOTS + t->class_metric_count] =
          evaluation_class_mean(e, c + 1, m);
    t->class_metrics[t->class_metric_count++] = evaluate_metric(e->spec, m)->key;
  }
  for (int c = 0; c < classes; c++)
    t->classes[c] = (hook_class){.number = c + 1,
                                 .name = e->class_names[c + 1],
                                 .values = t->class_values + c * METRIC_SLOTS};
  return OK;
}

static status check_case(trainer *t, const case_entry *entry, const evaluate_spec *spec,
                         custom_metrics *custom, case_score *score, bool *scored) {
  run *r = t->r;
  medical_case c = {0};
  labels prediction = {0};
  *scored = false;
  TRY(case_prepare(&r->p->data, entry, r->cache, &c));
  status error = OK;
  if (c.label.data) {
    error = network_segment_prepared(&t->network, &c.image, &prediction);
    if (!error)
      error = score_case(&prediction, &c.label, r->data->class_count, spec, entry->name,
                         r->device->pool, score);
    error = error_prefix(error, "validation case %s", entry->name);
    *scored = !error;
    if (!error)
      error = custom_metrics_score(custom, &c.label, r->scored_names, r->scored_count, score);
  }
  labels_free(&prediction);
  case_free(&c);
  return error;
}

static status keep_results(trainer *t, const evaluation *e) {
  t->last_dice = evaluation_mean(e, METRIC_DICE);
  for (int m = 0; m < METRIC_SLOTS; m++)
    if (e->spec->metrics & METRIC_BIT(m))
      trainer_add_result(t, "validation.", evaluate_metric(e->spec, m)->key, evaluation_mean(e, m));
  return keep_classes(t, e);
}

/* Dice and the other metrics of whole validation cases, on the prepared grid. */
static status check_segmentation(trainer *t) {
  run *r = t->r;
  int cases = r->data->case_count;
  int *index = calloc((size_t)cases + 1, sizeof *index);
  case_score *scores = calloc((size_t)cases + 1, sizeof *scores);
  int count = index ? dataset_role(r->data, ROLE_VALIDATION, index) : 0, scored = 0;
  evaluate_spec spec = r->p->evaluate;
  spec.metrics = METRIC_BIT(METRIC_DICE) | t->stage->validate_metrics;
  spec.ignore_label = r->data->ignore_label ? LABEL_UNKNOWN : 0; /* of prepared cases */
  spec.custom = t->stage->validate_custom;
  spec.custom_count = t->stage->validate_custom_count;
  custom_metrics custom = {0};
  status error = index && scores ? OK : error_out_of_memory((size_t)cases * sizeof *scores);
  if (!error) error = custom_metrics_open(spec.custom, spec.custom_count, &custom);
  case_progress at = {
      .report = &r->report, .stage = "validation", .count = count, .started_s = clock_now_s()};
  t->network.inferer.after = run_after_windows;
  t->network.inferer.after_context = &at;
  for (; at.done < count && !error && !run_stop_requested(); at.done++) {
    bool counts;
    error =
        check_case(t, &r->data->cases[index[at.done]], &spec, &custom, &scores[scored], &counts);
    scored += counts;
  }
  if (error_code_of(error) == ERROR_INTERRUPTED) { /* whoever asked for the validation looks, too */
    error_free(error);
    error = OK;
  }
  evaluation summary = {.class_names = r->scored_names,
                        .class_count = r->scored_count,
                        .cases = scores,
                        .case_count = scored,
                        .spec = &spec};
  if (!error && scored > 0) error = keep_results(t, &summary);
  custom_metrics_close(&custom);
  for (int i = 0; i < scored; i++) case_score_free(&scores[i]);
  free(scores);
  free(index);
  return error;
}

status trainer_validate(trainer *t) {
  TRY(program_exchange_average(&t->program));
  status error = t->has_network ? check_segmentation(t) : OK;
  if (!error && t->has_check) error = check_losses(t);
  problems found = {0};
  problems_add(&found, error);
  problems_add(&found, program_exchange_average(&t->program));
  return problems_take(&found);
}
