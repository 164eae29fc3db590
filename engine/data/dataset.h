/* A dataset on disk: the list of cases and their roles. */
#ifndef STRATA_DATA_DATASET_H
#define STRATA_DATA_DATASET_H

#include "base/parallel.h"
#include "data/cache.h"
#include "data/recipe.h"
#include "language/pipeline.h"

enum { DATASET_JSON_BYTES = 64 << 20 }; /* that a dataset.json may have */

typedef enum role { ROLE_TRAIN, ROLE_VALIDATION, ROLE_TEST, ROLE_NONE } role;

typedef struct case_entry {
  const char *name;  /* unique: the file's without .nii(.gz), or what its pattern's * stands for */
  const char *image; /* path */
  const char *const *more_images; /* further channels in files of their own; one grid */
  int more_image_count;
  const char *label;   /* path, or NULL */
  const char *patient; /* whose cases share a role */
  role role;
  bool is_label_withheld;      /* by data.label_fraction: for training without labels only */
  struct known_files *known;   /* what the cache key was made of; NULL: not remembered */
  const content_hash *content; /* of the images' files, then the label's; NULL: not hashed */
  int class_count; /* classes the dataset names; a label map with others is refused. 0: not known */
  int ignore_label; /* value in the label's file of voxels whose class is unknown; 0: there is none */
} case_entry;

typedef struct dataset {
  arena memory;
  const char *name;
  case_entry *cases; /* sorted by name */
  int case_count;
  const char **class_names; /* [0] = background */
  int class_count;
  class_group *regions; /* unions of classes that nnU-Net's dataset.json names; none: no region */
  int region_count;
  int ignore_label; /* in the label files, above all classes; 0: none. See LABEL_UNKNOWN */
  int channels;
  const char **channel_names; /* what dataset.json calls them, "CT"; NULL: nobody says */
  uint64_t identity;          /* hash of the case list, roles, file sizes and ignore label */
} dataset;

/* Lists the cases of the data set and assigns roles. `seed` is the pipeline's; spec->split_seed counts
 * more.
 *
 * Fractions and folds: a permutation of the sorted patients by the seed, cut or dealt out; every role
 * with a positive fraction gets at least one patient. Where some cases have labels, patients without
 * one train and are not dealt. Names: as listed, and the validation fraction of those that train is dealt
 * the same way; cases that are in no list have ROLE_NONE. A case, a patient, a file or the content of an image in two roles is an error.
 * label_fraction: a permutation of the training cases by the seed of which the first ones keep their
 * labels, so that a smaller fraction is part of a larger one.
 *
 * A missing file is an error that names the case; all of them are reported in one go. */
status dataset_open(const data_spec *spec, uint64_t seed, dataset **out);
/* The same for looking at a data set: cases with missing files are left out and reported in `found`,
 * and so is what would make dataset_open fail after that. */
status dataset_inspect(const data_spec *spec, uint64_t seed, problems *found, dataset **out);
void dataset_free(dataset *d);
/* Cases of one role, in name order: fills `index` (case_count of room), returns how many. */
int dataset_role(const dataset *d, role r, int *index);
int dataset_role_count(const dataset *d, role r);
/* "6 cases: 4 train (2 with labels), 1 validation, 1 test" */
char *dataset_describe(const dataset *d, char out[160]);
/* May a stage learn from the case: does it read no label, or has the case one that is not withheld? */
bool case_is_usable(const case_entry *entry, bool label_free);
/* Cases of a role that may be learned from. */
int dataset_role_usable(const dataset *d, role r, bool label_free);
/* Steps of an epoch that draws every usable case of the role spec->crops_per_case times, `a_step`
 * samples a step, rounded up. */
int64_t dataset_steps(const dataset *d, role r, const data_spec *spec, bool label_free,
                      int64_t a_step);
/* Updates of the weights in an epoch of a stage. */
int64_t stage_updates(const stage_spec *s, const dataset *d, const data_spec *spec,
                      bool label_free);

/* Hashes the files of every case that has a role and fills case_entry.content. `cache` (NULL: none)
 * keeps the hashes: files whose inode, size and times are as when they were hashed are not read again.
 * What is learned of the cache's keys is kept, so that its entries are found without reading files. */
status dataset_hash(const data_spec *spec, dataset *d, const char *cache, thread_pool *pool);
/* Classes, ignore label, cases with their roles, and content: what the data decide about a run. */
uint64_t dataset_content(const dataset *d);

/* Runs the shape rules of the prepare and the sample graph, which also refuse attributes that make
 * no sense together. The size of what the sample graph yields, or an error at the operator that leaves
 * it unknown or does not fit. `channels` is the dataset's; operators keep them. */
status sample_infer(const data_spec *spec, int64_t channels, int64_t size[3]);
/* The same for every stage: sets its `crop`. */
status stages_infer_crops(pipeline *p, int64_t channels);

/* Along which axes is a case smaller than what the sample graph takes from it, so that it is padded?
 * `grid`: size and affine of its file. *shrinks: it can become smaller than is known without voxels. */
status sample_is_padded(const data_spec *spec, const volume *grid, bool axes[3], bool *shrinks);

/* The operator that gives the samples their size, which sample_infer has found. */
source_pos sample_size_at(const data_spec *spec, int64_t channels);

/* ---- the files of a case ---- */

typedef struct case_files {
  file_bytes *images; /* of every channel */
  int image_count;
  file_bytes label; /* no data: none */
} case_files;

status case_files_load(const case_entry *entry, case_files *out);
void case_files_free(case_files *files);
/* Image, with the channels of all files, and label, on one grid; classes checked, and the ignore label
 * made LABEL_UNKNOWN. Messages name the file, not the case. */
status case_parse(const case_entry *entry, const case_files *files, medical_case *out);

