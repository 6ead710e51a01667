// What a reader says of files that are not what they should be, and what it saves of them.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/stubs/logging.h"
#include "gtest/gtest.h"
#include "tests/traces/format/trace_samples.h"
#include "traces/format/frame.h"
#include "traces/format/frame_writer.h"
#include "traces/format/trace_reader.h"
#include "traces/format/trace_writer.h"

namespace epsim {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// One line, naming the file.
void ExpectOneLine(const absl::Status& status, const std::string& path) {
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), AllOf(StartsWith(path + ": "), Not(HasSubstr("\n"))));
}

std::string OpenError(const std::string& path) {
  const absl::Status status = TraceReader::Open(path).status();
  ExpectOneLine(status, path);
  return std::string(status.message());
}

std::string FirstError(const std::string& path) {
  const auto trace = TraceReader::Open(path);
  if (!trace.ok()) return std::string(trace.status().message());
  const auto contents = ReadContents(**trace);
  return std::string(contents.status().message());
}

// The first `tokens` rows of a REQUEST trace's contents, its last request cut.
Contents FirstRows(const Contents& contents, const SampleShape& shape, size_t tokens) {
  Contents first = contents;
  const auto layers = static_cast<size_t>(shape.layers);
  if (!first.ids.empty()) first.ids.resize(tokens * layers);
  first.step.resize(tokens);
  for (auto* column : {&first.position, &first.request_index, &first.phase, &first.source_rank}) {
    if (!column->empty()) column->resize(tokens);
  }
  if (shape.granularity == COUNTS) first.counts.resize(tokens * layers * static_cast<size_t>(shape.experts));
  return first;
}

std::vector<SampleShape> SmallShapes() {
  std::vector<SampleShape> shapes(4);
  for (SampleShape& shape : shapes) {
    shape.layers = 2;
    shape.units = 4;
    shape.most_tokens = 4;
    shape.writer.chunk_bytes = 600;
    shape.missing = true;
  }
  shapes[0].writer.zstd = false;
  shapes[1].columns = true;
  shapes[2].granularity = STEP;
  shapes[2].columns = true;
  shapes[2].writer.chunk_bytes = 1;
  shapes[3].granularity = COUNTS;
  return shapes;
}

// A writer that is killed leaves the file's first bytes.  Wherever they end: Open says in one line what is missing, and
// Recover gives exactly the chunks whose frames are whole.
TEST(DamagedFileTest, CutAtEveryByte) {
  for (const SampleShape& shape : SmallShapes()) {
    SCOPED_TRACE(Granularity_Name(shape.granularity));
    const ScratchFolder folder;
    const Sample sample = WriteSample(shape, folder / "whole");
    const std::string bytes = ReadFile(folder / "whole");
    const TraceIndex index = (*TraceReader::Open(folder / "whole"))->index();
    ASSERT_GE(index.chunks_size(), 3);
    for (size_t size = 0; size < bytes.size(); ++size) {
      WriteFile(folder / "cut", std::string_view(bytes).substr(0, size));
      const std::string error = OpenError(folder / "cut");
      if (size == 0) {
        EXPECT_THAT(error, HasSubstr("offset 0: not an eptrace: the file is empty"));
      }
      if (size >= 8) {
        EXPECT_THAT(error, HasSubstr(size < 64 ? "truncated" : "no index at the end: the writer did not"));
      }
      if (size >= 64) {
        EXPECT_THAT(error, HasSubstr(absl::StrCat("offset ", size)));
      }

      int64_t chunks = 0, rows = 0;
      uint64_t end = 0;
      for (const TraceIndex::Chunk& chunk : index.chunks()) {
        if (chunk.offset() + chunk.bytes() > size) break;
        ++chunks;
        rows += chunk.tokens();
        end = chunk.offset() + chunk.bytes();
      }
      const auto recovery = RecoverTrace(folder / "cut", folder / "saved");
      if (chunks == 0) {
        ExpectOneLine(recovery.status(), folder / "cut");
        EXPECT_FALSE(std::filesystem::exists(folder / "saved"));
        continue;
      }
      ASSERT_TRUE(recovery.ok()) << recovery.status();
      EXPECT_EQ(recovery->chunks, chunks);
      EXPECT_EQ(recovery->tokens, shape.granularity == COUNTS ? 0 : rows);
      EXPECT_EQ(recovery->lost_bytes, static_cast<int64_t>(size - end));
      EXPECT_THAT(recovery->reason, HasSubstr(size == end ? "truncated" : "offset"));
      const auto saved = TraceReader::Open(folder / "saved");
      ASSERT_TRUE(saved.ok()) << saved.status();
      EXPECT_TRUE(VerifyTrace(folder / "saved", StopToken()).ok());
      auto contents = ReadContents(**saved);
      ASSERT_TRUE(contents.ok()) << contents.status();
      // Requests: those that began, the last cut to the rows there are.
      int64_t covered = 0;
      for (const RequestInfo& request : (*saved)->requests()) {
        if (shape.granularity == REQUEST) {
          EXPECT_EQ(request.first_token(), covered);
        }
        covered += request.tokens();
      }
      if (shape.granularity == REQUEST) {
        EXPECT_EQ(covered, rows);
      }
      Contents expected = FirstRows(sample.contents, shape, static_cast<size_t>(rows));
      expected.requests = contents->requests;
      EXPECT_TRUE(*contents == expected);
      std::filesystem::remove(folder / "saved");
    }
  }
}

