/* A balancing policy from outside: what a shared library must offer so that epsim calls it in the middle of a
   simulation.

   The library exports one function, epsim_plugin, which returns a table of the roles that the library plays.  A role
   decides one thing: which expert each slot holds (placement), which replica of an expert a rank sends its tokens to
   (replica choice), which experts a token goes to (routing).  An experiment names the library for each role by itself:

     placement { plugin { library: "libmine.so" options: "decay = 0.9" } }
     replica_choice { plugin { library: "libmine.so" } }
     routing { plugin { library: "libmine.so" options: "keep = 3" } }

   Words.  A logical expert is one of the model's experts in a layer; a slot is one place that holds a copy of one (a
   physical expert).  A rank is one GPU of the expert-parallel group and holds slots / ranks consecutive slots; a node
   is one NVLink domain and holds ranks / nodes consecutive ranks.  Layers are the MoE layers, counted from 0.

   Arrays are plain: a comment gives the shape, the last index runs fastest.  What epsim passes in belongs to epsim and
   is valid until the call returns.  What comes back is checked, and a wrong answer ends the run with the place and the
   value.

   Calls.  create makes an instance from the text of the experiment's `options` (empty where it has none; ends in a
   zero) and leaves it in *state, which may stay null; options that are not understood are an error that says what would
   be.  An experiment that names a role makes one instance or more, and may not use all of them.  The calls on one
   instance come one after the other, on any thread, unless it says otherwise below; different instances may be called
   at the same time.  So keep state in the instance and none in global variables.  destroy ends an instance that create
   has made.  No call may be null but those that say so.

   Results must be the same on every run: use no clock, no files that change, no thread timing, and for random numbers
   only the seed of the request: another one in every request, the same in every run.

   Errors.  A call that fails writes its reason, one line of text, to error (error_size bytes with the final zero:
   snprintf fits) and returns something other than 0.  No C++ exception may leave a call.

   Security.  The library runs inside epsim, with all that the user of epsim may do; nothing contains it.  Loading it is
   enough to run its code, and `epsim check` loads it, too.  Name only libraries that you would run as programs.

   This header is C99 and C++ and includes nothing of epsim.  experiments/plugin_example is a plug-in to start from. */
#ifndef EPSIM_PLUGIN_H_
#define EPSIM_PLUGIN_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of everything in this header.  It changes whenever a table or a struct does; epsim refuses others. */
#define EPSIM_PLUGIN_ABI 1

/* In place of an expert: the slot holds none, because its rank has failed. */
#define EPSIM_NO_EXPERT (-1)

/* What is placed where.  Ranks divide slots; slots are at least as many as experts; all are positive. */
typedef struct EpsimShape {
  int32_t layers;
  int32_t experts; /* Logical, in a layer. */
  int32_t slots;   /* In a layer, over all ranks; at most 65536. */
  int32_t ranks;
  int32_t nodes;         /* Need not divide the ranks. */
  int32_t expert_groups; /* The model's routing groups (n_group); 1 where it has none.  Need not divide the experts. */
} EpsimShape;

typedef void EpsimDestroy(void* state);

/* ---- Placement: which expert each slot holds ------------------------------------------------------------------- */

typedef struct EpsimPlacementRequest {
  /* Tokens routed to each expert in past steps, oldest row first; a row sums steps_per_row consecutive steps.  Finite
     and not negative; whole numbers unless old steps count for less than new ones.  At least one row. */
  const double* load; /* [rows, layers, experts] */
  int64_t steps_per_row;
  /* The placement in force; EPSIM_NO_EXPERT where a slot holds none.  Null before the first plan. */
  const int32_t* previous; /* [layers, slots] */
  /* What a profiler has measured of each expert, in picoseconds a token.  Null where there is none. */
  const double* time_per_token; /* [layers, experts] */
  /* The layers to place, ascending. */
  const int32_t* layers_asked; /* [asked] */
  int32_t rows;
  int32_t asked;
  uint64_t seed;
} EpsimPlacementRequest;

typedef int EpsimCreatePlacement(const char* options, const EpsimShape* shape, void** state, char* error,
                                 size_t error_size);

/* Fills the rows of phy2log that belong to the layers asked for, EPSIM_NO_EXPERT so far, with an expert for every slot.
   Every expert needs a slot in every layer.  Other rows are as in `previous` and are not read back.  Of the replicas of
   an expert, the first slot counts as the original. */
typedef int EpsimPlace(void* state, const EpsimPlacementRequest* request, int32_t* phy2log /* [layers, slots] */,
                       char* error, size_t error_size);

