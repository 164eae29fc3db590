/* Progress for people: one live line on a terminal, a plain line now and then in a pipe. */
#include "base/clock.h"
#include "base/text.h"
#include "cli/command.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

enum { LIVE_INTERVAL_MS = 150, PLAIN_INTERVAL_S = 30 };

static struct console {
  bool is_terminal, is_live, quiet;
  double shown_s;
} console;

static int terminal_width(void) {
  struct winsize size;
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20) return size.ws_col;
  return 100;
}

void console_finish(void) {
  if (console.is_live) fputs("\r\033[K", stderr);
  console.is_live = false;
  fflush(stderr);
}

void console_print(const char *text) {
  console_finish();
  if ((puts(text) >= 0 && fflush(stdout) == 0) || errno != EPIPE) return;
  int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (nowhere >= 0) {
    dup2(nowhere, STDOUT_FILENO);
    close(nowhere);
  }
  clearerr(stdout);
}

static void print_line(void *context, const char *text) {
  (void)context;
  console_finish();
  if (!console.quiet) console_print(text);
}

static void add_bar(text_buffer *line, double share) {
  enum { CELLS = 20 };
  int full = (int)(share * CELLS + 0.5);
  for (int i = 0; i < CELLS; i++) text_add(line, "%s", i < full ? "█" : "░");
}

static void describe(const progress *p, text_buffer *line) {
  char eta[24];
  text_add(line, " %3.0f%%", 100 * p->overall);
  if (p->epochs > 0) text_add(line, "  epoch %lld/%lld", (long long)p->epoch, (long long)p->epochs);
  text_add(line, "  %s %lld/%lld", p->unit, (long long)p->done, (long long)p->total);
  text_add(line, "  ETA %s", p->eta_s < 0 ? "…" : format_duration(eta, p->eta_s));
  if (p->voxels_per_s > 0) text_add(line, "  %.2f Mvoxels/s", p->voxels_per_s / 1e6);
  struct rusage usage;
  char memory[24];
  if (!p->is_elsewhere && getrusage(RUSAGE_SELF, &usage) == 0)
    text_add(line, "  %s", format_bytes(memory, (double)usage.ru_maxrss * 1024));
  for (int i = 0; i < p->value_count; i++) text_add(line, "  %s %.4g", p->names[i], p->values[i]);
}

/* Cuts to `columns` characters without splitting one. */
static void cut(char *text, int columns) {
  int seen = 0;
  for (char *p = text; *p; p++) {
    if (((unsigned char)*p & 0xC0) == 0x80) continue;
    if (seen++ == columns) {
      *p = 0;
      return;
    }
  }
}

static void show_progress(void *context, const progress *p) {
  (void)context;
  if (console.quiet) return;
  if (p->overall >= 1 && p->epochs == 0) { /* results follow */
    console_finish();
    return;
  }
  double now = clock_now_s(),
         interval = console.is_terminal ? LIVE_INTERVAL_MS / 1e3 : PLAIN_INTERVAL_S;
  if (console.shown_s == 0 && !console.is_terminal) console.shown_s = now;
  if (now - console.shown_s < interval) return;
  console.shown_s = now;
  text_buffer line = {0};
  text_add(&line, "%s ", p->stage);
  if (console.is_terminal) add_bar(&line, p->overall);
  describe(p, &line);
  if (console.is_terminal) {
    cut(line.data, terminal_width() - 1);
    fprintf(stderr, "\r\033[K%s", line.data);
    console.is_live = true;
  } else {
    fprintf(stderr, "%s\n", line.data);
  }
  fflush(stderr);
  text_free(&line);
}

reporter console_reporter(bool quiet) {
  const char *term = getenv("TERM");
  console.is_terminal = isatty(STDERR_FILENO) && !(term && strcmp(term, "dumb") == 0);
  console.quiet = quiet;
  return (reporter){.line = print_line, .update = show_progress};
}
