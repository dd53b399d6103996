// The ops on CUDA that others are made of.
#pragma once

#include "imgops/tensors.h"

namespace imgops {

Tensor upfirdn2d_cuda(const Tensor& x, const OptionalTensor& f, std::vector<int64_t> up, std::vector<int64_t> down,
                      std::vector<int64_t> padding, bool flip_filter, double gain);

}  // namespace imgops
