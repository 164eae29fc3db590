/* The files that a lock holds. What else stands in it belongs to run/lock.h. */
#include <string.h>

#include "language/load.h"

const char lock_key[] = "lock";

/* One of `files:`, {name: …, hash: …, text: …}. */
static status open_file(pipeline *p, const tree *item) {
  const tree *name = item->kind == TREE_MAP ? tree_get(item, "name") : NULL;
  const tree *text = item->kind == TREE_MAP ? tree_get(item, "text") : NULL;
  bool is_text =
      name && text && name->kind == TREE_SCALAR && text->kind == TREE_SCALAR && name->text[0];
  if (!is_text)
    return error_new(ERROR_PIPELINE, item->at,
                     "lock: files: expected {name: …, hash: …, text: …}.");
  if (strcmp(name->text, normal_name(&p->memory, "", name->text)) != 0)
    return error_new(ERROR_PIPELINE, name->at, "lock: files: this name has parts to no purpose.");
  if (bundle_find(p->inside, name->text))
    return error_new(ERROR_PIPELINE, name->at, "lock: files: two have this name.");
  bundle_add(p->inside, &p->memory,
             (bundle_file){.name = name->text, .text = text->text, .length = strlen(text->text)});
  return OK;
}

status lock_open_files(pipeline *p, const source *file, const tree *lock) {
  if (!p->inside) {
    p->inside = arena_alloc(&p->memory, sizeof *p->inside);
    p->inside->owner = intern_file(file->path);
  }
  char shown[96];
  if (lock->kind != TREE_MAP)
    return error_new(ERROR_PIPELINE, lock->at, "lock must be a mapping, not %s.",
                     tree_describe(lock, shown));
  const tree *files = tree_get(lock, "files");
  if (!files || (files->kind != TREE_LIST && !tree_is_null(files)))
    return error_new(ERROR_PIPELINE, lock->at, "lock needs \"files\", a list.");
  problems all = {0};
  for (int i = 0; i < files->count; i++) problems_add(&all, open_file(p, files->items[i]));
  return problems_take(&all);
}
