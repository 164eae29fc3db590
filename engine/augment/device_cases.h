/* Prepared cases in a device's memory, from which it makes samples. */
#ifndef STRATA_AUGMENT_DEVICE_CASES_H
#define STRATA_AUGMENT_DEVICE_CASES_H

#include "data/dataset.h"
#include "device/device.h"

/* A prepared case on the device: image (X, Y, Z, C) and label map, a byte a voxel. */
typedef struct device_case {
  const case_entry *entry;
  int64_t size[3], channels;
  float *image;
  uint8_t *label; /* NULL: nobody has asked for it */
  size_t image_bytes, label_bytes;
  uint64_t last_use; /* larger = more recent */
} device_case;

typedef struct device_cases {
  device *d;
  size_t bound_bytes, used_bytes;
  device_case *list;
  int count, room;
  uint64_t clock;
  int64_t uploads; /* so far */
} device_cases;

/* Cases of `bound_bytes` together at most. */
void device_cases_open(device *d, size_t bound_bytes, device_cases *out);
void device_cases_close(device_cases *c);
/* The case, with its label if that is wanted: uploaded, unless it is there since an earlier call, in
 * the place of those that nobody has asked for the longest time. What is prepared from an entry is
 * always the same. `out` is valid until the next call; *is_there false: the device has no room for
 * it. */
status device_cases_get(device_cases *c, const case_entry *entry, const medical_case *prepared,
                        bool with_label, device_case *out, bool *is_there);

#endif
