/* weights: list, diff, import. */
#include "weights/import.h"

#include "base/text.h"
#include "cli/command.h"

#include <math.h>
#include <string.h>

static status list_weights(const char *path, const char *key) {
  reporter report = console_reporter(false);
  weights w;
  TRY(weights_open(path, key, &w, &report));
  int64_t total = 0;
  for (int i = 0; i < w.count; i++) {
    char text[96];
    const tensor *t = &w.list[i].tensor;
    total += shape_elements(&t->shape);
    printf("%-56s %-4s %-24s", w.list[i].name, dtype_name(t->dtype), shape_format(text, &t->shape));
    if (t->dtype == DTYPE_F32) printf(" norm %.6g", tensor_norm(t));
    printf("\n");
  }
  for (const char *const *m = w.metadata; m && m[0]; m += 2) printf("# %s: %s\n", m[0], m[1]);
  printf("%d tensors, %lld numbers\n", w.count, (long long)total);
  weights_close(&w);
  return OK;
}

/* ---- diff --------------------------------------------------------------------------------- */

static double number_at(const tensor *t, int64_t i) {
  return t->dtype == DTYPE_F32 ? (double)((const float *)t->data)[i]
                               : (double)((const int32_t *)t->data)[i];
}

typedef struct difference {
  double largest, scale; /* of |a − b| and of |a| */
  double norms[2];
} difference;

static difference measure(const tensor *a, const tensor *b) {
  difference d = {0};
  for (int64_t i = 0; i < shape_elements(&a->shape); i++) {
    double x = number_at(a, i), y = number_at(b, i), apart = fabs(x - y);
    if (apart > d.largest || isnan(apart)) d.largest = apart;
    if (fabs(x) > d.scale) d.scale = fabs(x);
    d.norms[0] += x * x;
    d.norms[1] += y * y;
  }
  for (int i = 0; i < 2; i++) d.norms[i] = sqrt(d.norms[i]);
  return d;
}

/* Do two tensors of one shape and type differ? *worst: the largest relative difference so far. */
static bool print_difference(const named_tensor *a, const named_tensor *b, double within,
                             double *worst) {
  if (memcmp(a->tensor.data, b->tensor.data, tensor_bytes(&a->tensor)) == 0) return false;
  difference d = measure(&a->tensor, &b->tensor);
  double relative = d.largest == 0 ? 0 : d.largest / d.scale; /* −0 and 0 differ in bits */
  if (within > 0 && relative <= within) {
    if (relative > *worst) *worst = relative;
    return false;
  }
  printf("differs by %-8.3g relative %-8.3g norms %-9.6g %-9.6g %s\n", d.largest, relative,
         d.norms[0], d.norms[1], a->name);
  return true;
}

static int compare_weights(const weights *a, const weights *b, double within, double *worst) {
  int different = 0;
  for (int i = 0; i < a->count; i++) {
    const named_tensor *x = &a->list[i], *y = weights_find(b, x->name);
    char here[96], there[96];
    if (!y)
      printf("only in the first   %s\n", x->name);
    else if (!shape_equal(&x->tensor.shape, &y->tensor.shape) || x->tensor.dtype != y->tensor.dtype)
      printf("another shape       %s %s, %s %s: %s\n", dtype_name(x->tensor.dtype),
             shape_format(here, &x->tensor.shape), dtype_name(y->tensor.dtype),
             shape_format(there, &y->tensor.shape), x->name);
    else if (!print_difference(x, y, within, worst))
      continue;
    different++;
  }
  for (int i = 0; i < b->count; i++)
    if (!weights_find(a, b->list[i].name)) {
      printf("only in the second  %s\n", b->list[i].name);
      different++;
    }
  return different;
}

static status diff_weights(const arguments *a) {
  reporter report = console_reporter(false);
  weights first, second;
  double worst = 0;
  TRY(weights_open(a->operands[1], a->key, &first, &report));
  status error = weights_open(a->operands[2], a->key, &second, &report);
  if (!error) {
    int different = compare_weights(&first, &second, a->within, &worst);
    if (different > 0)
      error = error_new(ERROR_DATA, NOWHERE, "%d tensor%s differ%s", different,
                        different == 1 ? "" : "s", different == 1 ? "s" : "");
    else if (a->within > 0)
      printf("%d tensor%s, the same within %.3g\n", first.count, first.count == 1 ? "" : "s",
             worst);
    else
      printf("%d tensor%s, every bit the same\n", first.count, first.count == 1 ? "" : "s");
    weights_close(&second);
  }
  weights_close(&first);
  return error;
}

/* ---- import ------------------------------------------------------------------------------- */

static status import_weights(const arguments *a) {
  if (!a->out)
    return error_new(ERROR_USAGE, NOWHERE, "say where the weights go: -o OUT.safetensors");
  if (!text_ends_with(a->out, ".safetensors"))
    return error_new(ERROR_USAGE, NOWHERE, "-o names a .safetensors file, not %s", a->out);
  reporter report = console_reporter(false);
  const weight_source source = {.path = a->operands[1], .key = a->key, .map = a->map};
  weights w;
  TRY(weights_import(&source, &w, &report));
  const char *slash = strrchr(source.path, '/');
  const char *metadata[] = {"imported from", slash ? slash + 1 : source.path, NULL};
  status error = weights_write(a->out, w.list, w.count, metadata);
  int64_t total = 0;
  for (int i = 0; i < w.count; i++) total += shape_elements(&w.list[i].tensor.shape);
  if (!error) printf("%s: %d tensors, %lld numbers\n", a->out, w.count, (long long)total);
  weights_close(&w);
  return error;
}

status command_weights(const arguments *a) {
  static const char *const actions[] = {"diff", "import"};
  const char *first = a->operands[0];
  bool diff = strcmp(first, actions[0]) == 0, import = strcmp(first, actions[1]) == 0;
  if (!import && (a->out || a->map))
    return error_new(ERROR_USAGE, NOWHERE, "%s goes with strata weights import",
                     a->out ? "-o" : "--map");
  if (!diff && a->within > 0)
    return error_new(ERROR_USAGE, NOWHERE, "--within goes with strata weights diff");
  if (diff && a->operand_count == 3) return diff_weights(a);
  if (import && a->operand_count == 2) return import_weights(a);
  if (!diff && !import && a->operand_count == 1) return list_weights(first, a->key);
  const char *near = a->operand_count > 1 ? nearest_name(first, actions, 2) : NULL;
  return error_new(
      ERROR_USAGE, NOWHERE,
      "usage: strata weights FILE, strata weights diff A B, or strata weights import IN "
      "-o OUT%s%s%s",
      near && !diff && !import ? "; did you mean \"strata weights " : "",
      near && !diff && !import ? near : "", near && !diff && !import ? "\"?" : "");
}
