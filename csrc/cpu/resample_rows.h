// Rows of a Resampling: sums of rows and rows filtered along x; compiled once an instruction set.
#pragma once

#include "resample.h"
#include "storage.h"

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

// dst[q * P] (+)= sum_j taps[j] * src[j + q * S]; P and S 0: given at run time
template <class A, int P, int S>
struct FilterRow {
  A* dst;
  const A* src;
  const A* taps;
  int64_t n, period, step;
  bool add;

  template <int J>
  void operator()() const {
    const int64_t p = P ? P : period, s = S ? S : step;
    A w[J];
    for (int j = 0; j < J; ++j) w[j] = taps[j];
    A* d = dst;
    const A* x = src;
    if (add) {
#pragma omp simd
      for (int64_t q = 0; q < n; ++q) {
        A sum = d[q * p];
        for (int j = 0; j < J; ++j) sum += w[j] * x[q * s + j];
        d[q * p] = sum;
      }
    } else {
#pragma omp simd
      for (int64_t q = 0; q < n; ++q) {
        A sum = w[0] * x[q * s];
        for (int j = 1; j < J; ++j) sum += w[j] * x[q * s + j];
        d[q * p] = sum;
      }
    }
  }
};

// Both phases of an up-sampling by two with J taps each, so that the row is written in order:
// dst[2q] = sum_j taps0[j] * src0[q + j], dst[2q + 1] = sum_j taps1[j] * src1[q + j]
template <class A>
struct FilterRowTwoPhases {
  A* dst;
  const A *src0, *src1, *taps0, *taps1;
  int64_t n;

  template <int J>
  void operator()() const {
    A w0[J], w1[J];
    for (int j = 0; j < J; ++j) w0[j] = taps0[j], w1[j] = taps1[j];
    A* d = dst;
    const A *x0 = src0, *x1 = src1;
#pragma omp simd
    for (int64_t q = 0; q < n; ++q) {
      A even = w0[0] * x0[q], odd = w1[0] * x1[q];
      for (int j = 1; j < J; ++j) even += w0[j] * x0[q + j], odd += w1[j] * x1[q + j];
      d[2 * q] = even;
      d[2 * q + 1] = odd;
    }
  }
};

template <class A>
void filter_phase(A* dst, const A* src, const A* taps, int64_t count, int64_t n, int64_t period, int64_t step, bool add) {
  for (int64_t j = 0; j < count; j += kUnroll) {
    const int64_t some = count - j < kUnroll ? count - j : kUnroll;
    const bool sum = add || j > 0;
    if (period == 1 && step == 1) {
      with_count(some, FilterRow<A, 1, 1>{dst, src + j, taps + j, n, 1, 1, sum});
    } else if (period == 1 && step == 2) {
      with_count(some, FilterRow<A, 1, 2>{dst, src + j, taps + j, n, 1, 2, sum});
    } else if (period == 2 && step == 1) {
      with_count(some, FilterRow<A, 2, 1>{dst, src + j, taps + j, n, 2, 1, sum});
    } else {
      with_count(some, FilterRow<A, 0, 0>{dst, src + j, taps + j, n, period, step, sum});
    }
  }
  if (count == 0 && !add) {
    for (int64_t q = 0; q < n; ++q) dst[q * period] = 0;
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

// One row of out.out pixels from the padded row v (v[i] is input i, also for i < 0), added to dst if add.
template <class A>
void filter_row_planar(const Axis& axis, const A* taps, const A* v, A* dst, bool add) {
  const int64_t pairs = axis.out / 2;
  if (axis.period == 2 && axis.step == 1 && !add && axis.count[0] == axis.count[1] && axis.count[0] >= 1 &&
      axis.count[0] <= kUnroll) {
    with_count(axis.count[0], FilterRowTwoPhases<A>{dst, v + axis.first[0], v + axis.first[1], taps + axis.offset[0],
                                                    taps + axis.offset[1], pairs});
    if (axis.out % 2) {
      filter_phase(dst + 2 * pairs, v + axis.first[0] + pairs, taps + axis.offset[0], axis.count[0], 1, 2, 1, false);
    }
    return;
  }
  for (int64_t r = 0; r < axis.period && r < axis.out; ++r) {
    filter_phase(dst + r, v + axis.first[r], taps + axis.offset[r], axis.count[r], axis.outputs[r], axis.period, axis.step,
                 add);
  }
}

// The same with the channels innermost: every pixel is a vector of them.
template <class A>
void filter_row_interleaved(const Axis& axis, int64_t channels, const A* taps, const A* v, A* dst, bool add) {
  for (int64_t o = 0; o < axis.out; ++o) {
    int64_t q, r;
    split(o, axis.period, q, r);
    const int64_t first = axis.first[r] + q * axis.step, count = axis.count[r];
    A* d = dst + o * channels;
    sum_rows(d, count, taps + axis.offset[r], channels, add, [&](int64_t j) { return v + (first + j) * channels; });
    if (count == 0 && !add) {
      for (int64_t c = 0; c < channels; ++c) d[c] = 0;
    }
  }
}

template <class A>
void filter_row(const Axis& axis, bool interleaved, int64_t channels, const A* taps, const A* v, A* dst, bool add) {
  if (interleaved) {
    filter_row_interleaved(axis, channels, taps, v, dst, add);
  } else {
    filter_row_planar(axis, taps, v, dst, add);
  }
}

}  // namespace IMGOPS_ISA
}  // namespace imgops
