// The kernels of bias_act and its backward: 16 bytes per access, and every sum in the pass that computes dx.
//
// Memory is one of two shapes. Rows [outer, channels, inner]: a group of lanes takes a segment of one row, whose
// bias and scale are constants. Columns [samples, pixels, channels], of channels-last and 2-D tensors: a thread keeps
// its channels and walks down the pixels. Sums leave partials that a second, small kernel adds in a fixed order.
#pragma once

#include "common.cuh"

namespace imgops {

constexpr int kThreads = 256;

// Blocks that a multiprocessor should hold at once; float64 functions take many registers, so two are enough for it.
template <class T>
constexpr int min_blocks(int wanted) {
  return sizeof(T) == 8 ? 2 : wanted;
}

template <class T>
struct Args {
  using A = Accumulate<T>;
  const T *x, *y, *dy;
  T* out;
  // b [channels], scale [outer, channels], noise [outer or 1, inner]; null = absent
  const A *b, *scale, *noise;
  // partial sums of dz, of dz * x, and dz summed over channels; null = not wanted
  A *sum_dz, *sum_dz_x, *dnoise;
  // columns: outer = samples, inner = pixels
  int64_t outer, channels, inner, noise_stride;
  // rows: segments of a row, channels per task; columns: chunks of the pixels of a sample, pixels per chunk
  int64_t pieces, per_task;
  // rows: vectors per lane in a segment; lanes of a group = 1 << log_lanes
  int vectors, log_lanes;
  Act act;
  A alpha, gain, clamp;
};

template <int V, class A>
__device__ __forceinline__ void finish(Act act, A alpha, A gain, A clamp, A (&z)[V]) {
  with_act(act, [&](auto constant) {
#pragma unroll
    for (int j = 0; j < V; ++j) z[j] = clamped(gain * activate<decltype(constant)::value>(z[j], alpha), clamp);
  });
}

// d[j] = dy[j] * d out / dz, with u = z (from_z) or u = the output
template <int V, class T, class A>
__device__ __forceinline__ void chain(const Args<T>& p, bool from_z, const A (&u)[V], A (&d)[V]) {
  // the output was rounded to T, so it must be compared with the clamp rounded to T
  const A limit = from_z ? p.clamp : A(widen(narrow<T>(p.clamp)));
  with_act(p.act, [&](auto constant) {
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const A output = from_z ? p.gain * activate<decltype(constant)::value>(u[j], p.alpha) : u[j];
      const bool inside = limit < A(0) || (output < limit && output > -limit);
      d[j] = inside ? d[j] * (p.gain * slope<decltype(constant)::value>(u[j], p.alpha)) : A(0);
    }
  });
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads, min_blocks<T>(5)) rows_forward(const Args<T> p) {
  using A = Accumulate<T>;
  const int lanes = 1 << p.log_lanes, lane = threadIdx.x & (lanes - 1), groups = kThreads >> p.log_lanes;
  const int64_t tasks = p.outer * p.channels * p.pieces, segment = int64_t(lanes) * V * p.vectors;
  for (int64_t task = int64_t(blockIdx.x) * groups + (threadIdx.x >> p.log_lanes); task < tasks;
       task += int64_t(gridDim.x) * groups) {
    const int64_t row = quotient(task, p.pieces), n = quotient(row, p.channels);
    const A s = p.scale ? p.scale[row] : A(1), b = p.b ? p.b[row - n * p.channels] : A(0);
    const int64_t begin = (task - row * p.pieces) * segment + lane * V;
#pragma unroll 2
    for (int k = 0; k < p.vectors; ++k) {
      const int64_t r = begin + int64_t(k) * lanes * V, left = p.inner - r;
      if (left <= 0) break;
      A z[V];
      load<V>(p.x + row * p.inner + r, left, z);
#pragma unroll
      for (int j = 0; j < V; ++j) z[j] = z[j] * s + b;
      if (p.noise) {
        A noise[V];
        load_wide<V>(p.noise + n * p.noise_stride + r, left, noise);
#pragma unroll
        for (int j = 0; j < V; ++j) z[j] += noise[j];
      }
      finish<V>(p.act, p.alpha, p.gain, p.clamp, z);
      store<V>(p.out + row * p.inner + r, left, z);
    }
  }
}

