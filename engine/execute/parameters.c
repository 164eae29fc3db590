#include "execute/parameters.h"

#include "base/text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PARAMETER_ALIGN = 16 }; /* elements: 64 bytes */

status parameters_create(const graph *g, device *d, parameters *out) {
  *out = (parameters){.device = d};
  for (int i = 0; i < g->value_count; i++)
    out->count += g->values[i].kind == VALUE_PARAM && value_is_read(g, i);
  out->list = arena_alloc(&out->memory, (size_t)(out->count + 1) * sizeof *out->list);
  int next = 0;
  for (int pass = 0; pass < 2; pass++) {
    for (int i = 0; i < g->value_count; i++) {
      const value *v = &g->values[i];
      bool trained = v->gradient != VALUE_NONE;
      if (v->kind != VALUE_PARAM || trained != (pass == 0) || !value_is_read(g, i)) continue;
      out->list[next++] = (parameter){.name = arena_strdup(&out->memory, v->name),
                                      .shape = v->type.shape,
                                      .offset = out->elements,
                                      .init = v->init,
                                      .trained = trained};
      int64_t n = shape_elements(&v->type.shape);
      out->elements += (n + PARAMETER_ALIGN - 1) / PARAMETER_ALIGN * PARAMETER_ALIGN;
    }
    if (pass == 0) out->trained_elements = out->elements;
  }
  void *data = NULL;
  status error = d->allocate(d, (size_t)out->elements * sizeof(float), &data);
  if (error) {
    parameters_free(out);
    return error;
  }
  out->data = data;
  return OK;
}

void parameters_free(parameters *p) {
  if (p->device && p->data)
    p->device->release(p->device, p->data, (size_t)p->elements * sizeof(float));
  arena_free(&p->memory);
  *p = (parameters){0};
}

const parameter *parameters_find(const parameters *p, const char *name) {
  for (int i = 0; i < p->count; i++)
    if (strcmp(p->list[i].name, name) == 0) return &p->list[i];
  return NULL;
}

static void fill(float *to, int64_t n, const param_spec *spec, rng *r) {
  for (int64_t i = 0; i < n; i++) {
    switch (spec->init) {
    case INIT_ZEROS:
      to[i] = 0;
      break;
    case INIT_ONES:
      to[i] = 1;
      break;
    case INIT_CONSTANT:
      to[i] = (float)spec->a;
      break;
    case INIT_UNIFORM:
      to[i] = (float)rng_range(r, -spec->a, spec->a);
      break;
    case INIT_NORMAL:
      to[i] = (float)(spec->a * rng_normal(r));
      break;
    case INIT_TRUNCATED_NORMAL:
      do to[i] = (float)(spec->a * rng_normal(r));
      while (fabsf(to[i]) > 2.0f);
      break;
    }
  }
}

status parameter_initialize(parameters *p, const parameter *which, uint64_t seed) {
  int64_t n = shape_elements(&which->shape);
  float *values = malloc((size_t)n * sizeof *values);
  if (!values) return error_out_of_memory((size_t)n * sizeof *values);
  rng r = rng_open(rng_key_of(seed, "initialize", 0, which->name, 0), text_hash(which->name));
  fill(values, n, &which->init, &r);
  status error =
      p->device->upload(p->device, p->data + which->offset, values, (size_t)n * sizeof *values);
  free(values);
  return error;
}

status parameters_initialize(parameters *p, uint64_t seed) {
  for (int i = 0; i < p->count; i++) TRY(parameter_initialize(p, &p->list[i], seed));
  return OK;
}
