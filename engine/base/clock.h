/* Time that only goes forward. */
#ifndef STRATA_BASE_CLOCK_H
#define STRATA_BASE_CLOCK_H

/* Seconds since some fixed moment. */
double clock_now_s(void);

#endif
