// CUDA's half precision, by the conversions of the CPU kernels.
#pragma once
#include "cpu/common/storage.h"
using __nv_bfloat16 = imgops::baseline::bf16_t;
inline float __bfloat162float(__nv_bfloat16 v) { return imgops::baseline::to_float(v); }
inline __nv_bfloat16 __float2bfloat16_rn(float v) { return imgops::baseline::to_bf16(v); }
