// What the writer refuses.
#include "traces/format/trace_writer.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/traces/format/trace_samples.h"
#include "traces/format/trace_reader.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

class TraceWriterTest : public ::testing::Test {
 protected:
  // 2 layers x 8 experts, top 2: a token is 4 ids.
  TraceWriterTest() {
    header_.set_layers(2);
    header_.set_experts(8);
    header_.set_top_k(2);
    header_.set_granularity(REQUEST);
  }
  std::string CreateError() {
    return std::string(TraceWriter::Create(folder_ / "t", header_, options_).status().message());
  }
  std::string RequestError(const std::vector<int32_t>& ids, const TokenColumns& columns = {}) {
    auto writer = TraceWriter::Create(folder_ / "t", header_, options_);
    EXPECT_TRUE(writer.ok()) << writer.status();
    RequestInfo request;
    request.set_id(7);
    const absl::Status status = (*writer)->AppendRequest(request, ids, columns);
    if (!status.ok()) {
      EXPECT_EQ((*writer)->AppendRequest(request, {0, 1, 0, 1}, {}), status) << "stays unusable";
      EXPECT_EQ((*writer)->Finish(), status);
    }
    return std::string(status.message());
  }
  std::string StepError(const std::vector<int32_t>& ids, const TokenColumns& columns = {}) {
    header_.set_granularity(STEP);
    auto writer = TraceWriter::Create(folder_ / "t", header_, options_);
    return std::string((*writer)->AppendStep({}, ids, columns).message());
  }

  const ScratchFolder folder_;
  TraceHeader header_;
  TraceWriterOptions options_;
};

TEST_F(TraceWriterTest, NeedsAWholeHeader) {
  EXPECT_EQ(CreateError(), "");
  header_.clear_layers();
  EXPECT_EQ(CreateError(), (folder_ / "t") + ": layers is 0, not between 1 and 65536");
  header_.set_layers(2);
  header_.clear_top_k();
  EXPECT_THAT(CreateError(), HasSubstr("top_k is 0, not between 1 and 8"));
  header_.set_top_k(2);
  header_.clear_granularity();
  EXPECT_THAT(CreateError(), HasSubstr("granularity 0 is not REQUEST"));
  header_.set_granularity(REQUEST);
  header_.set_model("\xff");
  // The compiler's copy of the text is not UTF-8, and Protocol Buffers could not read it back.
  EXPECT_THAT(CreateError(), HasSubstr("a text of the header is not UTF-8"));
  header_.set_model("caf\xc3\xa9");
  EXPECT_EQ(CreateError(), "");
  options_.chunk_bytes = (int64_t{1} << 30) + 1;
  EXPECT_THAT(CreateError(), HasSubstr("chunk_bytes is 1073741825, not between 1 and 1073741824"));
}

TEST_F(TraceWriterTest, NamesAFileThatCannotBeCreated) {
  EXPECT_EQ(std::string(TraceWriter::Create(folder_ / "none/t", header_).status().message()),
            (folder_ / "none/t") + ": cannot create: No such file or directory");
}

TEST_F(TraceWriterTest, RefusesIdsOutOfRange) {
  EXPECT_EQ(RequestError({0, 1, 2, 3, 0, 7, 6, 7}), "");
  EXPECT_EQ(RequestError({0, 1, 2, 3, 0, 8, 6, 7}),
            (folder_ / "t") + ": request 7, token 1, layer 0: expert 8 is not below 8");
  EXPECT_THAT(StepError({0, 1, 2, 3, 0, 8, 6, 7}), HasSubstr("step 0, token 0, layer 1: expert 8 is not below 8"));
}

TEST_F(TraceWriterTest, RefusesAnIdTwiceInOneTopK) {
  EXPECT_EQ(RequestError({0, 1, 2, 3, 0, 1, 6, 6}),
            (folder_ / "t") + ": request 7, token 1, layer 1: expert 6 is twice in one top-k");
  EXPECT_EQ(RequestError({0, 1, 0, 1, 0, 1, 0, 1}), "") << "in different layers and tokens it is no repetition";
  EXPECT_EQ(RequestError({-1, -1, 0, 1}), "") << "two missing ids are no repetition";
}

