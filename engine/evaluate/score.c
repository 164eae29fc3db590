/* Scores of one case: overlap, distances between surfaces, volumes, and what was missed or made up,
 * for every class. */
#include "evaluate/metrics.h"
#include "evaluate/surface.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static status check_maps(const labels *prediction, const labels *reference, const char *name) {
  if (!prediction->data || !reference->data)
    return error_new(ERROR_DATA, NOWHERE, "%s: there is no %s to score", name,
                     prediction->data ? "reference label" : "prediction");
  for (int a = 0; a < 3; a++)
    if (prediction->size[a] != reference->size[a])
      return error_new(ERROR_DATA, NOWHERE,
                       "%s: the prediction has %lld × %lld × %lld voxels, the reference "
                       "%lld × %lld × %lld; they must be on the same grid",
                       name, (long long)prediction->size[0], (long long)prediction->size[1],
                       (long long)prediction->size[2], (long long)reference->size[0],
                       (long long)reference->size[1], (long long)reference->size[2]);
  return OK;
}

static status bad_class(const char *name, const char *which, int value, const int64_t at[3],
                        int class_count) {
  return error_new(ERROR_DATA, NOWHERE,
                   "%s: the %s has class %d at voxel (%lld, %lld, %lld), but there are %d classes "
                   "(0 to %d)",
                   name, which, value, (long long)at[0], (long long)at[1], (long long)at[2],
                   class_count, class_count - 1);
}

/* ---- rows ---------------------------------------------------------------------------------- */

int evaluate_rows(const evaluate_spec *spec, int class_count) {
  return spec->region_count > 0 ? spec->region_count + 1 : class_count;
}

const char *const *evaluate_row_names(const evaluate_spec *spec, const char *const *class_names,
                                      arena *memory) {
  if (spec->region_count == 0) return class_names;
  const char **names = arena_alloc(memory, (size_t)(spec->region_count + 1) * sizeof *names);
  names[0] = "background";
  for (int i = 0; i < spec->region_count; i++) names[i + 1] = spec->regions[i].name;
  return names;
}

static bool is_in(const class_group *region, int class_number) {
  for (int i = 0; i < region->count; i++)
    if (region->classes[i] == class_number) return true;
  return false;
}

static void count_stretch(class_score *row, bool predicted, bool referenced, int64_t voxels) {
  if (predicted) row->predicted_voxels += voxels;
  if (referenced) row->reference_voxels += voxels;
  if (predicted && referenced) row->overlap_voxels += voxels;
}

/* Voxel counts of all rows in one pass over both maps; stretches in which nothing changes are
 * counted at once. */
static status count_voxels(const labels *prediction, const labels *reference, int class_count,
                           const evaluate_spec *spec, const char *name, case_score *out) {
  class_score *scores = out->classes;
  const int ignored = spec->ignore_label;
  const int64_t *size = reference->size, rows = size[0] * size[1];
  for (int64_t row = 0; row < rows; row++) {
    const uint8_t *p = prediction->data + row * size[2], *r = reference->data + row * size[2];
    for (int64_t z = 0, end; z < size[2]; z = end) {
      for (end = z + 1; end < size[2] && p[end] == p[z] && r[end] == r[z];) end++;
      const int64_t at[3] = {row / size[1], row % size[1], z};
      if (p[z] >= class_count) return bad_class(name, "prediction", p[z], at, class_count);
      if (ignored && r[z] == ignored) {
        out->ignored_voxels += end - z;
        continue;
      }
      if (r[z] >= class_count) return bad_class(name, "reference", r[z], at, class_count);
      for (int i = 0; i < spec->region_count; i++)
        count_stretch(&scores[i + 1], is_in(&spec->regions[i], p[z]),
                      is_in(&spec->regions[i], r[z]), end - z);
      if (spec->region_count > 0) continue;
      count_stretch(&scores[p[z]], true, p[z] == r[z], end - z);
      if (p[z] != r[z]) count_stretch(&scores[r[z]], false, true, end - z);
    }
  }
  return OK;
}

/* ---- overlap and volume -------------------------------------------------------------------- */

