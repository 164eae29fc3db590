/* What signals do. People, schedulers and shells ask a program to end in many ways: Ctrl-C, kill and
 * timeout(1), the end of a job's time, preemption, a line that is hung up. A command that can stop in
 * order does so at the first of them, and a run then has its state saved. */
#include "base/clock.h"
#include "cli/command.h"
#include "run/run.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

typedef struct stop_signal {
  int number;
  const char *message;
} stop_signal;

static const stop_signal stop_signals[] = {
    {SIGINT, "\nstopping after this step; press Ctrl-C again to stop at once\n"},
    {SIGTERM, "\nstopping after this step (SIGTERM)\n"},
    {SIGHUP, "\nstopping after this step (SIGHUP)\n"},
    {SIGUSR1, "\nstopping after this step (SIGUSR1)\n"},
    {SIGUSR2, "\nstopping after this step (SIGUSR2)\n"},
    {SIGXCPU, "\nstopping after this step (SIGXCPU)\n"},
};

/* Only a second Ctrl-C ends the program at once. Other signals come in numbers: timeout(1) sends its own
 * to the program and then to the group it is in, a scheduler to every process of a job, again and
 * again. What comes together is one press of Ctrl-C, too. */
static bool is_pressed_again(void) {
  enum { TOGETHER_MS = 100 };
  static _Atomic int64_t pressed_ms;
  int64_t before = pressed_ms, now = (int64_t)(clock_now_s() * 1000);
  if (!before) pressed_ms = now;
  return before && now - before > TOGETHER_MS;
}

static void stop_in_order(int number) {
  if (number == SIGINT && is_pressed_again()) {
    signal(number, SIG_DFL);
    raise(number);
    return;
  }
  if (run_stop_requested()) return;
  int before = errno; /* of what was interrupted */
  run_request_stop();
  for (size_t i = 0; i < sizeof stop_signals / sizeof *stop_signals; i++) {
    if (stop_signals[i].number != number) continue;
    const char *text = stop_signals[i].message;
    ssize_t ignored = write(STDERR_FILENO, text, strlen(text));
    (void)ignored;
  }
  errno = before;
}

void signals_prepare(bool stops_in_order) {
  /* Over a file size limit a write then fails with a message instead of ending the program. */
  signal(SIGXFSZ, SIG_IGN);
  if (!stops_in_order) return;
  /* Who read the output may be gone before a run is: tee, on the same Ctrl-C. */
  signal(SIGPIPE, SIG_IGN);
  /* It stops after a step, not in the midst of a file that is being read or written. */
  struct sigaction action = {.sa_handler = stop_in_order, .sa_flags = SA_RESTART}, before;
  for (size_t i = 0; i < sizeof stop_signals / sizeof *stop_signals; i++) {
    int number = stop_signals[i].number;
    bool is_nohup =
        number == SIGHUP && sigaction(number, NULL, &before) == 0 && before.sa_handler == SIG_IGN;
    if (!is_nohup) sigaction(number, &action, NULL);
  }
}
