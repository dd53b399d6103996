// Memory that a kernel's thread works in.
#pragma once

#include <cstdlib>
#include <memory>

#include "tensors.h"

namespace imgops {

struct Free {
  void operator()(void* p) const { std::free(p); }
};

// Memory that starts at a cache line: aligned loads of vectors need that.
inline std::unique_ptr<void, Free> aligned_scratch(size_t bytes) {
  void* p = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (p == nullptr) out_of_memory(bytes);
  return std::unique_ptr<void, Free>(p);
}

}  // namespace imgops
