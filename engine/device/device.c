#include "device/device.h"

#include "base/device_name.h"
#include "device/cpu.h"
#include "device/cuda.h"

status device_open(const char *name, int threads, device **out, char *why) {
  *out = NULL;
  if (why) why[0] = 0;
  device_kind kind;
  int card;
  if (!device_name_read(name, &kind, &card))
    return error_new(ERROR_USAGE, NOWHERE, "unknown device %s; there are " DEVICE_NAMES, name);
  if (kind == DEVICE_CPU) return cpu_device_open(threads, out);
  if (kind == DEVICE_CUDA)
    return error_prefix(cuda_device_open(card, threads, out), "device: %s", name);
  status error = cuda_device_open(0, threads, out);
  if (!error) return OK;
  if (why) snprintf(why, 200, "%s, so the CPU is used", error_message(error));
  error_free(error);
  return cpu_device_open(threads, out);
}

void device_close(device *d) {
  if (d) d->close(d);
}

const char *device_precision_note(const device *d, precision p) {
  if (p == PRECISION_BF16 && d->rounds_bf16)
    return "warning: bf16 is no faster than f32 on this processor: factors are rounded to it and "
           "multiplied as f32";
  if (p == PRECISION_TF32 && !d->has_tf32)
    return "note: tf32 is a format of NVIDIA GPUs; on the CPU these products are f32";
  return NULL;
}

int device_plan_threads(const device *d) {
  return d->reserve ? 0 : pool_threads(d->pool);
}
