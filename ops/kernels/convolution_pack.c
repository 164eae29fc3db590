/* What the tiles of a convolution's product read: weights in their order, the bias, and a copy of the
 * input with zeros around its z rows, rounded, or of pairs of its channels. */
#include "ops/kernels/convolution_product.h"

conv_axis conv_axis_of(const conv_product *p, int a, int64_t phase) {
  conv_axis x = {0};
  int64_t stride = p->stride[a], dilation = p->dilation[a], padding = p->padding[a];
  if (!p->transposed) {
    x.positions = p->out[a];
    x.out_step = 1;
    x.in_step = stride;
    x.taps = (int)p->kernel[a];
    for (int t = 0; t < x.taps; t++) {
      x.index[t] = t;
      x.offset[t] = t * dilation - padding;
    }
    return x;
  }
  x.positions = phase < p->out[a] ? (p->out[a] - phase + stride - 1) / stride : 0;
  x.out_first = phase;
  x.out_step = stride;
  x.in_step = 1;
  for (int k = (int)p->kernel[a] - 1; k >= 0; k--) {
    int64_t reach = phase + padding - k * dilation;
    if (reach % stride) continue;
    x.index[x.taps] = k;
    x.offset[x.taps++] = reach / stride;
  }
  return x;
}

static int64_t taps_before(const conv_product *p, int a, int64_t phase) {
  int64_t taps = 0;
  for (int64_t r = 0; r < phase; r++) taps += conv_axis_of(p, a, r).taps;
  return taps;
}

/* Taps of the phases that come before (x, y, z) in the packed weights. */
static int64_t phase_begin(const conv_product *p, const int64_t phase[3], int taps_x, int taps_y) {
  return taps_before(p, 0, phase[0]) * p->kernel[1] * p->kernel[2] +
         taps_x *
             (taps_before(p, 1, phase[1]) * p->kernel[2] + taps_y * taps_before(p, 2, phase[2]));
}

float *conv_packed_block(const conv_product *p, const int64_t phase[3], const conv_axis *x,
                         const conv_axis *y, const conv_axis *z, int64_t group, int64_t block) {
  int64_t taps = (int64_t)x->taps * y->taps * z->taps;
  int64_t before = phase_begin(p, phase, x->taps, y->taps) * p->groups + group * taps;
  return p->packed_weight +
         (before * p->column_vectors + block * p->vectors * taps) * p->depth * p->kernels->lanes;
}

/* Puts a vector of weights, element d of the depth of a tap, where the tiles read it. */
static void put_weights(const conv_product *p, float *out, int64_t width, int64_t tap, int64_t d,
                        const float *row) {
  int64_t lanes = p->kernels->lanes;
  if (!p->pairs) {
    memcpy(out + (tap * p->depth + d) * width * lanes, row, (size_t)lanes * sizeof(float));
    return;
  }
  bf16_pair *pair = (bf16_pair *)out + (tap * p->depth + d / 2) * width * lanes;
  if (d % 2)
    bf16_set_second(pair, row, lanes);
  else if (d + 1 < p->given_depth)
    bf16_set_first(pair, row, lanes);
  else
    bf16_pair_rows(pair, row, NULL, lanes);
}

/* The weights of one tap as pairs. Where a column is a run, its neighbours become words first, and squares
 * of words are transposed. */
static void pack_pairs(const conv_product *p, float *out, int64_t width, const float *from) {
  enum { WORDS = 64 };
  int64_t lanes = p->kernels->lanes, step = width * lanes, depth = p->given_depth;
  bf16_pair *to = (bf16_pair *)out;
  if (p->column_step == 1) {
    bf16_pair_columns(to, step, from, p->depth_step, depth, lanes);
    return;
  }
  float room[GEMM_MAX_LANES * WORDS];
  bf16_pair *words = (bf16_pair *)room;
  for (int64_t d = 0; d < depth; d += 2 * WORDS, to += WORDS * step) {
    int64_t run = smaller(2 * WORDS, depth - d), count = bf16_pairs(run);
    int64_t whole = count / lanes * lanes;
    bf16_pair_neighbours(words, from + d, p->column_step, lanes, run);
    for (int64_t i = 0; i < whole; i += lanes)
      p->kernels->transpose(room + i, count, (float *)(to + i * step), step);
    for (int64_t i = whole; i < count; i++)
      for (int64_t l = 0; l < lanes; l++) to[i * step + l] = words[l * count + i];
  }
}

/* Where every output has the same taps, a column's weights are a run in PyTorch's order: squares of
 * lanes × run are transposed. Taps are packed in the order they are summed, reversed for the data
 * gradient. */
