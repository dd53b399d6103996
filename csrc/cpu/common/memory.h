// The memory of the CPU kernels' results, and of what they work in.
#pragma once

#include "imgops/tensors.h"

namespace imgops {

// Memory for a tensor of the dtype of `like`. A large one gets the pages of earlier ones that have been freed, if they
// have room for it: the kernel may take longer to map and clear fresh pages than an op takes to fill them. Such a
// tensor's storage cannot be resized. IMGOPS_CACHE_MEMORY=0 in the environment leaves all memory to libtorch.
Tensor allocate(const Tensor& like, const std::vector<int64_t>& size, bool channels_last = false);

// What is taken for so many bytes: whole huge pages, or 0 where the heap is to give them.
size_t piece_bytes(size_t bytes);
// Take, and give back, so much of the memory that is kept.
void* take_piece(size_t bytes);
void give_piece(void* p, size_t bytes) noexcept;

}  // namespace imgops
