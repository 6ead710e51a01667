#include "policies/placement/group_packing.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace epsim {

bool PacksGroups(const PlacementShape& shape, EplbPlacement::Mode mode) {
  if (mode == EplbPlacement::AUTO) return shape.expert_groups % shape.nodes == 0;
  return mode == EplbPlacement::HIERARCHICAL;
}

absl::Status CheckGroupPacking(absl::string_view policy, const PlacementShape& shape, EplbPlacement::Mode mode) {
  if (!EplbPlacement::Mode_IsValid(mode)) {
    return absl::InvalidArgumentError(absl::StrCat(policy, ": mode: ", mode, " is not AUTO, GLOBAL or HIERARCHICAL"));
  }
  if (!PacksGroups(shape, mode)) return absl::OkStatus();
  if (shape.expert_groups % shape.nodes != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(policy, ": mode: HIERARCHICAL needs nodes that divide the expert groups, not ", shape.nodes,
                     " nodes and ", shape.expert_groups, " groups; AUTO or GLOBAL would fit"));
  }
  if (shape.experts % shape.expert_groups != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(policy, ": expert_groups: ", shape.expert_groups, " do not divide ", shape.experts, " experts; ",
                     mode == EplbPlacement::AUTO ? "1" : "a divisor", " or mode GLOBAL would fit"));
  }
  if (shape.ranks % shape.nodes != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        policy, ": ranks: ", shape.ranks, " are not divisible by ", shape.nodes, " nodes; ",
        shape.ranks / shape.nodes > 0 ? absl::StrCat(shape.ranks / shape.nodes * shape.nodes, " or ") : std::string(),
        (shape.ranks / shape.nodes + 1) * shape.nodes, " ranks, or mode GLOBAL, would fit"));
  }
  return absl::OkStatus();
}

void ListByNode(absl::Span<const size_t> place_of_group, size_t group_size, std::vector<uint32_t>* experts) {
  experts->resize(place_of_group.size() * group_size);
  for (size_t group = 0; group < place_of_group.size(); ++group) {
    for (size_t i = 0; i < group_size; ++i) {
      (*experts)[place_of_group[group] * group_size + i] = static_cast<uint32_t>(group * group_size + i);
    }
  }
}

}  // namespace epsim
