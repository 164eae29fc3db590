#include "weights/element.h"

#include "base/refuse.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool from_f16(const void *source, void *target, int64_t n) {
  const uint16_t *in = source;
  float *out = target;
  for (int64_t i = 0; i < n; i++) {
    uint32_t sign = (uint32_t)(in[i] & 0x8000) << 16, exponent = in[i] >> 10 & 31;
    uint32_t fraction = in[i] & 0x3FF;
    if (exponent == 0) {
      float value = (float)fraction * 0x1p-24f; /* zero and subnormals */
      out[i] = sign ? -value : value;
      continue;
    }
    uint32_t bits = sign | (exponent == 31 ? 0x7F800000 : (exponent + 112) << 23) | fraction << 13;
    memcpy(&out[i], &bits, sizeof bits);
  }
  return true;
}

static bool from_bf16(const void *source, void *target, int64_t n) {
  const uint16_t *in = source;
  uint32_t *out = target;
  for (int64_t i = 0; i < n; i++) out[i] = (uint32_t)in[i] << 16;
  return true;
}

static bool from_f64(const void *source, void *target, int64_t n) {
  const double *in = source;
  float *out = target;
  for (int64_t i = 0; i < n; i++) {
    out[i] = (float)in[i];
    if (isinf(out[i]) && !isinf(in[i])) return false;
  }
  return true;
}

static bool from_i64(const void *source, void *target, int64_t n) {
  const int64_t *in = source;
  int32_t *out = target;
  for (int64_t i = 0; i < n; i++) {
    if (in[i] < INT32_MIN || in[i] > INT32_MAX) return false;
    out[i] = (int32_t)in[i];
  }
  return true;
}

static bool from_i16(const void *source, void *target, int64_t n) {
  const int16_t *in = source;
  int32_t *out = target;
  for (int64_t i = 0; i < n; i++) out[i] = in[i];
  return true;
}

static bool from_i8(const void *source, void *target, int64_t n) {
  const int8_t *in = source;
  int32_t *out = target;
  for (int64_t i = 0; i < n; i++) out[i] = in[i];
  return true;
}

static bool from_u8(const void *source, void *target, int64_t n) {
  const uint8_t *in = source;
  int32_t *out = target;
  for (int64_t i = 0; i < n; i++) out[i] = in[i];
  return true;
}

static bool from_32_bits(const void *source, void *target, int64_t n) {
  memcpy(target, source, (size_t)n * 4);
  return true;
}

static const element_type element_types[] = {
    {"F32", 4, DTYPE_F32, from_32_bits}, {"I32", 4, DTYPE_I32, from_32_bits},
    {"F16", 2, DTYPE_F32, from_f16},     {"BF16", 2, DTYPE_F32, from_bf16},
    {"F64", 8, DTYPE_F32, from_f64},     {"I64", 8, DTYPE_I32, from_i64},
    {"I16", 2, DTYPE_I32, from_i16},     {"I8", 1, DTYPE_I32, from_i8},
    {"U8", 1, DTYPE_I32, from_u8},       {"BOOL", 1, DTYPE_I32, from_u8}};

const element_type *element_type_of(const char *name) {
  for (size_t i = 0; i < sizeof element_types / sizeof *element_types; i++)
    if (strcmp(element_types[i].name, name) == 0) return &element_types[i];
  return NULL;
}

bool element_is_native(const element_type *type) {
  return type->convert == from_32_bits;
}

status element_convert(const element_type *type, const void *source, int64_t n, const char *name,
                       void **out) {
  size_t bytes = (size_t)n * type->bytes;
  void *copy = malloc((size_t)n * 4 + 1), *aligned = NULL;
  bool is_aligned = (uintptr_t)source % type->bytes == 0;
  if (copy && !is_aligned && (aligned = malloc(bytes + 1))) memcpy(aligned, source, bytes);
  status error = OK;
  if (!copy || (!is_aligned && !aligned))
    error = error_out_of_memory(copy ? bytes : (size_t)n * 4);
  else if (!type->convert(is_aligned ? source : aligned, copy, n))
    error = refuse("tensor '%s' (%s) has values that do not fit %s", name, type->name,
                   dtype_name(type->becomes));
  free(aligned);
  if (error) free(copy);
  *out = error ? NULL : copy;
  return error;
}
