/* A pipeline file, read, resolved and checked: everything that can be known without opening a
 * volume or building a graph. The graphs themselves (model and stage items) stay trees with their
 * scope; graph/expand.h turns them into nodes. Owned by one arena: pipeline_free frees everything.
 */
#ifndef STRATA_LANGUAGE_PIPELINE_H
#define STRATA_LANGUAGE_PIPELINE_H

#include "evaluate/metric.h"
#include "graph/precision.h"
#include "language/bundle.h"
#include "language/scope.h"

#define LOCK_FILE "pipeline.lock.yaml" /* of a run's folder: the pipeline, resolved */

/* An operator with its attributes, from a list of `- name: {attributes}` or `{name: {attributes}}`.
 */
typedef struct op_use {
  const op *op;
  void *attrs;
  source_pos at;
} op_use;

typedef enum dataset_layout {
  DATASET_DECATHLON, /* dataset.json with lists of files (also MONAI's) */
  DATASET_BTCV,      /* a folder with img/img*.nii.gz and label/label*.nii.gz */
  DATASET_NNUNET,    /* a folder with dataset.json and imagesTr/<case>_0000.nii.gz, labelsTr */
  DATASET_FILES      /* patterns; files belong together where * stands for the same */
} dataset_layout;
/* What `dataset:` calls them. NULL-terminated. */
extern const char *const dataset_layout_names[];

typedef enum split_kind {
  SPLIT_FRACTIONS, /* of the patients, dealt by the seed */
  SPLIT_FOLDS,     /* k-fold: one fold is the test role */
  SPLIT_NAMES,     /* lists of cases */
  SPLIT_LISTED     /* the roles are the lists of the data set's own json */
} split_kind;

typedef struct listed_case {
  const char *name;
  source_pos at; /* in the pipeline, or in the split file */
} listed_case;

/* Classes with a mean of their own (Synapse's 8 organs of 13), or scored as one: a region. */
typedef struct class_group {
  const char *name;
  int *classes;
  int count;
  int label; /* of `data: regions`: the class of voxels of which this is the last region */
  source_pos at;
} class_group;

typedef struct data_spec {
  dataset_layout layout;
  const char *dataset; /* path of dataset.json or of the folder; relative paths are resolved against
                          the pipeline file, or against data.root when that is given */
  source_pos dataset_at;
  const char **image_patterns; /* DATASET_FILES: one a channel, relative to `dataset` */
  int image_pattern_count;
  const char *label_pattern; /* NULL: no labels */
  const char **class_names;  /* DATASET_FILES: [0] = background */
  int class_count;
  int ignore_label; /* of voxels in label files whose class is unknown; 0: only what the data set's own
                       json says */
  /* What networks segment in place of classes; none: classes. Two of them have no class in common, or the
   * later one lies within the earlier one. */
  class_group *regions;
  int region_count;
  split_kind split_kind;
  double split[3]; /* train, validation, test: fractions adding up to 1. Folds: [1] of the rest.
                      Names: [1] of the cases that train lists */
  int64_t folds, fold;
  const listed_case *split_names[3];
  int split_name_count[3];
  source_pos split_at;
  bool has_split_seed; /* roles and kept labels by split_seed, not by the pipeline's seed */
  uint64_t split_seed;
  const char
      *patient; /* pattern whose part in parentheses names the patient; NULL: a case is one */
  double label_fraction; /* of the training cases; the others give their image only */
  op_use *prepare, *sample;
  int prepare_count, sample_count;
  int64_t crops_per_case; /* samples drawn from a case in an epoch */
  const char *cache;      /* folder of the prepare cache; NULL = <run dir>/../.strata-cache */
  bool no_cache;          /* `cache: none` */
  int64_t loader_threads; /* ≥ 1 */
  int64_t queue;          /* prepared batches waiting at most */
} data_spec;

/* A file that defines a graph with named inputs, parameters and outputs: a model or a block. */
typedef struct graph_file {
  const char *path;       /* interned */
  const tree *root;       /* unresolved: inputs, params, blocks, graph, outputs */
  const char *shipped_as; /* "pipelines/models/unetr.yaml"; NULL: it is the user's */
} graph_file;

typedef struct script_ref { /* a Lua function: `lua: warmup_cosine` or `lua: hooks/stop.lua` */
  const char *path;         /* resolved file */
  const char *source;       /* its text: part of the run's identity */
  const tree *arguments;    /* map of the other keys (warmup: 50), resolved; may be empty or NULL */
  source_pos at;            /* of the name in the pipeline file */
} script_ref;

