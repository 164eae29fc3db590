#include "ablate/jobs.h"

#include "base/clock.h"
#include "base/files.h"
#include "base/limits.h"
#include "base/memory.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { POLL_MS = 20, LOOK_MS = 1000, LOG_BYTES = 1 << 20, ERROR_BYTES = 400 };

/* A trial that this program is working on. */
typedef struct job {
  trial *trial;
  pid_t pid;
  int lock;
  double started_s;
  long log_start; /* what this invocation said begins here */
} job;

typedef struct session {
  trial *const *trials;
  int count;
  const jobs_options *o;
  job *running;  /* o->jobs of room; pid 0: free */
  bool *waiting; /* to be begun, trial by trial */
  bool is_stopping;
  bool lacks_locks; /* and it has been said */
  double started_s, looked_s, work_before;
} session;

/* ---- the command ----------------------------------------------------------------------------- */

/* Pointers to texts that others own, and some of its own. */
typedef struct command_line {
  char **words;
  int count;
  char threads[24];
  char **sets; /* owned */
  int set_count;
} command_line;

static void add_word(command_line *c, const char *word) {
  c->words[c->count++] = (char *)word;
}

static void free_command(command_line *c) {
  for (int i = 0; i < c->set_count; i++) free(c->sets[i]);
  free(c->sets);
  free(c->words);
}

static char *set_word(const override *set) {
  size_t bytes = strlen(set->key) + strlen(set->value) + 2;
  char *word = malloc(bytes);
  if (word) snprintf(word, bytes, "%s=%s", set->key, set->value);
  return word;
}

static int64_t threads_of_a_job(const jobs_options *o) {
  int64_t all = o->threads > 0 ? o->threads : limits_cores();
  return all / o->jobs > 1 ? all / o->jobs : 1;
}

/* `place`: of the trial among those at a time. */
static status make_command(const trial *t, const jobs_options *o, int place, command_line *c) {
  *c = (command_line){0};
  c->words = calloc((size_t)(2 * t->override_count) + 16, sizeof *c->words);
  c->sets = calloc((size_t)t->override_count + 1, sizeof *c->sets);
  if (!c->words || !c->sets) return error_out_of_memory(4096);
  add_word(c, o->program);
  add_word(c, "run");
  add_word(c, t->pipeline);
  for (int i = 0; i < t->override_count; i++) {
    char *word = set_word(&t->overrides[i]);
    if (!word) return error_out_of_memory(4096);
    c->sets[c->set_count++] = word;
    add_word(c, "--set");
    add_word(c, word);
  }
  add_word(c, "--out");
  add_word(c, t->folder);
  snprintf(c->threads, sizeof c->threads, "%lld", (long long)threads_of_a_job(o));
  add_word(c, "--threads");
  add_word(c, c->threads);
  if (o->device_count > 0) {
    add_word(c, "--device");
    add_word(c, o->devices[place % o->device_count]);
  }
  char *description = trial_file(t, "run.json");
  if (file_exists(description)) add_word(c, "--resume");
  free(description);
  return OK;
}

/* To repeat the trial by hand. */
static void write_command(FILE *out, const command_line *c) {
  text_buffer text = {0};
  for (int i = 0; i < c->count; i++) {
    text_add(&text, i > 0 ? " " : "$ ");
    text_add_word(&text, i > 0 ? c->words[i] : "strata"); /* not /proc/self/exe */
  }
  fprintf(out, "%s\n", text.data ? text.data : "");
  text_free(&text);
}

/* ---- starting -------------------------------------------------------------------------------- */

/* *fd −1: another program works on the trial. */
static status lock_trial(session *s, const trial *t, int *fd) {
  char *path = trial_file(t, "trial.lock");
  bool has_locks = true;
  status error = folder_create(t->folder);
  *fd = -1;
  if (!error) error = file_lock(path, fd, &has_locks);
  if (!error && !has_locks && !s->lacks_locks)
    report_line(&s->o->report, "warning: the file system has no locks: let no other command work "
                               "through this study at the same time");
  s->lacks_locks |= !has_locks;
  free(path);
  return error;
}

