// Vectors of the instruction set at hand, and the transposition of a square of them; compiled once an instruction set.
#pragma once

#include <type_traits>
#include <utility>

#include "storage.h"

namespace imgops {
namespace IMGOPS_ISA {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif

// a vector of n values of A, loaded and stored where it is aligned
template <class A, int64_t n>
struct Vector {
  typedef A type __attribute__((vector_size(n * sizeof(A)), may_alias));
};
template <class A>
constexpr int64_t kLanes = kBytes / sizeof(A);

// lanes lane[0], lane[1], ... of a, and after them of b
template <class A, int64_t n, int64_t... lane>
inline typename Vector<A, n>::type shuffle(typename Vector<A, n>::type a, typename Vector<A, n>::type b) {
#ifdef __clang__
  return __builtin_shufflevector(a, b, lane...);
#else
  using Index = std::conditional_t<sizeof(A) == 4, int32_t, int64_t>;
  return __builtin_shuffle(a, b, typename Vector<Index, n>::type{lane...});
#endif
}

// Of two rows, `size` apart, of a matrix in blocks of size * size: swap the blocks off the diagonal.
template <class A, int64_t n, int64_t size, size_t... j>
inline void swap_blocks(typename Vector<A, n>::type& a, typename Vector<A, n>::type& b, std::index_sequence<j...>) {
  const auto first = shuffle<A, n, (j & size ? n + j - size : j)...>(a, b);
  b = shuffle<A, n, (j & size ? n + j : j + size)...>(a, b);
  a = first;
}

// Transpose an n * n matrix of A, a row a vector, by swapping blocks that double.
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
