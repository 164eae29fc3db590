/* Scores of one case: Dice, HD95, and what was missed or made up, for every class. */
#include "evaluate/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Voxels of a class in either map, as a box, so that its distances cost what it is large, not what
 * the volume is. */
typedef struct class_box {
  int64_t from[3], to[3];
} class_box;

static void box_add(class_box *b, const int64_t at[3]) {
  for (int a = 0; a < 3; a++) {
    if (at[a] < b->from[a]) b->from[a] = at[a];
    if (at[a] >= b->to[a]) b->to[a] = at[a] + 1;
  }
}

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

static status bad_class(const char *name, const char *which, int32_t value, const int64_t at[3],
                        int class_count) {
  return error_new(ERROR_DATA, NOWHERE,
                   "%s: the %s has class %d at voxel (%lld, %lld, %lld), but there are %d classes "
                   "(0 to %d)",
                   name, which, (int)value, (long long)at[0], (long long)at[1], (long long)at[2],
                   class_count, class_count - 1);
}

/* Voxel counts and boxes of all classes in one pass over both maps. */
static status count_voxels(const labels *prediction, const labels *reference, int class_count,
                           const char *name, class_score *classes, class_box *boxes) {
  const int32_t *p = prediction->data, *r = reference->data;
  int64_t at[3];
  for (at[0] = 0; at[0] < reference->size[0]; at[0]++)
    for (at[1] = 0; at[1] < reference->size[1]; at[1]++)
      for (at[2] = 0; at[2] < reference->size[2]; at[2]++, p++, r++) {
        if (*p < 0 || *p >= class_count) return bad_class(name, "prediction", *p, at, class_count);
        if (*r < 0 || *r >= class_count) return bad_class(name, "reference", *r, at, class_count);
        classes[*p].predicted_voxels++;
        classes[*r].reference_voxels++;
        if (*p == *r) classes[*p].overlap_voxels++;
        if (*p != 0) box_add(&boxes[*p], at);
        if (*r != 0 && *r != *p) box_add(&boxes[*r], at);
      }
  return OK;
}

static double dice_of(const class_score *c, empty_policy empty) {
  int64_t total = c->predicted_voxels + c->reference_voxels;
  if (total > 0) return 2.0 * (double)c->overlap_voxels / (double)total;
  return empty == EMPTY_ONE ? 1.0 : empty == EMPTY_ZERO ? 0.0 : (double)NAN;
}

static void cut_mask(const labels *map, int32_t class_number, const class_box *b, uint8_t *mask) {
  for (int64_t x = b->from[0]; x < b->to[0]; x++)
    for (int64_t y = b->from[1]; y < b->to[1]; y++) {
      const int32_t *row = map->data + (x * map->size[1] + y) * map->size[2];
      for (int64_t z = b->from[2]; z < b->to[2]; z++) *mask++ = row[z] == class_number;
    }
}

static status class_hd95(const labels *prediction, const labels *reference, int32_t class_number,
                         const class_box *b, bool pooled, double *out) {
  int64_t size[3] = {b->to[0] - b->from[0], b->to[1] - b->from[1], b->to[2] - b->from[2]};
  size_t voxels = (size_t)(size[0] * size[1] * size[2]);
  uint8_t *masks = malloc(2 * voxels);
  if (!masks) return error_out_of_memory(2 * voxels);
  cut_mask(prediction, class_number, b, masks);
  cut_mask(reference, class_number, b, masks + voxels);
  double spacing_mm[3];
  affine_spacing(reference->affine, spacing_mm);
  status error = hausdorff95(masks, masks + voxels, size, spacing_mm, pooled, out);
  free(masks);
  return error;
}

status score_case(const labels *prediction, const labels *reference, int class_count,
                  const evaluate_spec *spec, const char *name, case_score *out) {
  *out = (case_score){.name = name};
  TRY(check_maps(prediction, reference, name));
  class_score *classes = calloc((size_t)class_count, sizeof *classes);
  class_box *boxes = malloc((size_t)class_count * sizeof *boxes);
  status error = OK;
  if (!classes || !boxes) {
    error = error_out_of_memory((size_t)class_count * (sizeof *classes + sizeof *boxes));
    goto done;
  }
  const int64_t *size = reference->size;
  for (int c = 0; c < class_count; c++)
    boxes[c] = (class_box){{size[0], size[1], size[2]}, {0, 0, 0}};
  error = count_voxels(prediction, reference, class_count, name, classes, boxes);
  bool pooled = spec->hd95 && strcmp(spec->hd95, "pooled") == 0;
  for (int c = 0; c < class_count && !error; c++) {
    class_score *s = &classes[c];
    s->dice = dice_of(s, spec->empty);
    s->hd95_mm = NAN;
    s->missed = s->reference_voxels > 0 && s->predicted_voxels == 0;
    s->hallucinated = s->predicted_voxels > 0 && s->reference_voxels == 0;
    if (spec->want_hd95 && c > 0 && s->reference_voxels > 0 && s->predicted_voxels > 0)
      error = error_prefix(class_hd95(prediction, reference, c, &boxes[c], pooled, &s->hd95_mm),
                           "%s", name);
  }
done:
  free(boxes);
  if (error)
    free(classes);
  else
    out->classes = classes;
  return error;
}

void case_score_free(case_score *s) {
  free(s->classes);
  *s = (case_score){0};
}
