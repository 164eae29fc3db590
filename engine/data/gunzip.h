/* A gzip stream in memory, unzipped a part at a time, over several members if there are. */
#ifndef STRATA_DATA_GUNZIP_H
#define STRATA_DATA_GUNZIP_H

#include <stdbool.h>
#include <stddef.h>
#include <zlib.h>

typedef struct gunzip_stream {
  z_stream z;
  const unsigned char *in; /* borrowed */
  size_t length, consumed;
  bool open, ended;
  const char *problem; /* what is wrong with the stream, for the user; NULL: nothing so far */
} gunzip_stream;

bool gunzip_is(const unsigned char *bytes, size_t length);
/* A failure is the stream's problem. */
void gunzip_open(gunzip_stream *s, const unsigned char *in, size_t length);
void gunzip_close(gunzip_stream *s);
/* How many bytes came: less than `room` where the stream ends or has a problem. */
size_t gunzip_read(gunzip_stream *s, unsigned char *out, size_t room);
/* Reads on to the end, so that the checksum is verified; a stream that goes on for long has a problem.
 */
void gunzip_drain(gunzip_stream *s);
/* The first `room` bytes at most. Returns the problem or NULL. */
const char *gunzip(const unsigned char *in, size_t length, unsigned char *out, size_t room,
                   size_t *made);

#endif
