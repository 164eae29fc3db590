/* Inside of ablate/: one run of a script, and what its objects stand for. */
#ifndef STRATA_ABLATE_SESSION_H
#define STRATA_ABLATE_SESSION_H

#include "ablate/report.h"
#include "script/api.h"

struct json_t;

typedef struct session {
  const ablation_options *o;
  const tree *arguments; /* --arg, a map */
  source_pos script;     /* line 1 of it: where the names of files are looked up from */
  arena memory;          /* of pipelines */
  study **studies;
  int study_count, study_capacity;
  const char **shown; /* names of tables by hand */
  int shown_count, shown_capacity;
  /* Belong to a call that may end in a Lua error; freed with the next one. */
  pipeline *looked_at;
  struct json_t *json;
  study_report report;
  bool has_ended; /* --dry-run has listed what is to be done, and the script cannot go on */

  /* Before the script is run in earnest it is run without its trials and without a word, so that what
   * is wrong behind them is found before hours of them. From the first results that are not there
   * on, only errors that have nothing to do with results count. */
  bool is_rehearsal;
  bool lacks_results;
  int rehearsed_runs;
  bool is_certain; /* the script has ended with such an error */
} session;

/* Keeps `json` until the next call, so that it is freed whatever happens. */
void session_keep(session *s, struct json_t *json);
void session_release(session *s);

/* values.c: between Lua and the rest. All but the last may raise. */

/* The value at `index` as YAML, as after --set: texts as they are, tables in one line. In the
 * session's memory. */
const char *value_yaml(lua_State *L, int index, arena *memory);
void value_push_json(lua_State *L, const struct json_t *value);
/* The value at `index` as a name that files can have. */
const char *value_file_name(lua_State *L, int index);

/* `show`: prints rows as a table and writes it. Rows are objects, columns their keys. */
status session_show(session *s, const char *name, const char *const *columns, int count,
                    const struct json_t *rows);

#endif
