// upfirdn2d on the CPU: its tasks.
#include "upfirdn2d.h"

#include <algorithm>

#include "cpu/common/capability.h"
#include "cpu/common/parallel.h"
#include "cpu/common/scratch.h"
#include "cpu/pointwise/epilogue.h"
#include "resample_plan.h"

namespace imgops {
namespace {

// elements of output a task makes at least, if its plane has them
constexpr int64_t kTask = 16384;

template <class A>
void run(Upfirdn2d& p, const Filter& filter, Plan& x, Plan& y, DType dtype) {
  const Taps<A> taps(filter, x, y, p);
  const Upfirdn2dKernel kernel = IMGOPS_SELECT(upfirdn2d);
  parallel_for(0, p.tasks(), 1, [&](int64_t begin, int64_t end) {
    const auto scratch = aligned_scratch(p.scratch * sizeof(A));
    kernel(p, dtype, scratch.get(), begin, end);
  });
}

// Filter x into out; p.epilogue and p.filtered are set by the caller.
void filter(Upfirdn2d& p, const Tensor& x, const Filter& filter, Plan& plan_x, Plan& plan_y, const Tensor& out) {
  const Axis &ax = plan_x.axis, &ay = plan_y.axis;
  p.channels_last = is_channels_last(x);
  p.channels = x.size(1);
  p.planes = p.channels_last ? x.size(0) : x.size(0) * x.size(1);
  p.in = x.data_ptr();
  p.out = out.data_ptr();
  const int64_t width = p.channels_last ? p.channels : 1;
  p.rows_per_task = std::min(ay.out, std::max<int64_t>(1, kTask / (ax.out * width)));
  p.tasks_per_plane = (ay.out + p.rows_per_task - 1) / p.rows_per_task;
  // the padded row, up to eight converted input rows, the filtered row, the finished one
  p.scratch = (ax.before + 9 * ax.in + ax.after + 2 * ax.out) * width;
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
  const Operands t = operands(x, size, b, scale, noise);
  const Tensor y = allocate(x, size, is_channels_last(x)),
               filtered = keep ? allocate(x, size, is_channels_last(x)) : allocate(x, {0});
  if (y.numel() == 0) return {y, filtered};
  Upfirdn2d p;
  p.has_epilogue = true;
  p.epilogue.channels = size[1];
  fill(p.epilogue, t, act, alpha, act_gain, clamp);
  p.filtered = keep ? filtered.data_ptr() : nullptr;
  filter(p, x, problem.f, problem.plan_x, problem.plan_y, y);
  return {y, filtered};
}

}  // namespace imgops
