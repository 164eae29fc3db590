/* window_partition, window_merge and window_regions: a feature map as windows for attention, and
 * back (Liu et al., arXiv 2103.14030, in three dimensions as in monai.networks.nets.swin_unetr).
 *
 * The volume is filled up with zeros to whole windows and turned cyclically by `shift` towards the
 * origin, so that the windows of every second layer reach over the borders of the others. The two
 * copies are each other's gradients: what was filled up is cut off again. */
#include "ops/arithmetic/chunks.h"

#include "graph/graph.h"

#include <string.h>

typedef struct window_attrs {
  int64_t window[3];
  int64_t shift[3];
  bool clamp;
  int64_t size[3]; /* of the volume; window_partition sees it and leaves it out */
} window_attrs;

#define WINDOW_ATTRS                                                                               \
  {"window", ATTR_INT3, offsetof(window_attrs, window),                                            \
   NULL,     1,         1024,                                                                      \
   NULL,     0,         "extent of a window in voxels along x, y and z"},                          \
      {"shift", ATTR_INT3, offsetof(window_attrs, shift),                                          \
       "0",     0,         1023,                                                                   \
       NULL,    0,         "voxels by which the windows are moved, less than a window"},           \
  {                                                                                                \
    "clamp", ATTR_BOOL, offsetof(window_attrs, clamp), "true", 0, 0, NULL, 0,                      \
        "along an axis that is not longer than the window, one window without shift"               \
  }

#define SIZE_ATTR                                                                                  \
  {                                                                                                \
    "size", ATTR_INT3, offsetof(window_attrs, size), NULL, 1, 100000, NULL, 0,                     \
        "extent of the volume along x, y and z"                                                    \
  }

/* What the attributes mean for a volume. */
typedef struct layout {
  int64_t size[3], window[3], shift[3];
  int64_t grid[3];         /* windows along each axis */
  int64_t windows, tokens; /* in all, and in a window */
} layout;

static layout layout_of(const window_attrs *attrs, const int64_t size[3]) {
  layout l = {.windows = 1, .tokens = 1};
  for (int a = 0; a < 3; a++) {
    bool whole = attrs->clamp && size[a] <= attrs->window[a];
    l.size[a] = size[a];
    l.window[a] = whole ? size[a] : attrs->window[a];
    l.shift[a] = whole ? 0 : attrs->shift[a];
    l.grid[a] = divide_up(size[a], l.window[a]);
    l.windows *= l.grid[a];
    l.tokens *= l.window[a];
  }
  return l;
}

static status check_shift(const window_attrs *attrs) {
  for (int a = 0; a < 3; a++)
    if (attrs->shift[a] >= attrs->window[a])
      return shape_error("the shift must be less than the window, but along %c it is %lld of %lld",
                         "xyz"[a], (long long)attrs -> shift[a], (long long)attrs -> window[a]);
  return OK;
}

static cost no_flops(const void *attrs, const tensor *in, int in_count, const tensor *out) {
  (void)attrs, (void)in, (void)in_count, (void)out;
  return (cost){0};
}

/* Where a task's window lies. */
static void window_start(const layout *l, int64_t window, int64_t start[3]) {
  start[0] = window / (l->grid[1] * l->grid[2]) * l->window[0];
  start[1] = window / l->grid[2] % l->grid[1] * l->window[1];
  start[2] = window % l->grid[2] * l->window[2];
}

/* Voxel of the volume at place `at` of the turned axis. */
static int64_t unshifted(const layout *l, int axis, int64_t at) {
  int64_t extent = l->grid[axis] * l->window[axis];
  return (at + l->shift[axis]) % extent;
}

/* One row of a window along z, in runs that are contiguous in the volume as well. `line` is the
 * volume's row, NULL where it lies in what was filled up. */
static void copy_line(const layout *l, int64_t start, int64_t channels, float *tokens, float *line,
                      bool merge) {
  int64_t extent = l->grid[2] * l->window[2];
  for (int64_t i = 0; i < l->window[2];) {
    int64_t z = unshifted(l, 2, start + i), left = l->window[2] - i;
    bool inside = line && z < l->size[2];
    int64_t end = inside ? l->size[2] : extent, run = left < end - z ? left : end - z;
    float *token = tokens + i * channels;
    if (!inside && !merge)
      memset(token, 0, (size_t)(run * channels) * sizeof *token);
    else if (inside && merge)
      copy_row(line + z * channels, token, run * channels);
    else if (inside)
      copy_row(token, line + z * channels, run * channels);
    i += run;
  }
}

typedef struct window_job {
  layout l;
  int64_t channels;
  float *volume, *windows; /* one of them is only read */
  bool merge;
} window_job;

