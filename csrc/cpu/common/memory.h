// The memory of the CPU kernels' results.
#pragma once

#include "imgops/tensors.h"

namespace imgops {

// Memory for a tensor of the dtype of `like`. The pages of a large one are those of an earlier one of its size, if one
// is gone: for the kernel to map and clear fresh ones can take longer than for an op to fill them. Such a
// tensor's storage cannot be resized. IMGOPS_CACHE_MEMORY=0 in the environment leaves all memory to libtorch.
Tensor allocate(const Tensor& like, const std::vector<int64_t>& size, bool channels_last = false);

}  // namespace imgops
