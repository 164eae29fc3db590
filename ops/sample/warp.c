#include "ops/sample/warp.h"

#include "graph/op.h"

#include <string.h>

status plane_check(unsigned plane) {
  if (__builtin_popcount(plane & 7) < 2)
    return shape_error("plane: [x, y, z] is the whole crop, two axes such as [x, y] are a plane");
  return OK;
}

int plane_normal(unsigned plane) {
  unsigned left_out = ~plane & 7;
  return left_out ? __builtin_ctz(left_out) : -1;
}

status warp_case(host_call *call, place_of place, const void *context, int outside) {
  const volume *in = &call->c->image;
  const labels *in_label = &call->c->label;
  volume out = {0};
  labels out_label = {0};
  TRY(volume_allocate(&out, in->size, in->channels));
  if (in_label->data) {
    status error = labels_allocate(&out_label, in->size);
    if (error) {
      volume_free(&out);
      return error;
    }
  }
  int64_t voxel = 0, index[3];
  for (index[0] = 0; index[0] < in->size[0]; index[0]++)
    for (index[1] = 0; index[1] < in->size[1]; index[1]++)
      for (index[2] = 0; index[2] < in->size[2]; index[2]++, voxel++) {
        double at[3];
        place(context, index, at);
        if (outside == OUTSIDE_EDGE) warp_move_inside(in->size, at);
        warp_read_image(in->data, in->size, in->channels, at, out.data + voxel * in->channels);
        if (in_label->data)
          out_label.data[voxel] = warp_read_label(in_label->data, in_label->size, at);
      }
  memcpy(out.affine, in->affine, sizeof out.affine);
  memcpy(out_label.affine, in->affine, sizeof out.affine);
  host_replace(call, &out, &out_label);
  return OK;
}
