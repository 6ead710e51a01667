// Fuzzes the experiment file: whatever its bytes, resolving and assembling it gives an experiment, or one line that
// says what is wrong.
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/check.h"
#include "experiments/assembly.h"
#include "experiments/setup.h"

namespace {

// One file a process, removed at its end.
class InputFile {
 public:
  InputFile()
      : path_(std::filesystem::temp_directory_path() / ("epsim_fuzz_" + std::to_string(getpid()) + ".experiment")) {}
  ~InputFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  std::string Write(const uint8_t* data, size_t size) {
    std::ofstream(path_, std::ios::binary)
        .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
    return path_.string();
  }

 private:
  const std::filesystem::path path_;
};

absl::Status ResolveAndAssemble(const std::string& path) {
  const auto resolved = epsim::ResolveExperiment({.path = path, .trace = {}, .set = {}, .seed = {}});
  return resolved.ok() ? epsim::Assemble(*resolved).status() : resolved.status();
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  return {
      R"(description: "a" trace: "t.eptrace" model: "gpt-oss-20b" platform: "h100-sxm" ranks: 8
         workload { continuous { running_requests_per_rank: 8 } } placement { eplb { mode: GLOBAL } }
         planning { past {} fraction: 0.25 max_rows: 16 } redundant_slots_per_rank: 2 seed: 3)",
      R"(model: "deepseek-v3" platform: "gb200-nvl72" ranks: 72 workload { recorded {} max_steps: 5 }
         placement { contiguous {} } planning { hindsight {} }
         replica_choice { lp { planning_time: "80 us" } }
         costs { precision { expert_weights: FP8 dispatch: FP8 } roofline { gemm { floor: "2 us" memory_efficiency: 0.8 } } })",
      R"(model: "mixtral-8x7b" platform: "rtx-4090" ranks: 4 workload { lock_step { requests_per_rank: 2 } }
         communication { all_to_all {} } network { port {} } schedule { overlap_shared_experts: false }
         output { timeline_steps: 0 } replica_choice { static_nearest {} })",
  };
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static InputFile file;
  const absl::Status status = ResolveAndAssemble(file.Write(data, size));
  if (!status.ok()) {
    EPSIM_CHECK(!status.message().empty());
    EPSIM_CHECK(status.message().find('\n') == absl::string_view::npos);
  }
  return 0;
}
