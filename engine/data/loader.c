/* The loader: threads prepare cases, cut samples and fill batches ahead of the consumer.
 *
 * The unit of work is one sample. Samples have a fixed sequence (data/dataset.h) and threads claim
 * them in that order; what a sample holds depends only on its place in the sequence, so the batches
 * are the same on any number of threads. Batches live in a ring of slots, allocated once: slot s
 * holds batch b ≡ s, and samples of batch b + slots are claimed only after the consumer has let go
 * of batch b. */
#include "data/dataset.h"

#include "base/text.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef enum prepared_state { PREPARED_NONE, PREPARED_LOADING, PREPARED_READY } prepared_state;

/* A case of the role and, when in memory, its prepared form. */
typedef struct prepared {
  const case_entry *entry;
  prepared_state state;
  medical_case content;
  size_t bytes;
  int users;         /* threads that read `content` now */
  uint64_t last_use; /* larger = more recent */
} prepared;

typedef struct slot {
  batch out;
  prepared **held; /* the cases of drawn samples; NULL: of samples that are made */
  int64_t filled;  /* samples done, well or badly */
  status error;    /* of the failing sample with the smallest index */
  int64_t error_sample;
} slot;

/* The order of one pass over the cases. Two are kept: a batch may span the end of a pass, and
 * threads are at most a few batches apart; any other is computed again. */
typedef struct pass_order {
  int64_t epoch, pass; /* epoch −1: empty */
  int32_t *order;
} pass_order;

enum { PASSES_KEPT = 4 };

struct loader {
  loader_options o;
  prepared *cases;
  int case_count;
  double *cumulative; /* of the cases' weights; NULL: no weights */
  int64_t steps_per_epoch;
  int64_t sample_values, sample_voxels;
  slot *slots;
  int64_t slot_count;
  pass_order passes[PASSES_KEPT];
  int next_pass;

  pthread_mutex_t lock;
  pthread_cond_t work;    /* a slot became free, or the end */
  pthread_cond_t ready;   /* a batch is complete */
  pthread_cond_t case_in; /* a case has been prepared, or failed to be */
  int64_t next_sample;    /* first one not claimed; counts this process's samples from 0 */
  int64_t last_sample;    /* end of the run */
  int64_t next_batch;     /* first one not handed out */
  int64_t begun_epoch;    /* `by_epoch`: samples of later ones wait; −1: all do */
  bool consumer_holds;    /* batch next_batch − 1 is with the consumer */
  bool stopping;
  size_t memory_bytes;
  uint64_t clock;
  pthread_t *threads;
  int thread_count;
};

/* ---- the sequence of samples ---- */

typedef struct sample_place {
  int64_t epoch, step, row; /* row of the batch */
  int64_t index;            /* in the epoch's sequence */
  int64_t pass, position;   /* which pass over the cases, where in it */
} sample_place;

static sample_place place_of(const loader *l, int64_t sample) {
  const loader_options *o = &l->o;
  int64_t batches = o->first_epoch * l->steps_per_epoch + o->first_step + sample / o->batch;
  sample_place p = {.epoch = batches / l->steps_per_epoch,
                    .step = batches % l->steps_per_epoch,
                    .row = sample % o->batch};
  int64_t index = (p.step * o->batch + p.row) * o->world + o->rank;
  p.index = index;
  p.pass = index / l->case_count;
  p.position = index % l->case_count;
  return p;
}

/* Cases in proportion to their weights, with replacement. */
static void draw_by_weight(const loader *l, rng *random, int32_t *order) {
  double total = l->cumulative[l->case_count - 1];
  for (int i = 0; i < l->case_count; i++) {
    double at = rng_range(random, 0, total);
    int low = 0, high = l->case_count - 1; /* the first whose sum lies above */
    while (low < high) {
      int middle = low + (high - low) / 2;
      if (l->cumulative[middle] > at)
        high = middle;
      else
        low = middle + 1;
    }
    while (low > 0 && l->cumulative[low] == l->cumulative[low - 1])
      low--; /* rounding: at = total */
    order[i] = low;
  }
}