/* One window of one sample. */
static void window_task(void *context, int64_t task) {
  const window_job *job = context;
  const layout *l = &job->l;
  int64_t sample = task / l->windows, start[3];
  window_start(l, task % l->windows, start);
  float *token = job->windows + task * l->tokens * job->channels;
  float *volume = job->volume + sample * l->size[0] * l->size[1] * l->size[2] * job->channels;
  for (int64_t i = 0; i < l->window[0]; i++)
    for (int64_t j = 0; j < l->window[1]; j++) {
      int64_t x = unshifted(l, 0, start[0] + i), y = unshifted(l, 1, start[1] + j);
      float *line = NULL;
      if (x < l->size[0] && y < l->size[1])
        line = volume + (x * l->size[1] + y) * l->size[2] * job->channels;
      copy_line(l, start[2], job->channels, token, line, job->merge);
      token += l->window[2] * job->channels;
    }
}

static status run_windows(const call *c, const tensor *volume, const tensor *windows, bool merge) {
  window_job job = {.l = layout_of(c->attrs, volume->shape.dim + 1),
                    .channels = last_extent(volume),
                    .volume = volume->data,
                    .windows = windows->data,
                    .merge = merge};
  parallel_for(c->pool, volume->shape.dim[0] * job.l.windows, window_task, &job);
  return OK;
}

/* ---- window_partition ------------------------------------------------------------------------ */

static status window_partition_infer(infer *rule) {
  const window_attrs *attrs = rule->attrs;
  const shape *x = &rule->in[0].shape;
  char have[96];
  TRY(check_shift(attrs));
  if (x->rank != 5)
    return shape_error("x must be a feature map (N × X × Y × Z × C), but is %s",
                       shape_format(have, x));
  layout l = layout_of(attrs, x->dim + 1);
  rule->out[0].shape = SHAPE(x->dim[0], l.windows, l.tokens, x->dim[4]);
  return OK;
}

static status window_partition_grad(grad *rule) {
  window_attrs back = *(const window_attrs *)rule->attrs;
  const shape *x = &value_type(rule->b, rule->in[0])->shape;
  for (int a = 0; a < 3; a++) back.size[a] = x->dim[a + 1];
  return build_node(rule->b, "window_merge", &back, rule->dy, 1, rule->dx);
}

static status window_partition_cpu(const call *c) {
  return run_windows(c, &c->in[0], &c->out[0], false);
}

const op op_window_partition = {
    .name = "window_partition",
    .family = "attention",
    .summary = "A feature map as windows of tokens.",
    .doc =
        "Fills the volume up with zeros to whole windows, turns it cyclically by −shift, and "
        "lists the windows, and the tokens of a window, in the order x, y, z with z fastest (Liu "
        "et al., arXiv 2103.14030).",
    .torch = "monai.networks.nets.swin_unetr.window_partition(torch.roll(torch.nn.functional.pad("
             "x, padding), [-s for s in shift], (1, 2, 3)), window).unflatten(0, (x.shape[0], -1))",
    .version = 1,
    .inputs = (const port[]){{"x", "N X Y Z C", DTYPE_F32, PORT_CARRIED, "feature map"}, {0}},
    .outputs =
        (const port[]){{"out", "N W T C", DTYPE_F32, PORT_STORABLE, "tokens of every window"}, {0}},
    .attrs = (const attr[]){WINDOW_ATTRS, {0}},
    .attrs_bytes = sizeof(window_attrs),
    .infer = window_partition_infer,
    .grad = window_partition_grad,
    .cost = no_flops,
    .cpu = window_partition_cpu,
    .cases = (const op_case[]){{"{window: [2, 3, 4]}", "[1..2, 1..5, 1..7, 1..9, 1..3]", 0},
                               {"{window: 3, shift: 1}", "[1..2, 1..7, 2..7, 3..8, 1|17]", 0},
                               {"{window: 3, shift: 1}", "[2, 4, 5, 3..8, 8]", 0},
                               {"{window: [3, 2, 4], shift: [2, 0, 1], clamp: false}",
                                "[2, 1..7, 1..4, 1..9, 2]", 0},
                               {0}},
};

/* ---- window_merge ---------------------------------------------------------------------------- */

static status window_merge_infer(infer *rule) {
  const window_attrs *attrs = rule->attrs;
  const shape *x = &rule->in[0].shape;
  char have[96];
  TRY(check_shift(attrs));
  layout l = layout_of(attrs, attrs->size);
  if (x->rank != 4 || x->dim[1] != l.windows || x->dim[2] != l.tokens)
    return shape_error("a volume of %lld×%lld×%lld is cut into %lld windows of %lld tokens "
                       "(N × W × T × C), but x is %s",
                       (long long)l.size[0], (long long)l.size[1], (long long)l.size[2],
                       (long long)l.windows, (long long)l.tokens, shape_format(have, x));
  rule->out[0].shape = SHAPE(x->dim[0], l.size[0], l.size[1], l.size[2], x->dim[3]);
  return OK;
}

