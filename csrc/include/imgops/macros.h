// Marks for code that a GPU runs too: IMGOPS_HD beside the host, IMGOPS_DEVICE in place of it.
#pragma once

#if defined(__CUDACC__) || defined(__HIPCC__)
#define IMGOPS_HD __host__ __device__ __forceinline__
#define IMGOPS_DEVICE __device__ __forceinline__
#else
#define IMGOPS_HD inline __attribute__((always_inline))
#define IMGOPS_DEVICE IMGOPS_HD
#endif
