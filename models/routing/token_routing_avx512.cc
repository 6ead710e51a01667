#include "models/routing/token_routing_avx512.h"

#include "engine/check.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstddef>

// Per function, not per file: an inline function of a header compiled with these would break on other machines.
#define EPSIM_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512bitalg,gfni")))

namespace epsim {
namespace {

constexpr int kGroup = 8;                      // Tokens in a register, a 64-bit lane each.
constexpr int kBlock = 255 / kGroup * kGroup;  // Tokens whose counts fit in a byte.

// Byte permutations of a register.
struct alignas(64) Permutations {
  uint8_t transpose[64];  // Byte 8 i + t: byte i of lane t.
  // Byte 8 t + k of spread[top_k - 1]: which of the loaded bytes is the k-th id of token t, its last id again for more.
  uint8_t spread[Avx512Tokens::kMaxTopK][64];
};

constexpr Permutations MakePermutations() {
  Permutations result = {};
  for (int t = 0; t < kGroup; ++t) {
    for (int k = 0; k < 8; ++k) {
      result.transpose[8 * k + t] = static_cast<uint8_t>(8 * t + k);
      for (int top_k = 1; top_k <= Avx512Tokens::kMaxTopK; ++top_k) {
        result.spread[top_k - 1][8 * t + k] = static_cast<uint8_t>(top_k * t + std::min(k, top_k - 1));
      }
    }
  }
  return result;
}

constexpr Permutations kPermutations = MakePermutations();

struct Tables {
  __m512i spread, transpose;
  __m512i member[Avx512Tokens::kIds / 64];  // member_of.
};

// Of a group of `tokens` (1 to kGroup) at `ids`, adds to byte i of counts[w] those that have member 64 w + i.
template <int kWords, bool kLookUp>
EPSIM_AVX512 inline void AddGroup(const Tables& tables, const uint8_t* ids, int tokens, int top_k, __m512i* counts) {
  const __mmask64 loaded = ~uint64_t{0} >> (64 - tokens * top_k);
  const __mmask8 present = static_cast<__mmask8>((1 << tokens) - 1);
  __m512i members = _mm512_permutexvar_epi8(tables.spread, _mm512_maskz_loadu_epi8(loaded, ids));
  if constexpr (kLookUp) {
    const __m512i low = _mm512_permutex2var_epi8(tables.member[0], members, tables.member[1]);
    const __m512i high = _mm512_permutex2var_epi8(tables.member[2], members, tables.member[3]);
    members = _mm512_mask_blend_epi8(_mm512_movepi8_mask(members), low, high);
  }
  __m512i member[8];
  for (int k = 0; k < 8; ++k) member[k] = _mm512_srli_epi64(members, static_cast<unsigned>(8 * k));
  if constexpr (kWords > 1) {
    for (int k = 0; k < 7; ++k) member[k] = _mm512_and_si512(member[k], _mm512_set1_epi64(0xff));
  }
  for (int w = 0; w < kWords; ++w) {
    const __m512i one = _mm512_set1_epi64(1);
    __m512i set = _mm512_setzero_si512();
    for (int k = 0; k < 8; k += 2) {
      // One word: a rotation takes the low six bits of its count, so that the member need not be cut out of its lane.
      // More: a shift by 64 or more (unsigned) gives nothing, so that the members of other words drop out.
      const __m512i a = kWords == 1 ? _mm512_rolv_epi64(one, member[k]) : _mm512_sllv_epi64(one, member[k]);
      const __m512i b = kWords == 1 ? _mm512_rolv_epi64(one, member[k + 1]) : _mm512_sllv_epi64(one, member[k + 1]);
      set = _mm512_ternarylogic_epi64(set, a, b, 0xfe);
      member[k] = _mm512_sub_epi64(member[k], _mm512_set1_epi64(64));
      member[k + 1] = _mm512_sub_epi64(member[k + 1], _mm512_set1_epi64(64));
    }
    // Lane i holds byte i of the eight sets, an 8 x 8 bit matrix A.  The affine map x -> A x takes the unit vector of
    // bit b to column b of A: byte b comes out as the tokens (in some order) that have member 64 w + 8 i + b.
    const __m512i matrices = _mm512_permutexvar_epi8(tables.transpose, _mm512_maskz_mov_epi64(present, set));
    const __m512i unit_vectors = _mm512_set1_epi64(static_cast<int64_t>(0x8040201008040201));
    const __m512i columns = _mm512_gf2p8affine_epi64_epi8(unit_vectors, matrices, 0);
    counts[w] = _mm512_add_epi8(counts[w], _mm512_popcnt_epi8(columns));
  }
}

// counts[i] += byte i of `bytes`, i < n <= 64.
EPSIM_AVX512 inline void Widen(__m512i bytes, int n, int32_t* counts) {
  alignas(64) uint8_t byte[64];
  _mm512_store_si512(byte, bytes);
  for (int i = 0; i < n; i += 16) {
    const __mmask16 mask = static_cast<__mmask16>(n - i >= 16 ? 0xffff : (1 << (n - i)) - 1);
    const __m512i more = _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(byte + i)));
    _mm512_mask_storeu_epi32(counts + i, mask, _mm512_add_epi32(_mm512_maskz_loadu_epi32(mask, counts + i), more));
  }
}

template <int kWords, bool kLookUp>
EPSIM_AVX512 void Add(const Avx512Tokens& source, int32_t* counts) {
  const int top_k = source.top_k;
  Tables tables;
  tables.spread = _mm512_load_si512(kPermutations.spread[top_k - 1]);
  tables.transpose = _mm512_load_si512(kPermutations.transpose);
  if constexpr (kLookUp) {
    for (int i = 0; i < Avx512Tokens::kIds / 64; ++i) tables.member[i] = _mm512_loadu_si512(source.member_of + 64 * i);
  }

  const uint8_t* ids = source.ids;
  for (int begin = 0; begin < source.tokens; begin += kBlock) {
    const int block = std::min(kBlock, source.tokens - begin);
    __m512i bytes[kWords];
    for (__m512i& word : bytes) word = _mm512_setzero_si512();
    int left = block;
    for (; left >= kGroup; left -= kGroup, ids += kGroup * top_k) {
      AddGroup<kWords, kLookUp>(tables, ids, kGroup, top_k, bytes);
    }
    if (left > 0) AddGroup<kWords, kLookUp>(tables, ids, left, top_k, bytes);
    for (int w = 0; w < kWords; ++w) Widen(bytes[w], std::min(64, source.members - 64 * w), counts + 64 * w);
  }
}

template <bool kLookUp>
void AddWords(const Avx512Tokens& source, int32_t* counts) {
  switch ((source.members + 63) / 64) {
    case 1:
      return Add<1, kLookUp>(source, counts);
    case 2:
      return Add<2, kLookUp>(source, counts);
    case 3:
      return Add<3, kLookUp>(source, counts);
    case 4:
      return Add<4, kLookUp>(source, counts);
  }
  EPSIM_CHECK(false);
}

}  // namespace

bool Avx512Supported() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512bitalg") &&
         __builtin_cpu_supports("gfni");
}

void AddTokensOfMembers(const Avx512Tokens& source, int32_t* counts) {
  if (source.member_of != nullptr) {
    AddWords<true>(source, counts);
  } else {
    AddWords<false>(source, counts);
  }
}

}  // namespace epsim

#else

namespace epsim {

bool Avx512Supported() { return false; }

void AddTokensOfMembers(const Avx512Tokens&, int32_t*) { EPSIM_CHECK(false); }

}  // namespace epsim

#endif