/* Opens the log and notes the command in it. */
static status open_log(const command_line *c, job *j, int *fd) {
  char *path = trial_file(j->trial, "log.txt");
  FILE *out = fopen(path, "ab");
  status error = out ? OK : error_from_errno("open", path);
  if (out) {
    fseek(out, 0, SEEK_END);
    j->log_start = ftell(out);
    write_command(out, c);
    if (fclose(out) != 0) error = error_from_errno("write", path);
  }
  *fd = error ? -1 : open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
  if (!error && *fd < 0) error = error_from_errno("open", path);
  free(path);
  return error;
}

/* In the new process: only calls that are allowed between fork and exec. */
static void become(const command_line *c, const job *j, int log, pid_t parent) {
  /* A group of its own, so that Ctrl-C reaches this program alone, which passes it on. */
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(130);
  /* When memory runs out, a trial shall go and not the program that can start it again. */
  int score = open("/proc/self/oom_score_adj", O_WRONLY);
  if (score >= 0) {
    ssize_t ignored = write(score, "500", 3);
    (void)ignored;
    close(score);
  }
  /* The lock is held as long as anybody works on the trial. */
  fcntl(j->lock, F_SETFD, 0);
  int nothing = open("/dev/null", O_RDONLY);
  if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 || dup2(log, STDOUT_FILENO) < 0 ||
      dup2(log, STDERR_FILENO) < 0)
    _exit(127);
  signal(SIGINT, SIG_DFL);
  signal(SIGTERM, SIG_DFL);
  execv(c->words[0], c->words);
  static const char message[] = "strata: error: the program cannot be started again\n";
  ssize_t ignored = write(STDERR_FILENO, message, sizeof message - 1);
  (void)ignored;
  _exit(127);
}

static status spawn(session *s, job *j) {
  command_line command;
  int log = -1;
  status error = make_command(j->trial, s->o, (int)(j - s->running), &command);
  if (!error) error = open_log(&command, j, &log);
  if (!error) {
    pid_t parent = getpid();
    j->pid = fork();
    if (j->pid == 0) become(&command, j, log, parent);
    if (j->pid < 0) {
      j->pid = 0;
      error = error_from_errno("start", command.words[0]);
    }
  }
  if (log >= 0) close(log);
  free_command(&command);
  return error;
}

/* Begins a trial in a free slot. Where another program is at it, it stays waiting. */
static status begin(session *s, int index, job *j) {
  trial *t = s->trials[index];
  *j = (job){.trial = t, .lock = -1, .started_s = clock_now_s()};
  TRY(lock_trial(s, t, &j->lock));
  if (j->lock < 0) return OK;
  s->waiting[index] = false;
  trial_state before = t->state;
  status error = trial_refresh(t);
  if (!error && t->state == TRIAL_DONE) { /* by another program, meanwhile */
    s->work_before += trial_work(t);
    close(j->lock);
    return OK;
  }
  if (!error) {
    free(t->error);
    t->error = NULL;
    t->state = TRIAL_BEGUN;
    error = trial_record(t);
  }
  if (!error) error = spawn(s, j);
  if (error)
    close(j->lock);
  else
    report_line(&s->o->report, "%s  %s: %s", before == TRIAL_NEW ? "begins " : "goes on", t->label,
                t->folder);
  return error;
}

/* ---- ending ---------------------------------------------------------------------------------- */

