#include <stdio.h>
#include <stdlib.h>

#include "roles.h"

typedef struct BestOnly {
  EpsimRoutingShape shape;
  int32_t keep;
} BestOnly;

static int Create(const char* options, const EpsimRoutingShape* shape, void** state, char* error, size_t error_size) {
  int keep = shape->top_k;
  char rest;
  if (*options != '\0' && sscanf(options, " keep = %d %c", &keep, &rest) != 1) {
    snprintf(error, error_size, "options: \"%s\" is not understood; \"keep = %d\" would be", options, shape->top_k);
    return 1;
  }
  if (keep < 1 || keep > shape->top_k) {
    snprintf(error, error_size, "options: keep: %d is none of 1 to %d", keep, shape->top_k);
    return 1;
  }
  BestOnly* const self = malloc(sizeof *self);
  if (self == NULL) {
    snprintf(error, error_size, "out of memory");
    return 1;
  }
  self->shape = *shape;
  self->keep = keep;
  *state = self;
  return 0;
}

static void Destroy(void* state) { free(state); }

/* Place p of a token: of its own experts the one that p of them score higher than (of equals the first stands higher).
 */
static int Route(const void* state, const EpsimRoutingRequest* request, int32_t* experts, char* error,
                 size_t error_size) {
  const BestOnly* const self = state;
  const size_t top_k = (size_t)self->shape.top_k;
  (void)error; /* Nothing can fail. */
  (void)error_size;
  for (size_t token = 0; token < (size_t)request->tokens; ++token) {
    const float* const scores = request->scores + token * (size_t)self->shape.experts;
    const int32_t* const own = request->own + token * top_k;
    for (size_t i = 0; i < top_k && own[i] != EPSIM_NO_EXPERT; ++i) {
      int32_t better = 0;
      for (size_t j = 0; j < top_k && own[j] != EPSIM_NO_EXPERT; ++j) {
        better += scores[own[j]] > scores[own[i]] || (scores[own[j]] == scores[own[i]] && j < i);
      }
      if (better < self->keep) experts[token * top_k + (size_t)better] = own[i];
    }
  }
  return 0;
}

const EpsimRoutingRole kBestOnly = {.create = Create, .destroy = Destroy, .route = Route};
