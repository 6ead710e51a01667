// Identifiers.  Each is its own type, so that a slot cannot be passed for a logical expert, nor a rank for a node.
// Arrays are indexed with Index(id); there is no other arithmetic.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace epsim {

enum class LogicalExpert : int32_t {};  // One of the model's E experts in a layer.
enum class Slot : int32_t {};           // One place that holds a copy of a logical expert; P of them in a layer.
enum class StagedExpert : int32_t {};   // One place in the host memory of a node that holds a logical expert's weights.
enum class Layer : int32_t {};          // MoE layer, counted from 0 without the dense layers.
enum class Rank : int32_t {};           // One GPU of the expert-parallel group.
enum class Node : int32_t {};           // One NVLink domain.
enum class Link : int32_t {};           // One direction of one physical link of a cluster.

template <typename Id>
requires std::is_enum_v<Id>
constexpr size_t Index(Id id) { return static_cast<size_t>(static_cast<std::underlying_type_t<Id>>(id)); }

}  // namespace epsim
