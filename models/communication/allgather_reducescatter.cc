#include "models/communication/allgather_reducescatter.h"

#include <algorithm>
#include <utility>

#include "engine/check.h"
#include "engine/status_macros.h"
#include "models/communication/nccl_collective.h"
#include "models/communication/token_bytes.h"

namespace epsim {
namespace {

constexpr char kName[] = "allgather_reducescatter";

class AllGatherReduceScatter : public Communication {
 public:
  AllGatherReduceScatter(const AllGatherReduceScatterCommunication& config, const CommunicationSetup& setup,
                         NcclCollective nccl, std::vector<std::string> notes)
      : pad_to_max_(config.pad_to_max()),
        ranks_(setup.cluster->ranks()),
        nccl_(std::move(nccl)),
        statistics_(int64_t{4} * setup.model.experts()),
        notes_(std::move(notes)) {
    TravelFormat(kName, "combine", setup.precision.combine(), {}, &notes_);
    const int64_t hidden = setup.model.hidden();
    dispatch_ = ActivationBytes(hidden, setup.precision.dispatch()).count() + RoutingBytes(setup.model);
    combine_ = 2 * hidden;
    footprint_ = {.sms = nccl_.sms(),
                  .buffers = Bytes(int64_t{ranks_} * setup.max_tokens_per_rank * (dispatch_ + combine_)) +
                             nccl_.buffers(NcclOperation::kAllGather),
                  .quantised_dispatch = setup.precision.dispatch() != BF16};
  }

  std::string name() const override { return kName; }
  RoutingDetail detail() const override { return {}; }
  CommunicationFootprint footprint() const override { return footprint_; }
  absl::Status Admit(const ForwardShape&) override { return absl::OkStatus(); }

  void Dispatch(const RoutedLayer& routed, Exchange* exchange) const override {
    nccl_.AllGather(RowBytes(routed, dispatch_), exchange);
  }
  void Combine(const RoutedLayer& routed, Exchange* exchange) const override {
    nccl_.ReduceScatter(RowBytes(routed, combine_), exchange);
  }
  void Statistics(int layers, Exchange* exchange) const override {
    nccl_.AllReduce(Bytes(statistics_ * layers), exchange);
  }
  std::vector<std::string> notes() const override { return notes_; }

 private:
  // What each rank contributes, or keeps.  [ranks]
  std::vector<int64_t> RowBytes(const RoutedLayer& routed, int64_t bytes_per_token) const {
    EPSIM_CHECK(routed.tokens.size() == static_cast<size_t>(ranks_));
    const int32_t most = *std::max_element(routed.tokens.begin(), routed.tokens.end());
    std::vector<int64_t> bytes;
    for (int32_t tokens : routed.tokens) bytes.push_back((pad_to_max_ ? most : tokens) * bytes_per_token);
    return bytes;
  }

  const bool pad_to_max_;
  const int ranks_;
  const NcclCollective nccl_;
  const int64_t statistics_;            // Bytes of a layer.
  int64_t dispatch_ = 0, combine_ = 0;  // Bytes of a token.
  CommunicationFootprint footprint_;
  std::vector<std::string> notes_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Communication>> NewAllGatherReduceScatter(
    const AllGatherReduceScatterCommunication& config, const CommunicationSetup& setup, const LibraryTiming& own) {
  std::vector<std::string> notes;
  ASSIGN_OR_RETURN(NcclCollective nccl, NcclCollective::Create(*setup.cluster, own, &notes));
  return std::make_unique<AllGatherReduceScatter>(config, setup, std::move(nccl), std::move(notes));
}

}  // namespace epsim
