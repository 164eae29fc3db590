#include "run/report.h"

#include "base/clock.h"
#include "base/text.h"

void report_cases(const case_progress *c, double begun) {
  if (!c->report || !c->report->update) return;
  double spent = clock_now_s() - c->started_s, share = (c->done + begun) / c->count;
  progress p = {.stage = c->stage,
                .unit = "case",
                .done = c->done,
                .total = c->count,
                .overall = share,
                .elapsed_s = spent,
                .eta_s = share > 0 ? spent / share * (1 - share) : -1};
  c->report->update(c->report->context, &p);
}

void report_line(const reporter *r, const char *format, ...) {
  if (!r || !r->line) return;
  text_buffer t = {0};
  va_list args;
  va_start(args, format);
  text_addv(&t, format, args);
  va_end(args);
  if (t.data) text_make_printable(t.data); /* as in errors */
  r->line(r->context, t.data ? t.data : "");
  text_free(&t);
}
