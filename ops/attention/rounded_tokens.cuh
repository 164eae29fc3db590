/* Tokens of attention in bf16: where they are stored so, or rounded into scratch memory; tiles of them on
 * their way to shared memory. Heads are filled up with zeros to DIM channels. */
#ifndef STRATA_OPS_ATTENTION_ROUNDED_TOKENS_CUH
#define STRATA_OPS_ATTENTION_ROUNDED_TOKENS_CUH

#include "ops/attention/problem.cuh"

#include "device/cuda/async_copy.cuh"
#include "device/cuda/mma.cuh"

namespace attention_kernels {

constexpr int ROWS = 64, WARP_ROWS = 16, PART = 32 /* columns that are worked on at once */;
constexpr int CHUNK = 8 /* channels that are copied at once, 16 bytes */;

/* From row to row of a tile: rows are aligned to 16 bytes, and eight of them lie in all 32 banks. */
template <int DIM> constexpr int PITCH = DIM + 8;
template <int DIM> constexpr int TILE = PITCH<DIM> *ROWS;

/* ---- tokens that are stored as bf16 ------------------------------------------------------------------ */

/* Aligned to 16 bytes, as are all distances. */
struct rounded_tokens {
  const uint16_t *first;
  int64_t sequence, head; /* from one to the next */
  int row, channels;      /* from token to token; a head's, the others up to DIM are zeros */
  int count;              /* of a sequence */
};

/* The same of a head of a sequence. */
struct rounded_head {
  const uint16_t *first;
  int row, channels, count;
};

static __device__ inline rounded_head head_of(const rounded_tokens &t, int sequence, int head) {
  return {t.first + sequence * t.sequence + head * t.head, t.row, t.channels, t.count};
}

/* A copy of tokens first … first + COUNT − 1 to shared memory begins; zeros for tokens and channels that
 * are not there. All threads of the block. */
template <int DIM, int COUNT = ROWS>
static __device__ inline void begin_tile(uint16_t *tile, const rounded_head &from, int first) {
  constexpr int CHUNKS = DIM / CHUNK;
  static_assert(COUNT * CHUNKS % BLOCK == 0, "whole rounds");
  UNROLL
  for (int i = 0; i < COUNT * CHUNKS; i += BLOCK) {
    int at = i + (int)threadIdx.x, row = at / CHUNKS, channel = at % CHUNKS * CHUNK;
    bool is_there = first + row < from.count && channel < from.channels;
    int64_t place = is_there ? (int64_t)(first + row) * from.row + channel : 0;
    copy_async(tile + row * PITCH<DIM> + channel, from.first + place, is_there);
  }
}

/* begin(step, buffer) begins the copies that a step needs, work(step, buffer) follows when they are there:
 * with two buffers, those of the next step run meanwhile. All threads of the block. */
template <int BUFFERS, typename Begin, typename Work>
static __device__ inline void run_steps(int steps, Begin begin, Work work) {
  constexpr int AHEAD = BUFFERS - 1;
  if (AHEAD) begin(0, 0);
  commit_copies();
  KEEP_LOOP
  for (int i = 0; i < steps; i++) {
    if (i + AHEAD < steps) begin(i + AHEAD, (i + AHEAD) % BUFFERS);
    commit_copies();
    wait_for_copies<AHEAD>();
    __syncthreads();
    work(i, i % BUFFERS);
    __syncthreads();
  }
}

/* ---- rounding ---------------------------------------------------------------------------------------- */

static __device__ inline float4 four_channels(const head_tokens &from, int64_t token, int channel,
                                              int dim, bool is_wide) {
  float4 x = {0, 0, 0, 0};
  if (token >= from.count || channel >= dim) return x;
  source at = from.first.from(token * from.row + channel);
  if (is_wide && !at.bf16) return *static_cast<const float4 *>(at.at);
  if (is_wide) {
    uint2 pairs = *static_cast<const uint2 *>(at.at);
    return {bf16_number(pairs.x & 0xffffu), bf16_number(pairs.x >> 16),
            bf16_number(pairs.y & 0xffffu), bf16_number(pairs.y >> 16)};
  }
  x.x = at[0];
  if (channel + 1 < dim) x.y = at[1];
  if (channel + 2 < dim) x.z = at[2];
  if (channel + 3 < dim) x.w = at[3];
  return x;
}

/* CHUNK channels of a token; zeros for those that are not there. */
struct chunk {
  float4 low, high;
};

static __device__ inline chunk chunk_of(const problem &p, const head_tokens &from, int64_t token,
                                        int channel) {
  return {four_channels(from, token, channel, (int)p.dim, p.is_wide),
          four_channels(from, token, channel + 4, (int)p.dim, p.is_wide)};
}

/* Times `factor`. */
static __device__ inline void store_rounded(uint16_t *to, const chunk &x, float factor = 1.0f) {
  *reinterpret_cast<uint4 *>(to) = {bf16_pair(x.low.x * factor, x.low.y * factor),
                                    bf16_pair(x.low.z * factor, x.low.w * factor),
                                    bf16_pair(x.high.x * factor, x.high.y * factor),
                                    bf16_pair(x.high.z * factor, x.high.w * factor)};
}

static __device__ inline float dot_of(const chunk &a, const chunk &b) {
  return a.low.x * b.low.x + a.low.y * b.low.y + a.low.z * b.low.z + a.low.w * b.low.w +
         a.high.x * b.high.x + a.high.y * b.high.y + a.high.z * b.high.z + a.high.w * b.high.w;
}

/* A tile of scaled queries. All threads of the block. */
template <int DIM>
static __device__ inline void load_queries(uint16_t *tile, const problem &p,
                                           const head_tokens &from, int first) {
  constexpr int CHUNKS = DIM / CHUNK;
  UNROLL
  for (int i = 0; i < ROWS * CHUNKS; i += BLOCK) {
    int at = i + (int)threadIdx.x, row = at / CHUNKS, channel = at % CHUNKS * CHUNK;
    store_rounded(tile + row * PITCH<DIM> + channel, chunk_of(p, from, first + row, channel),
                  p.scale);
  }
}

/* Where a thread's chunk of rounded tokens goes: sequences × heads × tokens × DIM. */
template <int DIM>
static __device__ inline uint16_t *packed_place(uint16_t *to, const problem &p,
                                                const block_place &at, int64_t tokens, int token,
                                                int channel) {
  return to + ((at.sequence * p.heads + at.head) * tokens + token) * DIM + channel;
}

/* Keys and values, where they are not stored as bf16; NULL: those that are. */
template <int DIM>
static __global__ void __launch_bounds__(BLOCK) pack_keys(problem p, uint16_t *k, uint16_t *v) {
  constexpr int CHUNKS = DIM / CHUNK;
  block_place at = place_of_block<ROWS>(p, p.keys);
  head_problem of = head_of(p, at.sequence, at.head);
  for (int i = (int)threadIdx.x; i < ROWS * CHUNKS; i += BLOCK) {
    int token = at.first + i / CHUNKS, channel = i % CHUNKS * CHUNK;
    if (token >= p.keys) return;
    if (k)
      store_rounded(packed_place<DIM>(k, p, at, p.keys, token, channel),
                    chunk_of(p, of.k, token, channel));
    if (v)
      store_rounded(packed_place<DIM>(v, p, at, p.keys, token, channel),
                    chunk_of(p, of.v, token, channel));
  }
}

/* ---- on the host ------------------------------------------------------------------------------------ */

/* Memory is taken piece by piece; from NULL, to find out how much it is. */
struct scratch_memory {
  char *start;
  size_t used;
  template <typename T> T *take(int64_t count) {
    T *at = reinterpret_cast<T *>(start + used);
    used += ((size_t)count * sizeof(T) + 255) / 256 * 256;
    return start ? at : nullptr;
  }
};

static int filled_dim(const problem &p) {
  return p.dim <= 16 ? 16 : p.dim <= 32 ? 32 : p.dim <= 64 ? 64 : 128;
}

/* Tokens where they are packed. */
static rounded_tokens packed_tokens(const problem &p, const uint16_t *at, int64_t count) {
  int dim = filled_dim(p);
  return {at, p.heads * count * dim, count * dim, dim, dim, (int)count};
}

/* Whether copies of 16 bytes can take them from where they are stored: the memory plan aligns all that
 * is stored to 64. */
static bool is_copied(const problem &p, const source &x, int64_t row) {
  return x.bf16 && p.dim % CHUNK == 0 && row % CHUNK == 0;
}

/* Tokens where they are stored, or where they will be packed, which `packed` says then. */
static rounded_tokens rounded_of(const problem &p, const source &x, int64_t row, int64_t count,
                                 scratch_memory *scratch, uint16_t **packed) {
  *packed = nullptr;
  if (is_copied(p, x, row))
    return {
        static_cast<const uint16_t *>(x.at), count * row, p.dim, (int)row, (int)p.dim, (int)count};
  *packed = scratch->take<uint16_t>(p.samples * p.windows * p.heads * count * filled_dim(p));
  return packed_tokens(p, *packed, count);
}

struct rounded_keys {
  rounded_tokens k, v;
  uint16_t *packed_k, *packed_v;
};

static rounded_keys keys_of(const problem &p, scratch_memory *scratch) {
  rounded_keys r;
  r.k = rounded_of(p, p.k, p.k_row, p.keys, scratch, &r.packed_k);
  r.v = rounded_of(p, p.v, p.v_row, p.keys, scratch, &r.packed_v);
  return r;
}

template <int DIM>
static status pack_keys_of(const launch *l, const problem &p, const rounded_keys &r) {
  if (!r.packed_k && !r.packed_v) return OK;
  return LAUNCH(l, pack_keys<DIM>, block_count<ROWS>(p, p.keys), BLOCK, 0, p, r.packed_k,
                r.packed_v);
}

} // namespace attention_kernels

#endif
