// filtered_lrelu on the CPU: its checks and tasks.
#include "filtered_lrelu.h"

#include <algorithm>

#include "cpu/common/capability.h"
#include "cpu/common/parallel.h"
#include "cpu/common/scratch.h"
#include "resample_plan.h"

namespace imgops {
namespace {

// tasks that are worth a plane's rows being cut into bands, and rows of output of a band for each tap: those at its
// edge are up-sampled by two tasks
constexpr int64_t kTasks = 64, kRowsPerTap = 2;

// The filters and plans of a call, and where it runs.
class Problem {
 public:
  Problem(const Tensor& x, const OptionalTensor& fu, const OptionalTensor& fd, int64_t up, int64_t down,
          const std::vector<int64_t>& padding_up, const std::vector<int64_t>& padding_down, bool flip_filter,
          double gain_up, double gain_down)
      : fu_(fu, flip_filter, gain_up, x.scalar_type() == ScalarType::Double),
        fd_(fd, flip_filter, gain_down, x.scalar_type() == ScalarType::Double),
        up_x_(x.size(3), fu_.fw, up, 1, padding_up[0], padding_up[1], "width"),
        up_y_(x.size(2), fu_.fh, up, 1, padding_up[2], padding_up[3], "height"),
        down_x_(up_x_.axis.out, fd_.fw, 1, down, padding_down[0], padding_down[1], "width"),
        down_y_(up_y_.axis.out, fd_.fh, 1, down, padding_down[2], padding_down[3], "height"), n_(x.size(0)),
        channels_(x.size(1)) {}

  std::vector<int64_t> output_size() const { return {n_, channels_, down_y_.axis.out, down_x_.axis.out}; }
  std::vector<int64_t> mask_size() const {
    return {n_, channels_, (up_y_.axis.out + kPacked - 1) / kPacked, up_x_.axis.out};
  }

  // what p has of its own is set by the caller
  // (whether x is channels-last is said apart: an image of one pixel does not show it)
  void run(FilteredLrelu& p, const Tensor& x, const Tensor& out, bool last) {
    const DType dtype = dtype_of(x);
    p.channels_last = last;
    p.samples = n_;
    p.channels = channels_;
    p.in = x.data_ptr();
    p.out = out.data_ptr();
    p.taps_up = *std::max_element(up_y_.count.begin(), up_y_.count.end());
    p.taps_down = fd_.fh;
    const int64_t most = down_y_.axis.out / (kRowsPerTap * fd_.fh), wanted = (kTasks + p.groups() - 1) / p.groups();
    p.bands = std::max<int64_t>(1, std::min(most, wanted));
    if (dtype == DType::f64) {
      run<double>(p, dtype);
    } else {
      run<float>(p, dtype);
    }
  }

 private:
  template <class A>
  void run(FilteredLrelu& p, DType dtype) {
    const Taps<A> taps_up(fu_, up_x_, up_y_, p.up), taps_down(fd_, down_x_, down_y_, p.down);
    const FilteredLreluKernel kernel = IMGOPS_SELECT(filtered_lrelu);
    parallel_for(0, p.tasks(), 1, [&](int64_t begin, int64_t end) {
      const auto scratch = aligned_scratch(p.layout().size * sizeof(A));
      kernel(p, dtype, scratch.get(), begin, end);
    });
  }

  Filter fu_, fd_;
  Plan up_x_, up_y_, down_x_, down_y_;
  int64_t n_, channels_;
};

}  // namespace

std::tuple<Tensor, Tensor> filtered_lrelu_cpu(const Tensor& x_any, const OptionalTensor& fu, const OptionalTensor& fd,
                                              const OptionalTensor& b_any, int64_t up, int64_t down,
                                              std::vector<int64_t> padding, double gain, double slope, double clamp,
                                              bool flip_filter, bool keep) {
  STD_TORCH_CHECK(x_any.dim() == 4, "imgops::filtered_lrelu: x must have 4 dimensions; got ", x_any.dim());
  STD_TORCH_CHECK(padding.size() == 4, "imgops::filtered_lrelu: padding must be (x0, x1, y0, y1)");
  const Tensor x = dense(x_any);
  const OptionalTensor b = operand(b_any, x, "b", x.size(1));
  Problem problem(x, fu, fd, up, down, padding, {0, 0, 0, 0}, flip_filter, static_cast<double>(up * up), 1.0);
  const bool last = is_channels_last(x);
  const Tensor y = allocate(x, problem.output_size(), last);
  const Tensor sign_mask =
      allocate(x, keep ? problem.mask_size() : std::vector<int64_t>{0}, ScalarType::Byte, last && keep);
  if (y.numel() == 0) return {y, sign_mask};
  FilteredLrelu p;
  p.b = data_of(b);
  p.sign_mask = keep ? static_cast<uint8_t*>(sign_mask.data_ptr()) : nullptr;
  p.gain = gain;
  p.slope = slope;
  p.clamp = clamp;
  problem.run(p, x, y, last);
  return {y, sign_mask};
}

Tensor filtered_lrelu_slopes_cpu(const Tensor& x_any, const Tensor& mask_any, const OptionalTensor& fu,
                                 const OptionalTensor& fd, int64_t up, int64_t down, std::vector<int64_t> padding_up,
                                 std::vector<int64_t> padding_down, bool flip_filter, double gain_up, double gain_down,
                                 double gain, double slope) {
  STD_TORCH_CHECK(x_any.dim() == 4, "imgops::filtered_lrelu_slopes: x must have 4 dimensions; got ", x_any.dim());
  STD_TORCH_CHECK(padding_up.size() == 4 && padding_down.size() == 4,
                  "imgops::filtered_lrelu_slopes: paddings must be (x0, x1, y0, y1)");
  const Tensor sign_mask = dense(mask_any);
  const bool last = is_channels_last(sign_mask);
  const Tensor x = in_format(x_any, last);
  Problem problem(x, fu, fd, up, down, padding_up, padding_down, flip_filter, gain_up, gain_down);
  STD_TORCH_CHECK(sign_mask.scalar_type() == ScalarType::Byte && shape_of(sign_mask) == problem.mask_size(),
                  "imgops::filtered_lrelu_slopes: sign_mask must be that of the up-sampled image, uint8");
  const Tensor y = allocate(x, problem.output_size(), last);
  if (y.numel() == 0) return y;
  FilteredLrelu p;
  p.activates = false;
  p.sign_mask = static_cast<uint8_t*>(sign_mask.data_ptr());
  p.gain = gain;
  p.slope = slope;
  problem.run(p, x, y, last);
  return y;
}

}  // namespace imgops
