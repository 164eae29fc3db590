/* The host graphs: prepare (once per case, behind the cache) and sample (one crop). */
#include "data/cache.h"
#include "data/dataset.h"
#include "data/host.h"
#include "language/bind.h"

#include "base/text.h"

#include <stdlib.h>
#include <string.h>

/* ---- running ---- */

static status run_operator(const op_use *use, host_call *call) {
  call->attrs = use->attrs;
  status error = use->op->host(call);
  if (error)
    return error_locate(error_prefix(error, "case %s, operator %s", call->c->name, use->op->name),
                        use->at);
  if (call->c->label.data &&
      memcmp(call->c->label.size, call->c->image.size, sizeof call->c->image.size) != 0)
    return error_new(ERROR_INTERNAL, use->at, "operator %s left image and label on two grids",
                     use->op->name);
  return OK;
}

/* Image and label must lie on one grid: same extents, and every voxel in the same place to within a
 * tenth of a voxel (label headers are often written with less precision). */
static status check_same_grid(const case_entry *entry, const medical_case *c) {
  const volume *v = &c->image;
  const labels *l = &c->label;
  if (memcmp(v->size, l->size, sizeof v->size) != 0)
    return error_new(ERROR_DATA, NOWHERE,
                     "the label %s has %lld × %lld × %lld voxels, the image %s %lld × %lld × %lld. "
                     "They must be on one grid.",
                     entry->label, (long long)l->size[0], (long long)l->size[1],
                     (long long)l->size[2], entry->image, (long long)v->size[0],
                     (long long)v->size[1], (long long)v->size[2]);
  double to_voxel[4][4];
  affine_inverse(v->affine, to_voxel);
  for (int corner = 0; corner < 8; corner++) {
    double at[4] = {0, 0, 0, 1}, apart[3] = {0};
    for (int a = 0; a < 3; a++) at[a] = corner >> a & 1 ? (double)(v->size[a] - 1) : 0;
    double mm[3] = {0};
    for (int r = 0; r < 3; r++)
      for (int c4 = 0; c4 < 4; c4++) mm[r] += (l->affine[r][c4] - v->affine[r][c4]) * at[c4];
    for (int r = 0; r < 3; r++)
      for (int k = 0; k < 3; k++) apart[r] += to_voxel[r][k] * mm[k];
    for (int r = 0; r < 3; r++)
      if (!(apart[r] > -0.1 && apart[r] < 0.1))
        return error_new(ERROR_DATA, NOWHERE,
                         "the headers of the image %s and the label %s place them apart (by %.2f "
                         "voxels along %c at a corner). Correct one of the headers.",
                         entry->image, entry->label, apart[r], "xyz"[r]);
  }
  return OK;
}

static status check_classes(const case_entry *entry, const labels *l) {
  if (!l->data || entry->class_count == 0) return OK;
  int32_t largest = 0;
  for (int64_t i = 0; i < l->size[0] * l->size[1] * l->size[2]; i++)
    largest = l->data[i] > largest ? l->data[i] : largest;
  if (largest < entry->class_count) return OK;
  return error_new(ERROR_DATA, NOWHERE,
                   "the label %s contains class %d, but dataset.json names only classes 0 to %d. "
                   "Name it there, or correct the label.",
                   entry->label, largest, entry->class_count - 1);
}

static status prepare_bytes(const data_spec *spec, const case_entry *entry,
                            const unsigned char *image, size_t image_bytes,
                            const unsigned char *label, size_t label_bytes, medical_case *out) {
  *out = (medical_case){.name = entry->name};
  status error = nifti_parse_volume(entry->image, image, image_bytes, &out->image);
  if (!error && label) {
    error = nifti_parse_labels(entry->label, label, label_bytes, &out->label);
    if (!error) error = check_same_grid(entry, out);
    if (!error) error = check_classes(entry, &out->label);
  }
  error = error_prefix(error, "case %s", entry->name);
  host_call call = {.c = out};
  for (int i = 0; i < spec->prepare_count && !error; i++)
    error = run_operator(&spec->prepare[i], &call);
  if (error) case_free(out);
  return error;
}

