// upfirdn2d with 4 taps an axis and the same factors for both: (1, 1), up 2 or down 2; what StyleGAN2 runs.
//
// A thread computes a strip of outputs in registers: each row of input is filtered along x once, and its result added
// to every output row that it reaches. Strips start at a phase of 0 (which may lie before the image), so that phases
// are known when the loops are unrolled.
#pragma once

#include "upfirdn2d.cuh"

namespace imgops {

constexpr int kStripThreads = 128;

// Where the outputs of a strip find their samples.
template <int kUp, int kDown>
struct Phases {
  static constexpr int kTaps = 4 / kUp;
  // the first tap of output t that meets a sample, and that sample
  static constexpr IMGOPS_HD int tap(int t) { return (kUp - t * kDown % kUp) % kUp; }
  static constexpr IMGOPS_HD int sample(int t) { return (t * kDown + tap(t)) / kUp; }
  // samples that so many outputs need, and the distance to those of the next strip
  static constexpr IMGOPS_HD int samples(int outputs) { return sample(outputs - 1) + kTaps; }
  static constexpr IMGOPS_HD int step(int outputs) { return outputs * kDown / kUp; }
};

// Add one row of samples, v [samples(kX)], to the outputs acc [kY][kX] of a strip of which it is row r.
template <int kUp, int kDown, bool kSeparable, int kY, int kX, int kSamples, class A>
__device__ __forceinline__ void add_row(int r, const A (&v)[kSamples], const A* taps, const A (&fx)[4],
                                        const A (&fy)[4], A (&acc)[kY][kX]) {
  using P = Phases<kUp, kDown>;
  A h[kX] = {};
  if constexpr (kSeparable) {
#pragma unroll
    for (int x = 0; x < kX; ++x) {
#pragma unroll
      for (int i = 0; i < P::kTaps; ++i) h[x] += fx[P::tap(x) + i * kUp] * v[P::sample(x) + i];
    }
  }
#pragma unroll
  for (int y = 0; y < kY; ++y) {
    const int j = r - P::sample(y);
    if (j < 0 || j >= P::kTaps) continue;
    const int ky = P::tap(y) + j * kUp;
#pragma unroll
    for (int x = 0; x < kX; ++x) {
      if constexpr (kSeparable) {
        acc[y][x] += fy[ky] * h[x];
      } else {
#pragma unroll
        for (int i = 0; i < P::kTaps; ++i) acc[y][x] += taps[ky * 4 + P::tap(x) + i * kUp] * v[P::sample(x) + i];
      }
    }
  }
}

// The epilogue for activations that are linear in pieces; acc holds z.
template <int kY, int kX, class A>
__device__ __forceinline__ void finish_pieces(const Epilogue<A>& e, A (&acc)[kY][kX]) {
  const auto run = [&](auto act) {
#pragma unroll
    for (int y = 0; y < kY; ++y) {
#pragma unroll
      for (int x = 0; x < kX; ++x) {
        acc[y][x] = clamped(e.gain * activate<decltype(act)::value>(acc[y][x], e.alpha), e.clamp);
      }
    }
  };
  if (e.act == Act::lrelu) run(std::integral_constant<Act, Act::lrelu>{});
  else if (e.act == Act::relu) run(std::integral_constant<Act, Act::relu>{});
  else run(std::integral_constant<Act, Act::linear>{});
}

inline bool linear_in_pieces(Act act) { return act == Act::linear || act == Act::relu || act == Act::lrelu; }

// How the image is cut. Planes: a block takes lanes x strips of threads of each of `planes` planes.
struct Strips {
  int log_lanes, log_strips, planes, log_stage;
  // the tile of input in shared memory, of one plane
  int tile_h, tile_w, pitch;
  // output and input where the first strip starts
  int out_x, out_y, in_x, in_y;
  int64_t count_x, count_y, count;
};

template <int kUp, int kDown>
struct PlanarStrip {
  static constexpr int kX = kDown == 1 ? 2 : 1, kY = kDown == 1 ? 8 : 4;
};

template <class T, int kUp, int kDown>
__global__ void __launch_bounds__(kStripThreads) planar_four_taps(const Resample<T, T> p, const Strips s) {
  using A = Accumulate<T>;
  using P = Phases<kUp, kDown>;
  constexpr int kX = PlanarStrip<kUp, kDown>::kX, kY = PlanarStrip<kUp, kDown>::kY;
  constexpr int kSamples = P::samples(kX), kStep = P::step(kX);
  extern __shared__ __align__(16) unsigned char shared[];
  A* tile = reinterpret_cast<A*>(shared);
  __shared__ A taps[16], fx_shared[4], fy_shared[4];
  const bool separable = separate(p.f, taps, fx_shared, fy_shared);
  A fx[4], fy[4];
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    fx[k] = fx_shared[k];
    fy[k] = fy_shared[k];
  }
  const int lane = threadIdx.x & ((1 << s.log_lanes) - 1);
  const int strip = (threadIdx.x >> s.log_lanes) & ((1 << s.log_strips) - 1);
  const int z = threadIdx.x >> (s.log_lanes + s.log_strips);
  const int stage_x = threadIdx.x & ((1 << s.log_stage) - 1), stage_y = threadIdx.x >> s.log_stage;
  const int stage_rows = kStripThreads >> s.log_stage, rows = s.planes * s.tile_h;
  const int64_t planes = p.samples * p.channels;

