#include "experiments/accuracy/gemm_case.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "experiments/accuracy/kernel_timing.h"

namespace epsim {
namespace {

constexpr int64_t kMostRows = 1 << 22, kMostColumns = 1 << 20;

struct GemmShape {
  int64_t n = 0, k = 0;
  NumberType type{};
};

absl::StatusOr<GemmShape> ShapeOf(const Case& measured) {
  GemmShape shape;
  ASSIGN_OR_RETURN(shape.n, IntegerField(measured, "n", 1, kMostColumns));
  ASSIGN_OR_RETURN(shape.k, IntegerField(measured, "k", 1, kMostColumns));
  ASSIGN_OR_RETURN(shape.type, NumberTypeField(measured, "dtype"));
  return shape;
}

class DenseGemmCase : public CaseModel {
 public:
  static absl::StatusOr<std::unique_ptr<CaseModel>> Create(const Case& measured) {
    auto result = std::make_unique<DenseGemmCase>();
    ASSIGN_OR_RETURN(result->timing_, KernelTiming::Create(measured));
    ASSIGN_OR_RETURN(result->tokens_, IntegerField(measured, "m", 1, kMostRows));
    ASSIGN_OR_RETURN(result->shape_, ShapeOf(measured));
    result->group_ =
        absl::StrCat(measured.platform, "/dense/m", result->tokens_, "/n", result->shape_.n, "/k", result->shape_.k);
    return result;
  }

  absl::StatusOr<double> Predict(const LibraryTiming* timing) override {
    ASSIGN_OR_RETURN(const GpuRates rates, timing_.Rates(timing));
    const Gemm gemm(rates, shape_.n, shape_.k, shape_.type, shape_.type);
    return gemm.Product(static_cast<double>(tokens_)) / 1e6;
  }

  const std::string& group() const override { return group_; }

 private:
  KernelTiming timing_;
  int64_t tokens_ = 0;
  GemmShape shape_;
  std::string group_;
};

class GroupedGemmCase : public CaseModel {
 public:
  static absl::StatusOr<std::unique_ptr<CaseModel>> Create(const Case& measured) {
    auto result = std::make_unique<GroupedGemmCase>();
    ASSIGN_OR_RETURN(result->timing_, KernelTiming::Create(measured));
    ASSIGN_OR_RETURN(result->groups_, IntegerField(measured, "groups", 1, 4096));
    ASSIGN_OR_RETURN(result->tokens_, IntegerField(measured, "tokens_per_group", 1, kMostRows));
    ASSIGN_OR_RETURN(result->spread_, NumberField(measured, "tokens_spread", 0, 1));
    ASSIGN_OR_RETURN(const std::string layout, TextField(measured, "layout"));
    ASSIGN_OR_RETURN(result->shape_, ShapeOf(measured));
    result->group_ =
        absl::StrCat(measured.platform, "/grouped/", layout, "/groups", result->groups_, "/tokens", result->tokens_);
    return result;
  }

  absl::StatusOr<double> Predict(const LibraryTiming* timing) override {
    ASSIGN_OR_RETURN(const GpuRates rates, timing_.Rates(timing));
    const GroupedGemm gemm(rates, shape_.n, shape_.k, shape_.type, shape_.type);
    const auto groups = static_cast<double>(groups_), tokens = static_cast<double>(tokens_);
    const double tiles = groups * ExpectedTiles(rates.tile_tokens);
    return (gemm.floor() + gemm.BeyondFloor(groups, groups * tokens, tiles, tiles)) / 1e6;
  }

  const std::string& group() const override { return group_; }

 private:
  // Of a group.
  double ExpectedTiles(int64_t rows) const {
    const auto tokens = static_cast<double>(tokens_);
    const auto least = std::max<int64_t>(1, std::llround(std::ceil(tokens * (1 - spread_))));
    const auto most = std::max<int64_t>(least, std::llround(std::floor(tokens * (1 + spread_))));
    int64_t sum = 0;
    for (int64_t of_group = least; of_group <= most; ++of_group) sum += (of_group + rows - 1) / rows;
    return static_cast<double>(sum) / static_cast<double>(most - least + 1);
  }

  KernelTiming timing_;
  int64_t groups_ = 0, tokens_ = 0;
  double spread_ = 0;
  GemmShape shape_;
  std::string group_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<CaseModel>> NewDenseGemmCase(const Case& measured) {
  return DenseGemmCase::Create(measured);
}

absl::StatusOr<std::unique_ptr<CaseModel>> NewGroupedGemmCase(const Case& measured) {
  return GroupedGemmCase::Create(measured);
}

}  // namespace epsim