static double ratio(double part, int64_t whole) {
  return whole > 0 ? part / (double)whole : (double)NAN;
}

static void score_overlap(class_score *c, double voxel_ml, empty_policy empty) {
  int64_t p = c->predicted_voxels, r = c->reference_voxels, both = c->overlap_voxels;
  double *value = c->value;
  if (p + r == 0) {
    double agreed = empty == EMPTY_ONE ? 1.0 : empty == EMPTY_ZERO ? 0.0 : (double)NAN;
    value[METRIC_DICE] = value[METRIC_JACCARD] = value[METRIC_PRECISION] = value[METRIC_RECALL] =
        value[METRIC_NSD] = agreed;
    return;
  }
  value[METRIC_DICE] = 2.0 * (double)both / (double)(p + r);
  value[METRIC_JACCARD] = (double)both / (double)(p + r - both);
  value[METRIC_PRECISION] = ratio((double)both, p);
  value[METRIC_RECALL] = ratio((double)both, r);
  value[METRIC_VOLUME_DIFFERENCE] = fabs((double)(p - r)) * voxel_ml;
  value[METRIC_RELATIVE_VOLUME_DIFFERENCE] = ratio((double)(p - r), r);
  c->missed = p == 0;
  c->hallucinated = r == 0;
  if (c->missed || c->hallucinated) value[METRIC_NSD] = 0; /* no surface is near the other */
}

/* ---- distances ----------------------------------------------------------------------------- */

typedef struct pair { /* a class that is on both sides */
  int class_number;
  surface *side[2];    /* prediction, reference */
  double *distance_mm; /* from the prediction's surface, then from the reference's */
  status error[2];
} pair;

typedef struct surface_work {
  const labels *maps[2];
  const evaluate_spec *spec;
  double spacing_mm[3];
  int class_count, pair_count;
  bool *wanted;         /* by class: is it on both sides? */
  surface *surfaces[2]; /* by class */
  pair *pairs;
  class_score *classes;
  status error[2];
} surface_work;

static void find_task(void *context, int64_t side) {
  surface_work *w = context;
  w->error[side] = surfaces_find(w->maps[side], w->class_count, w->wanted, w->surfaces[side]);
}

static void index_task(void *context, int64_t task) {
  surface_work *w = context;
  pair *p = &w->pairs[task / 2];
  p->error[task % 2] = surface_index(p->side[task % 2]);
}

static void distance_task(void *context, int64_t task) {
  surface_work *w = context;
  pair *p = &w->pairs[task / 2];
  int64_t side = task % 2;
  surface_distances(p->side[side], p->side[!side], w->spacing_mm,
                    p->distance_mm + (side ? p->side[0]->count : 0));
}

/* Moves the `rank` smallest values to the front, the next one to [rank] (Hoare's selection). */
static void select_rank(double *v, int64_t count, int64_t rank) {
  for (int64_t low = 0, high = count - 1; low < high;) {
    double pivot = v[low + (high - low) / 2];
    int64_t i = low, j = high;
    while (i <= j) {
      while (v[i] < pivot) i++;
      while (pivot < v[j]) j--;
      if (i > j) break;
      double swap = v[i];
      v[i++] = v[j];
      v[j--] = swap;
    }
    if (rank <= j)
      high = j;
    else if (rank >= i)
      low = i;
    else
      return;
  }
}

/* Interpolates linearly between the two nearest ranks, as NumPy and PyTorch do. */
static double percentile95(double *values, int64_t count) {
  double rank = 0.95 * (double)(count - 1);
  int64_t below = (int64_t)rank;
  select_rank(values, count, below);
  double fraction = rank - (double)below, next = INFINITY;
  if (below + 1 == count || fraction == 0) return values[below];
  for (int64_t i = below + 1; i < count; i++) next = fmin(next, values[i]);
  return values[below] + fraction * (next - values[below]);
}

/* Spacings and tolerances are rounded decimals: what is equal to this part counts as within. */
static const double TOLERANCE_SLACK = 1e-9;