/* Which case stands at the place. Called with the lock held. */
static int case_at(loader *l, sample_place p) {
  if (!l->o.shuffle) return (int)p.position;
  for (int i = 0; i < PASSES_KEPT; i++)
    if (l->passes[i].epoch == p.epoch && l->passes[i].pass == p.pass)
      return l->passes[i].order[p.position];
  pass_order *made = &l->passes[l->next_pass];
  l->next_pass = (l->next_pass + 1) % PASSES_KEPT;
  made->epoch = p.epoch;
  made->pass = p.pass;
  rng_key key = rng_key_of(l->o.seed, l->o.stage, p.epoch, "", p.pass);
  rng random = rng_open(key, text_hash("order of cases"));
  if (l->cumulative)
    draw_by_weight(l, &random, made->order);
  else
    rng_permutation(&random, made->order, l->case_count);
  return made->order[p.position];
}

/* ---- prepared cases in memory ---- */

static size_t case_bytes(const medical_case *c) {
  size_t voxels = (size_t)(c->image.size[0] * c->image.size[1] * c->image.size[2]);
  return voxels *
         ((size_t)c->image.channels * sizeof(float) + (c->label.data ? sizeof *c->label.data : 0));
}

/* Lets the least recently used cases go until the rest fits the budget. Lock held. */
static void evict(loader *l) {
  while (l->memory_bytes > l->o.memory_budget_bytes) {
    prepared *oldest = NULL;
    for (int i = 0; i < l->case_count; i++) {
      prepared *p = &l->cases[i];
      if (p->state == PREPARED_READY && p->users == 0 &&
          (!oldest || p->last_use < oldest->last_use))
        oldest = p;
    }
    if (!oldest) return;
    case_free(&oldest->content);
    l->memory_bytes -= oldest->bytes;
    oldest->state = PREPARED_NONE;
  }
}

/* Lock held on entry and return, released while a case is prepared. */
static status acquire(loader *l, prepared *p) {
  while (p->state == PREPARED_LOADING) pthread_cond_wait(&l->case_in, &l->lock);
  if (p->state == PREPARED_NONE) {
    p->state = PREPARED_LOADING;
    pthread_mutex_unlock(&l->lock);
    status error = case_prepare(l->o.spec, p->entry, l->o.cache, &p->content);
    if (!error && l->o.label_free) labels_free(&p->content.label);
    if (!error && p->content.label.data) {
      error = labels_count(&p->content.label); /* crops are drawn from them */
      if (error) case_free(&p->content);
    }
    pthread_mutex_lock(&l->lock);
    p->state = error ? PREPARED_NONE : PREPARED_READY;
    pthread_cond_broadcast(&l->case_in);
    if (error) return error;
    p->bytes = case_bytes(&p->content);
    l->memory_bytes += p->bytes;
  }
  p->users++;
  p->last_use = ++l->clock;
  evict(l);
  return OK;
}

static void release(loader *l, prepared *p) {
  p->users--;
  evict(l);
}

/* ---- filling ---- */

static status fill_row(loader *l, slot *s, int64_t row, const medical_case *from, rng_key key) {
  medical_case room = {
      .image = {.channels = l->o.channels, .data = s->out.image + row * l->sample_values},
      .label = {.data = s->out.label + row * l->sample_voxels}};
  memcpy(room.image.size, l->o.size, sizeof room.image.size);
  return case_sample_into(l->o.spec, from, key, &room);
}

static status draw_row(loader *l, slot *s, int64_t row, prepared *source, rng_key key) {
  drawn_sample *drawn = &s->out.drawn[row];
  volume expected = {.channels = l->o.channels};
  memcpy(expected.size, l->o.size, sizeof expected.size);
  drawn->entry = source->entry;
  drawn->from = &source->content;
  return case_draw(l->o.spec, &source->content, key, &expected, &drawn->recipe);
}

