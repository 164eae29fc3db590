/* Mean and Σ(y − mean)² of what a convolution writes, for a norm behind it: each task adds up what it
 * has just written, while that is in the cache.
 *
 * Numbers are added relative to a shift near the mean, that of the first voxels a task writes of a
 * sample, so that Σ(y − shift)² does not drown its own spread. Sums run over lanes: a row of them holds
 * some voxels with all their channels, if tasks write whole voxels, so that vectors are full. */
#include "ops/arithmetic/vector_math.h"
#include "ops/kernels/convolution_parts.h"

enum { LANE_BLOCK = 32, FEW_CHANNELS = 256, SHIFT_VOXELS = 32 };

typedef float floats16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef double doubles16 __attribute__((vector_size(128), aligned(8), may_alias));
enum { LANES16 = 16 };

/* The sums of one task over what it writes of one sample. */
typedef struct slot {
  double *sample;
  double *count;         /* of voxels, at the first of the channels that one task writes */
  double *sum, *squares; /* of y − shift; after all tasks: mean and Σ(y − mean)² of a channel */
  float *shift;
} slot;

conv_moments conv_moments_of(const conv_shape *s, int64_t tasks, bool whole_voxels) {
  conv_moments m = {.wanted = s->moments,
                    .voxels = volume(s->out),
                    .channels = s->features,
                    .repeat = 1,
                    .slots = tasks + s->batch - 1};
  while (whole_voxels && m.channels < FEW_CHANNELS && m.repeat * m.channels % LANE_BLOCK)
    m.repeat++;
  return m;
}

static int64_t lanes_of(const conv_moments *m) {
  return m->repeat * m->channels;
}

/* Everything about a slot in doubles; a shift takes half of one. */
static int64_t slot_doubles(const conv_moments *m) {
  enum { LINE = 8 };
  return LINE + rounded_up(m->channels, LINE) + 3 * rounded_up(lanes_of(m), LINE);
}

static slot slot_at(const conv_moments *m, int64_t index) {
  enum { LINE = 8 };
  int64_t lanes = rounded_up(lanes_of(m), LINE);
  slot s = {.sample = m->sums + index * slot_doubles(m)};
  s.count = s.sample + LINE;
  s.sum = s.count + rounded_up(m->channels, LINE);
  s.squares = s.sum + lanes;
  s.shift = (float *)(s.squares + lanes);
  return s;
}

void conv_moments_pieces(conv_moments *m, pieces *w) {
  if (m->wanted) m->sums = (double *)(void *)piece(w, 2 * m->slots * slot_doubles(m));
}

void conv_moments_begin(conv_moments *m, const float *output) {
  m->output = output;
  for (int64_t i = 0; m->wanted && i < m->slots; i++)
    memset(slot_at(m, i).count, 0, (size_t)m->channels * sizeof(double));
}

/* ---- sums -------------------------------------------------------------------------------------- */

/* Rows of `vectors` vectors that begin `stride` floats apart. */
VECTOR_INLINE void add_vectors(const float *x, int64_t rows, int64_t stride, const int vectors,
                               const float *shift, double *sum, double *squares) {
  floats16 s[2] = {{0}}, q[2] = {{0}}, centre[2];
  for (int v = 0; v < vectors; v++) centre[v] = *(const floats16 *)(shift + v * LANES16);
  for (int64_t i = 0; i < rows; i++, x += stride)
    for (int v = 0; v < vectors; v++) {
      floats16 d = *(const floats16 *)(x + v * LANES16) - centre[v];
      s[v] += d;
      q[v] += d * d;
    }
  for (int v = 0; v < vectors; v++) {
    *(doubles16 *)(sum + v * LANES16) += __builtin_convertvector(s[v], doubles16);
    *(doubles16 *)(squares + v * LANES16) += __builtin_convertvector(q[v], doubles16);
  }
}

