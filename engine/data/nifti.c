/* NIfTI-1 and NIfTI-2 from hostile files. The header is read on its own first (the start of the
 * file, or of its gzip stream) and checked against the file's size before memory is taken for
 * voxels. Header layouts, byte swapping and the quaternion come from nifti_clib's nifti2 API;
 * reading the voxels is our own, because the library maps what the header claims before it looks at
 * the file. */
#include "data/volume.h"

#include "base/files.h"
#include "base/text.h"
#include "data/gunzip.h"
#include "ops/arithmetic/vector_math.h"

#include <errno.h>
#include <libdeflate.h>
#include <limits.h>
#include <math.h>
#include <nifti2_io.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
  HEADER_1_BYTES = 348,
  HEADER_2_BYTES = 540,
  DATA_1_OFFSET = 352, /* header and the four extension flag bytes */
  DATA_2_OFFSET = 544,
  PEEK_BYTES = 1 << 16, /* enough of any gzip stream to hold the header */
  DEFLATE_MAX_RATIO = 1032,
  STREAMED_BYTES = 128 << 20 /* voxels of more are decoded as they are unzipped, to save memory */
};

typedef struct value_type {
  int code, bytes;
  const char *name;
} value_type;

static const value_type value_types[] = {
    {DT_UINT8, 1, "uint8"},     {DT_INT8, 1, "int8"},     {DT_INT16, 2, "int16"},
    {DT_UINT16, 2, "uint16"},   {DT_INT32, 4, "int32"},   {DT_UINT32, 4, "uint32"},
    {DT_INT64, 8, "int64"},     {DT_UINT64, 8, "uint64"}, {DT_FLOAT32, 4, "float32"},
    {DT_FLOAT64, 8, "float64"},
};

/* A header of either version, as NIfTI-2 in the machine's byte order, with what follows from it. */
typedef struct header {
  nifti_2_header fields;
  int version;
  bool swapped;
  const value_type *type;
  int64_t size[3], channels;
  uint64_t offset_bytes, voxel_bytes;
  bool is_doubtful; /* a gzip stream whose end does not say that it has these bytes */
  double slope, intercept;
  double affine[4][4];
} header;

