/* The weight gradient as sums over voxels, of any filter. */
#include "ops/arithmetic/vector_math.h"
#include "ops/kernels/convolution_parts.h"

/* For every tap, a matrix (channels × features) that sums over voxels. The rows of a tile are the
 * channels (x is broadcast) and its lanes the features, or the other way round when only the
 * channels fill whole vectors. The voxels are cut into slabs whose partial sums are added in order
 * at the end; where the weights are many and the voxels few, tasks split the weights instead.
 *
 * Factors that bf16 rounds are copied. Of pairs, neighbours along z are one: x and dy are copied into
 * words, those of dy of voxels 2m and 2m + 1, those of x of the two voxels that a tap multiplies them
 * with. For that, with several taps along z, every voxel of x is paired with the one a stride further,
 * and a step of k is two strides. */
typedef struct weight_product {
  conv_shape s;
  bool pairs, rounds; /* bf16: which of them */
  bool swapped;       /* lanes are channels */
  bool fused;         /* rows run over (kz, channel) */
  bool slides;        /* so they do, and sliding tiles make the three of them at once */
  const gemm_kernels *kernels;
  int64_t taps;                     /* not counting fused ones */
  int64_t rows, lanes_used, padded; /* per group: rows, columns, columns in whole vectors */
  int vectors;
  int64_t blocks, row_parts;         /* of columns and of rows, per tap and group */
  int64_t dy_z, x_step;              /* along z: voxels or pairs of dy, from one to the next of x */
  int64_t x_first;                   /* pairs: voxels of x from one word of the copy to the next */
  int64_t z_length, z_pieces, lines; /* a line is a run of voxels or pairs along z */
  bool in_place;                     /* the only slab's sums are dweight itself */
  int64_t slabs, parts;              /* tasks are slabs × parts */
  int64_t pad_low, padded_z;         /* of x along z */
  bool copy_x, copy_dy;              /* into whole vectors, with zeros around z rows */
  const float *x, *dy, *x_read, *dy_read;
  int64_t x_channels, dy_channels; /* of the tensors read, and per group below */
  int64_t x_group, dy_group;
  float *dweight, *dbias;
  float *x_copy, *dy_copy, *partial, *partial_bias, *zeros, *ones;
} weight_product;

enum { LINE_LENGTH = 128, SLABS = 16, MAX_SLABS = 64, ROW_PART = 96, FINISH_ROWS = 8 };

/* Rows run over the taps along z, too. */
static void fuse_taps(weight_product *p) {
  p->fused = true;
  p->taps /= p->s.kernel[2];
  p->rows *= p->s.kernel[2];
}

/* How the taps along z are summed, and which copies that takes. */
static void plan_lines(weight_product *p) {
  const conv_shape *s = &p->s;
  int64_t channels = s->channels / s->groups;
  p->padded_z = s->image[2];
  p->dy_z = s->out[2];
  p->x_step = s->stride[2];
  p->slides = !p->pairs && !p->swapped && s->kernel[2] == 3 && s->stride[2] == 1 &&
              s->padding[2] == 1 && s->dilation[2] == 1;
  int64_t reach =
      (s->out[2] - 1) * s->stride[2] + s->dilation[2] * (s->kernel[2] - 1) + 1 - s->padding[2];
  int64_t reached_z = larger(s->image[2], reach) + s->padding[2];
  bool in_line = !p->swapped && s->groups == 1 && s->kernel[2] > 1 && s->dilation[2] == 1;
  if (p->slides) {
    fuse_taps(p);
  } else if (p->pairs) {
    p->copy_x = p->copy_dy = true;
    p->dy_z = bf16_pairs(s->out[2]);
    p->pad_low = s->padding[2];
    p->x_first = s->kernel[2] == 1 ? 2 * s->stride[2] : 1;
    p->x_step = s->kernel[2] == 1 ? 1 : 2 * s->stride[2];
    p->padded_z = s->kernel[2] == 1 ? p->dy_z : reached_z;
    if (in_line) fuse_taps(p);
  } else if (in_line) {
    bool outside = s->padding[2] > 0 || reach > s->image[2];
    if (channels >= 4 && (outside || channels >= 12)) return;
    fuse_taps(p);
    p->copy_x = outside;
    p->pad_low = s->padding[2];
    p->padded_z = reached_z;
  }
}

