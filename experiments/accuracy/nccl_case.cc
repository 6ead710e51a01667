#include "experiments/accuracy/nccl_case.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "experiments/accuracy/exchange_clock.h"
#include "models/communication/nccl_collective.h"
#include "platforms/cluster.h"

namespace epsim {
namespace {

absl::StatusOr<NcclOperation> OperationOf(const Case& measured) {
  ASSIGN_OR_RETURN(const std::string collective, TextField(measured, "collective"));
  if (collective == "all_gather") return NcclOperation::kAllGather;
  if (collective == "reduce_scatter") return NcclOperation::kReduceScatter;
  if (collective == "all_reduce") return NcclOperation::kAllReduce;
  if (collective == "all_to_all") return NcclOperation::kAllToAll;
  return absl::UnimplementedError(absl::StrCat("collective \"", collective, "\" is not modelled"));
}

class NcclCase : public CaseModel {
 public:
  static absl::StatusOr<std::unique_ptr<CaseModel>> Create(const Case& measured) {
    ASSIGN_OR_RETURN(const int64_t gpus, IntegerField(measured, "gpus", 2, 4096));
    ASSIGN_OR_RETURN(const int64_t bytes, IntegerField(measured, "bytes_per_rank", 1, int64_t{1} << 40));
    auto result = std::make_unique<NcclCase>();
    ASSIGN_OR_RETURN(result->operation_, OperationOf(measured));
    result->size_ = Bytes(bytes);
    if (measured.metric != "time_us") {
      return absl::UnimplementedError(absl::StrCat("metric ", measured.metric, " is not predicted"));
    }
    const absl::StatusOr<PlatformSpec> platform = FindPlatform(measured.platform);
    if (!platform.ok()) return absl::UnimplementedError(platform.status().message());
    absl::StatusOr<Cluster> cluster = Cluster::Create(*platform, static_cast<int>(gpus));
    if (!cluster.ok()) return absl::UnimplementedError(cluster.status().message());
    result->cluster_ = *std::move(cluster);
    NetworkConfig network;
    network.mutable_port();
    ASSIGN_OR_RETURN(result->clock_, ExchangeClock::Create(network, result->cluster_));
    result->group_ = absl::StrCat(measured.platform, "/", measured.fields["collective"].get<std::string>(), "/gpus",
                                  gpus, "/bytes", bytes);
    return result;
  }

  absl::StatusOr<double> Predict(const LibraryTiming* timing) override {
    std::vector<std::string> notes;
    ASSIGN_OR_RETURN(const NcclCollective collective,
                     NcclCollective::Create(cluster_, timing == nullptr ? LibraryTiming() : *timing, &notes));
    Exchange exchange;
    collective.Run(operation_, size_, &exchange);
    return Microseconds(clock_->Time(exchange));
  }

  const std::string& group() const override { return group_; }

 private:
  NcclOperation operation_{};
  Bytes size_;
  std::string group_;
  Cluster cluster_;
  std::unique_ptr<ExchangeClock> clock_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CaseModel>> NewNcclCase(const Case& measured) { return NcclCase::Create(measured); }

}  // namespace epsim
