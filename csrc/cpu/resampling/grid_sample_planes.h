// Samples of images of few planes for grid_sample and displace: vectors run along the pixels of a row, and taps are
// gathered; compiled once per instruction set, and not for the baseline.
#pragma once

#include "cpu/common/vectors.h"
#include "grid_sample_row.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace imgops {
namespace IMGOPS_ISA {
namespace {

#if defined(__AVX2__)

// planes up to which a vector of pixels is faster than a block of channels, most of which would be padding
constexpr int64_t kFewPlanes = 4;

constexpr int64_t kWide = kLanes<float>;
using Floats = Vector<float, kWide>::type;
using Integers = Vector<int32_t, kWide>::type;

template <class V, class A>
V load_vector(const A* p) {
  V v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

// first[k] = x[at[k]] and second[k] = x[at[k] + 1]: half as many reads as one by one
inline void gather_pairs(const float* x, Integers at, Floats* first, Floats* second) {
#if defined(__AVX512F__)
  const auto indices = reinterpret_cast<__m512i>(at);
  const __m512 low = _mm512_castpd_ps(_mm512_i32gather_pd(_mm512_castsi512_si256(indices), x, 4));
  const __m512 high = _mm512_castpd_ps(_mm512_i32gather_pd(_mm512_extracti64x4_epi64(indices, 1), x, 4));
  const auto& a = reinterpret_cast<const Floats&>(low);
  const auto& b = reinterpret_cast<const Floats&>(high);
  shuffle<float, kWide, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30>(a, b, *first);
  shuffle<float, kWide, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31>(a, b, *second);
#else
  // pixels 0, 1, 4 and 5, then 2, 3, 6 and 7: so no value has to cross the halves of a vector
  const __m256i indices = _mm256_permute4x64_epi64(reinterpret_cast<__m256i>(at), _MM_SHUFFLE(3, 1, 2, 0));
  const auto* const pairs = reinterpret_cast<const double*>(x);
  const __m256 low = _mm256_castpd_ps(_mm256_i32gather_pd(pairs, _mm256_castsi256_si128(indices), 4));
  const __m256 high = _mm256_castpd_ps(_mm256_i32gather_pd(pairs, _mm256_extracti128_si256(indices, 1), 4));
  *first = _mm256_shuffle_ps(low, high, _MM_SHUFFLE(2, 0, 2, 0));
  *second = _mm256_shuffle_ps(low, high, _MM_SHUFFLE(3, 1, 3, 1));
#endif
}

inline Floats only(Integers where, Floats v) { return reinterpret_cast<Floats>(reinterpret_cast<Integers>(v) & where); }

// whether vectors run along the pixels of a row instead, whose taps are gathered: images of few planes, without a block
inline bool gathers(const GridSample& p) {
  return !p.channels_last && p.channels <= kFewPlanes && p.in_w > 1 && p.in_h * p.in_w <= kMostPixels;
}

inline void forward_by_pixels(const GridSample& p, int64_t begin, int64_t end) {
  Row<float> row;
  const int64_t in_pixels = p.in_h * p.in_w, out_pixels = p.out_h * p.out_w;
  const int32_t w = static_cast<int32_t>(p.in_w), h = static_cast<int32_t>(p.in_h);
  const Integers zero{}, last_pair = zero + (w - 2), last_line = zero + (h - 1);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t s = task / p.chunks, first = task % p.chunks * p.rows;
    const int64_t last = first + p.rows < p.out_h ? first + p.rows : p.out_h;
    const float* const x = static_cast<const float*>(p.x) + s * p.channels * in_pixels;
    float* const y = static_cast<float*>(p.y) + s * p.channels * out_pixels;
    for (int64_t i = first; i < last; ++i) {
      for (int64_t j = 0; j < p.out_w; j += kRow) {
        row.template locate<false>(p, s, i, j);
        for (int64_t k = row.n; k % kWide != 0; ++k) row.column[k] = Row<float>::kOutside, row.line[k] = 0;
        for (int64_t k = 0; k < row.n; k += kWide) {
          const auto column = load_vector<Integers>(row.column + k), line = load_vector<Integers>(row.line + k);
          const auto left = load_vector<Floats>(row.left + k), right = load_vector<Floats>(row.right + k);
          const auto top = load_vector<Floats>(row.top + k), bottom = load_vector<Floats>(row.bottom + k);
          // at the border the pair that is read is not the one that is meant, but holds its tap that is in the image
          const Integers at_least = column < zero ? zero : column, pair = at_least > last_pair ? last_pair : at_least;
          const Integers next = line + 1, above = line < zero ? zero : line,
                         below = next > last_line ? last_line : next;
          const Floats weight = column < pair ? right : left, weight_next = column > pair ? left : right;
          // what is not in the image is not multiplied by 0: an infinity or NaN would become one here
          const Integers inside = column > Row<float>::kOutside;
          const Integers here = inside & (column <= pair), there = inside & (column >= pair);
          const Integers in_top = line >= zero, in_bottom = next <= last_line;
          const Integers at_top = above * w + pair, at_bottom = below * w + pair;
          const int64_t n = row.n - k < kWide ? row.n - k : kWide;
          for (int64_t c = 0; c < p.channels; ++c) {
            Floats a, b, d, e;
            gather_pairs(x + c * in_pixels, at_top, &a, &b);
            gather_pairs(x + c * in_pixels, at_bottom, &d, &e);
            const Floats sum = top * only(in_top, weight * only(here, a) + weight_next * only(there, b)) +
                               bottom * only(in_bottom, weight * only(here, d) + weight_next * only(there, e));
            float* const to = y + c * out_pixels + i * p.out_w + j + k;
            if (n == kWide) {
              std::memcpy(to, &sum, sizeof(sum));
            } else {
              std::memcpy(to, &sum, n * sizeof(float));
            }
          }
        }
      }
    }
  }
}

#endif

}  // namespace
}  // namespace IMGOPS_ISA
}  // namespace imgops
