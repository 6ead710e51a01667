#include "traces/import/import_trace.h"

#include <atomic>
#include <map>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/traces/format/trace_samples.h"
#include "tests/traces/import/npy_samples.h"
#include "traces/format/trace_reader.h"
#include "traces/import/npy.h"

namespace epsim {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

class ImportTest : public ::testing::Test {
 protected:
  absl::StatusOr<ImportReport> Import() { return ImportTrace(in_.path(), options_, out_ / "t.eptrace", StopToken()); }
  // The error, in one line that begins with a file; nothing is left behind.
  std::string Error() {
    const absl::Status status = Import().status();
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(std::string(status.message()), AllOf(StartsWith("/"), Not(HasSubstr("\n")), Not(HasSubstr(".tmp"))));
    EXPECT_THAT(out_.Entries(), IsEmpty());
    return std::string(status.message());
  }
  Contents Imported() {
    const auto trace = TraceReader::Open(out_ / "t.eptrace");
    EXPECT_TRUE(trace.ok()) << trace.status();
    EXPECT_TRUE(VerifyTrace(out_ / "t.eptrace", StopToken()).ok());
    return *ReadContents(**trace);
  }

  const ScratchFolder in_, out_;
  ImportOptions options_;
};

// Three rows of 2 layers x top 2 of 8 experts: a request of two tokens and one of one.
class NumpyFolderTest : public ImportTest {
 protected:
  NumpyFolderTest() {
    Array({0, 1, 2, 3, 4, 5, 6, 7, 1, 0, 3, 2});
    Lines({R"({"request": 5, "first_token": 0, "tokens": 2, "phase": "decode", "prompt_tokens": 100, "dataset": "d"})",
           R"({"request": 9, "first_token": 2, "tokens": 1, "phase": "prefill", "domain": "code"})"});
    Meta({});
  }
  void Array(const std::vector<int64_t>& ids, const std::string& shape = "(3, 2, 2)") {
    WriteFile(in_ / "routed_experts.npy", Npy(1, Dict("<i2", shape), Numbers(ids, 2)));
  }
  void Lines(const std::vector<std::string>& lines) {
    std::string text;
    for (const std::string& line : lines) text += line + "\n";
    WriteFile(in_ / "requests.jsonl", text);
  }
  // meta.json with some entries replaced; "" removes one.
  void Meta(const std::map<std::string, std::string>& edits) {
    std::map<std::string, std::string> entries = {
        {"model", "\"tiny\""},          {"layers", "2"}, {"experts", "8"}, {"top_k", "2"},
        {"granularity", "\"request\""}, {"tokens", "3"}, {"requests", "2"}};
    for (const auto& [key, value] : edits) entries[key] = value;
    std::string text;
    for (const auto& [key, value] : entries) {
      if (!value.empty()) text += (text.empty() ? "{\"" : ", \"") + key + "\": " + value;
    }
    WriteFile(in_ / "meta.json", text + "}");
  }
};

TEST_F(NumpyFolderTest, BecomesATraceOfRequests) {
  const auto report = Import();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->format, "NumPy folder");
  EXPECT_EQ(report->tokens, 3);
  EXPECT_EQ(report->requests, 2);
  EXPECT_EQ(report->steps, 0);
  EXPECT_EQ(report->missing_ids, 0);
  EXPECT_EQ(report->header.layers(), 2u);
  const Contents contents = Imported();
  EXPECT_THAT(contents.ids, ElementsAre(ElementsAre(0, 1), ElementsAre(2, 3), ElementsAre(4, 5), ElementsAre(6, 7),
                                        ElementsAre(1, 0), ElementsAre(3, 2)));
  EXPECT_THAT(contents.position, ElementsAre(100, 101, 0)) << "decode goes on from the prompt";
  EXPECT_THAT(contents.phase, ElementsAre(DECODE, DECODE, PREFILL));
  EXPECT_THAT(contents.requests, ElementsAre("5 first 0 tokens 2 prompt 100 d", "9 first 2 tokens 1 prompt 0 code"));
  EXPECT_EQ((*TraceReader::Open(out_ / "t.eptrace"))->header().model(), "tiny");
  EXPECT_THAT(out_.Entries(), ElementsAre("t.eptrace"));
}

