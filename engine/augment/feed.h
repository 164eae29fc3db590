/* Batches on their way from a loader to a program's inputs.
 *
 * On a device that has kernels for the sample graph, the loader's threads draw the samples and the
 * device makes them, in the program's inputs, from prepared cases that stay in its memory: the random
 * numbers are the host's, and so are the crops. Elsewhere the threads make them, and they are copied.
 *
 * All of it is done beside the device's own work (device.beside). A batch can be made ahead, while a
 * step runs, in memory of the feed; a copy within the device then brings it to the program's inputs. */
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
  device *d;             /* of the programs */
  device *side;          /* where batches are made: beside d, or d itself */
  const data_spec *spec; /* borrowed */
  bool makes_samples;    /* on the device */
  char why_not[256];     /* a reason for the user; empty: they are made there, or it is the host */
  device_cases cases;
  feed_memory images[2], labels[2];     /* between two changes that move voxels */
  feed_memory classes;                  /* of a batch, as bytes */
  feed_memory next_image, next_classes; /* a batch that is made ahead */
} feed;

/* After the programs have taken their memory: prepared cases get a share of what the device has
 * left. Nothing of that is allocated yet. */
status feed_open(const data_spec *spec, device *d, feed *out);
void feed_close(feed *f);
/* For loader_options.drawn_case_bytes. */
size_t feed_case_bytes(const feed *f);
/* Image, classes (`label` VALUE_NONE: not read) and random keys of a batch of a loader with that
 * option, for the next run of p. */
status feed_write(feed *f, const batch *b, program *p, value_id image, value_id label);
/* The same in two parts: the batch is made beside what p runs meanwhile, and brought to p's inputs.
 * One batch is ahead at most; others may be written in between. */
bool feed_works_ahead(const feed *f);
status feed_ahead(feed *f, const batch *b, const program *p, value_id image, value_id label);
status feed_deliver(feed *f, const batch *b, program *p, value_id image, value_id label);
/* Memory of a batch that is made ahead. */
size_t feed_ahead_bytes(const feed *f, const program *p, value_id image, value_id label);

#endif
