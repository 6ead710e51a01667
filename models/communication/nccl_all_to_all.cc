#include "models/communication/nccl_all_to_all.h"

#include <utility>

#include "engine/status_macros.h"
#include "models/communication/copies.h"
#include "models/communication/nccl_collective.h"
#include "models/communication/token_bytes.h"

namespace epsim {
namespace {

constexpr char kName[] = "nccl_all_to_all";

class NcclAllToAll : public Communication {
 public:
  NcclAllToAll(const CommunicationSetup& setup, NcclCollective nccl, std::vector<std::string> notes)
      : cluster_(*setup.cluster),
        ranks_(cluster_.ranks()),
        token_bytes_(MakeTokenBytes(setup.model, setup.precision)),
        statistics_(int64_t{4} * setup.model.experts()),
        nccl_(std::move(nccl)),
        notes_(std::move(notes)) {
    const int64_t rows = int64_t{setup.max_tokens_per_rank} * setup.model.top_k();
    footprint_ = {.sms = nccl_.sms(),
                  .buffers = Bytes(rows * (token_bytes_.dispatch + token_bytes_.combine).count() * 2) +
                             nccl_.buffers(NcclOperation::kAllToAll),
                  .quantised_dispatch = setup.precision.dispatch() != BF16};
    Exchange counts;
    ClearExchange(ranks_, &counts);
    StraightCopies(std::vector<int32_t>(static_cast<size_t>(ranks_) * ranks_, (setup.slots + ranks_ - 1) / ranks_),
                   sizeof(int64_t), Direction::kDispatch, &counts.traffic);
    nccl_.AllToAll(&counts);
    prepare_ = LoneExchangeTime(cluster_, counts);
  }

  std::string name() const override { return kName; }
  RoutingDetail detail() const override { return {.pairs_between = true}; }
  CommunicationFootprint footprint() const override { return footprint_; }
  absl::Status Admit(const ForwardShape&) override { return absl::OkStatus(); }

  void Dispatch(const RoutedLayer& routed, Exchange* exchange) const override {
    Fill(routed, token_bytes_.dispatch, Direction::kDispatch, exchange);
    exchange->prepare = prepare_;
    exchange->launch += prepare_;
  }
  void Combine(const RoutedLayer& routed, Exchange* exchange) const override {
    Fill(routed, token_bytes_.combine, Direction::kCombine, exchange);
  }
  void Statistics(int layers, Exchange* exchange) const override {
    nccl_.AllReduce(Bytes(statistics_ * layers), exchange);
  }
  std::vector<std::string> notes() const override { return notes_; }

 private:
  void Fill(const RoutedLayer& routed, Bytes bytes_per_copy, Direction direction, Exchange* exchange) const {
    BeginExchange(ranks_, exchange);
    StraightCopies(routed.pairs_between, bytes_per_copy.count(), direction, &exchange->traffic);
    nccl_.AllToAll(exchange);
  }

  const Cluster& cluster_;
  const int ranks_;
  const TokenBytes token_bytes_;
  const int64_t statistics_;  // Bytes of a layer.
  const NcclCollective nccl_;
  Duration prepare_{};  // The exchange of counts.
  CommunicationFootprint footprint_;
  std::vector<std::string> notes_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Communication>> NewNcclAllToAll(const NcclAllToAllCommunication&,
                                                               const CommunicationSetup& setup,
                                                               const LibraryTiming& own) {
  std::vector<std::string> notes;
  ASSIGN_OR_RETURN(NcclCollective nccl, NcclCollective::Create(*setup.cluster, own, &notes));
  return std::make_unique<NcclAllToAll>(setup, std::move(nccl), std::move(notes));
}

}  // namespace epsim
