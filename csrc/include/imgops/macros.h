// Macros for code that a GPU can run: IMGOPS_HD for the host too, IMGOPS_DEVICE for the GPU alone if there is one.
#pragma once

#if defined(__CUDACC__) || defined(__HIPCC__)
#define IMGOPS_HD __host__ __device__ __forceinline__
#define IMGOPS_DEVICE __device__ __forceinline__
#else
#define IMGOPS_HD inline __attribute__((always_inline))
#define IMGOPS_DEVICE IMGOPS_HD
#endif
