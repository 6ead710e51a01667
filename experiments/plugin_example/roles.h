/* The roles that this plug-in plays, one file each. */
#ifndef ROLES_H_
#define ROLES_H_

#include <epsim/epsim_plugin.h>

/* Heaviest first: redundant slots go to the experts with the most load a replica; then the replicas, the heaviest
   first, each to the least loaded rank that has room, of those without the expert if there are any. Options: "decay =
   D", D in (0, 1]: what a row of past load counts against the next newer one.  Default 1. */
extern const EpsimPlacementRole kHeaviestFirst;

/* Near first: a replica on the source rank, else one on its node, else any; where several would do, source rank r takes
   the (r mod n)-th of the n.  No options. */
extern const EpsimReplicaRole kNearFirst;

/* Best only: of the experts that the router chose for a token those that it scores highest.
   Options: "keep = K", K in [1, top_k]: how many.  Default top_k, all. */
extern const EpsimRoutingRole kBestOnly;

#endif /* ROLES_H_ */
