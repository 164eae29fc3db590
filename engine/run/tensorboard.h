/* Event files for TensorBoard: scalars of a stage by epoch.
 *
 * A file is a row of TFRecords (length, masked CRC-32C of the length, data, masked CRC-32C of the
 * data; all little-endian), each an Event of tensorflow/core/util/event.proto in protocol buffers'
 * encoding: wall_time (1, double), step (2, int64), then file_version (3), summary (5, of values
 * {tag = 1, simple_value = 2}) or session_log (7, {status = 1}). */
#ifndef STRATA_RUN_TENSORBOARD_H
#define STRATA_RUN_TENSORBOARD_H

#include "base/status.h"

#include <stdint.h>

typedef struct event_file event_file;

/* Opens the events of a stage, in a folder of its own, to go on after `epochs` finished epochs. What
 * earlier processes wrote of those stays, with its times; later epochs, which are done again, and a
 * torn end are cut off. This process gets a file of its own, which tells a TensorBoard that watches
 * the folder to forget what it has read of the epochs to come (SessionLog START). */
status event_file_open(const char *folder, int64_t epochs, event_file **out);
/* One event: the values of an epoch, under their names. '.' in a name becomes '/', by which
 * TensorBoard groups. Flushed. */
status event_file_add(event_file *f, int64_t epoch, const char *const *names, const double *values,
                      int count);
status event_file_close(event_file *f); /* NULL is fine */

/* CRC-32C (Castagnoli), as in RFC 3720. */
uint32_t crc32c(const void *data, size_t bytes);

#endif
