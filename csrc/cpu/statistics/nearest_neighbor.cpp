// nearest_neighbor on the CPU: checks, memory, and its tasks on the threads of libtorch.
#include "nearest_neighbor.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "cpu/common/capability.h"
#include "cpu/common/ops.h"
#include "cpu/common/parallel.h"
#include "cpu/common/scratch.h"

namespace imgops {
namespace {

// channels up to which the sums of products of bytes fit into 32 bits
constexpr int64_t kMostBytes = 1 << 16;

// t [N, C, count], read in place where the vectors lie side by side by channel or one after the other
Tensor readable(const Tensor& t) { return t.stride(1) == 1 || t.stride(2) == 1 ? t : torch::stable::contiguous(t); }

VectorSet vectors_of(const Tensor& t) {
  VectorSet v;
  v.data = t.data_ptr();
  v.samples = t.size(0);
  v.count = t.size(2);
  for (int64_t d = 0; d < 3; ++d) v.strides[d] = t.stride(d);
  // of a single vector or channel any stride will do, and one of both must be 1
  if (t.size(2) == 1 && t.stride(1) != 1) v.strides[2] = 1;
  if (t.size(1) == 1 && v.strides[2] != 1) v.strides[1] = 1;
  return v;
}

}  // namespace

std::tuple<Tensor, Tensor> nearest_neighbor_cpu(const Tensor& x_any, const Tensor& y_any) {
  STD_TORCH_CHECK(x_any.dim() == 3 && y_any.dim() == 3, "imgops::nearest_neighbor: x and y must have 3 dimensions");
  STD_TORCH_CHECK(y_any.size(1) == x_any.size(1) && (y_any.size(0) == x_any.size(0) || y_any.size(0) == 1),
                  "imgops::nearest_neighbor: y must be [N or 1, C, K] for x [N, C, Q]");
  STD_TORCH_CHECK(y_any.scalar_type() == x_any.scalar_type(), "imgops::nearest_neighbor: y must have the dtype of x");
  STD_TORCH_CHECK(x_any.size(1) > 0 && y_any.size(2) > 0,
                  "imgops::nearest_neighbor: x and y must have a channel, and "
                  "y a vector");
  const Tensor x = readable(x_any), y = readable(y_any);
  const std::vector<int64_t> size{x.size(0), x.size(2)};
  const Tensor similarity = allocate_sums(x, size), index = allocate(x, size, ScalarType::Long);
  if (similarity.numel() == 0) return {similarity, index};

  NearestNeighbor p;
  p.queries = vectors_of(x);
  p.keys = vectors_of(y);
  p.channels = x.size(1);
  const DType dtype = dtype_of(x);
  p.vnni = uses_vnni();
  if (dtype != DType::f64 && uses_amx()) {
    p.screen = Screen::tiles;
  } else if (dtype != DType::f64 && cpu_capability() >= Capability::avx2 && p.channels <= kMostBytes) {
    p.screen = Screen::bytes;
  }
  p.similarity = similarity.data_ptr();
  p.index = static_cast<int64_t*>(index.data_ptr());
  const int64_t item = similarity.element_size(), blocks = p.keys.samples * p.keys.blocks();
  const int64_t values = blocks * kPanelWidth * p.depth();
  const auto vectors = aligned_scratch(values * item);
  const auto rounded = aligned_scratch(values * p.rounded_item());
  std::vector<float> errors(blocks * kPanelWidth), scales(errors.size());
  std::vector<int64_t> undefined(blocks);
  p.vectors = vectors.get();
  p.rounded = rounded.get();
  p.errors = errors.data();
  p.scales = scales.data();
  p.undefined = undefined.data();
  const auto pack = IMGOPS_SELECT(pack_keys);
  parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    const auto scratch = aligned_scratch(p.pack_scratch(item));
    pack(p, dtype, scratch.get(), begin, end);
  });

  const int64_t threads = torch::stable::get_num_threads(), all = p.queries.samples * p.queries.blocks();
  p.span = std::clamp<int64_t>(all / threads, 1, kLongestSpan);
  const auto search = IMGOPS_SELECT(search_keys);
  parallel_for(0, p.tasks(), 1, [&](int64_t begin, int64_t end) {
    const auto scratch = aligned_scratch(p.search_scratch(item));
    search(p, dtype, scratch.get(), begin, end);
  });
  return {similarity, index};
}

}  // namespace imgops
