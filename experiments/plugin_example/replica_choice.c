#include <stdio.h>

#include "roles.h"

static int Create(const char* options, void** state, char* error, size_t error_size) {
  if (*options != '\0') {
    snprintf(error, error_size, "options: \"%s\" is not understood; there are none", options);
    return 1;
  }
  *state = NULL;
  return 0;
}

static void Destroy(void* state) { (void)state; }

/* The (turn mod n)-th of the n replicas on ranks [first_rank, end_rank); -1 where there is none. */
static int32_t Pick(const int32_t* replicas, int32_t count, int32_t slots_per_rank, int32_t first_rank,
                    int32_t end_rank, int32_t turn) {
  int32_t candidates = 0;
  for (int32_t i = 0; i < count; ++i) {
    const int32_t rank = replicas[i] / slots_per_rank;
    candidates += rank >= first_rank && rank < end_rank;
  }
  if (candidates == 0) return -1;
  int32_t left = turn % candidates;
  for (int32_t i = 0; i < count; ++i) {
    const int32_t rank = replicas[i] / slots_per_rank;
    if (rank >= first_rank && rank < end_rank && left-- == 0) return replicas[i];
  }
  return -1;
}

static int Choose(void* state, const EpsimReplicaRequest* request, int32_t* slots, char* error, size_t error_size) {
  const EpsimShape* const shape = request->shape;
  const int32_t slots_per_rank = shape->slots / shape->ranks;
  const int32_t ranks_per_node = shape->ranks % shape->nodes == 0 ? shape->ranks / shape->nodes : shape->ranks;
  (void)state; /* Nothing is kept, and nothing can fail. */
  (void)error;
  (void)error_size;
  for (int32_t expert = 0; expert < shape->experts; ++expert) {
    const int32_t* const replicas = request->replicas + request->first_replica[expert];
    const int32_t count = request->first_replica[expert + 1] - request->first_replica[expert];
    for (int32_t rank = 0; rank < shape->ranks; ++rank) {
      const int32_t node = rank / ranks_per_node * ranks_per_node;
      int32_t slot = Pick(replicas, count, slots_per_rank, rank, rank + 1, rank);
      if (slot < 0) slot = Pick(replicas, count, slots_per_rank, node, node + ranks_per_node, rank);
      if (slot < 0) slot = Pick(replicas, count, slots_per_rank, 0, shape->ranks, rank);
      slots[(size_t)rank * (size_t)shape->experts + (size_t)expert] = slot;
    }
  }
  return 0;
}

const EpsimReplicaRole kNearFirst = {.create = Create, .destroy = Destroy, .choose = Choose};