static status bad_file(const char *path, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static status bad_file(const char *path, const char *format, ...) {
  va_list args;
  va_start(args, format);
  status error = error_newv(ERROR_DATA, NOWHERE, format, args);
  va_end(args);
  return error_prefix(error, "%s", path);
}

/* ---- bytes ---- */

static status read_start(const char *path, int fd, unsigned char *out, size_t want, size_t *got) {
  *got = 0;
  while (*got < want) {
    ssize_t n = read(fd, out + *got, want - *got);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return error_from_errno("read", path);
    if (n == 0) break;
    *got += (size_t)n;
  }
  return OK;
}

status nifti_load_bytes(const char *path, unsigned char **bytes, size_t *length) {
  *bytes = NULL;
  *length = 0;
  int fd;
  uint64_t size = 0;
  TRY(file_open(path, &fd, &size));
  status error = OK;
  unsigned char *buffer = NULL;
  if (size > 8 * (uint64_t)VOXELS_MAX + (1u << 20))
    error = bad_file(path, "the file is larger than the 16 GiB a volume may have.");
  else if (!(buffer = malloc(size ? (size_t)size : 1)))
    error = error_out_of_memory((size_t)size);
  else {
    memory_want_huge_pages(buffer, (size_t)size);
    error = read_start(path, fd, buffer, (size_t)size, length);
  }
  close(fd);
  if (error) {
    free(buffer);
    return error;
  }
  *bytes = buffer;
  return OK;
}

/* ---- header ---- */

static void widen_header(const nifti_1_header *a, nifti_2_header *b) {
  *b = (nifti_2_header){0};
  for (int i = 0; i < 8; i++) b->dim[i] = a->dim[i];
  for (int i = 0; i < 8; i++) b->pixdim[i] = (double)a->pixdim[i];
  b->datatype = a->datatype;
  b->bitpix = a->bitpix;
  b->scl_slope = (double)a->scl_slope;
  b->scl_inter = (double)a->scl_inter;
  b->qform_code = a->qform_code;
  b->sform_code = a->sform_code;
  b->quatern_b = (double)a->quatern_b;
  b->quatern_c = (double)a->quatern_c;
  b->quatern_d = (double)a->quatern_d;
  b->qoffset_x = (double)a->qoffset_x;
  b->qoffset_y = (double)a->qoffset_y;
  b->qoffset_z = (double)a->qoffset_z;
  for (int i = 0; i < 4; i++) {
    b->srow_x[i] = (double)a->srow_x[i];
    b->srow_y[i] = (double)a->srow_y[i];
    b->srow_z[i] = (double)a->srow_z[i];
  }
  b->xyzt_units = a->xyzt_units;
}

/* The header's two byte orders are told apart by sizeof_hdr. */
static status header_fields(const char *path, const unsigned char *bytes, size_t length,
                            header *h) {
  int32_t claimed = 0;
  if (length < HEADER_1_BYTES)
    return bad_file(path,
                    "the file ends after %zu bytes, within the NIfTI header: it is not a NIfTI "
                    "file, or the download is incomplete.",
                    length);
  memcpy(&claimed, bytes, sizeof claimed);
  int32_t swapped = (int32_t)__builtin_bswap32((uint32_t)claimed);
  h->swapped = swapped == HEADER_1_BYTES || swapped == HEADER_2_BYTES;
  int32_t header_bytes = h->swapped ? swapped : claimed;
  double offset;
  if (header_bytes == HEADER_1_BYTES) {
    nifti_1_header one;
    memcpy(&one, bytes, sizeof one);
    if (memcmp(one.magic, "ni1", 4) == 0)
      return bad_file(path,
                      "this is the header of a two-file NIfTI (.hdr with .img). Convert it to "
                      "a single .nii.gz.");
    if (memcmp(one.magic, "n+1", 4) != 0)
      return bad_file(path,
                      "this is not a NIfTI file (the magic bytes \"n+1\" are missing; Analyze "
                      "files are not read).");
    if (h->swapped) nifti_swap_as_nifti1(&one);
    h->version = 1;
    widen_header(&one, &h->fields);
    offset = (double)one.vox_offset;
  } else if (header_bytes == HEADER_2_BYTES) {
    if (length < HEADER_2_BYTES)
      return bad_file(path,
                      "the file ends after %zu bytes, within the NIfTI-2 header: the download "
                      "may be incomplete.",
                      length);
    memcpy(&h->fields, bytes, sizeof h->fields);
    if (memcmp(h->fields.magic, "n+2\0\r\n\032\n", 8) != 0)
      return bad_file(path,
                      "this is not a single-file NIfTI-2 (the magic bytes \"n+2\" are missing).");
    if (h->swapped) nifti_swap_as_nifti2(&h->fields);
    h->version = 2;
    offset = (double)h->fields.vox_offset;
  } else {
    return bad_file(path, "this is not a NIfTI file: it begins with neither 348 nor 540.");
  }
  int smallest = h->version == 1 ? DATA_1_OFFSET : DATA_2_OFFSET;
  if (offset == 0) offset = smallest;
  if (!(offset >= smallest && offset <= 0x1p40) || offset != floor(offset))
    return bad_file(path, "the header puts the voxels at byte %g, which is impossible.", offset);
  h->offset_bytes = (uint64_t)offset;
  return OK;
}

static status header_size(const char *path, header *h) {
  const int64_t *dim = h->fields.dim;
  if (dim[0] < 1 || dim[0] > 7)
    return bad_file(path, "the header claims %lld dimensions; 1 to 4 can be read.",
                    (long long)dim[0]);
  int64_t extent[4] = {1, 1, 1, 1}, values = 1;
  for (int i = 1; i <= (int)dim[0]; i++) {
    if (dim[i] < 1)
      return bad_file(path, "the header claims a size of %lld along dimension %d.",
                      (long long)dim[i], i);
    if (i > 4) {
      if (dim[i] != 1)
        return bad_file(path,
                        "the volume has %lld entries along dimension %d; only x, y, z and "
                        "channels can be read.",
                        (long long)dim[i], i);
      continue;
    }
    if (dim[i] > VOXELS_MAX / values)
      return bad_file(path,
                      "the header claims %lld × %lld × … values, more than the %lld a volume "
                      "may have.",
                      (long long)dim[1], (long long)(dim[0] > 1 ? dim[2] : 1),
                      (long long)VOXELS_MAX);
    values *= dim[i];
    extent[i - 1] = dim[i];
  }
  memcpy(h->size, extent, sizeof h->size);
  h->channels = extent[3];
  h->type = NULL;
  for (size_t i = 0; i < sizeof value_types / sizeof value_types[0]; i++)
    if (value_types[i].code == h->fields.datatype) h->type = &value_types[i];
  if (!h->type)
    return bad_file(path, "voxels of data type %d (%s) cannot be read; integers and floats can.",
                    h->fields.datatype, nifti_datatype_string(h->fields.datatype));
  if (h->fields.bitpix != 0 && h->fields.bitpix != 8 * h->type->bytes)
    return bad_file(path, "the header says %s but %d bits a voxel.", h->type->name,
                    h->fields.bitpix);
  h->voxel_bytes = (uint64_t)values * (uint64_t)h->type->bytes;
  return OK;
}

static void qform_of(const nifti_2_header *f, double m[4][4]) {
  nifti_dmat44 q =
      nifti_quatern_to_dmat44(f->quatern_b, f->quatern_c, f->quatern_d, f->qoffset_x, f->qoffset_y,
                              f->qoffset_z, f->pixdim[1], f->pixdim[2], f->pixdim[3], f->pixdim[0]);
  /* The library takes 1 for a voxel size that is no number. */
  bool is_sized = !isnan(f->pixdim[1]) && !isnan(f->pixdim[2]) && !isnan(f->pixdim[3]);
  for (int r = 0; r < 3; r++)
    for (int c = 0; c < 4; c++) m[r][c] = is_sized ? q.m[r][c] : (double)NAN;
}

/* Fills in the last row, too. */
static void scale_to_mm(const nifti_2_header *f, double m[4][4]) {
  int units = XYZT_TO_SPACE(f->xyzt_units);
  double to_mm = units == NIFTI_UNITS_METER ? 1e3 : units == NIFTI_UNITS_MICRON ? 1e-3 : 1;
  for (int r = 0; r < 3; r++)
    for (int c = 0; c < 4; c++) m[r][c] *= to_mm;
  m[3][0] = m[3][1] = m[3][2] = 0;
  m[3][3] = 1;
}

/* NIfTI's order of precedence: sform, then qform, then voxel sizes alone ("method 1"). */
static status header_affine(const char *path, header *h) {
  const nifti_2_header *f = &h->fields;
  const char *what;
  double(*m)[4] = h->affine;
  if (f->sform_code > 0) {
    what = "sform";
    memcpy(m[0], f->srow_x, sizeof m[0]);
    memcpy(m[1], f->srow_y, sizeof m[1]);
    memcpy(m[2], f->srow_z, sizeof m[2]);
  } else if (f->qform_code > 0) {
    what = "qform";
    for (int a = 0; a < 3; a++) {
      double extent = f->pixdim[1 + a]; /* nifti_clib would take 1 for one that is none */
      if (h->size[a] > 1 && !(extent > 0))
        return bad_file(path,
                        "the voxel size along %c (pixdim) in the header is %g. Correct the header "
                        "with the tool that made the file.",
                        "xyz"[a], extent);
    }
    qform_of(f, m);
  } else {
    what = "list of voxel sizes (pixdim)";
    for (int r = 0; r < 3; r++)
      for (int c = 0; c < 4; c++) m[r][c] = r == c ? fabs(f->pixdim[1 + r]) : 0;
  }
  scale_to_mm(f, m);
  if (!affine_is_valid((const double(*)[4])m))
    return bad_file(path,
                    "the %s in the header is no valid position in space (zero, not finite, out "
                    "of all proportion, or flat). Correct the header with the tool that made the "
                    "file.",
                    what);
  return OK;
}

static status header_parse(const char *path, const unsigned char *bytes, size_t length, header *h) {
  TRY(header_fields(path, bytes, length, h));
  TRY(header_size(path, h));
  TRY(header_affine(path, h));
  double slope = h->fields.scl_slope, intercept = h->fields.scl_inter;
  /* A slope of zero (or none at all) means that the voxels are stored as they are. */
  bool scaled = isfinite(slope) && slope != 0;
  if (scaled && !isfinite(intercept))
    return bad_file(path, "the header's intensity offset (scl_inter) is not a finite number.");
  h->slope = scaled ? slope : 1;
  h->intercept = scaled ? intercept : 0;
  return OK;
}

/* `length` bytes are the file's first ones, `file_bytes` is all it has. */
static status header_from(const char *path, const unsigned char *bytes, size_t length,
                          uint64_t file_bytes, header *h) {
  char have[24], want[24];
  if (gunzip_is(bytes, length)) {
    unsigned char start[HEADER_2_BYTES];
    size_t made;
    const char *problem = gunzip(bytes, length, start, sizeof start, &made);
    if (problem && made < HEADER_1_BYTES)
      return bad_file(path, "%s, within the header: the download may be incomplete.", problem);
    TRY(header_parse(path, start, made, h));
    uint64_t claimed = h->offset_bytes + h->voxel_bytes;
    if (claimed > file_bytes * DEFLATE_MAX_RATIO + PEEK_BYTES)
      return bad_file(path,
                      "the header claims %s of voxels, more than %s of gzip can hold: the "
                      "file is damaged or incomplete.",
                      format_bytes(want, (double)h->voxel_bytes),
                      format_bytes(have, (double)file_bytes));
    return OK;
  }
  TRY(header_parse(path, bytes, length, h));
  if (h->offset_bytes + h->voxel_bytes > file_bytes)
    return bad_file(path, "the file ends after %s of %s: the download may be incomplete.",
                    format_bytes(have, (double)file_bytes),
                    format_bytes(want, (double)(h->offset_bytes + h->voxel_bytes)));
  return OK;
}

/* A gzip stream of one member ends with its length, modulo 2^32. What was cut off anywhere does not. */
static bool ends_otherwise(int fd, uint64_t file_bytes, const header *h) {
  unsigned char end[4];
  if (file_bytes < sizeof end ||
      pread(fd, end, sizeof end, (off_t)(file_bytes - sizeof end)) != (ssize_t)sizeof end)
    return true;
  uint32_t length =
      end[0] | (uint32_t)end[1] << 8 | (uint32_t)end[2] << 16 | (uint32_t)end[3] << 24;
  return length != (uint32_t)(h->offset_bytes + h->voxel_bytes);
}

static status header_read(const char *path, header *h) {
  int fd;
  uint64_t file_bytes = 0;
  TRY(file_open(path, &fd, &file_bytes));
  unsigned char *start = malloc(PEEK_BYTES);
  size_t got = 0;
  status error =
      start ? read_start(path, fd, start, PEEK_BYTES, &got) : error_out_of_memory(PEEK_BYTES);
  if (!error) error = header_from(path, start, got, file_bytes, h);
  if (!error) h->is_doubtful = gunzip_is(start, got) && ends_otherwise(fd, file_bytes, h);
  close(fd);
  free(start);
  return error;
}

bool nifti_forms_differ(const char *path, const void *bytes, size_t length, double voxels[3]) {
  header h = {0};
  status error = header_from(path, bytes, length, length, &h);
  bool has_both = !error && h.fields.sform_code > 0 && h.fields.qform_code > 0;
  error_free(error);
  if (!has_both) return false;
  double qform[4][4];
  qform_of(&h.fields, qform);
  scale_to_mm(&h.fields, qform);
  voxels[0] = voxels[1] = voxels[2] = INFINITY;
  if (affine_is_valid((const double(*)[4])qform))
    affine_difference((const double(*)[4])h.affine, (const double(*)[4])qform, h.size, voxels);
  return voxels[0] != 0 || voxels[1] != 0 || voxels[2] != 0;
}

/* ---- voxels ---- */

/* A stream of which `made` of `claimed` bytes came. */
static status bad_stream(const char *path, const char *problem, size_t made, size_t claimed) {
  char have[24], want[24];
  if (made >= claimed) return bad_file(path, "%s.", problem);
  format_bytes(have, (double)made);
  format_bytes(want, (double)claimed);
  return bad_file(path, "%s after %s of %s: the download may be incomplete.",
                  problem ? problem : "the gzip stream ends", have, want);
}

/* The whole decompressed stream up to the last voxel. */
static status unzip_all(const char *path, const unsigned char *bytes, size_t length, size_t claimed,
                        unsigned char **out) {
  unsigned char *buffer = malloc(claimed);
  memory_want_huge_pages(buffer, claimed);
  struct libdeflate_decompressor *fast = libdeflate_alloc_decompressor();
  if (!buffer || !fast) {
    free(buffer);
    libdeflate_free_decompressor(fast);
    return error_out_of_memory(claimed);
  }
  size_t used = 0, made = 0;
  bool whole = libdeflate_gzip_decompress_ex(fast, bytes, length, buffer, claimed, &used, &made) ==
                   LIBDEFLATE_SUCCESS &&
               made == claimed;
  libdeflate_free_decompressor(fast);
  if (!whole) {
    /* Several gzip members, data after the voxels, or damage: the streaming reader can tell. */
    gunzip_stream stream;
    gunzip_open(&stream, bytes, length);
    made = gunzip_read(&stream, buffer, claimed);
    if (made == claimed) gunzip_drain(&stream);
    const char *problem = stream.problem;
    gunzip_close(&stream);
    if (made < claimed || problem) {
      free(buffer);
      return bad_stream(path, problem, made, claimed);
    }
  }
  *out = buffer;
  return OK;
}

/* Several members, or something behind the voxels, or cut off: unzipped, it can be told. */
static status check_stream(const char *path, const header *h) {
  unsigned char *bytes, *voxels = NULL;
  size_t length;
  TRY(nifti_load_bytes(path, &bytes, &length));
  status error = unzip_all(path, bytes, length, h->offset_bytes + h->voxel_bytes, &voxels);
  free(voxels);
  free(bytes);
  return error;
}

status nifti_read_grid(const char *path, volume *out) {
  header h = {0};
  TRY(header_read(path, &h));
  if (h.is_doubtful) TRY(check_stream(path, &h));
  *out = (volume){.channels = h.channels};
  memcpy(out->size, h.size, sizeof h.size);
  memcpy(out->affine, h.affine, sizeof h.affine);
  return OK;
}

static status check_label_channels(const char *path, int64_t channels) {
  if (channels == 1) return OK;
  return bad_file(path, "a label map has one channel, this file has %lld.", (long long)channels);
}

status nifti_read_label_grid(const char *path, volume *out) {
  TRY(nifti_read_grid(path, out));
  return check_label_channels(path, out->channels);
}

#define SAME(u) (u)
#define DECODE(type, bits, swap)                                                                   \
  for (int64_t i = 0; i < n; i++) {                                                                \
    uint##bits##_t u;                                                                              \
    memcpy(&u, in + i * (int64_t)sizeof u, sizeof u);                                              \
    u = swap(u);                                                                                   \
    type v;                                                                                        \
    memcpy(&v, &u, sizeof v);                                                                      \
    out[i] = (float)(slope * (double)v + intercept);                                               \
  }                                                                                                \
  break
#define DECODE_EITHER(type, bits, swap)                                                            \
  if (h->swapped) {                                                                                \
    DECODE(type, bits, swap);                                                                      \
  } else {                                                                                         \
    DECODE(type, bits, SAME);                                                                      \
  }                                                                                                \
  break

/* One line of `n` voxels along x. */
FOR_EACH_ISA static void decode_line(const header *h, const unsigned char *in, int64_t n,
                                     float *out) {
  const double slope = h->slope, intercept = h->intercept;
  do {
    switch (h->type->code) {
    case DT_UINT8:
      DECODE(uint8_t, 8, SAME);
    case DT_INT8:
      DECODE(int8_t, 8, SAME);
    case DT_INT16:
      DECODE_EITHER(int16_t, 16, __builtin_bswap16);
    case DT_UINT16:
      DECODE_EITHER(uint16_t, 16, __builtin_bswap16);
    case DT_INT32:
      DECODE_EITHER(int32_t, 32, __builtin_bswap32);
    case DT_UINT32:
      DECODE_EITHER(uint32_t, 32, __builtin_bswap32);
    case DT_FLOAT32:
      DECODE_EITHER(float, 32, __builtin_bswap32);
    case DT_INT64:
      DECODE_EITHER(int64_t, 64, __builtin_bswap64);
    case DT_UINT64:
      DECODE_EITHER(uint64_t, 64, __builtin_bswap64);
    case DT_FLOAT64:
      DECODE_EITHER(double, 64, __builtin_bswap64);
    }
  } while (0);
}

FOR_EACH_ISA static bool all_classes(const float *v, int64_t n) {
  int32_t wrong = 0;
  for (int64_t i = 0; i < n; i++) {
    bool inside = v[i] >= 0 && v[i] <= 255;
    int32_t class = (int32_t)(inside ? v[i] : 0);
    wrong |= !inside | ((float)class != v[i]);
  }
  return !wrong;
}

/* The tile `lines`, TILE lines of X voxels, turned into TILE voxels along z at every x. */
enum { TILE = 16 }; /* lines decoded before they are scattered, so that stores share cache lines */
typedef float line_part __attribute__((vector_size(16), aligned(4), may_alias));

static void turn_tile(const float *lines, int64_t X, float *to, int64_t to_stride) {
  int64_t x = 0;
  for (; x + 4 <= X; x += 4)
    for (int64_t k = 0; k < TILE; k += 4) {
      line_part row[4], half[4];
      for (int i = 0; i < 4; i++) row[i] = *(const line_part *)(lines + (k + i) * X + x);
      for (int i = 0; i < 2; i++) {
        half[i] = __builtin_shufflevector(row[2 * i], row[2 * i + 1], 0, 4, 1, 5);
        half[2 + i] = __builtin_shufflevector(row[2 * i], row[2 * i + 1], 2, 6, 3, 7);
      }
      for (int i = 0; i < 4; i += 2) {
        float *at = to + (x + i) * to_stride + k;
        *(line_part *)at = __builtin_shufflevector(half[i], half[i + 1], 0, 1, 4, 5);
        *(line_part *)(at + to_stride) = __builtin_shufflevector(half[i], half[i + 1], 2, 3, 6, 7);
      }
    }
  for (; x < X; x++)
    for (int64_t k = 0; k < TILE; k++) to[x * to_stride + k] = lines[k * X + x];
}

/* Floats that are class numbers, by lines of TILE, to a place for every line. */
FOR_EACH_ISA static void put_classes(const float *lines, int64_t n, uint8_t *to,
                                     int64_t to_stride) {
  for (int64_t x = 0; x < n; x++)
    for (int k = 0; k < TILE; k++) to[x * to_stride + k] = (uint8_t)(int32_t)lines[x * TILE + k];
}

/* Decoded lines at (y, z0 …): what is wrong with the first bad voxel. */
static status bad_voxel(const char *path, const header *h, const float *decoded, int64_t y,
                        int64_t z0, int64_t count, bool classes) {
  const int64_t X = h->size[0];
  for (int64_t i = 0; i < count; i++) {
    float v = decoded[i];
    long long at[3] = {i % X, y, z0 + i / X};
    if (!isfinite(v))
      return bad_file(path,
                      "voxel (%lld, %lld, %lld) is not a finite number. Repair the volume, or "
                      "leave the case out.",
                      at[0], at[1], at[2]);
    if (classes && (!(v >= 0 && v <= 255) || v != floorf(v)))
      return bad_file(path,
                      "voxel (%lld, %lld, %lld) of the label map is %g; classes are whole "
                      "numbers from 0 to 255.",
                      at[0], at[1], at[2], (double)v);
  }
  return error_new(ERROR_INTERNAL, NOWHERE, "%s: a voxel was refused without reason", path);
}

/* `count` decoded lines of X voxels, turned to run along z, to the place of the first: of intensities
 * or, when there are `classes`, of class numbers. `room` has TILE lines. */
static void put_lines(const header *h, const float *lines, int64_t count, float *intensities,
                      uint8_t *classes, float *room) {
  const int64_t X = h->size[0], along_x = h->size[1] * h->size[2], C = h->channels;
  if (count == TILE && C == 1 && classes) {
    turn_tile(lines, X, room, TILE);
    put_classes(room, X, classes, along_x);
  } else if (count == TILE && C == 1) {
    turn_tile(lines, X, intensities, along_x);
  } else {
    for (int64_t x = 0; x < X; x++)
      for (int64_t k = 0; k < count; k++) {
        int64_t at = (x * along_x + k) * C;
        if (classes)
          classes[at] = (uint8_t)lines[k * X + x];
        else
          intensities[at] = lines[k * X + x];
      }
  }
}

/* Where decoded voxels go: class numbers when `classes` is not NULL, else intensities. The file has x
 * fastest, then y, z, channel; a volume has channel fastest, then z, y, x. */
typedef struct decoding {
  const char *path;
  const header *h;
  float *intensities;
  uint8_t *classes;
  float *lines; /* 2 · TILE of X voxels */
} decoding;

/* `count` slices of channel c from slice z_first on. */
static status decode_slices(const decoding *d, const unsigned char *slices, int64_t c,
                            int64_t z_first, int64_t count) {
  const header *h = d->h;
  const int64_t X = h->size[0], Y = h->size[1], Z = h->size[2], C = h->channels;
  for (int64_t y = 0; y < Y; y++)
    for (int64_t z0 = 0; z0 < count; z0 += TILE) {
      int64_t tile = count - z0 < TILE ? count - z0 : TILE, z = z_first + z0;
      for (int64_t k = 0; k < tile; k++)
        decode_line(h, slices + ((z0 + k) * Y + y) * X * h->type->bytes, X, d->lines + k * X);
      int64_t to = (y * Z + z) * C + c;
      if (!(d->classes ? all_classes(d->lines, tile * X) : floats_are_finite(d->lines, tile * X)))
        return bad_voxel(d->path, h, d->lines, y, z, tile * X, d->classes != NULL);
      put_lines(h, d->lines, tile, d->classes ? NULL : d->intensities + to,
                d->classes ? d->classes + to : NULL, d->lines + TILE * X);
    }
  return OK;
}

static status decode_whole(const decoding *d, const unsigned char *voxels) {
  const int64_t Z = d->h->size[2];
  const int64_t slice_bytes = d->h->size[0] * d->h->size[1] * d->h->type->bytes;
  for (int64_t c = 0; c < d->h->channels; c++)
    TRY(decode_slices(d, voxels + c * Z * slice_bytes, c, 0, Z));
  return OK;
}

/* The next `want` bytes of the file. */
static status next_bytes(const decoding *d, gunzip_stream *s, unsigned char *out, size_t want,
                         size_t *total) {
  size_t made = gunzip_read(s, out, want);
  *total += made;
  if (made == want) return OK;
  return bad_stream(d->path, s->problem, *total, (size_t)(d->h->offset_bytes + d->h->voxel_bytes));
}

/* Slices that are unzipped at a time, so that never all of the file is in memory. */
static size_t part_bytes_of(const header *h) {
  return (size_t)((h->size[2] < TILE ? h->size[2] : TILE) * h->size[0] * h->size[1] *
                  h->type->bytes);
}

/* `part` has room for part_bytes_of. */
static status decode_stream(const decoding *d, gunzip_stream *s, unsigned char *part) {
  const header *h = d->h;
  const int64_t Z = h->size[2];
  const size_t slice_bytes = (size_t)(h->size[0] * h->size[1] * h->type->bytes);
  const size_t room = part_bytes_of(h);
  size_t total = 0;
  for (size_t left = (size_t)h->offset_bytes; left > 0;) {
    size_t n = left < room ? left : room;
    TRY(next_bytes(d, s, part, n, &total));
    left -= n;
  }
  for (int64_t c = 0; c < h->channels; c++)
    for (int64_t z = 0; z < Z; z += TILE) {
      int64_t count = Z - z < TILE ? Z - z : TILE;
      TRY(next_bytes(d, s, part, (size_t)count * slice_bytes, &total));
      TRY(decode_slices(d, part, c, z, count));
    }
  gunzip_drain(s);
  return s->problem ? bad_stream(d->path, s->problem, total, total) : OK;
}

/* All voxels of a file's bytes. */
static status decode(const char *path, const header *h, const unsigned char *bytes, size_t length,
                     float *intensities, uint8_t *classes) {
  const size_t line_bytes = (size_t)(2 * TILE * h->size[0]) * sizeof(float);
  decoding d = {path, h, intensities, classes, malloc(line_bytes)};
  status error = d.lines ? OK : error_out_of_memory(line_bytes);
  if (error) return error;
  if (!gunzip_is(bytes, length)) {
    error = decode_whole(&d, bytes + h->offset_bytes);
  } else if (h->voxel_bytes < STREAMED_BYTES) {
    unsigned char *all = NULL;
    error = unzip_all(path, bytes, length, (size_t)(h->offset_bytes + h->voxel_bytes), &all);
    if (!error) error = decode_whole(&d, all + h->offset_bytes);
    free(all);
  } else {
    size_t part_bytes = part_bytes_of(h);
    unsigned char *part = malloc(part_bytes);
    gunzip_stream stream;
    gunzip_open(&stream, bytes, length);
    error = part ? decode_stream(&d, &stream, part) : error_out_of_memory(part_bytes);
    gunzip_close(&stream);
    free(part);
  }
  free(d.lines);
  return error;
}

status nifti_parse_volume(const char *path, const void *bytes, size_t length, volume *out) {
  *out = (volume){0};
  header h = {0};
  TRY(header_from(path, bytes, length, length, &h));
  TRY(volume_allocate(out, h.size, h.channels));
  status error = decode(path, &h, bytes, length, out->data, NULL);
  if (error)
    volume_free(out);
  else
    memcpy(out->affine, h.affine, sizeof h.affine);
  return error;
}

status nifti_parse_labels(const char *path, const void *bytes, size_t length, labels *out) {
  *out = (labels){0};
  header h = {0};
  TRY(header_from(path, bytes, length, length, &h));
  TRY(check_label_channels(path, h.channels));
  TRY(labels_allocate(out, h.size));
  status error = decode(path, &h, bytes, length, NULL, out->data);
  if (error)
    labels_free(out);
  else
    memcpy(out->affine, h.affine, sizeof h.affine);
  return error;
}

status nifti_read_volume(const char *path, volume *out) {
  unsigned char *bytes;
  size_t length;
  *out = (volume){0};
  TRY(nifti_load_bytes(path, &bytes, &length));
  status error = nifti_parse_volume(path, bytes, length, out);
  free(bytes);
  return error;
}

status nifti_read_labels(const char *path, labels *out) {
  unsigned char *bytes;
  size_t length;
  *out = (labels){0};
  TRY(nifti_load_bytes(path, &bytes, &length));
  status error = nifti_parse_labels(path, bytes, length, out);
  free(bytes);
  return error;
}

/* ---- writing ---- */

/* Of gzip: label maps and images; and values of which no two are alike, which hardly get smaller. */
enum { LEVEL_USUAL = 6, LEVEL_FAST = 1 };

/* Geometry from an affine: an sform always, a qform as well where the axes are orthogonal. */
static void geometry_from_affine(const double affine[4][4], nifti_2_header *f) {
  double spacing[3];
  affine_spacing(affine, spacing);
  nifti_dmat44 m;
  for (int r = 0; r < 4; r++)
    for (int c = 0; c < 4; c++) m.m[r][c] = affine[r][c];
  memcpy(f->srow_x, affine[0], sizeof f->srow_x);
  memcpy(f->srow_y, affine[1], sizeof f->srow_y);
  memcpy(f->srow_z, affine[2], sizeof f->srow_z);
  f->sform_code = NIFTI_XFORM_SCANNER_ANAT;
  double dx, dy, dz, qfac;
  nifti_dmat44_to_quatern(m, &f->quatern_b, &f->quatern_c, &f->quatern_d, &f->qoffset_x,
                          &f->qoffset_y, &f->qoffset_z, &dx, &dy, &dz, &qfac);
  bool orthogonal = true;
  for (int a = 0; a < 3; a++) {
    int b = (a + 1) % 3;
    double dot =
        affine[0][a] * affine[0][b] + affine[1][a] * affine[1][b] + affine[2][a] * affine[2][b];
    orthogonal = orthogonal && fabs(dot) < 1e-5 * spacing[a] * spacing[b];
    f->pixdim[1 + a] = spacing[a];
  }
  f->qform_code = orthogonal ? NIFTI_XFORM_SCANNER_ANAT : NIFTI_XFORM_UNKNOWN;
  f->pixdim[0] = qfac < 0 ? -1 : 1;
  f->xyzt_units = NIFTI_UNITS_MM;
}

static void narrow_header(const nifti_2_header *a, nifti_1_header *b) {
  *b = (nifti_1_header){.sizeof_hdr = HEADER_1_BYTES, .regular = 'r'};
  for (int i = 0; i < 8; i++) b->dim[i] = (short)a->dim[i];
  for (int i = 0; i < 8; i++) b->pixdim[i] = (float)a->pixdim[i];
  b->datatype = a->datatype;
  b->bitpix = a->bitpix;
  b->vox_offset = DATA_1_OFFSET;
  b->scl_slope = (float)a->scl_slope;
  b->qform_code = (short)a->qform_code;
  b->sform_code = (short)a->sform_code;
  b->quatern_b = (float)a->quatern_b;
  b->quatern_c = (float)a->quatern_c;
  b->quatern_d = (float)a->quatern_d;
  b->qoffset_x = (float)a->qoffset_x;
  b->qoffset_y = (float)a->qoffset_y;
  b->qoffset_z = (float)a->qoffset_z;
  for (int i = 0; i < 4; i++) {
    b->srow_x[i] = (float)a->srow_x[i];
    b->srow_y[i] = (float)a->srow_y[i];
    b->srow_z[i] = (float)a->srow_z[i];
  }
  b->xyzt_units = (char)a->xyzt_units;
  memcpy(b->magic, "n+1", 4);
}

/* Where the values of a file begin. */
static size_t values_offset(int version) {
  return version == 1 ? DATA_1_OFFSET : DATA_2_OFFSET;
}

/* At the beginning of zeroed memory. `fields` brings geometry, dimensions and data type. */
static void put_header(nifti_2_header *fields, int version, unsigned char *file) {
  fields->scl_slope = 1;
  if (version == 1) {
    nifti_1_header one;
    narrow_header(fields, &one);
    memcpy(file, &one, sizeof one);
  } else {
    fields->sizeof_hdr = HEADER_2_BYTES;
    fields->vox_offset = DATA_2_OFFSET;
    memcpy(fields->magic, "n+2\0\r\n\032\n", 8);
    memcpy(file, fields, sizeof *fields);
  }
}

/* Room for a whole file in memory, its header filled in. */
static status file_begin(nifti_2_header *fields, int version, uint64_t voxel_bytes,
                         unsigned char **file, size_t *length) {
  *length = values_offset(version) + (size_t)voxel_bytes;
  *file = calloc(*length, 1);
  if (!*file) return error_out_of_memory(*length);
  put_header(fields, version, *file);
  return OK;
}

/* What is compressed takes memory up to `budget` bytes, and beyond it a temporary file. */
static status file_finish(const char *path, const void *file, size_t length, int level,
                          size_t budget) {
  if (!text_ends_with(path, ".gz")) return file_write_atomic(path, file, length);
  struct libdeflate_compressor *c = libdeflate_alloc_compressor(level);
  size_t room = c ? libdeflate_gzip_compress_bound(c, length) : 0;
  spill zipped = {0};
  status error = c ? spill_open(room, budget, &zipped) : error_out_of_memory(length);
  if (!error) {
    size_t bytes = libdeflate_gzip_compress(c, file, length, zipped.data, room);
    error = bytes ? file_write_atomic(path, zipped.data, bytes)
                  : error_new(ERROR_INTERNAL, NOWHERE, "cannot compress %s", path);
  }
  spill_close(&zipped);
  libdeflate_free_compressor(c);
  return error;
}

/* Returns the version of the format that they need, `version` or more. */
static int set_dimensions(nifti_2_header *f, const int64_t size[3], int64_t channels, int version) {
  f->dim[0] = channels > 1 ? 4 : 3;
  for (int a = 0; a < 3; a++) f->dim[1 + a] = size[a];
  f->dim[4] = channels;
  for (int i = 5; i < 8; i++) f->dim[i] = 1;
  for (int i = 1; i <= 4; i++)
    if (f->dim[i] > SHRT_MAX) version = 2;
  return version;
}

/* Geometry as the file `like` has it. */
static void geometry_of(const header *like, nifti_2_header *f) {
  const nifti_2_header *r = &like->fields;
  f->qform_code = r->qform_code;
  f->sform_code = r->sform_code;
  f->quatern_b = r->quatern_b;
  f->quatern_c = r->quatern_c;
  f->quatern_d = r->quatern_d;
  f->qoffset_x = r->qoffset_x;
  f->qoffset_y = r->qoffset_y;
  f->qoffset_z = r->qoffset_z;
  memcpy(f->srow_x, r->srow_x, sizeof r->srow_x);
  memcpy(f->srow_y, r->srow_y, sizeof r->srow_y);
  memcpy(f->srow_z, r->srow_z, sizeof r->srow_z);
  memcpy(f->pixdim, r->pixdim, 4 * sizeof r->pixdim[0]);
  f->xyzt_units = XYZT_TO_SPACE(r->xyzt_units);
}

status nifti_write_labels(const char *path, const labels *l, const char *like) {
  nifti_2_header fields = {0};
  int version = 1;
  if (like) {
    header h = {0};
    TRY(header_read(like, &h));
    if (memcmp(h.size, l->size, sizeof h.size) != 0)
      return error_new(ERROR_INTERNAL, NOWHERE,
                       "cannot write %s: a label map of %lld × %lld × %lld voxels does not fit the "
                       "%lld × %lld × %lld of %s",
                       path, (long long)l->size[0], (long long)l->size[1], (long long)l->size[2],
                       (long long)h.size[0], (long long)h.size[1], (long long)h.size[2], like);
    version = h.version;
    geometry_of(&h, &fields);
  } else {
    geometry_from_affine(l->affine, &fields);
  }
  version = set_dimensions(&fields, l->size, 1, version);
  fields.datatype = DT_UINT8;
  fields.bitpix = 8;
  const int64_t X = l->size[0], Y = l->size[1], Z = l->size[2];
  unsigned char *file;
  size_t length;
  TRY(file_begin(&fields, version, (uint64_t)(X * Y * Z), &file, &length));
  unsigned char *voxels = file + values_offset(version);
  enum { DEEP = 64 }; /* voxels of a line along z, so that what is written stays in the cache */
  for (int64_t y = 0; y < Y; y++)
    for (int64_t z0 = 0; z0 < Z; z0 += DEEP)
      for (int64_t x = 0; x < X; x++)
        for (int64_t z = z0; z < Z && z < z0 + DEEP; z++)
          voxels[(z * Y + y) * X + x] = l->data[(x * Y + y) * Z + z];
  status error = file_finish(path, file, length, LEVEL_USUAL, SIZE_MAX);
  free(file);
  return error;
}

status nifti_write_volume(const char *path, const volume *v) {
  const int64_t X = v->size[0], Y = v->size[1], Z = v->size[2], C = v->channels;
  bool whole = true;
  for (int64_t i = 0; i < X * Y * Z * C && whole; i++)
    whole = v->data[i] >= SHRT_MIN && v->data[i] <= SHRT_MAX && v->data[i] == floorf(v->data[i]);
  nifti_2_header fields = {0};
  geometry_from_affine(v->affine, &fields);
  int version = set_dimensions(&fields, v->size, C, 1);
  fields.datatype = whole ? DT_INT16 : DT_FLOAT32;
  fields.bitpix = whole ? 16 : 32;
  unsigned char *file;
  size_t length;
  uint64_t bytes = (uint64_t)(X * Y * Z * C) * (whole ? sizeof(int16_t) : sizeof(float));
  TRY(file_begin(&fields, version, bytes, &file, &length));
  unsigned char *voxels = file + values_offset(version);
  for (int64_t x = 0; x < X; x++)
    for (int64_t y = 0; y < Y; y++)
      for (int64_t z = 0; z < Z; z++)
        for (int64_t c = 0; c < C; c++) {
          float value = v->data[((x * Y + y) * Z + z) * C + c];
          int64_t at = ((c * Z + z) * Y + y) * X + x;
          int16_t rounded = (int16_t)(whole ? value : 0);
          if (whole)
            memcpy(voxels + at * (int64_t)sizeof rounded, &rounded, sizeof rounded);
          else
            memcpy(voxels + at * (int64_t)sizeof value, &value, sizeof value);
        }
  status error = file_finish(path, file, length, LEVEL_USUAL, SIZE_MAX);
  free(file);
  return error;
}

status nifti_values_begin(const char *like, int64_t channels, size_t budget, nifti_values *out) {
  header h = {0};
  *out = (nifti_values){0};
  TRY(header_read(like, &h));
  nifti_2_header fields = {.datatype = DT_FLOAT32, .bitpix = 32};
  geometry_of(&h, &fields);
  int version = set_dimensions(&fields, h.size, channels, h.version);
  int64_t values = channels;
  bool fits = channels > 0;
  for (int a = 0; a < 3; a++) fits = fits && !__builtin_mul_overflow(values, h.size[a], &values);
  if (!fits || values > INT64_MAX / (int64_t)sizeof(float) - DATA_2_OFFSET)
    return error_new(ERROR_DATA, NOWHERE, "%s: %lld values a voxel are more than a file takes",
                     like, (long long)channels);
  size_t offset = values_offset(version);
  TRY(spill_open(offset + (size_t)values * sizeof(float), budget, &out->memory));
  put_header(&fields, version, out->memory.data);
  memcpy(out->size, h.size, sizeof h.size);
  out->channels = channels;
  out->data = (float *)(void *)((unsigned char *)out->memory.data + offset);
  return OK;
}

status nifti_values_write(const nifti_values *v, const char *path) {
  return file_finish(path, v->memory.data, v->memory.bytes, LEVEL_FAST, v->memory.budget);
}

void nifti_values_close(nifti_values *v) {
  spill_close(&v->memory);
  *v = (nifti_values){0};
}
