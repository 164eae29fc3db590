#include "ops/kernels/broadcast.h"

#include "ops/arithmetic/vector_math.h"

#include <string.h>

enum { MAX_OPERANDS = 2 };

bool broadcast_shapes(const shape *a, const shape *b, shape *out) {
  const shape *longer = a->rank >= b->rank ? a : b, *shorter = longer == a ? b : a;
  *out = *longer;
  int ahead = longer->rank - shorter->rank;
  for (int i = 0; i < shorter->rank; i++) {
    int64_t extent = shorter->dim[i], *common = &out->dim[i + ahead];
    if (*common == 1)
      *common = extent;
    else if (extent != 1 && extent != *common)
      return false;
  }
  return true;
}

bool broadcasts_to(const shape *small, const shape *whole) {
  shape common;
  return broadcast_shapes(small, whole, &common) && shape_equal(&common, whole);
}

const attr broadcast_attr_list[] = {
    {"broadcast", ATTR_BOOL, offsetof(broadcast_attrs, broadcast), "false", 0, 0, NULL, 0,
     "repeat values to a common shape"},
    {0},
};

status infer_broadcast(infer *rule) {
  const broadcast_attrs *attrs = rule->attrs;
  shape common = rule->in[0].shape;
  for (int i = 1; i < rule->in_count; i++) {
    shape so_far = common;
    const shape *x = &rule->in[i].shape;
    char before[96], here[96];
    bool fits = broadcast_shapes(&so_far, x, &common);
    if (!attrs->broadcast && !shape_equal(&so_far, x))
      return shape_error("the inputs must have one shape, but input 1 is %s and input %d is %s%s",
                         shape_format(before, &so_far), i + 1, shape_format(here, x),
                         fits ? " (broadcast: true repeats the smaller one)" : "");
    if (!fits)
      return shape_error("only axes of extent 1 are repeated: input %d is %s, and those before it "
                         "%s",
                         i + 1, shape_format(here, x), shape_format(before, &so_far));
  }
  rule->out[0].shape = common;
  return OK;
}

/* Axes of the whole, outermost first, merged where all operands allow it. */
typedef struct layout {
  int rank; /* at least 1 */
  int64_t extent[MAX_DIMS];
  int64_t step[MAX_OPERANDS][MAX_DIMS]; /* floats from index to index; 0 repeats */
} layout;

static layout layout_of(const shape *whole, const shape *const *operands, int count) {
  int64_t next[MAX_OPERANDS];
  for (int k = 0; k < count; k++) next[k] = 1;
  layout inner_first = {.rank = 0};
  for (int axis = whole->rank - 1; axis >= 0; axis--) {
    int64_t extent = whole->dim[axis], step[MAX_OPERANDS];
    if (extent == 1) continue;
    for (int k = 0; k < count; k++) {
      int own = axis - (whole->rank - operands[k]->rank);
      bool moves = own >= 0 && operands[k]->dim[own] == extent;
      step[k] = moves ? next[k] : 0;
      if (moves) next[k] *= extent;
    }
    int last = inner_first.rank - 1;
    bool merges = last >= 0;
    for (int k = 0; merges && k < count; k++)
      merges = step[k] == inner_first.step[k][last] * inner_first.extent[last];
    if (merges) {
      inner_first.extent[last] *= extent;
    } else {
      inner_first.extent[inner_first.rank] = extent;
      for (int k = 0; k < count; k++) inner_first.step[k][inner_first.rank] = step[k];
      inner_first.rank++;
    }
  }
  if (inner_first.rank == 0) inner_first = (layout){.rank = 1, .extent = {1}};
  layout l = {.rank = inner_first.rank};
  for (int i = 0; i < l.rank; i++) {
    l.extent[i] = inner_first.extent[l.rank - 1 - i];
    for (int k = 0; k < count; k++) l.step[k][i] = inner_first.step[k][l.rank - 1 - i];
  }
  return l;
}

/* ---- element by element --------------------------------------------------------------------- */

