#include "device/cuda/cudnn_plans.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

#if !__has_include(<cudnn.h>)

cudnn_plans *cudnn_plans_open(const char *, const char *, void *, char why[CUDNN_WHY_BYTES]) {
  snprintf(why, CUDNN_WHY_BYTES, "the plug-in was built without cuDNN's headers");
  return nullptr;
}
void cudnn_plans_close(cudnn_plans *) {}
int cudnn_plans_version(const cudnn_plans *) {
  return 0;
}
const cudnn_plan *cudnn_plan_find(cudnn_plans *, const convolution *) {
  return nullptr;
}
size_t cudnn_plan_workspace(const cudnn_plan *) {
  return 0;
}
int64_t cudnn_plan_notes(const cudnn_plan *) {
  return 0;
}
bool cudnn_plan_run(cudnn_plans *, const cudnn_plan *, const void *, const void *, const void *,
                    void *, char[CUDNN_WHY_BYTES]) {
  return false;
}

#else

/* Handles as attributes are deprecated in favour of device properties, with which a plan can be made
 * but, short of writing it to JSON and reading it again, not run. */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#ifdef __CUDACC__
#pragma nv_diag_suppress 1444
#endif

#include <cudnn.h>
#include <dlfcn.h>

/* The oldest version that plans from device properties. */
enum { OLDEST = 90800 };
/* Bytes of workspace that an engine may ask for: scratch memory is kept as large as the largest. */
static const int64_t MOST_WORKSPACE = (int64_t)512 << 20;

struct cudnn_plan {
  convolution key;
  cudnnBackendDescriptor_t plan; /* NULL: there is none */
  int64_t workspace, notes;
  cudnn_plan *next;
};

#define CUDNN_FUNCTIONS(each)                                                                      \
  each(cudnnGetVersion) each(cudnnGetErrorString) each(cudnnCreate) each(cudnnDestroy)             \
      each(cudnnSetStream) each(cudnnBackendCreateDescriptor) each(cudnnBackendDestroyDescriptor)  \
          each(cudnnBackendFinalize) each(cudnnBackendSetAttribute) each(cudnnBackendGetAttribute) \
              each(cudnnBackendExecute)

struct cudnn_plans {
  void *library;
#define MEMBER(name) decltype(&::name) name;
  CUDNN_FUNCTIONS(MEMBER)
#undef MEMBER
  cudnnHandle_t handle;          /* NULL when planning without a GPU */
  cudnnBackendDescriptor_t card; /* NULL with one */
  cudnn_plan *plans;
};

/* ---- descriptors --------------------------------------------------------------------------------- */

/* What has been made for one plan, and the first thing that failed. */
struct workshop {
  cudnn_plans *p;
  cudnnBackendDescriptor_t made[256];
  int count;
  cudnnStatus_t failed;
};

static cudnnBackendDescriptor_t make(workshop *w, cudnnBackendDescriptorType_t type) {
  cudnnBackendDescriptor_t d = nullptr;
  if (w->failed != CUDNN_STATUS_SUCCESS) return nullptr;
  if (w->count == (int)(sizeof w->made / sizeof *w->made))
    w->failed = CUDNN_STATUS_NOT_SUPPORTED;
  else
    w->failed = w->p->cudnnBackendCreateDescriptor(type, &d);
  if (w->failed == CUDNN_STATUS_SUCCESS) w->made[w->count++] = d;
  return d;
}

static void forget_from(workshop *w, int first) {
  while (w->count > first) w->p->cudnnBackendDestroyDescriptor(w->made[--w->count]);
}

static void set(workshop *w, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                cudnnBackendAttributeType_t type, int64_t count, const void *values) {
  if (w->failed == CUDNN_STATUS_SUCCESS)
    w->failed = w->p->cudnnBackendSetAttribute(d, name, type, count, values);
}

static void set_integer(workshop *w, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                        int64_t value) {
  set(w, d, name, CUDNN_TYPE_INT64, 1, &value);
}

static void set_part(workshop *w, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                     cudnnBackendDescriptor_t part) {
  set(w, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &part);
}

static void finalize(workshop *w, cudnnBackendDescriptor_t d) {
  if (w->failed == CUDNN_STATUS_SUCCESS) w->failed = w->p->cudnnBackendFinalize(d);
}

/* ---- the graph of a convolution -------------------------------------------------------------------- */

enum { IMAGE_ID = 1, FILTER_ID, RESULT_ID, SUMS_ID };

