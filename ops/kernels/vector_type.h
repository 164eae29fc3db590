/* The vectors of a kernel that is written once for every instruction set. */
#ifndef STRATA_OPS_VECTOR_TYPE_H
#define STRATA_OPS_VECTOR_TYPE_H

/* The type of `lanes` numbers in a vector, which may lie wherever such a number may. In two steps: gcc 14
 * for AArch64 breaks off at a parameter whose type got alignment and may_alias in one. */
#define VECTOR_TYPE(name, number, lanes)                                                           \
  typedef number name##_aligned __attribute__((vector_size((lanes) * sizeof(number)), may_alias)); \
  typedef name##_aligned name __attribute__((aligned(sizeof(number))))

#endif