void broadcast_apply(broadcast_kernel kernel, const shape *whole, span part, float *y,
                     const shape *x_shape, const float *x) {
  layout l = layout_of(whole, &x_shape, 1);
  int last = l.rank - 1;
  int64_t width = l.extent[last], step = l.step[0][last];
  /* Rows that follow one another along the axis above the last go to the kernel together. */
  int64_t together = last > 0 ? l.extent[last - 1] : 1;
  int64_t row_step = last > 0 ? l.step[0][last - 1] : 0;
  for (int64_t at = 0; at < part.count;) {
    int64_t index = part.first + at, column = index % width, row = index / width;
    int64_t left = part.count - at, inner = row % together, rest = row / together;
    int64_t offset = inner * row_step + column * step;
    for (int a = last - 2; a >= 0; a--) {
      offset += rest % l.extent[a] * l.step[0][a];
      rest /= l.extent[a];
    }
    int64_t rows = 1, columns = width - column < left ? width - column : left;
    if (column == 0 && left >= width) {
      rows = left / width < together - inner ? left / width : together - inner;
      columns = width;
    }
    kernel(y + at, x + offset, rows, columns, row_step, step);
    at += rows * columns;
  }
}

FOR_EACH_ISA void broadcast_copy(float *y, const float *x, int64_t rows, int64_t width,
                                 int64_t row_step, int64_t step) {
  for (int64_t r = 0; r < rows; r++, y += width, x += row_step)
    if (step)
      for (int64_t i = 0; i < width; i++) y[i] = x[i];
    else
      for (int64_t i = 0; i < width; i++) y[i] = x[0];
}

FOR_EACH_ISA void broadcast_multiply(float *y, const float *x, int64_t rows, int64_t width,
                                     int64_t row_step, int64_t step) {
  for (int64_t r = 0; r < rows; r++, y += width, x += row_step)
    if (step) {
      ELEMENTWISE
      for (int64_t i = 0; i < width; i++) y[i] *= x[i];
    } else {
      float factor = x[0];
      for (int64_t i = 0; i < width; i++) y[i] *= factor;
    }
}

/* ---- sums ------------------------------------------------------------------------------------ */

enum { OUT, FACTOR };
/* Sums that go to few places are cut along what is added, each task with partial results of its
 * own; sums to many places are cut along the places. */
enum { MANY_PLACES = 1 << 14, MAX_PARTIALS = 64, MAX_SHARES = 256 };

typedef struct partition {
  layout l;
  int axis; /* that is cut */
  int64_t tasks;
  bool partial;
} partition;

static partition partition_of(const shape *whole, const shape *factor, const shape *out) {
  const shape *operands[] = {out, factor ? factor : &(shape){.rank = 0}};
  partition p = {.l = layout_of(whole, operands, 2)};
  int64_t places = shape_elements(out);
  p.partial = places < MANY_PLACES;
  int64_t longest = 0;
  for (int a = 0; a < p.l.rank; a++)
    if ((p.l.step[OUT][a] == 0) == p.partial && p.l.extent[a] > longest) {
      longest = p.l.extent[a];
      p.axis = a;
    }
  int64_t tasks = chunk_count(shape_elements(whole)), most = p.partial ? MAX_PARTIALS : MAX_SHARES;
  if (tasks > most) tasks = most;
  if (tasks > longest) tasks = longest;
  p.tasks = tasks > 0 ? tasks : 1;
  return p;
}

/* The cut may lie elsewhere when a factor keeps axes apart, but there are never more tasks. */
size_t broadcast_sum_workspace(const shape *whole, const shape *out) {
  int64_t places = shape_elements(out), tasks = chunk_count(shape_elements(whole));
  if (places >= MANY_PLACES) return 0;
  return (size_t)(tasks < MAX_PARTIALS ? tasks : MAX_PARTIALS) * (size_t)places * sizeof(float);
}

typedef struct block {
  int64_t rows, width;
  int64_t x_row, factor_row, out_row; /* floats from row to row */
  int64_t factor_step, out_step;      /* from column to column: 0 or 1 */
} block;

