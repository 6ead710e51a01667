// Facts of the catalogue that every user may look up, and what a shape of one's own must satisfy.
#include "models/catalogue.h"

#include <string>

#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;

ModelSpec Model(std::string_view name) {
  const absl::StatusOr<ModelSpec> model = FindModel(name);
  EXPECT_TRUE(model.ok()) << model.status();
  return model.value_or(ModelSpec());
}

TEST(ModelCatalogueTest, EveryEntryParsesIsValidAndSaysWhereItsValuesAreFrom) {
  ASSERT_EQ(ModelCatalogue().size(), 19u);
  for (const CatalogueFile& file : ModelCatalogue()) {
    SCOPED_TRACE(std::string(file.path));
    EXPECT_EQ(file.path, "models/catalogue/" + std::string(file.name) + ".txtpb");
    EXPECT_TRUE(file.text.starts_with("# Values from ")) << file.text.substr(0, 40);
    const ModelSpec model = Model(file.name);
    EXPECT_TRUE(ValidateModel(model).ok()) << ValidateModel(model);
    EXPECT_FALSE(model.description().empty());
    EXPECT_NE(model.scoring(), ModelSpec::SCORING_UNKNOWN);
  }
}

TEST(ModelCatalogueTest, AnUnknownNameListsTheNamesThereAre) {
  const absl::Status status = FindModel("deepseek-v9").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("no model is called \"deepseek-v9\"; there are deepseek-r1, deepseek-v2"),
                    HasSubstr(", deepseek-v3, "), HasSubstr("minimax-m2-5"), EndsWith(", qwen3-next-80b-a3b")));
}

TEST(ModelCatalogueTest, DeepSeekV3) {
  const ModelSpec model = Model("deepseek-v3");
  // Three matrices of 7168 x 2048.
  EXPECT_EQ(ExpertBytes(model, BF16).count(), 3 * 2 * 7168 * 2048);
  EXPECT_EQ(ExpertBytes(model, NUMBER_TYPE_DEFAULT), ExpertBytes(model, BF16));
  // A byte a weight and four a block: 3 x 56 x 16 blocks.
  EXPECT_EQ(ExpertBytes(model, FP8).count(), 3 * (7168 * 2048 + 4 * 56 * 16));
  // 4.25 bits a weight.
  EXPECT_EQ(ExpertBytes(model, MXFP4).count(), 3 * 7168 * 2048 / 32 * 17);
  EXPECT_EQ(ExpertBytes(model, NVFP4).count(), 3 * (7168 * 2048 / 16 * 9 + 4));  // An alpha for each matrix.
  // 512 + 64 values a layer.
  EXPECT_EQ(KvBytesPerToken(model, BF16).count(), 61 * 1152);
  // 576 values in five blocks of 128.
  EXPECT_EQ(KvBytesPerToken(model, FP8).count(), 61 * (576 + 5 * 4));
  EXPECT_EQ(model.moe_layers(), 58u);
  EXPECT_EQ(model.expert_groups(), 8u);
}

TEST(ModelCatalogueTest, GptOssAlternatesWindowsOf128) {
  const ModelSpec model = Model("gpt-oss-120b");
  EXPECT_EQ(model.local_window(), 128u);
  EXPECT_EQ(CountAttentionLayers(model).full, 18);
  EXPECT_EQ(CountAttentionLayers(model).other, 18);
  // 2880 is no multiple of 128: 22.5 blocks are 23.
  EXPECT_EQ(ExpertBytes(model, FP8).count(), 3 * (2880 * 2880 + 4 * 23 * 23));
  // 2880 = 90 x 32.
  EXPECT_EQ(ExpertBytes(model, MXFP4).count(), 3 * 2880 * (1440 + 90));
}

TEST(ModelCatalogueTest, Qwen3NextCachesOnlyItsTwelveFullLayers) {
  const ModelSpec model = Model("qwen3-next-80b-a3b");
  EXPECT_EQ(CountAttentionLayers(model).full, 12);
  EXPECT_EQ(CountAttentionLayers(model).other, 36);
  EXPECT_EQ(KvBytesPerToken(model, BF16).count(), 12 * 2 * 2 * 256 * 2);
}

TEST(ModelCatalogueTest, ThreeOfFourLlama4LayersSeeChunks) {
  const ModelSpec model = Model("llama-4-maverick-17b-128e");
  EXPECT_TRUE(model.local_chunks());
  EXPECT_EQ(CountAttentionLayers(model).full, 12);
  EXPECT_EQ(CountAttentionLayers(model).other, 36);
}

