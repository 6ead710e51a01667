#include "traces/format/id_check.h"

#include <cstring>
#include <vector>

#include "engine/check.h"

namespace epsim {
namespace {

constexpr int kMaxVectorTopK = 32;
constexpr int kVectorBytes = 32;

template <typename Id>
using Vector __attribute__((vector_size(kVectorBytes))) = Id;

template <typename Id>
Id Load(const std::byte* ids, int64_t index) {
  Id id;
  std::memcpy(&id, ids + static_cast<size_t>(index) * sizeof(Id), sizeof id);
  return id;
}

// A row is compared with itself shifted by 1 to top_k - 1 places: two loads, one comparison and a mask that leaves out
// the pairs that straddle two rows.  Rows repeat their alignment every `kLanes` of them, top_k vectors, so the masks
// are a table [top_k vectors][top_k - 1 shifts].  The caller checks the rows that do not fill such a block, and keeps
// one vector readable behind the last.
template <typename Id>
struct Masks {
  static constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(Id));

  explicit Masks(int top_k) : lanes(static_cast<size_t>(top_k) * (top_k - 1) * kLanes) {
    auto* out = lanes.data();
    for (int vector = 0; vector < top_k; ++vector) {
      for (int shift = 1; shift < top_k; ++shift) {
        for (int lane = 0; lane < kLanes; ++lane) {
          *out++ = (vector * kLanes + lane) % top_k + shift < top_k ? static_cast<Id>(~Id{0}) : Id{0};
        }
      }
    }
  }

  std::vector<Id> lanes;
};

template <typename Id>
__attribute__((always_inline)) inline bool BlocksAreSound(const std::byte* ids, int64_t blocks, int top_k,
                                                          const Id* masks, Id largest) {
  constexpr int kLanes = Masks<Id>::kLanes;
  Vector<Id> repeated = {}, greatest = {};
  for (int64_t block = 0; block < blocks; ++block) {
    const Id* mask = masks;
    for (int vector = 0; vector < top_k; ++vector, ids += kVectorBytes) {
      Vector<Id> row;
      std::memcpy(&row, ids, kVectorBytes);
      greatest = row > greatest ? row : greatest;
      for (int shift = 1; shift < top_k; ++shift, mask += kLanes) {
        Vector<Id> shifted, keep;
        std::memcpy(&shifted, ids + static_cast<size_t>(shift) * sizeof(Id), kVectorBytes);
        std::memcpy(&keep, mask, kVectorBytes);
        repeated |= (Vector<Id>)(row == shifted) & keep;
      }
    }
  }
  Id any = 0, top = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    any |= repeated[lane];
    top = greatest[lane] > top ? greatest[lane] : top;
  }
  return any == 0 && top <= largest;
}

// Eight u8 ids are one 64-bit word; rotating it by 1 to 4 bytes brings each id beside every other one.
__attribute__((always_inline)) inline bool WordsAreSound(const std::byte* ids, int64_t blocks, uint8_t largest) {
  typedef uint64_t Words __attribute__((vector_size(kVectorBytes)));
  typedef uint8_t Ids __attribute__((vector_size(kVectorBytes)));
  Ids repeated = {}, greatest = {};
  for (int64_t block = 0; block < blocks; ++block, ids += kVectorBytes) {
    Words row;
    std::memcpy(&row, ids, kVectorBytes);
    const Ids bytes = (Ids)row;
    greatest = bytes > greatest ? bytes : greatest;
    repeated |= (Ids)(bytes == (Ids)(row << 8 | row >> 56)) | (Ids)(bytes == (Ids)(row << 16 | row >> 48)) |
                (Ids)(bytes == (Ids)(row << 24 | row >> 40)) | (Ids)(bytes == (Ids)(row << 32 | row >> 32));
  }
  uint8_t any = 0, top = 0;
  for (int lane = 0; lane < kVectorBytes; ++lane) {
    any |= repeated[lane];
    top = greatest[lane] > top ? greatest[lane] : top;
  }
  return any == 0 && top <= largest;
}

