/* The rotations that random_turn chooses from, for its CPU and its CUDA kernel. */
#ifndef STRATA_OPS_TURNS_H
#define STRATA_OPS_TURNS_H

#include <stdint.h>

/* Axis a of the result runs along axis `axis[a]` of the image, backwards where `flip[a]`. */
typedef struct turn {
  uint8_t axis[3], flip[3];
} turn;

/* The rotations of a cube: none; by 90°, 180° and 270° about z, x and y; and the other 14. About z,
 * 90° takes the x axis to the y axis; the others follow cyclically. */
static const turn cube_turns[24] = {
    {{0, 1, 2}, {0, 0, 0}}, {{1, 0, 2}, {1, 0, 0}}, {{0, 1, 2}, {1, 1, 0}}, {{1, 0, 2}, {0, 1, 0}},
    {{0, 2, 1}, {0, 1, 0}}, {{0, 1, 2}, {0, 1, 1}}, {{0, 2, 1}, {0, 0, 1}}, {{2, 1, 0}, {0, 0, 1}},
    {{0, 1, 2}, {1, 0, 1}}, {{2, 1, 0}, {1, 0, 0}}, {{2, 0, 1}, {0, 0, 0}}, {{2, 1, 0}, {0, 1, 0}},
    {{2, 0, 1}, {0, 1, 1}}, {{1, 0, 2}, {0, 0, 1}}, {{1, 0, 2}, {1, 1, 1}}, {{2, 0, 1}, {1, 0, 1}},
    {{2, 1, 0}, {1, 1, 1}}, {{2, 0, 1}, {1, 1, 0}}, {{1, 2, 0}, {1, 1, 0}}, {{0, 2, 1}, {1, 1, 1}},
    {{1, 2, 0}, {0, 1, 1}}, {{0, 2, 1}, {1, 0, 0}}, {{1, 2, 0}, {0, 0, 0}}, {{1, 2, 0}, {1, 0, 1}},
};

#endif
