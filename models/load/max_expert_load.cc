#include "models/load/max_expert_load.h"

#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"

namespace epsim {
namespace {

constexpr double kNegligible = 1e-30;  // Of a probability.

// The numbers of consecutive whole numbers from `first` on; of all others they are 0.
struct Band {
  int first = 0;
  std::vector<double> value;

  int last() const { return first + static_cast<int>(value.size()) - 1; }
};

// Drops what is negligible at both ends.
void Trim(Band* band) {
  const auto matters = [](double value) { return value >= kNegligible; };
  const auto begin = std::find_if(band->value.begin(), band->value.end(), matters);
  const auto end = std::find_if(band->value.rbegin(), band->value.rend(), matters).base();
  if (begin >= end) return;
  band->first += static_cast<int>(begin - band->value.begin());
  band->value.erase(end, band->value.end());
  band->value.erase(band->value.begin(), begin);
}

// ln C(n, k) for 0 <= k <= n <= most.
class LogChoose {
 public:
  explicit LogChoose(int most) : factorial_(static_cast<size_t>(most) + 1) {
    for (size_t n = 1; n < factorial_.size(); ++n)
      factorial_[n] = factorial_[n - 1] + std::log(static_cast<long double>(n));
  }
  long double operator()(int n, int k) const { return factorial_[n] - factorial_[k] - factorial_[n - k]; }

 private:
  std::vector<long double> factorial_;
};

// The distribution of the number of active experts.
Band ActiveExperts(const LoadCase& load, const LogChoose& log_choose) {
  const int experts = load.experts, top_k = load.top_k;
  // fresh[u][j]: a token finds j of its experts not active yet, where u are.  Made when first needed.
  std::vector<std::vector<double>> fresh(static_cast<size_t>(experts) + 1);
  Band now{.first = top_k, .value = {1.0}}, next;
  for (int64_t token = 1; token < load.batch && now.first < experts; ++token) {
    next.first = now.first;
    next.value.assign(static_cast<size_t>(std::min(now.last() + top_k, experts) - now.first) + 1, 0.0);
    for (size_t i = 0; i < now.value.size(); ++i) {
      const int active = now.first + static_cast<int>(i);
      std::vector<double>& row = fresh[active];
      if (row.empty()) {
        for (int j = 0; j <= std::min(top_k, experts - active); ++j) {
          row.push_back(std::exp(static_cast<double>(log_choose(experts - active, j) + log_choose(active, top_k - j) -
                                                     log_choose(experts, top_k))));
        }
      }
      for (size_t j = 0; j < row.size(); ++j) next.value[i + j] += now.value[i] * row[j];
    }
    Trim(&next);
    std::swap(now, next);
  }
  return now;
}

// The product of two polynomials, in the powers from `lowest` to `highest`.
Band Product(const Band& a, const Band& b, int lowest, int highest) {
  Band product;
  product.first = std::max(lowest, a.first + b.first);
  const int last = std::min(highest, a.last() + b.last());
  if (last < product.first) return product;
  product.value.assign(static_cast<size_t>(last - product.first) + 1, 0.0);
  for (size_t i = 0; i < a.value.size(); ++i) {
    const int shift = a.first + static_cast<int>(i);
    const int begin = std::max(product.first, shift + b.first), end = std::min(last, shift + b.last()) + 1;
    const double factor = a.value[i];
    const double* const from = b.value.data() + (begin - shift - b.first);
    double* const to = product.value.data() + (begin - product.first);
    for (int n = 0; n < end - begin; ++n) to[n] += factor * from[n];
  }
  return product;
}

// Chips with the same number of experts.
struct EqualChips {
  int chips = 0;
  Band binomial;  // Of one of them: active experts, if each were active with probability p on its own.
};

class BusiestChip {
 public:
  BusiestChip(const LoadCase& load, const LogChoose& log_choose, const Band& active)
      : lowest_(active.first), highest_(active.last()) {
    double mean = 0;
    for (size_t i = 0; i < active.value.size(); ++i) mean += (lowest_ + static_cast<double>(i)) * active.value[i];
    const double margin = 0.5 / load.experts;
    const long double p = std::clamp(mean / load.experts, margin, 1 - margin);
    const auto binomial = [&](int n, int k) {
      return std::exp(static_cast<double>(log_choose(n, k) + k * std::log(p) + (n - k) * std::log1p(-p)));
    };
    for (size_t i = 0; i < active.value.size(); ++i) {
      weight_.push_back(active.value[i] / binomial(load.experts, lowest_ + static_cast<int>(i)));
    }
    const int more = load.experts % load.chips, share = load.experts / load.chips;
    const auto add = [&](int chips, int experts) {
      if (chips == 0 || experts == 0) return;
      EqualChips& equal = groups_.emplace_back(EqualChips{.chips = chips, .binomial = {}});
      for (int k = 0; k <= experts; ++k) equal.binomial.value.push_back(binomial(experts, k));
    };
    add(more, share + 1);
    add(load.chips - more, share);
  }