TEST_F(NumpyFolderTest, StepsBecomeATraceOfSteps) {
  Meta({{"granularity", "\"step\""}});
  Lines({R"({"request": 0, "first_token": 0, "tokens": 2, "phase": "prefill", "step": 3})",
         R"({"request": 1, "first_token": 2, "tokens": 1, "phase": "prefill", "step": 5})"});
  const auto report = Import();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->steps, 2);
  EXPECT_EQ(report->requests, 0);
  const Contents contents = Imported();
  EXPECT_THAT(contents.ids, ElementsAre(ElementsAre(0, 1), ElementsAre(2, 3), ElementsAre(4, 5), ElementsAre(6, 7),
                                        ElementsAre(1, 0), ElementsAre(3, 2)));
  EXPECT_THAT(contents.step, ElementsAre(0, 0, 1));
  EXPECT_THAT(contents.position, IsEmpty()) << "whose tokens they are is not known";
  Lines({R"({"request": 0, "first_token": 0, "tokens": 2, "step": 3})",
         R"({"request": 1, "first_token": 2, "tokens": 1, "step": 3})"});
  std::filesystem::remove(out_ / "t.eptrace");
  EXPECT_THAT(Error(), HasSubstr("requests.jsonl:2: step is 3 after step 3"));
}

// Scores 0 to 47 as float32: rows of 2 layers x 8 experts.
class NumpyScoresTest : public NumpyFolderTest {
 protected:
  void Scores(const std::string& descr, const std::string& shape, int bytes) {
    std::string data;
    for (int i = 0; i < 3 * 2 * 8; ++i) {
      const float score = static_cast<float>(i);
      data.append(reinterpret_cast<const char*>(&score), static_cast<size_t>(bytes));
    }
    WriteFile(in_ / "scores.npy", Npy(1, Dict(descr, shape), data));
  }
  // Of one token in one layer: first, first + 1, ...
  static std::string Row(int first) {
    std::string row;
    for (int e = 0; e < 8; ++e) {
      const float score = static_cast<float>(first + e);
      row.append(reinterpret_cast<const char*>(&score), sizeof(score));
    }
    return row;
  }
};

TEST_F(NumpyScoresTest, GoIntoTheTrace) {
  Scores("<f4", "(3, 2, 8)", 4);
  ASSERT_TRUE(Import().ok());
  EXPECT_THAT(Imported().scores, ElementsAre(Row(0), Row(8), Row(16), Row(24), Row(32), Row(40)));
  EXPECT_EQ((*TraceReader::Open(out_ / "t.eptrace"))->header().scores(), FLOAT32);
}

// A step's scores lie layer by layer in the file; Contents has them token by token.
TEST_F(NumpyScoresTest, OfStepsStayWithTheirTokens) {
  Meta({{"granularity", "\"step\""}});
  Lines({R"({"request": 0, "first_token": 0, "tokens": 2, "phase": "prefill", "step": 3})",
         R"({"request": 1, "first_token": 2, "tokens": 1, "phase": "prefill", "step": 5})"});
  Scores("<f4", "(3, 2, 8)", 4);
  ASSERT_TRUE(Import().ok());
  EXPECT_THAT(Imported().scores, ElementsAre(Row(0), Row(8), Row(16), Row(24), Row(32), Row(40)));
}

TEST_F(NumpyScoresTest, OfHalfPrecisionAreKeptAsTheyAre) {
  Scores("<f2", "(3, 2, 8)", 2);
  ASSERT_TRUE(Import().ok());
  EXPECT_EQ((*TraceReader::Open(out_ / "t.eptrace"))->header().scores(), FLOAT16);
  EXPECT_EQ(Imported().scores[0].size(), 16u);
}

