/* Products of small matrices by a warp's tensor cores: D = A·B + D, with f32 sums. Of bf16: A 16×16,
 * B 16×8, D 16×8. PTX ISA: mma.sync.aligned.m16n8k16, ldmatrix.sync.aligned.m8n8.x4; sm_80 and later.
 *
 * A warp holds each matrix in pieces. With g = lane / 4 and t = lane % 4, two neighbours in one
 * 32-bit register, the first in its lower half:
 *
 *   A, row by row   a[0]  row g,     columns 2t, 2t + 1      a[2]  row g,     columns 2t + 8, 2t + 9
 *                   a[1]  row g + 8, columns 2t, 2t + 1      a[3]  row g + 8, columns 2t + 8, 2t + 9
 *   B               b[0]  rows 2t, 2t + 1 of column g        b[1]  rows 2t + 8, 2t + 9 of column g
 *   D, f32          d[0], d[1]  row g,     columns 2t, 2t + 1
 *                   d[2], d[3]  row g + 8, columns 2t, 2t + 1
 *
 * So two neighbouring D of 16×8, rounded, are an A of 16×16.
 *
 * Of TF32, a number a register: A 16×8, B 8×8, D as above. PTX ISA: mma.sync.aligned.m16n8k8.
 *
 *   A   a[0]  row g, column t    a[1]  row g + 8, column t    a[2], a[3]  the same, column t + 4
 *   B   b[0]  row t of column g  b[1]  row t + 4 of column g
 *
 * Every lane of the warp calls these functions, with one and the same way through the code before. */
#ifndef STRATA_DEVICE_CUDA_MMA_CUH
#define STRATA_DEVICE_CUDA_MMA_CUH

#include "device/cuda/bf16.cuh"

#ifdef STRATA_EMULATE_CUDA

static inline uint32_t bf16_pair(float first, float second) {
  return bf16_bits(first) | bf16_bits(second) << 16;
}

/* Half `which` of a register as a number. */
static inline float half_of(uint32_t bits, int which) {
  return __int_as_float((int)(which ? bits & 0xffff0000u : bits << 16));
}

struct fragments {
  uint32_t a[4], b[2];
};

/* d += Σ over k of a product of the registers of A and B that hold row, column and k: f(of_a, of_b, k).
 * PER_REGISTER neighbours along k lie in one. */
template <int PER_REGISTER, typename F>
static inline void add_products(float d[4], const uint32_t a[4], const uint32_t b[2], F f) {
  fragments own, all[WARP];
  memcpy(own.a, a, sizeof own.a);
  memcpy(own.b, b, sizeof own.b);
  emulator_gather(&own, sizeof own, all);
  constexpr int HALF = 4 * PER_REGISTER; /* of the depth */
  int g = emulator_lane() / 4, t = emulator_lane() % 4;
  for (int e = 0; e < 4; e++) {
    int row = g + e / 2 * 8, column = 2 * t + e % 2;
    for (int k = 0; k < 2 * HALF; k++) {
      uint32_t of_a = all[row % 8 * 4 + k % HALF / PER_REGISTER].a[row / 8 + k / HALF * 2];
      uint32_t of_b = all[column * 4 + k % HALF / PER_REGISTER].b[k / HALF];
      d[e] += f(of_a, of_b, k);
    }
  }
}

static inline void multiply_add(float d[4], const uint32_t a[4], const uint32_t b[2]) {
  add_products<2>(d, a, b, [](uint32_t of_a, uint32_t of_b, int k) {
    return half_of(of_a, k % 2) * half_of(of_b, k % 2);
  });
}

/* A number rounded to ten bits of fraction, ties away from zero. */
static inline uint32_t tf32_bits(float x) {
  uint32_t bits = (uint32_t)__float_as_int(x);
  return std::isfinite(x) ? (bits + 0x1000u) & ~0x1fffu : bits;
}

static inline void multiply_add_tf32(float d[4], const uint32_t a[4], const uint32_t b[2]) {
  add_products<1>(d, a, b, [](uint32_t of_a, uint32_t of_b, int) {
    if ((of_a | of_b) & 0x1fffu) emulator_fail("a factor that was not rounded to TF32");
    return __int_as_float((int)of_a) * __int_as_float((int)of_b);
  });
}

