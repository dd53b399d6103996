// grid_sample and displace on the CPU: blocks of channels, chunks of rows, and the sums over blocks.
#include "grid_sample.h"

#include <algorithm>

#include "cpu/common/capability.h"
#include "cpu/common/parallel.h"
#include "cpu/common/scratch.h"
#include "cpu/common/tensors.h"

namespace imgops {
namespace {

// bytes of a block of channels that a chunk of rows is made for: they stay in L2
constexpr int64_t kChunkBytes = 1 << 18;
// samples below which a second thread costs more than it saves
constexpr int64_t kGrain = 4096;

Padding padding_of(const std::string& name) {
  for (int i = 0; i < 3; ++i) {
    if (name == kPaddingNames[i]) return static_cast<Padding>(i);
  }
  STD_TORCH_CHECK(false, "imgops::grid_sample: unknown padding_mode '", name, "'");
}

// The plan, all but the pointers to the images; size is that of x.
GridSample problem(const std::vector<int64_t>& size, const Tensor& like, const Tensor& positions, bool displaced,
                   const std::string& padding_mode, const std::vector<int64_t>& order) {
  STD_TORCH_CHECK(size.size() == 4 && positions.dim() == 4 && positions.size(displaced ? 1 : 3) == 2,
                  "imgops::grid_sample: x must be [N, C, H, W], positions [N, H', W', 2], or displaced [N, 2, H', W']");
  STD_TORCH_CHECK(positions.size(0) == size[0], "imgops::grid_sample: positions must have the samples of x");
  STD_TORCH_CHECK(positions.scalar_type() == accumulation_type(like),
                  "imgops::grid_sample: positions must have the accumulation dtype of x");
  STD_TORCH_CHECK(order.size() == 2 && std::min(order[0], order[1]) >= 0 && std::max(order[0], order[1]) <= 1,
                  "imgops::grid_sample: order must be 0 or 1 along each axis");
  STD_TORCH_CHECK(std::max(size[2], size[3]) <= int64_t(1) << 30, "imgops::grid_sample: x is longer than 2^30 pixels");
  GridSample p;
  p.samples = size[0], p.channels = size[1], p.in_h = size[2], p.in_w = size[3];
  const int rows = displaced ? 2 : 1;
  p.out_h = positions.size(rows), p.out_w = positions.size(rows + 1);
  p.positions = positions.data_ptr();
  p.sample_stride = positions.stride(0), p.row_stride = positions.stride(rows);
  p.column_stride = positions.stride(rows + 1), p.axis_stride = positions.stride(displaced ? 1 : 3);
  p.displaced = displaced;
  p.padding = padding_of(padding_mode);
  p.order_x = order[0], p.order_y = order[1];
  p.lanes = p.channels <= 4 ? 4 : p.channels <= 8 ? 8 : 16;
  p.blocks = (p.channels + p.lanes - 1) / p.lanes;
  p.rows = std::max<int64_t>(1, kChunkBytes / 4 / p.lanes / std::max<int64_t>(p.out_w, 1));
  p.chunks = (p.out_h + p.rows - 1) / p.rows;
  return p;
}

// Run the kernel on a number of tasks; each thread has memory for the pixels of x that it packs, and for `others` more.
void run(GridSampleKernel kernel, const GridSample& p, DType dtype, int64_t tasks, int64_t others) {
  const int64_t per_task = std::max<int64_t>(1, p.planes() * p.out_h * p.out_w / std::max<int64_t>(tasks, 1));
  const size_t bytes =
      (others + std::max(p.most_packed(), 4 * kSamplesAtOnce)) * p.lanes * (dtype == DType::f64 ? 8 : 4);
  parallel_for(0, tasks, std::max<int64_t>(1, kGrain / per_task), [&](int64_t begin, int64_t end) {
    const auto scratch = aligned_scratch(bytes);
    kernel(p, dtype, begin, end, scratch.get());
  });
}

// [blocks, ...] -> the sum over blocks, in their order
template <class A>
void sum_blocks(const Tensor& partials, const Tensor& total) {
  const int64_t n = total.numel(), blocks = partials.size(0);
  const A* const in = static_cast<const A*>(partials.data_ptr());
  A* const out = static_cast<A*>(total.data_ptr());
  parallel_for(0, n, kGrain, [&](int64_t begin, int64_t end) {
    std::copy(in + begin, in + end, out + begin);
    for (int64_t b = 1; b < blocks; ++b) {
      for (int64_t i = begin; i < end; ++i) out[i] += in[b * n + i];
    }
  });
}

void sum_blocks(const Tensor& partials, const Tensor& total) {
  total.scalar_type() == ScalarType::Double ? sum_blocks<double>(partials, total) : sum_blocks<float>(partials, total);
}

}  // namespace

Tensor grid_sample_cpu(const Tensor& x_any, const Tensor& positions, bool displaced, std::string padding_mode,
                       std::vector<int64_t> order) {
  const Tensor x = dense(x_any);
  GridSample p = problem(shape_of(x), x, positions, displaced, padding_mode, order);
  p.channels_last = is_channels_last(x);
  const Tensor y = allocate(x, {p.samples, p.channels, p.out_h, p.out_w}, p.channels_last);
  if (y.numel() == 0) return y;
  STD_TORCH_CHECK(x.numel() > 0, "imgops::grid_sample: x has no pixels");
  p.x = x.data_ptr();
  p.y = y.data_ptr();
  run(IMGOPS_SELECT(grid_sample), p, dtype_of(x), p.planes() * p.chunks, 0);
  return y;
}

std::tuple<Tensor, Tensor> grid_sample_backward_cpu(const Tensor& dy_any, const OptionalTensor& x_any,
                                                    const Tensor& positions, std::vector<int64_t> size, bool displaced,
                                                    std::string padding_mode, std::vector<int64_t> order, bool needs_x,
                                                    bool needs_positions) {
  STD_TORCH_CHECK(!needs_positions || x_any.has_value(),
                  "imgops::grid_sample_backward: the gradient of positions needs x");
  const Tensor like = dense(x_any.has_value() ? *x_any : dy_any);
  GridSample p = problem(size, like, positions, displaced, padding_mode, order);
  p.channels_last = is_channels_last(like);
  const Tensor dy = in_format(dy_any, p.channels_last);
  STD_TORCH_CHECK(dy.scalar_type() == like.scalar_type() && (!x_any.has_value() || shape_of(*x_any) == size) &&
                      shape_of(dy) == std::vector<int64_t>({p.samples, p.channels, p.out_h, p.out_w}),
                  "imgops::grid_sample_backward: dy must have the dtype of x and the shape of the samples");
  const Tensor dx = needs_x ? allocate(dy, size, p.channels_last) : allocate(dy, {0});
  const Tensor dpositions = allocate_sums(dy, needs_positions ? shape_of(positions) : std::vector<int64_t>{0});
  if (dy.numel() == 0 || p.in_h * p.in_w == 0) {
    for (Tensor t : {dx, dpositions}) torch::stable::zero_(t);
    return {dx, dpositions};
  }
  STD_TORCH_CHECK(!needs_x || p.most_pixels() <= kMostPixels,
                  "imgops::grid_sample_backward: x has more pixels than a gradient can have");
  const int64_t numel = dpositions.numel();
  const Tensor partials = needs_positions && p.blocks > 1 ? allocate_sums(dy, {p.blocks, numel}) : dpositions;
  p.x = needs_positions ? like.data_ptr() : nullptr;
  p.dy = dy.data_ptr();
  p.dx = needs_x ? dx.data_ptr() : nullptr;
  p.dpositions = needs_positions ? partials.data_ptr() : nullptr;
  run(IMGOPS_SELECT(grid_sample_backward), p, dtype_of(dy), p.planes(), needs_x ? p.most_pixels() : 0);
  if (needs_positions && p.blocks > 1) sum_blocks(partials, dpositions);
  return {dx, dpositions};
}

}  // namespace imgops