TEST_F(NumpyScoresTest, OfAnotherShapeOrTypeAreRefused) {
  Scores("<f4", "(3, 8, 2)", 4);
  EXPECT_THAT(Error(), HasSubstr("scores.npy: has shape [3, 8, 2], not [3, 2, 8]: tokens, layers, experts"));
  Scores("<i4", "(3, 2, 8)", 4);
  EXPECT_THAT(Error(), HasSubstr("scores.npy: holds numbers of type '<i4', not <f2 or <f4"));
  // Floats are no ids.
  WriteFile(in_ / "routed_experts.npy", Npy(1, Dict("<f4", "(3, 2, 2)"), std::string(48, '\0')));
  EXPECT_THAT(Error(), HasSubstr("routed_experts.npy: holds numbers of type '<f4', not |u1"));
}

TEST_F(NumpyFolderTest, MissingIdsAreCounted) {
  Array({0, -1, -1, -1, 4, 5, 6, 7, 1, 0, 3, 2});
  const auto report = Import();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->missing_ids, 3);
  EXPECT_THAT(Imported().ids[0], ElementsAre(0));
  EXPECT_THAT(Imported().ids[1], IsEmpty());
  EXPECT_EQ((*TraceReader::Open(out_ / "t.eptrace"))->index().missing_ids(), 3);
}

TEST_F(NumpyFolderTest, IdsThatCannotBeAreNamed) {
  Array({0, 1, 2, 3, 4, 5, 6, 8, 1, 0, 3, 2});
  EXPECT_THAT(Error(), HasSubstr("routed_experts.npy: row 1, layer 1: expert 8 is not below 8"));
  Array({0, 1, 2, 3, 4, 5, 6, 7, 1, -2, 3, 2});
  EXPECT_THAT(Error(), HasSubstr("routed_experts.npy: row 2, layer 0: expert -2 is neither an expert nor -1"));
  Array({0, 1, 2, 3, 4, 5, 6, 6, 1, 0, 3, 2});
  EXPECT_THAT(Error(), HasSubstr("requests.jsonl:1: request 5, token 1, layer 1: expert 6 is twice in one top-k"));
}

TEST_F(NumpyFolderTest, EveryInconsistencyIsAnError) {
  const auto with_meta = [&](const std::map<std::string, std::string>& edits) {
    Meta(edits);
    const std::string error = Error();
    Meta({});
    return error;
  };
  EXPECT_THAT(with_meta({{"layers", "3"}}), HasSubstr("routed_experts.npy: has 2 layers, but"));
  EXPECT_THAT(with_meta({{"layers", "3"}}), HasSubstr("meta.json says 3"));
  EXPECT_THAT(with_meta({{"top_k", "4"}}), HasSubstr("has 2 ids a token (top_k), but"));
  EXPECT_THAT(with_meta({{"tokens", "4"}}), HasSubstr("has 3 tokens, but"));
  EXPECT_THAT(with_meta({{"requests", "7"}}), HasSubstr("requests is 7, but"));
  EXPECT_THAT(with_meta({{"experts", ""}}), HasSubstr("meta.json: has no \"experts\""));
  EXPECT_THAT(with_meta({{"experts", "1"}}), HasSubstr("top_k is 2, not between 1 and 1"));
  EXPECT_THAT(with_meta({{"experts", "\"8\""}}), HasSubstr("meta.json: experts is \"8\", not a whole number"));
  EXPECT_THAT(with_meta({{"experts", "-8"}}), HasSubstr("meta.json: experts is -8, not a whole number"));
  EXPECT_THAT(with_meta({{"granularity", "\"token\""}}), HasSubstr("granularity is \"token\", not"));
  EXPECT_THAT(with_meta({{"phase", "\"both\""}}), HasSubstr("phase is \"both\", not \"prefill\" or \"decode\""));
  EXPECT_THAT(with_meta({{"model", "\n7,"}}), HasSubstr("meta.json: is not JSON: "));
  Array({0, 1, 2, 3}, "(2, 2)");
  EXPECT_THAT(Error(), HasSubstr("has shape [2, 2], not [tokens, layers, top_k]"));
  options_.experts = 16;
  EXPECT_THAT(Error(), HasSubstr("meta.json: experts is 8, but 16 was asked for"));
}

