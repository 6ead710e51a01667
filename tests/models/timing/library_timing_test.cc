#include "models/timing/library_timing.h"

#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "platforms/cluster.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

PlatformSpec Gpus(uint32_t compute_capability, bool nvlink) {
  PlatformSpec platform;
  platform.mutable_gpu()->set_compute_capability(compute_capability);
  if (nvlink) platform.mutable_nvlink();
  return platform;
}

// The family whose timing is taken.
std::string Family(std::string_view library, const PlatformSpec& platform, std::vector<std::string>* notes) {
  const auto timing = TimingFor(library, platform, 1, {}, notes);
  EXPECT_TRUE(timing.ok()) << timing.status();
  return timing->family();
}

TEST(TimingCatalogue, EveryFileHasEveryParameterOfItsLibrary) {
  ASSERT_FALSE(TimingCatalogue().empty());
  for (const CatalogueFile& file : TimingCatalogue()) {
    TimingFile timings;
    const absl::Status status = ParseTextProto(file.text, file.path, &timings);
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_GT(timings.timing_size(), 0) << file.path;
    for (const LibraryTiming& timing : timings.timing()) {
      EXPECT_TRUE(CheckTiming(file.name, file.name, timing).ok()) << CheckTiming(file.name, file.name, timing);
      EXPECT_FALSE(timing.family().empty()) << file.path;
      EXPECT_FALSE(timing.measured().empty()) << file.path;
      EXPECT_TRUE(FindTiming(file.name, timing.family()).ok());
    }
  }
}

TEST(TimingFor, TakesTheSameFamily) {
  std::vector<std::string> notes;
  EXPECT_EQ(Family("nccl", Gpus(90, true), &notes), "hopper");
  EXPECT_EQ(Family("nccl", Gpus(100, true), &notes), "blackwell");
  EXPECT_EQ(Family("nccl", Gpus(120, false), &notes), "blackwell-pcie");
  EXPECT_THAT(notes, IsEmpty());
}

TEST(TimingFor, AssumesTheNearestFamilyAndSaysSo) {
  std::vector<std::string> notes;
  EXPECT_EQ(Family("deepep_normal", Gpus(80, true), &notes), "hopper");
  EXPECT_THAT(notes, ElementsAre("deepep_normal: no measurement on compute capability 80 over NVLink; times and "
                                 "efficiencies of compute capability 90 over NVLink are assumed"));
  EXPECT_EQ(Family("nccl", Gpus(89, false), &notes), "blackwell-pcie");  // The same kind of link comes first.
  EXPECT_EQ(Family("nccl", Gpus(95, true), &notes), "hopper");           // The lower of two as near.
  EXPECT_EQ(Family("nvlink_one_sided", Gpus(90, true), &notes), "blackwell");
  EXPECT_EQ(Family("deepep_low_latency", Gpus(0, true), &notes), "hopper");
  EXPECT_THAT(notes.back(), HasSubstr("GPUs of unstated compute capability over NVLink"));
}

TEST(TimingFor, OwnFieldsReplaceTheCatalogues) {
  LibraryTiming own;
  own.mutable_nccl()->set_hop("7 us");
  std::vector<std::string> notes;
  const auto timing = TimingFor("nccl", Gpus(80, true), 1, own, &notes);
  ASSERT_TRUE(timing.ok()) << timing.status();
  EXPECT_EQ(timing->nccl().hop(), "7 us");
  EXPECT_EQ(timing->nccl().launch(), FindTiming("nccl", "hopper")->nccl().launch());
  // What is still of the catalogue, on a GPU that it was not measured on, is named.
  ASSERT_EQ(notes.size(), 1);
  EXPECT_THAT(notes[0], HasSubstr("launch, low_latency_bandwidth, link_efficiency"));
  EXPECT_THAT(notes[0], Not(HasSubstr("hop")));
  // Those of another library do not.
  const auto other = TimingFor("deepep_normal", Gpus(90, true), 1, own, &notes);
  EXPECT_EQ(other->SerializeAsString(), FindTiming("deepep_normal", "hopper")->SerializeAsString());
}

