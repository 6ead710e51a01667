// The fast path of TokenRouting on machines with AVX-512: over many tokens at once, how many have a member in a set.
// The members are experts, or the ranks that experts lie on.
//
// A token's members are a bit set, one 64-bit word for each 64 members, to which each of its ids adds a bit: OR removes
// the duplicates.  The words of eight tokens are an 8 x 64 bit matrix; its transpose has a byte for each member, whose
// population count is the number of the eight tokens that have it.  No counter in memory is read, changed and written
// back for an id, which is what limits a plain histogram.
#pragma once

#include <cstdint>

namespace epsim {

struct Avx512Tokens {
  static constexpr int kIds = 256;      // Ids are bytes.
  static constexpr int kMaxTopK = 8;    // A token's ids fit in a 64-bit lane.
  static constexpr int kMembers = 256;  // At most.

  const uint8_t* ids = nullptr;  // [tokens, top_k], all valid.
  int tokens = 0;
  int top_k = 0;                       // 1 to kMaxTopK.
  const uint8_t* member_of = nullptr;  // [kIds], each below `members`; null: ids are the members.
  int members = 0;                     // 1 to kMembers.
};

// With VBMI, BITALG and GFNI.
bool Avx512Supported();
// counts[m] += tokens that have at least one id whose member is m.  counts: [members].  REQUIRES: Avx512Supported().
void AddTokensOfMembers(const Avx512Tokens& tokens, int32_t* counts);

}  // namespace epsim
