#include "models/load/sampled_max_load.h"

#include <tbb/global_control.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <mutex>
#include <numeric>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/progress.h"
#include "engine/random_stream.h"
#include "engine/status_macros.h"
#include "models/load/alias_table.h"

namespace epsim {
namespace {

// After so many draws of experts that cannot be taken, the next is found by looking at all.
constexpr int kPatience = 32;

// Whole numbers below a bound, without bias (Lemire 2019), two from each 64 random bits.
class SmallNumbers {
 public:
  explicit SmallNumbers(uint32_t bound) : bound_(bound), threshold_(-bound % bound) {}

  uint32_t Draw(RandomStream* random) {
    while (true) {
      if (!spare_) bits_ = random->Next();
      const uint32_t bits = static_cast<uint32_t>(spare_ ? bits_ >> 32 : bits_);
      spare_ = !spare_;
      const uint64_t product = uint64_t{bits} * bound_;
      if (static_cast<uint32_t>(product) >= threshold_) return static_cast<uint32_t>(product >> 32);
    }
  }

 private:
  const uint32_t bound_, threshold_;
  uint64_t bits_ = 0;
  bool spare_ = false;
};

// What has been chosen in the batch under way, and the load of each chip.
class Batch {
 public:
  explicit Batch(const LoadCase& load)
      : chip_of_(load.experts),
        token_of_(load.experts, -1),
        active_(static_cast<size_t>(std::min(load.chips, load.experts))),
        pairs_(active_.size()) {
    size_t expert = 0;
    for (size_t chip = 0; chip < active_.size(); ++chip) {
      for (int i = 0; i < ExpertsOfChip(load, static_cast<int>(chip)); ++i)
        chip_of_[expert++] = static_cast<int16_t>(chip);
    }
  }

  void Begin() {
    std::fill(active_.begin(), active_.end(), int16_t{0});
    std::fill(pairs_.begin(), pairs_.end(), int32_t{0});
    first_token_ = token_ + 1;
  }
  void BeginToken() { ++token_; }
  bool taken(int32_t expert) const { return token_of_[expert] == token_; }  // By this token.
  void Take(int32_t expert) {
    const int16_t chip = chip_of_[expert];
    active_[chip] = static_cast<int16_t>(active_[chip] + (token_of_[expert] < first_token_ ? 1 : 0));
    ++pairs_[chip];
    token_of_[expert] = token_;
  }
  int64_t most_active() const { return *std::max_element(active_.begin(), active_.end()); }
  int64_t most_pairs() const { return *std::max_element(pairs_.begin(), pairs_.end()); }

 private:
  std::vector<int16_t> chip_of_;   // [experts]
  std::vector<int64_t> token_of_;  // [experts]: the last token that chose it, -1 none.  Tokens are numbered on and on.
  std::vector<int16_t> active_;    // [chips that hold experts]
  std::vector<int32_t> pairs_;     // Likewise.
  int64_t token_ = -1, first_token_ = 0;
};

// One way of choosing: Choose lets the batch take the experts of its next token.
class UniformChooser {
 public:
  UniformChooser(const LoadCase& load, const RoutingLaw&)
      : top_k_(load.top_k), numbers_(static_cast<uint32_t>(load.experts)) {}

  void Choose(RandomStream* random, Batch* batch) {
    for (int i = 0; i < top_k_; ++i) {
      int32_t expert;
      do {
        expert = static_cast<int32_t>(numbers_.Draw(random));
      } while (batch->taken(expert));
      batch->Take(expert);
    }
  }

 private:
  const int top_k_;
  SmallNumbers numbers_;
};

// Draws in proportion to `weights` among those that `allowed` lets through; -1 where none has weight.
template <typename Allowed>
int32_t DrawByScan(absl::Span<const double> weights, const Allowed& allowed, RandomStream* random) {
  double sum = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (allowed(static_cast<int32_t>(i))) sum += weights[i];
  }
  double left = random->Unit() * sum;
  int32_t last = -1;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] == 0 || !allowed(static_cast<int32_t>(i))) continue;
    last = static_cast<int32_t>(i);
    left -= weights[i];
    if (left < 0) break;
  }
  return last;
}

