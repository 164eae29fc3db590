#include "data/gunzip.h"

enum {
  PART_BYTES = 1 << 16,
  TRAILING_LIMIT = 64 << 20 /* bytes after the voxels that are read to check the checksum */
};

bool gunzip_is(const unsigned char *bytes, size_t length) {
  return length >= 2 && bytes[0] == 0x1f && bytes[1] == 0x8b;
}

void gunzip_open(gunzip_stream *s, const unsigned char *in, size_t length) {
  *s = (gunzip_stream){.in = in, .length = length};
  s->open = inflateInit2(&s->z, 15 + 16) == Z_OK;
  if (!s->open) s->problem = "out of memory while decompressing";
}

void gunzip_close(gunzip_stream *s) {
  if (s->open) inflateEnd(&s->z);
  *s = (gunzip_stream){0};
}

static unsigned at_once(size_t bytes) {
  return bytes > (1u << 30) ? 1u << 30 : (unsigned)bytes;
}

size_t gunzip_read(gunzip_stream *s, unsigned char *out, size_t room) {
  size_t made = 0;
  while (made < room && !s->ended && !s->problem) {
    unsigned give = at_once(s->length - s->consumed), take = at_once(room - made);
    s->z.next_in = (unsigned char *)s->in + s->consumed; /* zlib's interface is not const-correct */
    s->z.avail_in = give;
    s->z.next_out = out + made;
    s->z.avail_out = take;
    int rc = inflate(&s->z, Z_NO_FLUSH);
    size_t came = take - s->z.avail_out;
    s->consumed += give - s->z.avail_in;
    made += came;
    if (rc == Z_STREAM_END) {
      s->ended = !gunzip_is(s->in + s->consumed, s->length - s->consumed);
      if (!s->ended) inflateReset(&s->z);
    } else if (rc == Z_BUF_ERROR || (rc == Z_OK && s->consumed == s->length && came == 0)) {
      s->problem = "the gzip stream stops before its end";
    } else if (rc != Z_OK) {
      s->problem = "the gzip stream is damaged (its data or checksum is wrong)";
    }
  }
  return made;
}

void gunzip_drain(gunzip_stream *s) {
  unsigned char part[PART_BYTES];
  for (size_t drained = 0; !s->ended && !s->problem;) {
    drained += gunzip_read(s, part, sizeof part);
    if (drained > TRAILING_LIMIT)
      s->problem = "the gzip stream goes on long after the voxels its header describes";
  }
}

const char *gunzip(const unsigned char *in, size_t length, unsigned char *out, size_t room,
                   size_t *made) {
  gunzip_stream s;
  gunzip_open(&s, in, length);
  *made = gunzip_read(&s, out, room);
  const char *problem = s.problem;
  gunzip_close(&s);
  return problem;
}
