/* The operator contract. An operator is one place: one file under ops/<family>/ that declares
 *
 *     const op op_<name> = { ... };
 *
 * The build finds every such line and generates the registry from them. From the declaration follow
 * the YAML validation with did-you-mean, `strata ops`, the JSON Schema, the reference page, the
 * automatic gradient check and the memory and time estimates.
 *
 * There are three sorts, told apart by the callbacks an operator has:
 *   step operators   run inside the compiled step graph: `infer` and a kernel (`cpu`, later `cuda`),
 *                    and `grad` when a gradient flows through them
 *   composites       step operators with `lower` instead of a kernel: built from other operators
 *   host operators   run on a loader thread on one case: `host` (families "prepare" and "sample");
 *                    or on a segmentation, once it is whole: `labels` (family "postprocess")
 */
#ifndef STRATA_GRAPH_OP_H
#define STRATA_GRAPH_OP_H

#include "base/parallel.h"
#include "base/rng.h"
#include "base/status.h"
#include "graph/tensor.h"

/* ---- declaration ------------------------------------------------------------------------- */

typedef enum op_trait {
  OP_INTERNAL = 1 << 0,   /* made by the compiler (gradients); not nameable in YAML graphs */
  OP_VIEW = 1 << 1,       /* output 0 is input 0's memory under another shape; no kernel */
  OP_IN_PLACE = 1 << 2,   /* output 0 may share input 0's memory (same bytes, elementwise order) */
  OP_RANDOM = 1 << 3,     /* draws from call->rng_keys; declared so that runs stay reproducible */
  OP_LOSS = 1 << 4,       /* output 0 is a scalar to minimise */
  OP_OPTIMIZER = 1 << 5,  /* updates parameters; named under `optimizer:` */
  OP_TRAIN_ONLY = 1 << 6, /* identity (input 0 → output 0) outside training, e.g. dropout */
  OP_PREPARE = 1 << 7,    /* host operator of the prepare graph: deterministic */
  OP_SAMPLE = 1 << 8,     /* host operator of the sample graph: random */
  OP_INITIALIZER =
      1 << 9, /* how a stage's layers start: only `params` (in: the weight and the bias,
                              out: their specs); named under `initialize:` */
  OP_ACROSS_SAMPLES = 1 << 10, /* compares the samples of a batch, of which it needs several */
  OP_LAZY = 1 << 11,       /* host operator that looks at no voxel before host_own (data/host.h) */
  OP_CPU_ONLY = 1 << 12,   /* put in graphs for the CPU alone: other devices need no kernel of it */
  OP_POSTPROCESS = 1 << 13 /* changes a segmentation; named under `evaluate: postprocess:` */
} op_trait;

/* What graphs cannot name. */
enum {
  OP_NOT_IN_GRAPHS =
      OP_INTERNAL | OP_OPTIMIZER | OP_PREPARE | OP_SAMPLE | OP_INITIALIZER | OP_POSTPROCESS
};

typedef enum port_flag {
  PORT_OPTIONAL = 1 << 0, /* may be absent: VALUE_NONE at build time, data == NULL at run time */
  PORT_VARIADIC = 1 << 1, /* last input only: one or more values; the YAML input is a list */
  PORT_PARAM = 1 << 2,    /* learned: from YAML the value is created as parameter <node>.<port> */
  PORT_SAVED = 1 << 3,    /* output kept for the gradient only; not nameable in YAML */
  /* With PORT_PARAM: not learned but kept by the operator itself, such as running statistics. It is
   * created, saved, transferred and resumed like a parameter, and has no gradient. Its kernel
   * updates it where it lies; only in training graphs, so that validation and inference read it. */
  PORT_STATE = 1 << 4,
  PORT_OF_ITEM = 1 << 5, /* with PORT_PARAM: the parameter is called <node>, without the port */
  /* What graph/storage.h has to know: what of an input the result depends on, and which outputs can be
   * written as bf16. */
  PORT_ROUNDED = 1 << 6,  /* where products are in bf16, on this input rounded to bf16 alone */
  PORT_SIGN = 1 << 7,     /* on whether each number is positive alone */
  PORT_CARRIED = 1 << 8,  /* its numbers come out in output 0 as they are, among others or moved */
  PORT_STORABLE = 1 << 9, /* output: the kernels of a device that stores bf16 can write it so, and
                             those that read one of the three above can read it so */
  PORT_OR_REGIONS = 1 << 10, /* class numbers (DTYPE_I32), or sets of regions (DTYPE_REGIONS) */
} port_flag;