/* Panels, lines and tasks. */
static void cut_weight_product(weight_product *p) {
  const conv_shape *s = &p->s;
  p->vectors = p->slides ? 1 : gemm_vectors(p->kernels, p->rows, p->lanes_used);
  p->blocks = (p->padded / p->kernels->lanes + p->vectors - 1) / p->vectors;
  p->row_parts = p->slides ? 1 : (p->rows + ROW_PART - 1) / ROW_PART;
  p->z_length = smaller(p->dy_z, LINE_LENGTH);
  p->z_pieces = (p->dy_z + p->z_length - 1) / p->z_length;
  p->lines = s->batch * s->out[0] * s->out[1] * p->z_pieces;
  int64_t units = s->groups * p->taps * p->blocks * p->row_parts;
  int64_t voxels = s->batch * volume(s->out);
  if (voxels <= 4096 && units >= 8) {
    p->slabs = 1;
    p->parts = smaller(units, 32);
  } else {
    int64_t slabs = larger(SLABS, smaller(MAX_SLABS, voxels / 1024));
    int64_t bytes = s->groups * p->taps * p->rows * p->padded * (int64_t)sizeof(float);
    p->slabs = larger(1, smaller(smaller(p->lines, slabs), ((int64_t)32 << 20) / bytes));
    p->parts = smaller(units, (SLABS + p->slabs - 1) / p->slabs);
  }
  p->in_place = p->slabs == 1 && p->swapped && p->taps == 1 && p->padded == s->channels / s->groups;
}

static weight_product weight_product_of(const conv_shape *shape) {
  weight_product p = {
      .s = merge_pointwise(*shape), .pairs = conv_pairs(shape), .rounds = conv_rounds(shape)};
  p.kernels = p.pairs ? gemm_best_bf16() : gemm_best();
  const conv_shape *s = &p.s;
  int64_t lanes = p.kernels->lanes;
  int64_t channels = s->channels / s->groups, features = s->features / s->groups;
  int64_t padded_channels = rounded_up(channels, lanes);
  int64_t padded_features = rounded_up(features, lanes);
  /* With one tap, lanes of channels leave the sums in PyTorch's order. */
  int64_t swapped_lanes = padded_channels * features, plain_lanes = padded_features * channels;
  p.swapped =
      swapped_lanes < plain_lanes || (swapped_lanes == plain_lanes && volume(s->kernel) == 1);
  p.taps = volume(s->kernel);
  p.rows = p.swapped ? features : channels;
  p.lanes_used = p.swapped ? channels : features;
  p.padded = p.swapped ? padded_channels : padded_features;
  p.copy_dy = !p.swapped && p.padded != features;
  p.copy_x = p.swapped && p.padded != channels;
  plan_lines(&p);
  if (p.rounds) p.copy_x = p.copy_dy = true;
  p.x_channels = s->channels;
  p.x_group = channels;
  p.dy_channels = s->features;
  p.dy_group = features;
  if (p.copy_x && p.swapped) { /* in whole vectors */
    p.x_channels = s->groups * p.padded;
    p.x_group = p.padded;
  }
  if (p.copy_dy && !p.swapped) {
    p.dy_channels = s->groups * p.padded;
    p.dy_group = p.padded;
  }
  cut_weight_product(&p);
  return p;
}

static size_t weight_pieces(weight_product *p, void *workspace) {
  pieces w = {workspace, 0};
  const conv_shape *s = &p->s;
  if (!p->in_place) p->partial = piece(&w, p->slabs * s->groups * p->taps * p->rows * p->padded);
  p->partial_bias = piece(&w, p->slabs * s->features);
  p->zeros = piece(&w, GEMM_MAX_VECTORS * GEMM_MAX_LANES);
  p->ones = conv_ones(&w, s->features);
  if (p->copy_x)
    p->x_copy = piece(&w, s->batch * s->image[0] * s->image[1] * p->padded_z * p->x_channels);
  if (p->copy_dy)
    p->dy_copy = piece(&w, s->batch * s->out[0] * s->out[1] * p->dy_z * p->dy_channels);
  return w.used;
}

/* A voxel's groups into words, each padded to `to_group`. */
static void pair_voxel(bf16_pair *to, const float *first, const float *second, int64_t groups,
                       int64_t group, int64_t to_group) {
  for (int64_t g = 0; g < groups; g++, to += to_group) {
    bf16_pair_rows(to, first ? first + g * group : NULL, second ? second + g * group : NULL, group);
    memset(to + group, 0, (size_t)(to_group - group) * sizeof *to);
  }
}

