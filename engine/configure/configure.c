#include "configure/configure.h"

#include "base/memory.h"
#include "configure/plans.h"
#include "configure/write.h"
#include "graph/expand.h"
#include "statistics/statistics.h"
#include "train/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
  LEAST_LABELLED = 3,
  LEAST_SIDE = 4,        /* voxels of the lowest level, nnU-Net's */
  LEAST_SIDE_ALONE = 12, /* of an axis that would be halved alone */
  LEAST_LEVELS = 2,
  LEAST_BATCH = 2
};
static const double COARSE = 3; /* times the others */
static const double START_VOXELS = 256 * 256 * 256.0;
static const double COVERED_SHARE = 0.05; /* of all voxels, by a batch */
static const double CROPPED_SHARE =
    0.75; /* what is left of a case that has nothing around it, at most */

/* ---- spacing ---- */

static double quantile(const double *table, int count, int axis, double share) {
  double *column = memory_resize(NULL, (size_t)count * sizeof *column);
  for (int i = 0; i < count; i++) column[i] = table[3 * i + axis];
  sort_numbers(column, count);
  double value = quantile_of_sorted(column, count, share);
  free(column);
  return value;
}

void configure_spacing(const double *spacings, const double *sizes, int count, configuration *c) {
  double size[3];
  int worst = 0;
  for (int a = 0; a < 3; a++) {
    c->spacing_mm[a] = quantile(spacings, count, a, 0.5);
    size[a] = quantile(sizes, count, a, 0.5);
    if (c->spacing_mm[a] > c->spacing_mm[worst]) worst = a;
  }
  double others_mm = 0, others_size = INFINITY;
  for (int a = 0; a < 3; a++)
    if (a != worst) {
      others_mm = fmax(others_mm, c->spacing_mm[a]);
      others_size = fmin(others_size, size[a]);
    }
  c->is_coarse = c->spacing_mm[worst] > COARSE * others_mm && size[worst] * COARSE < others_size;
  c->coarse_axis = worst;
  if (c->is_coarse) c->spacing_mm[worst] = fmax(quantile(spacings, count, worst, 0.1), others_mm);
  for (int a = 0; a < 3; a++) { /* as many digits as a person would write */
    char text[32];
    snprintf(text, sizeof text, "%.4g", c->spacing_mm[a]);
    c->spacing_mm[a] = strtod(text, NULL);
  }
}

static void median_size(const double *spacings, const double *sizes, int count, configuration *c) {
  double *resampled = memory_resize(NULL, 3 * (size_t)count * sizeof *resampled);
  for (int i = 0; i < 3 * count; i++)
    resampled[i] = round(sizes[i] * spacings[i] / c->spacing_mm[i % 3]);
  for (int a = 0; a < 3; a++)
    c->median_size[a] = (int64_t)fmax(1, round(quantile(resampled, count, a, 0.5)));
  free(resampled);
}

/* ---- network ---- */

void configure_first_crop(configuration *c) {
  double mm = cbrt(START_VOXELS * c->spacing_mm[0] * c->spacing_mm[1] * c->spacing_mm[2]);
  for (int a = 0; a < 3; a++) {
    int64_t side = (int64_t)fmax(1, round(mm / c->spacing_mm[a]));
    c->crop[a] = side < c->median_size[a] ? side : c->median_size[a];
  }
}

/* Which axes the next level halves. None: there is no next level. */
static int choose_halved(const int64_t size[3], const double mm[3], bool halved[3]) {
  double shortest = INFINITY;
  int count = 0;
  for (int a = 0; a < 3; a++)
    if (size[a] >= 2 * LEAST_SIDE) shortest = fmin(shortest, mm[a]);
  for (int a = 0; a < 3; a++) {
    halved[a] = size[a] >= 2 * LEAST_SIDE && mm[a] < 2 * shortest;
    count += halved[a];
  }
  for (int a = 0; a < 3 && count == 1; a++)
    if (halved[a] && size[a] < LEAST_SIDE_ALONE) return 0;
  return count;
}

