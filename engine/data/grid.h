/* Grids made of other grids' voxels: crops, pads, flips, quarter turns and axis permutations. */
#ifndef STRATA_DATA_GRID_H
#define STRATA_DATA_GRID_H

#include "data/volume.h"

/* Output voxel (i0, i1, i2) is the input voxel whose index along axis[a] is start[a] + i_a, or
 * start[a] − i_a when flip[a]. Voxels from outside the input get a fill value (0 in label maps). */
typedef struct grid_map {
  int axis[3]; /* a permutation of 0, 1, 2 */
  bool flip[3];
  int64_t start[3];
  int64_t size[3]; /* of the output */
} grid_map;

/* The map that changes nothing. */
grid_map grid_identity(const int64_t size[3]);
/* One map for two. What the second reads must lie within the first's output. */
grid_map grid_compose(const grid_map *first, const grid_map *second);
/* Has every output voxel an input voxel? */
bool grid_covers(const int64_t in_size[3], const grid_map *map);
/* Is the new grid a part of one of that size, or all of it, with some axes mirrored? Then voxels can
 * change places within their memory. */
bool grid_is_part(const grid_map *map, const int64_t size[3]);
/* The output's affine, under which every voxel keeps its place in the patient. */
void grid_affine(const double in[4][4], const grid_map *map, double out[4][4]);

/* v ↦ v · scale + shift, rounded after the product and after the sum. */
typedef struct rescale {
  float scale, shift;
} rescale;

#define RESCALE_NONE ((rescale){1, -0.0f}) /* the only shift that leaves every float as it is */
bool rescale_is_none(rescale change);
void volume_rescale(volume *v, rescale change);

/* What happens to intensities on the way to another grid. */
typedef struct voxel_change {
  float fill; /* of voxels from outside; rescaled as the others */
  rescale intensity;
  bool past_caches; /* the result is large and not read again soon */
} voxel_change;

/* To new memory, with the affine. */
status volume_regrid(const volume *in, const grid_map *map, const voxel_change *change,
                     volume *out);
status labels_regrid(const labels *in, const grid_map *map, labels *out);
/* To memory that has room for the new grid. */
void volume_regrid_into(const volume *in, const grid_map *map, const voxel_change *change,
                        float *out);
void labels_regrid_into(const labels *in, const grid_map *map, bool past_caches, uint8_t *out);
/* To a part of the grid, within the memory, of which the rest is given back. The map is one of
 * grid_is_part for the old size; sizes and affines are the caller's. */
void volume_keep_part(volume *v, const int64_t old_size[3], const grid_map *map);
void labels_keep_part(labels *l, const int64_t old_size[3], const grid_map *map);

/* The axis permutation and flips that bring `affine` closest to the three letters of `axes`, the
 * directions in which the new indices grow: R or L, A or P, S or I in any order. Or x, y and z, the axes
 * as they are, in any order: then nothing is flipped, and `affine` does not matter. */
bool grid_axes_valid(const char *axes);
grid_map grid_to_axes(const double affine[4][4], const int64_t size[3], const char *axes);

/* The axis along which a resampling from one spacing to another takes whole slices, by nnU-Net's rule: one
 * axis is more than `above` times as coarse as the finest, before or else after. −1: there is none, or two
 * are equally coarse, and then it does not matter what comes after. */
int grid_coarse_axis(const double before_mm[3], const double after_mm[3], double above);

#endif
