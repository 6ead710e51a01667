// A shared library that plays roles of policies (epsim_plugin.h), loaded.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "policies/placement/placement.h"
#include "policies/plugin/epsim_plugin.h"
#include "policies/plugin/plugin.pb.h"

namespace epsim {

class PluginLibrary {
 public:
  // The file at `path`, never one of the system's search path.  Fails if it is missing or no library, lacks a symbol,
  // or speaks another version.
  static absl::StatusOr<std::shared_ptr<const PluginLibrary>> Load(const std::string& path);
  ~PluginLibrary();
  PluginLibrary(const PluginLibrary&) = delete;
  PluginLibrary& operator=(const PluginLibrary&) = delete;

  const std::string& path() const { return path_; }
  const EpsimPlugin& plugin() const { return *plugin_; }

 private:
  PluginLibrary(std::string path, void* handle) : path_(std::move(path)), handle_(handle) {}

  const std::string path_;
  void* const handle_;
  const EpsimPlugin* plugin_ = nullptr;
};

EpsimShape PlainShape(const PlacementShape& shape);

// The library that `config` names.
absl::StatusOr<std::shared_ptr<const PluginLibrary>> LoadPlugin(const Plugin& config);

// What a library made for one role of one experiment.  Keeps the library loaded.
class PluginInstance {
 public:
  // `role`: for messages.  create(options, state, error, error_size) and `destroy`: as the role's.
  template <typename Create>
  static absl::StatusOr<std::unique_ptr<PluginInstance>> New(std::shared_ptr<const PluginLibrary> library,
                                                             std::string role, Create create, EpsimDestroy* destroy,
                                                             const std::string& options) {
    std::unique_ptr<PluginInstance> instance(new PluginInstance(std::move(library), std::move(role), destroy));
    if (options.find('\0') != std::string::npos) return instance->Problem("options: the text has a zero byte in it");
    void* state = nullptr;
    const absl::Status status = instance->Do(
        [&](void*, char* error, size_t error_size) { return create(options.c_str(), &state, error, error_size); });
    if (!status.ok()) return status;
    instance->state_ = state;
    instance->created_ = true;
    return instance;
  }
  ~PluginInstance();
  PluginInstance(const PluginInstance&) = delete;
  PluginInstance& operator=(const PluginInstance&) = delete;

  void* state() const { return state_; }
  // call(state, error, error_size) as in epsim_plugin.h; its failure as a status.
  template <typename Call>
  absl::Status Do(Call call) const {
    char error[kErrorSize] = {};
    const int code = call(state_, error, kErrorSize);
    error[kErrorSize - 1] = '\0';
    return code == 0 ? absl::OkStatus() : Failure(code, error);
  }

  // "plugin LIBRARY: ROLE: problem".
  absl::Status Problem(absl::string_view problem) const;

 private:
  static constexpr size_t kErrorSize = 1024;

  PluginInstance(std::shared_ptr<const PluginLibrary> library, std::string role, EpsimDestroy* destroy)
      : library_(std::move(library)), role_(std::move(role)), destroy_(destroy) {}
  absl::Status Failure(int code, absl::string_view error) const;

  const std::shared_ptr<const PluginLibrary> library_;
  const std::string role_;
  EpsimDestroy* const destroy_;
  void* state_ = nullptr;
  bool created_ = false;
};

}  // namespace epsim