// Every byte is under some check: one flipped bit is an error in one line, or a change of nothing that is read.
TEST(DamagedFileTest, OneBitFlippedInEveryByte) {
  for (const SampleShape& shape : SmallShapes()) {
    SCOPED_TRACE(Granularity_Name(shape.granularity));
    const ScratchFolder folder;
    const Sample sample = WriteSample(shape, folder / "t");
    const std::string bytes = ReadFile(folder / "t");
    for (size_t i = 0; i < bytes.size(); ++i) {
      std::string damaged = bytes;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << (i % 8)));
      WriteFile(folder / "d", damaged);
      const auto trace = TraceReader::Open(folder / "d");
      absl::Status status = trace.status();
      if (trace.ok()) {
        const auto contents = ReadContents(**trace);
        status = contents.status();
        if (contents.ok()) {
          EXPECT_TRUE(*contents == sample.contents);
        }
      }
      // With padding and framing under checks too, nothing goes unseen.
      ExpectOneLine(status, folder / "d");
      EXPECT_FALSE(TraceReader::OpenRaw(folder / "d", folder.path(), StopToken()).ok() &&
                   VerifyTrace(folder / "d", StopToken()).ok());
      const auto recovery = RecoverTrace(folder / "d", folder / "saved");
      if (recovery.ok()) {
        EXPECT_NE(recovery->reason, "");
        EXPECT_TRUE(VerifyTrace(folder / "saved", StopToken()).ok());
      }
    }
  }
}

TEST(DamagedFileTest, AForeignFileIsNamedAsSuch) {
  const ScratchFolder folder;
  EXPECT_THAT(OpenError(folder / "nowhere"), HasSubstr("No such file"));
  EXPECT_THAT(OpenError(folder.path()), HasSubstr("is a folder"));
  WriteFile(folder / "a.npy", std::string("\x93NUMPY\x01\x00v\x00{'descr'", 18));
  EXPECT_THAT(OpenError(folder / "a.npy"),
              HasSubstr("offset 0: not an eptrace: the file starts with \"\\x93NUMPY\\x01"));
  WriteFile(folder / "a.txt", "a text of two lines\nwith a line end");
  EXPECT_THAT(OpenError(folder / "a.txt"), HasSubstr("not an eptrace"));
  WriteFile(folder / "zeros", std::string(4096, '\0'));
  EXPECT_THAT(OpenError(folder / "zeros"), HasSubstr("not an eptrace"));
  const auto recovery = RecoverTrace(folder / "a.txt", folder / "saved");
  ExpectOneLine(recovery.status(), folder / "a.txt");
  EXPECT_FALSE(std::filesystem::exists(folder / "saved"));
}

