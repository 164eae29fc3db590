#include "ops/sample/warp.h"

#include "graph/op.h"

#include <math.h>
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

static void move_inside(const int64_t size[3], double at[3]) {
  for (int a = 0; a < 3; a++) {
    double last = (double)(size[a] - 1);
    at[a] = at[a] < 0 ? 0 : at[a] > last ? last : at[a];
  }
}

/* Trilinear, 0 outside. */
static void read_image(const volume *in, const double at[3], float *out) {
  const int64_t stride[3] = {in->size[1] * in->size[2] * in->channels, in->size[2] * in->channels,
                             in->channels};
  int64_t low[3];
  float weight[3][2];
  for (int a = 0; a < 3; a++) {
    double whole = floor(at[a]);
    low[a] = (int64_t)whole;
    weight[a][1] = (float)(at[a] - whole);
    weight[a][0] = 1 - weight[a][1];
  }
  for (int64_t c = 0; c < in->channels; c++) out[c] = 0;
  for (int corner = 0; corner < 8; corner++) {
    float w = 1;
    int64_t from = 0;
    bool within = true;
    for (int a = 0; a < 3; a++) {
      int64_t i = low[a] + (corner >> a & 1);
      within = within && i >= 0 && i < in->size[a];
      w *= weight[a][corner >> a & 1];
      from += i * stride[a];
    }
    for (int64_t c = 0; c < in->channels && within; c++) out[c] += w * in->data[from + c];
  }
}

static uint8_t read_label(const labels *in, const double at[3]) {
  int64_t index = 0;
  for (int a = 0; a < 3; a++) {
    double i = rint(at[a]);
    if (!(i >= 0 && i < (double)in->size[a])) return 0;
    index = index * in->size[a] + (int64_t)i;
  }
  return in->data[index];
}

status warp_case(host_call *call, place_of place, const void *context, int outside,
                 const double affine[4][4]) {
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
        if (outside == OUTSIDE_EDGE) move_inside(in->size, at);
        read_image(in, at, out.data + voxel * in->channels);
        if (in_label->data) out_label.data[voxel] = read_label(in_label, at);
      }
  memcpy(out.affine, affine, sizeof out.affine);
  memcpy(out_label.affine, affine, sizeof out.affine);
  host_replace(call, &out, &out_label);
  return OK;
}
