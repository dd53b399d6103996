// What the launcher of nearest_neighbor and its kernels share.
#pragma once

#include "cpu/common/storage.h"
#include "panel_size.h"

namespace imgops {

constexpr int64_t kLongestSpan = 16;

// Vectors of `channels` values: value c of vector v of sample n lies at n * strides[0] + c * strides[1] + v * strides[2].
struct VectorSet {
  const void* data = nullptr;
  int64_t samples = 1, count = 0;
  int64_t strides[3] = {0, 0, 1};

  int64_t blocks() const { return (count + kPanelWidth - 1) / kPanelWidth; }
};

// The type of the products that tell which keys are compared at all: `exact` is the accumulation type, `bytes` takes the
// vector instructions of AVX2 or AVX-512, `tiles` is bfloat16 on those of AMX.
enum class Screen { exact, bytes, tiles };

// The key of the largest cosine for each query. Keys are scaled to length 1 and packed once, in blocks of kPanelWidth.
// The products of a block of queries with a chunk of keys are in scratch at a time, never all of them. Where they are of
// a lesser type, keys that could still be the nearest, given what rounding took off each vector, are compared in float32.
struct NearestNeighbor {
  VectorSet queries, keys;
  int64_t channels = 1;
  Screen screen = Screen::exact;
  // bytes: whether VNNI multiplies them
  bool vnni = false;
  // blocks of queries in a task, at most kLongestSpan
  int64_t span = 1;
  // [key samples][blocks][kPanelWidth * depth()] in the accumulation type: panels, screened the vectors one by one
  void* vectors = nullptr;
  // screened: the same rounded, kPanelWidth * depth() of each block; nearest_neighbor_tiles.h and _bytes.h have the order
  void* rounded = nullptr;
  // screened, [key samples][blocks][kPanelWidth]: the length of what rounding took off; bytes: the unit of their bytes
  float *errors = nullptr, *scales = nullptr;
  // [key samples][blocks]: the first key of each block that holds a NaN or an infinity, or the number of keys
  int64_t* undefined = nullptr;
  // [query samples, queries], the former in the accumulation type
  void* similarity = nullptr;
  int64_t* index = nullptr;

  // channels, padded to whole tiles
  int64_t depth() const { return (channels + 31) / 32 * 32; }
  bool screened() const { return screen != Screen::exact; }
  // bytes of a rounded value
  int64_t rounded_item() const { return screen == Screen::exact ? 0 : screen == Screen::bytes ? 1 : 2; }
  // the bytes of a screen are from -levels to levels; without VNNI the sums of two products must fit into 16 bits
  int32_t key_levels() const { return vnni ? 127 : 63; }
  static constexpr int32_t kQueryLevels = 127;
  // blocks of keys in a chunk, which stays in the second-level cache. The fewer, the sooner does the nearest so far rule
  // out others, which pays where the bytes are coarse.
  int64_t chunk(int64_t item) const {
    const int64_t bytes = screen == Screen::bytes && !vnni ? 1 << 18 : 1 << 19;
    const int64_t fit = bytes / (kPanelWidth * depth() * (screened() ? rounded_item() : item));
    return fit < 1 ? 1 : fit < kPanelWidth ? fit : kPanelWidth;
  }
  int64_t spans() const { return (queries.blocks() + span - 1) / span; }
  int64_t tasks() const { return queries.samples * spans(); }
  // bytes of aligned scratch memory that a thread needs, for values of the accumulation type of `item` bytes
  int64_t pack_scratch(int64_t item) const { return kPanelWidth * (depth() + kPanelDepth) * item; }
  int64_t search_scratch(int64_t item) const {
    const int64_t queries_of_task = kPanelWidth * span;
    // of each query its values, and a state, an error, a scale and a sum
    return pack_scratch(item) + queries_of_task * (depth() * (item + rounded_item()) + 16) +
           chunk(item) * kPanelWidth * kPanelWidth * item;
  }
};

// the keys of a range of blocks of all samples; then the nearest for a range of tasks
IMGOPS_KERNEL(void pack_keys(const NearestNeighbor&, DType, void* scratch, int64_t begin, int64_t end));
IMGOPS_KERNEL(void search_keys(const NearestNeighbor&, DType, void* scratch, int64_t begin, int64_t end));

}  // namespace imgops
