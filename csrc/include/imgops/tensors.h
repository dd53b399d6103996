// Helpers for tensors of the stable ABI, shared by the CPU and CUDA launchers.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/MemoryFormat.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "activations.h"
#include "errors.h"

namespace imgops {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

// The dtype of bias, scale, noise and every sum.
inline ScalarType accumulation_type(const Tensor& t) {
  return t.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline bool is_channels_last(const Tensor& t) {
  if (t.dim() != 4 || t.is_contiguous()) return false;
  int64_t expected = 1;
  for (const int64_t d : {1, 3, 2, 0}) {
    if (t.size(d) != 1 && t.stride(d) != expected) return false;
    expected *= t.size(d);
  }
  return true;
}

inline Tensor in_format(const Tensor& t, bool channels_last) {
  return torch::stable::contiguous(t, channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

// Memory of the given size and dtype on the device of `like`.
inline Tensor allocate(const Tensor& like, const std::vector<int64_t>& size, ScalarType dtype,
                       bool channels_last = false) {
  const auto format = channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
  try {
    return torch::stable::empty({size.data(), size.size()}, dtype, std::nullopt, like.device(), std::nullopt, format);
  } catch (const std::exception& error) {
    std::string sizes;
    for (const int64_t n : size) sizes += (sizes.empty() ? "" : " x ") + std::to_string(n);
    throw std::runtime_error("imgops: cannot allocate a tensor of " + sizes + ": " + reason_of(error));
  }
}

inline std::vector<int64_t> shape_of(const Tensor& t) {
  const auto sizes = t.sizes();
  return {sizes.begin(), sizes.end()};
}

inline Act act_of(const std::string& name) {
  const int i = act_index(name.c_str());
  STD_TORCH_CHECK(i >= 0, "imgops: unknown act '", name, "'");
  return static_cast<Act>(i);
}

// Check an operand of x's epilogue (bias, scale or noise) and return it contiguous: on x's device, in x's accumulation
// dtype.
inline OptionalTensor operand(const OptionalTensor& t, const Tensor& x, const char* name, int64_t numel) {
  if (!t.has_value()) return std::nullopt;
  STD_TORCH_CHECK(t->get_device_index() == x.get_device_index(), "imgops: ", name, " must be on x's device");
  STD_TORCH_CHECK(t->scalar_type() == accumulation_type(x), "imgops: ", name, " must have the accumulation dtype of x");
  STD_TORCH_CHECK(t->numel() == numel, "imgops: ", name, " must have ", numel, " elements; got ", t->numel());
  return torch::stable::contiguous(*t);
}

// b, scale and noise as bias_act's kernels read them; they live as long as what points at them. Hidden as Tensor is.
struct __attribute__((visibility("hidden"))) Operands {
  OptionalTensor b, scale, noise;
  // elements of noise from one sample to the next
  int64_t noise_stride = 0;
};

// Those of a tensor of this size [N, C, ...], beside x in its accumulation dtype; b along dim.
inline Operands operands(const Tensor& x, const std::vector<int64_t>& size, const OptionalTensor& b,
                         const OptionalTensor& scale, const OptionalTensor& noise, int64_t dim = 1) {
  const int64_t ndim = static_cast<int64_t>(size.size());
  STD_TORCH_CHECK(!b.has_value() || (dim >= 0 && dim < ndim), "imgops: dim must be in [0, ", ndim, "); got ", dim);
  STD_TORCH_CHECK((!scale.has_value() && !noise.has_value()) || (dim == 1 && ndim >= 2),
                  "imgops: scale and noise need dim = 1");
  const int64_t samples = noise.has_value() && noise->dim() > 0 ? noise->size(0) : 1;
  STD_TORCH_CHECK(samples == 1 || samples == size[0], "imgops: noise must have 1 or N samples");
  int64_t inner = 1;
  for (int64_t i = 2; i < ndim; ++i) inner *= size[i];
  return {operand(b, x, "b", b.has_value() ? size[dim] : 0),
          operand(scale, x, "scale", scale.has_value() ? size[0] * size[1] : 0),
          operand(noise, x, "noise", samples * inner), samples > 1 ? inner : 0};
}

}  // namespace imgops