static void pair_x_task(void *context, int64_t task) {
  const weight_product *p = context;
  const conv_shape *s = &p->s;
  int64_t words = s->batch * s->image[0] * s->image[1] * p->padded_z;
  int64_t end = copy_rows_begin(words, p->x_channels, task + 1);
  for (int64_t w = copy_rows_begin(words, p->x_channels, task); w < end; w++) {
    const float *row = p->x + w / p->padded_z * s->image[2] * s->channels;
    int64_t z = w % p->padded_z * p->x_first - p->pad_low, next = z + s->stride[2];
    pair_voxel((bf16_pair *)p->x_copy + w * p->x_channels,
               z >= 0 && z < s->image[2] ? row + z * s->channels : NULL,
               next >= 0 && next < s->image[2] ? row + next * s->channels : NULL, s->groups,
               s->channels / s->groups, p->x_group);
  }
}

static void pair_dy_task(void *context, int64_t task) {
  const weight_product *p = context;
  const conv_shape *s = &p->s;
  int64_t words = s->batch * s->out[0] * s->out[1] * p->dy_z;
  int64_t end = copy_rows_begin(words, p->dy_channels, task + 1);
  for (int64_t w = copy_rows_begin(words, p->dy_channels, task); w < end; w++) {
    int64_t z = w % p->dy_z * 2;
    const float *first = p->dy + (w / p->dy_z * s->out[2] + z) * s->features;
    pair_voxel((bf16_pair *)p->dy_copy + w * p->dy_channels, first,
               z + 1 < s->out[2] ? first + s->features : NULL, s->groups, s->features / s->groups,
               p->dy_group);
  }
}

static void copy_inputs(weight_product *p, thread_pool *pool) {
  const conv_shape *s = &p->s;
  if (p->pairs) {
    int64_t words_x = s->batch * s->image[0] * s->image[1] * p->padded_z;
    int64_t words_dy = s->batch * s->out[0] * s->out[1] * p->dy_z;
    parallel_for(pool, copy_tasks(words_x, p->x_channels), pair_x_task, p);
    parallel_for(pool, copy_tasks(words_dy, p->dy_channels), pair_dy_task, p);
    return;
  }
  conv_copy x = {.from = p->x,
                 .to = p->x_copy,
                 .rows = s->batch * s->image[0] * s->image[1],
                 .z = s->image[2],
                 .low = p->pad_low,
                 .to_z = p->padded_z,
                 .groups = s->groups,
                 .group = s->channels / s->groups,
                 .to_group = p->x_group,
                 .rounds = p->rounds};
  conv_copy dy = {.from = p->dy,
                  .to = p->dy_copy,
                  .rows = s->batch * s->out[0] * s->out[1],
                  .z = s->out[2],
                  .to_z = s->out[2],
                  .groups = s->groups,
                  .group = s->features / s->groups,
                  .to_group = p->dy_group,
                  .rounds = p->rounds};
  if (p->copy_x) conv_copy_rows(&x, pool);
  if (p->copy_dy) conv_copy_rows(&dy, pool);
}

/* Some rows × one block of columns of one tap of a group, and what is read for them. */
typedef struct weight_unit {
  int64_t group, tap, kx, ky, kz;
  int64_t tap_rows; /* of one tap along z, where tiles slide over three; otherwise all */
  int64_t row, row_end, tiles;
  int vectors;
  int64_t column;
  int64_t a_step, b_step; /* floats from one k to the next */
  /* What is fetched ahead: so far behind what is read, so many bytes a k, of b or of a. */
  int64_t ahead;
  ptrdiff_t ahead_k;
  bool fetches_b;
} weight_unit;

/* One tap fetches the lines of dy that come next, another those of x. */
static void plan_fetching(const weight_product *p, int64_t line_step, weight_unit *u) {
  const conv_shape *s = &p->s;
  bool is_middle = (p->fused || u->kz == 0) && u->ky == s->kernel[1] / 2;
  bool fetches_dy = is_middle && u->kx == 0;
  bool fetches_x = is_middle && u->kx == s->kernel[0] - 1 && !fetches_dy;
  bool fetches_a = p->swapped ? fetches_dy : fetches_x;
  u->fetches_b = p->swapped ? fetches_x : fetches_dy;
  /* The next line lies on the same row where rows are cut into pieces. */
  int64_t next_x = p->z_pieces > 1 ? p->z_length * p->x_step : s->stride[1] * p->padded_z;
  int64_t next_dy = p->z_pieces > 1 ? p->z_length : p->dy_z;
  u->ahead = fetches_x    ? line_step * next_x * p->x_channels
             : fetches_dy ? line_step * next_dy * p->dy_channels
                          : 0;
  int64_t step = fetches_a ? u->a_step : u->fetches_b ? u->b_step : 0;
  u->ahead_k = step * (ptrdiff_t)sizeof(float);
}

