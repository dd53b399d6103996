// What the launcher of nearest_neighbor and its kernels share.
#pragma once

#include "cpu/common/storage.h"
#include "panel_size.h"

namespace imgops {

// Vectors of `channels` values: value c of vector v of sample n lies at n * strides[0] + c * strides[1] + v * strides[2].
struct VectorSet {
  const void* data = nullptr;
  int64_t samples = 1, count = 0;
  int64_t strides[3] = {0, 0, 1};

  int64_t blocks() const { return (count + kPanelWidth - 1) / kPanelWidth; }
};

// The key of the largest cosine for each query. Keys are scaled to length 1 and packed once, in blocks of kPanelWidth.
// The products of a block of queries with a chunk of keys are in scratch at a time, never all of them. With `screened`
// they are in bfloat16, on the tiles of AMX; keys that could still be the nearest, given what rounding took off each
// vector, are compared in float32.
struct NearestNeighbor {
  VectorSet queries, keys;
  int64_t channels = 1;
  bool screened = false;
  // blocks of queries in a task
  int64_t span = 1;
  // [key samples][blocks][kPanelWidth * depth()] in the accumulation type: panels, screened the vectors one by one
  void* vectors = nullptr;
  // screened: the same rounded, [key samples][blocks][kPanelWidth / 16][depth() / 32][16][16][2]
  uint16_t* rounded = nullptr;
  // screened: the largest length of what rounding took off a key of each block
  float* errors = nullptr;
  // [key samples][blocks]: the first key of each block that holds a NaN or an infinity, or the number of keys
  int64_t* undefined = nullptr;
  // [query samples, queries], the former in the accumulation type
  void* similarity = nullptr;
  int64_t* index = nullptr;

  // channels, padded to whole tiles
  int64_t depth() const { return (channels + 31) / 32 * 32; }
  // blocks of keys in a chunk, which stays in the second-level cache
  int64_t chunk(int64_t item) const {
    const int64_t fit = (1 << 19) / (kPanelWidth * depth() * (screened ? 2 : item));
    return fit < 1 ? 1 : fit < kPanelWidth ? fit : kPanelWidth;
  }
  int64_t spans() const { return (queries.blocks() + span - 1) / span; }
  int64_t tasks() const { return queries.samples * spans(); }
  // bytes of aligned scratch memory that a thread needs, for values of the accumulation type of `item` bytes
  int64_t pack_scratch(int64_t item) const { return kPanelWidth * (depth() + kPanelDepth) * item; }
  int64_t search_scratch(int64_t item) const {
    const int64_t values = kPanelWidth * depth() * span;
    return pack_scratch(item) + values * (screened ? item + 2 : item) +
           chunk(item) * kPanelWidth * kPanelWidth * item + span * kPanelWidth * item * 2;
  }
};

// the keys of a range of blocks of all samples; then the nearest for a range of tasks
IMGOPS_KERNEL(void pack_keys(const NearestNeighbor&, DType, void* scratch, int64_t begin, int64_t end));
IMGOPS_KERNEL(void search_keys(const NearestNeighbor&, DType, void* scratch, int64_t begin, int64_t end));

}  // namespace imgops
