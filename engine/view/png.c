/* PNG (ISO/IEC 15948): lossless, in the smallest form that holds the picture's colours. */
#include "base/files.h"
#include "view/image.h"

#include <libdeflate.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { COLOURS_MAX = 256, PNG_GREY = 0, PNG_RGB = 2, PNG_PALETTE = 3, PNG_RGBA = 6 };

/* ---- which form ----------------------------------------------------------------------------- */

typedef struct png_form {
  int type, depth;            /* PNG colour type; bits a sample */
  int channels;               /* samples a pixel */
  int count;                  /* colours of the palette, when the type is PNG_PALETTE */
  uint32_t list[COLOURS_MAX]; /* as they lie in memory; those that are not opaque first */
} png_form;

static uint32_t pixel_at(const image *i, size_t p) {
  uint32_t c;
  memcpy(&c, i->rgba + 4 * p, 4);
  return c;
}

static colour as_colour(uint32_t pixel) {
  colour c;
  memcpy(&c, &pixel, 4);
  return c;
}

/* Distinct colours in an open hash table twice as large as the palette may be. */
typedef struct colour_table {
  uint32_t key[2 * COLOURS_MAX];
  int16_t index[2 * COLOURS_MAX]; /* −1 = free */
} colour_table;

static unsigned table_slot(const colour_table *t, uint32_t key) {
  unsigned slot = (key * 2654435761u) >> 23; /* 9 bits: the table's size */
  while (t->index[slot] >= 0 && t->key[slot] != key) slot = (slot + 1) % (2 * COLOURS_MAX);
  return slot;
}

static int by_alpha_then_value(const void *a, const void *b) {
  uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
  colour l = as_colour(left), r = as_colour(right);
  if (l.a != r.a) return l.a < r.a ? -1 : 1;
  int grey = (l.r + l.g + l.b) - (r.r + r.g + r.b);
  return grey ? grey : (left > right) - (left < right);
}

static png_form choose_form(const image *i, colour_table *t) {
  png_form f = {.type = PNG_PALETTE};
  memset(t->index, -1, sizeof t->index);
  size_t pixels = (size_t)i->width * (size_t)i->height;
  bool opaque = true, grey = true, few = true;
  for (size_t p = 0; p < pixels; p++) {
    uint32_t key = pixel_at(i, p);
    if (p > 0 && key == pixel_at(i, p - 1)) continue; /* most are like the one before */
    colour c = as_colour(key);
    opaque = opaque && c.a == 255;
    grey = grey && c.r == c.g && c.g == c.b;
    if (!few) continue;
    unsigned slot = table_slot(t, key);
    if (t->index[slot] >= 0) continue;
    few = f.count < COLOURS_MAX;
    if (!few) continue;
    t->key[slot] = key;
    t->index[slot] = 0;
    f.list[f.count++] = key;
  }
  /* Grey needs no table and filters well; a palette wins where its samples are smaller. */
  if (few && (f.count <= 16 || !(opaque && grey))) {
    qsort(f.list, (size_t)f.count, sizeof *f.list, by_alpha_then_value);
    for (int k = 0; k < f.count; k++) t->index[table_slot(t, f.list[k])] = (int16_t)k;
    f.depth = f.count <= 2 ? 1 : f.count <= 4 ? 2 : f.count <= 16 ? 4 : 8;
    f.channels = 1;
    return f;
  }
  f.depth = 8;
  f.type = !opaque ? PNG_RGBA : grey ? PNG_GREY : PNG_RGB;
  f.channels = !opaque ? 4 : grey ? 1 : 3;
  return f;
}

static void pack_row(const image *i, const png_form *f, const colour_table *t, int y,
                     uint8_t *row) {
  size_t first = (size_t)y * (size_t)i->width;
  unsigned index = 0;
  for (size_t x = 0; x < (size_t)i->width; x++) {
    uint32_t pixel = pixel_at(i, first + x);
    if (f->type != PNG_PALETTE) {
      memcpy(row + x * (size_t)f->channels, &pixel, (size_t)f->channels);
      continue;
    }
    if (x == 0 || pixel != pixel_at(i, first + x - 1))
      index = (unsigned)t->index[table_slot(t, pixel)];
    size_t bit = x * (size_t)f->depth;
    row[bit / 8] |= (uint8_t)(index << (8u - (unsigned)f->depth - (unsigned)(bit % 8)));
  }
}

/* ---- filters -------------------------------------------------------------------------------- */

static int paeth(int left, int up, int corner) {
  int from_left = abs(up - corner), from_up = abs(left - corner);
  int from_corner = abs(left + up - 2 * corner);
  if (from_left <= from_up && from_left <= from_corner) return left;
  return from_up <= from_corner ? up : corner;
}

/* The sum of the differences, as signed bytes. */
static uint64_t filter_row(int filter, const uint8_t *row, const uint8_t *above, size_t bytes,
                           size_t step, uint8_t *out) {
  uint64_t sum = 0;
  for (size_t k = 0; k < bytes; k++) {
    int left = k >= step ? row[k - step] : 0, up = above[k], guess = 0;
    if (filter == 1) guess = left;
    if (filter == 2) guess = up;
    if (filter == 3) guess = (left + up) / 2;
    if (filter == 4) guess = paeth(left, up, k >= step ? above[k - step] : 0);
    out[k] = (uint8_t)(row[k] - guess);
    sum += (uint64_t)abs((int8_t)out[k]);
  }
  return sum;
}

