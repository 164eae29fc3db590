/* A case as pictures: slices of three planes, with the contours of reference and prediction. */
#ifndef STRATA_REPORT_OVERLAY_H
#define STRATA_REPORT_OVERLAY_H

#include "view/slice.h"

/* The slices of a plane, one below the other, as three layers of the same shape: the image in grey,
 * the contours of the reference and those of the prediction, transparent where there is none. */
typedef struct overlay_plane {
  image grey, reference, prediction; /* no pixels: there is none */
  int count;                         /* slices */
  int first_shown;                   /* that with the longest contours of the reference */
  double width_mm, height_mm;        /* of a slice */
} overlay_plane;

typedef struct overlay_size {
  int side;   /* pixels of the longest side of any plane; contours have twice as many */
  int slices; /* of a plane at most */
} overlay_size;

/* Reads the files one after the other, so that one volume is in memory at a time, and shows the box of
 * all labelled voxels with a margin, windowed by the intensities in it; everything where nothing is
 * labelled. `reference` may be NULL; its voxels of the value `ignore_label` (0: none) are hatched and
 * not taken for labelled. Of images with several channels the first is shown. */
status overlay_make(const char *image_path, const char *reference, int ignore_label,
                    const char *prediction, overlay_size size, overlay_plane out[PLANE_COUNT]);
void overlay_free(overlay_plane planes[PLANE_COUNT]);

/* Greys in 64 steps: nobody sees the difference, and the picture is a third smaller. */
void grey_in_steps(image *i);

#endif
