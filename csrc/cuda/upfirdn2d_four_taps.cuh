// upfirdn2d with 4 taps per axis and the same factors for both axes, (1, 1), up 2 or down 2: what StyleGAN2 runs.
//
// A thread computes a strip of outputs in registers: each input row is added to every output row that it reaches.
// Strips start at a phase of 0 (which may lie before the image), so that phases are known when the loops are unrolled.
#pragma once

#include "upfirdn2d.cuh"

namespace imgops {

constexpr int kStripThreads = 128;

// Which samples the outputs of a strip read.
template <int kUp, int kDown>
struct Phases {
  static constexpr int kTaps = 4 / kUp;
  // the first tap of output t that meets a sample, and that sample
  static constexpr IMGOPS_HD int tap(int t) { return (kUp - t * kDown % kUp) % kUp; }
  static constexpr IMGOPS_HD int sample(int t) { return (t * kDown + tap(t)) / kUp; }
  // number of samples that `outputs` outputs need; and the distance to the samples of the next strip
  static constexpr IMGOPS_HD int samples(int outputs) { return sample(outputs - 1) + kTaps; }
  static constexpr IMGOPS_HD int step(int outputs) { return outputs * kDown / kUp; }
};

// Fill taps [4, 4] with the product of the two 1-D filters. All threads of a block call it.
template <class A>
__device__ void square_taps(const Filter& f, A* taps) {
  if (threadIdx.x < 16) {
    const int y = threadIdx.x / 4, x = threadIdx.x % 4;
    taps[threadIdx.x] = f.vector ? filter_tap<A>(f, y) * filter_tap<A>(f, x) : filter_tap<A>(f, threadIdx.x);
  }
  __syncthreads();
}

__device__ __forceinline__ bool within_size(int at, int size) { return unsigned(at) < unsigned(size); }

// Add row r of a strip's samples, v [samples(kX)], to its outputs acc [kY][kX].
template <int kUp, int kDown, int kY, int kX, int kSamples, class A>
__device__ __forceinline__ void add_row(int r, const A (&v)[kSamples], const A (&taps)[16], A (&acc)[kY][kX]) {
  using P = Phases<kUp, kDown>;
#pragma unroll
  for (int y = 0; y < kY; ++y) {
    const int j = r - P::sample(y);
    if (j < 0 || j >= P::kTaps) continue;
    const int ky = P::tap(y) + j * kUp;
#pragma unroll
    for (int x = 0; x < kX; ++x) {
#pragma unroll
      for (int i = 0; i < P::kTaps; ++i) acc[y][x] += taps[ky * 4 + P::tap(x) + i * kUp] * v[P::sample(x) + i];
    }
  }
}

// The epilogue for piecewise linear activations; acc holds z.
template <int kY, int kX, class A>
__device__ __forceinline__ void finish_pieces(const Epilogue<A>& e, A (&acc)[kY][kX]) {
  const A limit = e.clamp < A(0) ? A(INFINITY) : e.clamp;
  const auto run = [&](auto act) {
#pragma unroll
    for (int y = 0; y < kY; ++y) {
#pragma unroll
      for (int x = 0; x < kX; ++x) {
        acc[y][x] = within(e.gain * activate<decltype(act)::value>(acc[y][x], e.alpha), limit);
      }
    }
  };
  if (e.act == Act::lrelu) run(std::integral_constant<Act, Act::lrelu>{});
  else if (e.act == Act::relu) run(std::integral_constant<Act, Act::relu>{});
  else run(std::integral_constant<Act, Act::linear>{});
}

inline bool linear_in_pieces(Act act) { return act == Act::linear || act == Act::relu || act == Act::lrelu; }

// How the image is divided. Planar: 2^log_lanes neighboring lanes of a warp take neighboring columns of one plane.
struct Strips {
  int log_lanes;
  // output and input at which the first strip starts
  int out_x, out_y, in_x, in_y;
  int64_t count_x, count_y, count;
};

// Outputs of a lane's strip, the samples of each row that the lane loads, and how many lanes after it load the others.
template <int kUp, int kDown>
struct PlanarStrip {
  static constexpr int kX = kDown == 1 ? 2 : 1, kY = kUp == 2 ? 16 : 8;
  static constexpr int kOwn = Phases<kUp, kDown>::step(kX);
  static constexpr int kBehind = (Phases<kUp, kDown>::samples(kX) - 1) / kOwn;
};

// Planar: a lane loads its own samples of each row once, and gets those to its right from the lanes after it.
template <class T, int kUp, int kDown>
__global__ void __launch_bounds__(kStripThreads) planar_four_taps(const Resample<T, T> p, const Strips s) {
  using A = Accumulate<T>;
  using P = Phases<kUp, kDown>;
  using S = PlanarStrip<kUp, kDown>;
  constexpr int kX = S::kX, kY = S::kY, kSamples = P::samples(kX), kRows = P::samples(kY);
  __shared__ A shared_taps[16];
  square_taps(p.f, shared_taps);
  A taps[16];
#pragma unroll
  for (int k = 0; k < 16; ++k) taps[k] = shared_taps[k];
  const int lanes = 1 << s.log_lanes, lane = threadIdx.x & (lanes - 1), group = (threadIdx.x & 31) >> s.log_lanes;
  const int64_t planes = p.samples * p.channels, warps = int64_t(gridDim.x) * (kStripThreads / 32);

  for (int64_t task = int64_t(blockIdx.x) * (kStripThreads / 32) + threadIdx.x / 32; task < s.count; task += warps) {
    const int64_t rest = quotient(task, s.count_x), of_planes = quotient(rest, s.count_y);
    const int block_x = int(task - rest * s.count_x), block_y = int(rest - of_planes * s.count_y);
    const int64_t plane = of_planes * (32 >> s.log_lanes) + group;
    const int column = block_x * (lanes - S::kBehind) + lane;
    const int in_x = s.in_x + column * S::kOwn, in_y = s.in_y + block_y * P::step(kY);
    bool inside[S::kOwn];
#pragma unroll
    for (int i = 0; i < S::kOwn; ++i) inside[i] = plane < planes && within_size(in_x + i, p.w);
    const T* from = p.x + (plane * p.h + in_y) * p.w + in_x;
    // all rows are loaded first, so that their loads are in flight together
    A own[kRows][S::kOwn];
#pragma unroll
    for (int r = 0; r < kRows; ++r, from += p.w) {
      const bool row_inside = within_size(in_y + r, p.h);
#pragma unroll
      for (int i = 0; i < S::kOwn; ++i) own[r][i] = row_inside && inside[i] ? A(widen(from[i])) : A(0);
    }
    A acc[kY][kX] = {};
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      A v[kSamples];
#pragma unroll
      for (int i = 0; i < kSamples; ++i) {
        v[i] = i < S::kOwn ? own[r][i] : __shfl_down_sync(0xffffffffu, own[r][i % S::kOwn], i / S::kOwn);
      }
      add_row<kUp, kDown>(r, v, taps, acc);
    }

    const int out_x = s.out_x + column * kX, out_y = s.out_y + block_y * kY;
    if (plane >= planes || lane >= lanes - S::kBehind) continue;
    bool wanted[kX];
#pragma unroll
    for (int x = 0; x < kX; ++x) wanted[x] = within_size(out_x + x, p.out_w);
    const int64_t place = (plane * p.out_h + out_y) * p.out_w + out_x;
    // in rows of even width, pairs are aligned
    const bool pairs = kX == 2 && p.out_w % 2 == 0 && out_x % 2 == 0 && wanted[0];
    const auto write = [&](T* to) {
      if (pairs) {
#pragma unroll
        for (int y = 0; y < kY; ++y, to += p.out_w) {
          if (within_size(out_y + y, p.out_h)) store<kX>(to, kX, acc[y]);
        }
      } else {
#pragma unroll
        for (int y = 0; y < kY; ++y, to += p.out_w) {
#pragma unroll
          for (int x = 0; x < kX; ++x) {
            if (within_size(out_y + y, p.out_h) && wanted[x]) to[x] = narrow<T>(acc[y][x]);
          }
        }
      }
    };
    if (p.filtered) write(p.filtered + place);
    const Epilogue<A>& e = p.epilogue;
    if (e.fused) {
      const int64_t n = quotient(plane, p.channels);
      const A scale = e.scale ? e.scale[plane] : A(1), b = e.b ? e.b[plane - n * p.channels] : A(0);
      const A* noise = e.noise ? e.noise + n * e.noise_stride + int64_t(out_y) * p.out_w + out_x : nullptr;
#pragma unroll
      for (int y = 0; y < kY; ++y) {
#pragma unroll
        for (int x = 0; x < kX; ++x) {
          const bool noisy = noise && within_size(out_y + y, p.out_h) && wanted[x];
          acc[y][x] = acc[y][x] * scale + (noisy ? noise[int64_t(y) * p.out_w + x] + b : b);
        }
      }
      finish_pieces(e, acc);
    }
    write(p.y + place);
  }
}