status case_prepare(const data_spec *spec, const case_entry *entry, const char *cache,
                    medical_case *out) {
  *out = (medical_case){.name = entry->name};
  unsigned char *image = NULL, *label = NULL;
  size_t image_bytes = 0, label_bytes = 0;
  status error = nifti_load_bytes(entry->image, &image, &image_bytes);
  if (!error && entry->label) error = nifti_load_bytes(entry->label, &label, &label_bytes);
  error = error_prefix(error, "case %s", entry->name);
  cache_key key = {{0}};
  if (!error && cache) {
    key = cache_key_of(prepare_identity(spec), image, image_bytes, label, label_bytes);
    if (cache_load(cache, key, out)) {
      out->name = entry->name;
      free(image);
      free(label);
      /* The same file may stand in two datasets that name different classes. */
      error = error_prefix(check_classes(entry, &out->label), "case %s", entry->name);
      if (error) case_free(out);
      return error;
    }
  }
  if (!error) error = prepare_bytes(spec, entry, image, image_bytes, label, label_bytes, out);
  free(image);
  free(label);
  if (!error && cache) cache_store(cache, key, out);
  return error;
}

status case_prepare_file(const data_spec *spec, const char *image_path, medical_case *out) {
  return case_prepare(spec, &(case_entry){.name = image_path, .image = image_path}, NULL, out);
}

status case_sample(const data_spec *spec, const medical_case *in, rng_key key, medical_case *out) {
  *out = *in;
  host_call call = {.c = out, .shared = true};
  for (int i = 0; i < spec->sample_count; i++) {
    const op *o = spec->sample[i].op;
    call.random = rng_open(key, hash_mix(text_hash(o->name), (uint64_t)i));
    status error = run_operator(&spec->sample[i], &call);
    if (error) {
      if (call.shared) *out = (medical_case){0};
      case_free(out);
      return error;
    }
  }
  return host_own(&call);
}

/* ---- compile time ---- */

static status infer_operators(const op_use *uses, int count, host_infer *shape) {
  for (int i = 0; i < count; i++) {
    if (!uses[i].op->host_infer) continue;
    shape->attrs = uses[i].attrs;
    status error = uses[i].op->host_infer(shape);
    if (error)
      return error_locate(error_prefix(error, "operator %s", uses[i].op->name), uses[i].at);
  }
  return OK;
}

status sample_infer(const data_spec *spec, int64_t channels, int64_t size[3],
                    int64_t *out_channels) {
  host_infer shape = {.size = {-1, -1, -1}, .channels = channels};
  TRY(infer_operators(spec->prepare, spec->prepare_count, &shape));
  TRY(infer_operators(spec->sample, spec->sample_count, &shape));
  for (int a = 0; a < 3; a++)
    if (shape.size[a] < 0)
      return error_new(ERROR_PIPELINE,
                       spec->sample_count ? spec->sample[spec->sample_count - 1].at
                                          : spec->dataset_at,
                       "the samples have no fixed extent along %c: add random_crop or centre_crop "
                       "to data.sample",
                       "xyz"[a]);
  memcpy(size, shape.size, sizeof shape.size);
  *out_channels = shape.channels;
  return OK;
}

uint64_t prepare_identity(const data_spec *spec) {
  arena memory = {0};
  text_buffer text = {0};
  for (int i = 0; i < spec->prepare_count; i++) {
    const op *o = spec->prepare[i].op;
    text_add(&text, "%s %u\n", o->name, (unsigned)o->version);
    for (const attr *a = o->attrs; a && a->name; a++)
      text_add(&text, "  %s: %s\n", a->name, attr_format(a, spec->prepare[i].attrs, &memory));
  }
  uint64_t identity = bytes_hash(text.data, text.length);
  text_free(&text);
  arena_free(&memory);
  return identity;
}