TEST(TimingFor, SaysWhereNothingIsMeasuredBetweenNodes) {
  std::vector<std::string> notes;
  EXPECT_TRUE(TimingFor("nccl", Gpus(90, true), 1, {}, &notes).ok());
  EXPECT_TRUE(TimingFor("deepep_normal", Gpus(90, true), 4, {}, &notes).ok());
  EXPECT_THAT(notes, IsEmpty());
  EXPECT_TRUE(TimingFor("nccl", Gpus(90, true), 2, {}, &notes).ok());
  EXPECT_TRUE(TimingFor("deepep_low_latency", Gpus(100, true), 2, {}, &notes).ok());
  ASSERT_EQ(notes.size(), 2);
  EXPECT_THAT(notes[0], HasSubstr("nccl: nothing is measured between nodes of compute capability 90 over NVLink"));
  EXPECT_THAT(notes[1], HasSubstr("deepep_low_latency: nothing is measured between nodes"));
}

TEST(TimingFor, RefusesWhatIsOutOfRange) {
  const auto problem = [](const char* text) {
    LibraryTiming own;
    EXPECT_TRUE(ParseTextProto(text, "timing", &own).ok());
    std::vector<std::string> notes;
    return std::string(TimingFor("nccl", Gpus(90, true), 1, own, &notes).status().message());
  };
  EXPECT_EQ(problem("nccl { link_efficiency: 1.5 }"),
            "communication.timing.nccl.link_efficiency: 1.5 is not in [0.001, 1]");
  EXPECT_EQ(problem("nccl { nvls_efficiency: -1 }"),
            "communication.timing.nccl.nvls_efficiency: -1 is not in [0.001, 1]");
  EXPECT_EQ(problem("nccl { spread_loss: nan }"), "communication.timing.nccl.spread_loss: nan is not in [0, 1024]");
  EXPECT_EQ(problem("nccl { channels: 5000 }"), "communication.timing.nccl.channels: 5000 is not in 1..1024");
  EXPECT_THAT(problem("nccl { hop: \"2 s\" }"), HasSubstr("communication.timing.nccl.hop: \"2 s\""));
  EXPECT_THAT(problem("nccl { channel_bandwidth: \"1 B/s\" }"), HasSubstr("timing.nccl.channel_bandwidth: \"1 B/s\""));
}

// What is set to the catalogue's own value is the catalogue's: a complete configuration is noted as one that says
// nothing.
TEST(KernelTimingFor, TakesTheNearestFamilyWhateverTheLinks) {
  GpuSpec gpu;
  std::vector<std::string> notes;
  for (const uint32_t capability : {90u, 100u}) {
    gpu.set_compute_capability(capability);
    EXPECT_EQ(KernelTimingFor("deep_gemm", "gemm", gpu, {}, &notes)->compute_capability(), capability);
  }
  EXPECT_THAT(notes, IsEmpty());
  gpu.set_compute_capability(89);
  LibraryTiming own = *KernelTimingFor("deep_gemm", "gemm", gpu, {}, &notes);
  own.mutable_deep_gemm()->set_floor("3 us");
  EXPECT_EQ(KernelTimingFor("deep_gemm", "gemm", gpu, own, &notes)->deep_gemm().floor(), "3 us");
  EXPECT_THAT(notes,
              ElementsAre("deep_gemm: no measurement on compute capability 89; times and efficiencies of compute "
                          "capability 90 are assumed",
                          "deep_gemm: no measurement on compute capability 89; memory_efficiency, "
                          "compute_efficiency, grouped_floor, tile_start, sm_bandwidth, tile_tokens, widest_tile "
                          "of compute capability 90 are assumed"));
  own.mutable_deep_gemm()->set_grouped_floor("2 s");
  EXPECT_EQ(KernelTimingFor("deep_gemm", "roofline.gemm", gpu, own, &notes).status().message(),
            "roofline.gemm.grouped_floor: \"2 s\" is not from 0 to 1 s");
}

TEST(CheckTiming, NamesWhatIsMissing) {
  LibraryTiming timing;
  timing.mutable_deepep_normal()->set_launch("1 us");
  EXPECT_EQ(CheckTiming("deepep_normal", "timing", timing).message(),
            "timing.nvlink_efficiency: 0 is not in [0.001, 1]");
  EXPECT_EQ(CheckTiming("nvlink_one_sided", "timing", timing).message(), "timing.launch: is missing");
}

TEST(FindTiming, ListsWhatThereIs) {
  EXPECT_EQ(FindTiming("deepep_normal", "ampere").status().message(),
            "no timing of deepep_normal is for \"ampere\"; there are hopper, blackwell");
  EXPECT_THAT(std::string(FindTiming("mpi", "hopper").status().message()),
              HasSubstr("no timing is called \"mpi\"; there are deep_gemm, deepep_low_latency, "));
}

}  // namespace
}  // namespace epsim