/* Lock held on entry and return. */
static void make_sample(loader *l, int64_t sample) {
  sample_place p = place_of(l, sample);
  prepared *source = &l->cases[case_at(l, p)];
  slot *s = &l->slots[sample / l->o.batch % l->slot_count];
  const char *name = source->entry->name;
  /* A case that is drawn twice in a pass gives two different crops. */
  int64_t turn = l->cumulative ? p.index : p.pass;
  rng_key key = rng_key_of(l->o.seed, l->o.stage, p.epoch, name, turn);
  status error = acquire(l, source);
  if (!error) {
    const bool draws = s->out.drawn && source->bytes <= l->o.drawn_case_bytes;
    pthread_mutex_unlock(&l->lock);
    error =
        draws ? draw_row(l, s, p.row, source, key) : fill_row(l, s, p.row, &source->content, key);
    pthread_mutex_lock(&l->lock);
    if (draws && !error)
      s->held[p.row] = source;
    else
      release(l, source);
  }
  s->out.epoch = p.epoch;
  s->out.step = p.step;
  s->out.keys[p.row] = key;
  s->out.case_names[p.row] = name;
  if (error && (!s->error || sample < s->error_sample)) {
    error_free(s->error);
    s->error = error;
    s->error_sample = sample;
  } else {
    error_free(error);
  }
  if (s->error) l->stopping = true; /* samples already claimed are still finished */
  if (++s->filled == l->o.batch) pthread_cond_broadcast(&l->ready);
}

static bool has_begun(const loader *l, int64_t sample) {
  return !l->o.by_epoch || place_of(l, sample).epoch <= l->begun_epoch;
}

static bool may_claim(const loader *l) {
  int64_t oldest_kept = l->next_batch - (l->consumer_holds ? 1 : 0);
  return l->next_sample / l->o.batch < oldest_kept + l->slot_count && has_begun(l, l->next_sample);
}

static void *worker(void *context) {
  loader *l = context;
  pthread_mutex_lock(&l->lock);
  while (!l->stopping && l->next_sample < l->last_sample) {
    if (!may_claim(l)) {
      pthread_cond_wait(&l->work, &l->lock);
      continue;
    }
    make_sample(l, l->next_sample++);
  }
  /* The consumer may be waiting for a batch that a failure left incomplete. */
  pthread_cond_broadcast(&l->ready);
  pthread_cond_broadcast(&l->work);
  pthread_mutex_unlock(&l->lock);
  return NULL;
}

/* ---- opening and closing ---- */

static status find_cases(loader *l) {
  static const char *const role_names[] = {"training", "validation", "test"};
  const loader_options *o = &l->o;
  int *index = malloc((size_t)o->data->case_count * sizeof *index);
  l->cases = calloc((size_t)o->data->case_count, sizeof *l->cases);
  if (!index || !l->cases) {
    free(index);
    return error_out_of_memory((size_t)o->data->case_count * sizeof *l->cases);
  }
  int found = dataset_role(o->data, o->role, index);
  for (int i = 0; i < found; i++) {
    const case_entry *entry = &o->data->cases[index[i]];
    if (case_is_usable(entry, o->label_free)) l->cases[l->case_count++].entry = entry;
  }
  free(index);
  if (l->case_count > 0) return OK;
  return error_new(ERROR_DATA, o->spec->split_at, "the split leaves no %s case%s",
                   role_names[o->role], found > 0 ? " with a label" : "");
}

static status add_up_weights(loader *l) {
  if (!l->o.weights) return OK;
  l->cumulative = calloc((size_t)l->case_count, sizeof *l->cumulative);
  if (!l->cumulative) return error_out_of_memory((size_t)l->case_count * sizeof *l->cumulative);
  double sum = 0;
  for (int i = 0; i < l->case_count; i++)
    l->cumulative[i] = sum += l->o.weights[l->cases[i].entry - l->o.data->cases];
  if (sum > 0 && isfinite(sum)) return OK;
  return error_new(ERROR_INTERNAL, NOWHERE, "the weights of the cases add up to %g", sum);
}

