// Runs a fuzz target where libFuzzer is not there: links with any LLVMFuzzerTestOneInput and a FuzzSeeds().
//
//   PROGRAM [SECONDS [SEED]]     mutates the seeds for that long (5 by default), the same inputs for the same SEED
//   PROGRAM FILE...              runs each file once: to look into one that failed
//
// The target fails by ending the program; the input that it was given is then in the file named on the last line.
// Mutations: bits, bytes, small and extreme integers of 1, 2, 4 and 8 bytes, pieces removed, repeated, moved between
// seeds, and ends cut off.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "engine/random_stream.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
// Valid inputs to start from; at least one.
std::vector<std::string> FuzzSeeds();

namespace {

constexpr size_t kMaxInputBytes = size_t{1} << 20;

// For the signal handler.
const std::string* current_input = nullptr;
char failure_path[256];

void SaveInput() {
  if (current_input == nullptr) return;
  const int file = open(failure_path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (file < 0 || write(file, current_input->data(), current_input->size()) < 0) return;
  close(file);
  const char text[] = "the input that failed is in ";
  if (write(2, text, sizeof text - 1) < 0 || write(2, failure_path, std::strlen(failure_path)) < 0 ||
      write(2, "\n", 1) < 0) {
    return;
  }
}

void OnSignal(int number) {
  SaveInput();
  signal(number, SIG_DFL);
  raise(number);
}

class Mutator {
 public:
  Mutator(std::vector<std::string> seeds, uint64_t seed) : seeds_(std::move(seeds)), random_(seed, "fuzz") {}

  std::string Next() {
    std::string input = seeds_[Below(seeds_.size())];
    for (uint64_t changes = 1 + Below(4); changes > 0; --changes) Change(input);
    if (input.size() > kMaxInputBytes) input.resize(kMaxInputBytes);
    return input;
  }

 private:
  size_t Below(size_t bound) { return bound == 0 ? 0 : static_cast<size_t>(random_.Below(bound)); }

  void Change(std::string& input) {
    const size_t at = Below(input.size()), left = input.size() - at;
    switch (Below(8)) {
      case 0:
        if (left > 0) input[at] = static_cast<char>(input[at] ^ (1 << Below(8)));
        break;
      case 1:
        if (left > 0) input[at] = static_cast<char>(Below(256));
        break;
      case 2: {
        static constexpr uint64_t kValues[] = {0,
                                               1,
                                               0x7f,
                                               0x80,
                                               0xff,
                                               0x7fff,
                                               0xffff,
                                               0x7fffffff,
                                               0x80000000,
                                               0xffffffff,
                                               uint64_t{1} << 62,
                                               ~uint64_t{0} >> 1,
                                               ~uint64_t{0}};
        const uint64_t value = kValues[Below(std::size(kValues))] + (Below(2) == 0 ? 0 : Below(3) - 1);
        std::memcpy(input.data() + at, &value, std::min(left, size_t{1} << Below(4)));
        break;
      }
      case 3:
        input.erase(at, Below(2) == 0 ? 1 + Below(8) : Below(left));
        break;
      case 4:
        input.insert(at, input.substr(at, 1 + Below(std::min(left, size_t{256}))));
        break;
      case 5: {
        const std::string& other = seeds_[Below(seeds_.size())];
        const std::string piece = other.substr(Below(other.size()), 1 + Below(256));
        input.replace(at, Below(2) == 0 ? piece.size() : 0, piece);
        break;
      }
      case 6:
        input.resize(at);
        break;
      case 7:
        input.append(1 + Below(128), static_cast<char>(Below(256)));
        break;
    }
  }

  const std::vector<std::string> seeds_;
  epsim::RandomStream random_;
};

void RunOne(const std::string& input) {
  current_input = &input;
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
  current_input = nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  std::snprintf(failure_path, sizeof failure_path, "/tmp/fuzz-failure.%d", getpid());
  for (const int number : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) signal(number, OnSignal);
  std::atexit(SaveInput);  // A sanitizer that finds something exits.

  char* rest = nullptr;
  const double seconds = argc > 1 ? std::strtod(argv[1], &rest) : 5;
  if (argc > 1 && *rest != '\0') {
    for (int i = 1; i < argc; ++i) {
      std::ifstream file(argv[i], std::ios::binary);
      if (!file) {
        std::fprintf(stderr, "%s: cannot be read\n", argv[i]);
        return 2;
      }
      RunOne(std::string(std::istreambuf_iterator<char>(file), {}));
    }
    return 0;
  }
  const std::vector<std::string> seeds = FuzzSeeds();
  for (const std::string& seed : seeds) RunOne(seed);
  Mutator mutator(seeds, argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  int64_t runs = static_cast<int64_t>(seeds.size());
  for (; std::chrono::steady_clock::now() < end; ++runs) RunOne(mutator.Next());
  std::fprintf(stderr, "%lld inputs\n", static_cast<long long>(runs));
  return 0;
}
