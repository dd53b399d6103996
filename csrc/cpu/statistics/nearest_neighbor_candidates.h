// The nearest keys of a block of queries: by exact products, or in float32 among those that screened products leave;
// compiled once per instruction set.
#pragma once

#include <limits>

#include "panels.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace imgops {
namespace IMGOPS_ISA {
namespace {

enum class State : int { zero, defined, undefined };

// Up to W queries, and the nearest keys so far. Screened: the vectors one by one, and what rounding took off each.
template <class A>
struct QueryBlock {
  const A* units;
  const float* errors;
  const State* states;
  int64_t count;
  A* similarity;
  int64_t* index;

  // of equals the first is kept
  void take(int64_t q, A found, int64_t at) const {
    if (found < similarity[q] || (found == similarity[q] && at > index[q])) return;
    similarity[q] = found;
    index[q] = at;
  }
};

// Keys of a chunk, in blocks of W. Screened: the vectors one by one, and what rounding took off each.
template <class A>
struct KeyChunk {
  const A* vectors;
  const float* errors;
  int64_t first, count;

  int64_t blocks() const { return (count + W - 1) / W; }
  int64_t width(int64_t block) const { return least(W, count - block * W); }
};

// Take over the nearest keys of a block, where they are nearer, by exact products[W][W].
template <class A>
void take_nearest(const A* products, const QueryBlock<A>& queries, const KeyChunk<A>& keys, int64_t block) {
  const int64_t n = keys.width(block);
  for (int64_t q = 0; q < queries.count; ++q) {
    if (queries.states[q] != State::defined) continue;
    const A* row = products + q * W;
    A most = -2;
#pragma omp simd reduction(max : most)
    for (int64_t j = 0; j < n; ++j) most = row[j] > most ? row[j] : most;
    if (most < queries.similarity[q]) continue;
    int64_t at = 0;
    while (row[at] != most) ++at;
    queries.take(q, most, keys.first + block * W + at);
  }
}

#if defined(__AVX2__)

// whether products of vectors of A are screened at all
template <class A>
constexpr bool kScreens = sizeof(A) == sizeof(float);

// keys that are compared with a query, or several, at a time
constexpr int64_t kKeys = 4;

// to[row][W] = the products of some queries [rows][depth] with kKeys keys; what is computed beside a pair does not change it.
template <int rows>
void compare(const float* queries, const float* const (&keys)[kKeys], int64_t depth, float* to) {
  constexpr int64_t L = kLanes<float>;
  V<float> sums[rows][kKeys] = {};
  for (int64_t i = 0; i < depth; i += L) {
    V<float> key[kKeys];
#pragma GCC unroll 4
    for (int k = 0; k < kKeys; ++k) key[k] = load(keys[k] + i);
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
      const V<float> query = load(queries + r * depth + i);
#pragma GCC unroll 4
      for (int k = 0; k < kKeys; ++k) sums[r][k] += query * key[k];
    }
  }
  for (int r = 0; r < rows; ++r) {
    for (int k = 0; k < kKeys; ++k) {
      float lanes[L];
      store(lanes, sums[r][k]);
      for (int64_t half = L / 2; half > 0; half /= 2) {
        for (int64_t j = 0; j < half; ++j) lanes[j] += lanes[j + half];
      }
      to[r * W + k] = lanes[0];
    }
  }
}

// Compare all queries with all keys of a block.
inline void compare_block(float* products, const QueryBlock<float>& queries, const KeyChunk<float>& keys, int64_t block,
                          int64_t depth) {
  constexpr int rows = kRows / 2;
  for (int64_t k = 0; k < W; k += kKeys) {
    const float* key = keys.vectors + (block * W + k) * depth;
    const float* const four[kKeys] = {key, key + depth, key + 2 * depth, key + 3 * depth};
    for (int64_t q = 0; q < W; q += rows) compare<rows>(queries.units + q * depth, four, depth, products + q * W + k);
  }
  take_nearest(products, queries, keys, block);
}

// Compare query q with kKeys keys of a chunk.
inline void compare_few(const int64_t (&at)[kKeys], int64_t q, const QueryBlock<float>& queries,
                        const KeyChunk<float>& keys, int64_t depth) {
  const float* key[kKeys];
  for (int64_t k = 0; k < kKeys; ++k) key[k] = keys.vectors + at[k] * depth;
  float found[kKeys];
  compare<1>(queries.units + q * depth, key, depth, found);
  for (int64_t k = 0; k < kKeys; ++k) queries.take(q, found[k], keys.first + at[k]);
}

// A bit for each of W products that with its error can be at least as large as a threshold.
inline uint32_t at_least(const float* products, const float* errors, float reach, float threshold) {
  uint32_t bits = 0;
#if defined(__AVX512F__)
  for (int64_t j = 0; j < W; j += 16) {
    const __m512 most = load(products + j) + reach * load(errors + j);
    bits |= static_cast<uint32_t>(_mm512_cmp_ps_mask(most, _mm512_set1_ps(threshold), _CMP_GE_OQ)) << j;
  }
#else
  for (int64_t j = 0; j < W; j += 8) {
    const __m256 most = load(products + j) + reach * load(errors + j);
    bits |= static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(most, _mm256_set1_ps(threshold), _CMP_GE_OQ))) << j;
  }
