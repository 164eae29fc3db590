#include "data/host.h"

#include "graph/op.h"

#include <string.h>

/* A result of this many bytes will not be found in the caches when it is read. */
enum { PAST_CACHES_BYTES = 1 << 20 };

status host_own(host_call *call) {
  if (call->recipe)
    return error_new(ERROR_INTERNAL, NOWHERE,
                     "the operator changes voxels by itself, which no recipe can hold");
  TRY(host_settle(call, false));
  if (!call->shared) return OK;
  medical_case copy;
  TRY(case_copy(call->c, &copy));
  *call->c = copy;
  call->shared = false;
  return OK;
}

void host_let_go(host_call *call) {
  medical_case *c = call->c;
  if (call->room && c->image.data == call->room->image.data) c->image.data = NULL;
  if (call->room && c->label.data == call->room->label.data) c->label.data = NULL;
  if (!call->shared) case_free(c);
  c->image = (volume){0};
  c->label = (labels){0};
  call->delayed = HOST_NOTHING_DELAYED;
}

void host_replace(host_call *call, volume *image, labels *label) {
  host_let_go(call);
  call->c->image = *image;
  call->c->label = *label;
  call->shared = false;
  *image = (volume){0};
  *label = (labels){0};
}

/* ---- delayed changes ---- */

/* Is the caller's memory free, and of the case's size? */
static bool fits_room(const host_call *call) {
  const medical_case *room = call->room, *c = call->c;
  return room && c->image.data != room->image.data && c->label.data != room->label.data &&
         c->image.channels == room->image.channels &&
         memcmp(c->image.size, room->image.size, sizeof room->image.size) == 0;
}

static status make_room(const host_call *call, volume *image, labels *label) {
  const medical_case *c = call->c;
  if (fits_room(call)) {
    memcpy(image->size, c->image.size, sizeof image->size);
    memcpy(label->size, c->image.size, sizeof label->size);
    image->channels = c->image.channels;
    image->data = call->room->image.data;
    if (c->label.data) label->data = call->room->label.data;
    return OK;
  }
  TRY(volume_reserve(image, c->image.size, c->image.channels));
  status error = c->label.data ? labels_reserve(label, c->image.size) : OK;
  if (error) volume_free(image);
  return error;
}

/* The case's sizes and affines are those of the result already. */
static status settle_elsewhere(host_call *call, bool last) {
  medical_case *c = call->c;
  const host_delayed *d = &call->delayed;
  grid_map map = d->moves ? d->map : grid_identity(c->image.size);
  volume from = c->image, image = {0};
  labels from_label = c->label, label = {0};
  if (d->moves) {
    memcpy(from.size, d->size, sizeof from.size);
    memcpy(from_label.size, d->size, sizeof from.size);
  }
  TRY(make_room(call, &image, &label));
  const int64_t voxels = image.size[0] * image.size[1] * image.size[2];
  voxel_change change = {.fill = d->fill,
                         .intensity = d->intensity,
                         .past_caches = last && voxels * image.channels * (int64_t)sizeof(float) >=
                                                    PAST_CACHES_BYTES};
  volume_regrid_into(&from, &map, &change, image.data);
  memcpy(image.affine, c->image.affine, sizeof image.affine);
  if (c->label.data) {
    labels_regrid_into(&from_label, &map, change.past_caches, label.data);
    memcpy(label.affine, c->label.affine, sizeof label.affine);
  } else {
    label = (labels){0};
  }
  host_replace(call, &image, &label);
  return OK;
}

/* Notes the delayed changes. A recipe begins with a copy to memory that may be written. */
static status note_delayed(host_call *call) {
  const host_delayed *d = &call->delayed;
  const int64_t *size = call->c->image.size;
  const move_change move = {
      .map = d->moves ? d->map : grid_identity(size), .fill = d->fill, .intensity = d->intensity};
  bool moves = d->moves || call->recipe->count == 0;
  TRY(recipe_add(call->recipe, &change_move_voxels, moves ? MOVES_VOXELS : CHANGES_INTENSITIES,
                 &move, sizeof move, size));
  call->delayed = HOST_NOTHING_DELAYED;
  return OK;
}

status host_settle(host_call *call, bool last) {
  medical_case *c = call->c;
  const host_delayed *d = &call->delayed;
  if (!d->moves && rescale_is_none(d->intensity)) return OK;
  if (call->recipe) return note_delayed(call);
  bool stays = !d->moves || grid_is_part(&d->map, d->size);
  /* A crop's way to the caller's memory is shorter without a stop. */
  if (d->moves && call->room && memcmp(d->size, d->map.size, sizeof d->size) != 0) stays = false;
  if (call->shared || !stays) return settle_elsewhere(call, last);
  if (d->moves) {
    volume_keep_part(&c->image, d->size, &d->map);
    if (c->label.data) labels_keep_part(&c->label, d->size, &d->map);
  }
  if (!rescale_is_none(d->intensity)) volume_rescale(&c->image, d->intensity);
  call->delayed = HOST_NOTHING_DELAYED;
  return OK;
}

status host_regrid(host_call *call, const grid_map *map, float fill) {
  medical_case *c = call->c;
  host_delayed *d = &call->delayed;
  TRY(volume_size_check(map->size, c->image.channels));
  /* What the voxels outside are must not depend on what lies there in memory, nor be rescaled. */
  if (!grid_covers(c->image.size, map)) TRY(host_settle(call, false));
  if (d->moves) {
    d->map = grid_compose(&d->map, map);
  } else {
    d->moves = true;
    d->map = *map;
    d->fill = fill;
    memcpy(d->size, c->image.size, sizeof d->size);
  }
  memcpy(c->image.size, map->size, sizeof c->image.size);
  grid_affine((const double(*)[4])c->image.affine, map, c->image.affine);
  if (c->label.data) {
    memcpy(c->label.size, map->size, sizeof c->label.size);
    grid_affine((const double(*)[4])c->label.affine, map, c->label.affine);
  }
  return OK;
}

/* Only a shift after a factor is one change to the bit: two factors would be rounded once, not
 * twice. */
status host_rescale(host_call *call, rescale change) {
  rescale *now = &call->delayed.intensity;
  const rescale factor = {now->scale, RESCALE_NONE.shift};
  if (change.scale == 1 && memcmp(now, &factor, sizeof factor) == 0) {
    now->shift = change.shift;
    return OK;
  }
  if (!rescale_is_none(*now)) TRY(host_settle(call, false));
  *now = change;
  return OK;
}

status host_change(host_call *call, change_sort sort, const void *change, size_t bytes) {
  if (!call->recipe) return call->op->apply(call, change);
  TRY(sort == CHANGES_INTENSITIES ? host_note_rest(call) : host_settle(call, false));
  return recipe_add(call->recipe, call->op, sort, change, bytes, call->c->image.size);
}

status host_note_rest(host_call *call) {
  TRY(host_settle(call, true));
  return call->recipe->count == 0 ? note_delayed(call) : OK;
}

bool host_happens(host_call *call, double probability) {
  return rng_range(&call->random, 0, 1) < probability;
}