TEST(DamagedFileTest, AnotherSchemaVersionIsSaid) {
  const ScratchFolder folder;
  WriteSample(SampleShape(), folder / "t");
  std::string bytes = ReadFile(folder / "t");
  bytes[8] = 2;
  WriteFile(folder / "t", bytes);
  EXPECT_THAT(
      OpenError(folder / "t"),
      HasSubstr("offset 8: schema version 2 of the eptrace format is not supported; this program reads version 1"));
}

TEST(DamagedFileTest, ADamagedPlaceIsNamed) {
  const ScratchFolder folder;
  SampleShape shape;
  shape.writer.chunk_bytes = 600;
  shape.writer.zstd = false;
  WriteSample(shape, folder / "t");
  const std::string bytes = ReadFile(folder / "t");
  const TraceIndex index = (*TraceReader::Open(folder / "t"))->index();
  const TraceIndex::Chunk& second = index.chunks(1);
  const auto damage = [&](uint64_t offset) {
    std::string damaged = bytes;
    damaged[offset] = static_cast<char>(damaged[offset] ^ 0x10);
    WriteFile(folder / "d", damaged);
    return FirstError(folder / "d");
  };
  EXPECT_THAT(damage(20), HasSubstr("offset 16: damaged: the checksum of the preamble is"));
  EXPECT_THAT(damage(64), HasSubstr("offset 64: damaged: a frame should begin here"));
  EXPECT_THAT(damage(64 + 40), HasSubstr("offset 72: damaged: the checksum of the frame is"));
  EXPECT_THAT(damage(second.offset() + 33),
              HasSubstr(absl::StrCat("offset ", second.offset() + 8, ": damaged: the checksum of the frame is")));
  EXPECT_THAT(
      damage(second.offset() + second.bytes() - 64),
      HasSubstr(absl::StrCat("chunk 1 at offset ", second.offset(), ": damaged: the checksum of the payload is")));
  EXPECT_THAT(damage(bytes.size() - 64 + 9),
              HasSubstr(absl::StrCat("offset ", bytes.size() - 64 + 24, ": damaged: the checksum of the trailer is")));
}

// Files whose checksums are right and whose content is not: what a faulty or hostile writer makes.
class ForgedFileTest : public ::testing::Test {
 protected:
  ForgedFileTest() {
    header_ = HeaderOf(SampleShape());  // 3 layers x 16 experts, top 4.
    header_.set_schema_version(1);
    chunk_.set_tokens(1);
    Column& column = *chunk_.add_columns();
    column.set_kind(Column::IDS);
    column.set_bytes(12);
    chunk_.set_raw_bytes(64);
    RequestInfo& request = *chunk_.add_requests();
    request.set_tokens(1);
    payload_.assign("\0\1\2\3\0\1\2\3\0\1\2\3", 12);
    payload_.resize(64);
    index_.set_tokens(1);
    index_.set_requests(1);
  }
  // The error of the file with one chunk, "" if it is read.
  std::string Error() {
    chunk_.set_payload_xxh3(Xxh3(payload_));
    auto writer = FrameWriter::Create(folder_ / "t");
    EXPECT_TRUE(writer.ok() && writer->WriteStart(header_).ok());
    EXPECT_TRUE(writer->WriteChunk(chunk_, payload_, &index_).ok());
    if (edit_index_) edit_index_(index_);
    EXPECT_TRUE(writer->WriteEnd(index_).ok());
    const auto raw = TraceReader::OpenRaw(folder_ / "t", folder_.path(), StopToken());
    const absl::Status verified = VerifyTrace(folder_ / "t", StopToken());
    const std::string error = FirstError(folder_ / "t");
    if (!error.empty()) {
      ExpectOneLine(verified, folder_ / "t");
      EXPECT_EQ(verified.message(), error);
    } else {
      return std::string(verified.message());
    }
    return error;
  }

