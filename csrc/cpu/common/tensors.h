// Helpers for tensors that only the CPU launchers need, besides imgops/tensors.h.
#pragma once

#include "memory.h"
#include "storage.h"

namespace imgops {

inline DType dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Double: return DType::f64;
    case ScalarType::Float: return DType::f32;
    case ScalarType::Half: return DType::f16;
    case ScalarType::BFloat16: return DType::bf16;
    default: STD_TORCH_CHECK(false, "imgops: a tensor must be float64, float32, float16 or bfloat16");
  }
}

// t itself where its memory is dense in one of the two formats, else a contiguous copy.
inline Tensor dense(const Tensor& t) {
  return t.is_contiguous() || is_channels_last(t) ? t : torch::stable::contiguous(t);
}

inline Tensor allocate_sums(const Tensor& like, const std::vector<int64_t>& size) {
  return allocate(like, size, accumulation_type(like));
}

inline const void* data_of(const OptionalTensor& t) { return t.has_value() ? t->data_ptr() : nullptr; }

}  // namespace imgops
