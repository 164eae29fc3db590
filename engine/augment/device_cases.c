#include "augment/device_cases.h"

#include <stdlib.h>
#include <string.h>

void device_cases_open(device *d, size_t bound_bytes, device_cases *out) {
  *out = (device_cases){.d = d, .bound_bytes = bound_bytes};
}

/* `release` comes after the device's work that reads the memory. */
static void free_memory(device_cases *c, device_case *which) {
  if (which->image) c->d->release(c->d, which->image, which->image_bytes);
  if (which->label) c->d->release(c->d, which->label, which->label_bytes);
}

static void let_go(device_cases *c, int i) {
  free_memory(c, &c->list[i]);
  c->used_bytes -= c->list[i].image_bytes + c->list[i].label_bytes;
  c->list[i] = c->list[--c->count];
}

void device_cases_close(device_cases *c) {
  while (c->count > 0) let_go(c, c->count - 1);
  free(c->list);
  *c = (device_cases){0};
}

static void let_oldest_go(device_cases *c) {
  int oldest = 0;
  for (int i = 1; i < c->count; i++)
    if (c->list[i].last_use < c->list[oldest].last_use) oldest = i;
  let_go(c, oldest);
}

static status upload(device_cases *c, const medical_case *prepared, device_case *made) {
  device *d = c->d;
  void *image = NULL, *label = NULL;
  TRY(d->allocate(d, made->image_bytes, &image));
  made->image = image;
  if (made->label_bytes > 0) {
    TRY(d->allocate(d, made->label_bytes, &label));
    made->label = label;
    TRY(d->upload(d, label, prepared->label.data, made->label_bytes));
  }
  return d->upload(d, image, prepared->image.data, made->image_bytes);
}

/* Others may have taken the device's memory in the meantime: then fewer cases have to do. */
static status upload_where_possible(device_cases *c, const medical_case *prepared,
                                    device_case *made, bool *is_there) {
  for (;;) {
    status error = upload(c, prepared, made);
    if (!error) {
      *is_there = true;
      return OK;
    }
    free_memory(c, made);
    made->image = NULL;
    made->label = NULL;
    if (error_code_of(error) != ERROR_MEMORY) return error;
    error_free(error);
    if (c->count == 0) return OK;
    let_oldest_go(c);
  }
}

static status make_room_in_list(device_cases *c) {
  if (c->count < c->room) return OK;
  int room = c->room ? 2 * c->room : 16;
  device_case *list = realloc(c->list, (size_t)room * sizeof *list);
  if (!list) return error_out_of_memory((size_t)room * sizeof *list);
  c->list = list;
  c->room = room;
  return OK;
}

status device_cases_get(device_cases *c, const case_entry *entry, const medical_case *prepared,
                        bool with_label, device_case *out, bool *is_there) {
  *is_there = false;
  for (int i = 0; i < c->count; i++) {
    if (c->list[i].entry != entry) continue;
    if (with_label && !c->list[i].label) {
      let_go(c, i); /* and comes again, with the label */
      break;
    }
    c->list[i].last_use = ++c->clock;
    *out = c->list[i];
    *is_there = true;
    return OK;
  }
  const volume *v = &prepared->image;
  const size_t voxels = (size_t)(v->size[0] * v->size[1] * v->size[2]);
  device_case made = {.entry = entry,
                      .channels = v->channels,
                      .image_bytes = voxels * (size_t)v->channels * sizeof(float),
                      .label_bytes = with_label ? voxels : 0,
                      .last_use = ++c->clock};
  memcpy(made.size, v->size, sizeof made.size);
  const size_t bytes = made.image_bytes + made.label_bytes;
  if (bytes > c->bound_bytes) return OK;
  TRY(make_room_in_list(c));
  while (c->used_bytes + bytes > c->bound_bytes) let_oldest_go(c);
  TRY(upload_where_possible(c, prepared, &made, is_there));
  if (!*is_there) return OK;
  c->uploads++;
  c->used_bytes += bytes;
  c->list[c->count++] = made;
  *out = made;
  return OK;
}