/* When a stage calls a script (docs/lua.md). */
typedef enum stage_hook { HOOK_VALIDATION, HOOK_EPOCH_END, HOOK_STAGE_END, HOOK_COUNT } stage_hook;

typedef struct custom_metric { /* of a Lua script: `metrics: [{lua: fbeta}]` */
  metric_info info;            /* under the script's name, or what `name` gives */
  script_ref script;
} custom_metric;

typedef struct schedule_spec {
  const char *target; /* "lr", "loss.context.weight", "masked.ratio", "sample.random_blur.sd.1" */
  script_ref script;
  source_pos at;
} schedule_spec;

/* Parameters that the optimizer treats in a way of their own. */
enum { GROUP_NUMBERS_MAX = 8, LR_SCALE_MAX = 1000000, BATCH_MAX = 65536 };
typedef enum parameter_sort { PARAMETER_NORM = 1, PARAMETER_BIAS = 2 } parameter_sort;
typedef struct group_spec {
  source_pos at;
  const char **match; /* patterns of parameter names with * and ?; none: every name */
  source_pos *match_at;
  int match_count;
  unsigned of;      /* parameter_sort: of norms, biases; 0: any */
  bool is_no_decay; /* made by the stage's `no_decay` */
  double lr_scale;  /* factor of lr */
  struct {
    const char *name; /* attribute of the optimizer */
    double value;
  } numbers[GROUP_NUMBERS_MAX];
  int number_count;
} group_spec;

typedef struct stage_spec {
  const char *name; /* unique among stages */
  source_pos at;
  scope params;      /* the stage's own, above those of the file */
  const tree *graph; /* list of graph items, unresolved */
  const data_spec
      *data;       /* the pipeline's; a copy where the stage crops in a way of its own: with its
                            `sample`, or with numbers that schedules change */
  int64_t crop[3]; /* voxels of a sample: stages_infer_crops (data/dataset.h) */
  op_use optimizer;
  group_spec *groups; /* a parameter belongs to the first that it fits, or to none */
  int group_count;
  op_use initialize;   /* op NULL: layers start as the model says */
  double clip_norm;    /* global L2 norm of the gradients; 0 = no clipping */
  double clip_value;   /* of every element of the gradients; 0 = no clipping */
  int64_t accumulate;  /* batches in an update, ≥ 1 */
  double ema_decay;    /* of the averaged weights; 0: no average */
  bool ema_warmup;     /* average faster at first */
  precision precision; /* of products; f32, bf16 or tf32, not open */
  int64_t epochs, batch;
  bool use_labels;         /* place crops by the label although the graph reads none */
  int64_t steps_per_epoch; /* 0: every training case crops_per_case times */
  int64_t memory_bytes;    /* budget of a step (train/memory.h); 0: none */
  source_pos memory_at;
  double time_limit_s; /* 0: none. Not bit-reproducible; reported when it ends a stage */
  schedule_spec *schedules;
  int schedule_count;
  script_ref hooks[HOOK_COUNT]; /* path NULL: none */
  const char *init_from; /* name of an earlier stage, or a weight file; NULL: fresh weights */
  bool init_is_file;
  const char *init_key, *init_map; /* how a weight file is read (weights/import.h); may be NULL */
  const char *init_skipped; /* the disabled stage that `init.from` names: init_from is NULL then */
  uint64_t init_hash;       /* content of the weight file and of its name rules */
  source_pos init_at;
  const char **reset;   /* graph outputs whose producing layers start fresh: "net.out" */
  source_pos *reset_at; /* where they stand */
  int reset_count;
  bool missing_fresh;        /* what the earlier stage or file lacks starts fresh, too */
  int64_t validate_every;    /* epochs; 0: only after the last */
  unsigned validate_metrics; /* METRIC_BITs besides Dice; custom ones follow the table's */
  custom_metric *validate_custom;
  int validate_custom_count;
  const char
      *best; /* of what is validated ("validation.dice"): the stage ends with the weights that
                          have had the best; NULL: with the last */
  bool best_is_lowest; /* of it */
  source_pos best_at;
  script_ref case_weights; /* how often a training case is drawn; path NULL: all alike */
  source_pos output_at;    /* of `output`, or the stage's */
  const char *output;      /* value that sliding-window inference reads: "net.out"; NULL = no
                                 segmentation validation, only loss terms and metrics */
  bool output_is_found;    /* `validate` names none: it is what the losses compare with `label` */
  bool enabled;            /* `enabled: false` skips the stage */
  int64_t
      checkpoint_every_s; /* seconds between full-state checkpoints; 0: one at every epoch's end */
  bool checkpoint_final;  /* the last stage keeps its state when it is finished */
} stage_spec;