static weight_unit weight_unit_of(const weight_product *p, int64_t index, int64_t line_step) {
  const conv_shape *s = &p->s;
  int64_t lanes = p->kernels->lanes, taps_z = p->fused ? 1 : s->kernel[2];
  int64_t part = index % p->row_parts, rest = index / p->row_parts;
  int64_t block = rest % p->blocks;
  rest /= p->blocks;
  weight_unit u = {.tap = rest % p->taps, .group = rest / p->taps};
  u.kz = u.tap % taps_z;
  u.ky = u.tap / taps_z % s->kernel[1];
  u.kx = u.tap / taps_z / s->kernel[1];
  u.tap_rows = p->slides ? p->rows / 3 : p->rows;
  u.row = gemm_tile_begin(u.tap_rows, p->row_parts, part);
  u.row_end = gemm_tile_begin(u.tap_rows, p->row_parts, part + 1);
  u.vectors = (int)smaller(p->vectors, p->padded / lanes - block * p->vectors);
  u.column = block * p->vectors * lanes;
  u.tiles = gemm_tile_count(u.row_end - u.row, p->slides ? p->kernels->slide_sum_rows
                                                         : p->kernels->max_rows[u.vectors]);
  int64_t x_step = p->x_step * p->x_channels;
  u.a_step = p->swapped ? p->dy_channels : x_step;
  u.b_step = p->swapped ? x_step : p->dy_channels;
  plan_fetching(p, line_step, &u);
  return u;
}

/* What a line multiplies, and how many k; false: none, for the tap lies outside. */
static bool line_segment(const weight_product *p, const weight_unit *u, int64_t line,
                         gemm_segment *out, int64_t *length) {
  const conv_shape *s = &p->s;
  int64_t piece_z = line % p->z_pieces, row = line / p->z_pieces;
  int64_t y = row % s->out[1], x = row / s->out[1] % s->out[0], n = row / s->out[1] / s->out[0];
  int64_t in_x = x * s->stride[0] + u->kx * s->dilation[0] - s->padding[0];
  int64_t in_y = y * s->stride[1] + u->ky * s->dilation[1] - s->padding[1];
  if (in_x < 0 || in_x >= s->image[0] || in_y < 0 || in_y >= s->image[1]) return false;
  int64_t z0 = piece_z * p->z_length, z1 = smaller(p->dy_z, z0 + p->z_length);
  int64_t offset =
      p->slides || p->x_first > 1 ? 0 : p->pad_low - s->padding[2] + u->kz * s->dilation[2];
  z0 = larger(z0, -floor_div(offset, p->x_step));
  z1 = smaller(z1, floor_div(p->padded_z - 1 - offset, p->x_step) + 1);
  if (z1 <= z0) return false;
  *length = z1 - z0;
  int64_t x_voxel =
      ((n * s->image[0] + in_x) * s->image[1] + in_y) * p->padded_z + z0 * p->x_step + offset;
  int64_t dy_voxel = ((n * s->out[0] + x) * s->out[1] + y) * p->dy_z + z0;
  const float *x_at = p->x_read + u->group * p->x_group + x_voxel * p->x_channels;
  const float *dy_at = p->dy_read + u->group * p->dy_group + dy_voxel * p->dy_channels;
  out->middle = p->swapped ? dy_at : x_at;
  out->b = (p->swapped ? x_at : dy_at) + u->column;
  if (p->slides) {
    out->first = z0 > 0 ? out->b - p->dy_channels : p->zeros;
    out->last = z1 < s->out[2] ? out->b + (z1 - z0) * p->dy_channels : p->zeros;
  }
  return true;
}

