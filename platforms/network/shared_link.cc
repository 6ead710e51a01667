#include "platforms/network/shared_link.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "engine/check.h"
#include "platforms/network/lane_time.h"

namespace epsim {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

}  // namespace

bool SharedLink::Has(PhaseId phase) const {
  return std::any_of(jobs_.begin(), jobs_.end(), [phase](const Job& job) { return job.phase == phase; });
}

void SharedLink::Begin(SimTime begin) {
  EPSIM_CHECK(jobs_.empty());
  served_until_ = begin;
}

void SharedLink::Add(PhaseId phase, StreamId stream, SimTime not_before, std::vector<OfferedWork> offers) {
  EPSIM_CHECK(!offers.empty() && !Has(phase));
  EPSIM_CHECK(offers.front().time >= served_until_);
  jobs_.push_back({.phase = phase, .stream = stream, .not_before = not_before, .offers = std::move(offers)});
}

void SharedLink::ReplaceOffersToCome(PhaseId phase, std::vector<OfferedWork> offers) {
  const auto job = std::find_if(jobs_.begin(), jobs_.end(), [phase](const Job& j) { return j.phase == phase; });
  EPSIM_CHECK(job != jobs_.end());
  EPSIM_CHECK(offers.empty() || offers.front().time >= served_until_);
  job->offers = std::move(offers);
}

void SharedLink::Serve(std::vector<Job>* jobs, SimTime from, const SimTime* until,
                       absl::FunctionRef<void(const Job&, double)> done) {
  const double end = until == nullptr ? kNever : static_cast<double>((*until - from).count());
  const auto after_from = [from](SimTime time) { return static_cast<double>((time - from).count()); };
  struct Progress {
    size_t next_offer = 0;
    bool done = false, served = false;
  };
  std::vector<Progress> progress(jobs->size());
  double now = 0;
  while (true) {
    // Who is served from now on, and for how long nothing changes.
    int served = 0;
    double next = end;
    bool waits = false, ended = false;
    for (size_t i = 0; i < jobs->size(); ++i) {
      Job& job = (*jobs)[i];
      Progress& p = progress[i];
      p.served = false;
      if (p.done) continue;
      while (p.next_offer < job.offers.size() && after_from(job.offers[p.next_offer].time) <= now && now < end) {
        job.waiting += job.offers[p.next_offer++].picoseconds;
      }
      if (p.next_offer < job.offers.size()) {
        next = std::min(next, after_from(job.offers[p.next_offer].time));
        waits = true;
      }
      bool first = true;
      for (size_t j = 0; j < i; ++j) first &= progress[j].done || (*jobs)[j].stream != job.stream;
      if (!first) continue;
      if (job.waiting == 0) {
        if (p.next_offer < job.offers.size()) continue;
        p.done = ended = true;  // The next of its stream, if any, is served from now on.
        done(job, now);
      } else if (after_from(job.not_before) > now) {
        next = std::min(next, after_from(job.not_before));
        waits = true;
      } else {
        p.served = true;
        ++served;
      }
    }
    if (ended) continue;
    if (now >= end || (served == 0 && !waits)) break;
    for (size_t i = 0; i < jobs->size(); ++i) {
      if (progress[i].served) next = std::min(next, now + (*jobs)[i].waiting * served);
    }
    for (size_t i = 0; i < jobs->size(); ++i) {
      if (!progress[i].served) continue;
      double& waiting = (*jobs)[i].waiting;
      waiting = now + waiting * served <= next ? 0 : std::max(0.0, waiting - (next - now) / served);
    }
    now = next;
  }
  for (size_t i = 0; i < jobs->size(); ++i) {
    std::vector<OfferedWork>& offers = (*jobs)[i].offers;
    offers.erase(offers.begin(), offers.begin() + static_cast<std::ptrdiff_t>(progress[i].next_offer));
  }
}

void SharedLink::ServeUntil(SimTime now) {
  if (jobs_.empty()) return;
  EPSIM_CHECK(now >= served_until_);
  Serve(&jobs_, served_until_, &now, [](const Job&, double) {});
  served_until_ = now;
  // The finish that was told decides, not the last fraction of a picosecond.
  std::erase_if(jobs_, [now](const Job& job) { return job.finish <= now; });
}

void SharedLink::Solve(absl::FunctionRef<void(PhaseId, SimTime finish)> finish) {
  std::vector<Job> rest = jobs_;
  Serve(&rest, served_until_, nullptr, [&](const Job& ended, double picoseconds) {
    const auto job = std::find_if(jobs_.begin(), jobs_.end(), [&](const Job& j) { return j.phase == ended.phase; });
    job->finish = RoundUpFrom(served_until_, picoseconds);
    finish(job->phase, job->finish);
  });
}

}  // namespace epsim