  for (int64_t block = blockIdx.x; block < s.count; block += gridDim.x) {
    const int64_t rest = quotient(block, s.count_x), group = quotient(rest, s.count_y);
    const int block_x = int(block - rest * s.count_x), block_y = int(rest - group * s.count_y);
    const int in_x = s.in_x + (block_x * kStep << s.log_lanes), in_y = s.in_y + (block_y * P::step(kY) << s.log_strips);

    // four rows at a time, so that their loads are in flight together
    for (int first = stage_y; first < rows; first += 4 * stage_rows) {
      const T* from[4];
#pragma unroll
      for (int u = 0; u < 4; ++u) {
        const int row = first + u * stage_rows, k = s.planes == 1 ? 0 : row / s.tile_h, y = in_y + row - k * s.tile_h;
        const int64_t plane = group * s.planes + k;
        const bool inside = row < rows && plane < planes && y >= 0 && y < p.h;
        from[u] = inside ? p.x + (plane * p.h + y) * p.w : nullptr;
      }
      for (int c = stage_x; c < s.tile_w; c += 1 << s.log_stage) {
        const int x = in_x + c;
        A v[4];
#pragma unroll
        for (int u = 0; u < 4; ++u) v[u] = from[u] && x >= 0 && x < p.w ? A(widen(from[u][x])) : A(0);
#pragma unroll
        for (int u = 0; u < 4; ++u) {
          if (first + u * stage_rows < rows) tile[(first + u * stage_rows) * s.pitch + c] = v[u];
        }
      }
    }
    __syncthreads();

    const int64_t plane = group * s.planes + z;
    if (z < s.planes && plane < planes) {
      const A* source = tile + (z * s.tile_h + strip * P::step(kY)) * s.pitch + lane * kStep;
      A acc[kY][kX] = {};
      const auto accumulate = [&](auto is_separable) {
#pragma unroll
        for (int r = 0; r < P::samples(kY); ++r) {
          A v[(kSamples + 1) / 2 * 2];
#pragma unroll
          for (int i = 0; i < kSamples; i += 2) {
            if constexpr (kStep % 2 == 0) {
              const Vec<A, 2> pair = *reinterpret_cast<const Vec<A, 2>*>(source + r * s.pitch + i);
              v[i] = pair.v[0];
              v[i + 1] = pair.v[1];
            } else {
              v[i] = source[r * s.pitch + i];
              v[i + 1] = i + 1 < kSamples ? source[r * s.pitch + i + 1] : A(0);
            }
          }
          add_row<kUp, kDown, decltype(is_separable)::value>(r, v, taps, fx, fy, acc);
        }
      };
      separable ? accumulate(std::true_type{}) : accumulate(std::false_type{});

      const int out_x = s.out_x + ((block_x << s.log_lanes) + lane) * kX;
      const int out_y = s.out_y + ((block_y << s.log_strips) + strip) * kY;
      const auto write = [&](T* to) {
#pragma unroll
        for (int y = 0; y < kY; ++y) {
          if (out_y + y < 0 || out_y + y >= p.out_h) continue;
          const int64_t at = (plane * p.out_h + out_y + y) * p.out_w + out_x;
          if (kX == 2 && at % 2 == 0 && out_x >= 0 && out_x + 2 <= p.out_w) {
            store<kX>(to + at, kX, acc[y]);
          } else {
#pragma unroll
            for (int x = 0; x < kX; ++x) {
              if (out_x + x >= 0 && out_x + x < p.out_w) to[at + x] = narrow<T>(acc[y][x]);
            }
          }
        }
      };
      if (p.filtered) write(p.filtered);
      const Epilogue<A>& e = p.epilogue;
      if (e.fused) {
        const int64_t n = quotient(plane, p.channels);
        const A scale = e.scale ? e.scale[plane] : A(1), b = e.b ? e.b[plane - n * p.channels] : A(0);
#pragma unroll
        for (int y = 0; y < kY; ++y) {
#pragma unroll
          for (int x = 0; x < kX; ++x) {
            const bool inside = out_y + y >= 0 && out_y + y < p.out_h && out_x + x >= 0 && out_x + x < p.out_w;
            const int64_t pixel = int64_t(out_y + y) * p.out_w + out_x + x;
            const A noise = e.noise && inside ? e.noise[n * e.noise_stride + pixel] : A(0);
            acc[y][x] = acc[y][x] * scale + (noise + b);
          }
        }
        finish_pieces(e, acc);
      }
      write(p.y);
    }
    // the next tile overwrites this one
    __syncthreads();
  }
}

