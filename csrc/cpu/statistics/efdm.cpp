// efdm and sort_rows on the CPU: checks, memory layout, and planes on the threads of libtorch.
#include "efdm.h"

#include <limits>

#include "cpu/common/capability.h"
#include "cpu/common/ops.h"
#include "cpu/common/parallel.h"
#include "cpu/common/scratch.h"

namespace imgops {
namespace {

// elements below which a second thread costs more than it saves
constexpr int64_t kGrain = 4096;

Efdm::Planes planes(const Tensor& x) { return {x.size(0), x.size(2) * x.size(3), is_channels_last(x)}; }

Tensor allocate_order(const Tensor& like, const std::vector<int64_t>& size) {
  return allocate(like, size, ScalarType::Int);
}

void check_length(const char* op, int64_t length) {
  STD_TORCH_CHECK(length <= std::numeric_limits<int32_t>::max(), "imgops::", op, ": ", length,
                  " numbers are more than it ranks");
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> efdm_cpu(const Tensor& x_any, const Tensor& y_any, double alpha, bool keep) {
  STD_TORCH_CHECK(x_any.dim() == 4 && y_any.dim() == 4, "imgops::efdm: x and y must have 4 dimensions");
  const Tensor x = dense(x_any), y = dense(y_any);
  Efdm p;
  p.x = planes(x);
  p.y = planes(y);
  p.channels = x.size(1);
  p.alpha = alpha;
  STD_TORCH_CHECK(y.scalar_type() == x.scalar_type(), "imgops::efdm: y must have the dtype of x");
  STD_TORCH_CHECK(y.size(1) == p.channels && (p.one_style() || p.y.samples == p.x.samples),
                  "imgops::efdm: y must have the channels of x, and 1 sample or as many");
  STD_TORCH_CHECK(p.x.pixels > 0 && p.y.pixels > 0, "imgops::efdm: x and y must have pixels");
  check_length("efdm", p.most_pixels());
  const Tensor out = allocate(x, shape_of(x), p.x.channels_last);
  using Size = std::vector<int64_t>;
  const Tensor x_order = allocate_order(x, keep ? Size{p.x.samples, p.channels, p.x.pixels} : Size{0});
  const Tensor y_order = allocate_order(x, keep ? Size{p.y.samples, p.channels, p.y.pixels} : Size{0});
  p.image = x.data_ptr();
  p.style = y.data_ptr();
  p.out = out.data_ptr();
  if (keep) {
    p.x_order = static_cast<int32_t*>(x_order.data_ptr());
    p.y_order = static_cast<int32_t*>(y_order.data_ptr());
  }
  const auto kernel = IMGOPS_SELECT(efdm);
  const DType dtype = dtype_of(x);
  const int64_t bytes = p.scratch(x.element_size(), dtype == DType::f64 ? 8 : 4);
  parallel_for(0, p.tasks(), std::max<int64_t>(1, kGrain / p.most_pixels()),
               [&](int64_t begin, int64_t end) { kernel(p, dtype, aligned_scratch(bytes).get(), begin, end); });
  return {out, x_order, y_order};
}

std::tuple<Tensor, Tensor> sort_rows_cpu(const Tensor& x_any) {
  STD_TORCH_CHECK(x_any.dim() > 0, "imgops::sort_rows: x must have a dimension");
  const Tensor x = torch::stable::contiguous(x_any);
  const Tensor values = allocate(x, shape_of(x)), order = allocate_order(x, shape_of(x));
  if (x.numel() == 0) return {values, order};
  SortRows p;
  p.length = x.size(x.dim() - 1);
  p.rows = x.numel() / p.length;
  check_length("sort_rows", p.length);
  p.x = x.data_ptr();
  p.values = values.data_ptr();
  p.order = static_cast<int32_t*>(order.data_ptr());
  const auto kernel = IMGOPS_SELECT(sort_rows);
  const DType dtype = dtype_of(x);
  const int64_t bytes = p.scratch(x.element_size());
  parallel_for(0, p.rows, std::max<int64_t>(1, kGrain / p.length),
               [&](int64_t begin, int64_t end) { kernel(p, dtype, aligned_scratch(bytes).get(), begin, end); });
  return {values, order};
}

}  // namespace imgops