TEST_F(NumpyFolderTest, EveryWrongLineIsNamed) {
  const std::string good = R"({"request": 5, "first_token": 0, "tokens": 2})";
  const auto second = [&](const std::string& line) {
    Lines({good, line});
    return Error();
  };
  EXPECT_THAT(second(R"({"request": 6, "first_token": 1, "tokens": 2})"),
              HasSubstr("requests.jsonl:2: first_token is 1, but the lines before end at row 2 (rows overlap)"));
  EXPECT_THAT(second(R"({"request": 6, "first_token": 3, "tokens": 0})"), HasSubstr("requests.jsonl:2: tokens is 0"));
  EXPECT_THAT(second(R"({"request": 6, "first_token": 2, "tokens": 2})"),
              HasSubstr("requests.jsonl:2: rows 2 to 3 are beyond the 3 of"));
  EXPECT_THAT(second(R"({"request": 6, "first_token": 9000000000000000, "tokens": 9000000000000000})"),
              HasSubstr("are beyond the 3 of"));
  EXPECT_THAT(second(R"({"request": 5, "first_token": 2, "tokens": 1})"),
              HasSubstr(":2: request 5 has a line already"));
  EXPECT_THAT(second(R"({"request": 6, "first_token": 2})"), HasSubstr("requests.jsonl:2: has no \"tokens\""));
  EXPECT_THAT(second(R"({"request": 6, "first_token": 2, "tokens": 1.5})"), HasSubstr("tokens is 1.5, not a whole"));
  EXPECT_THAT(second(R"({"request": 6, "first_token": 2, "tokens": 1, "phase": "other"})"),
              HasSubstr("requests.jsonl:2: phase is \"other\""));
  EXPECT_THAT(
      second(R"({"request": 6, "first_token": 2, "tokens": 1, "phase": "decode", "prompt_tokens": 4294967296})"),
      HasSubstr("requests.jsonl:2: position 4294967296 does not fit in 32 bits"));
  EXPECT_THAT(second("nonsense"), HasSubstr("requests.jsonl:2: is not JSON: "));
  EXPECT_THAT(second("[1]"), HasSubstr("requests.jsonl:2: is not a JSON object"));
  Lines({good});
  EXPECT_THAT(Error(), HasSubstr("requests.jsonl: its 1 lines have 2 tokens, "));
  std::filesystem::remove(in_ / "requests.jsonl");
  EXPECT_THAT(Error(), HasSubstr("requests.jsonl: cannot open: No such file"));
}

TEST_F(NumpyFolderTest, AFileThatIsThereStaysWhenTheImportFails) {
  WriteFile(out_ / "t.eptrace", "before");
  Meta({{"layers", "3"}});
  EXPECT_FALSE(Import().ok());
  EXPECT_EQ(ReadFile(out_ / "t.eptrace"), "before");
  EXPECT_THAT(out_.Entries(), ElementsAre("t.eptrace"));
  EXPECT_THAT(std::string(ImportTrace(in_.path(), {}, out_.path(), StopToken()).status().message()),
              HasSubstr("is not a file that can be replaced"));
}

TEST_F(NumpyFolderTest, StopsWhenAsked) {
  const std::atomic<bool> stop = true;
  EXPECT_TRUE(absl::IsCancelled(ImportTrace(in_.path(), {}, out_ / "t.eptrace", StopToken(&stop)).status()));
  EXPECT_THAT(out_.Entries(), IsEmpty());
}