typedef struct port {
  const char *name; /* NULL ends a port list */
  const char *axes; /* for people: "N X Y Z C", "N T C", "scalar" */
  dtype dtype;
  unsigned flags;
  const char *doc;
} port;

/* How an attribute is written in YAML and stored in the operator's attribute struct. */
typedef enum attr_kind {
  ATTR_BOOL,   /* bool      true | false */
  ATTR_INT,    /* int64_t */
  ATTR_FLOAT,  /* double */
  ATTR_CHOICE, /* int       index into `choices` */
  ATTR_STRING, /* const char * (lives as long as the pipeline) */
  ATTR_INT3,   /* int64_t[3]  [x, y, z], or one number for all three */
  ATTR_FLOAT3, /* double[3]   [x, y, z], or one number for all three */
  ATTR_RANGE,  /* double[2]   [low, high], low ≤ high */
  ATTR_AXES,   /* unsigned    subset of x, y, z as bits 1, 2, 4: "z" or [x, y] */
  ATTR_INTS,   /* int_list */
  ATTR_FLOATS  /* float_list */
} attr_kind;

enum { LIST_MAX = 256 };
typedef struct int_list {
  int count;
  int64_t at[LIST_MAX];
} int_list;
typedef struct float_list {
  int count;
  double at[LIST_MAX];
} float_list;

typedef enum attr_flag {
  ATTR_SCHEDULABLE = 1 << 0, /* a number the run may change between steps (Lua, schedules) */
  ATTR_TRAINING = 1 << 1     /* a number (ATTR_FLOAT) that is 0 outside training: dropout inside an
                                operator */
} attr_flag;

typedef struct attr {
  const char *name; /* NULL ends an attribute list */
  attr_kind kind;
  size_t offset; /* offsetof(struct <op>_attrs, field) */
  const char
      *fallback;   /* default, written as in YAML ("1", "[1, 1, 1]", "none"); NULL = required */
  double min, max; /* inclusive bounds of every number; both 0 = unbounded */
  const char *const *choices; /* ATTR_CHOICE: names, NULL-terminated */
  unsigned flags;
  const char *doc; /* one line; say units (mm, voxels) */
} attr;

/* ---- compile time: shapes, no data ------------------------------------------------------- */

typedef struct builder builder; /* graph/graph.h */
typedef int32_t value_id;
#define VALUE_NONE ((value_id)-1)

/* How a fresh parameter is filled. Named as in PyTorch. */
typedef enum init_kind {
  INIT_ZEROS,
  INIT_ONES,
  INIT_CONSTANT,         /* a */
  INIT_UNIFORM,          /* [-a, a] */
  INIT_NORMAL,           /* mean 0, sd a */
  INIT_TRUNCATED_NORMAL, /* mean 0, sd a, cut at ±2 (absolute, as torch.nn.init.trunc_normal_) */
  INIT_ORTHOGONAL,       /* rows orthonormal (columns where there are fewer), times a; a row is an
                            entry of the first axis */
} init_kind;

typedef struct param_spec {
  shape shape; /* rank −1: this parameter is absent (e.g. bias: false) */
  init_kind init;
  double a;
} param_spec;

/* Shape rule's view of a node. `in` has `in_count` entries in port order (variadic last);
 * an absent optional input has data-less shape.rank == −1. */
typedef struct infer {
  const void *attrs;
  const tensor *in; /* shapes and dtypes; data is NULL */
  int in_count;
  tensor *out; /* to fill: dtype is preset from the port, shape is not */
  bool training;
} infer;