void configure_levels(configuration *c) {
  int64_t size[3], divisor[3] = {1, 1, 1};
  double mm[3];
  bool halved[3];
  memcpy(size, c->crop, sizeof size);
  memcpy(mm, c->spacing_mm, sizeof mm);
  for (int a = 0; a < 3; a++) c->strides[0][a] = 1;
  for (c->levels = 1;; c->levels++) {
    double shortest = fmin(mm[0], fmin(mm[1], mm[2]));
    int64_t *kernel = c->kernels[c->levels - 1];
    for (int a = 0; a < 3; a++) /* once 3, always 3 */
      kernel[a] = mm[a] < 2 * shortest || (c->levels > 1 && kernel[a - 3] == 3) ? 3 : 1;
    if (c->levels == CONFIGURED_LEVELS_MAX || choose_halved(size, mm, halved) == 0) break;
    for (int a = 0; a < 3; a++) {
      c->strides[c->levels][a] = halved[a] ? 2 : 1;
      divisor[a] *= c->strides[c->levels][a];
      size[a] = halved[a] ? (size[a] + 1) / 2 : size[a];
      mm[a] *= halved[a] ? 2 : 1;
    }
  }
  for (int a = 0; a < 3; a++) {
    c->kernels[c->levels - 1][a] = 3;
    c->crop[a] = (c->crop[a] + divisor[a] - 1) / divisor[a] * divisor[a];
  }
}

static int64_t divisor_of(const configuration *c, int axis, int levels) {
  int64_t divisor = 1;
  for (int l = 0; l < levels; l++) divisor *= c->strides[l][axis];
  return divisor;
}

static double share_of(const configuration *c, int axis) {
  return (double)c->crop[axis] / (double)c->median_size[axis];
}

bool configure_shrink(configuration *c) {
  int axis = -1;
  for (int a = 0; a < 3; a++)
    if (c->crop[a] > divisor_of(c, a, c->levels) && c->crop[a] > LEAST_SIDE &&
        (axis < 0 || share_of(c, a) > share_of(c, axis)))
      axis = a;
  if (axis < 0) return false;
  /* What an axis has to be a multiple of does not grow when it gets shorter, so it stays so. */
  c->crop[axis] -= divisor_of(c, axis, c->levels);
  configure_levels(c);
  return true;
}

/* The axis other than those that are full that has least of the median case; −1: there is none. */
static int emptiest_axis(const configuration *c, const bool is_full[3]) {
  int axis = -1;
  for (int a = 0; a < 3; a++)
    if (!is_full[a] && (axis < 0 || share_of(c, a) < share_of(c, axis))) axis = a;
  return axis;
}

bool configure_enlarge(configuration *c, int axis) {
  configuration larger = *c;
  larger.crop[axis] += divisor_of(c, axis, c->levels);
  configure_levels(&larger);
  bool same = larger.levels == c->levels &&
              memcmp(larger.strides, c->strides, (size_t)c->levels * sizeof *c->strides) == 0;
  if (!same || c->crop[axis] >= c->median_size[axis]) return false;
  *c = larger;
  return true;
}

/* ---- batch ---- */

void configure_batch(const configure_options *o, int cases, configuration *c) {
  double voxels = cases, crop = 1;
  for (int a = 0; a < 3; a++) {
    voxels *= (double)c->median_size[a];
    crop *= (double)c->crop[a];
  }
  /* Weights, gradients and two moments do not grow with the batch. */
  double fixed = 4 * sizeof(float) * (double)c->parameters;
  double each = ((double)c->step_bytes - fixed) / (double)o->batch;
  double held = floor(((double)o->memory_bytes - fixed) / each);
  c->planned_batch = (int64_t)fmax(LEAST_BATCH, fmin(held, round(COVERED_SHARE * voxels / crop)));
}

/* ---- the self-supervised stage ---- */

/* The parts that the crop is cut into along an axis have to cover whole places of every level that tells
 * their order. 0: there is no such number. */
static int count_slabs(const configuration *c, int axis, int tapped) {
  static const int wanted[] = {4, 6, 5, 3, 8, 7, 2};
  int64_t places = c->crop[axis] / divisor_of(c, axis, tapped + 1);
  for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
    if (places % wanted[i] == 0) return wanted[i];
  return 0;
}

