/* Register tiles: the one inner loop under every matrix product and convolution.
 *
 * Factors are f32, or pairs of bf16 (bf16.h): the two numbers of a word are neighbours along k, so a
 * product over pairs is the same tile over half as many k, with words in the places of floats and
 * the sum of two products in the place of one. What is summed, C, is f32 in both.
 *
 * A tile computes C (rows × columns) = start + Σ over segments Σ over k  A[row][k] · B[k][column],
 * with all of C in vector registers. `columns` are vector lanes: B rows are read as vectors, A
 * values are broadcast. A segment is one run of k: a filter tap of a convolution, one row of voxels
 * of a weight gradient, or the whole k of a matrix product. Rows of A lie `a_row` bytes apart,
 * except the first and the last, which have addresses of their own so that a filter tap that hangs
 * over the border of the volume there reads zeros.
 *
 * The same source is compiled for AVX-512, AVX2 and portable vectors (gemm_tile.h), and for pairs
 * with the processor's own instruction and without; the best set the processor has is chosen once. */
#ifndef STRATA_OPS_KERNELS_GEMM_H
#define STRATA_OPS_KERNELS_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct gemm_segment {
  const float *first;  /* row 0 */
  const float *middle; /* where row 0 would be if it lay in line with rows 1 … rows − 2 */
  const float *last;   /* row rows − 1, when there is more than one row */
  const float *b;
  const float *ahead; /* fetched into cache while the segment runs: a line per k, */
  ptrdiff_t ahead_k;  /* this many bytes apart */
} gemm_segment;

typedef struct gemm_tile {
  const gemm_segment *segments;
  int64_t segment_count;
  int64_t k;                 /* length of every segment, ≥ 1 */
  ptrdiff_t a_row, a_k, b_k; /* bytes from row to row, from k to k */
  float *c;
  ptrdiff_t c_row;   /* bytes */
  int columns;       /* of C that are stored; B is read in full vectors */
  bool accumulate;   /* start from C, otherwise from `bias` */
  ptrdiff_t tap;     /* sliding tiles: bytes from tap to tap, of B, or of C in a sum */
  const float *bias; /* as many as the vectors hold */
} gemm_tile;

typedef void (*gemm_tile_fn)(const gemm_tile *);

/* Depthwise filters: no matrix, one filter a channel. A row of results reads `lines` rows of voxels,
 * and of each some taps at even distances:
 *   y[r][c] = start[c] + Σ over lines i, taps t  x[i][(voxel + t·voxel_step)][c] · w[i][(tap +
 *             t·tap_step)][c]
 * with voxel, tap and their number from taps[r]. */
typedef struct gemm_taps {
  int32_t voxel, tap, count;
} gemm_taps;

typedef struct gemm_depthwise {
  const float *const *x, *const *w; /* [voxel][channel] and [tap][channel] of every line */
  int lines;
  const gemm_taps *taps; /* of every result */
  int64_t results, channels;
  int64_t voxel_step, tap_step;
  bool accumulate;   /* start from y, otherwise from `bias` */
  const float *bias; /* NULL: zeros */
  float *y;
} gemm_depthwise;

enum { GEMM_MAX_VECTORS = 4, GEMM_MAX_ROWS = 24, GEMM_MAX_LANES = 16 };

typedef struct gemm_kernels {
  const char *name;         /* "AVX-512" */
  const char *rounded_name; /* of the same where factors are rounded to bf16 */
  bool bf16;       /* A and B are pairs; there are no sliding sums and no depthwise filters */
  int lanes;       /* floats in a vector */
  int max_vectors; /* vectors a tile may be wide */
  int max_rows[GEMM_MAX_VECTORS + 1];                         /* by width in vectors */
  gemm_tile_fn tile[GEMM_MAX_VECTORS + 1][GEMM_MAX_ROWS + 1]; /* [vectors][rows] */
  /* to[j][i] = from[i][j] for a square of `lanes`; rows lie from_row and to_row floats apart. */
  void (*transpose)(const float *from, ptrdiff_t from_row, float *to, ptrdiff_t to_row);
  /* The same for any number of rows and columns. */
  void (*transpose_matrix)(const float *from, ptrdiff_t from_row, float *to, ptrdiff_t to_row,
                           int64_t rows, int64_t columns);
  /* Three taps along the rows at once, one vector wide. `slide` makes rows outputs, at most
   * max_rows[1], from rows + 2 rows of A, with a_k one float and b_k one vector; `slide_sum` adds
   * to the weights of the three taps. gemm_tile.h has the sums. */
  gemm_tile_fn slide[GEMM_MAX_ROWS + 1];
  int slide_sum_rows;
  gemm_tile_fn slide_sum[GEMM_MAX_ROWS + 1];
  void (*depthwise)(const gemm_depthwise *);
  /* sum[c] += Σ over `count` voxels x[c] · dy[c]; x steps by x_step floats, dy by `channels`. */
  void (*depthwise_sum)(float *sum, const float *x, int64_t x_step, const float *dy, int64_t count,
                        int64_t channels);
} gemm_kernels;

/* The widest kernels this processor runs. */
const gemm_kernels *gemm_best(void);
/* Those for pairs, or NULL: where the processor multiplies f32 faster, factors are rounded to bf16 and
 * stay f32 (bf16_round_copy), for the kernels of gemm_best. */
const gemm_kernels *gemm_best_bf16(void);
/* Every set this processor runs, best first, for tests; returns how many. Pairs can always be multiplied,
 * if slowly. */
enum { GEMM_MAX_SETS = 4 };
int gemm_available(const gemm_kernels *out[GEMM_MAX_SETS]);
int gemm_available_bf16(const gemm_kernels *out[GEMM_MAX_SETS]);
/* Lets a test choose: a set for f32, which factors rounded to bf16 then meet too, or one for pairs; NULL
 * goes back to the best of both. Not while kernels run. */
void gemm_choose(const gemm_kernels *kernels);

/* How many vectors wide tiles over `rows` × `columns` are best made. */
int gemm_vectors(const gemm_kernels *kernels, int64_t rows, int64_t columns);

/* to[j][i] = from[i][j] for rows × columns floats, by the narrowest vectors that hold the shorter side. */
void gemm_transpose(float *restrict to, ptrdiff_t to_row, const float *restrict from,
                    ptrdiff_t from_row, int64_t rows, int64_t columns);

/* Splits `extent` rows into the fewest tiles of at most `max_rows`, as equal as can be. */
static inline int64_t gemm_tile_count(int64_t extent, int64_t max_rows) {
  return (extent + max_rows - 1) / max_rows;
}
static inline int64_t gemm_tile_begin(int64_t extent, int64_t tiles, int64_t tile) {
  int64_t whole = extent / tiles, rest = extent % tiles;
  return tile * whole + (tile < rest ? tile : rest);
}

#endif
