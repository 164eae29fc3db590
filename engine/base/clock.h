/* Time that only goes forward, and the time of day. */
#ifndef STRATA_BASE_CLOCK_H
#define STRATA_BASE_CLOCK_H

/* Seconds since some fixed moment. */
double clock_now_s(void);
/* Seconds since 1970 by the machine's clock, which may be set. Results do not depend on it. */
double clock_wall_s(void);

#endif
