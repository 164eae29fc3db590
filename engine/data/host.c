#include "data/host.h"

status host_own(host_call *call) {
  if (!call->shared) return OK;
  medical_case copy;
  TRY(case_copy(call->c, &copy));
  *call->c = copy;
  call->shared = false;
  return OK;
}

void host_replace(host_call *call, volume *image, labels *label) {
  if (!call->shared) case_free(call->c);
  call->c->image = *image;
  call->c->label = *label;
  call->shared = false;
  *image = (volume){0};
  *label = (labels){0};
}

status host_regrid(host_call *call, const grid_map *map, float fill) {
  if (!call->shared && grid_is_mirror(map, call->c->image.size)) {
    volume_mirror(&call->c->image, map);
    if (call->c->label.data) labels_mirror(&call->c->label, map);
    return OK;
  }
  volume image;
  labels label = {0};
  TRY(volume_regrid(&call->c->image, map, fill, &image));
  status error = call->c->label.data ? labels_regrid(&call->c->label, map, &label) : OK;
  if (error)
    volume_free(&image);
  else
    host_replace(call, &image, &label);
  return error;
}

bool host_happens(host_call *call, double probability) {
  return rng_range(&call->random, 0, 1) < probability;
}
