// The ops on CUDA that others are made of.
#pragma once

#include "imgops/tensors.h"

namespace imgops {

// upfirdn2d in the format that is said: an image of one pixel does not show it.
Tensor resample_cuda(const Tensor& x, const OptionalTensor& f, const std::vector<int64_t>& up,
                     const std::vector<int64_t>& down, const std::vector<int64_t>& padding, bool flip_filter,
                     double gain, bool channels_last);

}  // namespace imgops