  const ScratchFolder folder_;
  TraceHeader header_;
  ChunkHeader chunk_;
  TraceIndex index_;
  std::string payload_;
  std::function<void(TraceIndex&)> edit_index_;
};

TEST_F(ForgedFileTest, UnforgedIsRead) { EXPECT_EQ(Error(), ""); }

TEST_F(ForgedFileTest, ATextThatIsNotUtf8) {
  chunk_.mutable_requests(0)->set_domain("\xff");
  {
    const google::protobuf::LogSilencer silence;  // Of what writing it says.
    EXPECT_THAT(Error(), HasSubstr("offset 128: is not a chunk frame"));
  }
  // Protocol Buffers would add a line of its own to the one that is the error.
  testing::internal::CaptureStderr();
  EXPECT_FALSE(TraceReader::Open(folder_ / "t").ok());
  EXPECT_FALSE(RecoverTrace(folder_ / "t", folder_ / "saved").ok());
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}
TEST_F(ForgedFileTest, AnIdOutOfRange) {
  payload_[6] = 16;
  EXPECT_THAT(Error(), HasSubstr("chunk 0 at offset 128: token 0, layer 1: expert 16 is not below 16"));
}
TEST_F(ForgedFileTest, AnIdTwiceInOneTopK) {
  payload_[11] = 0;
  EXPECT_THAT(Error(), HasSubstr("chunk 0 at offset 128: token 0, layer 2: expert 0 is twice in one top-k"));
}
TEST_F(ForgedFileTest, MoreValidIdsThanTopK) {
  Column& column = *chunk_.add_columns();
  column.set_kind(Column::VALID_COUNT);
  column.set_bytes(3);
  chunk_.set_raw_bytes(128);
  payload_.resize(128);
  payload_[64] = payload_[65] = 4;
  payload_[66] = 5;
  EXPECT_THAT(Error(), HasSubstr("token 0, layer 2: 5 valid ids of 4"));
}
// 30,000 rows with one missing id in the first: ids are checked in blocks, and a fault far behind is found in its
// place.
TEST_F(ForgedFileTest, AnIdOutOfRangeFarBehindAMissingOne) {
  constexpr int kTokens = 10000;
  chunk_.set_tokens(kTokens);
  chunk_.mutable_columns(0)->set_bytes(kTokens * 12);
  Column& column = *chunk_.add_columns();
  column.set_kind(Column::VALID_COUNT);
  column.set_bytes(kTokens * 3);
  chunk_.mutable_requests(0)->set_tokens(kTokens);
  payload_.clear();
  for (int row = 0; row < kTokens * 3; ++row) payload_.append("\0\1\2\3", 4);
  payload_.resize(Aligned(kTokens * 12));
  const size_t valid = payload_.size();
  payload_.resize(valid + kTokens * 3, 4);
  payload_.resize(Aligned(payload_.size()));
  payload_[valid] = 3;
  chunk_.set_raw_bytes(payload_.size());
  index_.set_tokens(kTokens);
  index_.set_missing_ids(1);
  EXPECT_EQ(Error(), "");
  index_.clear_chunks();
  payload_[(9999 * 3 + 1) * 4 + 2] = 77;
  EXPECT_THAT(Error(), HasSubstr("token 9999, layer 1: expert 77 is not below 16"));
}
TEST_F(ForgedFileTest, AFillerOutOfRange) {
  Column& column = *chunk_.add_columns();
  column.set_kind(Column::VALID_COUNT);
  column.set_bytes(3);
  chunk_.set_raw_bytes(128);
  payload_.resize(128);
  payload_[64] = 3;
  payload_[3] = 99;
  EXPECT_THAT(Error(), HasSubstr("token 0, layer 0: expert 99 is not below 16"));
}
TEST_F(ForgedFileTest, MissingIdsThatTheIndexDoesNotCount) {
  Column& column = *chunk_.add_columns();
  column.set_kind(Column::VALID_COUNT);
  column.set_bytes(3);
  chunk_.set_raw_bytes(128);
  payload_.resize(128);
  payload_[64] = 3;
  EXPECT_THAT(Error(), HasSubstr("the index says 0 missing ids, the chunks have 9"));
}
TEST_F(ForgedFileTest, AColumnOfTheWrongSize) {
  chunk_.mutable_columns(0)->set_bytes(uint64_t{1} << 62);
  EXPECT_THAT(Error(), HasSubstr("offset 128: column 1 of 1 tokens has 4611686018427387904 bytes, not 12"));
}
TEST_F(ForgedFileTest, MoreTokensThanAChunkCanHave) {
  chunk_.set_tokens(int64_t{1} << 40);
  EXPECT_THAT(Error(), HasSubstr("offset 128: a chunk of 1099511627776 tokens"));
}
TEST_F(ForgedFileTest, ARawPayloadOfGigabytesThatIsNotThere) {
  // 80 million tokens of 12 bytes: within a chunk's bounds, far beyond the 64 bytes that are stored.
  chunk_.set_tokens(80'000'000);
  chunk_.mutable_columns(0)->set_bytes(960'000'000);
  chunk_.set_raw_bytes(960'000'000);
  chunk_.mutable_requests(0)->set_tokens(80'000'000);
  EXPECT_THAT(Error(), HasSubstr("a raw payload of 64 bytes, not 960000000"));
}
TEST_F(ForgedFileTest, ACompressedPayloadThatIsNotZstd) {
  chunk_.set_codec(ChunkHeader::ZSTD);
  EXPECT_THAT(Error(), HasSubstr("chunk 0 at offset 128: zstd: "));
}
TEST_F(ForgedFileTest, TheSameColumnTwice) {
  *chunk_.add_columns() = chunk_.columns(0);
  chunk_.set_raw_bytes(128);
  payload_.resize(128);
  EXPECT_THAT(Error(), HasSubstr("a chunk cannot have column 1 after 1 in this trace"));
}
TEST_F(ForgedFileTest, AColumnThatTheHeaderDoesNotHave) {
  Column& column = *chunk_.add_columns();
  column.set_kind(Column::GATE_WEIGHT);
  column.set_bytes(24);
  chunk_.set_raw_bytes(128);
  payload_.resize(128);
  EXPECT_THAT(Error(), HasSubstr("a chunk cannot have column 7 after 1 in this trace"));
}
TEST_F(ForgedFileTest, RowsOfNoRequest) {
  chunk_.clear_requests();
  EXPECT_THAT(Error(), HasSubstr("offset 128: tokens 0 to 0 belong to no request"));
}
TEST_F(ForgedFileTest, ARequestBeyondTheLastRow) {
  chunk_.mutable_requests(0)->set_tokens(5);
  EXPECT_THAT(Error(), HasSubstr("the requests have 5 tokens, the chunks 1"));
}
TEST_F(ForgedFileTest, AnIndexThatContradictsTheChunks) {
  edit_index_ = [](TraceIndex& index) { index.mutable_chunks(0)->set_tokens(2); };
  EXPECT_THAT(Error(), HasSubstr("the index contradicts chunk 0 at offset 128"));
  index_.clear_chunks();
  edit_index_ = [](TraceIndex& index) { index.mutable_chunks(0)->set_offset(64); };
  EXPECT_THAT(Error(), HasSubstr("the index has chunk 0 at offset 64, not 128"));
  index_.clear_chunks();
  edit_index_ = [](TraceIndex& index) { index.set_tokens(7); };
  EXPECT_THAT(Error(), HasSubstr("the index says 7 tokens, 0 steps, 1 requests; the chunks have 1, 0, 1"));
  index_.Clear();
  edit_index_ = [](TraceIndex& index) { index.Clear(); };
  EXPECT_THAT(Error(), HasSubstr("the index ends its chunks at offset 128"));
}
// Ranks 1 and then 0 in two chunks of one step: each chunk is sound by itself.
TEST_F(ForgedFileTest, RanksOutOfOrderAcrossTheChunksOfAStep) {
  header_.set_granularity(STEP);
  header_.set_source_ranks(2);
  Column& column = *chunk_.add_columns();
  column.set_kind(Column::SOURCE_RANK);
  column.set_bytes(2);
  chunk_.set_raw_bytes(128);
  chunk_.set_step_continues(true);
  payload_.resize(128);
  payload_[64] = 1;
  chunk_.set_payload_xxh3(Xxh3(payload_));
  auto writer = FrameWriter::Create(folder_ / "t");
  ASSERT_TRUE(writer.ok() && writer->WriteStart(header_).ok());
  ASSERT_TRUE(writer->WriteChunk(chunk_, payload_, &index_).ok());
  chunk_.set_first_token(1);
  chunk_.clear_requests();
  chunk_.set_step_continues(false);
  payload_[64] = 0;
  chunk_.set_payload_xxh3(Xxh3(payload_));
  ASSERT_TRUE(writer->WriteChunk(chunk_, payload_, &index_).ok());
  index_.set_tokens(2);
  index_.set_steps(1);
  ASSERT_TRUE(writer->WriteEnd(index_).ok());
  EXPECT_EQ(FirstError(folder_ / "t"), "");
  const absl::Status verified = VerifyTrace(folder_ / "t", StopToken());
  ExpectOneLine(verified, folder_ / "t");
  EXPECT_THAT(std::string(verified.message()), HasSubstr("chunk 1: token 1: source rank 0 after 1 in one step"));
  const auto recovery = RecoverTrace(folder_ / "t", folder_ / "saved");
  ASSERT_TRUE(recovery.ok()) << recovery.status();
  EXPECT_EQ(recovery->chunks, 1);
  EXPECT_TRUE(VerifyTrace(folder_ / "saved", StopToken()).ok());
}