// A task is a segment of the rows of per_task channels; only dnoise takes more than one channel (with vectors = 1).
template <class T, int V, bool kNoise>
__global__ void __launch_bounds__(kThreads, min_blocks<T>(3)) rows_backward(const Args<T> p) {
  using A = Accumulate<T>;
  const int lanes = 1 << p.log_lanes, lane = threadIdx.x & (lanes - 1), groups = kThreads >> p.log_lanes;
  const int64_t ranges = (p.channels + p.per_task - 1) / p.per_task, tasks = p.outer * ranges * p.pieces;
  const int64_t segment = int64_t(lanes) * V * p.vectors;
  // the bound is the same for the whole block, since every lane takes part in the sums
  for (int64_t first = int64_t(blockIdx.x) * groups; first < tasks; first += int64_t(gridDim.x) * groups) {
    const int64_t task = first + (threadIdx.x >> p.log_lanes);
    const bool active = task < tasks;
    const int64_t rest = quotient(task, p.pieces), piece = task - rest * p.pieces;
    const int64_t n = quotient(rest, ranges), range = rest - n * ranges;
    const int64_t begin = piece * segment + lane * V;
    A dnoise[V] = {};
    for (int64_t i = 0; i < p.per_task; ++i) {
      const int64_t c = range * p.per_task + i;
      const bool live = active && c < p.channels;
      const int64_t row = n * p.channels + c;
      const A s = live && p.scale ? p.scale[row] : A(1), b = live && p.b ? p.b[c] : A(0);
      A sum = 0, sum_x = 0;
#pragma unroll 1
      for (int k = 0; live && k < p.vectors; ++k) {
        const int64_t r = begin + int64_t(k) * lanes * V, left = p.inner - r, at = row * p.inner + r;
        if (left <= 0) break;
        A d[V], u[V] = {}, x[V] = {};
        load<V>(p.dy + at, left, d);
        if (p.x) {
          load<V>(p.x + at, left, x);
#pragma unroll
          for (int j = 0; j < V; ++j) u[j] = x[j] * s + b;
          if (p.noise) {
            A noise[V];
            load_wide<V>(p.noise + n * p.noise_stride + r, left, noise);
#pragma unroll
            for (int j = 0; j < V; ++j) u[j] += noise[j];
          }
        } else if (p.y) {
          load<V>(p.y + at, left, u);
        }
        chain<V>(p, p.x != nullptr, u, d);
#pragma unroll
        for (int j = 0; j < V; ++j) {
          sum += d[j];
          if (p.sum_dz_x) sum_x += d[j] * x[j];
          if constexpr (kNoise) dnoise[j] += d[j];
          d[j] *= s;
        }
        store<V>(p.out + at, left, d);
      }
      if (p.sum_dz) {
        sum = group_sum(sum, lanes);
        if (live && lane == 0) p.sum_dz[row * p.pieces + piece] = sum;
      }
      if (p.sum_dz_x) {
        sum_x = group_sum(sum_x, lanes);
        if (live && lane == 0) p.sum_dz_x[row * p.pieces + piece] = sum_x;
      }
    }
    if constexpr (kNoise) {
      // [ranges, outer, inner]
      if (active && begin < p.inner) {
        store_wide<V>(p.dnoise + (range * p.outer + n) * p.inner + begin, p.inner - begin, dnoise);
      }
    }
  }
}

// The position of a thread in a block of columns: lanes run over channels, the other threads over pixels.
template <int V>
struct Column {
  int lane, row, rows;
  int64_t blocks, block, c, n, piece, begin, end;
  bool live;

  template <class T>
  __device__ Column(const Args<T>& p, int64_t task) {
    const int lanes = 1 << p.log_lanes;
    lane = threadIdx.x & (lanes - 1);
    row = threadIdx.x >> p.log_lanes;
    rows = kThreads >> p.log_lanes;
    blocks = (p.channels + lanes * V - 1) / (lanes * V);
    const int64_t rest = quotient(task, blocks);
    block = task - rest * blocks;
    n = quotient(rest, p.pieces);
    piece = rest - n * p.pieces;
    c = (block * lanes + lane) * V;
    live = c < p.channels;
    begin = piece * p.per_task;
    end = begin + p.per_task < p.inner ? begin + p.per_task : p.inner;
  }

  // constants of the thread's channels
  template <class A>
  __device__ void constants(const A* values, A absent, A (&out)[V]) const {
#pragma unroll
    for (int j = 0; j < V; ++j) out[j] = values && live ? values[c + j] : absent;
  }
};

template <class T, int V>
__global__ void __launch_bounds__(kThreads, min_blocks<T>(4)) columns_forward(const Args<T> p, int64_t tasks) {
  using A = Accumulate<T>;
  for (int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
    const Column<V> at(p, task);
    if (!at.live) continue;
    A b[V], s[V];
    at.constants(p.b, A(0), b);
    at.constants(p.scale ? p.scale + at.n * p.channels : nullptr, A(1), s);
#pragma unroll 4
    for (int64_t pixel = at.begin + at.row; pixel < at.end; pixel += at.rows) {
      const int64_t i = (at.n * p.inner + pixel) * p.channels + at.c;
      const A noise = p.noise ? p.noise[at.n * p.noise_stride + pixel] : A(0);
      A z[V];
      load<V>(p.x + i, V, z);
#pragma unroll
      for (int j = 0; j < V; ++j) z[j] = z[j] * s[j] + (noise + b[j]);
      finish<V>(p.act, p.alpha, p.gain, p.clamp, z);
      store<V>(p.out + i, V, z);
    }
  }
}

