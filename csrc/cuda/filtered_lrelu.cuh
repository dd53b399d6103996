// Shared by the kernels of filtered_lrelu; and the kernels of its steps, which support any factors and filters.
//
// The sign mask: two bits per pixel of the up-sampled image, four rows to a byte. Bit 0 is set where the pixel
// was not positive, bit 1 where it was clamped.
#pragma once

#include "upfirdn2d.cuh"

namespace imgops {

constexpr int kPacked = 4;

// Strides of an image along each dimension, in values.
struct Strides {
  int64_t n, c, h, w;
};

struct Activation {
  // true: apply the activation, and write the sign mask where wanted; false: multiply by the slopes of a given one
  bool activates;
  double gain, slope, clamp;
};

// The activation as the kernels apply it: z times one of two slopes, then clamped.
template <class A>
struct Slopes {
  A positive, negative, limit;
  bool clamps;

  __device__ explicit Slopes(const Activation& act)
      : positive(A(act.gain)), negative(A(act.gain) * A(act.slope)), limit(act.clamp < 0 ? A(INFINITY) : A(act.clamp)),
        clamps(act.clamp >= 0) {}

  __device__ __forceinline__ A of(bool above) const { return above ? positive : negative; }
};

// Activate kCount values of a column; returns their bits if kMask, else an unspecified value.
template <bool kMask, int kCount, class A>
__device__ __forceinline__ unsigned activate(A (&z)[kCount], const Slopes<A>& s) {
  // separate variables, so that each bit is a constant
  unsigned below = 0, beyond = 0;
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    const bool above = z[j] > A(0);
    const A a = z[j] * s.of(above);
    if constexpr (kMask) {
      if (!above) below |= 1u << 2 * j;
      // NaN has no slope either, so it counts as clamped
      if (!(fabs(a) < s.limit)) beyond |= 2u << 2 * j;
    }
    z[j] = within(a, s.limit);
  }
  return s.clamps ? below | beyond : below;
}

// Multiply kCount values by the slopes that their bits name.
template <int kCount, class A>
__device__ __forceinline__ void times_slopes(A (&z)[kCount], const Slopes<A>& s, unsigned sign_mask) {
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    z[j] *= s.of((sign_mask & 1u << 2 * j) == 0);
    if (sign_mask & 2u << 2 * j) z[j] = A(0);
  }
}

constexpr int kPointThreads = 256;

// y = x + b in the dtype of y, value by value in memory order; b null: none.
template <class From, class To, class A>
__global__ void __launch_bounds__(kPointThreads)
    converted(const From* x, To* y, const A* b, int64_t count, int64_t inner, int64_t channels) {
  const int64_t threads = int64_t(gridDim.x) * kPointThreads;
  for (int64_t i = int64_t(blockIdx.x) * kPointThreads + threadIdx.x; i < count; i += threads) {
    A v = widen(x[i]);
    if (b) v += b[quotient(i, inner) % channels];
    y[i] = narrow<To>(v);
  }
}

// Activate z [N, C, H, W] in place, or multiply it by the slopes; each thread takes the pixels of one byte of the mask.
template <class A>
__global__ void __launch_bounds__(kPointThreads)
    activated(A* z, uint8_t* sign_mask, int64_t count, int64_t channels, int64_t h, int64_t w, Strides z_at,
              Strides mask_at, bool channels_last, Activation act) {
  const Slopes<A> slopes(act);
  const int64_t rows = (h + kPacked - 1) / kPacked, threads = int64_t(gridDim.x) * kPointThreads;
  for (int64_t i = int64_t(blockIdx.x) * kPointThreads + threadIdx.x; i < count; i += threads) {
    // the order in memory is n, row, column, c (channels-last) or n, c, row, column
    const int64_t lines = channels_last ? quotient(i, channels) : i, column = lines % w, pixels = quotient(lines, w);
    const int64_t row = pixels % rows, rest = quotient(pixels, rows);
    const int64_t n = channels_last ? rest : quotient(rest, channels), c = (channels_last ? i : rest) % channels;
    A* at = z + n * z_at.n + c * z_at.c + row * kPacked * z_at.h + column * z_at.w;
    uint8_t* bits =
        sign_mask ? sign_mask + n * mask_at.n + c * mask_at.c + row * mask_at.h + column * mask_at.w : nullptr;
    A part[kPacked];
#pragma unroll
    for (int j = 0; j < kPacked; ++j) part[j] = row * kPacked + j < h ? at[j * z_at.h] : A(1);
    if (act.activates) {
      const unsigned word = activate<true>(part, slopes), left = unsigned(h - row * kPacked);
      if (bits) *bits = uint8_t(left < kPacked ? word & ~(~0u << 2 * left) : word);
    } else {
      times_slopes(part, slopes, *bits);
    }
#pragma unroll
    for (int j = 0; j < kPacked; ++j) {
      if (row * kPacked + j < h) at[j * z_at.h] = part[j];
    }
  }
}

}  // namespace imgops
