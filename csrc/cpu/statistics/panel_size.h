// The size of the panels that matrices are multiplied in.
#pragma once

#include <cstdint>

namespace imgops {

// channels (or pixels) side by side in a panel, and rows of it that are multiplied at a time: so many of a left and a
// right panel stay in the first-level cache
constexpr int64_t kPanelWidth = 32, kPanelDepth = 64;
constexpr int64_t kPanel = kPanelWidth * kPanelDepth;

}  // namespace imgops
