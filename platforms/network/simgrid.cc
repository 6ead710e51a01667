#include "platforms/network/simgrid.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "platforms/network/flow.h"
#include "platforms/network/flow_network.h"
#include "platforms/network/simgrid_wire.h"

extern char** environ;

namespace epsim {
namespace {

#ifdef EPSIM_SIMGRID_PROGRAM

// The program lies beside the running one, or else where it was built.
std::string SimGridProgram() {
  std::string own(4096, '\0');
  const ssize_t length = readlink("/proc/self/exe", own.data(), own.size());
  if (length > 0) {
    own.resize(static_cast<size_t>(length));
    std::string beside = own.substr(0, own.rfind('/') + 1) + "epsim_simgrid";
    if (access(beside.c_str(), X_OK) == 0) return beside;
  }
  return EPSIM_SIMGRID_PROGRAM;
}

// A process that runs SimGrid.
class SimGridProcess {
 public:
  SimGridProcess(pid_t pid, int socket) : pid_(pid), socket_(socket) {}
  SimGridProcess(const SimGridProcess&) = delete;
  SimGridProcess& operator=(const SimGridProcess&) = delete;
  // It ends when there is nobody to talk to.
  ~SimGridProcess() {
    close(socket_);
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }

  static absl::StatusOr<std::unique_ptr<SimGridProcess>> Create() {
    const auto problem = [](const auto&... what) {
      return absl::UnavailableError(absl::StrCat("network.simgrid: ", what...));
    };
    int sockets[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) {
      return problem("no socket pair: ", std::strerror(errno));
    }
    const std::string program = SimGridProgram();
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, sockets[1], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
    std::string name = "epsim_simgrid";
    char* const arguments[] = {name.data(), nullptr};
    pid_t pid = 0;
    const int error = posix_spawn(&pid, program.c_str(), &actions, nullptr, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(sockets[1]);
    if (error != 0) {
      close(sockets[0]);
      return problem("cannot run ", program, ": ", std::strerror(error));
    }
    return std::make_unique<SimGridProcess>(pid, sockets[0]);
  }

  template <typename T>
  bool Send(absl::Span<const T> values) {
    return SendAll(socket_, values.data(), values.size() * sizeof(T));
  }
  template <typename T>
  bool Receive(absl::Span<T> values) {
    return ReceiveAll(socket_, values.data(), values.size() * sizeof(T));
  }

 private:
  const pid_t pid_;
  const int socket_;
};

class SimGridModel : public FlowModel {
 public:
  explicit SimGridModel(std::unique_ptr<SimGridProcess> process) : process_(std::move(process)) {}

  void Run(SimTime from, std::optional<SimTime> until, absl::Span<Flow> flows, absl::Span<double> end) override {
    if (flows.empty()) return;
    const SimGridRun run{static_cast<int64_t>(flows.size()), from,
                         until.has_value() ? static_cast<double>((*until - from).count()) : kNotEnded};
    left_.resize(flows.size());
    EPSIM_CHECK(process_->Send(absl::MakeConstSpan(&run, 1)) && process_->Send<Flow>(flows));
    EPSIM_CHECK(process_->Receive(absl::MakeSpan(left_)) && process_->Receive(end));
    for (size_t i = 0; i < flows.size(); ++i) flows[i].work = left_[i];
  }
  // SimGrid counts in femtoseconds of a clock that goes on, and in fractions of bytes.
  double rounding() const override { return 1; }

 private:
  const std::unique_ptr<SimGridProcess> process_;
  std::vector<double> left_;
};

std::vector<SimGridRoute> RoutesOf(const Cluster& cluster) {
  std::vector<SimGridRoute> routes;
  const auto add = [&](SimGridStations stations, const Route& way) {
    SimGridRoute route{stations.from, stations.to, static_cast<int64_t>(way.links().size()), {}};
    for (size_t i = 0; i < way.links().size(); ++i) route.links[i] = static_cast<int32_t>(way.links()[i]);
    routes.push_back(route);
  };
  for (int source = 0; source < cluster.ranks(); ++source) {
    for (int rank = 0; rank < cluster.ranks(); ++rank) {
      for (Way way : {Way::kFastest, Way::kNetwork}) {
        if (source == rank || (way == Way::kNetwork && !cluster.has_network())) continue;
        add(StationsOf(source, rank, way), cluster.route(Rank(source), Rank(rank), way));
      }
    }
  }
  for (int rank = 0; rank < cluster.ranks() && cluster.platform().has_pcie(); ++rank) {
    for (Way way : {Way::kFastest, Way::kNetwork}) {
      add(StationsOf(Flow::kFromHost, rank, way), cluster.from_host(Rank(rank)));
    }
  }
  return routes;
}

#endif  // EPSIM_SIMGRID_PROGRAM

}  // namespace

// Dense phases with SimGrid 3.32 on one core took 0.02 to 0.05 s for 992 flows and 0.6 to 1.2 s for 4,032.
double EstimatedSecondsPerPhase(int flows) { return 0.03 * std::pow(flows / 992.0, 2.3); }

#ifdef EPSIM_SIMGRID_PROGRAM

absl::StatusOr<std::unique_ptr<Network>> NewSimGridNetwork(const SimGridNetworkConfig&, const Cluster& cluster,
                                                           EventQueue* queue) {
  const int ranks = cluster.ranks();
  if (ranks > kMostSimGridRanks) {
    return absl::InvalidArgumentError(absl::StrCat(
        "network.simgrid: takes at most ", kMostSimGridRanks, " ranks, not ", ranks,
        ", of which each phase would take about ", std::llround(EstimatedSecondsPerPhase(ranks * (ranks - 1))),
        " s; network.max_min has the same flows, network.port takes any number of ranks"));
  }
  ASSIGN_OR_RETURN(std::unique_ptr<SimGridProcess> process, SimGridProcess::Create());
  const std::vector<SimGridRoute> routes = RoutesOf(cluster);
  std::vector<double> bandwidths;
  for (const LinkSpec& link : cluster.links()) bandwidths.push_back(static_cast<double>(link.bandwidth.count()));
  const SimGridPlatform platform{int64_t{kStationsPerRank} * ranks, static_cast<int64_t>(bandwidths.size()),
                                 static_cast<int64_t>(routes.size())};
  char ready = 0;
  if (!process->Send(absl::MakeConstSpan(&platform, 1)) || !process->Send(absl::MakeConstSpan(bandwidths)) ||
      !process->Send(absl::MakeConstSpan(routes)) || !process->Receive(absl::MakeSpan(&ready, 1))) {
    return absl::UnavailableError(absl::StrCat("network.simgrid: ", SimGridProgram(), " does not answer"));
  }
  return NewFlowNetwork(cluster, queue, std::make_unique<SimGridModel>(std::move(process)));
}

#else

absl::StatusOr<std::unique_ptr<Network>> NewSimGridNetwork(const SimGridNetworkConfig&, const Cluster&, EventQueue*) {
  return absl::UnimplementedError(
      "network.simgrid: epsim was built without SimGrid; install libsimgrid-dev and build again, or choose "
      "network.max_min, which has the same flows");
}

#endif  // EPSIM_SIMGRID_PROGRAM

}  // namespace epsim
