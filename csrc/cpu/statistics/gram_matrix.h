// What the ops on products of channels and their kernels share: gram_matrix, feature_statistics and mix_channels.
#pragma once

#include "cpu/common/storage.h"
#include "panel_size.h"

namespace imgops {

// Features as `samples` matrices of channels and pixels, planar or channels-last.
struct Features {
  int64_t samples = 1, channels = 1, pixels = 1;
  bool channels_last = false;
  const void* data = nullptr;
  // [samples, channels] to subtract, in the accumulation type; null = absent
  const void* mean = nullptr;

  int64_t channel_stride() const { return channels_last ? 1 : pixels; }
  int64_t pixel_stride() const { return channels_last ? channels : 1; }
  int64_t blocks() const { return (channels + kPanelWidth - 1) / kPanelWidth; }
  // pixels of a chunk, whose products or sum are added up apart, and chunks: both follow from the shape alone, so that
  // no sum depends on the number of threads. With many channels a chunk has more pixels, as its sums outweigh them.
  int64_t chunk() const {
    const int64_t few = (1 << 17) / channels, most = few > 2 * channels ? few : 2 * channels;
    return (most + kPanelDepth - 1) / kPanelDepth * kPanelDepth;
  }
  int64_t chunks() const { return (pixels + chunk() - 1) / chunk(); }
};

// out = scale * x x^T for each sample, of its pixels less the mean; only blocks on and below the diagonal are multiplied.
struct GramMatrix {
  Features x;
  double scale = 1;
  // [samples][chunks][blocks on and below the diagonal][kPanelWidth][kPanelWidth], in the accumulation type
  void* sums = nullptr;
  // [samples, channels, channels]
  void* out = nullptr;
  // tasks that a chunk's rows are cut into, each of about as many blocks; at most blocks()
  int64_t cuts = 1;

  int64_t tiles() const { return x.blocks() * (x.blocks() + 1) / 2; }
  int64_t sums_size() const { return x.samples * x.chunks() * tiles() * kPanelWidth * kPanelWidth; }
  int64_t tasks() const { return x.samples * x.chunks() * cuts; }
  // values of aligned scratch memory that a thread needs
  int64_t scratch() const { return (x.blocks() + 1) * kPanel; }
};

// y[o] = sum_i weight[o, i] * (x[i] - mean[i]) + bias[o] for each pixel, in x's dtype and format.
struct ChannelMix {
  Features x;
  // [samples, channels, channels] by its strides
  const void* weight = nullptr;
  int64_t weight_strides[3] = {0, 0, 1};
  // [samples][blocks][depths()][kPanelDepth][kPanelWidth]
  void* panels = nullptr;
  // [samples, channels] or null
  const void* bias = nullptr;
  void* y = nullptr;

  // panels of all channels, one below the other
  int64_t depths() const { return (x.channels + kPanelDepth - 1) / kPanelDepth; }
  int64_t panels_size() const { return x.samples * x.blocks() * depths() * kPanel; }
  // groups of kPanelWidth pixels in a task, whose panels stay in the second-level cache
  int64_t groups() const {
    const int64_t fit = 32 / depths();
    return fit < 1 ? 1 : fit;
  }
  int64_t spans() const { return (x.pixels + groups() * kPanelWidth - 1) / (groups() * kPanelWidth); }
  int64_t tasks() const { return x.samples * spans(); }
  int64_t scratch() const { return (groups() * depths() + 1) * kPanel + 2 * kPanelWidth * kPanelWidth; }
};

// sums [samples, chunks, channels] of the pixels of a range of chunks, in float64
IMGOPS_KERNEL(void channel_sums(const Features&, DType, double* sums, void* scratch, int64_t begin, int64_t end));
// the sums of a range of tasks; then out from them, for a range of block rows of all samples
IMGOPS_KERNEL(void gram_sums(const GramMatrix&, DType, void* scratch, int64_t begin, int64_t end));
IMGOPS_KERNEL(void gram_finish(const GramMatrix&, DType, int64_t begin, int64_t end));
// the panels of a range of blocks of all samples' weights; then y for a range of tasks
IMGOPS_KERNEL(void mix_panels(const ChannelMix&, DType, int64_t begin, int64_t end));
IMGOPS_KERNEL(void mix_channels(const ChannelMix&, DType, void* scratch, int64_t begin, int64_t end));

}  // namespace imgops