typedef enum blend { BLEND_CONSTANT, BLEND_GAUSSIAN, BLEND_GAUSSIAN_NNUNET } blend;

typedef struct window_spec { /* evaluate: inferer: sliding_window */
  int64_t size[3];           /* voxels of the prepared grid */
  double overlap; /* of neighbours as MONAI places them, [0, 0.95]; where no step is given */
  double step[3]; /* voxels between neighbours as nnU-Net places them; 0: by the overlap */
  blend blend;
  double sigma_scale;         /* of the Gaussian, in windows */
  int64_t batch;              /* windows at a time */
  bool mirror[3];             /* axes: the mean over all mirrored copies of a window */
  bool average_probabilities; /* not logits, of copies, windows and members */
  bool resample_logits;       /* not probabilities, onto the grid of the file */
  bool separates_axis;        /* … along a coarse axis the nearest slice, without interpolation */
  int64_t memory_bytes;       /* the sums go to a file beyond it */
} window_spec;

typedef enum empty_policy {
  EMPTY_SKIP, /* classes absent from the reference and the prediction are left out of the mean */
  EMPTY_ONE,  /* … count as a Dice of 1 */
  EMPTY_ZERO  /* … count as 0 */
} empty_policy;

typedef struct evaluate_spec {
  window_spec windows;
  op_use *postprocess; /* of a whole segmentation, one after the other */
  int postprocess_count;
  unsigned metrics;      /* METRIC_BIT of each that is wanted */
  custom_metric *custom; /* METRIC_BIT(METRIC_COUNT + i) is the i-th */
  int custom_count;
  empty_policy empty;
  int ignore_label; /* value of the reference's voxels that are left out; 0: none. Not of `evaluate:`:
                       the data set's, or --ignore-label */
  bool hd95_pooled; /* one percentile over both directions (MedPy), not the larger of two (MONAI) */
  double *tolerance_mm; /* of NSD, by class from 1; the last holds for the classes after. None: 1 */
  int tolerance_count;
  class_group *groups;
  int group_count;
  class_group
      *regions; /* unions of classes that are scored in place of the classes; none: classes */
  int region_count;
  const char *stage, *output; /* which stage's weights and which value; default: the last enabled
                                 stage and its validated output, else "net.out" */
  source_pos output_at;       /* of `output`, if it is given */
  bool enabled;               /* false: the file has no `evaluate:` */
  source_pos at;
} evaluate_spec;

/* A key of the resolved file that decides results: "seed", "data", "stages.pretrain". */
typedef struct identity_part {
  const char *name;
  uint64_t hash;
} identity_part;

typedef struct pipeline {
  arena memory;
  const char *path; /* interned */
  const char *text; /* in the place of the file there; NULL: the file is read */
  size_t text_length;
  const char *name;
  uint64_t seed;
  scope params;
  data_spec data;
  graph_file model;
  const tree *model_arguments; /* resolved `with:`; a map or NULL */
  const tree *model_blocks; /* `blocks:` beside `use:`, which stand in for the model's; or NULL */
  source_pos model_at;
  stage_spec *stages;
  int stage_count;
  evaluate_spec evaluate;
  const char *device; /* as in base/device_name.h */
  int64_t threads;    /* 0 = all cores */
  bool tensorboard;   /* log: {tensorboard: …} */
  tree *resolved;     /* the whole file with includes, params, overrides and expressions filled in
                         and paths made absolute; data sets below data.root: loads from any folder.
                         Graphs keep their ${…} */
  uint64_t identity;  /* hash of resolved text, model and block files, Lua sources and operator
                         versions, wherever the files are: two runs with the same identity and data
                         are the same run */
  uint64_t identity_without_scripts; /* the same, whatever the Lua sources say */
  identity_part *parts;              /* of the resolved text, for saying what differs */
  int part_count;
  bundle sources;            /* every text file the pipeline was made of */
  bundle *inside;            /* the lock or archive that files are looked up in; NULL: none */
  const tree *lock;          /* what stands under `lock:`; NULL: the file is no lock */
  const tree *locked;        /* the file of the lock as it stands, without `--set` */
  struct graph_cache *files; /* graph_file_load's */
} pipeline;

typedef struct override { /* --set data.root=x */
  const char *key, *value;
} override;