class VllmFolderTest : public ImportTest {
 protected:
  VllmFolderTest() {
    Array("b.npy", "(1, 2, 2)", {7, 6, 5, 4});
    Array("a.npy", "(2, 2, 2)", {0, 1, 2, -1, -1, -1, 3, 2});
    options_.experts = 8;
  }
  void Array(const std::string& name, const std::string& shape, const std::vector<int64_t>& ids) {
    WriteFile(in_ / name, Npy(1, Dict("<i2", shape), Numbers(ids, 2)));
  }
};

TEST_F(VllmFolderTest, BecomesATraceOfRequestsInTheOrderOfNames) {
  options_.model = "m";
  options_.phase = DECODE;
  const auto report = Import();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->format, "vLLM routed_experts folder");
  EXPECT_EQ(report->tokens, 3);
  EXPECT_EQ(report->requests, 2);
  EXPECT_EQ(report->missing_ids, 3);
  const Contents contents = Imported();
  EXPECT_THAT(contents.ids, ElementsAre(ElementsAre(0, 1), ElementsAre(2), IsEmpty(), ElementsAre(3, 2),
                                        ElementsAre(7, 6), ElementsAre(5, 4)));
  EXPECT_THAT(contents.phase, ElementsAre(DECODE, DECODE, DECODE));
  EXPECT_THAT(contents.position, ElementsAre(0, 1, 0));
  EXPECT_THAT(contents.requests, ElementsAre("0 first 0 tokens 2 prompt 0 ", "1 first 2 tokens 1 prompt 0 "));
}

TEST_F(VllmFolderTest, TheNumberOfExpertsMustBeSaid) {
  options_.experts = 0;
  EXPECT_THAT(Error(), HasSubstr("how many experts a layer has is in no routed_experts array"));
  WriteFile(in_ / "meta.json", R"({"experts": 8, "model": "beside"})");
  ASSERT_TRUE(Import().ok());
  EXPECT_THAT(Imported().phase, IsEmpty()) << "not said, not guessed";
  EXPECT_EQ((*TraceReader::Open(out_ / "t.eptrace"))->header().model(), "beside");
}

TEST_F(VllmFolderTest, ArraysMustAgree) {
  Array("c.npy", "(1, 3, 2)", {0, 1, 2, 3, 4, 5});
  EXPECT_THAT(Error(), HasSubstr("c.npy: has shape [1, 3, 2], not [tokens, 2, 2] as "));
  Array("c.npy", "(0, 2, 2)", {});
  EXPECT_THAT(Error(), HasSubstr("c.npy: has shape [0, 2, 2]"));
  Array("c.npy", "(1, 2, 2)", {0, 1, 2, 8});
  EXPECT_THAT(Error(), HasSubstr("c.npy: row 0, layer 1: expert 8 is not below 8"));
  Array("c.npy", "(1, 2, 2)", {0, 1, 2, 2});
  EXPECT_THAT(Error(), HasSubstr("c.npy: request 2, token 0, layer 1: expert 2 is twice in one top-k"));
  WriteFile(in_ / "c.npy", Npy(1, Dict("|u1", "(1, 2, 2)"), "abcd"));
  EXPECT_THAT(Error(), HasSubstr("c.npy: its numbers are not int16"));
  std::filesystem::remove(in_ / "c.npy");
  WriteFile(in_ / "meta.json", R"({"experts": 8, "layers": 9})");
  EXPECT_THAT(Error(), HasSubstr("says layers 9, top_k 2"));
  WriteFile(in_ / "meta.json", R"({"experts": 8, "tokens": 9})");
  EXPECT_THAT(Error(), HasSubstr("meta.json: tokens is 9, but the arrays have 3"));
}

TEST_F(ImportTest, WhatIsNoCaptureIsNamed) {
  EXPECT_THAT(Error(), HasSubstr("is no capture that is known"));
  EXPECT_THAT(std::string(ImportTrace(in_ / "none", {}, out_ / "t", StopToken()).status().message()),
              HasSubstr("none: does not exist"));
  WriteFile(in_ / "file", "x");
  EXPECT_THAT(std::string(ImportTrace(in_ / "file", {}, out_ / "t", StopToken()).status().message()),
              HasSubstr("file: is not a folder"));
}

