/* Slices of volumes and label maps as pictures. */
#ifndef STRATA_VIEW_SLICE_H
#define STRATA_VIEW_SLICE_H

#include "data/volume.h"
#include "view/image.h"

/* The three planes, numbered by the axis they are normal to. */
typedef enum plane { PLANE_SAGITTAL, PLANE_CORONAL, PLANE_AXIAL, PLANE_COUNT } plane;
const char *plane_name(plane p);

/* How voxels lie in the pictures of one plane. Superior and anterior are up; in axial and coronal
 * pictures the patient's right is on the left, as radiologists look at them, and in sagittal ones
 * anterior is on the left. */
typedef struct slice_axes {
  int across, down, through;                 /* voxel axes */
  bool flip_across, flip_down, flip_through; /* does the index fall along the picture's axis? */
  int64_t width, height,
      count; /* voxels along them: `count` slices, from inferior, posterior and left
                                   to superior, anterior and right */
  double width_mm, height_mm;
} slice_axes;

/* By the patient: the voxel axes nearest to the plane's. */
slice_axes slice_of_patient(const int64_t size[3], const double affine[4][4], plane p);
/* By the voxel axes, as if x, y, z were right, anterior, superior: flips and turns of an augmentation
 * are seen as such. Spacing is the affine's. */
slice_axes slice_of_voxels(const int64_t size[3], const double affine[4][4], plane p);

/* Pixels of a slice at a scale, aspect ratio true to the millimetres; at least 1×1. */
void slice_pixels(const slice_axes *axes, double pixels_per_mm, int *width, int *height);
/* The scale at which it just fits. */
double slice_scale(const slice_axes *axes, int max_width, int max_height);

/* Intensities that become black and white. */
typedef struct grey_window {
  double low, high;
} grey_window;

/* From percentiles (0 … 100) of a channel's finite voxels; of very large volumes every n-th is taken.
 * A constant channel gets a window of width 1 around its value. */
status window_of_percentiles(const volume *v, int64_t channel, double low, double high,
                             grey_window *out);

/* Slice `index` (0 … axes->count − 1) of a channel in grey, width×height pixels: means over the voxels of
 * a pixel where it shrinks, else interpolated linearly (smooth) or the voxels as they are. Pixels without
 * a finite value are vermilion. */
status slice_grey(const volume *v, int64_t channel, const slice_axes *axes, int64_t index,
                  grey_window window, bool smooth, int width, int height, image *out);

typedef enum label_style {
  LABEL_FILL,    /* every pixel of a class, half transparent */
  LABEL_CONTOUR, /* the pixels inside a class that touch another one */
  LABEL_DASHED   /* the same, every other pair of pixels */
} label_style;

/* Draws the classes of a slice over a picture of that slice in the same axes and on the same grid; the
 * picture's size decides the scale. `thickness` of contours in pixels. */
void slice_labels(const labels *l, const slice_axes *axes, int64_t index, label_style style,
                  int thickness, image *onto);

#endif
