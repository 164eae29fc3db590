/* Batches that a device makes, and what the host makes of the same draws. */
#ifndef STRATA_TESTS_GPU_SAMPLING_FIXTURE_H
#define STRATA_TESTS_GPU_SAMPLING_FIXTURE_H

#include "augment/feed.h"
#include "gpu/cuda_fixture.h"
#include "unit/data_fixture.h"

/* ---- a step that only has inputs ---------------------------------------------------------------- */

typedef struct inputs {
  graph *g;
  program program;
  parameters parameters;
  value_id image, label;
} inputs;

static inline void inputs_open(int64_t batch, const int64_t size[3], int64_t channels, inputs *in) {
  *in = (inputs){.g = graph_new(false)};
  builder b = {.g = in->g, .prefix = ""};
  value_id scaled, kept[2];
  in->image =
      build_input(&b, "image", DTYPE_F32, SHAPE(batch, size[0], size[1], size[2], channels));
  in->label = build_input(&b, "label", DTYPE_I32, SHAPE(batch, size[0], size[1], size[2]));
  expect_ok(build_node(&b, "scale", NULL, &in->image, 1, &scaled));
  expect_ok(parameters_create(in->g, cuda, &in->parameters));
  kept[0] = in->image;
  kept[1] = in->label;
  expect_ok(program_create(in->g, cuda, &in->parameters, kept, 2, batch, NULL, &in->program));
}

static inline void inputs_close(inputs *in) {
  program_free(&in->program);
  parameters_free(&in->parameters);
  graph_free(in->g);
}

/* ---- a batch as the loader draws it -------------------------------------------------------------- */

enum { SAMPLES = 4, OPERATORS = 12 };

typedef struct sampling {
  arena memory;
  data_spec spec;
  op_use uses[OPERATORS];
  medical_case cases[SAMPLES];
  case_entry entries[SAMPLES]; /* only their addresses count */
} sampling;

/* A case of voxels in no simple order, of either sign, and three classes. */
static inline medical_case case_of(const int64_t size[3], int64_t channels, uint64_t seed,
                                   bool label) {
  rng r = rng_open(rng_key_of(seed, "test", 0, "case", 0), 1);
  medical_case c = {.name = "case", .image = numbered_volume(size[0], size[1], size[2], channels)};
  const int64_t voxels = size[0] * size[1] * size[2];
  for (int64_t i = 0; i < voxels * channels; i++)
    c.image.data[i] = rng_normal(&r) + (float)(i % channels);
  if (!label) return c;
  expect_ok(labels_allocate(&c.label, size));
  memcpy(c.label.affine, c.image.affine, sizeof c.image.affine);
  for (int64_t i = 0; i < voxels; i++) {
    uint8_t class = (uint8_t)rng_below(&r, 4);
    c.label.data[i] = class == 3 ? LABEL_UNKNOWN : class;
  }
  return c;
}

static inline sampling sampling_of(const int64_t size[3], int64_t channels, bool label) {
  sampling s = {0};
  for (int n = 0; n < SAMPLES; n++) s.cases[n] = case_of(size, channels, (uint64_t)n, label);
  return s;
}

static inline void sampling_end(sampling *s) {
  for (int n = 0; n < SAMPLES; n++) case_free(&s->cases[n]);
  arena_free(&s->memory);
}

/* A feed of these cases and the operators added so far. */
static inline void sampling_begin(sampling *s, feed *f) {
  s->spec.sample = s->uses;
  expect_ok(feed_open(&s->spec, cuda, f));
}

static inline void sampling_finish(sampling *s, feed *f) {
  feed_close(f);
  sampling_end(s);
}

static inline void sampling_add(sampling *s, const char *name, const char *attributes) {
  const op *o = op_find(name);
  tree *map = NULL;
  problems found = {0};
  expect_ok(tree_parse(&s->memory, attributes, strlen(attributes), name, &map));
  op_use use = {.op = o, .attrs = arena_alloc(&s->memory, o->attrs_bytes)};
  bind_attrs(o, map, NULL, NOWHERE, &s->memory, use.attrs, &found);
  expect_ok(problems_take(&found));
  s->uses[s->spec.sample_count++] = use;
}

