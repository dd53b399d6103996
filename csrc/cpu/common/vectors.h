// Vectors of the instruction set, the product of panels that the kernels share, and transposition; compiled once per
// instruction set.
#pragma once

#include <type_traits>
#include <utility>

#include "storage.h"

namespace imgops {
namespace IMGOPS_ISA {

#if defined(__AVX512F__)
constexpr int kBytes = 64, kRows = 8;
#elif defined(__AVX__)
constexpr int kBytes = 32, kRows = 4;
#else
constexpr int kBytes = 16, kRows = 4;
#endif

// a vector of n values of A, loaded and stored where it is aligned
template <class A, int64_t n>
struct Vector {
  typedef A type __attribute__((vector_size(n * sizeof(A)), may_alias));
};
template <class A>
constexpr int64_t kLanes = kBytes / sizeof(A);

// sums[r * row + t] (+)= sum_i left[i * left_row + r] * right[i * right_row + t] for i < n, kRows rows r and the t of
// `vectors` vectors, all sums in registers; `next`, if any, is the part of the left that comes next, and is prefetched.
// Earlier sums are added last: sums of sums lose fewer digits than one long sum.
template <int vectors, int64_t left_row, int64_t right_row, int64_t row, class A>
inline void multiply(const A* left, const A* right, A* sums, int64_t n, bool add, const A* next) {
  constexpr int64_t lanes = kLanes<A>;
  using V = typename Vector<A, lanes>::type;
  V acc[kRows][vectors] = {};
  for (int64_t i = 0; i < n; ++i) {
    if (next) __builtin_prefetch(next + i * left_row, 0, 2);
    V x[vectors];
#pragma GCC unroll 3
    for (int v = 0; v < vectors; ++v) x[v] = *reinterpret_cast<const V*>(right + i * right_row + v * lanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const A w = left[i * left_row + r];
#pragma GCC unroll 3
      for (int v = 0; v < vectors; ++v) acc[r][v] += x[v] * w;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 3
    for (int v = 0; v < vectors; ++v) {
      V& to = *reinterpret_cast<V*>(sums + r * row + v * lanes);
      to = add ? to + acc[r][v] : acc[r][v];
    }
  }
}

// lanes lane[0], lane[1], ... of a followed by b
template <class A, int64_t n, int64_t... lane>
inline typename Vector<A, n>::type shuffle(typename Vector<A, n>::type a, typename Vector<A, n>::type b) {
#ifdef __clang__
  return __builtin_shufflevector(a, b, lane...);
#else
  using Index = std::conditional_t<sizeof(A) == 1, int8_t, std::conditional_t<sizeof(A) == 4, int32_t, int64_t>>;
  return __builtin_shuffle(a, b, typename Vector<Index, n>::type{lane...});
#endif
}

// Swap the off-diagonal blocks of size * size in two rows of a matrix, `size` rows apart.
template <class A, int64_t n, int64_t size, size_t... j>
inline void swap_blocks(typename Vector<A, n>::type& a, typename Vector<A, n>::type& b, std::index_sequence<j...>) {
  const auto first = shuffle<A, n, (j & size ? n + j - size : j)...>(a, b);
  b = shuffle<A, n, (j & size ? n + j : j + size)...>(a, b);
  a = first;
}

// Transpose an n * n matrix whose rows are vectors A, by swapping blocks of twice the size each time.
template <class A, int64_t n, int64_t size = 1>
inline void transpose(typename Vector<A, n>::type (&m)[n]) {
  if constexpr (size < n) {
#pragma GCC unroll 16
    for (int64_t i = 0; i < n; ++i) {
      if (!(i & size)) swap_blocks<A, n, size>(m[i], m[i + size], std::make_index_sequence<n>{});
    }
    transpose<A, n, 2 * size>(m);
  }
}

}  // namespace IMGOPS_ISA
}  // namespace imgops
