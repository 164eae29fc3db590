/* spatial_dropout: dropout of whole channels (Tompson et al., CVPR 2015, arXiv 1411.4280). */
#include "ops/arithmetic/drop.h"
#include "ops/kernels/channel_rows.h"

static status spatial_dropout_infer(infer *rule) {
  if (rule->in[0].shape.rank < 2) return shape_error("x must have samples and channels (N … C)");
  return drop_infer(rule);
}

static status spatial_dropout_grad(grad *rule) {
  return build_node(rule->b, "spatial_dropout", rule->attrs, rule->dy, 1, rule->dx);
}

static cost spatial_dropout_cost(const void *attrs, const tensor *in, int in_count,
                                 const tensor *out) {
  (void)attrs, (void)in_count, (void)out;
  return cost_per_element(in, 1);
}

/* 0 or the factor, for the channels `first` … `first + tile − 1` of a sample; `first` is a multiple
 * of the four numbers that a Philox block holds. */
static void draw_factors(const call *c, int64_t sample, int64_t first, int64_t tile,
                         float *factors) {
  uint32_t limit = drop_limit(c->attrs), bits[4];
  float factor = drop_factor(c->attrs);
  rng stream = rng_open(c->rng_keys[sample], c->node_id);
  uint32_t counter[4] = {(uint32_t)(first / 4), stream.counter[1], stream.counter[2],
                         stream.counter[3]};
  for (int64_t i = 0; i < tile; i++) {
    if (i % 4 == 0) {
      philox4x32(counter, stream.key, bits);
      counter[0]++;
    }
    factors[i] = bits[i % 4] < limit ? 0.0f : factor;
  }
}

/* What is dropped is 0 even where x is not finite. x and y may be the same memory. */
FOR_EACH_ISA static void scale_rows(float *y, const float *x, const float *factors, rows r,
                                    int64_t tile) {
  float row[TILE_MAX];
  spread(row, factors, tile, r.width);
  for (int64_t i = 0; i < r.count + (r.tail > 0); i++) {
    const float *xi = x + i * r.stride;
    float *yi = y + i * r.stride;
    int64_t width = i < r.count ? r.width : r.tail;
    ELEMENTWISE
    for (int64_t j = 0; j < width; j++) yi[j] = row[j] > 0.0f ? row[j] * xi[j] : 0.0f;
  }
}

static void spatial_dropout_task(void *context, int64_t task) {
  const call *c = context;
  channel_cut l = cut_channels(&c->in[0], c->in[0].shape.dim[0]);
  channel_task t = cut_task(&l, task);
  float factors[TILE_MAX];
  for (int64_t first = 0; first < l.channels; first += TILE_MAX) {
    int64_t tile = tile_at(&l, first), at = t.start + first;
    draw_factors(c, t.sample, first, tile, factors);
    scale_rows((float *)c->out[0].data + at, (const float *)c->in[0].data + at, factors,
               rows_of(&l, t.voxels, tile), tile);
  }
}

static status spatial_dropout_cpu(const call *c) {
  channel_cut l = cut_channels(&c->in[0], c->in[0].shape.dim[0]);
  parallel_for(c->pool, cut_tasks(&l), spatial_dropout_task, (void *)c);
  return OK;
}

const op op_spatial_dropout = {
    .name = "spatial_dropout",
    .family = "arithmetic",
    .summary = "Sets a random share of each sample's channels to 0 while training.",
    .doc = "A channel of a sample is x / (1 − rate) everywhere with probability 1 − rate, else 0 "
           "everywhere (Tompson et al., CVPR 2015, arXiv 1411.4280); torch.nn.Dropout3d. Outside "
           "training out = x.",
    .version = 1,
    .traits = OP_IN_PLACE | OP_RANDOM | OP_TRAIN_ONLY,
    .inputs = (const port[]){{"x", "N … C", DTYPE_F32, 0, "feature map"}, {0}},
    .outputs =
        (const port[]){{"out", "as x", DTYPE_F32, PORT_STORABLE, "the map, some channels 0"}, {0}},
    .attrs = (const attr[]){DROP_RATE_ATTR("share of channels to drop"), {0}},
    .attrs_bytes = sizeof(drop_attrs),
    .infer = spatial_dropout_infer,
    .grad = spatial_dropout_grad,
    .cost = spatial_dropout_cost,
    .cpu = spatial_dropout_cpu,
    .cases = (const op_case[]){{"{rate: 0.3}", "[1..3, 1..5, 1..5, 2, 1..9]", 0},
                               {"{rate: 0.6}", "[2, 3, 265]", 0},
                               {"{rate: 0}", "[2, 5]", 0},
                               {0}},
};
