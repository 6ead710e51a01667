// One direction of one link that phases of several streams use at once.  It is a fluid server: at every instant the
// streams that have bytes waiting share its capacity equally (generalized processor sharing, Parekh and Gallager 1993,
// with equal weights), and a stream's phases are served one after the other, in the order they were added.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "engine/units.h"
#include "platforms/network/network.h"

namespace epsim {

// Bytes offered at a time, as the picoseconds that serving them alone would take.
struct OfferedWork {
  SimTime time;
  double picoseconds;
};

class SharedLink {
 public:
  bool empty() const { return jobs_.empty(); }
  bool Has(PhaseId phase) const;

  // Nothing is known of the link before `begin`.  REQUIRES: empty().
  void Begin(SimTime begin);
  // Adds a phase behind those of its stream.  `offers` are in order of time; none is served before `not_before`.
  // REQUIRES: no offer is earlier than the time served up to.
  void Add(PhaseId phase, StreamId stream, SimTime not_before, std::vector<OfferedWork> offers);
  // Replaces the offers of `phase` from the time served up to on.  REQUIRES: Has(phase).
  void ReplaceOffersToCome(PhaseId phase, std::vector<OfferedWork> offers);

  // Serves up to `now`; forgets the phases that have finished by then.
  void ServeUntil(SimTime now);
  // Tells when each phase will finish if nothing joins.  Remembered, so that the finish reported is the one kept.
  void Solve(absl::FunctionRef<void(PhaseId, SimTime finish)> finish);

 private:
  struct Job {
    PhaseId phase;
    StreamId stream;
    SimTime not_before;
    std::vector<OfferedWork> offers;  // To come, in order of time.
    double waiting = 0;               // Offered and not yet served, in picoseconds of the whole link.
    SimTime finish = SimTime::max();
  };
  // Serves from `from` until `until` or, where that is null, until all jobs are done; tells the time at which each job
  // ends, in picoseconds after `from`.
  static void Serve(std::vector<Job>* jobs, SimTime from, const SimTime* until,
                    absl::FunctionRef<void(const Job&, double)> done);

  SimTime served_until_{};
  std::vector<Job> jobs_;  // In order of addition.
};

}  // namespace epsim