/* A batch, and its samples as the host makes them. */
typedef struct drawn_batch {
  batch b;
  medical_case expected[SAMPLES];
  drawn_sample drawn[SAMPLES];
  rng_key keys[SAMPLES];
  int64_t voxels, values; /* of a sample */
  bool label;
} drawn_batch;

/* The samples of `seed`, `copied` of which the loader has made already. */
static inline void draw_batch(sampling *s, uint64_t seed, int copied, drawn_batch *out) {
  *out = (drawn_batch){.label = s->cases[0].label.data != NULL};
  s->spec.sample = s->uses;
  for (int n = 0; n < SAMPLES; n++) {
    out->keys[n] = rng_key_of(seed, "stage", 0, "case", n);
    expect_ok(case_sample(&s->spec, &s->cases[n], out->keys[n], &out->expected[n]));
  }
  const volume *v = &out->expected[0].image;
  out->voxels = v->size[0] * v->size[1] * v->size[2];
  out->values = out->voxels * v->channels;
  out->b = (batch){.drawn = out->drawn, .keys = out->keys};
  out->b.image = malloc((size_t)(SAMPLES * out->values) * sizeof(float));
  out->b.label = malloc((size_t)(SAMPLES * out->voxels));
  for (int n = 0; n < SAMPLES; n++) {
    out->drawn[n].entry = &s->entries[n];
    medical_case room = {.image = {.channels = v->channels, .data = out->b.image + n * out->values},
                         .label = {.data = out->b.label + n * out->voxels}};
    memcpy(room.image.size, v->size, sizeof v->size);
    if (n < copied) {
      expect_ok(case_sample_into(&s->spec, &s->cases[n], out->keys[n], &room));
      continue;
    }
    out->drawn[n].from = &s->cases[n];
    expect_ok(case_draw(&s->spec, &s->cases[n], out->keys[n], v, &out->drawn[n].recipe));
  }
  if (copied == SAMPLES) out->b.drawn = NULL; /* as of a loader that draws none */
}

static inline void free_batch(drawn_batch *d) {
  for (int n = 0; n < SAMPLES; n++) {
    case_free(&d->expected[n]);
    recipe_free(&d->drawn[n].recipe);
  }
  free(d->b.image);
  free(d->b.label);
  *d = (drawn_batch){0};
}

/* A program for batches as this one. */
static inline void inputs_open_for(const drawn_batch *d, inputs *in) {
  const volume *v = &d->expected[0].image;
  inputs_open(SAMPLES, v->size, v->channels, in);
}

static inline value_id label_of(const inputs *in, const drawn_batch *d) {
  return d->label ? in->label : VALUE_NONE;
}

typedef struct comparison {
  double worst; /* difference of two voxels, of the largest magnitude of the image */
  bool same_bits;
  int64_t waits, step_waits; /* for the batch and for the step that reads it */
} comparison;

/* The label has to agree to the bit. */
static inline comparison compare_inputs(const drawn_batch *d, const float *image,
                                        const int32_t *classes) {
  comparison c = {.same_bits = true};
  for (int n = 0; n < SAMPLES; n++) {
    const float *want = d->expected[n].image.data, *got = image + n * d->values;
    double largest = 0, worst = 0;
    for (int64_t i = 0; i < d->values; i++) {
      assert_true(isfinite(got[i]));
      largest = fmax(largest, fabs((double)want[i]));
      worst = fmax(worst, fabs((double)got[i] - (double)want[i]));
    }
    if (worst > 0) c.worst = fmax(c.worst, worst / largest);
    c.same_bits &= memcmp(got, want, (size_t)d->values * sizeof *got) == 0;
    for (int64_t i = 0; i < d->voxels && d->label; i++) {
      uint8_t class = d->expected[n].label.data[i];
      assert_int_equal(classes[n * d->voxels + i], class == LABEL_UNKNOWN ? TARGET_UNKNOWN : class);
    }
  }
  return c;
}

#endif
