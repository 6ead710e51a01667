/* A plug-in that does wrong, in the way that its options name.  Built in several versions:
   FAULTY_ABI        the version that it claims
   FAULTY_NULL       it serves no version
   FAULTY_LINK       it needs a function that nobody has
   FAULTY_NO_ROLES   it plays none
   FAULTY_NO_CALLS   its roles lack their calls */
#include <epsim/epsim_plugin.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef FAULTY_ABI
#define FAULTY_ABI EPSIM_PLUGIN_ABI
#endif
#if defined(FAULTY_NO_ROLES)
#define FAULTY_ROLE(role) NULL
#else
#define FAULTY_ROLE(role) (&(role))
#endif
#if defined(FAULTY_NO_CALLS)
#define FAULTY_CALL(call) NULL
#else
#define FAULTY_CALL(call) (call)
#endif

/* How many instances there are.  For the test to look up. */
EPSIM_PLUGIN_EXPORT int faulty_instances = 0;

typedef struct Faulty {
  char fault[64];
  EpsimShape shape;
} Faulty;

/* A failure that is not one line of text. */
static int FailLoudly(char* error, size_t error_size) {
  memset(error, 'x', error_size);
  return 1;
}

static int Create(const char* options, const EpsimShape* shape, void** state, char* error, size_t error_size) {
  if (strcmp(options, "create: fails") == 0) {
    snprintf(error, error_size, "options: \"%s\" is no fault", options);
    return 7;
  }
  if (strcmp(options, "create: fails silently") == 0) return 7;
  if (strcmp(options, "create: fails loudly") == 0) return FailLoudly(error, error_size);
  Faulty* const self = calloc(1, sizeof *self);
  if (self == NULL) return 1;
  strncpy(self->fault, options, sizeof self->fault - 1);
  self->shape = *shape;
  ++faulty_instances;
  *state = self;
  return 0;
}

static void Destroy(void* state) {
  --faulty_instances;
  free(state);
}

static int Is(const Faulty* self, const char* fault) { return strcmp(self->fault, fault) == 0; }

/* Appends numbers in brackets to what `text` holds. */
static void Print(char* text, size_t size, const char* name, const double* reals, const int32_t* whole, size_t count) {
  size_t length = strlen(text);
  length += (size_t)snprintf(text + length, size - length, " %s [", name);
  for (size_t i = 0; i < count; ++i) {
    length += (size_t)snprintf(text + length, size - length, "%s%g", i > 0 ? " " : "", reals ? reals[i] : whole[i]);
  }
  snprintf(text + length, size - length, "]");
}

static int Place(void* state, const EpsimPlacementRequest* request, int32_t* phy2log, char* error, size_t error_size) {
  const Faulty* const self = state;
  const EpsimShape* const shape = &self->shape;
  const size_t cells = (size_t)shape->layers * (size_t)shape->experts;
  const size_t places = (size_t)shape->layers * (size_t)shape->slots;
  if (Is(self, "place: fails")) {
    snprintf(error, error_size, "the moon\nis\tfull\n");
    return -3;
  }
  if (Is(self, "place: fails silently")) return -3;
  if (Is(self, "place: fails loudly")) return FailLoudly(error, error_size);
  if (Is(self, "place: tells")) { /* What it was given. */
    snprintf(error, error_size,
             "%" PRId32 " layers %" PRId32 " experts %" PRId32 " slots %" PRId32 " ranks %" PRId32 " nodes %" PRId32
             " groups %" PRId64 " steps a row seed %" PRIu64,
             shape->layers, shape->experts, shape->slots, shape->ranks, shape->nodes, shape->expert_groups,
             request->steps_per_row, request->seed);
    Print(error, error_size, "load", request->load, NULL, (size_t)request->rows * cells);
    Print(error, error_size, "asked", NULL, request->layers_asked, (size_t)request->asked);
    if (request->previous) Print(error, error_size, "previous", NULL, request->previous, places);
    if (request->time_per_token) Print(error, error_size, "time", request->time_per_token, NULL, cells);
    Print(error, error_size, "phy2log", NULL, phy2log, places);
    return 1;
  }
  if (Is(self, "place: scribbles")) { /* Over layers that nobody asked for, too. */
    for (size_t i = 0; i < places; ++i) phy2log[i] = (int32_t)(i % (size_t)shape->slots) % shape->experts;
    return 0;
  }
  for (int32_t i = 0; i < request->asked; ++i) {
    int32_t* const of_layer = phy2log + (size_t)request->layers_asked[i] * (size_t)shape->slots;
    for (int32_t slot = 0; slot < shape->slots; ++slot) of_layer[slot] = slot % shape->experts;
    if (i + 1 < request->asked) continue; /* The last layer is wrong. */
    if (Is(self, "place: too large")) of_layer[1] = shape->experts;
    if (Is(self, "place: negative")) of_layer[1] = -2;
    if (Is(self, "place: left empty")) of_layer[2] = EPSIM_NO_EXPERT;
    if (Is(self, "place: expert missing")) of_layer[1] = 0;
  }
  return 0;
}

static int CreateReplicaChoice(const char* options, void** state, char* error, size_t error_size) {
  const EpsimShape none = {0};
  return Create(options, &none, state, error, error_size);
}

