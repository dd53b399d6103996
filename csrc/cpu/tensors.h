// What the CPU launchers need of tensors besides imgops/tensors.h.
#pragma once

#include "imgops/tensors.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

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

// Fresh memory costs more to map, page by page, than to compute: ask for huge pages where an allocation holds some.
inline void advise_huge_pages(const Tensor& t) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = uintptr_t(1) << 21;
  if (t.numel() * t.element_size() < (size_t(4) << 20)) return;
  const uintptr_t first = reinterpret_cast<uintptr_t>(t.data_ptr());
  const uintptr_t begin = (first + page - 1) / page * page, end = (first + t.numel() * t.element_size()) / page * page;
  if (end > begin + page) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)t;
#endif
}

inline Tensor allocate(const Tensor& like, const std::vector<int64_t>& size, bool channels_last = false) {
  Tensor t = allocate(like, size, like.scalar_type(), channels_last);
  advise_huge_pages(t);
  return t;
}

inline Tensor allocate_sums(const Tensor& like, const std::vector<int64_t>& size) {
  return allocate(like, size, accumulation_type(like));
}

inline const void* data_of(const OptionalTensor& t) { return t.has_value() ? t->data_ptr() : nullptr; }

}  // namespace imgops
