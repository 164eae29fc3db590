/* A compiled step graph: bound kernels in order, one arena, no allocation while it runs. */
#ifndef STRATA_EXECUTE_PROGRAM_H
#define STRATA_EXECUTE_PROGRAM_H

#include "execute/parameters.h"
#include "plan/plan.h"

typedef struct optimizer_use {
  const op *op;       /* NULL: the program does not train */
  void *attrs;        /* borrowed; read at every step, so schedules may change it */
  double clip_norm;   /* global L2 norm; 0 = no clipping */
  double clip_value;  /* of every element, before the norm; 0 = no clipping */
  int64_t accumulate; /* parts of an update at most; 0 or 1: one */
  /* One per group of the parameters, NULL where nothing differs; NULL: for no group. Borrowed. */
  const struct group_spec *const *groups;
  double average_decay; /* of the averaged weights; 0: no average */
  bool average_warmup;
  /* Each parameter is updated as soon as its gradient is complete, whose memory is then free: no
   * gradient can be read after a run. Not with clip_norm or accumulate, which need all of them. */
  bool consume_gradients;
} optimizer_use;

typedef struct program {
  graph *g; /* borrowed */
  device *device;
  parameters *parameters; /* borrowed */
  plan plan;
  void *arena;
  struct bound_call *calls;
  int call_count;
  int update_first;       /* the first of the calls that clip and update */
  struct updates *update; /* what changes between updates */
  float *gradients;       /* parameters->trained_elements, laid out as the parameters; NULL when
                             they are consumed */
  float *gradient_sum;    /* of the parts of an update so far; NULL when there is one part */
  float *average;         /* exponential moving average of the trained parameters; NULL: none */
  float **states;         /* optimizer moments, each trained_elements */
  int state_count;
  struct scheduled_numbers *scheduled; /* what changes from step to step, on the device */
  int32_t *step_number;                /* device, among them: 1 at the first update */
  int64_t updates;                     /* done so far */
  rng_key *rng_keys;                   /* device: one per sample of the batch */
  int64_t batch;
  float *gradient_norm;   /* device scalar; NULL without clipping */
  void *update_workspace; /* of the clipping */
  size_t update_workspace_bytes;
  /* The device's, of a step that gathers gradients for a later one, and of one that ends in an update
   * (or trains nothing: [0]); NULL: none. A step is recorded once it has_run. */
  void *recordings[2];
  bool has_run[2];
  size_t packing_bytes;    /* of the largest weight that is packed; 0: none is */
  bool consumes_gradients; /* updates stand between the nodes */
  double *profile_seconds; /* borrowed; NULL: off */
  arena memory;
} program;

/* Has the device a kernel for every node? An error at the YAML line of the first that lacks one. */
status program_check(const graph *g, const device *d);
/* A graph with packed nodes (graph_pack) has its parameters for itself. `keep`: values that will be
 * read after a run. `batch`: samples per step (random keys). */
status program_create(graph *g, device *d, parameters *p, const value_id *keep, int keep_count,
                      int64_t batch, const optimizer_use *optimizer, program *out);
void program_free(program *p);

/* Device memory of an input or kept value (arena or parameter). */
void *program_data(const program *p, value_id v);
status program_write(program *p, value_id v, const void *from); /* whole tensor, host → device */
/* The same for a tensor of class numbers (i32), which batches keep as bytes. */
status program_write_classes(program *p, value_id v, const uint8_t *from);
status program_read(program *p, value_id v, void *to);
/* Values (kept, f32) as they are after what has run so far, one behind the other; *note NULL: is made,
 * for the same values ever after. */
status program_note(program *p, const value_id *values, int count, void **note);
/* The random keys of the next run, one per sample of the batch. */
status program_set_keys(program *p, const rng_key *keys);
/* One step: forward, and for a training program backward, clipping and the update. */
status program_run(program *p);
/* Reads planes from … to − 1 along x of sample n, which lie at `data` during the call. */
typedef status (*program_reader)(void *context, int64_t n, int64_t from, int64_t to,
                                 const float *data);
/* program_run without an update, of which only v, a f32 volume N × X × Y × Z × C, is read, in the order
 * of n and x. Where the last node makes v plane by plane (op.by_plane), it makes a few planes at a
 * time, and v is never there as a whole. `room`: host memory for v where the device is not the host,
 * otherwise NULL. */
status program_run_by_planes(program *p, value_id v, float *room, program_reader read,
                             void *context);
/* Part `part` of `parts` of an update: after the last one the mean of all parts' gradients is used.
 * parts ≤ optimizer_use.accumulate. Between program_create and the last run, the attributes of nodes
 * change only where they are scheduled numbers (attr_is_scheduled): a device records the rest. */
status program_run_part(program *p, int64_t part, int64_t parts);
/* The same without waiting for its end. */
status program_start_part(program *p, int64_t part, int64_t parts);
/* Call by call through the forward nodes. After each, `visit` may ask for it to be run again, having
 * changed a parameter. */
typedef status (*program_visit)(void *context, program *p, const node *n, bool *again);
status program_run_forward(program *p, program_visit visit, void *context);
/* The averaged weights start as the present parameters. */
status program_start_average(program *p);
/* Exchanges averaged and trained weights; a second call puts them back. Nothing without average. */
status program_exchange_average(program *p);
/* Seconds spent in each call since the last reset, for `strata bench --profile`; NULL turns it off.
 */
void program_profile(program *p, double *seconds_per_call);
const node *program_call_node(const program *p, int call); /* NULL for the optimizer's calls */

#endif
