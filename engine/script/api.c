/* The kinds of scripts, and the list of what they can use. */
#include "script/api.h"

#include <string.h>

const script_kind_info script_kinds[SCRIPT_KIND_COUNT] = {
    [SCRIPT_SCHEDULE] = {"schedule", "schedule: {lua: warmup_cosine, warmup: 50}",
                         "function(step, epoch, total, base, steps_per_epoch, metrics) → number",
                         "called before every step; what it returns is the number's value in it"},
    [SCRIPT_VALIDATION] = {"on_validation", "on_validation: {lua: log_classes}", "function(event)",
                           "called after every validation, before on_epoch_end"},
    [SCRIPT_EPOCH_END] = {"on_epoch_end", "on_epoch_end: {lua: stop_on_plateau, patience: 10}",
                          "function(event)", "called after every epoch"},
    [SCRIPT_STAGE_END] = {"on_stage_end", "on_stage_end: {lua: summary}", "function(event)",
                          "called once, when a stage has ended, before its weights are written"},
    [SCRIPT_METRIC] =
        {"metric", "metrics: [dice, {lua: fbeta, beta: 2, name: f2}]",
         "function(counts) → number or nil",
         "under `evaluate` or a stage's `validate`: called for every foreground class "
         "of every case; the metric is called like the file, or `name`"},
    [SCRIPT_CASE_WEIGHT] = {"case_weights", "case_weights: {lua: rare_classes}",
                            "function(case) → number ≥ 0",
                            "called once for every training case before a stage starts: how often "
                            "it is drawn"},
    [SCRIPT_ABLATION] = {"ablation", "strata ablate mask_ratio.lua",
                         "nothing: it is run once, from top to bottom", "run by `strata ablate`"},
};

extern const script_group script_base, script_math, script_string, script_table;
extern const script_group script_schedule_parameters, script_event, script_counts, script_case;
extern const script_group script_ablation, script_pipeline_methods, script_study_methods;

static const script_group *const groups[] = {&script_schedule_parameters,
                                             &script_event,
                                             &script_counts,
                                             &script_case,
                                             &script_ablation,
                                             &script_pipeline_methods,
                                             &script_study_methods,
                                             &script_base,
                                             &script_math,
                                             &script_string,
                                             &script_table};

int script_group_count(void) {
  return (int)(sizeof groups / sizeof *groups);
}

const script_group *script_group_at(int i) {
  return groups[i];
}

unsigned script_entry_kinds(const script_group *g, const script_entry *e) {
  return e->kinds ? e->kinds : g->kinds;
}

const script_entry *script_entry_find(const char *name, const script_group **group) {
  for (int i = 0; i < script_group_count(); i++) {
    size_t prefix = strlen(groups[i]->prefix);
    if (strncmp(name, groups[i]->prefix, prefix) != 0) continue;
    for (const script_entry *e = groups[i]->entries; e->name; e++)
      if (strcmp(name + prefix, e->name) == 0) {
        *group = groups[i];
        return e;
      }
  }
  return NULL;
}
