/* What readers of binary files say of one they do not accept. */
#ifndef STRATA_BASE_REFUSE_H
#define STRATA_BASE_REFUSE_H

#include "base/status.h"

/* An ERROR_DATA without a place; the caller that knows the path adds it. */
status refuse(const char *format, ...) __attribute__((format(printf, 1, 2), returns_nonnull));

#endif