/* The first line of what went wrong, from the log; the last line where none says "error". */
static char *error_in_log(const job *j) {
  char *path = trial_file(j->trial, "log.txt"), *text = NULL, *found = NULL;
  size_t length = 0;
  FILE *in = fopen(path, "rb");
  if (in && fseek(in, j->log_start, SEEK_SET) == 0 && (text = malloc(LOG_BYTES + 1)))
    length = fread(text, 1, LOG_BYTES, in);
  if (in) fclose(in);
  free(path);
  if (!text) return NULL;
  text[length] = 0;
  char *line = text + strcspn(text, "\n"), *last = NULL; /* after the command */
  while (*line) {
    line += *line == '\n';
    size_t bytes = strcspn(line, "\n");
    bool is_error = memmem(line, bytes, "error: ", 7) != NULL;
    if (bytes > 0) last = line;
    if (is_error) break;
    line += bytes;
  }
  if (last) found = memory_strndup(last, strcspn(last, "\n"));
  free(text);
  return found;
}

static char *reason(const job *j, int ended) {
  text_buffer text = {0};
  char *said = error_in_log(j);
  if (WIFSIGNALED(ended)) {
    int number = WTERMSIG(ended);
    text_add(&text, "ended by signal %d (%s)%s", number, strsignal(number),
             number == SIGKILL ? ", as when memory runs out" : "");
  } else if (said) {
    text_add(&text, "%.*s", ERROR_BYTES, said);
  } else {
    text_add(&text, "ended with status %d and without a word", WEXITSTATUS(ended));
  }
  free(said);
  return text.data;
}

static status finish(session *s, job *j, int ended) {
  trial *t = j->trial;
  double spent = clock_now_s() - j->started_s;
  char took[24];
  t->seconds += spent;
  /* A scheduler may have told the trial itself, and it was quicker than we are. */
  bool was_stopped =
      (s->is_stopping || s->o->stop()) && ((WIFEXITED(ended) && WEXITSTATUS(ended) == 130) ||
                                           (WIFSIGNALED(ended) && WTERMSIG(ended) == SIGTERM));
  bool is_good = WIFEXITED(ended) && WEXITSTATUS(ended) == 0;
  status other = is_good ? trial_check_run(t) : OK;
  if (is_good && !other) {
    t->state = TRIAL_DONE;
    report_line(&s->o->report, "done     %s, %s", t->label, format_duration(took, t->seconds));
  } else if (was_stopped) {
    report_line(&s->o->report, "stopped  %s", t->label);
  } else {
    t->state = TRIAL_FAILED;
    t->error = other ? memory_strdup(error_message(other)) : reason(j, ended);
    report_line(&s->o->report, "failed   %s: %s\n         %s/log.txt", t->label, t->error,
                t->folder);
  }
  error_free(other);
  status error = trial_record(t);
  close(j->lock);
  j->pid = 0;
  return error;
}

/* ---- the loop -------------------------------------------------------------------------------- */

static int running_count(const session *s) {
  int count = 0;
  for (int i = 0; i < s->o->jobs; i++) count += s->running[i].pid > 0;
  return count;
}

static bool anything_waits(const session *s) {
  for (int i = 0; i < s->count; i++)
    if (s->waiting[i]) return true;
  return false;
}

static job *free_slot(const session *s) {
  for (int i = 0; i < s->o->jobs; i++)
    if (s->running[i].pid == 0) return &s->running[i];
  return NULL;
}

static status begin_those_that_fit(session *s) {
  for (int i = 0; i < s->count; i++) {
    job *j = free_slot(s);
    if (!j) return OK;
    if (!s->waiting[i]) continue;
    status error = begin(s, i, j);
    if (error) {
      j->pid = 0;
      return error_prefix(error, "%s", s->trials[i]->label);
    }
  }
  return OK;
}

static status collect(session *s) {
  problems all = {0};
  for (int i = 0; i < s->o->jobs; i++) {
    job *j = &s->running[i];
    int ended;
    if (j->pid > 0 && waitpid(j->pid, &ended, WNOHANG) == j->pid)
      problems_add(&all, finish(s, j, ended));
  }
  return problems_take(&all);
}