template <typename Id>
__attribute__((target("avx2"))) bool BlocksAvx2(const std::byte* ids, int64_t blocks, int top_k, const Id* masks,
                                                Id largest) {
  return BlocksAreSound<Id>(ids, blocks, top_k, masks, largest);
}
template <typename Id>
bool BlocksPortable(const std::byte* ids, int64_t blocks, int top_k, const Id* masks, Id largest) {
  return BlocksAreSound<Id>(ids, blocks, top_k, masks, largest);
}
__attribute__((target("avx2"))) bool WordsAvx2(const std::byte* ids, int64_t blocks, uint8_t largest) {
  return WordsAreSound(ids, blocks, largest);
}
bool WordsPortable(const std::byte* ids, int64_t blocks, uint8_t largest) {
  return WordsAreSound(ids, blocks, largest);
}

template <typename Id>
int64_t FirstUnsound(const std::byte* ids, int64_t rows, int top_k, int experts, const uint8_t* valid_count, int* id,
                     bool* repeated) {
  std::vector<int64_t> seen_in(static_cast<size_t>(experts), -1);  // The last row with each expert.
  for (int64_t row = 0; row < rows; ++row) {
    const int valid = valid_count == nullptr ? top_k : valid_count[row];
    for (int k = 0; k < valid; ++k) {
      *id = Load<Id>(ids, row * top_k + k);
      *repeated = *id < experts && seen_in[static_cast<size_t>(*id)] == row;
      if (*id >= experts || *repeated) return row;
      seen_in[static_cast<size_t>(*id)] = row;
    }
    for (int k = valid; k < top_k; ++k) {
      *id = Load<Id>(ids, row * top_k + k);
      *repeated = false;
      if (*id >= experts) return row;
    }
  }
  return -1;
}

template <typename Id>
bool AreSound(const std::byte* ids, int64_t rows, int top_k, int experts) {
  static const bool avx2 = __builtin_cpu_supports("avx2");
  const Id largest = static_cast<Id>(experts - 1);
  int64_t checked = 0;
  if (sizeof(Id) == 1 && top_k == 8) {
    const int64_t blocks = rows / (kVectorBytes / 8);
    if (!(avx2 ? WordsAvx2 : WordsPortable)(ids, blocks, static_cast<uint8_t>(largest))) return false;
    checked = blocks * (kVectorBytes / 8);
  } else if (top_k <= kMaxVectorTopK && rows > Masks<Id>::kLanes) {
    const Masks<Id> masks(top_k);
    // A block is top_k vectors, kLanes rows.  The loads that are shifted reach less than a row further.
    const int64_t blocks = (rows - 1) / Masks<Id>::kLanes;
    if (!(avx2 ? BlocksAvx2<Id> : BlocksPortable<Id>)(ids, blocks, top_k, masks.lanes.data(), largest)) return false;
    checked = blocks * Masks<Id>::kLanes;
  }
  int id;
  bool repeated;
  return FirstUnsound<Id>(ids + static_cast<size_t>(checked * top_k) * sizeof(Id), rows - checked, top_k, experts,
                          nullptr, &id, &repeated) < 0;
}

}  // namespace

bool IdsAreSound(const std::byte* ids, int id_bytes, int64_t rows, int top_k, int experts) {
  EPSIM_CHECK(id_bytes == 1 || id_bytes == 2);
  return id_bytes == 1 ? AreSound<uint8_t>(ids, rows, top_k, experts) : AreSound<uint16_t>(ids, rows, top_k, experts);
}

int64_t FirstUnsoundRow(const std::byte* ids, int id_bytes, int64_t rows, int top_k, int experts,
                        const uint8_t* valid_count, int* id, bool* repeated) {
  EPSIM_CHECK(id_bytes == 1 || id_bytes == 2);
  return id_bytes == 1 ? FirstUnsound<uint8_t>(ids, rows, top_k, experts, valid_count, id, repeated)
                       : FirstUnsound<uint16_t>(ids, rows, top_k, experts, valid_count, id, repeated);
}

}  // namespace epsim
