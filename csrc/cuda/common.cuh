// Shared by the CUDA kernels: tensors of the stable ABI, vectors of 16 bytes, activations chosen at run time.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include <algorithm>
#include <type_traits>

#include "imgops/tensors.h"

namespace imgops {

// The dtype that sums of T run in.
template <class T>
using Accumulate = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class T, int V>
struct alignas(sizeof(T) * V) Vec {
  T v[V];
};

// The type that moves kBytes bytes in one access.
template <int kBytes>
using SmallWord = std::conditional_t<kBytes == 4, unsigned, unsigned short>;
template <int kBytes>
using Word = std::conditional_t<kBytes == 16, uint4, std::conditional_t<kBytes == 8, uint2, SmallWord<kBytes>>>;

__device__ __forceinline__ double widen(double v) { return v; }
__device__ __forceinline__ float widen(float v) { return v; }
__device__ __forceinline__ float widen(__half v) { return __half2float(v); }
__device__ __forceinline__ float widen(__nv_bfloat16 v) { return __bfloat162float(v); }

template <class T, class A>
__device__ __forceinline__ T narrow(A v) {
  if constexpr (std::is_same_v<T, __half>) return __float2half_rn(v);
  else if constexpr (std::is_same_v<T, __nv_bfloat16>) return __float2bfloat16_rn(v);
  else return v;
}

// Load count <= V values at src in the accumulation dtype; in one access if count is V (src is then aligned to it).
template <int V, class T, class A>
__device__ __forceinline__ void load(const T* src, int64_t count, A (&out)[V]) {
  if (count >= V) {
    const Vec<T, V> in = *reinterpret_cast<const Vec<T, V>*>(src);
#pragma unroll
    for (int j = 0; j < V; ++j) out[j] = widen(in.v[j]);
  } else {
#pragma unroll
    for (int j = 0; j < V; ++j) out[j] = j < count ? A(widen(src[j])) : A(0);
  }
}

// Store a struct in one access, where the compiler would split it into one per member. The assembly has no memory
// clobber: no kernel reads what it writes, so that the loads of the next iteration may move ahead of the store.
template <class W>
__device__ __forceinline__ void store_word(W* dst, W word) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof(W) == 16) {
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(dst), "r"(word.x), "r"(word.y), "r"(word.z),
                 "r"(word.w));
    return;
  } else if constexpr (sizeof(W) == 8) {
    asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(dst), "r"(word.x), "r"(word.y));
    return;
  }
#endif
  *dst = word;
}

template <int V, class T, class A>
__device__ __forceinline__ void store(T* dst, int64_t count, const A (&in)[V]) {
  if (count >= V) {
    Vec<T, V> out;
#pragma unroll
    for (int j = 0; j < V; ++j) out.v[j] = narrow<T>(in[j]);
    Word<sizeof(out)> word;
    memcpy(&word, &out, sizeof(out));
    store_word(reinterpret_cast<Word<sizeof(out)>*>(dst), word);
  } else {
#pragma unroll
    for (int j = 0; j < V; ++j) {
      if (j < count) dst[j] = narrow<T>(in[j]);
    }
  }
}

// Load values of the accumulation dtype, by accesses of 16 bytes where V values fill some (src is then aligned to 16).
template <int V, class A>
__device__ __forceinline__ void load_wide(const A* src, int64_t count, A (&out)[V]) {
  constexpr int step = V * sizeof(A) % 16 == 0 ? 16 / sizeof(A) : 1;
#pragma unroll
  for (int j = 0; j < V; j += step) {
    A part[step];
    load<step>(src + j, count - j, part);
#pragma unroll
    for (int i = 0; i < step; ++i) out[j + i] = part[i];
  }
}

// Store values of the accumulation dtype; the converse of load_wide.
template <int V, class A>
__device__ __forceinline__ void store_wide(A* dst, int64_t count, const A (&in)[V]) {
  constexpr int step = V * sizeof(A) % 16 == 0 ? 16 / sizeof(A) : 1;
#pragma unroll
  for (int j = 0; j < V; j += step) {
    A part[step];
#pragma unroll
    for (int i = 0; i < step; ++i) part[i] = in[j + i];
    store<step>(dst + j, count - j, part);
  }
}

// a / b of numbers >= 0: an unsigned division is cheaper, above all where both fit 32 bits
__device__ __forceinline__ int64_t quotient(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) / static_cast<uint64_t>(b));
}

// Sum over the `width` neighboring lanes (a power of two) that the caller belongs to; every lane must call.
template <class A>
__device__ __forceinline__ A group_sum(A v, int width) {
  for (int d = width / 2; d > 0; d /= 2) v += __shfl_xor_sync(0xffffffffu, v, d);
  return v;
}

// NaN fails both comparisons and so is returned unchanged
template <class A>
__device__ __forceinline__ A clamped(A v, A limit) {
  return limit < A(0) ? v : (v > limit ? limit : (v < -limit ? -limit : v));
}

// The nearest number to v in [-limit, limit], or NaN if v is NaN, for limit >= 0; two instructions from sm_80 on.
__device__ __forceinline__ float within(float v, float limit) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm("max.NaN.f32 %0, %0, %1;" : "+f"(v) : "f"(-limit));
  asm("min.NaN.f32 %0, %0, %1;" : "+f"(v) : "f"(limit));
  return v;
#else
  return clamped(v, limit);
#endif
}
__device__ __forceinline__ double within(double v, double limit) { return clamped(v, limit); }

// Call f with a value of the storage type of t.
template <class F>
void with_dtype(const Tensor& t, const F& f) {
  switch (t.scalar_type()) {
    case ScalarType::Double: return f(double{});
    case ScalarType::Float: return f(float{});
    case ScalarType::Half: return f(__half{});
    case ScalarType::BFloat16: return f(__nv_bfloat16{});
    default: STD_TORCH_CHECK(false, "imgops: a tensor must be float64, float32, float16 or bfloat16");
  }
}

template <class A>
const A* pointer(const OptionalTensor& t) {
  return t.has_value() ? static_cast<const A*>(t->data_ptr()) : nullptr;
}

inline bool aligned16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// log2 of the smallest power of two >= n, at most `most`.
inline int log2_ceil(int64_t n, int most) {
  int log = 0;
  while (log < most && (int64_t(1) << log) < n) ++log;
  return log;
}

// Launches kernels on the device of a tensor and on its current stream.
class Launch {
 public:
  explicit Launch(const Tensor& t) : guard_(t.get_device_index()) {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
    STD_CUDA_CHECK(cudaDeviceGetAttribute(&processors_, cudaDevAttrMultiProcessorCount, t.get_device_index()));
  }

  int processors() const { return processors_; }

  // Launch a kernel whose blocks take tasks in turns: one block per task, but at most `waves` blocks per
  // multiprocessor.
  template <class... P, class... Q>
  void operator()(void (*kernel)(P...), int64_t tasks, int waves, int threads, size_t shared,
                  const Q&... arguments) const {
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(std::clamp<int64_t>(tasks, 1, int64_t(processors_) * waves)));
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.dynamicSmemBytes = shared;
    config.stream = stream_;
    STD_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, arguments...));
  }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_ = nullptr;
  int processors_ = 1;
};

}  // namespace imgops