  double ExpectedMaximum() const {
    const int most = groups_.front().binomial.last();
    double sum = 0;
    for (int t = 0; t < most; ++t) {
      const double above = 1 - std::min(AtMost(t), 1.0);
      sum += above;
      if (above < 1e-16) break;
    }
    return sum;
  }

 private:
  // The most that `chips` of a group can have active under a bound of t on each.
  static int Capacity(const EqualChips& group, int chips, int t) { return chips * std::min(group.binomial.last(), t); }

  // P(no chip has more than t active experts).
  double AtMost(int t) const {
    int capacity = 0;
    for (const EqualChips& group : groups_) capacity += Capacity(group, group.chips, t);
    if (capacity < lowest_) return 0;
    Band all{.first = 0, .value = {1.0}};
    int of_all = 0;
    for (const EqualChips& group : groups_) {
      const int of_group = Capacity(group, group.chips, t);
      const Band power = Power(group, group.chips, t, capacity);
      of_all += of_group;
      all = Product(all, power, lowest_ - (capacity - of_all), highest_);
    }
    double probability = 0;
    for (size_t i = 0; i < all.value.size(); ++i) {
      probability += all.value[i] * weight_[static_cast<size_t>(all.first - lowest_) + i];
    }
    return probability;
  }

  // The polynomial of `chips` chips of a group, in the powers that can still come to [lowest_, highest_] where all
  // chips together can have `capacity`.
  Band Power(const EqualChips& group, int chips, int t, int capacity) const {
    if (chips == 1) {
      Band one = group.binomial;
      if (t < one.last()) one.value.resize(static_cast<size_t>(t) + 1);
      return one;
    }
    const int half = chips / 2;
    const Band of_half = Power(group, half, t, capacity);
    Band power = Product(of_half, of_half, lowest_ - (capacity - Capacity(group, 2 * half, t)), highest_);
    if (chips % 2 == 0) return power;
    return Product(power, Power(group, 1, t, capacity), lowest_ - (capacity - Capacity(group, chips, t)), highest_);
  }

  const int lowest_, highest_;      // Active experts of all chips.
  std::vector<double> weight_;      // [highest_ - lowest_ + 1]: P(K) over what the binomials make of K.
  std::vector<EqualChips> groups_;  // The one with more experts first; none without experts.
};

}  // namespace

absl::Status CheckLoadCase(const LoadCase& load) {
  const auto error = [](const auto&... parts) { return absl::InvalidArgumentError(absl::StrCat(parts...)); };
  if (load.batch < 1) return error("--batch: ", load.batch, " tokens; at least 1 is needed");
  if (load.chips < 1) return error("--chips: ", load.chips, "; at least 1 is needed");
  if (load.experts < 1) return error("--experts: ", load.experts, "; at least 1 is needed");
  if (load.top_k < 1) return error("--topk: ", load.top_k, "; a token chooses at least 1 expert");
  if (load.top_k > load.experts) {
    return error("--topk: ", load.top_k, " distinct experts of ", load.experts, "; at most ", load.experts,
                 " can be chosen");
  }
  return absl::OkStatus();
}

absl::StatusOr<double> ExactMaxExpertLoad(const LoadCase& load) {
  RETURN_IF_ERROR(CheckLoadCase(load));
  if (load.experts > kMostExactExperts) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--experts: ", load.experts, " are too many for the exact method, which takes up to ", kMostExactExperts));
  }
  const LogChoose log_choose(load.experts);
  return BusiestChip(load, log_choose, ActiveExperts(load, log_choose)).ExpectedMaximum();
}

double ExpectedActiveExperts(const LoadCase& load) {
  const double missed = std::log1p(-static_cast<double>(load.top_k) / load.experts);  // -inf where a token takes all.
  return -load.experts * std::expm1(static_cast<double>(load.batch) * missed);
}

}  // namespace epsim
