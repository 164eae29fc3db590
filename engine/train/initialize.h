/* How a stage's layers start when the stage says so itself (`initialize:`): linear layers and
 * convolutions, which are the operators with the attribute `init`. */
#ifndef STRATA_TRAIN_INITIALIZE_H
#define STRATA_TRAIN_INITIALIZE_H

#include "execute/program.h"
#include "language/pipeline.h"
#include "run/report.h"

/* Gives the weights and biases of all such layers the initializer's distribution; before the
 * parameters are created. Nothing when the stage names no initializer. */
void initialize_choose(const op_use *initializer, graph *g);
bool initialize_needs_data(const op_use *initializer);
/* lsuv, with a batch and its keys written to `p`: scales the fresh ones among the layers' weights,
 * one after the other in the order they run, and reports each. */
status initialize_layers(const op_use *initializer, program *p, const char *stage,
                         const reporter *report);

#endif
