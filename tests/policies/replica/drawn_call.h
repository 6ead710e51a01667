// A call of a layer's router drawn at random, with the arrays that it points to.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "engine/random_stream.h"
#include "policies/placement/placement.h"
#include "policies/replica/router_call.h"

namespace epsim {

struct CallForm {
  int tokens_per_rank = 100;  // On average; every fourth rank has none.
  int top_k = 4;
  int id_bytes = 1;
  bool ragged = false;  // Some tokens have fewer than top_k experts.
};

class DrawnCall {
 public:
  // Low experts are likelier, so that some are hot.
  DrawnCall(const PlacementShape& shape, const CallForm& form, RandomStream* random) {
    int32_t tokens = 0;
    for (int rank = 0; rank < shape.ranks; ++rank) {
      begin_.push_back(tokens);
      if (rank % 4 != 3) tokens += static_cast<int32_t>(random->Below(2 * form.tokens_per_rank + 1));
      end_.push_back(tokens);
    }
    const size_t top_k = std::min(form.top_k, shape.experts);
    std::vector<uint16_t> order(shape.experts);
    for (size_t e = 0; e < order.size(); ++e) order[e] = static_cast<uint16_t>(e);
    for (int32_t token = 0; token < tokens; ++token) {
      for (size_t k = 0; k < top_k; ++k) {
        const size_t below = 1 + random->Below(order.size() - k);
        std::swap(order[k], order[k + random->Below(below)]);
        const uint16_t id = order[k];
        ids_.resize(ids_.size() + form.id_bytes);
        std::memcpy(ids_.data() + ids_.size() - form.id_bytes, &id, form.id_bytes);
        chosen_.push_back(id);
      }
      std::sort(order.begin(), order.end());
      valid_.push_back(static_cast<uint8_t>(form.ragged && random->Below(4) == 0 ? random->Below(top_k) : top_k));
    }
    call.begin = begin_;
    call.end = end_;
    call.top_k = static_cast<int>(top_k);
    call.id_bytes = form.id_bytes;
    call.ids = ids_.data();
    if (form.ragged) call.valid_count = valid_.data();
    call.random = random->Next();
    call.step = 3;
  }
  DrawnCall(const DrawnCall&) = delete;
  DrawnCall& operator=(const DrawnCall&) = delete;

  // Of the token's k-th.  REQUIRES: k < call.valid(token).
  uint16_t expert(int32_t token, int k) const { return chosen_[static_cast<size_t>(token) * call.top_k + k]; }

  RouterCall call;

 private:
  std::vector<int32_t> begin_, end_;
  std::vector<std::byte> ids_;
  std::vector<uint16_t> chosen_;
  std::vector<uint8_t> valid_;
};

}  // namespace epsim