/* Is there a zip archive, which can only be a pack (run/pack.h), at `path`? */
bool archive_is(const char *path);
/* Loads and checks `path`: a pipeline file, a lock, a pack, or the name of a shipped pipeline. Every
 * problem found is in the returned status (error_count, error_print). On error *out is NULL. */
status pipeline_load(const char *path, const override *overrides, int override_count,
                     pipeline **out);
/* The same for text that would stand at `path`, where nothing has to be. It has to live as long as *out. */
status pipeline_load_text(const char *path, const char *text, size_t length, pipeline **out);
/* The same for a run's resolved file: neither data set nor initial weights have to exist any more.
 */
status pipeline_load_for_prediction(const char *path, const override *overrides, int override_count,
                                    pipeline **out);
/* The same for looking at its data set only: what `fingerprint` in expressions gives is left out, for
 * that file may still have to be made. */
status pipeline_load_to_look(const char *path, const override *overrides, int override_count,
                             pipeline **out);
/* A model file alone, without data or stages: p->model with its parameters changed by `overrides`
 * (`features=8`). For strata forward and for comparing networks with other frameworks. */
status pipeline_load_model(const char *path, const override *overrides, int override_count,
                           pipeline **out);
void pipeline_free(pipeline *p);
/* The value of a key as --set names it (`params.slabs`, `stages.pretrain.epochs`), with expressions
 * filled in where they can be without a graph. NULL: the file says nothing. In the pipeline's memory. */
const tree *pipeline_value(pipeline *p, const char *key);
/* A key that says something else than it said: "stages.segment.epochs". Values are shown on a line, as
 * YAML writes them; NULL: the key is not there. */
typedef struct key_difference {
  const char *key, *then, *now;
} key_difference;

typedef struct key_differences {
  key_difference *list;
  int count, capacity;
} key_differences;

/* Adds the keys in which a part (identity_part.name) of two resolved pipelines differs. All in
 * `memory`. None are found where the difference lies in a file that the part names. */
void pipeline_differences(arena *memory, const char *part, const tree *then, const tree *now,
                          key_differences *out);
/* Keys of the hooks in a stage: "on_validation", "on_epoch_end", "on_stage_end". */
extern const char *const stage_hook_keys[HOOK_COUNT];
/* Every script of the pipeline, one after the other from i = 0 on; NULL after the last. A stage that is
 * switched off counts too. */
const script_ref *pipeline_script(const pipeline *p, int i);
/* A bit, 1 << precision, for each that a stage which is not switched off asks for. */
unsigned pipeline_precisions(const pipeline *p);
/* The stage called `name`, NULL when there is none (or no name). */
const stage_spec *pipeline_stage(const pipeline *p, const char *name);
/* Loads a model or block file (cached per pipeline), with include-cycle detection left to the
 * expander. `relative_to` is the file that names it. Files are looked up beside that file, then in
 * the shipped `pipelines/` folder (STRATA_SHARE or the build's source folder). */
status graph_file_load(pipeline *p, const char *name, const char *relative_to, source_pos at,
                       graph_file *out);
/* The name of a model or block file at this (interned) path as it was shipped; NULL: it is the user's, or
 * no such file. */
const char *graph_file_shipped(const pipeline *p, const char *path);

/* Parts of `evaluate:` that `strata evaluate` takes from its command line. A value that is NULL gives
 * the default. What is wrong is added to `all`. */
void scoring_metrics(const tree *t, evaluate_spec *e, problems *all);
void scoring_tolerance(arena *memory, const tree *t, evaluate_spec *e, problems *all);
int classes_in_both(const class_group *a, const class_group *b);
/* `data: regions`, in `memory`. */
void data_regions(arena *memory, const tree *t, data_spec *d, problems *all);
/* Groups of classes, and regions. */
void scoring_groups(arena *memory, const tree *groups, const tree *regions, evaluate_spec *e,
                    problems *all);
/* Attributes of `inferer: sliding_window`, declared like an operator's; and their reading. */
extern const op sliding_window_op;
void inference_window(arena *memory, const tree *t, evaluate_spec *e, problems *all);
/* `postprocess`, in `memory`. */
void postprocess_read(arena *memory, tree *t, evaluate_spec *e, problems *all);

/* The file of a block that `user` lists as `name: listed`, unless the pipeline's `model: blocks:`
 * names another for it. */
status block_file_load(pipeline *p, const graph_file *user, const char *name, const tree *listed,
                       graph_file *out);

/* JSON Schema of the pipeline language and every operator, for editors. */
void schema_write(FILE *out);

#endif
