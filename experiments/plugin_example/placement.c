#include <stdio.h>
#include <stdlib.h>

#include "roles.h"

typedef struct Replica {
  double load;
  int32_t expert;
} Replica;

typedef struct HeaviestFirst {
  EpsimShape shape;
  double decay;
  double* load;       /* [experts], of the layer at hand */
  int32_t* copies;    /* [experts] */
  Replica* replicas;  /* [slots] */
  double* rank_load;  /* [ranks] */
  int32_t* rank_used; /* [ranks], slots */
} HeaviestFirst;

static void Destroy(void* state) {
  HeaviestFirst* const self = state;
  free(self->load);
  free(self->copies);
  free(self->replicas);
  free(self->rank_load);
  free(self->rank_used);
  free(self);
}

static int Create(const char* options, const EpsimShape* shape, void** state, char* error, size_t error_size) {
  double decay = 1;
  char rest;
  if (*options != '\0' && sscanf(options, " decay = %lf %c", &decay, &rest) != 1) {
    snprintf(error, error_size, "options: \"%s\" is not understood; \"decay = 0.9\" would be", options);
    return 1;
  }
  if (!(decay > 0 && decay <= 1)) {
    snprintf(error, error_size, "options: decay: %g is not in (0, 1]", decay);
    return 1;
  }
  HeaviestFirst* const self = calloc(1, sizeof *self);
  if (self == NULL) return 1;
  self->shape = *shape;
  self->decay = decay;
  self->load = calloc((size_t)shape->experts, sizeof *self->load);
  self->copies = calloc((size_t)shape->experts, sizeof *self->copies);
  self->replicas = calloc((size_t)shape->slots, sizeof *self->replicas);
  self->rank_load = calloc((size_t)shape->ranks, sizeof *self->rank_load);
  self->rank_used = calloc((size_t)shape->ranks, sizeof *self->rank_used);
  if (!self->load || !self->copies || !self->replicas || !self->rank_load || !self->rank_used) {
    Destroy(self);
    snprintf(error, error_size, "out of memory");
    return 1;
  }
  *state = self;
  return 0;
}

/* Heaviest first; of equals the lower expert. */
static int Compare(const void* left, const void* right) {
  const Replica* const a = left;
  const Replica* const b = right;
  if (a->load != b->load) return a->load > b->load ? -1 : 1;
  return a->expert - b->expert;
}

/* load[e] = sum over rows r of decay^(rows - 1 - r) * load of r. */
static void SumLoad(HeaviestFirst* self, const EpsimPlacementRequest* request, int32_t layer) {
  const size_t experts = (size_t)self->shape.experts;
  for (size_t expert = 0; expert < experts; ++expert) self->load[expert] = 0;
  for (int32_t row = 0; row < request->rows; ++row) {
    const double* const of_row = request->load + ((size_t)row * (size_t)self->shape.layers + (size_t)layer) * experts;
    for (size_t expert = 0; expert < experts; ++expert) {
      self->load[expert] = self->load[expert] * self->decay + of_row[expert];
    }
  }
}

/* Fills replicas, the heaviest first. */
static void Replicate(HeaviestFirst* self) {
  for (int32_t expert = 0; expert < self->shape.experts; ++expert) self->copies[expert] = 1;
  for (int32_t extra = self->shape.experts; extra < self->shape.slots; ++extra) {
    int32_t hottest = 0;
    for (int32_t expert = 1; expert < self->shape.experts; ++expert) {
      if (self->load[expert] / self->copies[expert] > self->load[hottest] / self->copies[hottest]) hottest = expert;
    }
    ++self->copies[hottest];
  }
  Replica* next = self->replicas;
  for (int32_t expert = 0; expert < self->shape.experts; ++expert) {
    for (int32_t copy = 0; copy < self->copies[expert]; ++copy) {
      next->load = self->load[expert] / self->copies[expert];
      next->expert = expert;
      ++next;
    }
  }
  qsort(self->replicas, (size_t)self->shape.slots, sizeof *self->replicas, Compare);
}

static int Holds(const int32_t* slots, int32_t used, int32_t expert) {
  for (int32_t i = 0; i < used; ++i) {
    if (slots[i] == expert) return 1;
  }
  return 0;
}

/* Deals replicas to the ranks: phy2log [slots] of one layer. */
static void Pack(HeaviestFirst* self, int32_t* phy2log) {
  const int32_t per_rank = self->shape.slots / self->shape.ranks;
  for (int32_t rank = 0; rank < self->shape.ranks; ++rank) {
    self->rank_load[rank] = 0;
    self->rank_used[rank] = 0;
  }
  for (int32_t i = 0; i < self->shape.slots; ++i) {
    const Replica replica = self->replicas[i];
    int32_t best = -1;
    int best_holds = 0;
    for (int32_t rank = 0; rank < self->shape.ranks; ++rank) {
      if (self->rank_used[rank] == per_rank) continue;
      const int holds = Holds(phy2log + (size_t)rank * (size_t)per_rank, self->rank_used[rank], replica.expert);
      if (best < 0 || holds < best_holds || (holds == best_holds && self->rank_load[rank] < self->rank_load[best])) {
        best = rank;
        best_holds = holds;
      }
    }
    phy2log[best * per_rank + self->rank_used[best]++] = replica.expert;
    self->rank_load[best] += replica.load;
  }
}

static int Place(void* state, const EpsimPlacementRequest* request, int32_t* phy2log, char* error, size_t error_size) {
  HeaviestFirst* const self = state;
  (void)error; /* Nothing can fail. */
  (void)error_size;
  for (int32_t i = 0; i < request->asked; ++i) {
    const int32_t layer = request->layers_asked[i];
    SumLoad(self, request, layer);
    Replicate(self);
    Pack(self, phy2log + (size_t)layer * (size_t)self->shape.slots);
  }
  return 0;
}

const EpsimPlacementRole kHeaviestFirst = {.create = Create, .destroy = Destroy, .place = Place};
