// Does the catalogue give the sizes that follow from the published configurations?  Every model of
// reference/models.json, whose derived sizes were computed apart from this code.
#include <cstdint>
#include <fstream>
#include <map>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/catalogue.h"
#include "nlohmann/json.hpp"

namespace epsim {
namespace {

constexpr char kPath[] = EPSIM_SHARED_DATA "/reference/models.json";

// 4 B for each 128 x 128 block of the three matrices of an expert, which the published sizes leave out.
int64_t Fp8ScaleBytes(const ModelSpec& model) {
  return 4 * 3 * ((model.hidden() + 127) / 128) * ((model.moe_intermediate() + 127) / 128);
}

TEST(PublishedShapesTest, AllNineteen) {
  std::ifstream stream(kPath);
  if (!stream) GTEST_SKIP() << kPath << " is not there";
  const nlohmann::json published = nlohmann::json::parse(stream);
  std::map<std::string, ModelSpec> by_name;
  for (const CatalogueFile& file : ModelCatalogue()) {
    const absl::StatusOr<ModelSpec> model = FindModel(file.name);
    ASSERT_TRUE(model.ok()) << model.status();
    ASSERT_TRUE(by_name.emplace(model->name(), *model).second) << model->name();
  }
  ASSERT_EQ(published.size(), by_name.size());

  for (const nlohmann::json& row : published) {
    std::string name = row["name"];
    name = name.substr(0, name.find(" ("));  // "GLM-4.7 (GLM-4.5 shape)".
    SCOPED_TRACE(name);
    ASSERT_TRUE(by_name.contains(name));
    const ModelSpec& model = by_name[name];

    EXPECT_EQ(ExpertBytes(model, BF16).count(), row["expert_bytes_bf16"].get<int64_t>());
    EXPECT_EQ(ExpertBytes(model, FP8).count() - Fp8ScaleBytes(model), row["expert_bytes_fp8"].get<int64_t>());
    EXPECT_EQ(ExpertBytes(model, BF16).count() / 2 * model.experts() * model.moe_layers(),
              row["routed_params_total"].get<int64_t>());
    EXPECT_EQ(KvBytesPerToken(model, BF16).count(), row["kv_bytes_per_token_bf16"].get<int64_t>());

    const auto number = [&](const char* key) {
      return row.contains(key) && !row[key].is_null() ? row[key].get<uint32_t>() : 0u;
    };
    EXPECT_EQ(model.layers(), number("layers"));
    EXPECT_EQ(model.layers() - model.moe_layers(), number("dense_layers"));
    EXPECT_EQ(model.hidden(), number("hidden"));
    EXPECT_EQ(model.dense_intermediate(), number("dense_inter"));
    EXPECT_EQ(model.moe_intermediate(), number("moe_inter"));
    EXPECT_EQ(model.top_k(), number("top_k"));
    EXPECT_EQ(model.shared_experts(), number("n_shared"));
    EXPECT_EQ(model.shared_intermediate(), number("shared_inter"));
    EXPECT_EQ(model.expert_groups(), number("n_group"));
    EXPECT_EQ(model.top_groups(), number("topk_group"));
    EXPECT_EQ(model.heads(), number("heads"));
    EXPECT_EQ(model.vocabulary(), number("vocab"));
    EXPECT_EQ(model.scoring() == ModelSpec::SIGMOID, row["scoring"] == "sigmoid");
    ASSERT_EQ(model.has_mla(), row["attn"] == "mla");
    if (model.has_mla()) {
      EXPECT_EQ(model.mla().q_lora_rank(), number("q_lora_rank"));
      EXPECT_EQ(model.mla().qk_nope_head_dim(), number("qk_nope_head_dim"));
      EXPECT_EQ(model.mla().v_head_dim(), number("v_head_dim"));
    } else {
      EXPECT_EQ(model.gqa().kv_heads(), number("kv_heads"));
      EXPECT_EQ(model.gqa().head_dim(), number("head_dim"));
    }
  }
}

}  // namespace
}  // namespace epsim
