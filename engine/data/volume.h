/* Volumes and cases. A volume is dense f32, (X, Y, Z, C) with C fastest and x, y, z the voxel axes of
 * the file, plus the affine that takes voxel indices (x, y, z) to millimetres in RAS+ space. */
#ifndef STRATA_DATA_VOLUME_H
#define STRATA_DATA_VOLUME_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct volume {
  int64_t size[3]; /* voxels along x, y, z */
  int64_t channels;
  float *data;     /* owned; NULL = no volume */
  double affine[4][4];
} volume;

typedef struct labels { /* a label map: one class number a voxel, (X, Y, Z) */
  int64_t size[3];
  int32_t *data; /* owned; NULL = no label */
  double affine[4][4];
} labels;

typedef struct medical_case {
  const char *name; /* borrowed: lives as long as the dataset */
  volume image;
  labels label; /* data NULL when unlabelled */
} medical_case;

status volume_allocate(volume *v, const int64_t size[3], int64_t channels);
status labels_allocate(labels *l, const int64_t size[3]);
void volume_free(volume *v);
void labels_free(labels *l);
void case_free(medical_case *c);
/* Voxel spacing in mm: the column norms of the affine. */
void affine_spacing(const double affine[4][4], double spacing_mm[3]);

/* NIfTI-1/2, .nii or .nii.gz; intensities are scl_slope·v + scl_inter. Everything in the header is
 * checked against the file before memory is taken; NaN or infinite voxels are an error that names
 * the file. 4-D files give channels. */
status nifti_read_volume(const char *path, volume *out);
/* Integer class numbers in 0…255; fractions or negative values are an error with the voxel. */
status nifti_read_labels(const char *path, labels *out);
/* Header only: size, channels, affine (data stays NULL). */
status nifti_read_header(const char *path, volume *out);
/* uint8 label map with the reference's header geometry (qform, sform and codes) when `like` names a
 * NIfTI file, else from l->affine. Written to a temporary file, then renamed; same input, same bytes. */
status nifti_write_labels(const char *path, const labels *l, const char *like);
/* int16 when every value is an integer that fits, else float32. */
status nifti_write_volume(const char *path, const volume *v);

#endif
