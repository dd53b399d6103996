// Sums of rows, the vertical half of a Resampling; compiled once per instruction set.
#pragma once

#include "cpu/common/storage.h"
#include "resample.h"

namespace imgops {
namespace IMGOPS_ISA {

constexpr int kUnroll = 8;

// Call f<J>() with J = n as a constant, for 1 <= n <= kUnroll.
template <class F>
inline void with_count(int64_t n, const F& f) {
  switch (n) {
    case 1: return f.template operator()<1>();
    case 2: return f.template operator()<2>();
    case 3: return f.template operator()<3>();
    case 4: return f.template operator()<4>();
    case 5: return f.template operator()<5>();
    case 6: return f.template operator()<6>();
    case 7: return f.template operator()<7>();
    case 8: return f.template operator()<8>();
  }
}

// dst[i] (+)= sum_j taps[j] * src[j][i]
template <class A>
struct SumRows {
  A* dst;
  const A* const* src;
  const A* taps;
  int64_t n;
  bool add;

  template <int J>
  void operator()() const {
    A w[J];
    const A* row[J];
    for (int j = 0; j < J; ++j) w[j] = taps[j], row[j] = src[j];
    A* d = dst;
    if (add) {
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) {
        A sum = d[i];
        for (int j = 0; j < J; ++j) sum += w[j] * row[j][i];
        d[i] = sum;
      }
    } else {
#pragma omp simd
      for (int64_t i = 0; i < n; ++i) {
        A sum = w[0] * row[0][i];
        for (int j = 1; j < J; ++j) sum += w[j] * row[j][i];
        d[i] = sum;
      }
    }
  }
};

// dst (+)= sum_j taps[j] * row_at(j), rows of n values, for count >= 1 of them; row_at is called in order
template <class A, class RowAt>
void sum_rows(A* dst, int64_t count, const A* taps, int64_t n, bool add, const RowAt& row_at) {
  for (int64_t j = 0; j < count; j += kUnroll) {
    const int64_t some = count - j < kUnroll ? count - j : kUnroll;
    const A* row[kUnroll];
    for (int64_t i = 0; i < some; ++i) row[i] = row_at(j + i);
    with_count(some, SumRows<A>{dst, row, taps + j, n, add || j > 0});
  }
}

// o = q * n + r for the periods that matter, without a division
inline void split(int64_t o, int64_t n, int64_t& q, int64_t& r) {
  if (n == 1) {
    q = o, r = 0;
  } else if (n == 2) {
    q = o >> 1, r = o & 1;
  } else {
    q = o / n, r = o % n;
  }
}

}  // namespace IMGOPS_ISA
}  // namespace imgops
