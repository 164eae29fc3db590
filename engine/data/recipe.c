#include "data/recipe.h"

#include "graph/op.h"

#include <stdlib.h>
#include <string.h>

const op change_move_voxels = {.name = "move_voxels"};

enum { PARAMETERS_ALIGN = 16 };

static status make_room(recipe *r, size_t bytes) {
  if (r->count == r->room) {
    int room = r->room ? 2 * r->room : 8;
    change *list = realloc(r->list, (size_t)room * sizeof *list);
    if (!list) return error_out_of_memory((size_t)room * sizeof *list);
    r->list = list;
    r->room = room;
  }
  if (r->used + bytes <= r->bytes) return OK;
  size_t wanted = 2 * r->bytes > r->used + bytes ? 2 * r->bytes : r->used + bytes;
  unsigned char *memory = realloc(r->memory, wanted);
  if (!memory) return error_out_of_memory(wanted);
  r->memory = memory;
  r->bytes = wanted;
  return OK;
}

status recipe_add(recipe *r, const op *o, change_sort sort, const void *parameters, size_t bytes,
                  const int64_t size[3]) {
  size_t padded = (bytes + PARAMETERS_ALIGN - 1) / PARAMETERS_ALIGN * PARAMETERS_ALIGN;
  TRY(make_room(r, padded));
  change *c = &r->list[r->count++];
  *c = (change){.op = o, .sort = sort, .at = r->used, .size = {size[0], size[1], size[2]}};
  memcpy(r->memory + r->used, parameters, bytes);
  r->used += padded;
  return OK;
}

const void *recipe_parameters(const recipe *r, const change *c) {
  return r->memory + c->at;
}

void recipe_clear(recipe *r) {
  r->count = 0;
  r->used = 0;
}

void recipe_free(recipe *r) {
  free(r->list);
  free(r->memory);
  *r = (recipe){0};
}