/* The first replica, but for expert 1 from the last rank. */
static int ChooseReplicas(void* state, const EpsimReplicaRequest* request, int32_t* slots, char* error,
                          size_t error_size) {
  const Faulty* const self = state;
  const EpsimShape* const shape = request->shape;
  if (Is(self, "choose: fails")) {
    snprintf(error, error_size, "no slot will do");
    return 1;
  }
  if (Is(self, "choose: tells")) {
    snprintf(error, error_size,
             "%" PRId32 " layers %" PRId32 " experts %" PRId32 " slots %" PRId32 " ranks %" PRId32 " nodes %" PRId32
             " groups layer %" PRId32 " seed %" PRIu64,
             shape->layers, shape->experts, shape->slots, shape->ranks, shape->nodes, shape->expert_groups,
             request->layer, request->seed);
    Print(error, error_size, "phy2log", NULL, request->phy2log, (size_t)shape->slots);
    Print(error, error_size, "first", NULL, request->first_replica, (size_t)shape->experts + 1);
    Print(error, error_size, "replicas", NULL, request->replicas, (size_t)request->first_replica[shape->experts]);
    Print(error, error_size, "slots", NULL, slots, (size_t)(shape->ranks * shape->experts));
    return 1;
  }
  for (int32_t i = 0; i < shape->ranks * shape->experts; ++i) {
    slots[i] = request->replicas[request->first_replica[i % shape->experts]];
  }
  int32_t* const wrong = slots + (shape->ranks - 1) * shape->experts + 1;
  if (Is(self, "choose: too large")) *wrong = shape->slots;
  if (Is(self, "choose: negative")) *wrong = -2;
  if (Is(self, "choose: left empty")) *wrong = -1;
  if (Is(self, "choose: other expert")) *wrong = request->replicas[request->first_replica[0]];
  if (Is(self, "choose: lost slot")) { /* One that holds nothing. */
    for (int32_t slot = 0; slot < shape->slots; ++slot) {
      if (request->phy2log[slot] == EPSIM_NO_EXPERT) *wrong = slot;
    }
  }
  return 0;
}

static int CreateRouting(const char* options, const EpsimRoutingShape* shape, void** state, char* error,
                         size_t error_size) {
  const EpsimShape some = {.layers = shape->layers, .experts = shape->experts, .slots = shape->top_k};
  return Create(options, &some, state, error, error_size); /* slots: top_k */
}

/* Layer 0 is left to the router in odd steps. */
static void BeginStep(void* state, int64_t step, int64_t tokens, uint8_t* routes) {
  (void)state;
  if (step % 2 == 1 || tokens == 0) routes[0] = 0;
}

static void EndStep(void* state, const int32_t* router_load) {
  Faulty* const self = state;
  if (Is(self, "end: remembers")) { /* The load of the last layer's last expert, for Route to tell. */
    self->shape.ranks = router_load[self->shape.layers * self->shape.experts - 1];
  }
}

/* The own experts backwards, with a gap before them where there are fewer than top_k. */
static int Route(const void* state, const EpsimRoutingRequest* request, int32_t* experts, char* error,
                 size_t error_size) {
  const Faulty* const self = state;
  const size_t top_k = (size_t)self->shape.slots, tokens = (size_t)request->tokens;
  if (Is(self, "route: fails")) {
    snprintf(error, error_size, "no way from layer %" PRId32, request->layer);
    return 1;
  }
  if (Is(self, "route: tells") || (Is(self, "end: remembers") && request->step == 1)) {
    snprintf(error, error_size,
             "%" PRId32 " layers %" PRId32 " experts %zu top_k remembered %" PRId32 " step %" PRId64 " layer %" PRId32
             " tokens %" PRId32,
             self->shape.layers, self->shape.experts, top_k, self->shape.ranks, request->step, request->layer,
             request->tokens);
    double scores[8] = {0};
    const size_t count = tokens * (size_t)self->shape.experts;
    for (size_t i = 0; i < count && i < 8; ++i) scores[i] = request->scores[i];
    Print(error, error_size, "scores", scores, NULL, count < 8 ? count : 8);
    Print(error, error_size, "own", NULL, request->own, tokens * top_k);
    Print(error, error_size, "experts", NULL, experts, tokens * top_k);
    return 1;
  }
  for (size_t token = 0; token < tokens; ++token) {
    for (size_t k = 0; k < top_k; ++k) experts[token * top_k + k] = request->own[token * top_k + top_k - 1 - k];
  }
  int32_t* const wrong = experts + (tokens - 1) * top_k; /* The last token's first. */
  if (Is(self, "route: too large")) *wrong = self->shape.experts;
  if (Is(self, "route: negative")) *wrong = -2;
  if (Is(self, "route: twice")) *wrong = wrong[1];
  if (Is(self, "route: none")) {
    for (size_t k = 0; k < top_k; ++k) wrong[k] = EPSIM_NO_EXPERT;
  }
  return 0;
}

#if defined(FAULTY_LINK)
void epsim_test_nobody_has_this(void);
#endif

const EpsimPlugin* epsim_plugin(uint32_t abi_version) {
#if defined(FAULTY_LINK)
  epsim_test_nobody_has_this();
#endif
  static const EpsimPlacementRole kPlacement = {.create = Create, .destroy = Destroy, .place = FAULTY_CALL(Place)};
  static const EpsimReplicaRole kReplicaChoice = {
      .create = CreateReplicaChoice, .destroy = Destroy, .choose = FAULTY_CALL(ChooseReplicas)};
  static const EpsimRoutingRole kRouting = {.create = CreateRouting,
                                            .destroy = Destroy,
                                            .begin_step = BeginStep,
                                            .route = FAULTY_CALL(Route),
                                            .end_step = EndStep};
  static const EpsimPlugin kPlugin = {.abi_version = FAULTY_ABI,
                                      .placement = FAULTY_ROLE(kPlacement),
                                      .replica_choice = FAULTY_ROLE(kReplicaChoice),
                                      .routing = FAULTY_ROLE(kRouting)};
#if defined(FAULTY_NULL)
  (void)kPlugin;
  (void)abi_version;
  return NULL;
#else
  return abi_version == EPSIM_PLUGIN_ABI ? &kPlugin : NULL;
#endif
}
