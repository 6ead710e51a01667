#include "models/communication/all_to_all.h"

#include "engine/check.h"

namespace epsim {
namespace {

class AllToAll : public Communication {
 public:
  AllToAll(int ranks, TokenBytes token_bytes) : ranks_(ranks), token_bytes_(token_bytes) {}

  void Dispatch(const RoutedLayer& routed, TrafficMatrix* traffic) const override {
    Reset(routed, traffic);
    const int64_t bytes = token_bytes_.dispatch.count();
    for (size_t i = 0; i < routed.tokens_between.size(); ++i) traffic->bytes[i] = routed.tokens_between[i] * bytes;
    ClearDiagonal(traffic);
  }

  void Combine(const RoutedLayer& routed, TrafficMatrix* traffic) const override {
    Reset(routed, traffic);
    const int64_t bytes = token_bytes_.combine.count();
    for (int source = 0; source < ranks_; ++source) {
      for (int owner = 0; owner < ranks_; ++owner) {
        traffic->bytes[owner * ranks_ + source] = routed.tokens_between[source * ranks_ + owner] * bytes;
      }
    }
    ClearDiagonal(traffic);
  }

 private:
  void Reset(const RoutedLayer& routed, TrafficMatrix* traffic) const {
    EPSIM_CHECK(routed.tokens_between.size() == static_cast<size_t>(ranks_) * ranks_);
    traffic->ranks = ranks_;
    traffic->bytes.resize(routed.tokens_between.size());
  }

  void ClearDiagonal(TrafficMatrix* traffic) const {
    for (int rank = 0; rank < ranks_; ++rank) traffic->bytes[rank * ranks_ + rank] = 0;
  }

  const int ranks_;
  const TokenBytes token_bytes_;
};

}  // namespace

std::unique_ptr<Communication> NewAllToAll(const AllToAllCommunication&, int ranks, TokenBytes token_bytes) {
  return std::make_unique<AllToAll>(ranks, token_bytes);
}

}  // namespace epsim