/* Adds what some segments multiply to one tile. */
static void weight_tile(const weight_product *p, const weight_unit *u, const gemm_segment *segments,
                        int64_t count, int64_t length, int64_t t, float *partial, bool accumulate) {
  int64_t r0 = u->row + gemm_tile_begin(u->row_end - u->row, u->tiles, t);
  int64_t r1 = u->row + gemm_tile_begin(u->row_end - u->row, u->tiles, t + 1);
  int tile_rows = (int)(r1 - r0);
  gemm_segment moved[CONV_MAX_SEGMENTS];
  for (int64_t i = 0; i < count; i++) {
    const float *at = segments[i].middle + r0, *fetch = u->fetches_b ? segments[i].b : at;
    moved[i] =
        (gemm_segment){at, at, at + tile_rows - 1, segments[i].b, fetch + u->ahead, u->ahead_k};
    if (!p->slides) continue;
    moved[i].first = segments[i].first;
    moved[i].last = segments[i].last;
  }
  gemm_tile tile = {.segments = moved,
                    .segment_count = count,
                    .k = length,
                    .a_row = sizeof(float),
                    .a_k = u->a_step * (ptrdiff_t)sizeof(float),
                    .b_k = u->b_step * (ptrdiff_t)sizeof(float),
                    .c = partial + ((u->group * p->taps + u->tap) * p->rows + r0) * p->padded +
                         u->column,
                    .c_row = p->padded * (ptrdiff_t)sizeof(float),
                    .columns = u->vectors * (int)p->kernels->lanes,
                    .accumulate = accumulate,
                    .tap = u->tap_rows * p->padded * (ptrdiff_t)sizeof(float),
                    .bias = p->zeros};
  if (p->slides)
    p->kernels->slide_sum[tile_rows](&tile);
  else
    p->kernels->tile[u->vectors][tile_rows](&tile);
}

/* Adds the voxels of some lines to a unit. */
static void weight_tiles(const weight_product *p, float *partial, int64_t unit, int64_t line_begin,
                         int64_t line_end, int64_t line_step, bool accumulate) {
  weight_unit u = weight_unit_of(p, unit, line_step);
  gemm_segment segments[CONV_MAX_SEGMENTS];
  int64_t line = line_begin;
  do {
    /* Lines whose run along z is equally long make one visit. */
    int64_t count = 0, length = 0;
    for (; line < line_end && count < CONV_MAX_SEGMENTS; line++) {
      int64_t own;
      if (!line_segment(p, &u, line, &segments[count], &own)) continue;
      if (count && length != own) break;
      length = own;
      count++;
    }
    for (int64_t t = 0; t < u.tiles; t++)
      weight_tile(p, &u, segments, count, length, t, partial, accumulate);
    accumulate = true;
  } while (line < line_end);
}

static void sum_lines(const weight_product *p, float *sum, int64_t line_begin, int64_t line_end) {
  const conv_shape *s = &p->s;
  int64_t length = p->z_length * (p->pairs ? 2 : 1);
  for (int64_t line = line_begin; line < line_end; line++) {
    int64_t z0 = line % p->z_pieces * length, z1 = smaller(s->out[2], z0 + length);
    const float *dy = p->dy + (line / p->z_pieces * s->out[2] + z0) * s->features;
    conv_sum_voxels(sum, p->ones, dy, z1 - z0, s->features);
  }
}

static void weight_task(void *context, int64_t task) {
  const weight_product *p = context;
  const conv_shape *s = &p->s;
  int64_t slab = task / p->parts, part = task % p->parts;
  int64_t line_begin = p->lines * slab / p->slabs, line_end = p->lines * (slab + 1) / p->slabs;
  int64_t units = s->groups * p->taps * p->blocks * p->row_parts;
  int64_t unit_begin = units * part / p->parts, unit_end = units * (part + 1) / p->parts;
  float *partial = p->partial + slab * s->groups * p->taps * p->rows * p->padded;
  /* As many lines at a time as stay in cache while every tap passes over them; more where the
   * weights that are loaded and stored each time are many. */
  int64_t line_floats = p->z_length * (p->x_group + p->dy_group);
  int64_t cached = larger(16384, smaller(32768, 256 * (p->x_group + p->dy_group)));
  int64_t step = larger(1, smaller(CONV_MAX_SEGMENTS, cached / line_floats));
  float *sum = p->dbias && part == 0 ? p->partial_bias + slab * s->features : NULL;
  if (sum) memset(sum, 0, (size_t)s->features * sizeof(float));
  for (int64_t line = line_begin; line < line_end; line += step) {
    int64_t end = smaller(line_end, line + step);
    for (int64_t unit = unit_begin; unit < unit_end; unit++)
      weight_tiles(p, partial, unit, line, end, step, line > line_begin);
    if (sum) sum_lines(p, sum, line, end);
  }
}