constexpr int kInterleavedX = 2;

template <int kDown>
constexpr int kInterleavedY = kDown == 1 ? 4 : 2;

// Channels-last: a thread takes V channels; its reads are contiguous across the threads and shared through the cache.
template <class T, int V, int kUp, int kDown>
__global__ void __launch_bounds__(kStripThreads) interleaved_four_taps(const Resample<T, T> p, const Strips s) {
  using A = Accumulate<T>;
  using P = Phases<kUp, kDown>;
  constexpr int kX = kInterleavedX, kY = kInterleavedY<kDown>, kSamples = P::samples(kX);
  __shared__ A taps[16], fx_shared[4], fy_shared[4];
  const bool separable = separate(p.f, taps, fx_shared, fy_shared);
  A fx[4], fy[4];
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    fx[k] = fx_shared[k];
    fy[k] = fy_shared[k];
  }
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
    const auto accumulate = [&](auto is_separable) {
#pragma unroll
      for (int r = 0; r < P::samples(kY); ++r) {
        const int y = in_y + r;
        const bool row_inside = y >= 0 && y < p.h;
        A v[V][kSamples];
#pragma unroll
        for (int i = 0; i < kSamples; ++i) {
          const int x = in_x + i;
          A sample[V] = {};
          if (row_inside && x >= 0 && x < p.w) load<V>(source + (int64_t(y) * p.w + x) * p.channels, V, sample);
#pragma unroll
          for (int j = 0; j < V; ++j) v[j][i] = sample[j];
        }
#pragma unroll
        for (int j = 0; j < V; ++j) add_row<kUp, kDown, decltype(is_separable)::value>(r, v[j], taps, fx, fy, acc[j]);
      }
    };
    separable ? accumulate(std::true_type{}) : accumulate(std::false_type{});

    const int out_x = s.out_x + block_x * kX, out_y = s.out_y + block_y * kY;
    const auto inside = [&](int y, int x) {
      return out_y + y >= 0 && out_y + y < p.out_h && out_x + x >= 0 && out_x + x < p.out_w;
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
