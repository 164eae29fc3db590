/* No operator hides a NaN: where every number of an input is one, there is one among the results. A run
 * stops at the first step whose loss is no number (train/stage.c); an operator that turned it into a number
 * would let it go on with weights that are none. For a loss, one channel of its first input suffices; of a
 * norm, one number spoils all that are normalized with it.
 *
 *   check_nan [OPERATOR…] [--device NAME] [--seed N] [--trials N]
 */
#include "base/text.h"
#include "gradient/trial.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Which of an input's numbers are NaN: those at multiples of the step from the first on. */
typedef struct spoiled {
  int64_t first, step;
} spoiled;

static status count_nan(trial *t, int64_t *found) {
  *found = 0;
  for (int i = 0; i < t->result_count; i++) {
    const tensor *type = &t->g->values[t->results[i]].type;
    if (type->dtype != DTYPE_F32) continue;
    int64_t n = shape_elements(&type->shape);
    float *data = malloc((size_t)n * sizeof *data + 1);
    status error = program_read(&t->program, t->results[i], data);
    for (int64_t k = 0; k < n && !error; k++) *found += isnan(data[k]) != 0;
    free(data);
    TRY(error);
  }
  return OK;
}

static status try_input(trial *t, value_id v, spoiled which, int64_t *found) {
  int64_t n = shape_elements(&t->g->values[v].type.shape);
  float *before = malloc((size_t)n * sizeof *before + 1),
        *data = malloc((size_t)n * sizeof *data + 1);
  status error = program_read(&t->program, v, before);
  memcpy(data, before, (size_t)n * sizeof *data);
  for (int64_t k = which.first; k < n; k += which.step) data[k] = NAN;
  if (!error) error = program_write(&t->program, v, data);
  if (!error) error = program_run(&t->program);
  if (!error) error = count_nan(t, found);
  if (!error) error = program_write(&t->program, v, before);
  free(before), free(data);
  return error;
}

/* Labels that are all unknown: the input does not count. */
static bool counts_nothing(const trial *t) {
  return t->label_count == 1 && t->label_range[0].high < 0;
}

static bool is_read(const trial *t, value_id v) {
  return program_data(&t->program, v) != NULL;
}

static int inputs_of(const trial *t, value_id list[2 * TRIAL_TENSORS]) {
  int count = 0;
  for (int i = 0; i < t->param_count; i++)
    if (is_read(t, t->params[i])) list[count++] = t->params[i];
  for (int i = 0; i < t->image_count; i++)
    if (is_read(t, t->images[i])) list[count++] = t->images[i];
  return count;
}

/* Says what was hidden; true: nothing. */
static bool passes(const op *o, const op_case *c, uint64_t seed, device *d) {
  trial t;
  value_id inputs[2 * TRIAL_TENSORS];
  bool all_show = true;
  status error = trial_build(o, c, seed, &t);
  if (!error && !t.is_empty && !counts_nothing(&t)) {
    error = trial_open(&t, d);
    int count = error ? 0 : inputs_of(&t, inputs);
    for (int i = 0; i < count && !error; i++) {
      const tensor *type = &t.g->values[inputs[i]].type;
      int64_t channels = type->shape.rank ? type->shape.dim[type->shape.rank - 1] : 1;
      bool is_norm = i == 0 && strcmp(o->family, "norm") == 0;
      int64_t shows, of_channel = 1, of_one = 2;
      error = try_input(&t, inputs[i], (spoiled){0, 1}, &shows);
      if (!error && i == 0 && (o->traits & OP_LOSS))
        error = try_input(&t, inputs[i], (spoiled){channels - 1, channels}, &of_channel);
      if (!error && is_norm) error = try_input(&t, inputs[i], (spoiled){0, INT64_MAX}, &of_one);
      if (error || (shows > 0 && of_channel > 0 && of_one > 1)) continue;
      printf("FAIL %-24s %s\n     hides a NaN %s %s; again: check_nan %s --seed %llu --trials 1\n",
             o->name, t.shown,
             shows == 0        ? "of"
             : of_channel == 0 ? "in a channel of"
                               : "from those beside it in",
             t.g->values[inputs[i]].name, o->name, (unsigned long long)seed);
      all_show = false;
    }
    trial_close(&t);
  }
  if (error) {
    printf("FAIL %-24s %s\n", o->name, t.shown);
    fflush(stdout);
    error_print(stdout, error);
    error_free(error);
    all_show = false;
  }
  trial_free(&t);
  return all_show;
}

int main(int argc, char **argv) {
  trial_options options = {.seed = 1, .trials = 1, .device = "cpu"};
  trial_options_read(argc, argv, &options);
  device *d = trial_device(options.device, 2);
  int failed = 0, passed = 0;
  for (int i = 0; i < op_count(); i++) {
    const op *o = op_at(i);
    if (!trial_is_asked(&options, o) || !trial_is_differentiable(o) || !o->cases) continue;
    bool ok = true;
    for (const op_case *c = o->cases; c->attrs; c++)
      for (int k = 0; k < options.trials; k++) ok &= passes(o, c, options.seed + (uint64_t)k, d);
    passed += ok;
    failed += !ok;
  }
  device_close(d);
  printf("%d operators let NaN through, %d hide it\n", passed, failed);
  return failed || passed == 0;
}