TEST_F(ForgedFileTest, AHeaderOutOfBounds) {
  const auto with = [&](auto edit) {
    const TraceHeader good = header_;
    edit(header_);
    const std::string error = Error();
    header_ = good;
    index_.clear_chunks();
    return error;
  };
  EXPECT_THAT(with([](TraceHeader& h) { h.set_layers(0); }),
              HasSubstr("offset 64: layers is 0, not between 1 and 65536"));
  EXPECT_THAT(with([](TraceHeader& h) { h.set_layers(4'000'000'000); }), HasSubstr("layers is 4000000000"));
  EXPECT_THAT(with([](TraceHeader& h) { h.set_experts(257); }),
              HasSubstr("experts is 257, not between 1 and 256 (id_bytes is 1)"));
  EXPECT_THAT(with([](TraceHeader& h) { h.set_top_k(17); }), HasSubstr("top_k is 17, not between 1 and 16"));
  EXPECT_THAT(with([](TraceHeader& h) { h.set_id_bytes(4); }), HasSubstr("id_bytes is 4, not 1 or 2"));
  EXPECT_THAT(with([](TraceHeader& h) { h.set_granularity(static_cast<Granularity>(9)); }),
              HasSubstr("granularity 9 is not REQUEST (1), STEP (2) or COUNTS (3)"));
  EXPECT_THAT(with([](TraceHeader& h) { h.set_scores(static_cast<NumberFormat>(9)); }),
              HasSubstr("unknown format 9 of scores"));
  EXPECT_THAT(with([](TraceHeader& h) { h.set_schema_version(3); }), HasSubstr("the header says schema version 3"));
  EXPECT_THAT(with([](TraceHeader& h) {
                h.set_layers(65536);
                h.set_id_bytes(2);
                h.set_experts(65536);
                h.set_scores(FLOAT32);
              }),
              HasSubstr("more than a chunk may have"));
}

// A process that dies in the middle of writing, without a word.
TEST(KilledWriterTest, LeavesItsCompleteChunks) {
  const ScratchFolder folder;
  SampleShape shape;
  shape.units = 50;
  shape.writer.chunk_bytes = 600;
  const Sample whole = WriteSample(shape, folder / "whole");
  const pid_t child = fork();
  if (child == 0) {
    auto writer = TraceWriter::Create(folder / "killed", HeaderOf(shape), shape.writer);
    AppendSample(shape, **writer);
    kill(getpid(), SIGKILL);  // The last chunk is still open.
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_THAT(OpenError(folder / "killed"),
              HasSubstr("`epsim trace verify --recover OUT FILE` saves its complete chunks"));
  const auto recovery = RecoverTrace(folder / "killed", folder / "saved");
  ASSERT_TRUE(recovery.ok()) << recovery.status();
  EXPECT_EQ(recovery->chunks, (*TraceReader::Open(folder / "whole"))->index().chunks_size() - 1);
  EXPECT_THAT(recovery->reason, HasSubstr("truncated"));
  const auto contents = ReadContents(**TraceReader::Open(folder / "saved"));
  ASSERT_TRUE(contents.ok());
  Contents expected = FirstRows(whole.contents, shape, static_cast<size_t>(recovery->tokens));
  expected.requests = contents->requests;
  EXPECT_TRUE(*contents == expected);
}

TEST(RecoverTest, WillNotOverwriteWhatItReads) {
  const ScratchFolder folder;
  WriteSample(SampleShape(), folder / "t");
  const std::string bytes = ReadFile(folder / "t");
  EXPECT_THAT(std::string(RecoverTrace(folder / "t", folder.path() + "/./t").status().message()),
              HasSubstr("is the file to recover from"));
  EXPECT_EQ(ReadFile(folder / "t"), bytes);
}

// A step in three chunks, of which the last is cut off: the step is kept and the loss is said.
TEST(RecoverTest, SaysThatAStepIsCut) {
  const ScratchFolder folder;
  SampleShape shape;
  shape.granularity = STEP;
  shape.units = 1;
  shape.most_tokens = 20;
  shape.writer.chunk_bytes = 1;
  WriteSample(shape, folder / "t");
  const TraceIndex index = (*TraceReader::Open(folder / "t"))->index();
  ASSERT_GE(index.chunks_size(), 3);
  std::filesystem::resize_file(folder / "t", index.chunks(index.chunks_size() - 1).offset());
  const auto recovery = RecoverTrace(folder / "t", folder / "saved");
  ASSERT_TRUE(recovery.ok()) << recovery.status();
  EXPECT_THAT(recovery->reason, HasSubstr("the last step lacks tokens"));
  EXPECT_TRUE(VerifyTrace(folder / "saved", StopToken()).ok());
}

TEST(OpenRawTest, StopsWhenAsked) {
  const ScratchFolder folder;
  SampleShape shape;
  shape.units = 40;
  shape.most_tokens = 100;
  WriteSample(shape, folder / "t");
  const std::atomic<bool> stop = true;
  EXPECT_TRUE(absl::IsCancelled(TraceReader::OpenRaw(folder / "t", folder.path(), StopToken(&stop)).status()));
  EXPECT_THAT(std::string(TraceReader::OpenRaw(folder / "t", folder / "none", StopToken()).status().message()),
              HasSubstr("none: cannot create a scratch file: No such file"));
}

}  // namespace
}  // namespace epsim