/* One readable sentence, e.g. shape_error("size %lld does not divide z = %lld", ...). The builder
 * adds the operator's name, the node and its place in the YAML file. */
status shape_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Gradient rule's view: emit nodes with the builder, set dx. Called only when at least one dx is
 * wanted. dy[k] is VALUE_NONE when nothing depends on output k. `wanted[i]` says whether input i
 * needs a gradient; leave dx[i] VALUE_NONE where it does not. */
typedef struct grad {
  builder *b;
  const void *attrs;
  const value_id *in, *out;
  int in_count, out_count;
  const value_id *dy;
  const bool *wanted;
  value_id *dx;
} grad;

/* Composite's view: build nodes, set out. */
typedef struct lower {
  builder *b;
  const void *attrs;
  const value_id *in;
  int in_count;
  value_id *out;
} lower;

typedef struct cost {
  double flops;
  double bytes; /* read + written; 0 = let the engine add up the ports */
} cost;

/* ---- run time: no allocation, no validation, no globals ---------------------------------- */

typedef struct call {
  const void *attrs;
  const tensor *in;
  const tensor *out;
  int in_count, out_count;
  void *workspace; /* workspace_bytes() of it, 64-byte aligned, contents undefined */
  thread_pool *pool;
  const rng_key *rng_keys; /* OP_RANDOM: one per sample n of the batch */
  uint64_t node_id;        /* OP_RANDOM: rng_open(rng_keys[n], node_id) */
  /* Device memory: the scheduled attributes (attr_is_scheduled) in their order, as they are when the
   * call runs, which may be after `attrs` was read. NULL: they are those of `attrs`. */
  const double *scheduled;
} call;

/* How an operator's CPU kernel takes a weight that does not change from call to call: in the order in
 * which it is read, made once, instead of anew at every call. */
typedef struct op_packing {
  int input;   /* the weight's */
  size_t flag; /* offset of a bool in the attributes, which YAML does not know: it is packed */
  /* Of the packed form; 0: the kernel has nothing to gain. */
  size_t (*bytes)(const void *attrs, const tensor *in, int in_count, const tensor *out);
  /* Fills `to`, 64-byte aligned, from the weight as it was. */
  void (*pack)(const call *c, void *to);
} op_packing;

/* A CPU kernel that runs the next call, too: its tasks hand on what they have written while it is in the
 * cache, as to an activation behind a linear layer, or a norm behind a sum. Results are equal to the bit.
 * For calls of `next` that stand right behind, take output 0 for their input 0, and write nothing where
 * this one reads. */
typedef struct op_chain {
  const struct op *next;
  /* A part of the result needs the same part of each input alone: the next call's result may have the place
   * of an input. */
  bool by_part;
  status (*cpu)(const call *own, const call *next);
} op_chain;

/* A convolution whose CPU kernel can leave, beside its result, the moments of each channel of each sample:
 * mean and Σ(x − mean)² over the voxels, N × 2 × C. A norm behind it then need not read the result for
 * them. */
typedef struct op_moments {
  const struct op *with; /* the operator that makes them: a second output */
  bool (*fits)(const void *attrs, const tensor *in);
} op_moments;

/* ---- evidence ---------------------------------------------------------------------------- */

/* One case of the automatic checks. Both texts are YAML in which `a..b` stands for a random integer
 * and `a|b` for a random choice, drawn afresh for every trial; letters are drawn once per trial and
 * keep their value ("n=1..2" defines, "n" uses).
 *   attrs    "{kernel: 3, stride: 1|2}"
 *            A sample operator has nothing but these.
 *   inputs   one shape per input port, in order, PARAM ports left out (their shapes follow):
 *            "[1..2, 3..6, 3..6, 3..6, 1..9]", separated by "; ". An i32 input adds the range
 *            of its values: "[2, 4, 4, 4] in 0..3"; "in 0..7 sets" are sets of regions. An absent
 *            optional input is "-".
 *   tolerance  relative, of the gradient check; 0 = 2e-3. Of a sample operator: by how much of the
 *              largest value a device may round otherwise, as powers and sums do there; 0 = not at
 *              all */
