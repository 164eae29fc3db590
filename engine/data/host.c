#include "data/host.h"

#include <string.h>

status host_own(host_call *call) {
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
}

void host_replace(host_call *call, volume *image, labels *label) {
  host_let_go(call);
  call->c->image = *image;
  call->c->label = *label;
  call->shared = false;
  *image = (volume){0};
  *label = (labels){0};
}

/* Is the caller's memory free, and of the size that the map gives? */
static bool fits_room(const host_call *call, const grid_map *map) {
  const medical_case *room = call->room, *c = call->c;
  return room && c->image.data != room->image.data && c->label.data != room->label.data &&
         c->image.channels == room->image.channels &&
         memcmp(map->size, room->image.size, sizeof map->size) == 0;
}

status host_regrid(host_call *call, const grid_map *map, float fill) {
  medical_case *c = call->c;
  if (!call->shared && grid_is_mirror(map, c->image.size)) {
    volume_mirror(&c->image, map);
    if (c->label.data) labels_mirror(&c->label, map);
    return OK;
  }
  volume image = {0};
  labels label = {0};
  status error = OK;
  if (fits_room(call, map)) {
    image.data = call->room->image.data;
    volume_regrid_into(&c->image, map, fill, &image);
    if (c->label.data) {
      label.data = call->room->label.data;
      labels_regrid_into(&c->label, map, &label);
    }
  } else {
    error = volume_regrid(&c->image, map, fill, &image);
    if (!error && c->label.data) error = labels_regrid(&c->label, map, &label);
  }
  if (error)
    volume_free(&image);
  else
    host_replace(call, &image, &label);
  return error;
}

bool host_happens(host_call *call, double probability) {
  return rng_range(&call->random, 0, 1) < probability;
}