void configure_pretext(configuration *c) {
  c->slabs = 0;
  for (c->tapped = c->levels - 1 < 3 ? c->levels - 1 : 3; c->tapped > 0; c->tapped--) {
    /* The longer one of z and y. x only where nothing else will do: crops are not mirrored along the
     * slabs' axis, and left and right are what can be. */
    for (int a = 2; a >= 0; a--) {
      int slabs = count_slabs(c, a, c->tapped);
      if (slabs && (!c->slabs || (a == 1 && c->crop[1] > c->crop[2]))) {
        c->slab_axis = a;
        c->slabs = slabs;
      }
    }
    if (c->slabs) break;
  }
  for (int a = 0; a < 3; a++)
    for (c->patch[a] = 16; c->patch[a] > 1; c->patch[a] /= 2)
      if (c->crop[a] % c->patch[a] == 0 && c->crop[a] >= 4 * c->patch[a]) break;
}

/* ---- the data ---- */

static void look_at_values(const dataset_look *look, configuration *c) {
  int count = 0, empty = 0;
  for (int i = 0; i < look->data->case_count; i++) {
    const case_look *l = &look->cases[i];
    if (!l->is_good) continue;
    double left = 1;
    for (int a = 0; a < 3; a++) left *= (double)l->box_size[a] / (double)l->size[a];
    count++;
    c->labelled += l->class_voxels != NULL;
    empty += l->min >= 0 && left > 0 && left < CROPPED_SHARE;
  }
  c->has_empty_surround = 2 * empty > count;
}

/* Spacings and sizes of the cases along x, y, z of RAS. */
static int measure_cases(const dataset_look *look, const configuration *c, double *spacings,
                         double *sizes) {
  int count = 0;
  for (int i = 0; i < look->data->case_count; i++) {
    const case_look *l = &look->cases[i];
    if (!l->is_good) continue;
    const int64_t *size = c->has_empty_surround && l->box_size[0] > 0 ? l->box_size : l->size;
    for (int a = 0; a < 3; a++) {
      spacings[3 * count + a] = l->spacing_ras_mm[a];
      sizes[3 * count + a] = (double)size[l->ras_axis[a]];
    }
    count++;
  }
  return count;
}

/* ---- what it takes ---- */

static status measure_stage(pipeline *p, const stage_spec *s, const configuration *c,
                            const dataset *data, device *d, size_t *bytes, int64_t *parameters) {
  expand_options options = {.batch = s->batch,
                            .size = {c->crop[0], c->crop[1], c->crop[2]},
                            .channels = data->channels,
                            .classes = data->class_count,
                            .training = true};
  stage_graph graph;
  step_memory fitted;
  plan memory = {0};
  TRY(stage_expand(p, s, &options, &graph));
  status error = stage_fit_memory(s, d, &graph, &fitted);
  if (!error) error = plan_memory(graph.g, &fitted.use, &memory);
  if (!error) {
    *bytes = memory.arena_bytes + fitted.outside_bytes;
    *parameters = graph_param_elements(graph.g);
  }
  plan_free(&memory);
  stage_graph_free(&graph);
  return error;
}

/* Each region has to write the class that it writes in nnU-Net. */
static status check_written(const configure_options *o, const dataset_look *look,
                            const data_spec *d) {
  const plans *t = o->trained;
  if (!t || t->written_count == 0 || !plans_segment(t, look->data)) return OK;
  if (t->written_count != d->region_count)
    return error_new(ERROR_DATA, NOWHERE,
                     "the model's regions_class_order has %d classes, and there are %d regions",
                     t->written_count, d->region_count);
  for (int i = 0; i < d->region_count; i++)
    if (d->regions[i].label != t->written[i])
      return error_new(
          ERROR_DATA, NOWHERE,
          "region %s writes class %d by nnU-Net's regions_class_order, and class %d, the "
          "lowest that no later region has, here",
          d->regions[i].name, t->written[i], d->regions[i].label);
  return OK;
}

/* Compiles the stages of the pipeline file that the configuration makes. */
static status measure(const configure_options *o, const dataset_look *look, device *d,
                      configuration *c) {
  text_buffer yaml = {0};
  configure_write(o, look, c, &yaml);
  pipeline *p = NULL;
  status error = error_prefix(pipeline_load_text(o->path, yaml.data, yaml.length, &p),
                              "it cannot be written, for it would say");
  if (!error) error = check_written(o, look, &p->data);
  c->step_bytes = 0;
  for (int i = 0; !error && i < p->stage_count; i++) {
    size_t bytes = 0;
    error = measure_stage(p, &p->stages[i], c, look->data, d, &bytes, &c->parameters);
    if (bytes > c->step_bytes) c->step_bytes = bytes;
  }
  pipeline_free(p);
  text_free(&yaml);
  return error;
}

