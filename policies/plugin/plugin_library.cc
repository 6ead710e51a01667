#include "policies/plugin/plugin_library.h"

#include <dlfcn.h>

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "engine/status_macros.h"

namespace epsim {
namespace {

constexpr char kEntry[] = "epsim_plugin";

// Why the last call of dlopen's family failed, without the path that the message may begin with.
std::string LinkerError(const std::string& path) {
  const char* const error = dlerror();
  absl::string_view reason = error == nullptr ? "no reason is given" : error;
  if (absl::ConsumePrefix(&reason, path)) absl::ConsumePrefix(&reason, ": ");
  return std::string(reason);
}

}  // namespace

absl::StatusOr<std::shared_ptr<const PluginLibrary>> PluginLibrary::Load(const std::string& path) {
  const auto problem = [&](const auto&... what) {
    return absl::InvalidArgumentError(absl::StrCat("plugin ", path, ": ", what...));
  };
  // A name without a folder would be searched for where the system's libraries are.
  const std::string file = path.find('/') == path.npos ? "./" + path : path;
  void* const handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return problem("cannot be loaded: ", LinkerError(file));
  const std::shared_ptr<PluginLibrary> library(new PluginLibrary(path, handle));

  const auto entry = reinterpret_cast<decltype(&epsim_plugin)>(dlsym(handle, kEntry));
  if (entry == nullptr) return problem("is no plug-in of epsim: ", LinkerError(file));
  library->plugin_ = entry(EPSIM_PLUGIN_ABI);
  if (library->plugin_ == nullptr) {
    return problem(kEntry, "(", EPSIM_PLUGIN_ABI, ") returns null: the library does not serve ABI version ",
                   EPSIM_PLUGIN_ABI);
  }
  if (const uint32_t version = library->plugin_->abi_version; version != EPSIM_PLUGIN_ABI) {
    return problem("is built for ABI version ", version, ", this epsim has version ", EPSIM_PLUGIN_ABI,
                   "; build it again with this epsim's epsim_plugin.h");
  }
  return library;
}

PluginLibrary::~PluginLibrary() { dlclose(handle_); }

absl::StatusOr<std::shared_ptr<const PluginLibrary>> LoadPlugin(const Plugin& config) {
  if (config.library().empty()) return absl::InvalidArgumentError("plugin: library: none named");
  if (config.library().find('\0') != std::string::npos) {
    return absl::InvalidArgumentError("plugin: library: the name has a zero byte in it");
  }
  return PluginLibrary::Load(config.library());
}

EpsimShape PlainShape(const PlacementShape& shape) {
  return {.layers = shape.layers,
          .experts = shape.experts,
          .slots = shape.slots,
          .ranks = shape.ranks,
          .nodes = shape.nodes,
          .expert_groups = shape.expert_groups};
}

PluginInstance::~PluginInstance() {
  if (created_) destroy_(state_);
}

absl::Status PluginInstance::Problem(absl::string_view problem) const {
  return absl::InvalidArgumentError(absl::StrCat("plugin ", library_->path(), ": ", role_, ": ", problem));
}

absl::Status PluginInstance::Failure(int code, absl::string_view error) const {
  // Messages are one line of text.
  std::string text(absl::StripAsciiWhitespace(error));
  for (char& c : text) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) c = ' ';
  }
  return Problem(text.empty() ? absl::StrCat("fails without a reason (returns ", code, ")") : text);
}

}  // namespace epsim