static void statistics_task(void *context, int64_t task) {
  surface_work *w = context;
  const pair *p = &w->pairs[task];
  double *value = w->classes[p->class_number].value, *d = p->distance_mm;
  int64_t from_prediction = p->side[0]->count, count = from_prediction + p->side[1]->count;
  double tolerance_mm = evaluate_tolerance_mm(w->spec, p->class_number) * (1 + TOLERANCE_SLACK);
  double sum = 0, largest = 0;
  int64_t within = 0;
  for (int64_t i = 0; i < count; i++) {
    sum += d[i];
    largest = fmax(largest, d[i]);
    within += d[i] <= tolerance_mm;
  }
  value[METRIC_HD] = largest;
  value[METRIC_ASSD] = sum / (double)count;
  value[METRIC_NSD] = (double)within / (double)count;
  if (!(w->spec->metrics & METRIC_BIT(METRIC_HD95))) return;
  value[METRIC_HD95] = w->spec->hd95_pooled
                           ? percentile95(d, count)
                           : fmax(percentile95(d, from_prediction),
                                  percentile95(d + from_prediction, count - from_prediction));
}

static status measure(surface_work *w, thread_pool *pool) {
  parallel_for(pool, 2, find_task, w);
  for (int side = 0; side < 2; side++)
    if (w->error[side]) return w->error[side];
  for (int c = 0; c < w->class_count; c++)
    if (w->wanted[c])
      w->pairs[w->pair_count++] =
          (pair){.class_number = c, .side = {&w->surfaces[0][c], &w->surfaces[1][c]}};
  parallel_for(pool, 2 * (int64_t)w->pair_count, index_task, w);
  status error = OK;
  for (int i = 0; i < w->pair_count; i++) {
    pair *p = &w->pairs[i];
    for (int side = 0; side < 2; side++) {
      if (error)
        error_free(p->error[side]);
      else
        error = p->error[side];
    }
    size_t bytes = (size_t)(p->side[0]->count + p->side[1]->count) * sizeof *p->distance_mm;
    if (!error && !(p->distance_mm = malloc(bytes))) error = error_out_of_memory(bytes);
  }
  if (error) return error;
  parallel_for(pool, 2 * (int64_t)w->pair_count, distance_task, w);
  parallel_for(pool, w->pair_count, statistics_task, w);
  return OK;
}

static status score_surfaces(const labels *prediction, const labels *reference, int class_count,
                             const evaluate_spec *spec, thread_pool *pool, class_score *classes) {
  size_t n = (size_t)class_count;
  surface_work w = {.maps = {prediction, reference},
                    .spec = spec,
                    .class_count = class_count,
                    .wanted = calloc(n, sizeof *w.wanted),
                    .surfaces = {calloc(n, sizeof **w.surfaces), calloc(n, sizeof **w.surfaces)},
                    .pairs = calloc(n, sizeof *w.pairs),
                    .classes = classes};
  status error = OK;
  if (!w.wanted || !w.surfaces[0] || !w.surfaces[1] || !w.pairs) {
    error = error_out_of_memory(n * (2 * sizeof **w.surfaces + sizeof *w.pairs));
  } else {
    for (int c = 1; c < class_count; c++)
      w.wanted[c] = classes[c].reference_voxels > 0 && classes[c].predicted_voxels > 0;
    affine_spacing(reference->affine, w.spacing_mm);
    error = measure(&w, pool);
  }
  for (int i = 0; i < w.pair_count; i++) free(w.pairs[i].distance_mm);
  for (int side = 0; side < 2; side++) {
    for (int c = 0; w.surfaces[side] && c < class_count; c++) surface_free(&w.surfaces[side][c]);
    free(w.surfaces[side]);
  }
  free(w.pairs);
  free(w.wanted);
  return error;
}

/* ---- a case -------------------------------------------------------------------------------- */

double evaluate_tolerance_mm(const evaluate_spec *spec, int row) {
  int count = spec->tolerance_count;
  if (count == 0) return 1;
  return spec->tolerance_mm[row <= count ? row - 1 : count - 1];
}

/* A copy of the map with `becomes` of its values, and background in the voxels that the reference
 * ignores (0: none). */
