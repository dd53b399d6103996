// upfirdn2d with any factors and filters: tiles in shared memory, or one thread per output where no tile fits.
#pragma once

#include "upfirdn2d.cuh"

namespace imgops {

constexpr int kTileThreads = 256;

// A tile: w x h outputs of c channels (1 if planar), the in_w x in_h inputs that they need, and the number of tiles.
struct Tiles {
  int w, h, c, in_w, in_h;
  int64_t count_x, count_y, count_c, count;
};

// Values of the accumulation dtype that the tile kernel keeps in shared memory.
inline int64_t tile_values(const Filter& f, const Tiles& t) {
  const int64_t taps = (f.vector ? 0 : int64_t(f.w) * f.h) + f.w + f.h;
  return taps + int64_t(t.in_h) * t.c * (int64_t(t.in_w) + t.w);
}

template <class T>
__global__ void __launch_bounds__(kTileThreads) any_tile(const Resample<T, T> p, const Tiles t, bool channels_last) {
  using A = Accumulate<T>;
  extern __shared__ __align__(16) unsigned char shared[];
  A* fx = reinterpret_cast<A*>(shared);
  A* fy = fx + p.f.w;
  A* taps = fy + p.f.h;
  A* tile = taps + (p.f.vector ? 0 : p.f.w * p.f.h);  // [in_h, in_w, c]
  A* across = tile + t.in_h * t.in_w * t.c;           // [in_h, w, c], filtered along x
  const bool separable = separate(p.f, taps, fx, fy);
  // distance between adjacent pixels, in channels-last and planar images
  const int64_t pixel_stride = channels_last ? p.channels : 1;

  for (int64_t block = blockIdx.x; block < t.count; block += gridDim.x) {
    const int64_t row = quotient(block, t.count_x), group = quotient(row, t.count_y), n = quotient(group, t.count_c);
    const int out_x = int(block - row * t.count_x) * t.w, out_y = int(row - group * t.count_y) * t.h;
    const int64_t channel = (group - n * t.count_c) * t.c;
    const int x0 = out_x * p.down_x - p.pad_x, y0 = out_y * p.down_y - p.pad_y;
    // the first samples of the tile
    const int in_x = (x0 + first_tap(x0, p.up_x)) / p.up_x, in_y = (y0 + first_tap(y0, p.up_y)) / p.up_y;
    const int64_t start = channels_last ? n * p.h * p.w * p.channels + channel : (n * p.channels + channel) * p.h * p.w;
    const T* source = p.x + start;

    for (int i = threadIdx.x; i < t.in_h * t.in_w * t.c; i += kTileThreads) {
      const int q = i / t.c, c = i - q * t.c, r = q / t.in_w, y = in_y + r, x = in_x + q - r * t.in_w;
      const bool inside = y >= 0 && y < p.h && x >= 0 && x < p.w && channel + c < p.channels;
      tile[i] = inside ? A(widen(source[(int64_t(y) * p.w + x) * pixel_stride + c])) : A(0);
    }
    __syncthreads();
    if (separable) {
      for (int i = threadIdx.x; i < t.in_h * t.w * t.c; i += kTileThreads) {
        const int q = i / t.c, c = i - q * t.c, r = q / t.w, position = x0 + (q - r * t.w) * p.down_x;
        const int first = first_tap(position, p.up_x);
        const A* from = tile + (r * t.in_w + (position + first) / p.up_x - in_x) * t.c + c;
        A sum = 0;
        for (int k = first; k < p.f.w; k += p.up_x, from += t.c) sum += fx[k] * *from;
        across[i] = sum;
      }
      __syncthreads();
    }
    for (int i = threadIdx.x; i < t.h * t.w * t.c; i += kTileThreads) {
      const int q = i / t.c, c = i - q * t.c, r = q / t.w, column = q - r * t.w;
      if (out_x + column >= p.out_w || out_y + r >= p.out_h || channel + c >= p.channels) continue;
      const int position_y = y0 + r * p.down_y, first_y = first_tap(position_y, p.up_y);
      const int sample_y = (position_y + first_y) / p.up_y - in_y;
      A sum = 0;
      if (separable) {
        const A* from = across + (sample_y * t.w + column) * t.c + c;
        for (int k = first_y; k < p.f.h; k += p.up_y, from += t.w * t.c) sum += fy[k] * *from;
      } else {
        const int position = x0 + column * p.down_x, first = first_tap(position, p.up_x);
        const int sample = (position + first) / p.up_x - in_x;
        for (int ky = first_y, y = sample_y; ky < p.f.h; ky += p.up_y, ++y) {
          const A* from = tile + (y * t.in_w + sample) * t.c + c;
          for (int k = first; k < p.f.w; k += p.up_x, from += t.c) sum += taps[ky * p.f.w + k] * *from;
        }
      }
      const int64_t pixel = int64_t(out_y + r) * p.out_w + out_x + column, pixels = int64_t(p.out_h) * p.out_w;
      const int64_t at =
          channels_last ? (n * pixels + pixel) * p.channels + channel + c : (n * p.channels + channel) * pixels + pixel;
      if (p.filtered) p.filtered[at] = narrow<T>(sum);
      p.y[at] = narrow<T>(finish(p.epilogue, sum, n, channel + c, p.channels, pixel));
    }
    // the next tile overwrites this one
    __syncthreads();
  }
}

// One thread per output, for filters too large for shared memory; the filter is 2-D, [h, w].
template <class In, class Out>
__global__ void __launch_bounds__(kTileThreads) any_output(const Resample<In, Out> p, bool channels_last) {
  using A = Accumulate<In>;
  const int64_t pixels = int64_t(p.out_h) * p.out_w, total = p.samples * p.channels * pixels;
  const int64_t threads = int64_t(gridDim.x) * kTileThreads;
  for (int64_t i = int64_t(blockIdx.x) * kTileThreads + threadIdx.x; i < total; i += threads) {
    // the order in memory is n, pixel, c (channels-last) or n, c, pixel
    const int64_t inner = channels_last ? p.channels : pixels, rest = quotient(i, inner), low = i - rest * inner;
    const int64_t outer = channels_last ? pixels : p.channels, n = quotient(rest, outer), middle = rest - n * outer;
    const int64_t pixel = channels_last ? middle : low, c = channels_last ? low : middle;
    const int out_y = int(quotient(pixel, p.out_w)), out_x = int(pixel - int64_t(out_y) * p.out_w);
    const int x0 = out_x * p.down_x - p.pad_x, y0 = out_y * p.down_y - p.pad_y;
    const int first_x = first_tap(x0, p.up_x), first_y = first_tap(y0, p.up_y);
    const int64_t plane = channels_last ? n * p.h * p.w * p.channels + c : (n * p.channels + c) * p.h * p.w;
    A sum = 0;
    for (int ky = first_y, y = (y0 + first_y) / p.up_y; ky < p.f.h; ky += p.up_y, ++y) {
      if (y < 0 || y >= p.h) continue;
      for (int k = first_x, x = (x0 + first_x) / p.up_x; k < p.f.w; k += p.up_x, ++x) {
        if (x < 0 || x >= p.w) continue;
        const A sample = widen(p.x[plane + (int64_t(y) * p.w + x) * (channels_last ? p.channels : 1)]);
        sum += filter_tap<A>(p.f, ky * p.f.w + k) * sample;
      }
    }
    if (p.filtered) p.filtered[i] = narrow<Out>(sum);
    p.y[i] = narrow<Out>(finish(p.epilogue, sum, n, c, p.channels, pixel));
  }
}

}  // namespace imgops
