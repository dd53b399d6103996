// bias_act and its backward on CUDA: 16 bytes an access, and every sum in the pass that computes dx.
//
// Memory is one of two shapes. Rows [outer, channels, inner]: a group of lanes takes a segment of one row, whose
// bias and scale are constants. Columns [samples, pixels, channels], of channels-last and 2-D tensors: a thread keeps
// its channels and walks down the pixels. Sums leave partials that a second, small kernel adds in a fixed order.
#include "common.cuh"

namespace imgops {
namespace {

constexpr int kThreads = 256;

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
  // rows: segments of a row, channels a task; columns: chunks of the pixels of a sample, pixels of a chunk
  int64_t pieces, per_task;
  // rows: vectors a lane in a segment; lanes of a group = 1 << log_lanes
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
  // the output was rounded to T, and so was the clamp that it shows
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
__global__ void __launch_bounds__(kThreads) rows_forward(const Args<T> p) {
  using A = Accumulate<T>;
  const int lanes = 1 << p.log_lanes, lane = threadIdx.x & (lanes - 1), groups = kThreads >> p.log_lanes;
  const uint64_t tasks = uint64_t(p.outer) * p.channels * p.pieces;
  const int64_t segment = int64_t(lanes) * V * p.vectors;
  for (uint64_t task = uint64_t(blockIdx.x) * groups + (threadIdx.x >> p.log_lanes); task < tasks;
       task += uint64_t(gridDim.x) * groups) {
    const uint64_t row = task / uint64_t(p.pieces), n = row / uint64_t(p.channels);
    const A s = p.scale ? p.scale[row] : A(1), b = p.b ? p.b[row - n * p.channels] : A(0);
    const int64_t begin = int64_t(task - row * p.pieces) * segment + lane * V;
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

// A task is a segment of the rows of per_task channels; more than one channel only with dnoise (and vectors = 1).
template <class T, int V, bool kNoise>
__global__ void __launch_bounds__(kThreads) rows_backward(const Args<T> p) {
  using A = Accumulate<T>;
  const int lanes = 1 << p.log_lanes, lane = threadIdx.x & (lanes - 1), groups = kThreads >> p.log_lanes;
  const uint64_t ranges = (p.channels + p.per_task - 1) / p.per_task, tasks = uint64_t(p.outer) * ranges * p.pieces;
  const int64_t segment = int64_t(lanes) * V * p.vectors;
  // the bound is the same for the whole block, since every lane takes part in the sums
  for (uint64_t first = uint64_t(blockIdx.x) * groups; first < tasks; first += uint64_t(gridDim.x) * groups) {
    const uint64_t task = first + (threadIdx.x >> p.log_lanes);
    const bool active = task < tasks;
    const uint64_t rest = task / uint64_t(p.pieces), piece = task - rest * p.pieces;
    const uint64_t n = rest / ranges, range = rest - n * ranges;
    const int64_t begin = int64_t(piece) * segment + lane * V;
    A dnoise[V] = {};
    for (int64_t i = 0; i < p.per_task; ++i) {
      const int64_t c = int64_t(range) * p.per_task + i;
      const bool live = active && c < p.channels;
      const int64_t row = int64_t(n) * p.channels + c;
      const A s = live && p.scale ? p.scale[row] : A(1), b = live && p.b ? p.b[c] : A(0);
      A sum = 0, sum_x = 0;
#pragma unroll 1
      for (int k = 0; live && k < p.vectors; ++k) {
        const int64_t r = begin + int64_t(k) * lanes * V, left = p.inner - r, at = row * p.inner + r;
        if (left <= 0) break;
        A d[V], u[V] = {}, x[V];
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
        A* to = p.dnoise + (int64_t(range) * p.outer + int64_t(n)) * p.inner + begin;
#pragma unroll
        for (int j = 0; j < V; ++j) {
          if (begin + j < p.inner) to[j] = dnoise[j];
        }
      }
    }
  }
}

// Where a block of columns works: lanes over channels, the rest of the threads over pixels.
template <int V>
struct Column {
  int lane, row, rows;
  int64_t blocks, c, n, piece, begin, end;
  uint64_t block;
  bool live;

  template <class T>
  __device__ Column(const Args<T>& p, uint64_t task) {
    const int lanes = 1 << p.log_lanes;
    lane = threadIdx.x & (lanes - 1);
    row = threadIdx.x >> p.log_lanes;
    rows = kThreads >> p.log_lanes;
    blocks = (p.channels + lanes * V - 1) / (lanes * V);
    const uint64_t rest = task / uint64_t(blocks);
    block = task - rest * blocks;
    n = int64_t(rest / uint64_t(p.pieces));
    piece = int64_t(rest) - n * p.pieces;
    c = (int64_t(block) * lanes + lane) * V;
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
__global__ void __launch_bounds__(kThreads) columns_forward(const Args<T> p, uint64_t tasks) {
  using A = Accumulate<T>;
  for (uint64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
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

// [rows, lanes * V] in shared memory -> the sums of its columns
template <int V, class A>
__device__ void add_rows(A* shared, const Column<V>& at, const A (&sum)[V], int lanes, int64_t channels, A* to) {
#pragma unroll
  for (int j = 0; j < V; ++j) shared[(at.row * lanes + at.lane) * V + j] = sum[j];
  __syncthreads();
  const int64_t c = int64_t(at.block) * lanes * V + threadIdx.x;
  if (threadIdx.x < lanes * V && c < channels) {
    A total = 0;
    for (int r = 0; r < at.rows; ++r) total += shared[r * lanes * V + threadIdx.x];
    to[c] = total;
  }
  __syncthreads();
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads) columns_backward(const Args<T> p, uint64_t tasks) {
  using A = Accumulate<T>;
  __shared__ A shared[kThreads * V];
  const int lanes = 1 << p.log_lanes;
  for (uint64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
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
        A u[V] = {}, x[V], dx[V];
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
        if (at.lane == 0 && pixel < at.end) p.dnoise[(int64_t(at.block) * p.outer + at.n) * p.inner + pixel] = total;
      }
    }
    // [samples, chunks, channels]
    const int64_t to = (at.n * p.pieces + at.piece) * p.channels;
    if (p.sum_dz) add_rows<V>(shared, at, sum, lanes, p.channels, p.sum_dz + to);
    if (p.sum_dz_x) add_rows<V>(shared, at, sum_x, lanes, p.channels, p.sum_dz_x + to);
  }
}

// out[i, j] = sum over k0, k1 of partials, each index with its stride
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
      const uint64_t row = uint64_t(i) / uint64_t(p.columns);
      const A* from = partials + int64_t(row) * p.row_stride + (i - int64_t(row) * p.columns) * p.column_stride;
      for (int64_t k = lane; k < p.k0 * p.k1; k += lanes) {
        const uint64_t k0 = uint64_t(k) / uint64_t(p.k1);
        sum += from[int64_t(k0) * p.k0_stride + (k - int64_t(k0) * p.k1) * p.k1_stride];
      }
    }
    sum = group_sum(sum, lanes);
    if (i < total && lane == 0) out[i] = sum;
  }
}

struct Operands {
  OptionalTensor b, scale, noise;
};

Operands operands(const Tensor& x, const OptionalTensor& b, const OptionalTensor& scale, const OptionalTensor& noise,
                  int64_t dim) {
  int64_t inner = 1;
  for (int64_t i = 2; i < x.dim(); ++i) inner *= x.size(i);
  const int64_t samples = noise.has_value() && noise->dim() > 0 ? noise->size(0) : 1;
  STD_TORCH_CHECK(!b.has_value() || (dim >= 0 && dim < x.dim()), "imgops::bias_act: dim out of range");
  STD_TORCH_CHECK((!scale.has_value() && !noise.has_value()) || (dim == 1 && x.dim() >= 2),
                  "imgops::bias_act: scale and noise need dim = 1");
  STD_TORCH_CHECK(!noise.has_value() || samples == 1 || samples == x.size(0), "imgops::bias_act: noise must have 1 or N samples");
  return {operand(b, x, "b", b.has_value() ? x.size(dim) : 0),
          operand(scale, x, "scale", scale.has_value() ? x.size(0) * x.size(1) : 0),
          operand(noise, x, "noise", samples * inner)};
}

// How memory is cut for the kernels; x is dense in one of the two formats.
struct Plan {
  bool columns = false, vectorised = false;
  int64_t outer = 1, channels = 1, inner = 1, pieces = 1, per_task = 1;
  int vectors = 1, log_lanes = 0;
  uint64_t tasks = 1;
  int64_t ranges() const { return ceil_div(channels, per_task); }
};

Plan shape(const Tensor& x, bool channels_last, int64_t dim, bool per_channel, bool per_sample) {
  Plan p;
  if (!per_channel && !per_sample) {
    p.inner = x.numel();
    return p;
  }
  STD_TORCH_CHECK(dim >= 0 && dim < x.dim(), "imgops::bias_act: dim must be in [0, ", x.dim(), "); got ", dim);
  std::vector<int64_t> order(x.dim());
  for (int64_t i = 0; i < x.dim(); ++i) order[i] = i;
  if (channels_last) order = {0, 2, 3, 1};
  int64_t* product = &p.outer;
  for (const int64_t d : order) {
    if (d == dim) {
      p.channels = x.size(d);
      product = &p.inner;
    } else {
      *product *= x.size(d);
    }
  }
  p.columns = p.inner == 1;
  if (p.columns) {
    const int64_t samples = per_sample ? x.size(0) : 1;
    p.inner = p.outer / samples;
    p.outer = samples;
  }
  return p;
}

// Fill in the tasks of a plan for vectors of `width` elements.
void cut(Plan& p, int width, bool dnoise, int processors) {
  const int v = p.vectorised ? width : 1;
  const int64_t warps = int64_t(processors) * 64;
  if (p.columns) {
    p.log_lanes = log2_ceil(ceil_div(p.channels, v), 5);
    const int64_t rows = kThreads >> p.log_lanes, blocks = ceil_div(p.channels, int64_t(v) << p.log_lanes);
    const int64_t wanted = ceil_div(warps, p.outer * blocks);
    p.pieces = std::clamp<int64_t>(wanted, 1, ceil_div(p.inner, rows * 4));
    p.per_task = ceil_div(ceil_div(p.inner, p.pieces), rows) * rows;
    p.pieces = ceil_div(p.inner, p.per_task);
    p.tasks = uint64_t(p.outer) * p.pieces * blocks;
    return;
  }
  p.log_lanes = log2_ceil(ceil_div(p.inner, v), 5);
  const int64_t lanes = int64_t(1) << p.log_lanes, rows = p.outer * p.channels;
  if (dnoise) {
    p.pieces = ceil_div(p.inner, lanes * v);
    // enough tasks to fill the card, in ranges long enough that the partials of dnoise stay small
    const int64_t ranges = ceil_div(warps * 32, std::max<int64_t>(1, p.outer * p.pieces * lanes));
    p.per_task = std::max(ceil_div(p.channels, ranges), std::min<int64_t>(p.channels, 16));
  } else {
    for (p.vectors = 8; p.vectors > 1; p.vectors /= 2) {
      if (rows * ceil_div(p.inner, lanes * v * p.vectors) * lanes >= warps * 32) break;
    }
    p.pieces = ceil_div(p.inner, lanes * v * p.vectors);
  }
  p.tasks = uint64_t(p.outer) * p.ranges() * p.pieces;
}

template <class T>
Args<T> arguments(const Plan& plan, const Operands& t, Act act, double alpha, double gain, double clamp) {
  using A = Accumulate<T>;
  Args<T> p{};
  p.b = pointer<A>(t.b);
  p.scale = pointer<A>(t.scale);
  p.noise = pointer<A>(t.noise);
  p.outer = plan.outer;
  p.channels = plan.channels;
  p.inner = plan.inner;
  p.noise_stride = t.noise.has_value() && t.noise->size(0) > 1 ? plan.inner : 0;
  p.pieces = plan.pieces;
  p.per_task = plan.per_task;
  p.vectors = plan.vectors;
  p.log_lanes = plan.log_lanes;
  p.act = act;
  p.alpha = A(alpha);
  p.gain = A(gain);
  p.clamp = A(clamp);
  return p;
}

// Whether rows (or columns) of T can be accessed by vectors from these addresses.
template <class T>
bool vectors_fit(const Plan& p, std::initializer_list<const void*> addresses) {
  constexpr int64_t width = 16 / sizeof(T);
  for (const void* address : addresses) {
    if (!aligned16(address)) return false;
  }
  return p.columns ? p.channels % width == 0 : p.inner % width == 0 || p.outer * p.channels == 1;
}

Tensor bias_act(const Tensor& x_, const OptionalTensor& b, const OptionalTensor& scale, const OptionalTensor& noise,
                int64_t dim, std::string act, double alpha, double gain, double clamp) {
  const Launch launch(x_);
  const bool channels_last = is_channels_last(x_);
  const Tensor x = in_format(x_, channels_last);
  const Operands t = operands(x, b, scale, noise, dim);
  const Tensor out = allocate(x, shape_of(x), x.scalar_type(), channels_last);
  if (x.numel() == 0) return out;
  Plan plan = shape(x, channels_last, dim, t.b.has_value(), t.scale.has_value() || t.noise.has_value());
  with_dtype(x, [&](auto tag) {
    using T = decltype(tag);
    constexpr int width = 16 / sizeof(T);
    plan.vectorised = vectors_fit<T>(plan, {x.data_ptr(), t.noise.has_value() ? t.noise->data_ptr() : nullptr});
    cut(plan, width, false, launch.processors());
    Args<T> p = arguments<T>(plan, t, act_of(act), alpha, gain, clamp);
    p.x = static_cast<const T*>(x.data_ptr());
    p.out = static_cast<T*>(out.data_ptr());
    const auto run = [&](auto v) {
      constexpr int V = decltype(v)::value;
      if (plan.columns) {
        columns_forward<T, V><<<launch.blocks(plan.tasks, 64), kThreads, 0, launch.stream()>>>(p, plan.tasks);
      } else {
        const int64_t blocks = ceil_div(plan.tasks, kThreads >> plan.log_lanes);
        rows_forward<T, V><<<launch.blocks(blocks, 64), kThreads, 0, launch.stream()>>>(p);
      }
    };
    plan.vectorised ? run(std::integral_constant<int, width>{}) : run(std::integral_constant<int, 1>{});
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

template <class A>
void add(const Launch& launch, const Tensor& partials, const Tensor& out, const Sum& sum) {
  if (partials.data_ptr() == out.data_ptr()) return;
  const int log_lanes = log2_ceil(sum.k0 * sum.k1, 5);
  const int64_t blocks = ceil_div(sum.rows * sum.columns, kThreads >> log_lanes);
  add_partials<<<launch.blocks(blocks, 32), kThreads, 0, launch.stream()>>>(
      static_cast<const A*>(partials.data_ptr()), static_cast<A*>(out.data_ptr()), sum, log_lanes);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

std::tuple<Tensor, Tensor, Tensor, Tensor> bias_act_backward(
    const Tensor& dy_, const OptionalTensor& x_, const OptionalTensor& y_, const OptionalTensor& b,
    const OptionalTensor& scale, const OptionalTensor& noise, int64_t dim, std::string act, double alpha, double gain,
    double clamp, bool needs_b, bool needs_scale, bool needs_noise) {
  const Launch launch(dy_);
  const Tensor& like = x_.has_value() ? *x_ : y_.has_value() ? *y_ : dy_;
  STD_TORCH_CHECK(like.scalar_type() == dy_.scalar_type() && like.numel() == dy_.numel(),
                  "imgops::bias_act_backward: dy must have the shape and dtype of x and y");
  STD_TORCH_CHECK(!needs_scale || (x_.has_value() && dy_.dim() >= 2), "imgops::bias_act_backward: dscale needs x");
  STD_TORCH_CHECK(!needs_noise || dy_.dim() >= 2, "imgops::bias_act_backward: dnoise needs 2 or more dimensions");
  const bool channels_last = is_channels_last(like);
  const Tensor dy = in_format(dy_, channels_last);
  OptionalTensor x, y;
  if (x_.has_value()) x = in_format(*x_, channels_last);
  if (!x && y_.has_value()) y = in_format(*y_, channels_last);
  const Operands t = operands(dy, b, scale, noise, dim);
  const Tensor dx = allocate(dy, shape_of(dy), dy.scalar_type(), channels_last);
  const ScalarType wide = accumulation_type(dy);

  std::vector<int64_t> noise_shape{0};
  if (needs_noise) {
    noise_shape = shape_of(dy);
    noise_shape[1] = 1;
  }
  const auto sums = [&](bool needed, std::vector<int64_t> size) {
    Tensor out = allocate(dy, needed ? size : std::vector<int64_t>{0}, wide);
    if (dy.numel() == 0) torch::stable::zero_(out);
    return out;
  };
  const Tensor db = sums(needs_b, {needs_b ? dy.size(dim) : 0});
  const Tensor dscale = sums(needs_scale, {dy.dim() >= 2 ? dy.size(0) : 0, dy.dim() >= 2 ? dy.size(1) : 0});
  const Tensor dnoise = sums(needs_noise, noise_shape);
  if (dy.numel() == 0) return {dx, db, dscale, dnoise};

  const bool per_sample = t.scale.has_value() || t.noise.has_value() || needs_scale || needs_noise;
  Plan plan = shape(dy, channels_last, dim, t.b.has_value() || needs_b, per_sample);
  with_dtype(dy, [&](auto tag) {
    using T = decltype(tag);
    using A = Accumulate<T>;
    constexpr int width = 16 / sizeof(T);
    plan.vectorised = vectors_fit<T>(
        plan, {dy.data_ptr(), x ? x->data_ptr() : nullptr, y ? y->data_ptr() : nullptr, t.noise ? t.noise->data_ptr() : nullptr});
    cut(plan, width, needs_noise, launch.processors());
    Args<T> p = arguments<T>(plan, t, act_of(act), alpha, gain, clamp);
    p.dy = static_cast<const T*>(dy.data_ptr());
    p.x = pointer<T>(x);
    p.y = pointer<T>(y);
    p.out = static_cast<T*>(dx.data_ptr());

    // partials, or the result itself where there is nothing to add
    const int64_t parts = plan.outer * plan.pieces * plan.channels;
    const int64_t v = plan.vectorised ? width : 1;
    const int64_t noise_parts = plan.columns ? ceil_div(plan.channels, v << plan.log_lanes) : plan.ranges();
    const auto partials = [&](bool needed, const Tensor& out, int64_t size) {
      return !needed || size == out.numel() ? out : allocate(dy, {size}, wide);
    };
    const Tensor part_b = partials(needs_b, db, parts), part_scale = partials(needs_scale, dscale, parts);
    const Tensor part_noise = partials(needs_noise, dnoise, noise_parts * plan.outer * plan.inner);
    const auto target = [](bool needed, const Tensor& t) { return needed ? static_cast<A*>(t.data_ptr()) : nullptr; };
    p.sum_dz = target(needs_b, part_b);
    p.sum_dz_x = target(needs_scale, part_scale);
    p.dnoise = target(needs_noise, part_noise);

    const auto run = [&](auto v) {
      constexpr int V = decltype(v)::value;
      const int64_t blocks = ceil_div(plan.tasks, kThreads >> plan.log_lanes);
      if (plan.columns) {
        columns_backward<T, V><<<launch.blocks(plan.tasks, 64), kThreads, 0, launch.stream()>>>(p, plan.tasks);
      } else if (needs_noise) {
        rows_backward<T, V, true><<<launch.blocks(blocks, 64), kThreads, 0, launch.stream()>>>(p);
      } else {
        rows_backward<T, V, false><<<launch.blocks(blocks, 64), kThreads, 0, launch.stream()>>>(p);
      }
    };
    plan.vectorised ? run(std::integral_constant<int, width>{}) : run(std::integral_constant<int, 1>{});
    STD_CUDA_KERNEL_LAUNCH_CHECK();

    const int64_t n = plan.outer, c = plan.channels, s = plan.pieces;
    if (needs_b) {
      add<A>(launch, part_b, db, plan.columns ? Sum{1, c, 0, 1, 1, n * s, 0, c} : Sum{1, c, 0, s, n, s, c * s, 1});
    }
    if (needs_scale) {
      add<A>(launch, part_scale, dscale, plan.columns ? Sum{n, c, s * c, 1, 1, s, 0, c} : Sum{1, n * c, 0, s, 1, s, 0, 1});
    }
    if (needs_noise) {
      const int64_t pixels = n * plan.inner;
      add<A>(launch, part_noise, dnoise, Sum{1, pixels, 0, 1, 1, noise_parts, 0, pixels});
    }
  });
  return {dx, db, dscale, dnoise};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(imgops, CUDA, m) {
  m.impl("bias_act", TORCH_BOX(&bias_act));
  m.impl("bias_act_backward", TORCH_BOX(&bias_act_backward));
}

}  // namespace imgops