/* batch (or features) × channels × x × y × z for cuDNN; channels lie innermost. */
static cudnnBackendDescriptor_t make_tensor(workshop *w, int64_t id, cudnnDataType_t type,
                                            int64_t first, const int64_t extent[3],
                                            int64_t channels, bool is_virtual) {
  int64_t row = extent[2] * channels, plane = extent[1] * row;
  int64_t dim[5] = {first, channels, extent[0], extent[1], extent[2]};
  int64_t stride[5] = {extent[0] * plane, 1, plane, row, channels};
  cudnnBackendDescriptor_t d = make(w, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  set(w, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
  set(w, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 5, dim);
  set(w, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 5, stride);
  set_integer(w, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, id);
  set_integer(w, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 16);
  set(w, d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
  finalize(w, d);
  return d;
}

/* `id` of the operand that a pass computes. */
static int64_t computed_by(int64_t pass) {
  return pass == CONVOLUTION_FORWARD         ? RESULT_ID
         : pass == CONVOLUTION_BACKWARD_DATA ? IMAGE_ID
                                             : FILTER_ID;
}

static cudnnBackendDescriptor_t make_operand(workshop *w, const convolution *c, int64_t id,
                                             int64_t named, bool is_virtual) {
  bool rounded = c->bf16 && id != computed_by(c->pass);
  cudnnDataType_t type = rounded ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
  if (id == IMAGE_ID)
    return make_tensor(w, named, type, c->batch, c->image, c->channels, is_virtual);
  if (id == RESULT_ID)
    return make_tensor(w, named, type, c->batch, c->out, c->features, is_virtual);
  return make_tensor(w, named, type, c->features, c->kernel, c->channels / c->groups, is_virtual);
}

static cudnnBackendDescriptor_t make_window(workshop *w, const convolution *c) {
  cudnnDataType_t sums = CUDNN_DATA_FLOAT;
  cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
  cudnnBackendDescriptor_t d = make(w, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  set(w, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &sums);
  set(w, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
  set_integer(w, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, 3);
  set(w, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 3, c->padding);
  set(w, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 3, c->padding);
  set(w, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 3, c->dilation);
  set(w, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 3, c->stride);
  finalize(w, d);
  return d;
}

/* The names that cuDNN has for the same things in each pass. */
struct pass_names {
  cudnnBackendDescriptorType_t operation;
  cudnnBackendAttributeName_t image, filter, result, window, alpha, beta;
};

static const pass_names names[] = {
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA}};

/* `computed` takes the place of the operand that the pass computes. */
static cudnnBackendDescriptor_t make_convolution(workshop *w, const convolution *c,
                                                 cudnnBackendDescriptor_t computed) {
  const pass_names *n = &names[c->pass];
  int64_t own = computed_by(c->pass);
  float one = 1, zero = 0;
  const int64_t ids[3] = {IMAGE_ID, FILTER_ID, RESULT_ID};
  const cudnnBackendAttributeName_t places[3] = {n->image, n->filter, n->result};
  cudnnBackendDescriptor_t window = make_window(w, c), operands[3];
  for (int i = 0; i < 3; i++)
    operands[i] = ids[i] == own ? computed : make_operand(w, c, ids[i], ids[i], false);
  cudnnBackendDescriptor_t d = make(w, n->operation);
  for (int i = 0; i < 3; i++) set_part(w, d, places[i], operands[i]);
  set_part(w, d, n->window, window);
  set(w, d, n->alpha, CUDNN_TYPE_FLOAT, 1, &one);
  set(w, d, n->beta, CUDNN_TYPE_FLOAT, 1, &zero);
  finalize(w, d);
  return d;
}

static cudnnBackendDescriptor_t make_copy(workshop *w, cudnnBackendDescriptor_t from,
                                          cudnnBackendDescriptor_t to) {
  cudnnPointwiseMode_t mode = CUDNN_POINTWISE_IDENTITY;
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  cudnnBackendDescriptor_t kind = make(w, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  set(w, kind, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
  set(w, kind, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &type);
  finalize(w, kind);
  cudnnBackendDescriptor_t d = make(w, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  set_part(w, d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, kind);
  set_part(w, d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, from);
  set_part(w, d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, to);
  finalize(w, d);
  return d;
}

/* The convolution alone; in bf16 one whose f32 sums a copy takes to memory, which is how cuDNN's engines
 * leave them unrounded. */
static cudnnBackendDescriptor_t make_graph(workshop *w, const convolution *c) {
  bool through_sums = c->bf16 != 0;
  int64_t own = computed_by(c->pass);
  cudnnBackendDescriptor_t to = make_operand(w, c, own, own, false), operations[2];
  cudnnBackendDescriptor_t sums = through_sums ? make_operand(w, c, own, SUMS_ID, true) : to;
  operations[0] = make_convolution(w, c, sums);
  operations[1] = through_sums ? make_copy(w, sums, to) : nullptr;
  cudnnBackendDescriptor_t d = make(w, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  set(w, d, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, through_sums ? 2 : 1,
      operations);
  if (w->p->handle)
    set(w, d, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &w->p->handle);
  finalize(w, d);
  return d;
}

/* ---- choosing an engine ------------------------------------------------------------------------------ */

/* `rounds`: on tensor cores, which for f32 are those of tf32. An engine that converts its operands
 * (DOWN_CONVERT_INPUTS) may do so to 16 bits of another range and is not taken. */
static bool may_be_taken(workshop *w, cudnnBackendDescriptor_t configuration, bool rounds,
                         int64_t *notes_taken) {
  int first = w->count;
  int64_t count = 0;
  cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
  cudnnBackendDescriptor_t engine = make(w, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  if (w->failed == CUDNN_STATUS_SUCCESS)
    w->failed = w->p->cudnnBackendGetAttribute(configuration, CUDNN_ATTR_ENGINECFG_ENGINE,
                                               CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &engine);
  if (w->failed == CUDNN_STATUS_SUCCESS)
    w->failed = w->p->cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                               CUDNN_TYPE_NUMERICAL_NOTE,
                                               CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes);
  bool taken = w->failed == CUDNN_STATUS_SUCCESS;
  *notes_taken = 0;
  for (int64_t i = 0; taken && i < count; i++) {
    *notes_taken |= (int64_t)1 << notes[i];
    taken = notes[i] == CUDNN_NUMERICAL_NOTE_STRICT_NAN_PROP ||
            (rounds && notes[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE);
  }
  forget_from(w, first);
  return taken;
}

/* Leaves the plan as the workshop's last descriptor; NULL when the engine refuses or wants too much. */
static cudnnBackendDescriptor_t make_plan(workshop *w, cudnnBackendDescriptor_t configuration,
                                          int64_t *workspace) {
  int first = w->count;
  int64_t count = 0;
  cudnnBackendDescriptor_t d = make(w, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
  set_part(w, d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configuration);
  if (w->p->handle)
    set(w, d, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &w->p->handle);
  else
    set_part(w, d, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, w->p->card);
  finalize(w, d);
  if (w->failed == CUDNN_STATUS_SUCCESS)
    w->failed = w->p->cudnnBackendGetAttribute(d, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                               CUDNN_TYPE_INT64, 1, &count, workspace);
  if (w->failed == CUDNN_STATUS_SUCCESS && *workspace <= MOST_WORKSPACE) return d;
  w->failed = CUDNN_STATUS_SUCCESS; /* the next engine may do better */
  forget_from(w, first);
  return nullptr;
}

/* Looks through what the heuristic offers, best first. */
static cudnnBackendDescriptor_t choose(workshop *w, const convolution *c,
                                       cudnnBackendHeurMode_t mode, int64_t *workspace,
                                       int64_t *notes) {
  enum { OFFERS = 64 };
  cudnnBackendDescriptor_t offers[OFFERS], found = nullptr;
  int64_t count = 0;
  cudnnBackendDescriptor_t graph = make_graph(w, c);
  cudnnBackendDescriptor_t d = make(w, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  set_part(w, d, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
  set(w, d, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
  if (w->p->card) set_part(w, d, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, w->p->card);
  finalize(w, d);
  for (int i = 0; i < OFFERS; i++) offers[i] = make(w, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
  if (w->failed == CUDNN_STATUS_SUCCESS)
    w->failed = w->p->cudnnBackendGetAttribute(
        d, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, OFFERS, &count, offers);
  if (w->failed != CUDNN_STATUS_SUCCESS) count = 0; /* the graph is none that cuDNN knows */
  for (int64_t i = 0; i < count && i < OFFERS && !found; i++)
    if (may_be_taken(w, offers[i], c->bf16 || c->tf32, notes))
      found = make_plan(w, offers[i], workspace);
  return found;
}

/* In bf16, engines with f32 results are compiled when they are planned, which takes seconds, and those
 * of the fallback heuristic minutes: our own kernels are the fallback there. */
static cudnnBackendDescriptor_t plan_convolution(cudnn_plans *p, const convolution *c,
                                                 int64_t *workspace, int64_t *notes) {
  static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
  cudnnBackendDescriptor_t found = nullptr;
  for (int m = 0; m < (c->bf16 ? 1 : 2) && !found; m++) {
    workshop w = {};
    w.p = p;
    w.failed = CUDNN_STATUS_SUCCESS;
    found = choose(&w, c, modes[m], workspace, notes);
    if (found) w.count--; /* the plan stays; the rest is only for making it */
    forget_from(&w, 0);
  }
  return found;
}

const cudnn_plan *cudnn_plan_find(cudnn_plans *p, const convolution *c) {
  for (cudnn_plan *k = p->plans; k; k = k->next)
    if (memcmp(&k->key, c, sizeof *c) == 0) return k->plan ? k : nullptr;
  cudnn_plan *k = (cudnn_plan *)calloc(1, sizeof *k);
  if (!k) return nullptr;
  k->key = *c;
  k->plan = plan_convolution(p, c, &k->workspace, &k->notes);
  k->next = p->plans;
  p->plans = k;
  return k->plan ? k : nullptr;
}

size_t cudnn_plan_workspace(const cudnn_plan *plan) {
  return (size_t)plan->workspace;
}
int64_t cudnn_plan_notes(const cudnn_plan *plan) {
  return plan->notes;
}

bool cudnn_plan_run(cudnn_plans *p, const cudnn_plan *plan, const void *image, const void *filter,
                    const void *result, void *workspace, char why[CUDNN_WHY_BYTES]) {
  workshop w = {};
  w.p = p;
  w.failed = CUDNN_STATUS_SUCCESS;
  const int64_t ids[3] = {IMAGE_ID, FILTER_ID, RESULT_ID};
  const void *at[3] = {image, filter, result};
  cudnnBackendDescriptor_t pack = make(&w, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  set(&w, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 3, ids);
  set(&w, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 3, at);
  set(&w, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
  finalize(&w, pack);
  if (w.failed == CUDNN_STATUS_SUCCESS)
    w.failed = p->cudnnBackendExecute(p->handle, plan->plan, pack);
  forget_from(&w, 0);
  if (w.failed == CUDNN_STATUS_SUCCESS) return true;
  snprintf(why, CUDNN_WHY_BYTES, "%s", p->cudnnGetErrorString(w.failed));
  return false;
}

/* ---- the library ------------------------------------------------------------------------------------- */

static bool load(cudnn_plans *p, const char *file, char why[CUDNN_WHY_BYTES]) {
  p->library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (!p->library) {
    snprintf(why, CUDNN_WHY_BYTES, "%s", dlerror());
    return false;
  }
  const char *missing = nullptr;
#define LOAD(name)                                                                                 \
  *(void **)&p->name = dlsym(p->library, #name);                                                   \
  if (!p->name) missing = #name;
  CUDNN_FUNCTIONS(LOAD)
#undef LOAD
  if (missing)
    snprintf(why, CUDNN_WHY_BYTES, "%s has no %s", file, missing);
  else if (p->cudnnGetVersion() < OLDEST || p->cudnnGetVersion() >= 100000)
    snprintf(why, CUDNN_WHY_BYTES, "%s is version %d; 9.8 or a later 9 is needed", file,
             cudnn_plans_version(p));
  else
    return true;
  return false;
}

static cudnnStatus_t open_card(cudnn_plans *p, const char *card, void *stream) {
  cudnnStatus_t code;
  if (!card) {
    code = p->cudnnCreate(&p->handle);
    return code == CUDNN_STATUS_SUCCESS ? p->cudnnSetStream(p->handle, (cudaStream_t)stream) : code;
  }
  code = p->cudnnBackendCreateDescriptor(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &p->card);
  if (code == CUDNN_STATUS_SUCCESS)
    code = p->cudnnBackendSetAttribute(p->card, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                       CUDNN_TYPE_CHAR, (int64_t)strlen(card) + 1, card);
  return code == CUDNN_STATUS_SUCCESS ? p->cudnnBackendFinalize(p->card) : code;
}

cudnn_plans *cudnn_plans_open(const char *file, const char *card, void *stream,
                              char why[CUDNN_WHY_BYTES]) {
  cudnn_plans *p = (cudnn_plans *)calloc(1, sizeof *p);
  snprintf(why, CUDNN_WHY_BYTES, "out of memory");
  if (!p) return nullptr;
  if (load(p, file, why)) {
    cudnnStatus_t code = open_card(p, card, stream);
    if (code == CUDNN_STATUS_SUCCESS) return p;
    snprintf(why, CUDNN_WHY_BYTES, "%s: %s", file, p->cudnnGetErrorString(code));
  }
  cudnn_plans_close(p);
  return nullptr;
}

void cudnn_plans_close(cudnn_plans *p) {
  if (!p) return;
  while (p->plans) {
    cudnn_plan *k = p->plans;
    p->plans = k->next;
    if (k->plan) p->cudnnBackendDestroyDescriptor(k->plan);
    free(k);
  }
  if (p->card) p->cudnnBackendDestroyDescriptor(p->card);
  if (p->handle) p->cudnnDestroy(p->handle);
  if (p->library) dlclose(p->library);
  free(p);
}

int cudnn_plans_version(const cudnn_plans *p) {
  return (int)p->cudnnGetVersion();
}

#endif
