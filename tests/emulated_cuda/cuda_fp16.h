// CUDA's half precision, by the conversions of the CPU kernels.
#pragma once
#include "cpu/common/storage.h"
using __half = imgops::baseline::f16_t;
inline float __half2float(__half v) { return imgops::baseline::to_float(v); }
inline __half __float2half_rn(float v) { return imgops::baseline::to_f16(v); }
