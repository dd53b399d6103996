// upfirdn2d on the CPU: the polyphase plan of each axis, the filter's factors, the tasks.
#include "upfirdn2d.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

#include "capability.h"
#include "epilogue.h"
#include "imgops/rank_one.h"

namespace imgops {
namespace {

// elements of output a task makes at least, if its plane has them
constexpr int64_t kTask = 16384;

// The phases of one axis and its taps in the order that they name.
struct Plan {
  Axis axis;
  std::vector<int64_t> first, offset, count, outputs;
  // tap_at[offset[r] + j] is the index, in the filter as correlated, of tap j of phase r
  std::vector<int64_t> tap_at;

  Plan(int64_t in, int64_t taps, int64_t up, int64_t down, int64_t pad0, int64_t pad1, const char* name) {
    STD_TORCH_CHECK(up >= 1 && down >= 1, "imgops::upfirdn2d: up and down must be >= 1; got ", up, " and ", down);
    axis.in = in;
    const int64_t length = in * up + pad0 + pad1 - taps;
    STD_TORCH_CHECK(length >= 0, "imgops::upfirdn2d: the padded image is smaller than the filter in ", name);
    axis.out = length / down + 1;
    const int64_t common = std::gcd(up, down);
    axis.period = up / common;
    axis.step = down / common;
    for (int64_t r = 0; r < axis.period; ++r) {
      // tap 0 of output r lies here in the up-sampled image; its samples are multiples of up
      const int64_t start = r * down - pad0;
      const int64_t skip = ((-start) % up + up) % up;
      first.push_back((start + skip) / up);
      offset.push_back(static_cast<int64_t>(tap_at.size()));
      for (int64_t k = skip; k < taps; k += up) tap_at.push_back(k);
      count.push_back(static_cast<int64_t>(tap_at.size()) - offset.back());
      outputs.push_back(r < axis.out ? (axis.out - r + axis.period - 1) / axis.period : 0);
      if (r < axis.out && count.back() > 0) {
        const int64_t last = first.back() + (axis.out - 1 - r) / axis.period * axis.step + count.back();
        axis.before = std::max(axis.before, -first.back());
        axis.after = std::max(axis.after, last - in);
      }
    }
  }

  Axis bound() {
    axis.first = first.data();
    axis.offset = offset.data();
    axis.count = count.data();
    axis.outputs = outputs.data();
    return axis;
  }
};

// The filter as doubles [fh, fw], gain included, in the order of a correlation; its factors where it has them.
struct Filter {
  int64_t fh = 1, fw = 1;
  bool separable = true;
  std::vector<double> column, row, full;

  Filter(const OptionalTensor& f, bool flip_filter, double gain, bool wide) {
    if (!f.has_value()) {
      column = {1.0};
      row = {static_cast<double>(static_cast<float>(gain))};
      return;
    }
    STD_TORCH_CHECK(f->dim() == 1 || f->dim() == 2, "imgops::upfirdn2d: f must have 1 or 2 dimensions");
    const Tensor dense_f = torch::stable::contiguous(*f);
    const bool is_double = f->scalar_type() == ScalarType::Double;
    STD_TORCH_CHECK(is_double || f->scalar_type() == ScalarType::Float, "imgops::upfirdn2d: f must be float32 or float64");
    // the gain is part of the filter, and so is rounded to the filter's dtype
    const double factor = std::pow(gain, f->dim() / 2.0);
    std::vector<double> taps(f->numel());
    for (size_t i = 0; i < taps.size(); ++i) {
      taps[i] = is_double ? static_cast<const double*>(dense_f.data_ptr())[i] * factor
                          : static_cast<const float*>(dense_f.data_ptr())[i] * static_cast<float>(factor);
    }
    // a true convolution is a correlation with the flipped filter
    if (!flip_filter) std::reverse(taps.begin(), taps.end());
    fh = f->size(0);
    fw = f->size(f->dim() - 1);
    if (f->dim() == 1) {
      column = row = taps;
      return;
    }
    column.resize(fh);
    row.resize(fw);
    separable = rank_one(taps.data(), fh, fw, wide ? kRankOneTolerance : kRankOneToleranceFloat, column.data(), row.data());
    if (!separable) full = taps;
  }
};

template <class A>
std::vector<A> gather(const std::vector<double>& taps, const std::vector<int64_t>& at) {
  std::vector<A> result;
  for (const int64_t i : at) result.push_back(static_cast<A>(taps[i]));
  return result;
}

template <class A>
void run(Upfirdn2d& p, const Filter& filter, Plan& x, Plan& y, DType dtype) {
  std::vector<A> taps_y, taps_x;
  if (filter.separable) {
    taps_y = gather<A>(filter.column, y.tap_at);
    taps_x = gather<A>(filter.row, x.tap_at);
  } else {
    p.taps_x_stride = static_cast<int64_t>(x.tap_at.size());
    for (const int64_t i : y.tap_at) {
      for (const int64_t j : x.tap_at) taps_x.push_back(static_cast<A>(filter.full[i * filter.fw + j]));
    }
  }
  p.separable = filter.separable;
  p.taps_y = taps_y.data();
  p.taps_x = taps_x.data();
  const Upfirdn2dKernel kernel = IMGOPS_SELECT(upfirdn2d);
  torch::stable::parallel_for(0, p.tasks(), 1, [&](int64_t begin, int64_t end) {
    const std::unique_ptr<A[]> scratch(new A[p.scratch]);
    kernel(p, dtype, scratch.get(), begin, end);
  });
}

// Filter x into out; p.epilogue and p.filtered are set by the caller.
void filter(Upfirdn2d& p, const Tensor& x, const Filter& filter, Plan& plan_x, Plan& plan_y, const Tensor& out) {
  p.interleaved = is_channels_last(x);
  p.channels = x.size(1);
  p.planes = p.interleaved ? x.size(0) : x.size(0) * x.size(1);
  p.x = plan_x.bound();
  p.y = plan_y.bound();
  p.in = x.data_ptr();
  p.out = out.data_ptr();
  const int64_t width = p.interleaved ? p.channels : 1;
  p.rows_per_task = std::min(p.y.out, std::max<int64_t>(1, kTask / (p.x.out * width)));
  p.tasks_per_plane = (p.y.out + p.rows_per_task - 1) / p.rows_per_task;
  // the padded row, up to eight converted input rows, the filtered row, the finished one
  p.scratch = (p.x.before + 9 * p.x.in + p.x.after + 2 * p.x.out) * width;
  const DType dtype = dtype_of(x);
  if (dtype == DType::f64) {
    run<double>(p, filter, plan_x, plan_y, dtype);
  } else {
    run<float>(p, filter, plan_x, plan_y, dtype);
  }
}

void check_arguments(const Tensor& x, const std::vector<int64_t>& up, const std::vector<int64_t>& down,
                     const std::vector<int64_t>& padding) {
  STD_TORCH_CHECK(x.dim() == 4, "imgops::upfirdn2d: x must have 4 dimensions; got ", x.dim());
  STD_TORCH_CHECK(up.size() == 2 && down.size() == 2 && padding.size() == 4,
                  "imgops::upfirdn2d: up and down must be (x, y), padding (x0, x1, y0, y1)");
}

// The filter and the plan of both axes.
struct Problem {
  Filter f;
  Plan plan_x, plan_y;