/* ---- prepare, with its cache ---- */

/* The cache key of a case, and the files it was made from. */
typedef struct known_files {
  uint64_t stamp[2]; /* of their inodes, sizes and times; 0 0: nothing known */
  uint64_t prepare;
  cache_key key;
} known_files;

/* What the headers of a case's files say: size and affine of its grid, channels of its images
 * together. Files that do not lie on one grid are an error. No voxel is read. */
status case_read_headers(const case_entry *entry, volume *out);

/* Has a case as many channels as the data set says? Does not name the case. */
status case_check_channels(const case_entry *entry, int64_t channels, const dataset *d);
/* The headers of every case that has a role. All whose files cannot be read, do not lie on one grid or
 * have other channels than the data set says are in the error. Fills grids[i] of every case (`grids`
 * NULL: nobody wants them; a case without a role has none, of size 0). `pool` may be NULL. */
status dataset_read_headers(const dataset *d, thread_pool *pool, volume *grids);

/* Loads a case and runs the prepare graph, or reads the result from the cache folder. The key is
 * the content of the source files, the prepare graph (operators, versions, attributes) and the
 * ignore label, so a stale entry cannot be used; a damaged entry is detected (hash) and made anew.
 * Files whose inode, size and times are as when this dataset last read them are not read again.
 * `cache` NULL: no cache. A cache that cannot be written (disk full, folder not permitted) never
 * fails a case: see cache_problem_take. */
status case_prepare(const data_spec *spec, const case_entry *entry, const char *cache,
                    medical_case *out);
/* Has the cache an entry for the case? Reads its files to know, but prepares nothing. */
status case_is_cached(const data_spec *spec, const case_entry *entry, const char *cache, bool *is);
/* This program's first failure to write a cache entry, once, for the caller to print as a warning; OK
 * when there was none. The run goes on without the entry. */
status cache_problem_take(void);
/* The cache key's part that the prepare graph makes: operators, versions, attributes. */
uint64_t prepare_identity(const data_spec *spec);
/* One random crop of a prepared case, which is only read: runs the sample graph on a view of it. To
 * sample without the label, pass a copy of the struct whose label.data is NULL. */
status case_sample(const data_spec *spec, const medical_case *in, rng_key key, medical_case *out);
/* The same to memory that is there: `room` has size and channels of the image and both maps' data. A
 * sample of another size is an error; without a label, the label becomes 0. */
status case_sample_into(const data_spec *spec, const medical_case *in, rng_key key,
                        const medical_case *room);

/* The same draws, noted instead of made. Every operator of the sample graph is one that notes
 * (OP_LAZY or with `apply`), but for the first, which may look at the prepared voxels. */
status case_draw(const data_spec *spec, const medical_case *in, rng_key key, const volume *expected,
                 recipe *out);

/* ---- loader ---- */

typedef struct loader loader;

/* A sample that a device is to make. */
typedef struct drawn_sample {
  const case_entry *entry;
  const medical_case
      *from; /* its prepared form, in memory as long as the batch; NULL: the sample is
                               made already */
  recipe recipe;
} drawn_sample;

typedef struct batch {
  float *image;            /* (N, X, Y, Z, C) */
  uint8_t *label;          /* (N, X, Y, Z), zeros when unlabelled */
  drawn_sample *drawn;     /* N; NULL: every sample is made */
  rng_key *keys;           /* N */
  const char **case_names; /* N */
  int64_t epoch, step;     /* step within the epoch */
} batch;

typedef struct loader_options {
  const data_spec *spec;
  const dataset *data;
  const char *cache;
  uint64_t seed;
  const char *stage; /* name: part of every key */
  role role;
  bool shuffle; /* a new order every epoch, by (seed, stage, epoch) */
  const double
      *weights;    /* with `shuffle`: of each case of `data`, ≥ 0, those of the role not all 0:
                            every place of the order is a case drawn in their proportion, with
                            replacement. NULL: every case once. Copied */
  bool label_free; /* the stage reads no label: crops are placed without it, batch.label is 0 */
  int64_t batch;   /* samples a step on this process; a step of the run has batch × world */
  int64_t steps_per_epoch; /* 0: cases × crops_per_case / (batch × world), rounded up (wraps) */
  int64_t first_epoch, first_step, epochs; /* where to begin (resume) and where to end */
  bool
      by_epoch; /* no sample of an epoch is begun before loader_begin_epoch: between epochs the sample
                    operators' numbers may change */
  int64_t size[3], channels;
  size_t memory_budget_bytes; /* prepared cases kept in memory; 0 = 2 GiB. Those of batches that
                                 wait to be made by a device come on top */
  size_t drawn_case_bytes; /* samples of prepared cases up to this size are drawn and not made (see
                                 case_draw); 0: every sample is made */
  int rank, world;         /* data-parallel: this process takes every world-th sample; 0, 1 alone */
} loader_options;

/* The order of an epoch: all cases once in a shuffled order, then all again in another order, and
 * so on crops_per_case times (longer epochs go on the same way). Sample i of that sequence is
 * sample i % (batch × world) of its step and belongs to the process of rank i % world, so the
 * samples of a step are the same on any number of processes with the same batch × world.
 *
 * Threads fill a bounded queue; batches come out in order whatever the number of threads. */
status loader_open(const loader_options *o, loader **out);
/* With `by_epoch`, before the first loader_next of every epoch. */
void loader_begin_epoch(loader *l, int64_t epoch);
/* The next batch, valid until the next call. *out NULL at the end. A failing case ends the loader
 * with an error that names the case and the operator. */
status loader_next(loader *l, batch **out);
int64_t loader_steps_per_epoch(const loader *l);
void loader_close(loader *l);

#endif
