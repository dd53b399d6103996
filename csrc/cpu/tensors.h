// Small helpers over the stable ABI's tensors.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/MemoryFormat.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "imgops/activations.h"
#include "storage.h"

namespace imgops {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

inline DType dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Double: return DType::f64;
    case ScalarType::Float: return DType::f32;
    case ScalarType::Half: return DType::f16;
    case ScalarType::BFloat16: return DType::bf16;
    default: STD_TORCH_CHECK(false, "imgops: a tensor must be float64, float32, float16 or bfloat16");
  }
}

// The dtype of bias, scale, noise and of every sum.
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

// t itself where its memory is dense in one of the two formats, else a contiguous copy.
inline Tensor dense(const Tensor& t) {
  return t.is_contiguous() || is_channels_last(t) ? t : torch::stable::contiguous(t);
}

inline Tensor in_format(const Tensor& t, bool channels_last) {
  return torch::stable::contiguous(t, channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

// Fresh memory costs more to map, page by page, than to compute: ask for huge pages where the C library maps each
// allocation anew, which is from 32 MiB on; smaller ones it hands out again as they are.
inline void advise_huge_pages(const Tensor& t) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = uintptr_t(1) << 21;
  if (t.numel() * t.element_size() < (size_t(32) << 20)) return;
  const uintptr_t first = reinterpret_cast<uintptr_t>(t.data_ptr());
  const uintptr_t begin = (first + page - 1) / page * page, end = (first + t.numel() * t.element_size()) / page * page;
  if (end > begin + page) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)t;
#endif
}

inline Tensor allocate(const Tensor& like, const std::vector<int64_t>& size, bool channels_last = false) {
  const auto format = channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
  const auto device = torch::stable::Device(torch::headeronly::DeviceType::CPU);
  Tensor t = torch::stable::empty({size.data(), size.size()}, like.scalar_type(), std::nullopt, device, std::nullopt, format);
  advise_huge_pages(t);
  return t;
}

inline Tensor allocate_sums(const Tensor& like, const std::vector<int64_t>& size) {
  const auto device = torch::stable::Device(torch::headeronly::DeviceType::CPU);
  return torch::stable::empty({size.data(), size.size()}, accumulation_type(like), std::nullopt, device);
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

// An operand of bias_act: contiguous and in the accumulation dtype of x.
inline OptionalTensor operand(const OptionalTensor& t, const Tensor& x, const char* name, int64_t numel) {
  if (!t.has_value()) return std::nullopt;
  STD_TORCH_CHECK(t->scalar_type() == accumulation_type(x), "imgops: ", name, " must have the accumulation dtype of x");
  STD_TORCH_CHECK(t->numel() == numel, "imgops: ", name, " must have ", numel, " elements; got ", t->numel());
  return torch::stable::contiguous(*t);
}

inline const void* data_of(const OptionalTensor& t) { return t.has_value() ? t->data_ptr() : nullptr; }

}  // namespace imgops