/* All rows, each behind the number of its filter: the one whose differences are smallest in sum.
 * Filters mix neighbouring numbers, which mean nothing in a palette; there it is none. */
static void filter_rows(const image *i, const png_form *f, const colour_table *t, size_t row_bytes,
                        uint8_t *packed, uint8_t *out) {
  size_t step = f->type == PNG_PALETTE ? 1 : (size_t)f->channels;
  uint8_t *row = packed, *above = packed + row_bytes, *trial = packed + 2 * row_bytes;
  memset(above, 0, row_bytes);
  for (int y = 0; y < i->height; y++, out += row_bytes + 1) {
    memset(row, 0, row_bytes);
    pack_row(i, f, t, y, row);
    uint64_t least = UINT64_MAX;
    for (int filter = 0; filter < (f->type == PNG_PALETTE ? 1 : 5); filter++) {
      uint64_t sum = filter_row(filter, row, above, row_bytes, step, trial);
      if (sum >= least) continue;
      least = sum;
      out[0] = (uint8_t)filter;
      memcpy(out + 1, trial, row_bytes);
    }
    uint8_t *swap = row;
    row = above;
    above = swap;
  }
}

/* ---- chunks --------------------------------------------------------------------------------- */

static void put_u32(unsigned char *out, uint32_t v) {
  for (int k = 0; k < 4; k++) out[k] = (unsigned char)(v >> (24 - 8 * k));
}

/* Length, type, data, check sum. Returns where the next chunk begins. */
static unsigned char *put_chunk(unsigned char *out, const char *type, const void *data,
                                size_t length) {
  put_u32(out, (uint32_t)length);
  memcpy(out + 4, type, 4);
  if (length) memmove(out + 8, data, length);
  put_u32(out + 8 + length, libdeflate_crc32(0, out + 4, length + 4));
  return out + 12 + length;
}

static unsigned char *put_palette(unsigned char *out, const png_form *f) {
  unsigned char rgb[3 * COLOURS_MAX], alpha[COLOURS_MAX];
  size_t translucent = 0;
  for (int k = 0; k < f->count; k++) {
    memcpy(rgb + 3 * k, &f->list[k], 3);
    alpha[k] = as_colour(f->list[k]).a;
    if (alpha[k] < 255) translucent = (size_t)k + 1;
  }
  out = put_chunk(out, "PLTE", rgb, 3 * (size_t)f->count);
  return translucent ? put_chunk(out, "tRNS", alpha, translucent) : out;
}

status png_encode(const image *i, unsigned char **bytes, size_t *length) {
  static const unsigned char signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
  colour_table table;
  png_form f = choose_form(i, &table);
  size_t row_bytes = ((size_t)i->width * (size_t)(f.channels * f.depth) + 7) / 8;
  size_t raw = (row_bytes + 1) * (size_t)i->height;
  struct libdeflate_compressor *compressor = libdeflate_alloc_compressor(6);
  size_t bound = compressor ? libdeflate_zlib_compress_bound(compressor, raw) : 0;
  /* Signature, IHDR, PLTE, tRNS, IDAT, IEND. */
  size_t room = 8 + 25 + 12 + 3 * COLOURS_MAX + 12 + COLOURS_MAX + 12 + bound + 12;
  uint8_t *rows = malloc(raw), *packed = malloc(3 * row_bytes);
  unsigned char *out = malloc(room);
  status error = compressor && rows && packed && out ? OK : error_out_of_memory(room + raw);
  if (!error) {
    filter_rows(i, &f, &table, row_bytes, packed, rows);
    memcpy(out, signature, 8);
    unsigned char header[13] = {[8] = (unsigned char)f.depth, [9] = (unsigned char)f.type};
    put_u32(header, (uint32_t)i->width);
    put_u32(header + 4, (uint32_t)i->height);
    unsigned char *at = put_chunk(out + 8, "IHDR", header, sizeof header);
    if (f.type == PNG_PALETTE) at = put_palette(at, &f);
    size_t packed_bytes = libdeflate_zlib_compress(compressor, rows, raw, at + 8, bound);
    at = put_chunk(at, "IDAT", at + 8, packed_bytes);
    at = put_chunk(at, "IEND", NULL, 0);
    *length = (size_t)(at - out);
    *bytes = out;
    out = NULL;
  }
  free(out);
  free(packed);
  free(rows);
  libdeflate_free_compressor(compressor);
  return error;
}

status png_write(const image *i, const char *path) {
  unsigned char *bytes;
  size_t length;
  TRY(png_encode(i, &bytes, &length));
  status error = file_write_atomic(path, bytes, length);
  free(bytes);
  return error;
}

status png_add_data_uri(const image *i, text_buffer *out) {
  unsigned char *bytes;
  size_t length;
  TRY(png_encode(i, &bytes, &length));
  text_add(out, "data:image/png;base64,");
  text_add_base64(out, bytes, length);
  free(bytes);
  return OK;
}
