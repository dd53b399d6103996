// Unit vectors rounded to bytes, and the products of such; compiled once per instruction set, and not for the baseline.
#pragma once

#include <cmath>
#include <cstring>

#include "cpu/common/vectors.h"
#include "panel_size.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace imgops {
namespace IMGOPS_ISA {
namespace {

// channels that are mixed, and the length that this gives a unit vector
constexpr int64_t kMixed = 32;
constexpr float kMixedLength = 5.65685425f;

// Add and subtract the channels of panel[depth][kPanelWidth] by Hadamard's matrix, kMixed at a time. Cosines stay as they
// are, and a channel that stands out is spread over others, so that it does not take all of the bytes' range.
inline void mix_channels(float* panel, int64_t depth) {
  for (int64_t c = 0; c < depth; c += kMixed) {
    for (int64_t apart = 1; apart < kMixed; apart *= 2) {
      for (int64_t i = 0; i < kMixed; ++i) {
        if (i & apart) continue;
        float *a = panel + (c + i) * kPanelWidth, *b = a + apart * kPanelWidth;
#pragma omp simd
        for (int64_t j = 0; j < kPanelWidth; ++j) {
          const float sum = a[j] + b[j], difference = a[j] - b[j];
          a[j] = sum;
          b[j] = difference;
        }
      }
    }
  }
}

// What is known of kPanelWidth rounded vectors: the unit of their bytes, the length of what rounding took off, and the
// sum of the bytes.
struct Rounded {
  float *scales, *errors;
  int32_t* sums;
};

// The vectors of a mixed panel [depth][kPanelWidth] as bytes of -levels to levels, plus `offset`. Four channels follow
// each other, then `side` vectors: bytes[kPanelWidth / side][depth / 4][side][4].
inline void round_to_bytes(const float* panel, int64_t depth, int32_t levels, int32_t offset, int64_t side,
                           uint8_t* bytes, const Rounded& rounded) {
  float largest[kPanelWidth] = {}, inverse[kPanelWidth], unit[kPanelWidth], squares[kPanelWidth] = {};
  int32_t sums[kPanelWidth] = {};
  for (int64_t c = 0; c < depth; ++c) {
#pragma omp simd
    for (int64_t j = 0; j < kPanelWidth; ++j) {
      const float a = std::abs(panel[c * kPanelWidth + j]);
      largest[j] = a > largest[j] ? a : largest[j];
    }
  }
  for (int64_t j = 0; j < kPanelWidth; ++j) {
    unit[j] = largest[j] / static_cast<float>(levels);
    inverse[j] = largest[j] > 0 ? static_cast<float>(levels) / largest[j] : 0.0f;
  }
  auto* words = reinterpret_cast<uint32_t*>(bytes);
  for (int64_t c = 0; c < depth; c += 4) {
    uint32_t four[kPanelWidth] = {};
    for (int64_t k = 0; k < 4; ++k) {
      const float* row = panel + (c + k) * kPanelWidth;
#pragma omp simd
      for (int64_t j = 0; j < kPanelWidth; ++j) {
        const float nearest = std::rint(row[j] * inverse[j]), lost = row[j] - nearest * unit[j];
        const auto value = static_cast<int32_t>(nearest);
        squares[j] += lost * lost;
        sums[j] += value;
        four[j] |= (static_cast<uint32_t>(value + offset) & 0xff) << (8 * k);
      }
    }
    for (int64_t j = 0; j < kPanelWidth; j += side) {
      std::memcpy(words + j * (depth / 4) + c / 4 * side, four + j, side * sizeof(uint32_t));
    }
  }
  for (int64_t j = 0; j < kPanelWidth; ++j) {
    rounded.scales[j] = unit[j] / kMixedLength;
    rounded.errors[j] = std::sqrt(squares[j]) / kMixedLength;
    rounded.sums[j] = sums[j];
  }
}

#if defined(__AVX512F__)

// whether the kernels may be asked to use VNNI
constexpr bool kVnni = true;
using Words = __m512i;
inline Words four_of(const uint8_t* p) { return _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(p)); }

#elif defined(__AVX2__)

constexpr bool kVnni = false;
using Words = __m256i;
inline Words four_of(const uint8_t* p) { return _mm256_set1_epi32(*reinterpret_cast<const int32_t*>(p)); }

#endif

#if defined(__AVX2__)

// sums + the products of four unsigned bytes with four signed ones, in each lane. Without VNNI two of them must fit into
// 16 bits.
template <bool vnni>
inline Words add_products(Words sums, Words left, Words right) {
#if defined(__AVX512F__)
  if constexpr (vnni) {
    // the compiler has no leave to use VNNI in all of the file
    asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(left), "v"(right));
    return sums;
  }
  const Words pairs = _mm512_maddubs_epi16(left, right);
  return _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
#else
  const Words pairs = _mm256_maddubs_epi16(left, right);
  return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
}

// products[kPanelWidth][kPanelWidth] of a block of queries, kRows side by side, with one of keys, all side by side
template <bool vnni>
void multiply_block(const uint8_t* queries, const Rounded& query, const uint8_t* keys, const float* key_scales,
                    int32_t offset, int64_t depth, float* products) {
  constexpr int64_t lanes = kLanes<int32_t>, row = 4 * kPanelWidth;
  for (int64_t r = 0; r < kPanelWidth; r += kRows) {
    for (int64_t lane = 0; lane < kPanelWidth; lane += 2 * lanes) {
      const uint8_t *key = keys + 4 * lane, *four = queries + r * depth;
      Words sums[kRows][2] = {};
      for (int64_t c = 0; c < depth; c += 4, key += row, four += 4 * kRows) {
        const Words first = *reinterpret_cast<const Words*>(key);
        const Words second = *reinterpret_cast<const Words*>(key + kBytes);
#pragma GCC unroll 8
        for (int k = 0; k < kRows; ++k) {
          const Words values = four_of(four + 4 * k);
          sums[k][0] = add_products<vnni>(sums[k][0], first, values);
          sums[k][1] = add_products<vnni>(sums[k][1], second, values);
        }
      }
      int32_t found[kRows][2 * lanes];
      std::memcpy(found, sums, sizeof(found));
      for (int64_t k = 0; k < kRows; ++k) {
        const float scale = query.scales[r + k];
        const int32_t all = offset * query.sums[r + k];
#pragma omp simd
        for (int64_t j = 0; j < 2 * lanes; ++j) {
          products[(r + k) * kPanelWidth + lane + j] =
              static_cast<float>(found[k][j] - all) * (scale * key_scales[lane + j]);
        }
      }
    }
  }
}

// products[block][kPanelWidth][kPanelWidth] of a block of queries with some blocks of keys
inline void multiply_bytes(const uint8_t* queries, const Rounded& query, const uint8_t* keys, const float* key_scales,
                           bool vnni, int32_t offset, int64_t depth, int64_t blocks, float* products) {
  const auto multiply = vnni ? multiply_block<kVnni> : multiply_block<false>;
  for (int64_t b = 0; b < blocks; ++b) {
    multiply(queries, query, keys + b * kPanelWidth * depth, key_scales + b * kPanelWidth, offset, depth,
             products + b * kPanelWidth * kPanelWidth);
  }
}

#endif

}  // namespace
}  // namespace IMGOPS_ISA
}  // namespace imgops
