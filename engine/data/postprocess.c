#include "data/postprocess.h"

status postprocess_check(const op_use *uses, int count, int64_t classes) {
  problems found = {0};
  for (int i = 0; i < count; i++) {
    const int_list *chosen = attr_integers(uses[i].op, uses[i].attrs, "classes");
    const int64_t *replace = attr_integer(uses[i].op, uses[i].attrs, "replace");
    int64_t highest = replace ? *replace : 0;
    for (int k = 0; chosen && k < chosen->count; k++)
      if (chosen->at[k] > highest) highest = chosen->at[k];
    if (highest >= classes)
      problems_add(&found,
                   error_new(ERROR_PIPELINE, uses[i].at,
                             "evaluate: postprocess: %s has class %lld, but the classes end "
                             "with %lld.",
                             uses[i].op->name, (long long)highest, (long long)classes - 1));
  }
  return problems_take(&found);
}

status postprocess(const op_use *uses, int count, labels *segmentation) {
  for (int i = 0; i < count; i++)
    TRY(error_prefix(uses[i].op->labels(uses[i].attrs, segmentation), "%s", uses[i].op->name));
  return OK;
}