static status mapped(const labels *map, const labels *reference, int ignored,
                     const uint8_t becomes[LABEL_VALUES], labels *out) {
  TRY(labels_reserve(out, map->size));
  memcpy(out->affine, map->affine, sizeof out->affine);
  const int64_t voxels = map->size[0] * map->size[1] * map->size[2];
  for (int64_t v = 0; v < voxels; v++)
    out->data[v] = ignored && reference->data[v] == ignored ? 0 : becomes[map->data[v]];
  return OK;
}

static status score_mapped_surfaces(const labels *prediction, const labels *reference,
                                    const uint8_t becomes[LABEL_VALUES], int class_count,
                                    const evaluate_spec *spec, thread_pool *pool,
                                    class_score *rows) {
  labels maps[2];
  memset(maps, 0, sizeof maps);
  status error = mapped(prediction, reference, spec->ignore_label, becomes, &maps[0]);
  if (!error) error = mapped(reference, reference, spec->ignore_label, becomes, &maps[1]);
  if (!error) error = score_surfaces(&maps[0], &maps[1], class_count, spec, pool, rows);
  for (int side = 0; side < 2; side++) labels_free(&maps[side]);
  return error;
}

static status score_known_surfaces(const labels *prediction, const labels *reference,
                                   int class_count, const evaluate_spec *spec, thread_pool *pool,
                                   case_score *score) {
  if (score->ignored_voxels == 0)
    return score_surfaces(prediction, reference, class_count, spec, pool, score->classes);
  uint8_t same[LABEL_VALUES];
  for (int v = 0; v < LABEL_VALUES; v++) same[v] = (uint8_t)v;
  return score_mapped_surfaces(prediction, reference, same, class_count, spec, pool,
                               score->classes);
}

/* Regions may overlap, so each is the one class of maps of its own. */
static status score_region_surfaces(const labels *prediction, const labels *reference,
                                    const evaluate_spec *spec, thread_pool *pool,
                                    case_score *score) {
  for (int i = 0; i < spec->region_count; i++) {
    double tolerance_mm = evaluate_tolerance_mm(spec, i + 1);
    evaluate_spec alone = *spec;
    alone.tolerance_mm = &tolerance_mm;
    alone.tolerance_count = 1;
    uint8_t inside[LABEL_VALUES];
    for (int v = 0; v < LABEL_VALUES; v++) inside[v] = is_in(&spec->regions[i], v);
    class_score rows[2] = {[1] = score->classes[i + 1]};
    TRY(score_mapped_surfaces(prediction, reference, inside, 2, &alone, pool, rows));
    score->classes[i + 1] = rows[1];
  }
  return OK;
}

status score_case(const labels *prediction, const labels *reference, int class_count,
                  const evaluate_spec *spec, const char *name, thread_pool *pool, case_score *out) {
  *out = (case_score){.name = name};
  TRY(check_maps(prediction, reference, name));
  int rows = evaluate_rows(spec, class_count);
  class_score *classes = calloc((size_t)rows, sizeof *classes);
  if (!classes) return error_out_of_memory((size_t)rows * sizeof *classes);
  out->classes = classes;
  out->voxels = reference->size[0] * reference->size[1] * reference->size[2];
  status error = count_voxels(prediction, reference, class_count, spec, name, out);
  for (int c = 0; c < rows && !error; c++) {
    for (int m = 0; m < METRIC_SLOTS; m++) classes[c].value[m] = NAN;
    if (out->ignored_voxels < out->voxels) /* else there is nothing to agree on */
      score_overlap(&classes[c], affine_voxel_mm3(reference->affine) / 1000, spec->empty);
  }
  if (!error && spec->metrics & METRICS_OF_SURFACES) {
    if (spec->region_count > 0)
      error = score_region_surfaces(prediction, reference, spec, pool, out);
    else
      error = score_known_surfaces(prediction, reference, class_count, spec, pool, out);
    error = error_prefix(error, "%s", name);
  }
  if (error) case_score_free(out);
  return error;
}

void case_score_free(case_score *s) {
  free(s->classes);
  *s = (case_score){0};
}
