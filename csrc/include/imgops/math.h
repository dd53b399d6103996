// exp, tanh and log1p in a form that a compiler can vectorize on the CPU; on a GPU, the device's own functions.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "macros.h"

namespace imgops {

IMGOPS_HD double exp_(double x) { return ::exp(x); }
IMGOPS_HD double tanh_(double x) { return ::tanh(x); }
IMGOPS_HD double log1p_(double x) { return ::log1p(x); }
IMGOPS_HD double expm1_(double x) { return ::expm1(x); }

#if defined(__CUDA_ARCH__) || defined(__HIP_DEVICE_COMPILE__)

IMGOPS_HD float exp_(float x) { return ::expf(x); }
IMGOPS_HD float tanh_(float x) { return ::tanhf(x); }
IMGOPS_HD float log1p_(float x) { return ::log1pf(x); }
IMGOPS_HD float expm1_(float x) { return ::expm1f(x); }

#else

// 2^n * p(r) with x = n ln2 + r, |r| <= ln2 / 2 (Cephes expf); within 2 ulp, 0 below -104, NaN kept.
IMGOPS_HD float exp_(float x) {
  const float bounded = x < -104.f ? -104.f : (x > 89.f ? 89.f : x);
  const float n = std::floor(bounded * 1.44269504088896341f + 0.5f);
  const float r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.f;
  // 2^n is applied as two factors, so that neither overflows or underflows before the product does
  const int32_t half = static_cast<int32_t>(n) >> 1;
  const int32_t bits0 = (half + 127) << 23, bits1 = (static_cast<int32_t>(n) - half + 127) << 23;
  float f0, f1;
  std::memcpy(&f0, &bits0, 4);
  std::memcpy(&f1, &bits1, 4);
  return p * f0 * f1;
}

// an odd polynomial near 0, where 1 - 2 / (exp(2x) + 1) would cancel (Cephes tanhf)
IMGOPS_HD float tanh_(float x) {
  const float a = std::fabs(x), q = x * x;
  float p = -5.70498872745e-3f;
  p = p * q + 2.06390887954e-2f;
  p = p * q - 5.37397155531e-2f;
  p = p * q + 1.33314422036e-1f;
  p = p * q - 3.33332819422e-1f;
  const float near = p * q * x + x;
  const float far = std::copysign(1.f - 2.f / (exp_(2.f * (a < 20.f ? a : 20.f)) + 1.f), x);
  return a < 0.625f ? near : (x != x ? x : far);
}

// exp(x) - 1 for x <= 0: 2t / (1 - t) with t = tanh(x / 2), which does not cancel near 0
IMGOPS_HD float expm1_(float x) {
  const float t = tanh_(0.5f * (x < 0.f ? x : 0.f));
  const float value = 2.f * t / (1.f - t);
  return x != x ? x : value;
}

// 2 atanh(x / (2 + x)) by its series, for 0 <= x <= 1
IMGOPS_HD float log1p_(float x) {
  const float t = x / (2.f + x), q = t * t;
  float p = 1.f / 17.f;
  p = p * q + 1.f / 15.f;
  p = p * q + 1.f / 13.f;
  p = p * q + 1.f / 11.f;
  p = p * q + 1.f / 9.f;
  p = p * q + 1.f / 7.f;
  p = p * q + 1.f / 5.f;
  p = p * q + 1.f / 3.f;
  return 2.f * (t + t * q * p);
}

#endif

}  // namespace imgops
