#include "roles.h"

const EpsimPlugin* epsim_plugin(uint32_t abi_version) {
  static const EpsimPlugin kPlugin = {.abi_version = EPSIM_PLUGIN_ABI,
                                      .placement = &kHeaviestFirst,
                                      .replica_choice = &kNearFirst,
                                      .routing = &kBestOnly};
  (void)abi_version; /* One version is served; epsim compares. */
  return &kPlugin;
}