typedef struct op_case {
  const char *attrs; /* NULL ends the list of cases */
  const char *inputs;
  double tolerance;
} op_case;

struct host_call;  /* data/host.h */
struct host_infer; /* data/host.h */
struct labels;     /* data/volume.h */

typedef struct op {
  const char *name, *family;
  const char *summary; /* one line */
  const char *doc;     /* definition and source (paper, formula); may be several lines */
  const char *torch;   /* the PyTorch/MONAI expression it equals; NULL where there is none */
  uint32_t version;    /* raise when results change: part of cache keys and of a run's identity */
  unsigned traits;
  const port *inputs, *outputs;
  const attr *attrs;
  size_t attrs_bytes;

  status (*infer)(infer *);
  /* Shapes and initialization of the PARAM ports, in port order, from the other inputs. `in` holds
   * the non-PARAM inputs in port order. */
  status (*params)(const void *attrs, const tensor *in, int in_count, param_spec *out);
  status (*lower)(lower *);
  status (*grad)(grad *);
  cost (*cost)(const void *attrs, const tensor *in, int in_count, const tensor *out);
  size_t (*workspace_bytes)(const void *attrs, const tensor *in, int in_count, const tensor *out,
                            int threads);
  status (*cpu)(const call *);
  /* Does plane x of output 0, of every sample, depend on plane x of input 0 alone, and on the other
   * inputs as a whole? Then a few planes at a time may be computed: the head of a network, whose
   * scores somebody reads while they are in the cache. NULL: no. */
  bool (*by_plane)(const void *attrs);
  const op_packing *packing;   /* NULL: none */
  const op_chain *chain;       /* NULL: there is no such operator */
  const op_moments *moments;   /* NULL: it leaves none */
  const struct op *of_moments; /* a norm: the operator that takes them instead, as last input */
  /* Whether a PORT_ROUNDED input is read as it is all the same. NULL: none is. */
  bool (*reads_exactly)(const void *attrs, const tensor *in, int in_count, int input);
  int state_buffers; /* OP_OPTIMIZER: flat f32 buffers of moments it keeps beside the parameters */

  status (*host)(struct host_call *);
  status (*host_infer)(struct host_infer *);
  /* Sample operators whose `host` draws and then says by host_change what is to be done: does it on
   * the host. The CUDA kernel of the operator's name does the same on a device. */
  status (*apply)(struct host_call *, const void *change);
  /* Postprocess operators: changes classes of a segmentation where they lie. Lists called `classes` and a
   * number called `replace` are classes of the data set. */
  status (*labels)(const void *attrs, struct labels *segmentation);

  const op_case *cases;
} op;

/* ---- registry (generated) ---------------------------------------------------------------- */

const op *op_find(const char *name);
int op_count(void);
const op *op_at(int index); /* sorted by family, then name */
/* Fills `attrs` (op->attrs_bytes) with the defaults; required attributes stay zero. */
void op_defaults(const op *o, void *attrs);
int port_count(const port *ports);
/* The number `attribute` in an attribute struct of `o`, to read or write by name; NULL when it has
 * no number (ATTR_FLOAT) of that name. */
double *attr_number(const op *o, void *attrs, const char *attribute);
/* The same for axes (ATTR_AXES): bits. */
unsigned *attr_axes(const op *o, void *attrs, const char *attribute);
/* The same for whole numbers (ATTR_INT). */
int64_t *attr_integer(const op *o, void *attrs, const char *attribute);
/* The same for lists of whole numbers (ATTR_INTS). */
int_list *attr_integers(const op *o, void *attrs, const char *attribute);
/* The same for choices (ATTR_CHOICE): the index. */
int *attr_choice(const op *o, void *attrs, const char *attribute);
/* Is it a number (ATTR_FLOAT, ATTR_INT) that the run may change between steps? */
bool attr_is_scheduled(const attr *a);
/* Its value in an attribute struct. */
double attr_scheduled_value(const attr *a, const void *attrs);

#endif
