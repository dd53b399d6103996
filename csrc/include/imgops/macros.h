// Marks for code that both the host and a GPU run.
#pragma once

#if defined(__CUDACC__) || defined(__HIPCC__)
#define IMGOPS_HD __host__ __device__ __forceinline__
#else
#define IMGOPS_HD inline __attribute__((always_inline))
#endif