typedef struct EpsimPlacementRole {
  EpsimCreatePlacement* create;
  EpsimDestroy* destroy;
  EpsimPlace* place;
} EpsimPlacementRole;

/* ---- Replica choice: the slot to which a source rank sends the tokens that it has for an expert ------------------ */

typedef struct EpsimReplicaRequest {
  const EpsimShape* shape;
  /* The placement of the layer: the expert of each slot, or EPSIM_NO_EXPERT. */
  const int32_t* phy2log; /* [slots] */
  /* The slots of expert e, the original first: replicas[first_replica[e]] and on, up to first_replica[e + 1]. */
  const int32_t* replicas;      /* [at most slots] */
  const int32_t* first_replica; /* [experts + 1] */
  int32_t layer;
  uint64_t seed;
} EpsimReplicaRequest;

/* A choice is for no shape in particular. */
typedef int EpsimCreateReplicaChoice(const char* options, void** state, char* error, size_t error_size);

/* Fills slots, -1 so far, with a replica of each expert for every source rank.  The choice holds until the layer's
   placement changes; equal requests give equal choices. */
typedef int EpsimChooseReplicas(void* state, const EpsimReplicaRequest* request, int32_t* slots /* [ranks, experts] */,
                                char* error, size_t error_size);

typedef struct EpsimReplicaRole {
  EpsimCreateReplicaChoice* create;
  EpsimDestroy* destroy;
  EpsimChooseReplicas* choose;
} EpsimReplicaRole;

/* ---- Routing: the experts that a token goes to --------------------------------------------------------------------
 */

typedef struct EpsimRoutingShape {
  int32_t layers;
  int32_t experts; /* Logical, in a layer. */
  int32_t top_k;   /* The most experts of a token. */
  int32_t ranks;
} EpsimRoutingShape;

typedef int EpsimCreateRouting(const char* options, const EpsimRoutingShape* shape, void** state, char* error,
                               size_t error_size);

/* A step of `tokens` tokens of all ranks begins; steps count from 0.  Sets routes[layer], 1 so far, to 0 for the layers
   whose tokens go where the router sent them.  Null: every layer is routed. */
typedef void EpsimBeginStep(void* state, int64_t step, int64_t tokens, uint8_t* routes /* [layers] */);

/* The tokens of one source rank in one layer, as the router saw them. */
typedef struct EpsimRoutingRequest {
  const float* scores; /* [tokens, experts]: higher is better; none is NaN. */
  /* The router's own choice, the best first; EPSIM_NO_EXPERT behind the last. */
  const int32_t* own; /* [tokens, top_k] */
  int64_t step;
  int32_t layer;
  int32_t tokens; /* At least 1. */
} EpsimRoutingRequest;

/* Fills experts, EPSIM_NO_EXPERT so far, with the experts of each token, distinct, in any order; places that are left
   as they were count for nothing, so that a token may go to none. Calls come from several threads at once and in any
   order: the instance must stay as it is. */
typedef int EpsimRoute(const void* state, const EpsimRoutingRequest* request, int32_t* experts /* [tokens, top_k] */,
                       char* error, size_t error_size);

/* The step has ended.  router_load: the tokens that the router itself sent to each expert.  Null: not asked for. */
typedef void EpsimEndStep(void* state, const int32_t* router_load /* [layers, experts] */);

typedef struct EpsimRoutingRole {
  EpsimCreateRouting* create;
  EpsimDestroy* destroy;
  EpsimBeginStep* begin_step; /* May be null. */
  EpsimRoute* route;
  EpsimEndStep* end_step; /* May be null. */
} EpsimRoutingRole;

/* ---- The library --------------------------------------------------------------------------------------------------
 */

/* What the library is.  A null role is not played.  It and all it points to stay as they are while the library is
   loaded. */
typedef struct EpsimPlugin {
  uint32_t abi_version; /* EPSIM_PLUGIN_ABI.  First in every version. */
  const EpsimPlacementRole* placement;
  const EpsimReplicaRole* replica_choice;
  const EpsimRoutingRole* routing;
} EpsimPlugin;

#if defined(_WIN32)
#define EPSIM_PLUGIN_EXPORT __declspec(dllexport)
#else
#define EPSIM_PLUGIN_EXPORT __attribute__((visibility("default")))
#endif

/* The one function that the library exports.  abi_version is the one that epsim speaks: a library that serves several
   returns the table of that one; others need not look. */
EPSIM_PLUGIN_EXPORT const EpsimPlugin* epsim_plugin(uint32_t abi_version);

#ifdef __cplusplus
}
#endif

#endif /* EPSIM_PLUGIN_H_ */