  Problem(const Tensor& x, const OptionalTensor& taps, const std::vector<int64_t>& up, const std::vector<int64_t>& down,
          const std::vector<int64_t>& padding, bool flip_filter, double gain)
      : f(taps, flip_filter, gain, x.scalar_type() == ScalarType::Double),
        plan_x(x.size(3), f.fw, up[0], down[0], padding[0], padding[1], "width"),
        plan_y(x.size(2), f.fh, up[1], down[1], padding[2], padding[3], "height") {}

  std::vector<int64_t> output_size(const Tensor& x) const {
    return {x.size(0), x.size(1), plan_y.axis.out, plan_x.axis.out};
  }
};

}  // namespace

Tensor upfirdn2d_cpu(const Tensor& x_any, const OptionalTensor& f, std::vector<int64_t> up, std::vector<int64_t> down,
                     std::vector<int64_t> padding, bool flip_filter, double gain) {
  check_arguments(x_any, up, down, padding);
  const Tensor x = dense(x_any);
  Problem problem(x, f, up, down, padding, flip_filter, gain);
  const Tensor y = allocate(x, problem.output_size(x), is_channels_last(x));
  Upfirdn2d p;
  if (y.numel() > 0) filter(p, x, problem.f, problem.plan_x, problem.plan_y, y);
  return y;
}

std::tuple<Tensor, Tensor> upfirdn2d_bias_act_cpu(const Tensor& x_any, const OptionalTensor& f, std::vector<int64_t> up,
                                                  std::vector<int64_t> down, std::vector<int64_t> padding,
                                                  bool flip_filter, double gain, const OptionalTensor& b,
                                                  const OptionalTensor& scale, const OptionalTensor& noise,
                                                  std::string act, double alpha, double act_gain, double clamp,
                                                  bool keep) {
  check_arguments(x_any, up, down, padding);
  const Tensor x = dense(x_any);
  Problem problem(x, f, up, down, padding, flip_filter, gain);
  const std::vector<int64_t> size = problem.output_size(x);
  const Epilogue epilogue(x, size, b, scale, noise, act, alpha, act_gain, clamp);
  const Tensor y = allocate(x, size, is_channels_last(x)), filtered = keep ? allocate(x, size, is_channels_last(x)) : allocate(x, {0});
  if (y.numel() == 0) return {y, filtered};
  Upfirdn2d p;
  p.has_epilogue = true;
  epilogue.fill(p.epilogue, size);
  p.filtered = keep ? filtered.data_ptr() : nullptr;
  filter(p, x, problem.f, problem.plan_x, problem.plan_y, y);
  return {y, filtered};
}

}  // namespace imgops