/* out += Σ x · factor. */
FOR_EACH_ISA static void sum_block(float *restrict out, const float *restrict x,
                                   const float *restrict factor, const block *b) {
  int64_t width = b->width;
  for (int64_t r = 0; r < b->rows; r++, x += b->x_row, factor += b->factor_row, out += b->out_row) {
    if (b->out_step) {
      if (b->factor_step)
        for (int64_t i = 0; i < width; i++) out[i] += x[i] * factor[i];
      else
        for (int64_t i = 0; i < width; i++) out[i] += x[i] * factor[0];
      continue;
    }
    float lanes[LANES] = {0};
    int64_t i = 0;
    if (b->factor_step) {
      for (; i + LANES <= width; i += LANES)
        for (int l = 0; l < LANES; l++) lanes[l] += x[i + l] * factor[i + l];
      for (int l = 0; i < width; i++, l++) lanes[l] += x[i] * factor[i];
    } else {
      for (; i + LANES <= width; i += LANES)
        for (int l = 0; l < LANES; l++) lanes[l] += x[i + l] * factor[0];
      for (int l = 0; i < width; i++, l++) lanes[l] += x[i] * factor[0];
    }
    out[0] += (float)lanes_total(lanes);
  }
}

typedef struct sum_job {
  partition p;
  const float *x, *factor;
  float *out, *partials;
  int64_t places;
} sum_job;

static const float one = 1;

static void sum_task(void *context, int64_t task) {
  const sum_job *job = context;
  const layout *l = &job->p.l;
  int64_t first[MAX_DIMS], end[MAX_DIMS], index[MAX_DIMS], x_step[MAX_DIMS];
  int last = l->rank - 1;
  x_step[last] = 1;
  for (int a = last - 1; a >= 0; a--) x_step[a] = x_step[a + 1] * l->extent[a + 1];
  for (int a = 0; a <= last; a++) {
    bool cut = a == job->p.axis;
    first[a] = cut ? l->extent[a] * task / job->p.tasks : 0;
    end[a] = cut ? l->extent[a] * (task + 1) / job->p.tasks : l->extent[a];
    index[a] = first[a];
  }
  float *out = job->out;
  if (job->p.partial) {
    out = job->partials + task * job->places;
    memset(out, 0, (size_t)job->places * sizeof *out);
  }
  int outer = last > 0 ? last - 1 : 0; /* axes above the block's rows */
  block b = {.rows = last > 0 ? end[last - 1] - first[last - 1] : 1,
             .width = end[last] - first[last],
             .x_row = last > 0 ? x_step[last - 1] : 0,
             .factor_row = last > 0 ? l->step[FACTOR][last - 1] : 0,
             .out_row = last > 0 ? l->step[OUT][last - 1] : 0,
             .factor_step = l->step[FACTOR][last],
             .out_step = l->step[OUT][last]};
  for (;;) {
    int64_t x_at = 0, factor_at = 0, out_at = 0;
    for (int a = 0; a <= last; a++) {
      x_at += index[a] * x_step[a];
      factor_at += index[a] * l->step[FACTOR][a];
      out_at += index[a] * l->step[OUT][a];
    }
    sum_block(out + out_at, job->x + x_at, job->factor + factor_at, &b);
    int a = outer - 1;
    for (; a >= 0 && ++index[a] == end[a]; a--) index[a] = first[a];
    if (a < 0) return;
  }
}

void broadcast_sum(const shape *whole, const float *x, const shape *factor_shape,
                   const float *factor, const shape *out_shape, float *out, void *workspace,
                   thread_pool *pool) {
  sum_job job = {.p = partition_of(whole, factor ? factor_shape : NULL, out_shape),
                 .x = x,
                 .factor = factor ? factor : &one,
                 .out = out,
                 .partials = workspace,
                 .places = shape_elements(out_shape)};
  memset(out, 0, (size_t)job.places * sizeof *out);
  parallel_for(pool, job.p.tasks, sum_task, &job);
  for (int64_t t = 0; job.p.partial && t < job.p.tasks; t++)
    for (int64_t k = 0; k < job.places; k++) out[k] += job.partials[t * job.places + k];
}
