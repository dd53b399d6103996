// CUDA ops that other ops are composed of.
#pragma once

#include "imgops/tensors.h"

namespace imgops {

// upfirdn2d in a given memory format, since the format of an image of one pixel is ambiguous.
Tensor resample_cuda(const Tensor& x, const OptionalTensor& f, const std::vector<int64_t>& up,
                     const std::vector<int64_t>& down, const std::vector<int64_t>& padding, bool flip_filter,
                     double gain, bool channels_last);

}  // namespace imgops