#endif
  return bits;
}

// pairs of a block of queries with one of keys, from which on all of them are compared
constexpr int kMany = W * W / 8;

// Take over the nearest keys of a chunk, where they are nearer, by screened products[block][W][W]. How many blocks had
// so many candidates that all pairs were compared.
inline int64_t take_candidates(float* products, const QueryBlock<float>& queries, const KeyChunk<float>& keys,
                               int64_t depth) {
  float thresholds[W];
  for (int64_t q = 0; q < queries.count; ++q) {
    // how far a product is off by the query's error and by summation; a key's error counts `reach` times
    const float base = queries.errors[q] + static_cast<float>(depth) * 1.2e-7f, reach = 1 + queries.errors[q];
    V<float> lows = V<float>{} - 8;
    for (int64_t b = 0; b < keys.blocks(); ++b) {
      const float *row = products + (b * W + q) * W, *errors = keys.errors + b * W;
      for (int64_t j = 0; j < W; j += kLanes<float>) {
        const V<float> low = load(row + j) - reach * load(errors + j);
        lows = low > lows ? low : lows;
      }
    }
    float surely = lows[0];
    for (int64_t k = 1; k < kLanes<float>; ++k) surely = lows[k] > surely ? lows[k] : surely;
    const float known = queries.similarity[q] + base;
    thresholds[q] = (surely > known ? surely : known) - 2 * base;
    if (queries.states[q] != State::defined) thresholds[q] = std::numeric_limits<float>::infinity();
  }
  int64_t whole = 0;
  // of each block of keys and query the keys to compare, a bit each; a chunk has at most W blocks
  uint32_t wanted[W][W] = {};
  for (int64_t b = 0; b < keys.blocks(); ++b) {
    const uint32_t there = ~uint32_t(0) >> (W - keys.width(b));
    int pairs = 0;
    for (int64_t q = 0; q < queries.count; ++q) {
      const float *row = products + (b * W + q) * W, reach = 1 + queries.errors[q];
      wanted[q][b] = at_least(row, keys.errors + b * W, reach, thresholds[q]) & there;
      pairs += __builtin_popcount(wanted[q][b]);
    }
    if (pairs < kMany) continue;
    compare_block(products + b * W * W, queries, keys, b, depth);
    for (int64_t q = 0; q < queries.count; ++q) wanted[q][b] = 0;
    ++whole;
  }
  for (int64_t q = 0; q < queries.count; ++q) {
    int64_t at[kKeys], n = 0;
    for (int64_t b = 0; b < keys.blocks(); ++b) {
      for (uint32_t bits = wanted[q][b]; bits; bits &= bits - 1) {
        at[n++] = b * W + __builtin_ctz(bits);
        if (n == kKeys) compare_few(at, q, queries, keys, depth);
        n %= kKeys;
      }
    }
    if (n == 0) continue;
    // of fewer keys the last one again
    for (; n < kKeys; ++n) at[n] = at[n - 1];
    compare_few(at, q, queries, keys, depth);
  }
  return whole;
}

#else

template <class A>
constexpr bool kScreens = false;

#endif

}  // namespace
}  // namespace IMGOPS_ISA
}  // namespace imgops
