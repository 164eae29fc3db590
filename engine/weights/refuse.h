/* What the readers of weight files say of a file they do not accept. */
#ifndef STRATA_WEIGHTS_REFUSE_H
#define STRATA_WEIGHTS_REFUSE_H

#include "base/status.h"

/* An ERROR_DATA without a place; the caller that knows the path adds it. */
status refuse(const char *format, ...) __attribute__((format(printf, 1, 2), returns_nonnull));

#endif