constexpr int kChannelsLastX = 2;

template <int kDown>
constexpr int kChannelsLastY = kDown == 1 ? 4 : 2;

// Channels-last: a thread takes V channels; reads are contiguous across threads and shared through the cache.
template <class T, int V, int kUp, int kDown>
__global__ void __launch_bounds__(kStripThreads) channels_last_four_taps(const Resample<T, T> p, const Strips s) {
  using A = Accumulate<T>;
  using P = Phases<kUp, kDown>;
  constexpr int kX = kChannelsLastX, kY = kChannelsLastY<kDown>, kSamples = P::samples(kX);
  __shared__ A shared_taps[16];
  square_taps(p.f, shared_taps);
  A taps[16];
#pragma unroll
  for (int k = 0; k < 16; ++k) taps[k] = shared_taps[k];
  const int64_t vectors = p.channels / V;
  const int64_t threads = int64_t(gridDim.x) * kStripThreads;
  for (int64_t id = int64_t(blockIdx.x) * kStripThreads + threadIdx.x; id < s.count; id += threads) {
    const int64_t strip = quotient(id, vectors), row = quotient(strip, s.count_x), n = quotient(row, s.count_y);
    const int64_t c = (id - strip * vectors) * V;
    const int block_x = int(strip - row * s.count_x), block_y = int(row - n * s.count_y);
    const int in_x = s.in_x + block_x * P::step(kX), in_y = s.in_y + block_y * P::step(kY);
    const T* source = p.x + n * p.h * p.w * p.channels + c;
    // [channel][y][x], so that add_row serves both layouts
    A acc[V][kY][kX] = {};
#pragma unroll
    for (int r = 0; r < P::samples(kY); ++r) {
      const int y = in_y + r;
      A v[V][kSamples];
#pragma unroll
      for (int i = 0; i < kSamples; ++i) {
        const int x = in_x + i;
        A sample[V] = {};
        if (within_size(y, p.h) && within_size(x, p.w)) {
          load<V>(source + (int64_t(y) * p.w + x) * p.channels, V, sample);
        }
#pragma unroll
        for (int j = 0; j < V; ++j) v[j][i] = sample[j];
      }
#pragma unroll
      for (int j = 0; j < V; ++j) add_row<kUp, kDown>(r, v[j], taps, acc[j]);
    }

    const int out_x = s.out_x + block_x * kX, out_y = s.out_y + block_y * kY;
    const auto inside = [&](int y, int x) {
      return within_size(out_y + y, p.out_h) && within_size(out_x + x, p.out_w);
    };
    const auto pixel = [&](int y, int x) { return int64_t(out_y + y) * p.out_w + out_x + x; };
    const auto write = [&](T* to) {
#pragma unroll
      for (int y = 0; y < kY; ++y) {
#pragma unroll
        for (int x = 0; x < kX; ++x) {
          A out[V];
#pragma unroll
          for (int j = 0; j < V; ++j) out[j] = acc[j][y][x];
          if (inside(y, x)) store<V>(to + (n * p.out_h * p.out_w + pixel(y, x)) * p.channels + c, V, out);
        }
      }
    };
    if (p.filtered) write(p.filtered);
    const Epilogue<A>& e = p.epilogue;
    if (e.fused) {
      A noise[kY][kX];
#pragma unroll
      for (int y = 0; y < kY; ++y) {
#pragma unroll
        for (int x = 0; x < kX; ++x) {
          noise[y][x] = e.noise && inside(y, x) ? e.noise[n * e.noise_stride + pixel(y, x)] : A(0);
        }
      }
#pragma unroll
      for (int j = 0; j < V; ++j) {
        const A scale = e.scale ? e.scale[n * p.channels + c + j] : A(1), b = e.b ? e.b[c + j] : A(0);
#pragma unroll
        for (int y = 0; y < kY; ++y) {
#pragma unroll
          for (int x = 0; x < kX; ++x) acc[j][y][x] = acc[j][y][x] * scale + (noise[y][x] + b);
        }
        finish_pieces(e, acc[j]);
      }
    }
    write(p.y);
  }
}

}  // namespace imgops
