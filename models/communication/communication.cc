#include "models/communication/communication.h"

#include <utility>

#include "models/communication/all_reduce.h"
#include "models/communication/all_to_all.h"
#include "models/communication/allgather_reducescatter.h"
#include "models/communication/automatic.h"
#include "models/communication/deepep_low_latency.h"
#include "models/communication/deepep_normal.h"
#include "models/communication/nccl_all_to_all.h"
#include "models/communication/nvlink_one_sided.h"
#include "models/communication/nvlink_two_sided.h"

namespace epsim {
namespace {

constexpr uint32_t kDefaultSms = 24;
constexpr uint32_t kDefaultMaxTokensPerRank = 128;

// Those of the strategy that is chosen, if one is.
CommunicationConfig WithDefaults(CommunicationConfig config) {
  if (config.has_deepep_normal() && config.deepep_normal().sms() == 0) {
    config.mutable_deepep_normal()->set_sms(kDefaultSms);
  }
  if (config.has_deepep_low_latency() && config.deepep_low_latency().max_tokens_per_rank() == 0) {
    config.mutable_deepep_low_latency()->set_max_tokens_per_rank(kDefaultMaxTokensPerRank);
  }
  if (config.has_automatic() && config.automatic().order() == AutomaticCommunication::SGLANG &&
      config.automatic().max_tokens_per_rank() == 0) {
    config.mutable_automatic()->set_max_tokens_per_rank(kDefaultMaxTokensPerRank);
  }
  return config;
}

}  // namespace

CommunicationConfig CompleteCommunicationConfig(CommunicationConfig config) {
  if (config.communication_case() == CommunicationConfig::COMMUNICATION_NOT_SET) config.mutable_all_to_all();
  return WithDefaults(std::move(config));
}

absl::StatusOr<std::unique_ptr<Communication>> NewCommunication(const CommunicationConfig& given,
                                                                const CommunicationSetup& setup) {
  const CommunicationConfig config = WithDefaults(given);
  const LibraryTiming& own = config.timing();
  switch (config.communication_case()) {
    case CommunicationConfig::kAllToAll:
      return NewAllToAll(config.all_to_all(), setup);
    case CommunicationConfig::kDeepepNormal:
      return NewDeepEpNormal(config.deepep_normal(), setup, own);
    case CommunicationConfig::kDeepepLowLatency:
      return NewDeepEpLowLatency(config.deepep_low_latency(), setup, own);
    case CommunicationConfig::kNvlinkOneSided:
      return NewNvlinkOneSided(config.nvlink_one_sided(), setup, own);
    case CommunicationConfig::kNvlinkTwoSided:
      return NewNvlinkTwoSided(config.nvlink_two_sided(), setup, own);
    case CommunicationConfig::kAllgatherReducescatter:
      return NewAllGatherReduceScatter(config.allgather_reducescatter(), setup, own);
    case CommunicationConfig::kAllReduce:
      return NewAllReduce(config.all_reduce(), setup, own);
    case CommunicationConfig::kNcclAllToAll:
      return NewNcclAllToAll(config.nccl_all_to_all(), setup, own);
    case CommunicationConfig::kAutomatic:
      return NewAutomatic(config.automatic(), setup, own);
    case CommunicationConfig::COMMUNICATION_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("communication: none chosen");
}

}  // namespace epsim