// The captured traces come out as the very arrays that went in.
class SharedTraceTest : public ::testing::TestWithParam<const char*> {};

TEST_P(SharedTraceTest, GivesBackTheArray) {
  const std::string source = std::string(EPSIM_SHARED_DATA) + "/traces/" + GetParam();
  if (!std::filesystem::exists(source)) GTEST_SKIP() << source << " is not there";
  const ScratchFolder out;
  const auto report = ImportTrace(source, {}, out / "t.eptrace", StopToken());
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->missing_ids, 0);
  const auto trace = TraceReader::OpenRaw(out / "t.eptrace", out.path(), StopToken());
  ASSERT_TRUE(trace.ok()) << trace.status();
  const auto array = NpyArray::Open(source + "/routed_experts.npy");
  ASSERT_TRUE(array.ok()) << array.status();
  ASSERT_EQ((*trace)->index().tokens(), array->shape()[0]);
  const int64_t layers = array->shape()[1], top_k = array->shape()[2];
  ASSERT_EQ((*trace)->header().layers(), layers);
  ASSERT_EQ((*trace)->header().top_k(), top_k);
  std::vector<int32_t> row(static_cast<size_t>(layers * top_k)), stored(row.size());
  int64_t token = 0;
  for (int64_t i = 0; i < (*trace)->index().chunks_size(); ++i) {
    const auto chunk = (*trace)->ReadChunk(i);
    ASSERT_TRUE(chunk.ok()) << chunk.status();
    ASSERT_EQ(chunk->valid_count, nullptr);
    for (int64_t t = 0; t < chunk->tokens; ++t, ++token) {
      for (int64_t layer = 0; layer < layers; ++layer) {
        const int64_t cell = (*trace)->header().granularity() == STEP ? layer * chunk->tokens + t : t * layers + layer;
        for (int64_t k = 0; k < top_k; ++k) {
          stored[static_cast<size_t>(layer * top_k + k)] = static_cast<int32_t>(chunk->ids[cell * top_k + k]);
        }
      }
      array->Read(token * layers * top_k, absl::MakeSpan(row));
      ASSERT_EQ(stored, row) << token;
    }
  }
  EXPECT_EQ(token, array->shape()[0]);
}

INSTANTIATE_TEST_SUITE_P(Captures, SharedTraceTest,
                         ::testing::Values("gpt-oss-20b-decode", "deepseek-v2-lite-intent", "deepseek-v2-lite-summary",
                                           "qwen3-30b-a3b-prefill-steps"));

TEST(SharedTraceFactsTest, AreThoseOfItsReadme) {
  const std::string folder = std::string(EPSIM_SHARED_DATA) + "/traces/";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is not there";
  const ScratchFolder out;
  const auto decode = ImportTrace(folder + "gpt-oss-20b-decode", {}, out / "a", StopToken());
  ASSERT_TRUE(decode.ok()) << decode.status();
  EXPECT_EQ(decode->requests, 185);
  EXPECT_EQ(decode->tokens, 85302);
  const auto trace = TraceReader::Open(out / "a");
  EXPECT_EQ((*trace)->requests()[0].prompt_tokens(), 136);
  EXPECT_EQ((*trace)->requests()[0].domain(), "mmlu_test");
  EXPECT_EQ((*trace)->ReadChunk(0)->position[0], 136u);
  const auto steps = ImportTrace(folder + "qwen3-30b-a3b-prefill-steps", {}, out / "b", StopToken());
  ASSERT_TRUE(steps.ok()) << steps.status();
  EXPECT_EQ(steps->steps, 3);
  EXPECT_EQ((*TraceReader::Open(out / "b"))->index().chunks(2).tokens(), 2080);
}

}  // namespace
}  // namespace epsim