static status allocate(loader *l) {
  const loader_options *o = &l->o;
  double values = (double)o->batch * (double)o->channels;
  for (int a = 0; a < 3; a++) values *= (double)o->size[a];
  if (!(values >= 1 && values <= 0x1p34))
    return error_new(ERROR_MEMORY, NOWHERE, "a batch of %.3g values is more than can be held",
                     values);
  l->sample_voxels = o->size[0] * o->size[1] * o->size[2];
  l->sample_values = l->sample_voxels * o->channels;
  l->slot_count = (o->spec->queue > 0 ? o->spec->queue : 1) + 1; /* and the consumer's */
  l->slots = calloc((size_t)l->slot_count, sizeof *l->slots);
  if (!l->slots) return error_out_of_memory((size_t)l->slot_count * sizeof *l->slots);
  for (int64_t i = 0; i < l->slot_count; i++) {
    batch *b = &l->slots[i].out;
    size_t n = (size_t)o->batch;
    size_t image = (n * (size_t)l->sample_values * sizeof(float) + 63) & ~(size_t)63;
    size_t label = (n * (size_t)l->sample_voxels + 63) & ~(size_t)63;
    b->image = aligned_alloc(64, image);
    b->label = aligned_alloc(64, label);
    b->keys = calloc(n, sizeof *b->keys);
    b->case_names = calloc(n, sizeof *b->case_names);
    if (!b->image || !b->label || !b->keys || !b->case_names)
      return error_out_of_memory(image + label);
    memory_want_huge_pages(b->image, image);
    memory_want_huge_pages(b->label, label);
    if (o->drawn_case_bytes == 0) continue;
    b->drawn = calloc(n, sizeof *b->drawn);
    l->slots[i].held = calloc(n, sizeof *l->slots[i].held);
    if (!b->drawn || !l->slots[i].held) return error_out_of_memory(n * sizeof *b->drawn);
  }
  for (int i = 0; i < PASSES_KEPT; i++) {
    l->passes[i].epoch = -1;
    l->passes[i].order = malloc((size_t)l->case_count * sizeof(int32_t));
    if (!l->passes[i].order) return error_out_of_memory((size_t)l->case_count * sizeof(int32_t));
  }
  return OK;
}

static void plan_run(loader *l) {
  const loader_options *o = &l->o;
  l->steps_per_epoch = o->steps_per_epoch > 0 ? o->steps_per_epoch
                                              : dataset_steps(o->data, o->role, o->spec,
                                                              o->label_free, o->batch * o->world);
  int64_t steps = (o->epochs - o->first_epoch) * l->steps_per_epoch - o->first_step;
  l->last_sample = steps > 0 ? steps * o->batch : 0;
}

static status start_threads(loader *l) {
  int count = l->o.spec->loader_threads > 0 ? (int)l->o.spec->loader_threads : 1;
  l->threads = calloc((size_t)count, sizeof *l->threads);
  if (!l->threads) return error_out_of_memory((size_t)count * sizeof *l->threads);
  for (; l->thread_count < count; l->thread_count++) {
    int refused = pthread_create(&l->threads[l->thread_count], NULL, worker, l);
    if (!refused) continue;
    /* Fewer threads make the same batches; none make none. */
    if (l->thread_count > 0) return OK;
    return error_new(ERROR_IO, NOWHERE, "cannot start a thread to load cases: %s",
                     strerror(refused));
  }
  return OK;
}

status loader_open(const loader_options *o, loader **out) {
  *out = NULL;
  loader *l = calloc(1, sizeof *l);
  if (!l) return error_out_of_memory(sizeof *l);
  l->o = *o;
  l->begun_epoch = -1;
  if (l->o.world < 1) l->o.world = 1;
  if (l->o.memory_budget_bytes == 0) l->o.memory_budget_bytes = (size_t)2 << 30;
  pthread_mutex_init(&l->lock, NULL);
  pthread_cond_init(&l->work, NULL);
  pthread_cond_init(&l->ready, NULL);
  pthread_cond_init(&l->case_in, NULL);
  status error = find_cases(l);
  if (!error) error = add_up_weights(l);
  if (!error) error = allocate(l);
  if (!error) {
    plan_run(l);
    error = start_threads(l);
  }
  if (error) {
    loader_close(l);
    return error;
  }
  *out = l;
  return OK;
}

