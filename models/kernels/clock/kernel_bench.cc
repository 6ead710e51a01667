// kernel_bench: how fast the GPU kernels are on this machine, beside the floors that follow from its own ceilings.
// stdout has the table, --out the same as JSON.  Exit codes: 0; 1 where there is no GPU or a kernel failed; 2 (bad
// flags).  An aim that is missed is a result, not a failure: the table and the JSON say so.
#include <algorithm>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"
#include "engine/whole_file.h"
#include "models/kernels/clock/gpu_clock.h"
#include "models/kernels/clock/kernel_figures.h"

namespace epsim {
namespace {

absl::Status Write(const std::string& path, const std::string& text) {
  auto file = WholeFile::Create(path);
  if (!file.ok()) return file.status();
  (*file)->Write(text);
  return (*file)->Commit();
}

int Fail(const absl::Status& status) {
  std::cerr << "kernel_bench: " << status.message() << "\n";
  return 1;
}

int Run(int gpu, const std::string& out) {
  const auto clock = NewGpuClock(gpu);
  if (!clock.ok()) return Fail(clock.status());
  const auto figures = MeasureKernels(**clock);
  if (!figures.ok()) return Fail(figures.status());
  std::cout << FiguresTable(*figures) << std::flush;
  if (!out.empty()) {
    if (const absl::Status written = Write(out, FiguresJson(*figures)); !written.ok()) return Fail(written);
  }
  const auto failed = [](const auto& measured) { return measured.failed; };
  const std::vector<NoCeiling>& unknown = figures->ceilings.unknown;
  const bool any = std::any_of(figures->kernels.begin(), figures->kernels.end(), failed) ||
                   std::any_of(unknown.begin(), unknown.end(), failed);
  return any ? Fail(absl::InternalError("a kernel failed: see the table")) : 0;
}

}  // namespace
}  // namespace epsim

int main(int argc, char** argv) {
  CLI::App app{"Measures the GPU kernels and what bounds them on the same GPU.", "kernel_bench"};
  int gpu = 0;
  std::string out;
  app.add_option("--gpu", gpu, "The GPU's number, from 0");
  app.add_option("--out", out, "A JSON file to write");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return epsim::Run(gpu, out);
}