FOR_EACH_ISA static void add_rows(const float *x, int64_t rows, int64_t stride, int64_t lanes,
                                  const float *shift, double *sum, double *squares) {
  int64_t l = 0;
  for (; l + 2 * LANES16 <= lanes; l += 2 * LANES16)
    add_vectors(x + l, rows, stride, 2, shift + l, sum + l, squares + l);
  for (; l + LANES16 <= lanes; l += LANES16)
    add_vectors(x + l, rows, stride, 1, shift + l, sum + l, squares + l);
  for (; l < lanes; l++)
    for (int64_t i = 0; i < rows; i++) {
      double d = (double)(x[i * stride + l] - shift[l]);
      sum[l] += d;
      squares[l] += d * d;
    }
}

/* The sums of some channels of a slot begin: with the mean of the first voxels as shift. */
static void open_sums(const conv_moments *m, const slot *s, const float *x, int64_t voxels,
                      int64_t column, int64_t columns) {
  voxels = smaller(voxels, SHIFT_VOXELS);
  for (int64_t c = 0; c < columns; c++) {
    double total = 0;
    for (int64_t v = 0; v < voxels; v++) total += (double)x[v * m->channels + c];
    for (int64_t r = 0; r < m->repeat; r++) {
      int64_t lane = r * m->channels + column + c;
      s->shift[lane] = (float)(total / (double)voxels);
      s->sum[lane] = s->squares[lane] = 0;
    }
  }
}

void conv_moments_add(const conv_moments *m, int64_t task, int64_t voxel, int64_t voxels,
                      int64_t column, int64_t columns) {
  while (m->wanted && voxels > 0) {
    int64_t sample = voxel / m->voxels, count = smaller(voxels, (sample + 1) * m->voxels - voxel);
    const float *x = m->output + voxel * m->channels + column;
    /* Later tasks write later samples, so no two pairs of them have the same sum. */
    slot s = slot_at(m, task + sample);
    if (s.count[column] == 0) {
      if (column == 0) *s.sample = (double)sample;
      open_sums(m, &s, x, count, column, columns);
    }
    s.count[column] += (double)count;
    int64_t rows = count / m->repeat, tail = count % m->repeat, stride = lanes_of(m);
    add_rows(x, rows, stride, m->repeat > 1 ? stride : columns, s.shift + column, s.sum + column,
             s.squares + column);
    if (tail) add_rows(x + rows * stride, 1, 0, tail * m->channels, s.shift, s.sum, s.squares);
    voxel += count;
    voxels -= count;
  }
}

/* ---- result ------------------------------------------------------------------------------------ */

/* From sums over lanes to mean and Σ(y − mean)² of every channel. */
static void settle(const conv_moments *m, const slot *s) {
  for (int64_t c = 0; c < m->channels; c++) {
    double sum = 0, squares = 0;
    for (int64_t r = 0; r < m->repeat; r++) {
      sum += s->sum[r * m->channels + c];
      squares += s->squares[r * m->channels + c];
    }
    double spread = squares - sum * sum / s->count[0];
    s->sum[c] = (double)s->shift[c] + sum / s->count[0];
    s->squares[c] = spread < 0 ? 0 : spread; /* NaN stays NaN */
  }
}

/* Chan's combination, left in `all`. */
static void combine(const conv_moments *m, const slot *all, const slot *s) {
  double total = all->count[0] + s->count[0], share = s->count[0] / total;
  for (int64_t c = 0; c < m->channels; c++) {
    double d = s->sum[c] - all->sum[c];
    all->sum[c] += d * share;
    all->squares[c] += s->squares[c] + d * d * all->count[0] * share;
  }
  all->count[0] = total;
}

/* A sample's slots are neighbours. */
void conv_moments_end(const conv_moments *m, float *moments) {
  slot all = {0};
  for (int64_t i = 0; m->wanted && i < m->slots; i++) {
    slot s = slot_at(m, i);
    if (s.count[0] == 0) continue;
    settle(m, &s);
    if (all.sample && *all.sample == *s.sample)
      combine(m, &all, &s);
    else
      all = s;
    float *to = moments + (int64_t)*all.sample * 2 * m->channels;
    if ((double)m->voxels > all.count[0]) continue; /* more of it is to come */
    for (int64_t c = 0; c < m->channels; c++) {
      to[c] = (float)all.sum[c];
      to[m->channels + c] = (float)all.squares[c];
    }
  }
}
