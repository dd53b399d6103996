// Half-precision storage and its conversion by rows; free of frameworks, compiled once per instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __F16C__
#include <immintrin.h>
#endif

// every symbol of a kernel file lives in the namespace of its instruction set, so that the linker merges none
#ifndef IMGOPS_ISA
#define IMGOPS_ISA baseline
#endif

// Declares a kernel in the namespace of every instruction set that setup.py has flags for.
#define IMGOPS_KERNEL(...) \
  namespace baseline {     \
  __VA_ARGS__;             \
  }                        \
  namespace avx2 {         \
  __VA_ARGS__;             \
  }                        \
  namespace avx512 {       \
  __VA_ARGS__;             \
  }

namespace imgops {

enum class DType : int { f64, f32, f16, bf16 };

namespace IMGOPS_ISA {

struct f16_t {
  uint16_t bits;
};
struct bf16_t {
  uint16_t bits;
};

// The dtype that sums of T run in.
template <class T>
struct Accumulate {
  using type = float;
};
template <>
struct Accumulate<double> {
  using type = double;
};

inline float bits_to_float(uint32_t u) {
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
inline uint32_t float_to_bits(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  return u;
}

inline float to_float(bf16_t v) { return bits_to_float(uint32_t(v.bits) << 16); }

inline bf16_t to_bf16(float f) {
  const uint32_t u = float_to_bits(f);
  // round to nearest even; a NaN stays one
  const uint32_t rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  return {static_cast<uint16_t>(f != f ? 0x7fc0 : rounded)};
}

inline float to_float(f16_t v) {
#ifdef __F16C__
  return _cvtsh_ss(v.bits);
#else
  const uint32_t sign = uint32_t(v.bits & 0x8000) << 16, magnitude = v.bits & 0x7fff;
  // shift exponent and mantissa into place, then correct the bias by a product, which also handles subnormals
  const float scaled = bits_to_float(magnitude << 13) * bits_to_float(0x77800000u);
  const uint32_t bits = magnitude >= 0x7c00 ? (0x7f800000u | (magnitude & 0x3ff) << 13) : float_to_bits(scaled);
  return bits_to_float(sign | bits);
#endif
}

inline f16_t to_f16(float f) {
#ifdef __F16C__
  return {static_cast<uint16_t>(_cvtss_sh(f, _MM_FROUND_TO_NEAREST_INT))};
#else
  const uint32_t u = float_to_bits(f), sign = (u >> 16) & 0x8000, magnitude = u & 0x7fffffff;
  if (magnitude > 0x7f800000) return {static_cast<uint16_t>(sign | 0x7e00)};
  if (magnitude >= 0x47800000) return {static_cast<uint16_t>(sign | 0x7c00)};
  if (magnitude < 0x38800000) {
    // subnormal: adding 0.5 leaves the rounded mantissa in the low bits
    const uint32_t shifted = float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000;
    return {static_cast<uint16_t>(sign | shifted)};
  }
  const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1) - 0x38000000;
  return {static_cast<uint16_t>(sign | rounded >> 13)};
#endif
}

// n values at src as A: src itself where the types agree, else converted into buffer.
template <class T, class A>
inline const A* load_row(const T* src, A* buffer, int64_t n) {
  if constexpr (sizeof(T) == sizeof(A)) {
    return reinterpret_cast<const A*>(src);
  } else {
    int64_t i = 0;
#ifdef __F16C__
    if constexpr (__is_same(T, f16_t)) {
      for (; i + 8 <= n; i += 8) {
        _mm256_storeu_ps(buffer + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(src + i))));
      }
    }
#endif
#pragma omp simd
    for (int64_t j = i; j < n; ++j) buffer[j] = to_float(src[j]);
    return buffer;
  }
}

// Where the row dst is to be computed: dst itself where the types agree, else buffer.
template <class T, class A>
inline A* row_target(T* dst, A* buffer) {
  if constexpr (sizeof(T) == sizeof(A)) {
    return reinterpret_cast<A*>(dst);
  } else {
    return buffer;
  }
}

// Convert the row that was computed at row_target into dst, unless it is there.
template <class T, class A>
inline void store_row(T* dst, const A* buffer, int64_t n) {
  if constexpr (sizeof(T) != sizeof(A)) {
    int64_t i = 0;
    if constexpr (__is_same(T, f16_t)) {
#ifdef __F16C__
      for (; i + 8 <= n; i += 8) {
        const __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(buffer + i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + i), half);
      }
#endif
      for (; i < n; ++i) dst[i] = to_f16(buffer[i]);
    } else {
#pragma omp simd
      for (int64_t j = i; j < n; ++j) dst[j] = to_bf16(buffer[j]);
    }
  }
}

// Call f with a value of the storage type of a DType.
template <class F>
inline void with_dtype(DType dtype, const F& f) {
  switch (dtype) {
    case DType::f64: return f(double{});
    case DType::f32: return f(float{});
    case DType::f16: return f(f16_t{});
    case DType::bf16: return f(bf16_t{});
  }
}

}  // namespace IMGOPS_ISA
}  // namespace imgops
