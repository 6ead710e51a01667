// Models that route by groups of experts send a token to few groups.  Balancers that know it keep every group whole on
// one node (mode HIERARCHICAL), so that a token's experts stay on few nodes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "policies/placement/placement.h"
#include "policies/placement/placement.pb.h"

namespace epsim {

// Whether groups are packed onto nodes: AUTO where the nodes divide the groups.
bool PacksGroups(const PlacementShape& shape, EplbPlacement::Mode mode);

// Fails if `mode` is none, or packs groups and cannot: the nodes must divide groups and ranks, the groups the experts.
// (They then divide experts, slots and redundant slots too.)  `policy` is whose mode it is.
absl::Status CheckGroupPacking(absl::string_view policy, const PlacementShape& shape, EplbPlacement::Mode mode);

// All experts, node by node: `place_of_group` [groups] says where a group comes in the order of nodes, and
// (*experts)[place * group_size + i] is expert i of that group.
void ListByNode(absl::Span<const size_t> place_of_group, size_t group_size, std::vector<uint32_t>* experts);

}  // namespace epsim
