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

status feed_open(const data_spec *spec, device *d, feed *out) {
  *out = (feed){.d = d, .side = d, .spec = spec};
  if (d->is_host) return OK;
  if (d->beside) TRY(d->beside(d, &out->side));
  out->makes_samples = finds_kernels(out);
  size_t bound = out->makes_samples ? d->free_bytes(d) / CASES_SHARE : 0;
  device_cases_open(out->side, bound, &out->cases);
  return OK;
}

static void let_memory_go(feed *f, feed_memory *m) {
  if (m->data) f->side->release(f->side, m->data, m->bytes);
  *m = (feed_memory){0};
}

void feed_close(feed *f) {
  for (int i = 0; i < 2; i++) {
    let_memory_go(f, &f->images[i]);
    let_memory_go(f, &f->labels[i]);
  }
  let_memory_go(f, &f->classes);
  let_memory_go(f, &f->next_image);
  let_memory_go(f, &f->next_classes);
  device_cases_close(&f->cases);
  if (f->side != f->d) device_close(f->side);
  *f = (feed){0};
}

size_t feed_case_bytes(const feed *f) {
  return f->makes_samples ? f->cases.bound_bytes : 0;
}

static status want_memory(feed *f, feed_memory *m, size_t bytes, void **out) {
  if (m->bytes < bytes) {
    let_memory_go(f, m);
    TRY(f->side->allocate(f->side, bytes, &m->data));
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
  if (f->side->reserve) TRY(f->side->reserve(f->side, c->op, &bound));
  return f->side->launch(f->side, c->op, &bound);
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
  device *d = f->side;
  TRY(d->upload(d, row->image, room.image.data, (size_t)(voxels * channels) * sizeof(float)));
  return row->label ? d->upload(d, row->label, room.label.data, (size_t)voxels) : OK;
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

/* From bytes on the device to what the step reads, on `d`. */
static status widen(device *d, program *p, value_id label, void *classes) {
  tensor wide = p->g->values[label].type;
  wide.data = program_data(p, label);
  const tensor bytes = {.shape = wide.shape, .data = classes};
  const call c = {.in = &bytes, .out = &wide, .in_count = 1, .out_count = 1};
  return d->launch(d, &widen_classes, &c);
}

/* Of the batch, in the device's memory. `s` is the shape of the image; classes may be NULL. */
static status make_batch(feed *f, const batch *b, const shape *s, float *image, uint8_t *classes) {
  const int64_t voxels = s->dim[1] * s->dim[2] * s->dim[3], channels = s->dim[4];
  const size_t all = (size_t)(s->dim[0] * voxels);
  if (!b->drawn) {
    TRY(f->side->upload(f->side, image, b->image, all * (size_t)channels * sizeof *image));
    return classes ? f->side->upload(f->side, classes, b->label, all) : OK;
  }
  for (int64_t n = 0; n < s->dim[0]; n++) {
    form row = {.size = {s->dim[1], s->dim[2], s->dim[3]},
                .image = image + n * voxels * channels,
                .label = classes ? classes + n * voxels : NULL};
    TRY(write_row(f, b, n, &row, channels));
  }
  return OK;
}

static size_t class_bytes(const program *p, value_id label) {
  return label == VALUE_NONE ? 0 : (size_t)shape_elements(&p->g->values[label].type.shape);
}

/* What is asked of `after` from now on finds done what was asked of the other so far. */
static status put_after(device *after, device *before) {
  return after == before ? OK : after->follow(after, before);
}

/* A host reads batches where they lie, and so does a device without the kernels. */
static bool widens(const feed *f) {
  return !f->d->is_host && f->d->supports(f->d, &widen_classes);
}

status feed_write(feed *f, const batch *b, program *p, value_id image, value_id label) {
  if (!widens(f)) {
    TRY(program_write(p, image, b->image));
    if (label != VALUE_NONE) TRY(program_write_classes(p, label, b->label));
    return program_set_keys(p, b->keys);
  }
  void *classes = NULL;
  TRY(put_after(f->side, f->d)); /* a step may still read its inputs */
  if (label != VALUE_NONE) TRY(want_memory(f, &f->classes, class_bytes(p, label), &classes));
  TRY(make_batch(f, b, &p->g->values[image].type.shape, program_data(p, image), classes));
  if (classes) TRY(widen(f->side, p, label, classes));
  TRY(put_after(f->d, f->side));
  return program_set_keys(p, b->keys);
}

bool feed_works_ahead(const feed *f) {
  return f->side != f->d && widens(f);
}

size_t feed_ahead_bytes(const feed *f, const program *p, value_id image, value_id label) {
  return feed_works_ahead(f) ? tensor_bytes(&p->g->values[image].type) + class_bytes(p, label) : 0;
}

status feed_ahead(feed *f, const batch *b, const program *p, value_id image, value_id label) {
  const tensor *type = &p->g->values[image].type;
  void *values, *classes = NULL;
  TRY(want_memory(f, &f->next_image, tensor_bytes(type), &values));
  if (label != VALUE_NONE) TRY(want_memory(f, &f->next_classes, class_bytes(p, label), &classes));
  return make_batch(f, b, &type->shape, values, classes);
}

status feed_deliver(feed *f, const batch *b, program *p, value_id image, value_id label) {
  device *d = f->d;
  TRY(put_after(d, f->side)); /* the batch is ready */
  TRY(d->copy(d, program_data(p, image), f->next_image.data,
              tensor_bytes(&p->g->values[image].type)));
  if (label != VALUE_NONE) TRY(widen(d, p, label, f->next_classes.data));
  TRY(put_after(f->side, d)); /* its memory is free, before the step runs */
  return program_set_keys(p, b->keys);
}