// One expert after another, in proportion to popularity, with groups that open one after another.
class SuccessiveChooser {
 public:
  SuccessiveChooser(const LoadCase& load, const RoutingLaw& law)
      : top_k_(load.top_k),
        group_size_(load.experts / law.groups),
        top_groups_(law.top_groups),
        groups_first_(law.rule == GroupRule::kIndependent && law.top_groups < law.groups),
        weights_(law.popularity),
        group_weights_(law.groups),
        open_(law.groups) {
    if (weights_.empty()) weights_.assign(load.experts, 1.0);
    for (size_t expert = 0; expert < weights_.size(); ++expert)
      group_weights_[expert / group_size_] += weights_[expert];
    experts_.emplace(weights_);
  }

  void Choose(RandomStream* random, Batch* batch) {
    std::fill(open_.begin(), open_.end(), false);
    int may_open = top_groups_;
    for (; groups_first_ && may_open > 0; --may_open) {
      const int32_t group = DrawByScan(
          group_weights_, [this](int32_t g) { return !open_[g]; }, random);
      if (group < 0) break;
      open_[group] = true;
    }
    if (groups_first_) may_open = 0;
    const auto allowed = [&](int32_t expert) {
      return !batch->taken(expert) && (may_open > 0 || open_[expert / group_size_]);
    };
    for (int i = 0; i < top_k_; ++i) {
      int32_t expert = -1;
      for (int tries = 0; tries < kPatience; ++tries) {
        const int32_t drawn = experts_->Draw(random);
        if (!allowed(drawn)) continue;
        expert = drawn;
        break;
      }
      if (expert < 0) expert = DrawByScan(weights_, allowed, random);
      EPSIM_CHECK(expert >= 0);
      batch->Take(expert);
      if (std::vector<bool>::reference open = open_[expert / group_size_]; !open) {
        open = true;
        --may_open;
      }
    }
  }

 private:
  const int top_k_, group_size_, top_groups_;
  const bool groups_first_;
  std::vector<double> weights_, group_weights_;  // [experts], [groups]
  std::optional<AliasTable> experts_;
  std::vector<bool> open_;  // [groups]: the token may choose there.
};

// The scores of all experts, as they are needed for the sum of a group's best two.
class ScoreChooser {
 public:
  ScoreChooser(const LoadCase& load, const RoutingLaw& law)
      : top_k_(load.top_k),
        group_size_(load.experts / law.groups),
        top_groups_(law.top_groups),
        score_(load.experts),
        group_(law.groups),
        group_score_(law.groups) {
    const double sum = std::accumulate(law.popularity.begin(), law.popularity.end(), 0.0);
    for (const double popularity : law.popularity) {
      exponent_.push_back(popularity == 0 ? 0 : sum / (popularity * load.experts));
    }
  }

  void Choose(RandomStream* random, Batch* batch) {
    const bool uniform = exponent_.empty();
    for (size_t expert = 0; expert < score_.size(); ++expert) {
      double& score = score_[expert];
      score = (static_cast<double>(random->Next() >> 12) + 0.5) * 0x1p-52;
      // As logarithms, because an unpopular expert's score may be too small for a double.
      if (!uniform) score = exponent_[expert] == 0 ? kNever : std::log(score) * exponent_[expert];
    }
    for (size_t group = 0; group < group_.size(); ++group) {
      double best = uniform ? 0 : kNever, second = best;
      for (size_t expert = group * group_size_; expert < (group + 1) * group_size_; ++expert) {
        const double score = score_[expert];
        second = std::max(second, std::min(best, score));
        best = std::max(best, score);
      }
      group_[group] = static_cast<int32_t>(group);
      group_score_[group] = uniform ? best + second : std::exp(best) + std::exp(second);
    }
    std::partial_sort(group_.begin(), group_.begin() + top_groups_, group_.end(), [this](int32_t a, int32_t b) {
      return group_score_[a] != group_score_[b] ? group_score_[a] > group_score_[b] : a < b;
    });
    candidates_.clear();
    for (int i = 0; i < top_groups_; ++i) {
      for (int32_t expert = group_[i] * group_size_; expert < (group_[i] + 1) * group_size_; ++expert) {
        candidates_.push_back(expert);
      }
    }
    std::nth_element(candidates_.begin(), candidates_.begin() + (top_k_ - 1), candidates_.end(),
                     [this](int32_t a, int32_t b) { return score_[a] != score_[b] ? score_[a] > score_[b] : a < b; });
    for (int i = 0; i < top_k_; ++i) batch->Take(candidates_[i]);
  }

