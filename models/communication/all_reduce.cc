#include "models/communication/all_reduce.h"

#include <utility>

#include "engine/status_macros.h"
#include "models/communication/nccl_collective.h"
#include "models/communication/token_bytes.h"

namespace epsim {
namespace {

constexpr char kName[] = "all_reduce";

class AllReduce : public Communication {
 public:
  AllReduce(const CommunicationSetup& setup, NcclCollective nccl, std::vector<std::string> notes)
      : ranks_(setup.cluster->ranks()),
        token_(int64_t{2} * setup.model.hidden()),
        statistics_(int64_t{4} * setup.model.experts()),
        nccl_(std::move(nccl)),
        notes_(std::move(notes)) {
    TravelFormat(kName, "combine", setup.precision.combine(), {}, &notes_);
  }

  std::string name() const override { return kName; }
  RoutingDetail detail() const override { return {}; }
  CommunicationFootprint footprint() const override {
    return {.sms = nccl_.sms(),
            .buffers = nccl_.buffers(NcclOperation::kAllReduce),
            .quantised_dispatch = false,
            .has_dispatch = false};
  }
  absl::Status Admit(const ForwardShape&) override { return absl::OkStatus(); }

  void Dispatch(const RoutedLayer&, Exchange* exchange) const override { ClearExchange(ranks_, exchange); }
  void Combine(const RoutedLayer& routed, Exchange* exchange) const override {
    int64_t tokens = 0;
    for (int32_t of_rank : routed.tokens) tokens += of_rank;
    nccl_.AllReduce(Bytes(tokens * token_), exchange);
  }
  void Statistics(int layers, Exchange* exchange) const override {
    nccl_.AllReduce(Bytes(statistics_ * layers), exchange);
  }
  std::vector<std::string> notes() const override { return notes_; }

 private:
  const int ranks_;
  const int64_t token_;       // Bytes of a token's result.
  const int64_t statistics_;  // Bytes of a layer.
  const NcclCollective nccl_;
  std::vector<std::string> notes_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Communication>> NewAllReduce(const AllReduceCommunication&,
                                                            const CommunicationSetup& setup, const LibraryTiming& own) {
  std::vector<std::string> notes;
  ASSIGN_OR_RETURN(NcclCollective nccl, NcclCollective::Create(*setup.cluster, own, &notes));
  return std::make_unique<AllReduce>(setup, std::move(nccl), std::move(notes));
}

}  // namespace epsim
