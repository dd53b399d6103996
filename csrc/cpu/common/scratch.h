// Memory that a kernel's thread works in.
#pragma once

#include <cstdlib>
#include <memory>

#include "memory.h"

namespace imgops {

struct Free {
  // of a kept piece
  size_t bytes = 0;
  void operator()(void* p) const {
    if (bytes > 0) {
      give_piece(p, bytes);
    } else {
      std::free(p);
    }
  }
};

// Memory that starts at a cache line: aligned loads of vectors need that. Much of it is kept for the next call, as heaps
// of threads would keep what they had for themselves.
inline std::unique_ptr<void, Free> aligned_scratch(size_t bytes) {
  if (const size_t piece = piece_bytes(bytes); piece > 0) return {take_piece(piece), Free{piece}};
  void* p = std::aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (p == nullptr) out_of_memory(bytes);
  return {p, Free{}};
}

}  // namespace imgops