// Mixtral with `assignment` applied.
std::string Problem(std::string_view assignment) {
  ModelSpec model = Model("mixtral-8x7b");
  const absl::Status set = SetField(assignment, &model);
  EXPECT_TRUE(set.ok()) << set;
  return std::string(ValidateModel(model).message());
}

TEST(ValidateModelTest, NamesTheFieldAndItsValue) {
  EXPECT_EQ(Problem("hidden=0"), "model \"Mixtral-8x7B\": hidden is missing or 0");
  EXPECT_EQ(Problem("top_k=9"), "model \"Mixtral-8x7B\": top_k is 9; experts is only 8");
  EXPECT_EQ(Problem("moe_layers=33"), "model \"Mixtral-8x7B\": moe_layers is 33; layers is only 32");
  EXPECT_EQ(Problem("moe_layers=31"), "model \"Mixtral-8x7B\": dense_intermediate is 0; 1 of the layers are dense");
  EXPECT_EQ(Problem("shared_experts=1"), "model \"Mixtral-8x7B\": shared_intermediate is 0; shared_experts is 1");
  EXPECT_EQ(Problem("expert_groups=3"), "model \"Mixtral-8x7B\": expert_groups is 3; experts is 8, no multiple");
  EXPECT_EQ(Problem("top_groups=2"), "model \"Mixtral-8x7B\": top_groups is 2; expert_groups is only 1");
  EXPECT_EQ(Problem("gqa.kv_heads=5"), "model \"Mixtral-8x7B\": gqa.kv_heads is 5; heads is 32, no multiple");
  EXPECT_EQ(Problem("gqa.head_dim=0"), "model \"Mixtral-8x7B\": gqa.head_dim is missing or 0");
  EXPECT_EQ(Problem("local_window=128"),
            "model \"Mixtral-8x7B\": full_attention_interval is 0; with local_window or linear_attention it must be in "
            "1..32");
  EXPECT_EQ(Problem("full_attention_interval=2"),
            "model \"Mixtral-8x7B\": full_attention_interval is 2; without local_window or linear_attention every "
            "layer is full");
  EXPECT_EQ(Problem("local_chunks=true"), "model \"Mixtral-8x7B\": local_window is 0; local_chunks needs it");
  EXPECT_EQ(Problem("attention=mla"), "model \"Mixtral-8x7B\": mla.kv_lora_rank is missing or 0");
  // Products of three sizes must fit 64 bits.
  EXPECT_EQ(Problem("moe_intermediate=1048577"),
            "model \"Mixtral-8x7B\": moe_intermediate is 1048577; the largest is 1048576");
  EXPECT_EQ(Problem("gqa.head_dim=4000000000"), "model \"Mixtral-8x7B\": head_dim is 4000000000; the largest is 65536");
  EXPECT_EQ(Problem("hidden=65537"), "model \"Mixtral-8x7B\": hidden is 65537; the largest is 65536");
  EXPECT_EQ(Problem("heads=1048576"), "model \"Mixtral-8x7B\": heads is 1048576; the largest is 65536");
  EXPECT_EQ(Problem("layers=1025"), "model \"Mixtral-8x7B\": layers is 1025; the largest is 1024");
}

TEST(ValidateModelTest, AnEmptySpecIsNoModel) {
  EXPECT_EQ(ValidateModel(ModelSpec()).message(), "model: name is missing");
  ModelSpec model = Model("mixtral-8x7b");
  model.clear_gqa();
  EXPECT_EQ(ValidateModel(model).message(), "model \"Mixtral-8x7B\": neither mla nor gqa is given");
  EXPECT_TRUE(ValidateModel(Model("mixtral-8x7b")).ok());
}

TEST(ValidateModelTest, LinearAttentionExcludesLocalWindows) {
  ModelSpec model = Model("qwen3-next-80b-a3b");
  model.set_local_window(128);
  EXPECT_EQ(ValidateModel(model).message(),
            "model \"Qwen3-Next-80B-A3B\": local_window is 128; linear_attention is given as well");
  model.set_local_window(0);
  model.mutable_linear_attention()->set_conv_width(0);
  EXPECT_EQ(ValidateModel(model).message(),
            "model \"Qwen3-Next-80B-A3B\": linear_attention.conv_width is missing or 0");
}

}  // namespace
}  // namespace epsim
