// filtered_lrelu for filters of six taps per phase (StyleGAN3's) in one pass: a block computes tiles of the output and
// keeps intermediate images in shared memory. Every loop over taps is unrolled, with its window of the image in
// registers.
//
// The up-sampled image at Y is the sum of x[i] f[k], k = i * up + pad - Y, over the six i that have such a tap. Along
// x, the positions of a tile start at a multiple of `up` from x[0]. Along y, they start at the tile's
// first output, where a byte of the sign mask begins if it is written; the phase there is a compile-time constant.
#pragma once

#include "filtered_lrelu.cuh"

namespace imgops {

// taps per phase; threads per block; positions of the up-sampled image that a thread computes at once, whose signs fill
// a word; the side of the largest 2-D filter
constexpr int kPhaseTaps = 6, kPassThreads = 256, kRun = 16, kSquare = 2 * kPhaseTaps;

struct FilteredLrelu {
  const void* x;
  void* y;
  // null = not wanted
  uint8_t* sign_mask;
  // [C]; null = absent
  const float* b;
  ScalarType dtype;
  Strides x_at, y_at, mask_at;
  int64_t samples, channels;
  int h, w, high_h, high_w, out_h, out_w, pad_x, pad_y, pad_down_x, pad_down_y;
  Filter fu, fd;
  Activation act;
  // neighboring blocks take the same place of neighboring planes, which share cache lines
  bool planes_first;
  int count_x, count_y;
  int64_t count;
};

constexpr int ceil_of(int a, int b) { return (a + b - 1) / b; }

// The sides of a tile and its blocks of shared memory, in values.
template <int kUp, int kDown, bool kUp2d, bool kDown2d>
struct Pass {
  static constexpr int kOut = kDown == 4 ? 14 : 32;
  // kNeeded: positions that a tile's outputs read. kColumns: with up to kDown - 1 after them, which no output reads but
  // the sign mask has, and along x up to kUp - 1 before them, as a tile begins on an input.
  static constexpr int kNeeded = (kOut - 1 + kPhaseTaps) * kDown;
  static constexpr int kColumns = kNeeded + kDown - 1 + kUp - 1;
  static constexpr int kRuns = ceil_of(kColumns, kRun), kRows = kRuns * kRun;
  static constexpr int kIn = ceil_of(kRows - 1 + kUp - 1, kUp) + kPhaseTaps;
  // odd, so that vertically adjacent threads access different banks
  static constexpr int kInPitch = kIn | 1, kAlongPitch = kRows | 1, kOutPitch = kOut | 1;
  // a 2-D filter reads every second column: even and odd columns are stored apart, in different banks
  static constexpr int kHalf = kDown2d ? 48 : 0, kHighPitch = kDown2d ? 2 * kHalf : kRows | 1;
  static constexpr int max(int a, int b) { return a > b ? a : b; }
  // first buffer: the input if needed beside the up-sampled image, then the image up-sampled along x, then filtered
  // along x
  static constexpr int kFirst = max(max(kUp2d ? kIn * kInPitch : 0, kIn* kAlongPitch), kNeeded* kOutPitch);
  // second buffer: the input, then the up-sampled image
  static constexpr int kSecond = kRows * kHighPitch;
  static constexpr int kTapsUp = kUp * kPhaseTaps, kTapsDown = kDown * kPhaseTaps;
  static constexpr int kFilters = 2 * kTapsUp + 2 * kTapsDown + kSquare * kSquare;
  static constexpr int kShared = kFilters + (kFirst + 3) / 4 * 4 + kSecond;
  // outputs per thread along x, and along y
  static constexpr int kRunX = kOut % 8 == 0 ? 8 : 7, kRunY = kOut % 4 == 0 ? 4 : 2;
  static_assert(kRows >= kNeeded + kDown - 1 && kSecond >= kIn * kInPitch && kOut * kDown % kPacked == 0);
  static_assert(kOut % kRunX == 0 && kOut % kRunY == 0 && kShared * sizeof(float) <= 48 * 1024 - 64);
  static_assert(!kDown2d || (kDown == 2 && kHalf * 2 >= kColumns));
};

// Call f with a value of the storage type.
template <class F>
__device__ __forceinline__ void with_storage(ScalarType dtype, const F& f) {
  if (dtype == ScalarType::Half) return f(__half{});
  if (dtype == ScalarType::BFloat16) return f(__nv_bfloat16{});
  f(float{});
}

// Call f with the phase as a compile-time constant.
template <int kUp, class F>
__device__ __forceinline__ void with_phase(int phase, const F& f) {
  if constexpr (kUp == 4) {
    if (phase == 2) return f(std::integral_constant<int, 2>{});
    if (phase == 3) return f(std::integral_constant<int, 3>{});
  }
  if (phase == 1) return f(std::integral_constant<int, 1>{});
  f(std::integral_constant<int, 0>{});
}

// Load taps from an address that is a multiple of 16 bytes.
template <int kTaps>
__device__ __forceinline__ void load_taps(const float* from, float (&taps)[kTaps]) {
#pragma unroll
  for (int k = 0; k < kTaps; k += 4) {
    const Vec<float, 4> part = *reinterpret_cast<const Vec<float, 4>*>(from + k);
#pragma unroll
    for (int j = 0; j < 4; ++j) taps[k + j] = part.v[j];
  }
}

// z += positions kPhase, kPhase + 1, ... of an up-sampled line; position 0 lies on the first input.
template <int kUp, int kPhase>
__device__ __forceinline__ void up_sample(const float* from, int step, const float* taps, float (&z)[kRun]) {
  constexpr int first = ceil_of(kPhase, kUp), count = ceil_of(kPhase + kRun - 1, kUp) + kPhaseTaps - first;
  float in[count], f[kUp * kPhaseTaps];
  load_taps(taps, f);
#pragma unroll
  for (int i = 0; i < count; ++i) in[i] = from[(first + i) * step];
#pragma unroll
  for (int j = 0; j < kRun; ++j) {
    const int start = ceil_of(kPhase + j, kUp), tap = start * kUp - (kPhase + j);
#pragma unroll
    for (int m = 0; m < kPhaseTaps; ++m) z[j] += in[start - first + m] * f[tap + m * kUp];
  }
}

// y = every kDown-th position of a filtered line.
template <int kDown, int kCount>
__device__ __forceinline__ void down_sample(const float* from, int step, const float* taps, float (&y)[kCount]) {
  float f[kDown * kPhaseTaps];
  load_taps(taps, f);
#pragma unroll
  for (int i = 0; i < (kCount - 1 + kPhaseTaps) * kDown; ++i) {
    const float v = from[i * step];
#pragma unroll
    for (int r = 0; r < kCount; ++r) {
      const int k = i - r * kDown;
      if (k >= 0 && k < kDown * kPhaseTaps) y[r] += v * f[k];
    }
  }
}

// The bits of kRun rows from `row` of the up-sampled image; rows outside the image count as clamped.
__device__ __forceinline__ unsigned read_mask(const FilteredLrelu& p, const uint8_t* plane, int row, int col) {
  constexpr unsigned outside = 0xaaaaaaaau;
  if (col < 0 || col >= p.high_w || row >= p.high_h) return outside;
  const int byte = row >> 2, bytes = (p.high_h + kPacked - 1) / kPacked;
  unsigned part[kRun / kPacked + 1];
#pragma unroll
  for (int q = 0; q <= kRun / kPacked; ++q) {
    const bool inside = byte + q >= 0 && byte + q < bytes;
    part[q] = inside ? plane[(byte + q) * p.mask_at.h + col * p.mask_at.w] : 0xaau;
  }
  const unsigned low = part[0] | part[1] << 8 | part[2] << 16 | part[3] << 24;
  const int shift = 2 * (row & 3), left = p.high_h - row;
  const unsigned word = shift == 0 ? low : low >> shift | part[4] << (32 - shift);
  return left < kRun ? word | outside << 2 * left : word;
}

// Write the bits that belong to this tile; its first row is a multiple of four.
__device__ __forceinline__ void write_mask(const FilteredLrelu& p, uint8_t* plane, int row, int col, int end_row,
                                           int end_col, unsigned word) {
  if (col < 0 || col >= end_col) return;
  const int left = p.high_h - row;
  if (left <= 0) return;
  if (left < kRun) word &= ~(~0u << 2 * left);
#pragma unroll
  for (int q = 0; q < kRun / kPacked; ++q) {
    const int at = row + kPacked * q;
    if (at < end_row) plane[(at / kPacked) * p.mask_at.h + col * p.mask_at.w] = uint8_t(word >> 8 * q);
  }
}

// Runs only if each 2-D filter is of rank one or not as the template arguments say; else returns at once.
template <int kUp, int kDown, bool kUp2d, bool kDown2d>
__global__ void __launch_bounds__(kPassThreads, 3) filtered_lrelu_pass(const FilteredLrelu p) {
  using P = Pass<kUp, kDown, kUp2d, kDown2d>;
  extern __shared__ __align__(16) unsigned char shared[];
  float* ux = reinterpret_cast<float*>(shared);
  float *uy = ux + P::kTapsUp, *dx = uy + P::kTapsUp, *dy = dx + P::kTapsDown;
  float* square = dy + P::kTapsDown;  // [kx, ky]
  float* first = square + kSquare * kSquare;
  float* high = first + (P::kFirst + 3) / 4 * 4;
  float* in = kUp2d ? first : high;
  const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;

  const bool up_separable = separate(p.fu, high, ux, uy);
  if constexpr (kUp2d) {
    for (int i = thread; i < kSquare * kSquare; i += kPassThreads)
      square[i] = high[i % kSquare * kSquare + i / kSquare];
  }
  // the flag and the taps are overwritten next
  __syncthreads();
  const bool down_separable = separate(p.fd, high, dx, dy);
  if constexpr (kDown2d) {
    for (int i = thread; i < kSquare * kSquare; i += kPassThreads)
      square[i] = high[i % kSquare * kSquare + i / kSquare];
  }
  if (up_separable == kUp2d || down_separable == kDown2d) return;

  const Slopes<float> slopes(p.act);
  const int64_t planes = p.samples * p.channels;
  for (int64_t block = blockIdx.x; block < p.count; block += gridDim.x) {
    const int64_t tiles = int64_t(p.count_x) * p.count_y, outer = quotient(block, p.planes_first ? planes : tiles);
    const int64_t plane = p.planes_first ? block - outer * planes : outer;
    const int tile = int(p.planes_first ? outer : block - outer * tiles);
    const int tile_y = tile / p.count_x, tile_x = tile - tile_y * p.count_x;
    const int64_t n = quotient(plane, p.channels), channel = plane - n * p.channels;
    const int out_x0 = tile_x * P::kOut, out_y0 = tile_y * P::kOut;
    const int high_x = out_x0 * kDown - p.pad_down_x, high_y = out_y0 * kDown - p.pad_down_y;
    // kUp is a power of two
    const int shift_x = (high_x - p.pad_x) & (kUp - 1), phase_y = (high_y - p.pad_y) & (kUp - 1);
    const int high_x0 = high_x - shift_x;
    const int in_x0 = (high_x0 - p.pad_x) / kUp, in_y0 = (high_y - phase_y - p.pad_y) / kUp;

    // the next step overwrites what the last tile read
    __syncthreads();
    with_storage(p.dtype, [&](auto tag) {
      using T = decltype(tag);
      const T* source = static_cast<const T*>(p.x) + n * p.x_at.n + channel * p.x_at.c;
      const float bias = p.b ? p.b[channel] : 0.f;
      // a warp takes every eighth row, and a lane takes columns 32 apart
      constexpr int kWarps = kPassThreads / 32, kAcross = ceil_of(P::kIn, 32);
      bool inside[kAcross];
      const T* from[kAcross];
#pragma unroll
      for (int i = 0; i < kAcross; ++i) {
        const int c = lane + 32 * i, x = in_x0 + c;
        inside[i] = c < P::kIn && x >= 0 && x < p.w;
        from[i] = source + (in_y0 + warp) * p.x_at.h + x * p.x_at.w;
      }
      const int64_t step = kWarps * p.x_at.h;
      float* to = in + warp * P::kInPitch + lane;
#pragma unroll
      for (int r = 0; r < P::kIn; r += kWarps) {
        const int y = in_y0 + warp + r;
        const bool row_inside = y >= 0 && y < p.h;
#pragma unroll
        for (int i = 0; i < kAcross; ++i) {
          const float v = row_inside && inside[i] ? widen(*from[i]) + bias : 0.f;
          if (r + warp < P::kIn && lane + 32 * i < P::kIn) to[r * P::kInPitch + 32 * i] = v;
          from[i] += step;
        }
      }
    });
    __syncthreads();

    if constexpr (!kUp2d) {
      for (int t = thread; t < P::kIn * P::kRuns; t += kPassThreads) {
        const int run = t / P::kIn, row = t - run * P::kIn;
        float z[kRun] = {};
        up_sample<kUp, 0>(in + row * P::kInPitch + run * (kRun / kUp), 1, ux, z);
#pragma unroll
        for (int j = 0; j < kRun; ++j) first[row * P::kAlongPitch + run * kRun + j] = z[j];
      }
      __syncthreads();
    }

    uint8_t* sign_mask = p.sign_mask ? p.sign_mask + n * p.mask_at.n + channel * p.mask_at.c : nullptr;
    // a tile writes the mask up to where the next tile begins; tiles at the edge write the rest
    const int end_y = tile_y == p.count_y - 1 ? p.high_h : min(p.high_h, high_y + P::kOut * kDown);
    const int end_x = tile_x == p.count_x - 1 ? p.high_w : min(p.high_w, high_x + P::kOut * kDown);
    with_phase<kUp>(phase_y, [&](auto phase) {
      constexpr int kPhase = decltype(phase)::value;
      for (int t = thread; t < P::kColumns * P::kRuns; t += kPassThreads) {
        const int run = t / P::kColumns, c = t - run * P::kColumns;
        float z[kRun] = {};
        if constexpr (kUp2d) {
          const int start = (c + kUp - 1) / kUp, tap = start * kUp - c;
          const float* from = in + run * (kRun / kUp) * P::kInPitch + start;
#pragma unroll 1
          for (int m = 0; m < kPhaseTaps; ++m) {
            up_sample<kUp, kPhase>(from + m, P::kInPitch, square + (tap + m * kUp) * kSquare, z);
          }
        } else {
          const float* from = first + run * (kRun / kUp) * P::kAlongPitch + c;
          up_sample<kUp, kPhase>(from, P::kAlongPitch, uy, z);
        }
        const int row = high_y + run * kRun, col = high_x0 + c;
        if (!p.act.activates) {
          times_slopes(z, slopes, read_mask(p, sign_mask, row, col));
        } else if (sign_mask) {
          const unsigned word = activate<true>(z, slopes);
          if (col >= high_x) write_mask(p, sign_mask, row, col, end_y, end_x, word);
        } else {
          activate<false>(z, slopes);
        }
        // relative to the first column that is needed, as even and odd columns are stored apart
        const int at = kDown2d ? c - shift_x : c, place = kDown2d ? at % 2 * P::kHalf + at / 2 : at;
#pragma unroll
        for (int j = 0; j < kRun; ++j) {
          if (!kDown2d || at >= 0) high[(run * kRun + j) * P::kHighPitch + place] = z[j];
        }
      }
    });
    __syncthreads();

    if constexpr (!kDown2d) {
      for (int t = thread; t < P::kNeeded * (P::kOut / P::kRunX); t += kPassThreads) {
        const int run = t / P::kNeeded, row = t - run * P::kNeeded;
        float y[P::kRunX] = {};
        down_sample<kDown>(high + row * P::kHighPitch + shift_x + run * P::kRunX * kDown, 1, dx, y);
#pragma unroll
        for (int r = 0; r < P::kRunX; ++r) first[row * P::kOutPitch + run * P::kRunX + r] = y[r];
      }
      __syncthreads();
    }
    for (int t = thread; t < P::kOut * (P::kOut / P::kRunY); t += kPassThreads) {
      const int run = t / P::kOut, column = t - run * P::kOut, row = run * P::kRunY;
      float y[P::kRunY] = {};
      if constexpr (kDown2d) {
        const float* from = high + row * kDown * P::kHighPitch + column;
#pragma unroll 1
        for (int k = 0; k < kSquare; ++k) {
          down_sample<kDown>(from + k % 2 * P::kHalf + k / 2, P::kHighPitch, square + k * kSquare, y);
        }
      } else {
        down_sample<kDown>(first + row * kDown * P::kOutPitch + column, P::kOutPitch, dy, y);
      }
      with_storage(p.dtype, [&](auto tag) {
        using T = decltype(tag);
        const int out_x = out_x0 + column, out_y = out_y0 + row;
        T* to = static_cast<T*>(p.y) + n * p.y_at.n + channel * p.y_at.c + out_y * p.y_at.h + out_x * p.y_at.w;
#pragma unroll
        for (int r = 0; r < P::kRunY; ++r) {
          if (out_x < p.out_w && out_y + r < p.out_h) to[r * p.y_at.h] = narrow<T>(y[r]);
        }
      });
    }
  }
}

}  // namespace imgops
