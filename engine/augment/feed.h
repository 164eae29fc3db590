/* Batches on their way from a loader to a program's inputs.
 *
 * On a device that has kernels for the sample graph, the loader's threads draw the samples and the
 * device makes them, in the program's inputs, from prepared cases that stay in its memory: the random
 * numbers are the host's, and so are the crops. Elsewhere the threads make them, and they are copied.
 */
#ifndef STRATA_AUGMENT_FEED_H
#define STRATA_AUGMENT_FEED_H

#include "augment/device_cases.h"
#include "execute/program.h"

/* Memory of the device that grows when it is too small. */
typedef struct feed_memory {
  void *data;
  size_t bytes;
} feed_memory;

typedef struct feed {
  device *d;
  const data_spec *spec; /* borrowed */
  bool makes_samples;    /* on the device */
  char why_not[256];     /* a reason for the user; empty: they are made there, or it is the host */
  device_cases cases;
  feed_memory images[2], labels[2]; /* between two changes that move voxels */
  feed_memory classes;              /* of a batch, as bytes */
} feed;

/* After the programs have taken their memory: prepared cases get a share of what the device has
 * left. Nothing is allocated yet. */
void feed_open(const data_spec *spec, device *d, feed *out);
void feed_close(feed *f);
/* For loader_options.drawn_case_bytes. */
size_t feed_case_bytes(const feed *f);
/* Image, classes (`label` VALUE_NONE: not read) and random keys of a batch of a loader with that
 * option. */
status feed_write(feed *f, const batch *b, program *p, value_id image, value_id label);

#endif