/* What lane `i` has given as the place of a row of eight. */
static inline void gather_rows(const uint16_t *row, const uint16_t *all[WARP]) {
  if ((uintptr_t)row % 16) emulator_fail("ldmatrix wants rows aligned to 16 bytes");
  emulator_gather(&row, sizeof row, all);
}

static inline void load_matrices(uint32_t to[4], const uint16_t *row) {
  const uint16_t *rows[WARP];
  gather_rows(row, rows);
  int g = emulator_lane() / 4, t = emulator_lane() % 4;
  for (int m = 0; m < 4; m++) {
    const uint16_t *own = rows[m * 8 + g] + 2 * t;
    to[m] = own[0] | (uint32_t)own[1] << 16;
  }
}

static inline void load_transposed(uint32_t to[4], const uint16_t *row) {
  const uint16_t *rows[WARP];
  gather_rows(row, rows);
  int g = emulator_lane() / 4, t = emulator_lane() % 4;
  for (int m = 0; m < 4; m++)
    to[m] = rows[m * 8 + 2 * t][g] | (uint32_t)rows[m * 8 + 2 * t + 1][g] << 16;
}

#else

/* Two numbers rounded, as a register of A or B. */
static __device__ inline uint32_t bf16_pair(float first, float second) {
  uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(second), "f"(first));
  return bits;
}

/* d += a · b */
static __device__ inline void multiply_add(float d[4], const uint32_t a[4], const uint32_t b[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
               "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* A number rounded to TF32, as a register of A or B. */
static __device__ inline uint32_t tf32_bits(float x) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
}

/* d += a · b */
static __device__ inline void multiply_add_tf32(float d[4], const uint32_t a[4],
                                                const uint32_t b[2]) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, "
               "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Four matrices of 8×8 in shared memory; lane 8·m + i gives row i of matrix m, aligned to 16 bytes.
 * to[m]: row g of matrix m, columns 2t, 2t + 1. */
static __device__ inline void load_matrices(uint32_t to[4], const uint16_t *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"((uint32_t)__cvta_generic_to_shared(row))
               : "memory");
}

/* The same, but to[m]: rows 2t, 2t + 1 of column g. */
static __device__ inline void load_transposed(uint32_t to[4], const uint16_t *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"((uint32_t)__cvta_generic_to_shared(row))
               : "memory");
}

#endif

/* ---- pieces of matrices that lie in shared memory, `pitch` numbers from row to row ---------------- */

/* A: the 16 rows at `rows`, columns column … column + 15. */
static __device__ inline void load_a(uint32_t a[4], const uint16_t *rows, int pitch, int column) {
  int lane = (int)threadIdx.x % WARP;
  load_matrices(a, rows + lane % 16 * pitch + column + lane / 16 * 8);
}

/* A of a matrix that lies transposed: its 16 rows are columns column … column + 15 there, its columns the
 * 16 rows at `rows`. */
static __device__ inline void load_a_of_columns(uint32_t a[4], const uint16_t *rows, int pitch,
                                                int column) {
  int lane = (int)threadIdx.x % WARP;
  load_transposed(a, rows + (lane / 16 * 8 + lane % 8) * pitch + column + lane / 8 % 2 * 8);
}

/* Two B side by side, of a matrix that lies transposed: their 16 columns are the 16 rows at `rows`,
 * their rows columns column … column + 15 there. b[0], b[1] are the first. */
static __device__ inline void load_b_of_rows(uint32_t b[4], const uint16_t *rows, int pitch,
                                             int column) {
  int lane = (int)threadIdx.x % WARP;
  load_matrices(b, rows + (lane / 16 * 8 + lane % 8) * pitch + column + lane / 8 % 2 * 8);
}

/* Two B side by side, of a matrix that lies as it is: the 16 rows at `rows`, columns column …
 * column + 15. */
static __device__ inline void load_b(uint32_t b[4], const uint16_t *rows, int pitch, int column) {
  int lane = (int)threadIdx.x % WARP;
  load_transposed(b, rows + lane % 16 * pitch + column + lane / 16 * 8);
}

#endif
