// filtered_lrelu on CUDA: one pass where the filters are as long as StyleGAN3's, else a sequence of simpler ops.
#include "filtered_lrelu.cuh"

#include "filtered_lrelu_tile.cuh"
#include "ops.h"

namespace imgops {
namespace {

constexpr int kWaves = 16;

struct Problem {
  Tensor x;
  OptionalTensor fu, fd, b;
  int64_t up, down;
  std::vector<int64_t> padding_up, padding_down;
  bool flip_filter;
  double gain_up, gain_down;
  Activation act;
  bool channels_last;
};

// (width, height) of the image after a resampling step.
std::pair<int64_t, int64_t> resampled(int64_t w, int64_t h, const Filter& f, int64_t up, int64_t down,
                                      const std::vector<int64_t>& padding) {
  const auto size = [&](int64_t n, int64_t before, int64_t after, int64_t taps) {
    const int64_t most = std::max({n * up, n * up + before + after, std::abs(before)});
    STD_TORCH_CHECK(most < (int64_t(1) << 30), "imgops::filtered_lrelu: the up-sampled image is too large");
    return (n * up + before + after - taps + down) / down;
  };
  return {size(w, padding[0], padding[1], f.w), size(h, padding[2], padding[3], f.h)};
}

Strides strides_of(const std::vector<int64_t>& size, bool channels_last) {
  const int64_t c = size[1], h = size[2], w = size[3];
  if (channels_last) return {h * w * c, 1, w * c, c};
  return {c * h * w, h * w, w, 1};
}

template <int kUp, int kDown, bool kUp2d, bool kDown2d>
void pass(const Launch& launch, FilteredLrelu p) {
  using P = Pass<kUp, kDown, kUp2d, kDown2d>;
  p.count_x = int(ceil_div(p.out_w, P::kOut));
  p.count_y = int(ceil_div(p.out_h, P::kOut));
  p.count = int64_t(p.count_x) * p.count_y * p.samples * p.channels;
  launch(filtered_lrelu_pass<kUp, kDown, kUp2d, kDown2d>, p.count, kWaves, kPassThreads, P::kShared * sizeof(float), p);
}

// Whether the single pass supports these factors and filters.
bool fits(const Problem& q, const Filter& fu, const Filter& fd) {
  const bool sizes = fu.w == q.up * kPhaseTaps && fu.h == fu.w && fd.w == q.down * kPhaseTaps && fd.h == fd.w;
  if (!sizes || q.x.scalar_type() == ScalarType::Double || (!fu.vector && !fd.vector)) return false;
  if (q.up == 2 && q.down == 2) return true;
  return (q.up == 4 && q.down == 2 && fu.vector) || (q.up == 2 && q.down == 4 && fd.vector);
}

// A 2-D filter may be the product of two 1-D filters, which only the device knows: two kernels are launched, one runs.
void run_pass(const Launch& launch, const Problem& q, const FilteredLrelu& p) {
  if (q.up == 4) {
    pass<4, 2, false, false>(launch, p);
    if (!p.fd.vector) pass<4, 2, false, true>(launch, p);
  } else if (q.down == 4) {
    pass<2, 4, false, false>(launch, p);
    if (!p.fu.vector) pass<2, 4, true, false>(launch, p);
  } else {
    pass<2, 2, false, false>(launch, p);
    if (!p.fd.vector) pass<2, 2, false, true>(launch, p);
    if (!p.fu.vector) pass<2, 2, true, false>(launch, p);
  }
}

template <class From, class To>
void convert(const Launch& launch, const Tensor& x, const Tensor& y, const OptionalTensor& b, bool channels_last) {
  using A = Accumulate<From>;
  const int64_t inner = channels_last ? 1 : x.size(2) * x.size(3);
  launch(converted<From, To, A>, ceil_div(x.numel(), kPointThreads), kWaves, kPointThreads, 0,
         static_cast<const From*>(x.data_ptr()), static_cast<To*>(y.data_ptr()), pointer<A>(b), x.numel(),
         std::max<int64_t>(inner, 1), x.size(1));
}

// Run the op step by step, with intermediate images in the accumulation dtype.
void compose(const Launch& launch, const Problem& q, const Tensor& y, const Tensor& sign_mask, bool masked) {
  with_dtype(q.x, [&](auto tag) {
    using T = decltype(tag);
    using A = Accumulate<T>;
    const ScalarType acc_type = accumulation_type(q.x);
    const bool last = q.channels_last;
    const Tensor x = allocate(q.x, shape_of(q.x), acc_type, last);
    if (x.numel() > 0) convert<T, A>(launch, q.x, x, q.b, last);
    const Tensor high = resample_cuda(x, q.fu, {q.up, q.up}, {1, 1}, q.padding_up, q.flip_filter, q.gain_up, last);
    const auto size = shape_of(high);
    const std::vector<int64_t> packed{size[0], size[1], ceil_div(size[2], kPacked), size[3]};
    const int64_t count = packed[0] * packed[1] * packed[2] * packed[3];
    launch(activated<A>, ceil_div(count, kPointThreads), kWaves, kPointThreads, 0, static_cast<A*>(high.data_ptr()),
           masked ? static_cast<uint8_t*>(sign_mask.data_ptr()) : nullptr, count, size[1], size[2], size[3],
           strides_of(size, last), strides_of(packed, last), last, q.act);
    const Tensor out =
        resample_cuda(high, q.fd, {1, 1}, {q.down, q.down}, q.padding_down, q.flip_filter, q.gain_down, last);
    convert<A, T>(launch, out, y, std::nullopt, last);
  });
}

// Returns (output, sign mask): the one that was given, a new one where it is wanted, else [0].
std::tuple<Tensor, Tensor> run(const Problem& q, const OptionalTensor& given, bool keep) {
  STD_TORCH_CHECK(q.x.dim() == 4 && q.padding_up.size() == 4 && q.padding_down.size() == 4,
                  "imgops::filtered_lrelu: x must be 4-D, padding (x0, x1, y0, y1)");
  STD_TORCH_CHECK(q.up >= 1 && q.down >= 1 && std::max(q.up, q.down) < (1 << 16),
                  "imgops::filtered_lrelu: up and down must be from 1 to 65535");
  const Launch launch(q.x);
  FilteredLrelu p{};
  OptionalTensor held_up, held_down;
  p.fu = filter_of(q.fu, q.x, q.flip_filter, q.gain_up, held_up);
  p.fd = filter_of(q.fd, q.x, q.flip_filter, q.gain_down, held_down);
  const int64_t n = q.x.size(0), c = q.x.size(1);
  const auto [high_w, high_h] = resampled(q.x.size(3), q.x.size(2), p.fu, q.up, 1, q.padding_up);
  const auto [out_w, out_h] = resampled(high_w, high_h, p.fd, 1, q.down, q.padding_down);
  STD_TORCH_CHECK(std::min({high_w, high_h, out_w, out_h}) >= 1, "imgops::filtered_lrelu: an image has no pixels");

  const std::vector<int64_t> size{n, c, out_h, out_w}, packed{n, c, ceil_div(high_h, kPacked), high_w};
  const Tensor y = allocate(q.x, size, q.x.scalar_type(), q.channels_last);
  if (given.has_value()) {
    STD_TORCH_CHECK(given->scalar_type() == ScalarType::Byte && shape_of(*given) == packed &&
                        given->get_device_index() == q.x.get_device_index(),
                    "imgops::filtered_lrelu_slopes: sign_mask must be that of the up-sampled image, uint8, beside x");
  }
  const Tensor sign_mask = given.has_value() ? in_format(*given, q.channels_last)
                                             : allocate(q.x, keep ? packed : std::vector<int64_t>{0}, ScalarType::Byte,
                                                        keep && q.channels_last);
  if (y.numel() == 0) return {y, sign_mask};
  const bool masked = keep || given.has_value();
  if (!fits(q, p.fu, p.fd)) {
    compose(launch, q, y, sign_mask, masked);
    return {y, sign_mask};
  }
  p.x = q.x.data_ptr();
  p.y = y.data_ptr();
  p.sign_mask = masked ? static_cast<uint8_t*>(sign_mask.data_ptr()) : nullptr;
  p.b = pointer<float>(q.b);
  p.dtype = q.x.scalar_type();
  p.x_at = strides_of(shape_of(q.x), q.channels_last);
  p.y_at = strides_of(size, q.channels_last);
  p.mask_at = strides_of(packed, q.channels_last);
  p.samples = n;
  p.channels = c;
  p.h = int(q.x.size(2));
  p.w = int(q.x.size(3));
  p.high_h = int(high_h);
  p.high_w = int(high_w);
  p.out_h = int(out_h);
  p.out_w = int(out_w);
  p.pad_x = int(q.padding_up[0]);
  p.pad_y = int(q.padding_up[2]);
  p.pad_down_x = int(q.padding_down[0]);
  p.pad_down_y = int(q.padding_down[2]);
  p.act = q.act;
  p.planes_first = q.channels_last;
  run_pass(launch, q, p);
  return {y, sign_mask};
}

std::tuple<Tensor, Tensor> filtered_lrelu(const Tensor& x, const OptionalTensor& fu, const OptionalTensor& fd,
                                          const OptionalTensor& b, int64_t up, int64_t down,
                                          std::vector<int64_t> padding, double gain, double slope, double clamp,
                                          bool flip_filter, bool keep) {
  STD_TORCH_CHECK(x.dim() == 4, "imgops::filtered_lrelu: x must have 4 dimensions; got ", x.dim());
  const bool last = is_channels_last(x);
  const Problem q{in_format(x, last),
                  fu,
                  fd,
                  operand(b, x, "b", x.size(1)),
                  up,
                  down,
                  padding,
                  {0, 0, 0, 0},
                  flip_filter,
                  double(up * up),
                  1.0,
                  {true, gain, slope, clamp},
                  last};
  return run(q, std::nullopt, keep);
}

Tensor filtered_lrelu_slopes(const Tensor& x, const Tensor& sign_mask, const OptionalTensor& fu,
                             const OptionalTensor& fd, int64_t up, int64_t down, std::vector<int64_t> padding_up,
                             std::vector<int64_t> padding_down, bool flip_filter, double gain_up, double gain_down,
                             double gain, double slope) {
  STD_TORCH_CHECK(x.dim() == 4, "imgops::filtered_lrelu_slopes: x must have 4 dimensions; got ", x.dim());
  // the memory format of an image of one pixel is ambiguous, that of the sign mask is not
  const bool last = is_channels_last(sign_mask);
  const Problem q{in_format(x, last),
                  fu,
                  fd,
                  std::nullopt,
                  up,
                  down,
                  padding_up,
                  padding_down,
                  flip_filter,
                  gain_up,
                  gain_down,
                  {false, gain, slope, -1.0},
                  last};
  return std::get<0>(run(q, sign_mask, false));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(imgops, CUDA, m) {
  m.impl("filtered_lrelu", IMGOPS_BOX(&filtered_lrelu));
  m.impl("filtered_lrelu_slopes", IMGOPS_BOX(&filtered_lrelu_slopes));
}

}  // namespace imgops
