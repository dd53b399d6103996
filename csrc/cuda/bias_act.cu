// bias_act and its backward on CUDA: how memory is divided into tasks, and which kernel runs them.
#include "bias_act.cuh"

namespace imgops {
namespace {

constexpr int kWaves = 64;

// How memory is cut for the kernels; x is dense in one of the two formats.
struct Plan {
  bool columns = false, vectorized = false;
  int64_t outer = 1, channels = 1, inner = 1, pieces = 1, per_task = 1;
  int vectors = 1, log_lanes = 0;
  int64_t tasks = 1;
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

// Divide a plan into tasks, for vectors of `width` elements.
void cut(Plan& p, int width, bool dnoise, int processors) {
  const int v = p.vectorized ? width : 1;
  const int64_t warps = int64_t(processors) * 64;
  if (p.columns) {
    p.log_lanes = log2_ceil(ceil_div(p.channels, v), 5);
    const int64_t rows = kThreads >> p.log_lanes, blocks = ceil_div(p.channels, int64_t(v) << p.log_lanes);
    const int64_t wanted = ceil_div(warps, p.outer * blocks);
    p.pieces = std::clamp<int64_t>(wanted, 1, ceil_div(p.inner, rows * 4));
    p.per_task = ceil_div(ceil_div(p.inner, p.pieces), rows) * rows;
    p.pieces = ceil_div(p.inner, p.per_task);
    p.tasks = p.outer * p.pieces * blocks;
    return;
  }
  p.log_lanes = log2_ceil(ceil_div(p.inner, v), 5);
  const int64_t lanes = int64_t(1) << p.log_lanes, rows = p.outer * p.channels;
  if (dnoise) {
    p.pieces = ceil_div(p.inner, lanes * v);
    // enough tasks to fill the GPU, in ranges long enough that the partial sums of dnoise stay small
    const int64_t ranges = ceil_div(warps * 32, std::max<int64_t>(1, p.outer * p.pieces * lanes));
    p.per_task = std::max(ceil_div(p.channels, ranges), std::min<int64_t>(p.channels, 16));
  } else {
    for (p.vectors = 8; p.vectors > 1; p.vectors /= 2) {
      if (rows * ceil_div(p.inner, lanes * v * p.vectors) * lanes >= warps * 32) break;
    }
    p.pieces = ceil_div(p.inner, lanes * v * p.vectors);
  }
  p.tasks = p.outer * p.ranges() * p.pieces;
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
  p.noise_stride = t.noise_stride;
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

Tensor bias_act(const Tensor& x_, int64_t dim, const OptionalTensor& b, const OptionalTensor& scale,
                const OptionalTensor& noise, std::string act, double alpha, double gain, double clamp) {
  const Launch launch(x_);
  const bool channels_last = is_channels_last(x_);
  const Tensor x = in_format(x_, channels_last);
  const Operands t = operands(x, shape_of(x), b, scale, noise, dim);
  const Tensor out = allocate(x, shape_of(x), x.scalar_type(), channels_last);
  if (x.numel() == 0) return out;
  Plan plan = shape(x, channels_last, dim, t.b.has_value(), t.scale.has_value() || t.noise.has_value());
  with_dtype(x, [&](auto tag) {
    using T = decltype(tag);
    constexpr int width = 16 / sizeof(T);
    plan.vectorized = vectors_fit<T>(plan, {x.data_ptr(), t.noise.has_value() ? t.noise->data_ptr() : nullptr});
    cut(plan, width, false, launch.processors());
    Args<T> p = arguments<T>(plan, t, act_of(act), alpha, gain, clamp);
    p.x = static_cast<const T*>(x.data_ptr());
    p.out = static_cast<T*>(out.data_ptr());
    const auto run = [&](auto v) {
      constexpr int V = decltype(v)::value;
      if (plan.columns) {
        launch(columns_forward<T, V>, plan.tasks, kWaves, kThreads, 0, p, plan.tasks);
      } else {
        launch(rows_forward<T, V>, ceil_div(plan.tasks, kThreads >> plan.log_lanes), kWaves, kThreads, 0, p);
      }
    };
    plan.vectorized ? run(std::integral_constant<int, width>{}) : run(std::integral_constant<int, 1>{});
  });
  return out;
}

template <class A>
void add(const Launch& launch, const Tensor& partials, const Tensor& out, const Sum& sum) {
  if (partials.data_ptr() == out.data_ptr()) return;
  const int log_lanes = log2_ceil(sum.k0 * sum.k1, 5);
  const int64_t blocks = ceil_div(sum.rows * sum.columns, kThreads >> log_lanes);
  launch(add_partials<A>, blocks, kWaves, kThreads, 0, static_cast<const A*>(partials.data_ptr()),
         static_cast<A*>(out.data_ptr()), sum, log_lanes);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> bias_act_backward(const Tensor& dy_, const OptionalTensor& x_,
                                                             const OptionalTensor& y_, int64_t dim,
                                                             const OptionalTensor& b, const OptionalTensor& scale,
                                                             const OptionalTensor& noise, std::string act, double alpha,
                                                             double gain, double clamp, bool needs_b, bool needs_scale,
                                                             bool needs_noise) {
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
  const Operands t = operands(dy, shape_of(dy), b, scale, noise, dim);
  const Tensor dx = allocate(dy, shape_of(dy), dy.scalar_type(), channels_last);
  const ScalarType acc_type = accumulation_type(dy);

  std::vector<int64_t> noise_shape{0};
  if (needs_noise) {
    noise_shape = shape_of(dy);
    noise_shape[1] = 1;
  }
  const auto sums = [&](bool needed, std::vector<int64_t> size) {
    Tensor out = allocate(dy, needed ? size : std::vector<int64_t>{0}, acc_type);
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
    const auto address = [](const OptionalTensor& one) { return one.has_value() ? one->data_ptr() : nullptr; };
    plan.vectorized = vectors_fit<T>(plan, {dy.data_ptr(), address(x), address(y), address(t.noise)});
    cut(plan, width, needs_noise, launch.processors());
    Args<T> p = arguments<T>(plan, t, act_of(act), alpha, gain, clamp);
    p.dy = static_cast<const T*>(dy.data_ptr());
    p.x = pointer<T>(x);
    p.y = pointer<T>(y);
    p.out = static_cast<T*>(dx.data_ptr());

    // partial sums, or the result itself where there is only one
    const int64_t parts = plan.outer * plan.pieces * plan.channels;
    const int64_t v = plan.vectorized ? width : 1;
    const int64_t noise_parts = plan.columns ? ceil_div(plan.channels, v << plan.log_lanes) : plan.ranges();
    const auto partials = [&](bool needed, const Tensor& out, int64_t size) {
      return !needed || size == out.numel() ? out : allocate(dy, {size}, acc_type);
    };
    const Tensor part_b = partials(needs_b, db, parts), part_scale = partials(needs_scale, dscale, parts);
    const Tensor part_noise = partials(needs_noise, dnoise, noise_parts * plan.outer * plan.inner);
    const auto target = [](bool needed, const Tensor& sum) {
      return needed ? static_cast<A*>(sum.data_ptr()) : nullptr;
    };
    p.sum_dz = target(needs_b, part_b);
    p.sum_dz_x = target(needs_scale, part_scale);
    p.dnoise = target(needs_noise, part_noise);

    const auto run = [&](auto samples) {
      constexpr int V = decltype(samples)::value;
      const int64_t blocks = ceil_div(plan.tasks, kThreads >> plan.log_lanes);
      if (plan.columns) {
        launch(columns_backward<T, V>, plan.tasks, kWaves, kThreads, 0, p, plan.tasks);
      } else if (needs_noise) {
        launch(rows_backward<T, V, true>, blocks, kWaves, kThreads, 0, p);
      } else {
        launch(rows_backward<T, V, false>, blocks, kWaves, kThreads, 0, p);
      }
    };
    plan.vectorized ? run(std::integral_constant<int, width>{}) : run(std::integral_constant<int, 1>{});

    const int64_t n = plan.outer, c = plan.channels, s = plan.pieces;
    if (needs_b) {
      add<A>(launch, part_b, db, plan.columns ? Sum{1, c, 0, 1, 1, n * s, 0, c} : Sum{1, c, 0, s, n, s, c * s, 1});
    }
    if (needs_scale) {
      const Sum sum = plan.columns ? Sum{n, c, s * c, 1, 1, s, 0, c} : Sum{1, n * c, 0, s, 1, s, 0, 1};
      add<A>(launch, part_scale, dscale, sum);
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
  m.impl("bias_act", IMGOPS_BOX(&bias_act));
  m.impl("bias_act_backward", IMGOPS_BOX(&bias_act_backward));
}

}  // namespace imgops