// Sum the columns of [rows, lanes * V] in shared memory.
template <int V, class A>
__device__ void add_rows(A* shared, const Column<V>& at, const A (&sum)[V], int lanes, int64_t channels, A* to) {
#pragma unroll
  for (int j = 0; j < V; ++j) shared[(at.row * lanes + at.lane) * V + j] = sum[j];
  __syncthreads();
  const int column = threadIdx.x;
  const int64_t c = at.block * lanes * V + column;
  if (column < lanes * V && c < channels) {
    A total = 0;
    for (int r = 0; r < at.rows; ++r) total += shared[r * lanes * V + column];
    to[c] = total;
  }
  __syncthreads();
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads) columns_backward(const Args<T> p, int64_t tasks) {
  using A = Accumulate<T>;
  __shared__ A shared[kThreads * V];
  const int lanes = 1 << p.log_lanes;
  for (int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
    const Column<V> at(p, task);
    A b[V], s[V], sum[V] = {}, sum_x[V] = {};
    at.constants(p.b, A(0), b);
    at.constants(p.scale ? p.scale + at.n * p.channels : nullptr, A(1), s);
    // the bound is the same for the whole block, since every lane takes part in the sums
    for (int64_t base = at.begin; base < at.end; base += at.rows) {
      const int64_t pixel = base + at.row;
      A d[V] = {};
      if (at.live && pixel < at.end) {
        const int64_t i = (at.n * p.inner + pixel) * p.channels + at.c;
        A u[V] = {}, x[V] = {}, dx[V];
        load<V>(p.dy + i, V, d);
        if (p.x) {
          const A noise = p.noise ? p.noise[at.n * p.noise_stride + pixel] : A(0);
          load<V>(p.x + i, V, x);
#pragma unroll
          for (int j = 0; j < V; ++j) u[j] = x[j] * s[j] + (noise + b[j]);
        } else if (p.y) {
          load<V>(p.y + i, V, u);
        }
        chain<V>(p, p.x != nullptr, u, d);
#pragma unroll
        for (int j = 0; j < V; ++j) {
          sum[j] += d[j];
          if (p.sum_dz_x) sum_x[j] += d[j] * x[j];
          dx[j] = d[j] * s[j];
        }
        store<V>(p.out + i, V, dx);
      }
      if (p.dnoise) {
        A total = 0;
#pragma unroll
        for (int j = 0; j < V; ++j) total += d[j];
        total = group_sum(total, lanes);
        // [blocks of channels, samples, pixels]
        if (at.lane == 0 && pixel < at.end) p.dnoise[(at.block * p.outer + at.n) * p.inner + pixel] = total;
      }
    }
    // [samples, chunks, channels]
    const int64_t to = (at.n * p.pieces + at.piece) * p.channels;
    if (p.sum_dz) add_rows<V>(shared, at, sum, lanes, p.channels, p.sum_dz + to);
    if (p.sum_dz_x) add_rows<V>(shared, at, sum_x, lanes, p.channels, p.sum_dz_x + to);
  }
}

// out[i, j] = sum over k0 and k1 of the partial sums; each index has its own stride
struct Sum {
  int64_t rows, columns, row_stride, column_stride, k0, k1, k0_stride, k1_stride;
};

template <class A>
__global__ void __launch_bounds__(kThreads) add_partials(const A* partials, A* out, const Sum p, int log_lanes) {
  const int lanes = 1 << log_lanes, lane = threadIdx.x & (lanes - 1), groups = kThreads >> log_lanes;
  const int64_t total = p.rows * p.columns;
  for (int64_t first = int64_t(blockIdx.x) * groups; first < total; first += int64_t(gridDim.x) * groups) {
    const int64_t i = first + (threadIdx.x >> log_lanes);
    A sum = 0;
    if (i < total) {
      const int64_t row = quotient(i, p.columns);
      const A* from = partials + row * p.row_stride + (i - row * p.columns) * p.column_stride;
      for (int64_t k = lane; k < p.k0 * p.k1; k += lanes) {
        const int64_t k0 = quotient(k, p.k1);
        sum += from[k0 * p.k0_stride + (k - k0 * p.k1) * p.k1_stride];
      }
    }
    sum = group_sum(sum, lanes);
    if (i < total && lane == 0) out[i] = sum;
  }
}

}  // namespace imgops
