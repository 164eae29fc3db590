/* pack, unpack. */
#include "run/pack.h"

#include "cli/command.h"

status command_pack(const arguments *a) {
  const pack_options o = {.from = a->operands[0],
                          .out = a->out,
                          .weights = a->with_weights,
                          .report = console_reporter(false)};
  if (a->list) return pack_list(a->operands[0], &o.report);
  return pack_write(&o);
}

status command_unpack(const arguments *a) {
  const reporter report = console_reporter(false);
  const char *folder = a->out ? a->out : a->operand_count > 1 ? a->operands[1] : NULL;
  if (!folder || (a->out && a->operand_count > 1))
    return error_new(ERROR_USAGE, NOWHERE,
                     "unpack needs one folder: strata unpack PACK DIR, or -o DIR");
  return pack_unpack(a->operands[0], folder, &report);
}
