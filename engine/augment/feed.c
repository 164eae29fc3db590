#include "augment/feed.h"

#include <string.h>

/* What a step reads of a label: no operator of the registry. */
static const op widen_classes = {.name = "widen_classes"};

/* Of the memory that programs have left. The rest is for those that come later and for the kernels. */
enum { CASES_SHARE = 2 };

/* Can the device make what the sample graph draws? */
static bool finds_kernels(feed *f) {
  const data_spec *spec = f->spec;
  const op *missing = NULL;
  if (!f->d->supports(f->d, &change_move_voxels) || !f->d->supports(f->d, &widen_classes)) {
    snprintf(f->why_not, sizeof f->why_not, "the device %s has no kernels for them", f->d->name);
    return false;
  }
  for (int i = 0; i < spec->sample_count && !missing; i++) {
    const op *o = spec->sample[i].op;
    bool looks = !o->apply && !(o->traits & OP_LAZY);
    if (looks && i > 0) {
      snprintf(f->why_not, sizeof f->why_not,
               "%s looks at what the operators before it make; it would have to be the first",
               o->name);
      return false;
    }
    if (o->apply && !f->d->supports(f->d, o)) missing = o;
  }
  if (!missing) return true;
  snprintf(f->why_not, sizeof f->why_not, "%s has no kernel for %s", missing->name, f->d->name);
  return false;
}

void feed_open(const data_spec *spec, device *d, feed *out) {
  *out = (feed){.d = d, .spec = spec};
  if (d->is_host) return;
  out->makes_samples = finds_kernels(out);
  size_t bound = out->makes_samples ? d->free_bytes(d) / CASES_SHARE : 0;
  device_cases_open(d, bound, &out->cases);
}

static void let_memory_go(feed *f, feed_memory *m) {
  if (m->data) f->d->release(f->d, m->data, m->bytes);
  *m = (feed_memory){0};
}

void feed_close(feed *f) {
  for (int i = 0; i < 2; i++) {
    let_memory_go(f, &f->images[i]);
    let_memory_go(f, &f->labels[i]);
  }
  let_memory_go(f, &f->classes);
  device_cases_close(&f->cases);
  *f = (feed){0};
}

size_t feed_case_bytes(const feed *f) {
  return f->makes_samples ? f->cases.bound_bytes : 0;
}

static status want_memory(feed *f, feed_memory *m, size_t bytes, void **out) {
  if (m->bytes < bytes) {
    let_memory_go(f, m);
    TRY(f->d->allocate(f->d, bytes, &m->data));
    m->bytes = bytes;
  }
  *out = m->data;
  return OK;
}

/* ---- one sample --------------------------------------------------------------------------- */

/* Image and label between two changes; the label may be NULL. */
typedef struct form {
  int64_t size[3];
  float *image;
  uint8_t *label;
} form;

static void bind_tensors(const form *s, int64_t channels, bool with_label, tensor bound[2]) {
  const int64_t *n = s->size;
  bound[0] = (tensor){.shape = SHAPE(n[0], n[1], n[2], channels), .data = s->image};
  bound[1] = with_label ? (tensor){.shape = SHAPE(n[0], n[1], n[2]), .data = s->label}
                        : (tensor){.shape = {.rank = -1}};
}

static status launch_change(feed *f, const recipe *r, const change *c, const tensor in[2],
                            const tensor out[2]) {
  const call bound = {.attrs = recipe_parameters(r, c),
                      .in = in,
                      .out = out,
                      .in_count = 2,
                      .out_count = 2,
                      .pool = f->d->pool};
  if (f->d->reserve) TRY(f->d->reserve(f->d, c->op, &bound));
  return f->d->launch(f->d, c->op, &bound);
}

/* Where a change puts voxels: the last one into the batch, those before it into one of two places in
 * turn. */
static status next_place(feed *f, const change *c, int64_t channels, bool with_label, int turn,
                         form *out) {
  const size_t voxels = (size_t)(c->size[0] * c->size[1] * c->size[2]);
  void *image, *label = NULL;
  TRY(want_memory(f, &f->images[turn], voxels * (size_t)channels * sizeof(float), &image));
  if (with_label) TRY(want_memory(f, &f->labels[turn], voxels, &label));
  out->image = image;
  out->label = label;
  return OK;
}

