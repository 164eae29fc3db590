/* From the names in a weight file to those of a network, by rules in a small YAML file:
 *
 *   strata: 1
 *   strip: [module., backbone.]      # of each name, the first prefix that fits is taken off
 *   drop: ["head.*"]                 # then these are left out
 *   rename:                          # of the others, the first rule that fits counts
 *     - {from: "encoder.*.bn.*", to: "encoder.*.norm.*"}
 *
 * A star stands for any text, as little of it as fits; the stars of `to` repeat what those of
 * `from` stood for, in order. A rule that fits no name is an error (of `strip`: when no prefix
 * fits), and so are two tensors that would get one name. */
#ifndef STRATA_WEIGHTS_NAMES_H
#define STRATA_WEIGHTS_NAMES_H

#include "base/arena.h"
#include "base/status.h"

typedef struct name_rules name_rules;

/* Lives in `memory`. Errors stand at their lines. */
status name_rules_load(arena *memory, const char *path, const name_rules **out);
/* out[i] is what names[i] becomes, NULL when it is left out; in `memory` or the name itself. */
status name_rules_apply(const name_rules *rules, const char *const *names, int count, arena *memory,
                        const char **out);
/* Length of what wrappers put in front of every name ("module.", "_orig_mod.", "net." …), when all
 * names share it; else 0. */
size_t names_common_wrapper(const char *const *names, int count);

#endif
