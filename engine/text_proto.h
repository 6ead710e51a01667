// Reads textproto with errors that name file, line and column: syntax, unknown fields, and text without its unit
// (option `unit`, options.proto).
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "google/protobuf/message.h"

namespace epsim {

// Parses `text` and merges it into `message`, which an error leaves as it was.  A field that is no list may be set
// once. `name` is the file's name for messages: "FILE:LINE:COLUMN: problem".
absl::Status ParseTextProto(std::string_view text, std::string_view name, google::protobuf::Message* message);

// Reads the file at `path` and parses it.
absl::Status LoadTextProto(const std::string& path, google::protobuf::Message* message);

// Canonical text: every set field, one a line, in the order of the schema.
std::string PrintTextProto(const google::protobuf::Message& message);

// Overrides one field: `assignment` is "path.to.field=value", the value as textproto would write it (quotes around
// text may be left out).  A path may end in the name of a oneof, whose value is then the alternative to choose, with
// its defaults: "placement.policy=eplb".  A list is replaced: "sizes=[1, 2]".  Errors name the longest part of the path
// that exists and what may follow, and leave `message` as it was.
absl::Status SetField(std::string_view assignment, google::protobuf::Message* message);

}  // namespace epsim
