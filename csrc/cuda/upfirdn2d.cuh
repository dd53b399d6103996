// Shared by the kernels of upfirdn2d: the problem, its filter and the epilogue.
//
// Output o reads the up-sampled, padded image at o * down - pad + k for tap k. Only every up-th of these positions is a
// sample; the others are inserted zeros. So tap (pad - o * down) mod up is the first that counts, followed by every
// up-th tap (polyphase): no inserted zero is ever multiplied.
#pragma once

#include <cmath>

#include "common.cuh"

namespace imgops {

// [h, w] taps, or w taps per axis (vector), or a single tap of 1 (data null); all times gain, in the filter's own
// dtype.
struct Filter {
  const void* data;
  int w, h;
  bool vector, float64, reversed;
  double gain;
};

// The filter as kernels read it; `held` keeps its memory alive.
inline Filter filter_of(const OptionalTensor& f, const Tensor& x, bool flip_filter, double gain, OptionalTensor& held) {
  Filter filter{nullptr, 1, 1, false, false, !flip_filter, gain};
  if (!f.has_value()) return filter;
  STD_TORCH_CHECK((f->dim() == 1 || f->dim() == 2) && f->numel() > 0, "imgops: a filter must have 1 or 2 dimensions");
  STD_TORCH_CHECK(f->scalar_type() == ScalarType::Float || f->scalar_type() == ScalarType::Double,
                  "imgops: a filter must be float32 or float64");
  STD_TORCH_CHECK(f->get_device_index() == x.get_device_index(), "imgops: a filter must be on x's device");
  held = torch::stable::contiguous(*f);
  filter.data = held->data_ptr();
  filter.w = int(f->size(f->dim() - 1));
  filter.h = int(f->size(0));
  filter.vector = f->dim() == 1;
  filter.float64 = f->scalar_type() == ScalarType::Double;
  if (filter.vector) filter.gain = std::sqrt(gain);
  return filter;
}

template <class A>
struct Epilogue {
  // b [C], scale [N, C], noise [N or 1, H', W']; null = absent
  const A *b, *scale, *noise;
  int64_t noise_stride;
  bool fused;
  Act act;
  A alpha, gain, clamp;
};

template <class In, class Out>
struct Resample {
  using A = Accumulate<In>;
  const In* x;
  Out* y;
  // the image before the epilogue; null = not wanted
  Out* filtered;
  int64_t samples, channels;
  int h, w, out_h, out_w, up_x, up_y, down_x, down_y, pad_x, pad_y;
  Filter f;
  Epilogue<A> epilogue;
};

// Tap i of the filter as a correlation; the taps of a 2-D filter are counted row by row.
template <class A>
__device__ __forceinline__ A filter_tap(const Filter& f, int i) {
  if (!f.data) return A(float(f.gain));
  const int64_t last = (f.vector ? int64_t(f.w) : int64_t(f.w) * f.h) - 1, at = f.reversed ? last - i : i;
  return f.float64 ? A(static_cast<const double*>(f.data)[at] * f.gain)
                   : A(static_cast<const float*>(f.data)[at] * float(f.gain));
}

// Fill fx [w] and fy [h], and taps [h * w] of a 2-D filter; returns whether taps = fy fx^T. All threads of a block call
// it.
template <class A>
__device__ bool separate(const Filter& f, A* taps, A* fx, A* fy) {
  __shared__ int separable;
  const int lane = threadIdx.x, count = f.w * f.h;
  if (f.vector) {
    for (int k = threadIdx.x; k < f.w; k += blockDim.x) fx[k] = fy[k] = filter_tap<A>(f, k);
    if (threadIdx.x == 0) separable = 1;
  } else if (lane < 32) {
    // the largest tap is the pivot; a NaN never is
    A best = -1;
    int pivot_at = 0;
    for (int i = lane; i < count; i += 32) {
      taps[i] = filter_tap<A>(f, i);
      const A magnitude = fabs(taps[i]);
      if (magnitude > best) {
        best = magnitude;
        pivot_at = i;
      }
    }
    for (int d = 16; d > 0; d /= 2) {
      const A other = __shfl_xor_sync(0xffffffffu, best, d);
      const int other_at = __shfl_xor_sync(0xffffffffu, pivot_at, d);
      if (other > best || (other == best && other_at < pivot_at)) {
        best = other;
        pivot_at = other_at;
      }
    }
    __syncwarp();
    const A pivot = taps[pivot_at], tolerance = A(sizeof(A) == 8 ? 1e-15 : 5e-7) * best;
    const int row = pivot_at / f.w, column = pivot_at - row * f.w;
    for (int k = lane; k < f.w; k += 32) fx[k] = pivot == A(0) ? A(0) : taps[row * f.w + k] / pivot;
    for (int k = lane; k < f.h; k += 32) fy[k] = taps[k * f.w + column];
    __syncwarp();
    bool product = true;
    for (int i = lane; i < count; i += 32) product &= fabs(taps[i] - fy[i / f.w] * fx[i % f.w]) <= tolerance;
    product = __all_sync(0xffffffffu, product);
    if (lane == 0) separable = product;
  }
  __syncthreads();
  return separable != 0;
}

// The first tap that meets a sample, for an output that starts at `position` of the up-sampled image.
__device__ __forceinline__ int first_tap(int position, int up) {
  const int behind = position % up;
  return behind == 0 ? 0 : (behind > 0 ? up - behind : -behind);
}

template <class A>
__device__ __forceinline__ A finish(const Epilogue<A>& e, A v, int64_t n, int64_t c, int64_t channels, int64_t pixel) {
  if (!e.fused) return v;
  if (e.scale) v *= e.scale[n * channels + c];
  if (e.noise) v += e.noise[n * e.noise_stride + pixel];
  if (e.b) v += e.b[c];
  with_act(e.act, [&](auto act) { v = clamped(e.gain * activate<decltype(act)::value>(v, e.alpha), e.clamp); });
  return v;
}

}  // namespace imgops
