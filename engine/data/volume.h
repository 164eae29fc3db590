/* Volumes and cases. A volume is dense f32, (X, Y, Z, C) with C fastest and x, y, z the voxel axes
 * of the file, plus the affine that takes voxel indices (x, y, z) to millimetres in RAS+ space. */
#ifndef STRATA_DATA_VOLUME_H
#define STRATA_DATA_VOLUME_H

#include "base/spill.h"
#include "base/status.h"
#include "data/label.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct volume {
  int64_t size[3]; /* voxels along x, y, z */
  int64_t channels;
  float *data; /* owned; NULL = no volume */
  double affine[4][4];
} volume;

/* A label map: one class number a voxel, (X, Y, Z), or LABEL_UNKNOWN. A map as it stands in a file
 * may hold any byte; case_parse makes LABEL_UNKNOWN of the data set's ignore label. */
typedef struct labels {
  int64_t size[3];
  uint8_t *data; /* owned; NULL = no label */
  double affine[4][4];
  uint32_t *counts; /* owned; (X, LABEL_VALUES) voxels of each value at every x, or NULL */
} labels;

typedef struct medical_case {
  const char *name; /* borrowed: lives as long as the dataset */
  volume image;
  labels label; /* data NULL when unlabelled */
} medical_case;

/* No volume, from a file or made by an operator, has more values than this (8 GiB as f32). */
#define VOXELS_MAX ((int64_t)1 << 31)

/* Zeroed. Sizes are checked: positive, and at most VOXELS_MAX values in all. The affine is left. */
status volume_allocate(volume *v, const int64_t size[3], int64_t channels);
status labels_allocate(labels *l, const int64_t size[3]);
/* The same, not zeroed: the caller writes every voxel. */
status volume_reserve(volume *v, const int64_t size[3], int64_t channels);
status labels_reserve(labels *l, const int64_t size[3]);
/* Whether a volume may have these sizes. */
status volume_size_check(const int64_t size[3], int64_t channels);
void volume_free(volume *v);
void labels_free(labels *l);
void case_free(medical_case *c);
/* Asks for huge pages under large memory that has not been touched yet: volumes would spend more time
 * in page faults than in being computed. */
void memory_want_huge_pages(void *memory, size_t bytes);
/* None of them is NaN or infinite. */
bool floats_are_finite(const float *v, int64_t n);
/* Fills in `counts`, for whoever draws voxels by class again and again. Whatever changes the map
 * afterwards makes a new one, or lets the counts go. */
status labels_count(labels *l);
/* Makes `to` of every voxel that is `from`. */
void labels_replace(labels *l, uint8_t from, uint8_t to);
/* Deep copy, without counts; the name stays borrowed. */
status case_copy(const medical_case *in, medical_case *out);
/* The box around the voxels of which a channel is below `from` or above `to`: from low to high, both inside.
 * False: there is none. */
bool volume_box_beyond(const volume *v, float from, float to, int64_t low[3], int64_t high[3]);
/* Spacing in mm: the column norms of the affine. */
void affine_spacing(const double affine[4][4], double spacing_mm[3]);
/* Volume of a voxel: the determinant. */
double affine_voxel_mm3(const double affine[4][4]);
/* Last row 0 0 0 1, invertible, and of a size that arithmetic with it stays finite: voxels of 1 nm to
 * 1 km, within 1000 km of the origin. */
bool affine_is_valid(const double affine[4][4]);
/* Largest distance, in voxels of `a` along each of its axes, between the places in which the two
 * affines put a voxel of the grid (at a corner: it is convex). */
void affine_difference(const double a[4][4], const double b[4][4], const int64_t size[3],
                       double voxels[3]);
void affine_inverse(const double affine[4][4], double out[4][4]);

/* NIfTI-1/2, .nii or .nii.gz; intensities are scl_slope·v + scl_inter. Everything in the header is
 * checked against the file before memory is taken; NaN or infinite voxels are an error that names
 * the file. 4-D files give channels. */
status nifti_read_volume(const char *path, volume *out);
/* The same from the file's bytes; `path` names it in messages and tells .nii from .nii.gz. */
status nifti_parse_volume(const char *path, const void *bytes, size_t length, volume *out);
status nifti_parse_labels(const char *path, const void *bytes, size_t length, labels *out);
/* All bytes of a volume's file (caller frees); pipes, devices and folders are refused. */
status nifti_load_bytes(const char *path, unsigned char **bytes, size_t *length);
/* Integer class numbers in 0…255; fractions or negative values are an error with the voxel. */
status nifti_read_labels(const char *path, labels *out);
/* Does the header have a qform and an sform that differ? By how much, in voxels along each axis: see
 * affine_difference; infinitely, when the qform is no position. */
bool nifti_forms_differ(const char *path, const void *bytes, size_t length, double voxels[3]);
/* Header only: size, channels, affine (data stays NULL). A gzip stream whose end does not fit the header is
 * unzipped, and an error where it is cut off. */
status nifti_read_grid(const char *path, volume *out);
/* The same of a label map, which has one channel. */
status nifti_read_label_grid(const char *path, volume *out);
/* uint8 label map with the reference's header geometry (qform, sform and codes) when `like` names a
 * NIfTI file, else from l->affine. Written to a temporary file, then renamed; same input, same
 * bytes. */
status nifti_write_labels(const char *path, const labels *l, const char *like);
/* int16 when every value is an integer that fits, else float32. */
status nifti_write_volume(const char *path, const volume *v);

/* A file of float32 values that is being filled, as it will stand on the disk: one channel after the
 * other, in each of them x fastest. Value (x, y, z) of channel c is
 * data[((c · size[2] + z) · size[1] + y) · size[0] + x]. */
typedef struct nifti_values {
  int64_t size[3], channels;
  float *data; /* in `memory`, behind the header; zeroed at the start */
  spill memory;
} nifti_values;

/* On the grid of the NIfTI file `like`, with its geometry. Beyond `budget` bytes the values lie in a
 * temporary file: see spill. On error *out needs no close. */
status nifti_values_begin(const char *like, int64_t channels, size_t budget, nifti_values *out);
status nifti_values_write(const nifti_values *v, const char *path);
void nifti_values_close(nifti_values *v);

#endif