static status measure_candidate(const configure_options *o, const dataset_look *look, device *d,
                                configuration *c) {
  if (o->stop && o->stop()) return error_new(ERROR_INTERRUPTED, NOWHERE, "stopped");
  configure_pretext(c);
  return measure(o, look, d, c);
}

/* The last step down may have taken a level, and half of the memory, with it. So the crop grows again, by
 * as little as the levels allow, while they stay as they are and the step fits. An axis that could not grow
 * is not tried again, so at most three candidates are in vain. */
static status fill(const configure_options *o, const dataset_look *look, device *d,
                   configuration *c) {
  bool is_full[3] = {false};
  for (int axis; (axis = emptiest_axis(c, is_full)) >= 0;) {
    configuration larger = *c;
    if (configure_enlarge(&larger, axis)) {
      TRY(measure_candidate(o, look, d, &larger));
      is_full[axis] = larger.step_bytes > (size_t)o->memory_bytes;
    } else {
      is_full[axis] = true;
    }
    if (!is_full[axis]) *c = larger;
  }
  return OK;
}

static status fit(const configure_options *o, const dataset_look *look, device *d,
                  configuration *c) {
  char takes[24], may[24];
  if (c->levels < LEAST_LEVELS)
    return error_new(ERROR_DATA, NOWHERE,
                     "a median case has %lld × %lld × %lld voxels, too few for a network of %d "
                     "resolutions",
                     (long long)c->median_size[0], (long long)c->median_size[1],
                     (long long)c->median_size[2], LEAST_LEVELS);
  TRY(measure_candidate(o, look, d, c));
  if (c->step_bytes <= (size_t)o->memory_bytes) return OK;
  while (c->step_bytes > (size_t)o->memory_bytes) {
    if (!configure_shrink(c) || c->levels < LEAST_LEVELS)
      return error_new(
          ERROR_USAGE, NOWHERE,
          "a training step takes %s even with the smallest crop, and may take %s: give "
          "it more (--memory)",
          format_bytes(takes, (double)c->step_bytes), format_bytes(may, (double)o->memory_bytes));
    TRY(measure_candidate(o, look, d, c));
  }
  return fill(o, look, d, c);
}

status configure(const configure_options *o, const dataset_look *look, device *d,
                 configuration *out, text_buffer *yaml) {
  *out = (configuration){.network = o->network};
  size_t room = 3 * (size_t)(look->data->case_count + 1) * sizeof(double);
  double *spacings = memory_resize(NULL, room), *sizes = memory_resize(NULL, room);
  look_at_values(look, out);
  int count = measure_cases(look, out, spacings, sizes);
  if (count > 0) {
    configure_spacing(spacings, sizes, count, out);
    median_size(spacings, sizes, count, out);
  }
  free(spacings);
  free(sizes);
  if (count == 0) return error_new(ERROR_DATA, NOWHERE, "there is no case that can be read");
  if (out->labelled > 0 && out->labelled < LEAST_LABELLED)
    return error_new(ERROR_DATA, NOWHERE,
                     "%d case%s a label: a pipeline trains on some and is tested on others, so "
                     "there have to be %d (or none, to learn initial weights only)",
                     out->labelled, out->labelled == 1 ? " has" : "s have", LEAST_LABELLED);
  configure_first_crop(out);
  configure_levels(out);
  TRY(fit(o, look, d, out));
  configure_batch(o, count, out);
  configure_write(o, look, out, yaml);
  return OK;
}

status configure_trained(const configure_options *o, const dataset_look *look, device *d,
                         configuration *out, text_buffer *yaml) {
  const plans *t = o->trained;
  *out = t->c;
  for (int i = 0; i < look->data->case_count; i++)
    out->labelled += look->cases[i].is_good && look->cases[i].class_voxels;
  if (t->channels != look->data->channels)
    return error_new(ERROR_DATA, NOWHERE, "the model takes %d channel%s, the data set has %d",
                     t->channels, t->channels == 1 ? "" : "s", look->data->channels);
  if (out->labelled < LEAST_LABELLED)
    return error_new(ERROR_DATA, NOWHERE,
                     "%d of the cases have a label: to go on with training there have to be %d",
                     out->labelled, LEAST_LABELLED);
  TRY(error_prefix(measure(o, look, d, out), "the plans do not fit together"));
  configure_write(o, look, out, yaml);
  return OK;
}
