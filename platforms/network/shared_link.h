// One direction of one link that phases of several streams use at once.  It is a fluid server: at every instant the
// flows that have bytes waiting share its capacity equally (processor sharing), whatever streams they are of; a
// stream's phases are served one after the other, in the order they were added.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "engine/units.h"
#include "platforms/network/network.h"

namespace epsim {

// What one flow offers at a time, as the picoseconds that serving it alone would take.
struct OfferedFlow {
  SimTime time;
  double picoseconds;
  int32_t name = 0;  // Tells the flows of a phase apart.
};
struct FlowFinish {
  SimTime finish;
  int32_t name;
};

class SharedLink {
 public:
  bool empty() const { return jobs_.empty(); }
  bool Has(PhaseId phase) const;

  // Nothing is known of the link before `begin`.  REQUIRES: empty().
  void Begin(SimTime begin);
  // Adds a phase behind those of its stream.  `flows` are in order of time; none is served before `not_before`.
  // REQUIRES: no flow is offered earlier than the time served up to.
  void Add(PhaseId phase, StreamId stream, SimTime not_before, std::vector<OfferedFlow> flows);
  // Replaces the flows of `phase` from the time served up to on.  REQUIRES: Has(phase).
  void ReplaceFlowsToCome(PhaseId phase, std::vector<OfferedFlow> flows);

  SimTime served_until() const { return served_until_; }
  // Serves up to `now`; forgets the phases that have finished by then.
  void ServeUntil(SimTime now);
  // Tells when each phase and each of its flows that are left will finish if nothing joins.  The finishes of phases are
  // remembered, so that the one told is the one kept.
  void Solve(absl::FunctionRef<void(PhaseId, SimTime finish, absl::Span<const FlowFinish>)> told);

 private:
  struct Waiting {
    double picoseconds;  // Of the whole link.
    int32_t name;
  };
  struct Job {
    PhaseId phase;
    StreamId stream;
    SimTime not_before;
    std::vector<OfferedFlow> flows;  // To come, in order of time.
    std::vector<Waiting> waiting;    // Offered and not yet served.
    SimTime finish = SimTime::max();
  };
  // A flow that is served.  All get the same: each ends when as much has been served of one as it needed.
  struct Served {
    double end;  // Of the service of one flow, in picoseconds of the whole link.
    uint32_t job;
    int32_t name;
    friend bool operator<(const Served& a, const Served& b) {
      return a.end > b.end;
    }  // First in a heap: the first end.
  };
  // How far a job has come.  Its turn comes when the earlier ones of its stream are done and it may begin.
  struct Progress {
    size_t next_flow = 0;  // To come.
    size_t served = 0;     // Flows.
    bool turn = false, done = false;
  };
  // Serves from `served_until_` until `until` or, where that is null, until all jobs are done; tells the time at which
  // each flow and then its job (name -1) ends, in picoseconds after `served_until_`.  Leaves in `progress_` and
  // `served_` what is left, and returns what has been served of each of these flows.
  double Serve(const SimTime* until, absl::FunctionRef<void(size_t job, int32_t name, double)> ended);

  SimTime served_until_{};
  std::vector<Job> jobs_;                       // In order of addition.
  std::vector<Progress> progress_;              // [jobs]
  std::vector<Served> served_;                  // A heap.
  std::vector<std::vector<FlowFinish>> ended_;  // [jobs]
};

}  // namespace epsim
