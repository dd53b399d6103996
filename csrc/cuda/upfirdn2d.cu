// upfirdn2d on CUDA, alone or with bias_act as its epilogue: which kernel solves which problem.
#include "ops.h"
#include "upfirdn2d_any.cuh"
#include "upfirdn2d_four_taps.cuh"

namespace imgops {
namespace {

constexpr int kWaves = 32;
// shared memory that a block may use on every GPU without asking for more
constexpr int64_t kSharedBytes = 48 * 1024 - 512;

struct Options {
  Operands operands;
  bool fused = false, keep = false;
  Act act = Act::linear;
  double alpha = 0, gain = 1, clamp = -1;
};

struct Problem {
  Tensor x;
  OptionalTensor f;
  std::vector<int64_t> up, down, padding;
  bool channels_last;
  int64_t out_h, out_w;
};

template <class In, class Out>
Resample<In, Out> resample(const Problem& q, const Filter& f, const Options& o) {
  using A = Accumulate<In>;
  Resample<In, Out> p{};
  p.x = static_cast<const In*>(q.x.data_ptr());
  p.samples = q.x.size(0);
  p.channels = q.x.size(1);
  p.h = int(q.x.size(2));
  p.w = int(q.x.size(3));
  p.out_h = int(q.out_h);
  p.out_w = int(q.out_w);
  p.up_x = int(q.up[0]);
  p.up_y = int(q.up[1]);
  p.down_x = int(q.down[0]);
  p.down_y = int(q.down[1]);
  p.pad_x = int(q.padding[0]);
  p.pad_y = int(q.padding[2]);
  p.f = f;
  p.epilogue.b = pointer<A>(o.operands.b);
  p.epilogue.scale = pointer<A>(o.operands.scale);
  p.epilogue.noise = pointer<A>(o.operands.noise);
  p.epilogue.noise_stride = o.operands.noise_stride;
  p.epilogue.fused = o.fused;
  p.epilogue.act = o.act;
  p.epilogue.alpha = A(o.alpha);
  p.epilogue.gain = A(o.gain);
  p.epilogue.clamp = A(o.clamp);
  return p;
}

// Output (<= 0) and input at which strips of phase 0 start, along one axis.
template <int kUp, int kDown>
void strip_origin(int pad, int& out, int& in) {
  for (out = 0; (out * kDown - pad) % kUp != 0; --out) {}
  in = (out * kDown - pad) / kUp;
}

template <class T, int kUp, int kDown>
void run_four_taps(const Launch& launch, const Resample<T, T>& p, bool channels_last) {
  // more channels per thread would take so many registers that too few threads fit
  constexpr int width = 4;
  Strips s{};
  strip_origin<kUp, kDown>(p.pad_x, s.out_x, s.in_x);
  strip_origin<kUp, kDown>(p.pad_y, s.out_y, s.in_y);
  if (channels_last) {
    s.count_x = ceil_div(p.out_w - s.out_x, kChannelsLastX);
    s.count_y = ceil_div(p.out_h - s.out_y, kChannelsLastY<kDown>);
    const auto run = [&](auto v) {
      constexpr int V = decltype(v)::value;
      s.count = p.samples * s.count_y * s.count_x * (p.channels / V);
      launch(channels_last_four_taps<T, V, kUp, kDown>, ceil_div(s.count, kStripThreads), kWaves, kStripThreads, 0, p,
             s);
    };
    const bool vectorized = p.channels % width == 0 && aligned16(p.x);
    return vectorized ? run(std::integral_constant<int, width>{}) : run(std::integral_constant<int, 1>{});
  }
  using S = PlanarStrip<kUp, kDown>;
  const int64_t columns = ceil_div(p.out_w - s.out_x, S::kX);
  s.log_lanes = std::max(3, log2_ceil(columns + S::kBehind, 5));
  s.count_x = ceil_div(columns, (1 << s.log_lanes) - S::kBehind);
  s.count_y = ceil_div(p.out_h - s.out_y, S::kY);
  s.count = s.count_x * s.count_y * ceil_div(p.samples * p.channels, 32 >> s.log_lanes);
  launch(planar_four_taps<T, kUp, kDown>, ceil_div(s.count, kStripThreads / 32), kWaves, kStripThreads, 0, p, s);
}

// The largest tile that fits; false if none does.
template <class T>
bool plan_tiles(const Resample<T, T>& p, bool channels_last, Tiles& t) {
  t.w = channels_last ? 8 : 32;
  t.h = channels_last ? 8 : 16;
  t.c = channels_last ? 1 << log2_ceil(p.channels, 4) : 1;
  t.w = std::min(t.w, 1 << log2_ceil(p.out_w, 5));
  t.h = std::min(t.h, 1 << log2_ceil(p.out_h, 5));
  for (;;) {
    t.in_w = (int64_t(t.w - 1) * p.down_x + p.f.w - 1) / p.up_x + 1;
    t.in_h = (int64_t(t.h - 1) * p.down_y + p.f.h - 1) / p.up_y + 1;
    if (tile_values(p.f, t) * int64_t(sizeof(Accumulate<T>)) <= kSharedBytes) break;
    if (t.h > 1 && t.h >= t.w) t.h /= 2;
    else if (t.w > 1) t.w /= 2;
    else if (t.c > 1) t.c /= 2;
    else return false;
  }
  t.count_x = ceil_div(p.out_w, t.w);
  t.count_y = ceil_div(p.out_h, t.h);
  t.count_c = ceil_div(p.channels, t.c);
  t.count = p.samples * t.count_c * t.count_y * t.count_x;
  return true;
}

template <class In, class Out>
void run_any_output(const Launch& launch, const Resample<In, Out>& p, bool channels_last) {
  const int64_t total = p.samples * p.channels * p.out_h * p.out_w;
  launch(any_output<In, Out>, ceil_div(total, kTileThreads), kWaves, kTileThreads, 0, p, channels_last);
}

// For a filter too long for shared memory: one axis at a time if it is separable, with an intermediate image of sums.
template <class T>
void run_without_tiles(const Launch& launch, const Problem& q, const Resample<T, T>& p, const Options& o) {
  using A = Accumulate<T>;
  if (!p.f.vector) return run_any_output(launch, p, q.channels_last);
  Problem along_x = q, along_y = q;
  along_x.up[1] = along_x.down[1] = along_y.up[0] = along_y.down[0] = 1;
  along_x.padding[2] = along_y.padding[0] = 0;
  along_x.out_h = q.x.size(2);
  along_y.x = allocate(q.x, {p.samples, p.channels, along_x.out_h, q.out_w}, accumulation_type(q.x), q.channels_last);
  Filter fx = p.f, fy = p.f;
  fx.vector = fy.vector = false;
  fx.h = fy.w = 1;
  auto first = resample<T, A>(along_x, fx, Options{});
  first.y = static_cast<A*>(along_y.x.data_ptr());
  run_any_output(launch, first, q.channels_last);
  auto second = resample<A, T>(along_y, fy, o);
  second.y = p.y;
  second.filtered = p.filtered;
  run_any_output(launch, second, q.channels_last);
}

std::tuple<Tensor, Tensor> run(const Tensor& x, const OptionalTensor& f, const std::vector<int64_t>& up,
                               const std::vector<int64_t>& down, const std::vector<int64_t>& padding, bool flip_filter,
                               double gain, Options o, bool channels_last) {
  STD_TORCH_CHECK(x.dim() == 4 && up.size() == 2 && down.size() == 2 && padding.size() == 4,
                  "imgops::upfirdn2d: x must be 4-D, up and down (x, y), padding (x0, x1, y0, y1)");
  STD_TORCH_CHECK(std::min({up[0], up[1], down[0], down[1]}) >= 1, "imgops::upfirdn2d: up and down must be >= 1");
  const Launch launch(x);
  Problem q{x, f, up, down, padding, channels_last, 0, 0};
  q.x = in_format(x, q.channels_last);
  const Filter filter = filter_of(f, x, flip_filter, gain, q.f);
  // kernels compute positions along an axis in 32 bits
  STD_TORCH_CHECK(std::max({up[0], up[1], down[0], down[1]}) < (1 << 16),
                  "imgops::upfirdn2d: up and down must be < 65536");
  const int64_t up_w = x.size(3) * up[0], up_h = x.size(2) * up[1];
  const int64_t extent_x = up_w + padding[0] + padding[1], extent_y = up_h + padding[2] + padding[3];
  const int64_t most = std::max({extent_x, extent_y, up_w, up_h, std::abs(padding[0]), std::abs(padding[2])});
  STD_TORCH_CHECK(most < (int64_t(1) << 30), "imgops::upfirdn2d: the up-sampled image is too large");
  q.out_w = (extent_x - filter.w + down[0]) / down[0];
  q.out_h = (extent_y - filter.h + down[1]) / down[1];
  STD_TORCH_CHECK(q.out_w >= 1 && q.out_h >= 1, "imgops::upfirdn2d: the output has no pixels");

  const std::vector<int64_t> size{x.size(0), x.size(1), q.out_h, q.out_w};
  o.operands = operands(x, size, o.operands.b, o.operands.scale, o.operands.noise);
  const Tensor y = allocate(x, size, x.scalar_type(), q.channels_last);
  const std::vector<int64_t> kept = o.keep ? size : std::vector<int64_t>{0};
  const Tensor filtered = allocate(x, kept, x.scalar_type(), o.keep && q.channels_last);
  if (y.numel() == 0) return {y, filtered};

  with_dtype(x, [&](auto tag) {
    using T = decltype(tag);
    auto p = resample<T, T>(q, filter, o);
    p.y = static_cast<T*>(y.data_ptr());
    p.filtered = o.keep ? static_cast<T*>(filtered.data_ptr()) : nullptr;
    // float64 is for checking, not for training: the general kernel is fast enough
    if constexpr (!std::is_same_v<T, double>) {
      const bool same = up[0] == up[1] && down[0] == down[1];
      const bool four_taps = same && filter.w == 4 && filter.h == 4 && linear_in_pieces(o.act);
      if (four_taps && up[0] == 1 && down[0] == 1) return run_four_taps<T, 1, 1>(launch, p, q.channels_last);
      if (four_taps && up[0] == 2 && down[0] == 1) return run_four_taps<T, 2, 1>(launch, p, q.channels_last);
      if (four_taps && up[0] == 1 && down[0] == 2) return run_four_taps<T, 1, 2>(launch, p, q.channels_last);
    }
    Tiles tiles{};
    if (!plan_tiles(p, q.channels_last, tiles)) return run_without_tiles<T>(launch, q, p, o);
    const size_t shared = tile_values(p.f, tiles) * sizeof(Accumulate<T>);
    launch(any_tile<T>, tiles.count, kWaves, kTileThreads, shared, p, tiles, q.channels_last);
  });
  return {y, filtered};
}

Tensor upfirdn2d(const Tensor& x, const OptionalTensor& f, std::vector<int64_t> up, std::vector<int64_t> down,
                 std::vector<int64_t> padding, bool flip_filter, double gain) {
  return resample_cuda(x, f, up, down, padding, flip_filter, gain, is_channels_last(x));
}

std::tuple<Tensor, Tensor> upfirdn2d_bias_act(const Tensor& x, const OptionalTensor& f, std::vector<int64_t> up,
                                              std::vector<int64_t> down, std::vector<int64_t> padding, bool flip_filter,
                                              double gain, const OptionalTensor& b, const OptionalTensor& scale,
                                              const OptionalTensor& noise, std::string act, double alpha,
                                              double act_gain, double clamp, bool keep) {
  const Options o{{b, scale, noise}, true, keep, act_of(act), alpha, act_gain, clamp};
  return run(x, f, up, down, padding, flip_filter, gain, o, is_channels_last(x));
}

}  // namespace

Tensor resample_cuda(const Tensor& x, const OptionalTensor& f, const std::vector<int64_t>& up,
                     const std::vector<int64_t>& down, const std::vector<int64_t>& padding, bool flip_filter,
                     double gain, bool channels_last) {
  return std::get<0>(run(x, f, up, down, padding, flip_filter, gain, Options{}, channels_last));
}

STABLE_TORCH_LIBRARY_IMPL(imgops, CUDA, m) {
  m.impl("upfirdn2d", IMGOPS_BOX(&upfirdn2d));
  m.impl("upfirdn2d_bias_act", IMGOPS_BOX(&upfirdn2d_bias_act));
}

}  // namespace imgops
