// Factors of a 2-D filter of rank one, shared by the CPU and CUDA kernels.
#pragma once

#include "macros.h"

namespace imgops {

// relative to the largest tap: differences too small to matter in float64, and in float32 arithmetic
constexpr double kRankOneTolerance = 1e-14, kRankOneToleranceFloat = 2e-7;

// If f [h, w] = column * row to within the tolerance, write the factors and return true.
template <class A>
IMGOPS_HD bool rank_one(const A* f, long long h, long long w, A tolerance, A* column, A* row) {
  long long pivot = 0;
  for (long long i = 1; i < h * w; ++i) {
    const A a = f[i] < 0 ? -f[i] : f[i], b = f[pivot] < 0 ? -f[pivot] : f[pivot];
    if (a > b) pivot = i;
  }
  const A top = f[pivot], limit = tolerance * (top < 0 ? -top : top);
  for (long long i = 0; i < h; ++i) column[i] = f[i * w + pivot % w];
  for (long long j = 0; j < w; ++j) row[j] = top == 0 ? A(0) : f[pivot / w * w + j] / top;
  for (long long i = 0; i < h; ++i) {
    for (long long j = 0; j < w; ++j) {
      const A error = f[i * w + j] - column[i] * row[j];
      // not <=, so that a NaN in the filter is never factored away
      if (!(error <= limit && -error <= limit)) return false;
    }
  }
  return true;
}

}  // namespace imgops
