#include "policies/placement/assignment.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "engine/check.h"

namespace epsim {
namespace {

constexpr int kFree = -1;
constexpr int64_t kFar = std::numeric_limits<int64_t>::max();

// Workers join one at a time.  A newcomer takes the end of the shortest path of reassignments that leads to a free
// job.  Prices keep every cost that is left, cost - worker_price - job_price, at or above 0, and at 0 for pairs made:
// so each stage is a shortest path without negative steps (Dijkstra), and the final pairing is least by duality.
class Pairing {
 public:
  Pairing(absl::Span<const int64_t> cost, int n)
      : cost_(cost),
        n_(n),
        worker_price_(n),
        job_price_(n),
        job_of_worker_(n, kFree),
        worker_of_job_(n, kFree),
        distance_(n),
        came_from_(n) {}

  void Join(int newcomer) {
    std::fill(distance_.begin(), distance_.end(), kFar);
    reached_.clear();
    unreached_.resize(n_);
    for (int job = 0; job < n_; ++job) unreached_[job] = job;

    int worker = newcomer;
    int64_t travelled = 0;
    for (;;) {
      // Steps from `worker` to the jobs that are not reached yet; then the nearest of them, the lowest among equals.
      size_t nearest = 0;
      for (size_t i = 0; i < unreached_.size(); ++i) {
        const int job = unreached_[i];
        const int64_t step = cost_[static_cast<size_t>(worker) * n_ + job] - worker_price_[worker] - job_price_[job];
        if (travelled + step < distance_[job]) {
          distance_[job] = travelled + step;
          came_from_[job] = worker;
        }
        if (distance_[job] < distance_[unreached_[nearest]]) nearest = i;
      }
      const int job = unreached_[nearest];
      unreached_.erase(unreached_.begin() + static_cast<std::ptrdiff_t>(nearest));
      travelled = distance_[job];
      if (worker_of_job_[job] == kFree) {
        Reprice(newcomer, travelled);
        Reassign(job, newcomer);
        return;
      }
      reached_.push_back(job);
      worker = worker_of_job_[job];
    }
  }

  const std::vector<int>& job_of_worker() const { return job_of_worker_; }

 private:
  void Reprice(int newcomer, int64_t travelled) {
    worker_price_[newcomer] += travelled;
    for (int job : reached_) {
      worker_price_[worker_of_job_[job]] += travelled - distance_[job];
      job_price_[job] -= travelled - distance_[job];
    }
  }

  // Back along the path that ends at `job`: each worker on it takes the job it reached next.
  void Reassign(int job, int newcomer) {
    for (;;) {
      const int worker = came_from_[job];
      worker_of_job_[job] = worker;
      job = std::exchange(job_of_worker_[worker], job);
      if (worker == newcomer) return;
    }
  }

  const absl::Span<const int64_t> cost_;
  const int n_;
  std::vector<int64_t> worker_price_, job_price_;
  std::vector<int> job_of_worker_, worker_of_job_;
  std::vector<int64_t> distance_;  // [jobs] Of the shortest path from the newcomer that is known.
  std::vector<int> came_from_;     // [jobs] The worker before the job on that path.
  std::vector<int> reached_, unreached_;
};

}  // namespace

std::vector<int> LeastCostAssignment(absl::Span<const int64_t> cost, int n) {
  EPSIM_CHECK(n >= 0 && cost.size() == static_cast<size_t>(n) * n);
  Pairing pairing(cost, n);
  for (int worker = 0; worker < n; ++worker) pairing.Join(worker);
  return pairing.job_of_worker();
}

}  // namespace epsim
