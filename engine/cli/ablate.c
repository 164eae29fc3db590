/* ablate */
#include "ablate/ablate.h"
#include "base/device_name.h"
#include "base/files.h"
#include "base/text.h"
#include "cli/command.h"
#include "language/load.h"
#include "run/run.h"

#include <stdlib.h>
#include <string.h>

static const char default_out[] = "ablations";

/* A file, or the name of a shipped script, with or without its ending. */
static status find_script(arena *memory, const char *name, const char **path) {
  *path = name;
  if (text_ends_with(name, ".yaml") || text_ends_with(name, ".yml"))
    return error_new(ERROR_USAGE, NOWHERE,
                     "%s is a pipeline; strata ablate takes a Lua script, and a shipped one takes "
                     "the pipeline: strata ablate mask_ratio --arg pipeline=%s",
                     name, name);
  if (file_exists(name)) return OK;
  const char *file = text_ends_with(name, ".lua") ? name : arena_printf(memory, "%s.lua", name);
  char *found = NULL;
  status error = find_file(memory, file, "lua/ablations", NOWHERE, NOWHERE, &found, NULL);
  *path = found;
  return error;
}

static void add_options(text_buffer *t, const char *option, const override *list, int count) {
  for (int i = 0; i < count; i++) {
    text_buffer word = {0};
    text_add(&word, "%s=%s", list[i].key, list[i].value);
    text_add(t, " --%s ", option);
    text_add_word(t, word.data ? word.data : "");
    text_free(&word);
  }
}

/* The command as it can be given again, without what changes no result. */
static char *command_line(const arguments *a) {
  text_buffer t = {0};
  text_add(&t, "strata ablate ");
  text_add_word(&t, a->operands[0]);
  add_options(&t, "arg", a->script_arguments, a->script_argument_count);
  add_options(&t, "set", a->overrides, a->override_count);
  if (a->out) {
    text_add(&t, " --out ");
    text_add_word(&t, a->out);
  }
  return t.data;
}

/* How many trials at a time, and where. */
static status read_jobs(arena *memory, const arguments *a, jobs_options *o) {
  int capacity = 0;
  device_kind kind;
  for (const char *p = a->device; p; p = *p ? p + 1 : NULL) {
    size_t length = strcspn(p, ",");
    const char *name = arena_strndup(memory, p, length);
    if (!device_name_read(name, &kind, NULL))
      return error_new(ERROR_USAGE, NOWHERE, "unknown device \"%s\"; there are " DEVICE_NAMES,
                       name);
    ARENA_PUSH(memory, o->devices, o->device_count, capacity, name);
    p += length;
  }
  if (a->jobs > JOBS_MAX || o->device_count > JOBS_MAX)
    return error_new(ERROR_USAGE, NOWHERE, "--jobs is at most %d", JOBS_MAX);
  o->jobs = a->jobs > 0 ? (int)a->jobs : o->device_count > 1 ? o->device_count : 1;
  return OK;
}

status command_ablate(const arguments *a) {
  arena memory = {0};
  char *command = command_line(a);
  ablation_options o = {.arguments = a->script_arguments,
                        .argument_count = a->script_argument_count,
                        .overrides = a->overrides,
                        .override_count = a->override_count,
                        .out = a->out ? a->out : default_out,
                        .dry_run = a->dry_run,
                        .command = command ? command : "strata ablate",
                        .jobs = {.program = "/proc/self/exe",
                                 .threads = a->threads > 0 ? a->threads : 0,
                                 .stop = run_stop_requested,
                                 .report = console_reporter(a->quiet)}};
  status error = read_jobs(&memory, a, &o.jobs);
  if (!error) error = find_script(&memory, a->operands[0], &o.script);
  if (!error) error = ablate(&o);
  free(command);
  arena_free(&memory);
  return error;
}
