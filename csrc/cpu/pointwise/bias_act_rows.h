// bias_act by rows, for bias_act itself and for other kernels' epilogues; compiled once per instruction set.
#pragma once

#include "bias_act.h"

namespace imgops {
namespace IMGOPS_ISA {

// Passed by value: the compiler vectorizes only if it knows that no row overlaps it.
template <class A>
struct Limits {
  A alpha, gain, lo, hi, stored;
  bool clamped;

  // stored: the clamp as a tensor of this dtype holds it, since that is what a clamped output is
  Limits(const BiasAct& p, DType dtype)
      : alpha(static_cast<A>(p.alpha)), gain(static_cast<A>(p.gain)), clamped(p.clamp >= 0) {
    hi = clamped ? static_cast<A>(p.clamp) : static_cast<A>(__builtin_inf());
    lo = -hi;
    stored = hi;
    if (dtype == DType::f16) stored = to_float(to_f16(static_cast<float>(hi)));
    if (dtype == DType::bf16) stored = to_float(to_bf16(static_cast<float>(hi)));
  }

  template <Act act>
  A finish(A z) const {
    A y = activate<act, A>(z, alpha) * gain;
    // a NaN fails both comparisons and passes through
    y = y < lo ? lo : y;
    return y > hi ? hi : y;
  }

  // d finish(z) / dz
  template <Act act, bool kClamped>
  A slope_at(A z) const {
    const A s = slope<act, A>(z, alpha) * gain;
    if constexpr (!kClamped) return s;
    const A y = activate<act, A>(z, alpha) * gain;
    return (y < A(0) ? -y : y) < hi ? s : A(0);
  }

  // the same from y = finish(z) as it was stored, where the slope follows from the sign of y
  template <Act act, bool kClamped>
  A slope_from(A y) const {
    const A s = slope<act, A>(y, alpha) * gain;
    if constexpr (!kClamped) return s;
    return (y < A(0) ? -y : y) < stored ? s : A(0);
  }
};

// One value per channel, or a constant where there is none.
template <class A>
inline A at(const void* p, int64_t i, A absent) {
  return p ? static_cast<const A*>(p)[i] : absent;
}

template <Act act, class A>
inline void finish_row(const A* z, A* y, int64_t n, const Limits<A> limits) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = limits.template finish<act>(z[i]);
}

// z += s * x
template <class A>
inline void add_scaled(const A* x, A* z, int64_t n, A s) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) z[i] += x[i] * s;
}

// z of a row of one channel's pixels
template <class A>
inline void pre_activation_planar(const A* x, A* z, int64_t n, A s, A b, const A* noise) {
  if (noise) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) z[i] = x[i] * s + noise[i] + b;
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) z[i] = x[i] * s + b;
  }
}

// z of a row of one pixel's channels
template <class A>
inline void pre_activation_channels_last(const A* x, A* z, int64_t n, const A* s, const A* b, A noise) {
  if (s && b) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) z[i] = x[i] * s[i] + noise + b[i];
  } else if (s) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) z[i] = x[i] * s[i] + noise;
  } else if (b) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) z[i] = x[i] + noise + b[i];
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) z[i] = x[i] + noise;
  }
}

template <class A>
inline void finish_row(Act act, const A* z, A* y, int64_t n, const Limits<A>& limits) {
  with_act(act, [&](auto constant) { finish_row<decltype(constant)::value>(z, y, n, limits); });
}

}  // namespace IMGOPS_ISA
}  // namespace imgops
