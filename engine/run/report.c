#include "run/report.h"

#include "base/clock.h"
#include "base/text.h"

void report_share(const reporter *r, const char *stage, const char *unit, int64_t done,
                  int64_t total, double share, double started) {
  if (!r || !r->update) return;
  double spent = clock_now_s() - started;
  progress p = {.stage = stage,
                .unit = unit,
                .done = done,
                .total = total,
                .overall = share,
                .elapsed_s = spent,
                .eta_s = share > 0 ? spent / share * (1 - share) : -1};
  r->update(r->context, &p);
}

void report_line(const reporter *r, const char *format, ...) {
  if (!r || !r->line) return;
  text_buffer t = {0};
  va_list args;
  va_start(args, format);
  text_addv(&t, format, args);
  va_end(args);
  r->line(r->context, t.data ? t.data : "");
  text_free(&t);
}