 private:
  static constexpr double kNever = -std::numeric_limits<double>::infinity();

  const int top_k_, group_size_, top_groups_;
  std::vector<double> exponent_;  // [experts]: 1 / w, 0 without popularity; empty: all 1.
  std::vector<double> score_;     // [experts]: of the token; its logarithm where there are exponents.
  std::vector<int32_t> group_;    // [groups], the best first.
  std::vector<double> group_score_;
  std::vector<int32_t> candidates_;
};

// Sums over the batches of a block: of whole numbers, so that up to 2^53 they are exact.
struct Sums {
  double active = 0, active_squared = 0, pairs = 0, pairs_squared = 0;

  void Add(const Sums& other) {
    active += other.active;
    active_squared += other.active_squared;
    pairs += other.pairs;
    pairs_squared += other.pairs_squared;
  }
};

// Incomplete where it was asked to stop.
template <typename Chooser>
Sums DrawBlock(const LoadCase& load, const RoutingLaw& law, int64_t batches, RandomStream random,
               const StopToken& stop) {
  Chooser chooser(load, law);
  Batch batch(load);
  Sums sums;
  for (int64_t i = 0; i < batches; ++i) {
    batch.Begin();
    for (int64_t token = 0; token < load.batch; ++token) {
      if (stop.stop_requested()) return sums;
      batch.BeginToken();
      chooser.Choose(&random, &batch);
    }
    const double active = static_cast<double>(batch.most_active()), pairs = static_cast<double>(batch.most_pairs());
    sums.Add({.active = active, .active_squared = active * active, .pairs = pairs, .pairs_squared = pairs * pairs});
  }
  return sums;
}

SampledMean MakeEstimate(double sum, double sum_of_squares, int64_t samples) {
  const double n = static_cast<double>(samples), mean = sum / n;
  const double variance = std::max(0.0, (sum_of_squares / n - mean * mean) * n / (n - 1));
  return {.mean = mean, .standard_error = std::sqrt(variance / n)};
}

absl::Status CheckLaw(const LoadCase& load, const RoutingLaw& law) {
  const auto error = [](const auto&... parts) { return absl::InvalidArgumentError(absl::StrCat(parts...)); };
  if (law.groups < 1 || load.experts % law.groups != 0) {
    return error("--groups: ", law.groups, " equal groups of ", load.experts, " experts; a divisor would fit");
  }
  if (law.top_groups < 1 || law.top_groups > law.groups) {
    return error("--group-topk: ", law.top_groups, " of ", law.groups, " groups; 1 to ", law.groups, " would fit");
  }
  const int in_groups = load.experts / law.groups * law.top_groups;
  if (load.top_k > in_groups) {
    return error("--topk: ", load.top_k, " experts of ", law.top_groups, " groups of ", load.experts / law.groups,
                 "; at most ", in_groups, " can be chosen");
  }
  if (law.popularity.empty()) return absl::OkStatus();
  if (law.popularity.size() != static_cast<size_t>(load.experts)) {
    return error("--popularity: ", law.popularity.size(), " numbers for ", load.experts, " experts");
  }
  std::vector<int> popular(law.groups);  // Experts with popularity.
  for (size_t expert = 0; expert < law.popularity.size(); ++expert) {
    const double popularity = law.popularity[expert];
    if (!(popularity >= 0 && std::isfinite(popularity))) {
      return error("--popularity: expert ", expert, ": ", popularity, " is not a number from 0 up");
    }
    if (popularity > 0) ++popular[static_cast<int>(expert) / (load.experts / law.groups)];
  }
  std::sort(popular.begin(), popular.end());
  const int least = std::accumulate(popular.begin(), popular.begin() + law.top_groups, 0);
  if (least < load.top_k) {
    return error("--popularity: ", law.groups == 1 ? "only " : absl::StrCat(law.top_groups, " groups have only "),
                 least, " experts that are not 0, and a token chooses ", load.top_k);
  }
  return absl::OkStatus();
}

}  // namespace