static status make_sample(feed *f, const recipe *r, const device_case *from, const form *row) {
  const bool with_label = row->label != NULL;
  form now = {.image = from->image, .label = from->label};
  memcpy(now.size, from->size, sizeof now.size);
  int last = 0, turn = 0;
  for (int i = 0; i < r->count; i++)
    if (r->list[i].sort == MOVES_VOXELS) last = i;
  for (int i = 0; i < r->count; i++) {
    const change *c = &r->list[i];
    const bool moves = c->sort == MOVES_VOXELS;
    form next = now;
    if (moves && i == last) {
      next = *row;
    } else if (moves) {
      TRY(next_place(f, c, from->channels, with_label, turn, &next));
      turn = 1 - turn;
    }
    memcpy(next.size, c->size, sizeof next.size);
    tensor in[2], out[2];
    bind_tensors(&now, from->channels, with_label && moves, in);
    bind_tensors(&next, from->channels, with_label && moves, out);
    TRY(launch_change(f, r, c, in, out));
    now = next;
  }
  return OK;
}

/* ---- a batch ------------------------------------------------------------------------------ */

/* A sample for which the device has no room, or that the loader has made. */
static status copy_sample(feed *f, const batch *b, int64_t n, const form *row, int64_t channels) {
  const int64_t voxels = row->size[0] * row->size[1] * row->size[2];
  medical_case room = {.image = {.channels = channels, .data = b->image + n * voxels * channels},
                       .label = {.data = b->label + n * voxels}};
  memcpy(room.image.size, row->size, sizeof room.image.size);
  if (b->drawn[n].from) TRY(case_sample_into(f->spec, b->drawn[n].from, b->keys[n], &room));
  TRY(f->d->upload(f->d, row->image, room.image.data, (size_t)(voxels * channels) * sizeof(float)));
  return row->label ? f->d->upload(f->d, row->label, room.label.data, (size_t)voxels) : OK;
}

static status write_row(feed *f, const batch *b, int64_t n, const form *row, int64_t channels) {
  const drawn_sample *s = &b->drawn[n];
  const bool can = s->from && (!row->label || s->from->label.data);
  device_case from;
  bool is_there = false;
  if (can)
    TRY(device_cases_get(&f->cases, s->entry, s->from, row->label != NULL, &from, &is_there));
  return is_there ? make_sample(f, &s->recipe, &from, row) : copy_sample(f, b, n, row, channels);
}

/* From bytes on the device to what the step reads. */
static status widen(feed *f, program *p, value_id label, void *classes) {
  tensor wide = p->g->values[label].type;
  wide.data = program_data(p, label);
  const tensor bytes = {.shape = wide.shape, .data = classes};
  const call c = {.in = &bytes, .out = &wide, .in_count = 1, .out_count = 1};
  return f->d->launch(f->d, &widen_classes, &c);
}

static status write_samples(feed *f, const batch *b, program *p, value_id image, value_id label) {
  const shape *s = &p->g->values[image].type.shape;
  const int64_t voxels = s->dim[1] * s->dim[2] * s->dim[3], channels = s->dim[4];
  void *classes = NULL;
  if (label != VALUE_NONE) TRY(want_memory(f, &f->classes, (size_t)(s->dim[0] * voxels), &classes));
  for (int64_t n = 0; n < s->dim[0]; n++) {
    form row = {.size = {s->dim[1], s->dim[2], s->dim[3]},
                .image = (float *)program_data(p, image) + n * voxels * channels,
                .label = classes ? (uint8_t *)classes + n * voxels : NULL};
    TRY(write_row(f, b, n, &row, channels));
  }
  return classes ? widen(f, p, label, classes) : OK;
}

/* Of a batch that the loader has made. */
static status write_classes(feed *f, const batch *b, program *p, value_id label) {
  if (!f->d->supports(f->d, &widen_classes)) return program_write_classes(p, label, b->label);
  const size_t voxels = (size_t)shape_elements(&p->g->values[label].type.shape);
  void *classes;
  TRY(want_memory(f, &f->classes, voxels, &classes));
  TRY(f->d->upload(f->d, classes, b->label, voxels));
  return widen(f, p, label, classes);
}

status feed_write(feed *f, const batch *b, program *p, value_id image, value_id label) {
  if (b->drawn) {
    TRY(write_samples(f, b, p, image, label));
  } else {
    TRY(program_write(p, image, b->image));
    if (label != VALUE_NONE) TRY(write_classes(f, b, p, label));
  }
  return program_set_keys(p, b->keys);
}