/* Gives a slot back whose batch the consumer is done with. Lock held. */
static void clear_slot(loader *l, slot *s) {
  s->filled = 0;
  for (int64_t n = 0; n < l->o.batch && s->held; n++) {
    if (s->held[n]) release(l, s->held[n]);
    s->held[n] = NULL;
    s->out.drawn[n].from = NULL;
  }
}

void loader_begin_epoch(loader *l, int64_t epoch) {
  pthread_mutex_lock(&l->lock);
  l->begun_epoch = epoch;
  pthread_cond_broadcast(&l->work);
  pthread_mutex_unlock(&l->lock);
}

status loader_next(loader *l, batch **out) {
  *out = NULL;
  status error = OK;
  pthread_mutex_lock(&l->lock);
  if (l->consumer_holds) {
    clear_slot(l, &l->slots[(l->next_batch - 1) % l->slot_count]);
    l->consumer_holds = false;
    pthread_cond_broadcast(&l->work);
  }
  if (l->next_batch * l->o.batch < l->last_sample && !has_begun(l, l->next_batch * l->o.batch)) {
    error = error_new(ERROR_INTERNAL, NOWHERE, "a batch is wanted of an epoch that has not begun");
  } else if (l->next_batch * l->o.batch < l->last_sample) {
    slot *s = &l->slots[l->next_batch % l->slot_count];
    /* A failing sample stops new claims; every sample of its batch that was claimed gets done. */
    int64_t first = l->next_batch * l->o.batch;
    for (;;) {
      int64_t claimed = l->next_sample - first;
      if (s->filled == l->o.batch) break;
      if (l->stopping && s->filled >= (claimed < l->o.batch ? claimed : l->o.batch)) break;
      pthread_cond_wait(&l->ready, &l->lock);
    }
    if (s->error) {
      error = s->error;
      s->error = OK;
      l->last_sample = 0; /* the loader has ended */
    } else if (s->filled == l->o.batch) {
      *out = &s->out;
      l->next_batch++;
      l->consumer_holds = true;
    }
  }
  pthread_mutex_unlock(&l->lock);
  return error;
}

int64_t loader_steps_per_epoch(const loader *l) {
  return l->steps_per_epoch;
}

void loader_close(loader *l) {
  if (!l) return;
  pthread_mutex_lock(&l->lock);
  l->stopping = true;
  pthread_cond_broadcast(&l->work);
  pthread_mutex_unlock(&l->lock);
  for (int i = 0; i < l->thread_count; i++) pthread_join(l->threads[i], NULL);
  for (int64_t i = 0; i < l->slot_count && l->slots; i++) {
    batch *b = &l->slots[i].out;
    free(b->image);
    free(b->label);
    free(b->keys);
    free(b->case_names);
    for (int64_t n = 0; n < l->o.batch && b->drawn; n++) recipe_free(&b->drawn[n].recipe);
    free(b->drawn);
    free(l->slots[i].held);
    error_free(l->slots[i].error);
  }
  for (int i = 0; i < l->case_count && l->cases; i++)
    if (l->cases[i].state == PREPARED_READY) case_free(&l->cases[i].content);
  for (int i = 0; i < PASSES_KEPT; i++) free(l->passes[i].order);
  pthread_cond_destroy(&l->work);
  pthread_cond_destroy(&l->ready);
  pthread_cond_destroy(&l->case_in);
  pthread_mutex_destroy(&l->lock);
  free(l->cumulative);
  free(l->slots);
  free(l->cases);
  free(l->threads);
  free(l);
}