TEST_F(TraceWriterTest, RefusesShapesThatDoNotFit) {
  EXPECT_THAT(RequestError({0, 1, 2}), HasSubstr("request 7: 3 ids are not whole tokens of 2 layers x 2"));
  EXPECT_THAT(RequestError({}), HasSubstr("request 7 has no tokens"));
  const std::vector<uint32_t> position = {1, 2};
  TokenColumns columns;
  columns.position = position;
  EXPECT_THAT(RequestError({0, 1, 2, 3}, columns), HasSubstr("column position has 8 bytes, not 4 for 1 tokens"));
  columns = {};
  const std::vector<uint16_t> rank = {0};
  columns.source_rank = rank;
  EXPECT_THAT(RequestError({0, 1, 2, 3}, columns), HasSubstr("column source_rank has 2 bytes, not 0 for 1 tokens"));
}

TEST_F(TraceWriterTest, RefusesColumnsOutOfRange) {
  const std::vector<uint8_t> phase = {3};
  TokenColumns columns;
  columns.phase = phase;
  EXPECT_THAT(RequestError({0, 1, 2, 3}, columns), HasSubstr("request 7, token 0: unknown phase 3"));
  const std::vector<uint32_t> index = {1};
  columns = {};
  columns.request_index = index;
  EXPECT_THAT(RequestError({0, 1, 2, 3}, columns), HasSubstr("request 7, token 0: request index 1 of 1"));
  header_.set_source_ranks(2);
  const std::vector<uint16_t> beyond = {0, 2}, unordered = {1, 0};
  columns = {};
  columns.source_rank = beyond;
  EXPECT_THAT(RequestError({0, 1, 2, 3, 0, 1, 2, 3}, columns), HasSubstr("token 1: source rank 2 of 2"));
  columns.source_rank = unordered;
  EXPECT_EQ(RequestError({0, 1, 2, 3, 0, 1, 2, 3}, columns), "") << "a request may move between ranks";
  EXPECT_THAT(StepError({0, 1, 2, 3, 0, 1, 2, 3}, columns), HasSubstr("token 1: source rank 0 after 1; a step's"));
}

TEST_F(TraceWriterTest, TakesOnlyWhatItsGranularityHas) {
  EXPECT_THAT(RequestError({0, 1, 2, 3}), IsEmpty());
  auto writer = TraceWriter::Create(folder_ / "t", header_);
  EXPECT_THAT(std::string((*writer)->AppendStep({}, {0, 1, 2, 3}, {}).message()),
              HasSubstr("a trace of granularity REQUEST cannot take a step"));
  header_.set_granularity(COUNTS);
  writer = TraceWriter::Create(folder_ / "t", header_);
  EXPECT_THAT(std::string((*writer)->AppendCounts({1, 2, 3}).message()),
              HasSubstr("3 counts, not 2 layers x 8 experts"));
}

TEST_F(TraceWriterTest, AnUnfinishedTraceLeavesNoFile) {
  {
    auto writer = TraceWriter::Create(folder_ / "t", header_);
    ASSERT_TRUE((*writer)->AppendRequest({}, {0, 1, 2, 3}, {}).ok());
    EXPECT_EQ(folder_.Entries().size(), 1u);
    (*writer)->Abandon();
    EXPECT_THAT(folder_.Entries(), IsEmpty());
    EXPECT_FALSE((*writer)->Finish().ok());
    writer = TraceWriter::Create(folder_ / "t", header_);
    EXPECT_THAT(std::string((*writer)->Finish().message()), HasSubstr("nothing was written"));
  }
  EXPECT_THAT(folder_.Entries(), IsEmpty());
}

TEST_F(TraceWriterTest, WritingOverATraceKeepsItForThoseWhoReadIt) {
  SampleShape shape;
  shape.writer.zstd = false;
  const Sample old = WriteSample(shape, folder_ / "t");
  const auto reader = TraceReader::Open(folder_ / "t");
  shape.seed = 2;
  WriteSample(shape, folder_ / "t");
  EXPECT_TRUE(*ReadContents(**reader) == old.contents);
}

}  // namespace
}  // namespace epsim