static void tell_running(const session *s, int signal_number) {
  for (int i = 0; i < s->o->jobs; i++)
    if (s->running[i].pid > 0) kill(s->running[i].pid, signal_number);
}

static void show_progress(session *s) {
  const reporter *r = &s->o->report;
  if (!r->update) return;
  double all = 0, done = 0, spent = clock_now_s() - s->started_s;
  int finished = 0;
  for (int i = 0; i < s->count; i++) {
    const trial *t = s->trials[i];
    bool is_over = !s->waiting[i] && t->state != TRIAL_BEGUN;
    all += trial_work(t);
    done += is_over ? trial_work(t) : trial_work_done(t);
    finished += is_over;
  }
  double here = done - s->work_before;
  progress p = {.stage = "trials",
                .unit = "trial",
                .done = finished,
                .total = s->count,
                .overall = all > 0 ? done / all : 0,
                .elapsed_s = spent,
                .eta_s = here > 0 ? spent / here * (all - done) : -1,
                .is_elsewhere = true,
                .names = (const char *const[]){"running"},
                .values = (const double[]){running_count(s)},
                .value_count = 1};
  r->update(r->context, &p);
}

static void pause_ms(int ms) {
  struct timespec wait = {0, (long)ms * 1000000};
  nanosleep(&wait, NULL);
}

static status run_all(session *s) {
  status error = OK;
  double asked_s = 0;
  while (running_count(s) > 0 || (!error && !s->is_stopping && anything_waits(s))) {
    if (!s->is_stopping && (error || s->o->stop())) {
      s->is_stopping = true;
      tell_running(s, SIGTERM);
    }
    double now = clock_now_s();
    /* Right after one has ended, and now and then for those another program had begun. */
    bool is_time = now - asked_s >= LOOK_MS / 1e3 || running_count(s) == 0;
    if (!s->is_stopping && is_time && free_slot(s)) {
      asked_s = now;
      error = begin_those_that_fit(s);
    }
    if (now - s->looked_s >= LOOK_MS / 1e3) {
      s->looked_s = now;
      show_progress(s);
    }
    if (running_count(s) > 0 || anything_waits(s)) pause_ms(POLL_MS);
    int before = running_count(s);
    status ending = collect(s);
    if (running_count(s) < before) asked_s = 0;
    if (error)
      error_free(ending);
    else
      error = ending;
  }
  return error;
}

char *trials_describe(trial *const *trials, int count, char out[160]) {
  int states[TRIAL_DONE + 1] = {0};
  for (int i = 0; i < count; i++) states[trials[i]->state]++;
  int used =
      snprintf(out, 160, "%d of %d trial%s done", states[TRIAL_DONE], count, count == 1 ? "" : "s");
  if (states[TRIAL_BEGUN] > 0)
    used += snprintf(out + used, 160 - (size_t)used, ", %d begun", states[TRIAL_BEGUN]);
  if (states[TRIAL_FAILED] > 0)
    snprintf(out + used, 160 - (size_t)used, ", %d failed", states[TRIAL_FAILED]);
  return out;
}

status trials_run(trial *const *trials, int count, const jobs_options *o) {
  session s = {.trials = trials, .count = count, .o = o, .started_s = clock_now_s()};
  s.running = calloc((size_t)o->jobs, sizeof *s.running);
  s.waiting = calloc((size_t)count + 1, sizeof *s.waiting);
  status error = s.running && s.waiting ? OK : error_out_of_memory(4096);
  for (int i = 0; i < count && !error; i++) {
    s.waiting[i] = trials[i]->state != TRIAL_DONE;
    s.work_before += trial_work_done(trials[i]);
  }
  if (!error) error = run_all(&s);
  bool is_unfinished = !error && s.is_stopping;
  free(s.running);
  free(s.waiting);
  char state[160];
  if (is_unfinished)
    return error_new(ERROR_INTERRUPTED, NOWHERE, "stopped: %s; the same command goes on from there",
                     trials_describe(trials, count, state));
  return error;
}