static void pack_runs(const conv_product *p, float *out, int64_t width, const float *from) {
  int64_t lanes = p->kernels->lanes, taps = volume(p->kernel), depth = p->given_depth;
  if (p->pairs && taps == 1) {
    pack_pairs(p, out, width, from);
    return;
  }
  /* The run goes over (depth, tap) in the forward direction, over taps in the other. */
  int64_t run = p->transposed ? taps : taps * depth, runs = p->transposed ? depth : 1;
  if (p->column_step == 1) {
    for (int64_t d = 0; d < depth; d++) put_weights(p, out, width, 0, d, from + d * p->depth_step);
    return;
  }
  float square[GEMM_MAX_LANES * GEMM_MAX_LANES];
  for (int64_t r = 0; r < runs; r++, from += p->depth_step) {
    for (int64_t begin = 0; begin < run; begin += lanes) {
      /* The last square overlaps the one before rather than hang over. */
      int64_t j = larger(0, smaller(begin, run - lanes)), count = smaller(lanes, run - j);
      int64_t d = r + j / taps, tap = j % taps;
      if (count == lanes && taps == 1 && !p->pairs) { /* rows are packed at even distances */
        p->kernels->transpose(from + j, p->column_step, out + j * width * lanes, width * lanes);
        continue;
      }
      if (count == lanes)
        p->kernels->transpose(from + j, p->column_step, square, lanes);
      else
        for (int64_t i = 0; i < count; i++)
          for (int64_t l = 0; l < lanes; l++)
            square[i * lanes + l] = from[l * p->column_step + j + i];
      for (int64_t i = 0; i < count; i++) {
        int64_t at = p->transposed ? taps - 1 - tap : tap;
        put_weights(p, out, width, at, d, square + i * lanes);
        if (++tap == taps) {
          tap = 0;
          d++;
        }
      }
    }
  }
}

/* Column by column: the last vector of them, taps that a phase meets, z steps that were made columns. */
static void pack_columns(const conv_product *p, float *out, int64_t width, const conv_axis *x,
                         const conv_axis *y, const conv_axis *z, int64_t group, int64_t v) {
  /* A column is a channel, and where z steps were made columns, a channel at one of them. */
  int64_t channels = p->bias_period / p->groups, filter_z = p->kernel[2] * (p->columns / channels);
  int64_t lanes = p->kernels->lanes;
  int count = (int)smaller(lanes, p->columns - v * lanes);
  const float *from[GEMM_MAX_LANES];
  for (int l = 0; l < count; l++) {
    int64_t column = v * lanes + l;
    from[l] =
        p->weight + group * p->group_step + column % channels * p->column_step + column / channels;
  }
  float row[GEMM_MAX_LANES] = {0};
  for (int64_t d = 0; d < p->given_depth; d++)
    for (int i = 0; i < x->taps; i++)
      for (int j = 0; j < y->taps; j++)
        for (int k = 0; k < z->taps; k++) {
          int64_t at = d * p->depth_step + (x->index[i] * p->kernel[1] + y->index[j]) * filter_z +
                       z->index[k];
          int64_t tap = ((int64_t)i * y->taps + j) * z->taps + k;
          for (int l = 0; l < count; l++) row[l] = from[l][at];
          put_weights(p, out, width, tap, d, row);
        }
}

void conv_pack_weights(void *context, int64_t task) {
  const conv_product *p = context;
  int64_t lanes = p->kernels->lanes, v = task % p->column_vectors, rest = task / p->column_vectors;
  int64_t group = rest % p->groups;
  int64_t phase[3];
  rest /= p->groups;
  for (int a = 2; a >= 0; a--) {
    phase[a] = rest % p->phases[a];
    rest /= p->phases[a];
  }
  conv_axis x = conv_axis_of(p, 0, phase[0]), y = conv_axis_of(p, 1, phase[1]),
            z = conv_axis_of(p, 2, phase[2]);
  int64_t block = v / p->vectors,
          width = smaller(p->vectors, p->column_vectors - block * p->vectors);
  float *out =
      conv_packed_block(p, phase, &x, &y, &z, group, block) + (v - block * p->vectors) * lanes;
  bool whole = v * lanes + lanes <= p->columns;
  if (whole && volume(p->phases) == 1 && p->columns == p->bias_period / p->groups)
    pack_runs(p, out, width, p->weight + group * p->group_step + v * lanes * p->column_step);
  else
    pack_columns(p, out, width, &x, &y, &z, group, v);
  if (p->rounds)
    bf16_round_rows(out, width * lanes, (int64_t)x.taps * y.taps * z.taps * p->depth, lanes);
}

void conv_pack_bias(const conv_product *p) {
  int64_t padded = p->column_vectors * p->kernels->lanes;
  for (int64_t i = 0; i < p->groups * padded; i++) {
    int64_t column = i % padded;
    p->packed_bias[i] = p->bias && column < p->columns
                            ? p->bias[(i / padded * p->columns + column) % p->bias_period]
                            : 0;
  }
  memset(p->zeros, 0, (size_t)p->depth * sizeof(float));
}

void conv_copy_input(conv_product *p, thread_pool *pool) {
  if (!p->copied) return;
  conv_copy copy = {.from = p->input,
                    .to = p->copied_input,
                    .rows = p->batch * p->in[0] * p->in[1],
                    .z = p->in[2],
                    .low = p->pad_low,
                    .to_z = p->padded_z,
                    .groups = p->groups,
                    .group = p->given_depth,
                    .to_group = p->depth,
                    .rounds = p->rounds,
                    .pairs = p->pairs};
  conv_copy_rows(&copy, pool);
}