FOR_EACH_ISA void conv_add_slabs(const float *from, int64_t slabs, int64_t slab_floats,
                                 float *restrict sum, int64_t count) {
  memcpy(sum, from, (size_t)count * sizeof(float));
  for (int64_t slab = 1; slab < slabs; slab++) {
    from += slab_floats;
    for (int64_t i = 0; i < count; i++) sum[i] += from[i];
  }
}

/* Adds the slabs and puts the sums where PyTorch has them, one vector of columns × one run of some
 * channels (or one feature, when swapped) and all their taps, in squares that are transposed. */
static void finish_task(void *context, int64_t task) {
  const weight_product *p = context;
  const conv_shape *s = &p->s;
  int64_t lanes = p->kernels->lanes, column_vectors = p->padded / lanes;
  int64_t filter = volume(s->kernel), channels = s->channels / s->groups;
  int64_t features = s->features / s->groups, feature_step = channels * filter;
  int64_t rows = p->swapped ? features : channels, row_step = p->swapped ? feature_step : filter;
  int64_t column_step = p->swapped ? filter : feature_step;
  int64_t v = task % column_vectors, rest = task / column_vectors;
  int64_t row_tasks = (rows + FINISH_ROWS - 1) / FINISH_ROWS;
  int64_t row = rest % row_tasks * FINISH_ROWS, group = rest / row_tasks;
  int64_t row_end = smaller(rows, row + FINISH_ROWS);
  int64_t count = smaller(lanes, p->lanes_used - v * lanes);
  int64_t fused_taps = filter / p->taps; /* a fused row is (kz, channel) */
  float square[GEMM_MAX_LANES * GEMM_MAX_LANES];
  for (; row < row_end; row++) {
    float *to =
        p->dweight + group * features * feature_step + row * row_step + v * lanes * column_step;
    for (int64_t begin = 0; begin < filter; begin += lanes) {
      int64_t tap = larger(0, smaller(begin, filter - lanes)), taps = smaller(lanes, filter - tap);
      for (int64_t i = 0; i < taps; i++) {
        int64_t partial_tap = (tap + i) / fused_taps, kz = (tap + i) % fused_taps;
        const float *from =
            p->partial +
            ((group * p->taps + partial_tap) * p->rows + kz * channels + row) * p->padded +
            v * lanes;
        conv_add_slabs(from, p->slabs, p->s.groups * p->taps * p->rows * p->padded,
                       square + i * lanes, lanes);
      }
      if (column_step == 1)
        memcpy(to, square, (size_t)count * sizeof(float));
      else if (taps == lanes && count == lanes)
        p->kernels->transpose(square, lanes, to + tap, column_step);
      else
        for (int64_t l = 0; l < count; l++)
          for (int64_t i = 0; i < taps; i++) to[l * column_step + tap + i] = square[i * lanes + l];
    }
  }
}

size_t conv_taps_weight_workspace(const conv_shape *s) {
  weight_product p = weight_product_of(s);
  return weight_pieces(&p, NULL);
}

void conv_taps_weight_run(const conv_shape *s, const float *x, const float *dy, float *dweight,
                          float *dbias, void *workspace, thread_pool *pool) {
  weight_product p = weight_product_of(s);
  weight_pieces(&p, workspace);
  p.x = x;
  p.dy = dy;
  p.dweight = dweight;
  p.dbias = dbias;
  if (p.in_place) p.partial = dweight;
  p.x_read = p.copy_x ? p.x_copy : x;
  p.dy_read = p.copy_dy ? p.dy_copy : dy;
  memset(p.zeros, 0, GEMM_MAX_VECTORS * GEMM_MAX_LANES * sizeof(float));
  copy_inputs(&p, pool);
  parallel_for(pool, p.slabs * p.parts, weight_task, &p);
  int64_t rows = (p.swapped ? p.s.features : p.s.channels) / p.s.groups;
  int64_t row_tasks = (rows + FINISH_ROWS - 1) / FINISH_ROWS;
  if (!p.in_place)
    parallel_for(pool, p.s.groups * row_tasks * (p.padded / p.kernels->lanes), finish_task, &p);
  if (dbias) conv_add_slabs(p.partial_bias, p.slabs, p.s.features, dbias, p.s.features);
}
