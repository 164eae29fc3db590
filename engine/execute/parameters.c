#include "execute/parameters.h"

#include "base/text.h"
#include "execute/orthogonal.h"
#include "graph/passes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PARAMETER_ALIGN = 16 }; /* elements: 64 bytes */

/* Elements for a parameter, and for its packed form in its place. */
static int64_t room_of(const graph *g, value_id v) {
  int64_t n = shape_elements(&g->values[v].type.shape);
  int64_t packed = (int64_t)(graph_packed_bytes(g, v) / sizeof(float));
  if (packed > n) n = packed;
  return (n + PARAMETER_ALIGN - 1) / PARAMETER_ALIGN * PARAMETER_ALIGN;
}

status parameters_create(const graph *g, device *d, parameters *out) {
  return parameters_create_in_groups(g, NULL, 1, d, out);
}

status parameters_create_in_groups(const graph *g, const int *group_of, int group_count, device *d,
                                   parameters *out) {
  *out = (parameters){.device = d, .group_count = group_count};
  const bool *is_read = graph_read_values(g, &out->memory);
  for (int i = 0; i < g->value_count; i++)
    out->count += g->values[i].kind == VALUE_PARAM && is_read[i];
  out->list = arena_alloc(&out->memory, (size_t)(out->count + 1) * sizeof *out->list);
  out->group_first =
      arena_alloc(&out->memory, (size_t)(group_count + 1) * sizeof *out->group_first);
  int next = 0;
  /* A pass per group, and one for the parameters that are not trained. */
  for (int pass = 0; pass <= group_count; pass++) {
    out->group_first[pass] = out->elements;
    for (int i = 0; i < g->value_count; i++) {
      const value *v = &g->values[i];
      bool trained = v->gradient != VALUE_NONE;
      int turn = !trained ? group_count : group_of ? group_of[i] : 0;
      if (v->kind != VALUE_PARAM || turn != pass || !is_read[i]) continue;
      out->list[next] = (parameter){.name = arena_strdup(&out->memory, v->name),
                                    .shape = v->type.shape,
                                    .offset = out->elements,
                                    .init = v->init,
                                    .trained = trained};
      index_add(&out->memory, &out->index, out->list[next].name, next);
      out->elements += room_of(g, i);
      next++;
    }
  }
  out->trained_elements = out->group_first[group_count];
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
  int i = index_find(&p->index, name);
  return i < 0 ? NULL : &p->list[i];
}

static status fill_orthogonal(float *to, int64_t n, const param_spec *spec, rng *r,
                              thread_pool *pool) {
  int64_t rows = spec->shape.rank > 0 ? spec->shape.dim[0] : 1, columns = n / rows;
  int64_t count = rows < columns ? rows : columns, length = n / count;
  double *v = malloc((size_t)n * sizeof *v);
  if (!v) return error_out_of_memory((size_t)n * sizeof *v);
  for (int64_t i = 0; i < n; i++) v[i] = (double)rng_normal(r);
  orthonormalize(v, count, length, pool);
  bool by_row = count == rows;
  for (int64_t i = 0; i < n; i++)
    to[i] = (float)(spec->a * (by_row ? v[i] : v[i % columns * length + i / columns]));
  free(v);
  return OK;
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
    case INIT_ORTHOGONAL: /* not one number at a time */
      return;
    }
  }
}

status parameter_initialize(parameters *p, const parameter *which, uint64_t seed) {
  int64_t n = shape_elements(&which->shape);
  float *values = malloc((size_t)n * sizeof *values);
  if (!values) return error_out_of_memory((size_t)n * sizeof *values);
  rng r = rng_open(rng_key_of(seed, "initialize", 0, which->name, 0), text_hash(which->name));
  status error = OK;
  if (which->init.init == INIT_ORTHOGONAL)
    error = fill_orthogonal(values, n, &which->init, &r, p->device->pool);
  else
    fill(values, n, &which->init, &r);
  if (!error)
    error =
        p->device->upload(p->device, p->data + which->offset, values, (size_t)n * sizeof *values);
  free(values);
  return error;
}

status parameters_initialize(parameters *p, uint64_t seed) {
  p->packed = false;
  for (int i = 0; i < p->count; i++) {
    TRY(parameter_initialize(p, &p->list[i], seed));
    p->list[i].fresh = true;
  }
  return OK;
}
