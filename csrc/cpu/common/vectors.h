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

// lanes lane[0], lane[1], ... of a followed by b; by references, as vectors that are wider than the processor's have no
// calling convention
template <class A, int64_t n, int64_t... lane>
inline void shuffle(const typename Vector<A, n>::type& a, const typename Vector<A, n>::type& b,
                    typename Vector<A, n>::type& to) {
#ifdef __clang__
  to = __builtin_shufflevector(a, b, lane...);
#else
  using Index = std::conditional_t<sizeof(A) == 1, int8_t, std::conditional_t<sizeof(A) == 4, int32_t, int64_t>>;
  to = __builtin_shuffle(a, b, typename Vector<Index, n>::type{lane...});
#endif
}

// every second lane of a followed by b, from lane `first` on
template <class A, int64_t n, int64_t first, size_t... j>
inline void every_second(const typename Vector<A, n>::type& a, const typename Vector<A, n>::type& b,
                         typename Vector<A, n>::type& to, std::index_sequence<j...>) {
  shuffle<A, n, (first + 2 * j)...>(a, b, to);
}

// lanes of a and b in turn, from lane `first` of each on
template <class A, int64_t n, int64_t first, size_t... j>
inline void in_turn(const typename Vector<A, n>::type& a, const typename Vector<A, n>::type& b,
                    typename Vector<A, n>::type& to, std::index_sequence<j...>) {
  shuffle<A, n, (first + j / 2 + (j % 2) * n)...>(a, b, to);
}

// the lanes of a from the second on, and a value after them
template <class A, int64_t n, size_t... j>
inline void move_up(const typename Vector<A, n>::type& a, A next, typename Vector<A, n>::type& to,
                    std::index_sequence<j...>) {
  shuffle<A, n, (j + 1)...>(a, typename Vector<A, n>::type{next}, to);
}

// lanes of v from `begin` to `end`, and 0 in the others
template <class A, int64_t n, int64_t... lane>
inline typename Vector<A, n>::type select(const typename Vector<A, n>::type& v, int64_t begin, int64_t end,
                                          std::integer_sequence<int64_t, lane...>) {
  using I = std::conditional_t<sizeof(A) == 4, int32_t, int64_t>;
  using Lanes = typename Vector<I, n>::type;
  constexpr Lanes number = {lane...};
  const I from = static_cast<I>(begin > 0 ? begin : 0), to = static_cast<I>(end < n ? end : n);
  const Lanes inside = (number >= from) & (number < to);
  return inside ? v : typename Vector<A, n>::type{};
}

// Take apart n * parts values in memory order (parts: 2 or 4): column c gets values c, c + parts, c + 2 * parts, ...
template <class A, int64_t n, int64_t parts>
inline void take_apart(typename Vector<A, n>::type (&v)[parts]) {
  constexpr auto all = std::make_index_sequence<n>{};
  typename Vector<A, n>::type even0, even1, odd0, odd1;
  every_second<A, n, 0>(v[0], v[1], even0, all), every_second<A, n, 1>(v[0], v[1], odd0, all);
  if constexpr (parts == 2) {
    v[0] = even0, v[1] = odd0;
  } else {
    every_second<A, n, 0>(v[2], v[3], even1, all), every_second<A, n, 1>(v[2], v[3], odd1, all);
    every_second<A, n, 0>(even0, even1, v[0], all), every_second<A, n, 1>(even0, even1, v[2], all);
    every_second<A, n, 0>(odd0, odd1, v[1], all), every_second<A, n, 1>(odd0, odd1, v[3], all);
  }
}

// The inverse of take_apart.
template <class A, int64_t n, int64_t parts>
inline void put_together(typename Vector<A, n>::type (&v)[parts]) {
  constexpr auto all = std::make_index_sequence<n>{};
  typename Vector<A, n>::type even0, even1, odd0, odd1;
  if constexpr (parts == 2) {
    in_turn<A, n, 0>(v[0], v[1], even0, all), in_turn<A, n, n / 2>(v[0], v[1], even1, all);
    v[0] = even0, v[1] = even1;
  } else {
    in_turn<A, n, 0>(v[0], v[2], even0, all), in_turn<A, n, n / 2>(v[0], v[2], even1, all);
    in_turn<A, n, 0>(v[1], v[3], odd0, all), in_turn<A, n, n / 2>(v[1], v[3], odd1, all);
    in_turn<A, n, 0>(even0, odd0, v[0], all), in_turn<A, n, n / 2>(even0, odd0, v[1], all);
    in_turn<A, n, 0>(even1, odd1, v[2], all), in_turn<A, n, n / 2>(even1, odd1, v[3], all);
  }
}

// Swap the off-diagonal blocks of size * size in two rows of a matrix, `size` rows apart.
template <class A, int64_t n, int64_t size, size_t... j>
inline void swap_blocks(typename Vector<A, n>::type& a, typename Vector<A, n>::type& b, std::index_sequence<j...>) {
  typename Vector<A, n>::type first;
  shuffle<A, n, (j & size ? n + j - size : j)...>(a, b, first);
  shuffle<A, n, (j & size ? n + j : j + size)...>(a, b, b);
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