bool IsUniform(const RoutingLaw& law) { return law.popularity.empty() && law.top_groups == law.groups; }

int64_t DefaultSamples(const LoadCase& load) {
  return std::clamp((int64_t{1} << 30) / (load.batch * load.top_k), int64_t{1000}, int64_t{1'000'000});
}

absl::StatusOr<SampledLoad> SampleMaxLoad(const LoadCase& load, const RoutingLaw& law, const SamplingOptions& options) {
  RETURN_IF_ERROR(CheckLoadCase(load));
  if (load.experts > kMostSampledExperts) {
    return absl::InvalidArgumentError(
        absl::StrCat("--experts: ", load.experts, " are too many to simulate; at most ", kMostSampledExperts));
  }
  RETURN_IF_ERROR(CheckLaw(load, law));
  if (load.batch > kMostSampledPairs / load.top_k) {
    return absl::InvalidArgumentError(absl::StrCat("--batch: ", load.batch, " tokens of ", load.top_k,
                                                   " experts are too many to simulate; at most ",
                                                   kMostSampledPairs / load.top_k));
  }
  const int64_t samples = options.samples == 0 ? DefaultSamples(load) : options.samples;
  constexpr int64_t kMostSamples = int64_t{1} << 40;
  if (samples < 2 || samples > kMostSamples) {
    return absl::InvalidArgumentError(
        absl::StrCat("--samples: ", samples, " batches; 2 to ", kMostSamples, " would do"));
  }

  // The popularities over the largest, so that no sum overflows.
  RoutingLaw scaled = law;
  if (!scaled.popularity.empty()) {
    const double largest = *std::max_element(scaled.popularity.begin(), scaled.popularity.end());
    for (double& popularity : scaled.popularity) {
      if (popularity > 0) popularity = std::max(popularity / largest, std::numeric_limits<double>::min());
    }
  }
  const bool grouped = law.top_groups < law.groups, scored = grouped && law.rule == GroupRule::kBestTwo;
  const auto draw_block = IsUniform(law) ? &DrawBlock<UniformChooser>
                          : scored       ? &DrawBlock<ScoreChooser>
                                         : &DrawBlock<SuccessiveChooser>;
  // Blocks of a few milliseconds, whatever the threads: each has a stream of its own, and their sums are added in
  // order, a wave of blocks at a time.
  const int64_t numbers = load.batch * (scored ? load.experts : load.top_k);
  const int64_t block = std::clamp((int64_t{1} << 20) / numbers, int64_t{1}, int64_t{1} << 15);
  const int64_t blocks = (samples + block - 1) / block;
  constexpr int64_t kWave = 1 << 16;
  std::vector<Sums> sums(static_cast<size_t>(std::min(blocks, kWave)));
  Sums all;

  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const int threads = options.threads > 0 ? options.threads : cores;
  tbb::global_control limit(tbb::global_control::max_allowed_parallelism, static_cast<size_t>(threads));
  tbb::task_arena arena(threads);
  std::optional<Progress> progress;
  if (options.show_progress) progress.emplace("simulate", blocks);
  std::mutex progress_mutex;
  int64_t done = 0;
  for (int64_t first = 0; first < blocks; first += kWave) {
    const int64_t end = std::min(blocks, first + kWave);
    arena.execute([&] {
      tbb::parallel_for(first, end, [&](int64_t i) {
        sums[i - first] = draw_block(load, scaled, std::min(block, samples - i * block),
                                     RandomStream(options.seed, absl::StrCat("max_load/", i)), options.stop);
        if (!progress.has_value()) return;
        const std::lock_guard lock(progress_mutex);
        progress->Set(++done);
      });
    });
    RETURN_IF_ERROR(options.stop.Check());
    for (int64_t i = first; i < end; ++i) all.Add(sums[i - first]);
  }
  return SampledLoad{.active_experts = MakeEstimate(all.active, all.active_squared, samples),
                     .pairs = MakeEstimate(all.pairs, all.pairs_squared, samples),
                     .samples = samples};
}

}  // namespace epsim
