/* What a stage measures on its validation cases. */
#include "evaluate/metrics.h"
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
  char name[256];
  snprintf(name, sizeof name, "%s/validation", t->stage->name);
  loader_options o = {.spec = &r->p->data,
                      .data = r->data,
                      .cache = r->cache,
                      .seed = r->p->seed,
                      .stage = name,
                      .role = ROLE_VALIDATION,
                      .label_free = t->check_graph.label == VALUE_NONE && !t->stage->use_labels,
                      .batch = t->check_batch,
                      .epochs = 1,
                      .size = {r->size[0], r->size[1], r->size[2]},
                      .channels = r->channels,
                      .world = 1};
  loader *l;
  tally sums = {0};
  TRY(loader_open(&o, &l));
  status error = OK;
  for (;;) {
    batch *b = NULL;
    double loss;
    error = loader_next(l, &b);
    if (error || !b) break;
    error = program_write(&t->check, t->check_graph.image, b->image);
    if (!error && t->check_graph.label != VALUE_NONE)
      error = program_write_classes(&t->check, t->check_graph.label, b->label);
    if (error) break;
    error = program_set_keys(&t->check, b->keys);
    if (!error) error = program_run(&t->check);
    if (!error) error = tally_read(&sums, &t->check, &t->check_graph, &loss);
    if (error) break;
  }
  loader_close(l);
  for (int i = 0; i < sums.count && !error; i++)
    trainer_add_result(t, "validation.", sums.sums[i].name, sums.sums[i].value / sums.batches);
  return error;
}

/* Means by class over the cases, for on_validation. */
static status keep_classes(trainer *t, const evaluation *e) {
  int classes = e->class_count - 1, metrics = 0;
  t->class_metrics[metrics++] = metric_table[METRIC_DICE].name;
  if (!t->classes) {
    t->classes = calloc((size_t)classes + 1, sizeof *t->classes);
    t->class_values = calloc((size_t)(classes * metrics) + 1, sizeof *t->class_values);
    if (!t->classes || !t->class_values) return error_out_of_memory((size_t)classes * 64);
  }
  t->class_count = classes;
  t->class_metric_count = metrics;
  for (int c = 0; c < classes; c++) {
    double *values = t->class_values + c * metrics;
    values[0] = evaluation_class_mean(e, c + 1, METRIC_DICE);
    t->classes[c] = (hook_class){.number = c + 1, .name = e->class_names[c + 1], .values = values};
  }
  return OK;
}

/* Mean foreground Dice of whole validation cases, on the prepared grid. */
static status check_segmentation(trainer *t) {
  run *r = t->r;
  int cases = r->data->case_count;
  int *index = calloc((size_t)cases + 1, sizeof *index);
  case_score *scores = calloc((size_t)cases + 1, sizeof *scores);
  if (!index || !scores) {
    free(index);
    free(scores);
    return error_out_of_memory((size_t)cases * sizeof *scores);
  }
  int count = dataset_role(r->data, ROLE_VALIDATION, index), scored = 0;
  evaluate_spec dice_only = r->p->evaluate;
  dice_only.metrics = METRIC_BIT(METRIC_DICE);
  status error = OK;
  for (int i = 0; i < count && !error && !run_stop_requested(); i++) {
    const case_entry *entry = &r->data->cases[index[i]];
    medical_case c = {0};
    labels prediction = {0};
    error = case_prepare(&r->p->data, entry, r->cache, &c);
    if (!error && c.label.data) {
      error = network_segment_prepared(&t->network, &c.image, &prediction);
      if (!error)
        error = score_case(&prediction, &c.label, r->data->class_count, &dice_only, entry->name,
                           r->device->pool, &scores[scored]);
      if (!error) scored++;
      error = error_prefix(error, "validation case %s", entry->name);
    }
    labels_free(&prediction);
    case_free(&c);
  }
  evaluation summary = {.class_names = r->data->class_names,
                        .class_count = r->data->class_count,
                        .cases = scores,
                        .case_count = scored,
                        .spec = &dice_only};
  if (!error && scored > 0) {
    t->last_dice = evaluation_mean_dice(&summary);
    trainer_add_result(t, "validation.", "dice", t->last_dice);
    error = keep_classes(t, &summary);
  }
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