static status window_merge_grad(grad *rule) {
  return build_node(rule->b, "window_partition", rule->attrs, rule->dy, 1, rule->dx);
}

static status window_merge_cpu(const call *c) {
  return run_windows(c, &c->out[0], &c->in[0], true);
}

const op op_window_merge = {
    .name = "window_merge",
    .family = "attention",
    .summary = "Windows of tokens put back into the feature map they were cut from.",
    .doc = "The inverse of window_partition with the same window and shift; what that filled up is "
           "cut off.",
    .torch = "torch.roll(monai.networks.nets.swin_unetr.window_reverse(x, window, padded), shift, "
             "(1, 2, 3))[:, :size[0], :size[1], :size[2]]",
    .version = 1,
    .inputs =
        (const port[]){{"x", "N W T C", DTYPE_F32, PORT_CARRIED, "tokens of every window"}, {0}},
    .outputs = (const port[]){{"out", "N X Y Z C", DTYPE_F32, PORT_STORABLE, "feature map"}, {0}},
    .attrs = (const attr[]){WINDOW_ATTRS, SIZE_ATTR, {0}},
    .attrs_bytes = sizeof(window_attrs),
    .infer = window_merge_infer,
    .grad = window_merge_grad,
    .cost = no_flops,
    .cpu = window_merge_cpu,
    .cases = (const op_case[]){{"{window: [2, 2, 3], size: [4, 3, 7]}", "[1..2, 12, 12, 1..5]", 0},
                               {"{window: 3, shift: 1, size: [2, 5, 7]}", "[1..2, 6, 18, 1|17]", 0},
                               {"{window: 3, shift: 1, size: [2, 5, 7]}", "[2, 6, 18, 8]", 0},
                               {0}},
};

/* ---- window_regions -------------------------------------------------------------------------- */

static status window_regions_infer(infer *rule) {
  const window_attrs *attrs = rule->attrs;
  TRY(check_shift(attrs));
  layout l = layout_of(attrs, attrs->size);
  rule->out[0].shape = SHAPE(l.windows, l.tokens);
  return OK;
}

/* 0 before the last window of the turned axis; in it, 1 for what lies beside the others and 2 for
 * what came from the other end. */
static int32_t region_along(const layout *l, int axis, int64_t at) {
  int64_t extent = l->grid[axis] * l->window[axis];
  if (l->shift[axis] == 0 || at < extent - l->window[axis]) return 0;
  return at < extent - l->shift[axis] ? 1 : 2;
}

static void region_task(void *context, int64_t task) {
  const call *c = context;
  const window_attrs *attrs = c->attrs;
  layout l = layout_of(attrs, attrs->size);
  int32_t *out = (int32_t *)c->out[0].data + task * l.tokens;
  int64_t start[3];
  window_start(&l, task, start);
  for (int64_t i = 0; i < l.window[0]; i++)
    for (int64_t j = 0; j < l.window[1]; j++)
      for (int64_t k = 0; k < l.window[2]; k++)
        *out++ = (region_along(&l, 0, start[0] + i) * 3 + region_along(&l, 1, start[1] + j)) * 3 +
                 region_along(&l, 2, start[2] + k);
}

static status window_regions_cpu(const call *c) {
  parallel_for(c->pool, c->out[0].shape.dim[0], region_task, (void *)c);
  return OK;
}

const op op_window_regions = {
    .name = "window_regions",
    .family = "attention",
    .summary = "Which tokens of a shifted window belong together.",
    .doc = "A shifted window at the border holds voxels from both ends of the volume, which must "
           "not attend to each other: tokens of a window get the same number when they lie "
           "together in the volume (Liu et al., arXiv 2103.14030). For the `regions` of attention; "
           "takes no input.",
    .torch = "monai.networks.nets.swin_unetr.compute_mask(padded, window, shift, 'cpu') == 0",
    .version = 1,
    .outputs = (const port[]){{"out", "W T", DTYPE_I32, 0, "region numbers"}, {0}},
    .attrs = (const attr[]){WINDOW_ATTRS, SIZE_ATTR, {0}},
    .attrs_bytes = sizeof(window_attrs),
    .infer = window_regions_infer,
    .cost = no_flops,
    .cpu = window_regions_cpu,
    .cases = (const op_case[]){{"{window: 3, shift: 1, size: [2, 5, 7]}", "", 0},
                               {"{window: [2, 3, 4], shift: [1, 2, 3], size: 1..9}", "", 0},
                               {0}},
};
