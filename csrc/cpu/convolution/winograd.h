// What the ops on 3 x 3 convolutions and their kernels share: Winograd's algorithm (Lavin and Gray 2016).
//
// A plain convolution in tiles of 4 x 4 outputs, F(4 x 4, 3 x 3): 36 products per tile and channel in place of 144. A
// convolution of stride 2 runs in tiles of 2 x 2 outputs, and a transposed one in tiles of 4 x 4, whose phases have 2
// taps or 1 per axis, F(2, 2): 25 products in place of 36. So does a plain one of an image that was up-sampled by 2 by
// repeating its pixels, where 2 of 3 taps always meet the same pixel: 25 products in place of 144. The gradient for a
// weight sums as many products over the tiles. Only the transforms of the plain convolution lose digits; docs/design.md
// has the figures.
#pragma once

#include "cpu/pointwise/bias_act.h"

namespace imgops {

// most tiles that are transformed together, and of one vector of the widest instruction set; groups are whole vectors
constexpr int64_t kWinogradTiles = 48, kWinogradLanes = 16;
// per tile: values of inputs or outputs, and of the row that tiles are cut from or put together in
constexpr int64_t kUntransformed = 36, kWinogradRow = 5;
// output channels that a block of transformed weights holds
constexpr int64_t kWinogradOutputs = 8;
// most transformed numbers of a tile, over all its input channels, that are in use at a time: they stay in the
// second-level cache
constexpr int64_t kWinogradNumbers = 2304;
// groups of tiles that each transform the weights for themselves
constexpr int64_t kFewGroups = 2;
// tiles in a row up to which pixels are looked up one by one: as many rows as vectors are not worth cutting
constexpr int64_t kShortRow = 4;

// strided and transposed: by 2; the odd one's first output is that of the tap in the middle alone; repeated: plain, of an
// image whose pixels are each taken for 2 x 2
enum class Convolution : int { plain, strided, transposed, odd_transposed, repeated };

// of the weight's gradient: tiles transformed together, channels side by side in memory, most channels of a task, whose
// sums stay in the second-level cache
constexpr int64_t kGradientTiles = 64, kGradientGroup = 32, kGradientBlock = 64;
// pixels of the rows that a run of such tiles covers, for as many channels as the widest vector has lanes
constexpr int64_t kGradientRows = 6, kGradientRow = 4 * kGradientTiles + 2, kGradientLanes = 16;

// pixels that a 3 x 3 convolution of that stride leaves along an axis; 0 where the padded image is smaller than the weight
inline int64_t convolved(int64_t pixels, int64_t before, int64_t after, int64_t stride) {
  const int64_t padded = pixels + before + after;
  return padded < 3 ? 0 : (padded - 3) / stride + 1;
}

// Grouped convolutions of few channels: most inputs and outputs of a group; most tiles that are transformed together, and
// those that lie together in memory, as a processor looks up few pages at a time; pixels that these tiles read, in
// whichever rectangle they lie, and write
constexpr int64_t kNarrowChannels = 32, kNarrowTiles = 64, kNarrowBlock = 16, kNarrowWindow = 1548,
                  kNarrowPixels = 16 * kNarrowTiles + 2 * kWinogradLanes;

// channels in whole vectors; a number's values in a block of tiles: not a power of two, as all numbers would share cache
// sets; those of all numbers and blocks; transformed weights of a number
inline int64_t narrow_channels(int64_t channels) {
  return (channels + kWinogradLanes - 1) / kWinogradLanes * kWinogradLanes;
}
inline int64_t narrow_number(int64_t channels) { return narrow_channels(channels) * kNarrowBlock + kWinogradLanes; }
inline int64_t narrow_tiles(int64_t channels) { return kNarrowTiles / kNarrowBlock * 36 * narrow_number(channels); }
inline int64_t narrow_weights(int64_t inputs, int64_t outputs) {
  return inputs * narrow_channels(outputs) + kWinogradLanes;
}

// A rectangle of a sample's tiles, the first at (y, x); `tile` others come before it in its chunk.
struct Piece {
  int64_t tile, sample, y, x, rows, columns;
};

// Images cut into pieces of at most kNarrowTiles tiles, whose sides differ by one at most. A chunk is a piece, or several
// images that are small.
struct Pieces {
  int64_t samples, tiles_y, tiles_x;
  int64_t across, down, together;

  Pieces(int64_t n, int64_t height, int64_t width) : samples(n), tiles_y(height), tiles_x(width) {
    across = (tiles_x + kNarrowTiles - 1) / kNarrowTiles;
    const int64_t columns = (tiles_x + across - 1) / across, rows = kNarrowTiles / columns;
    down = (tiles_y + rows - 1) / rows;
    together = across * down > 1 ? 1 : kNarrowTiles / (tiles_x * tiles_y);
  }
  int64_t chunks() const { return (samples + together - 1) / together * across * down; }

  // Call f with each piece of a chunk; return how many tiles it has.
  template <class F>
  int64_t for_each(int64_t chunk, const F& f) const {
    const int64_t first = chunk / (across * down) * together, row = chunk / across % down, column = chunk % across;
    const int64_t y = row * tiles_y / down, x = column * tiles_x / across;
    const int64_t rows = (row + 1) * tiles_y / down - y, columns = (column + 1) * tiles_x / across - x;
    int64_t tile = 0;
    for (int64_t sample = first; sample < samples && sample < first + together; ++sample, tile += rows * columns) {
      f(Piece{tile, sample, y, x, rows, columns});
    }
    return tile;
  }
};

// Channels `first` to `end` of the images that are convolved, planar: `x` is the first one of sample 0, `stride` values
// before that of the next sample, and `size` values may be read from there on.
struct Part {
  const void* x;
  int64_t first, end, stride, size;
};

struct Winograd {
  Convolution kind = Convolution::plain;
  // a grouped convolution is several, each of channels of its own
  int64_t samples = 1, convolutions = 1, inputs = 1, outputs = 1;
  // planar images of h * w, zeros before them (negative: cropped), and outputs of out_h * out_w
  int64_t h = 1, w = 1, pad_x = 0, pad_y = 0, out_h = 1, out_w = 1;
  // rows and columns of outputs that the first tiles begin with and nobody wants: 0 or, of a repeated image, 1
  int64_t skip_x = 0, skip_y = 0;
  // weight [convolutions * outputs, inputs, 3, 3] by its strides, so that a transposed one is read where it lies
  const void* weight = nullptr;
  int64_t weight_strides[4] = {0, 0, 3, 1};
  // all channels of the images, in order
  const Part* parts = nullptr;
  int64_t part_count = 0;
  // [samples, convolutions * inputs] or null
  const void* styles = nullptr;
  // [convolutions][output blocks][input blocks][weights_of_block()], or null: then each group transforms them block by block
  void* transformed = nullptr;
  // of the outputs' shape, added to the convolution times residual_scale; null = absent
  const void* residual = nullptr;
  double residual_scale = 1;
  void* y = nullptr;
  // the convolution and the residual before the epilogue; null = not wanted
  void* kept = nullptr;
  BiasAct epilogue;

  // along an axis: outputs of a tile; of the whole tile: products, and transformed inputs and weights
  int64_t tile_size() const { return kind == Convolution::strided ? 2 : 4; }
  int64_t products() const { return kind == Convolution::plain ? 36 : 25; }
  int64_t transformed_inputs() const {
    if (kind == Convolution::repeated) return 9;
    return kind == Convolution::plain ? 36 : kind == Convolution::strided ? 25 : 16;
  }
  int64_t transformed_weights() const {
    return kind == Convolution::plain ? 36 : kind == Convolution::repeated ? 25 : 16;
  }
  int64_t tiles_x() const { return (skip_x + out_w + tile_size() - 1) / tile_size(); }
  int64_t tiles_y() const { return (skip_y + out_h + tile_size() - 1) / tile_size(); }
  int64_t tiles() const { return samples * tiles_y() * tiles_x(); }
  int64_t output_blocks() const { return (outputs + kWinogradOutputs - 1) / kWinogradOutputs; }
  // input channels of a block, and the number of blocks: one even without inputs, as a block finishes the outputs
  int64_t block_inputs() const {
    const int64_t most = kWinogradNumbers / transformed_inputs();
    return inputs < most ? inputs : most;
  }
  // from a transformed number of an input block to the next, of a group's tiles and of an output block's weights: not
  // powers of two, as all numbers would share cache sets
  int64_t tiles_of_number() const { return block_inputs() * kWinogradTiles + kWinogradLanes; }
  int64_t weights_of_number() const { return block_inputs() * kWinogradOutputs + kWinogradLanes; }
  // transformed weights of an output block and an input block: [transformed_weights()][weights_of_number()]
  int64_t weights_of_block() const { return transformed_weights() * weights_of_number(); }
  int64_t input_blocks() const { return inputs > 0 ? (inputs + block_inputs() - 1) / block_inputs() : 1; }
  // output blocks whose sums a thread keeps until all inputs are in
  int64_t kept_blocks() const { return input_blocks() > 1 ? output_blocks() : 1; }
  // groups of tiles, in whole vectors whose number differs by one at most, so that all take equally long; the first
  // tile of a group
  int64_t vectors() const { return (tiles() + kWinogradLanes - 1) / kWinogradLanes; }
  int64_t groups() const { return (tiles() + kWinogradTiles - 1) / kWinogradTiles; }
  // Whether the weights are transformed once for all groups. Of many channels they then go through memory, which takes
  // longer than to transform them for each of a few groups.
  bool transforms_ahead() const { return groups() > kFewGroups; }
  // whether rows are short, and the numbers of the pixels that a group reads fit into 32 bits
  bool looks_up() const {
    int64_t stride = h * w;
    for (int64_t i = 0; i < part_count; ++i) stride = parts[i].stride > stride ? parts[i].stride : stride;
    return tiles_x() <= kShortRow && (kWinogradTiles + 1) * stride < (int64_t{1} << 31);
  }
  int64_t first_tile(int64_t group) const { return group * vectors() / groups() * kWinogradLanes; }
  // a task is an output block of a group of tiles of a convolution, the blocks of one group in a row
  int64_t tasks() const { return convolutions * groups() * output_blocks(); }
  // values of aligned scratch memory that a thread needs
  int64_t scratch() const {
    const int64_t sums = kept_blocks() * kWinogradOutputs * products();
    return transformed_inputs() * tiles_of_number() + kWinogradTiles * (sums + 2 * kUntransformed + kWinogradRow) +
           (transforms_ahead() ? 0 : weights_of_block());
  }

  // of groups with few channels: whether they are; the pieces, and the scratch memory, where a task is a chunk of a group
  bool narrow() const {
    return kind == Convolution::plain && convolutions > 1 && inputs > 0 && inputs <= kNarrowChannels &&
           outputs <= kNarrowChannels;
  }
  Pieces pieces() const { return {samples, tiles_y(), tiles_x()}; }
  int64_t narrow_scratch() const {
    return kWinogradLanes * (kNarrowWindow + 2 * kNarrowPixels) + narrow_tiles(inputs) + narrow_tiles(outputs) +
           36 * narrow_weights(inputs, outputs);
  }
};

// The gradient of a convolution, plain or strided, for its weight.
struct WinogradGradient {
  Convolution kind = Convolution::plain;
  // a grouped convolution is several, each of channels of its own
  int64_t samples = 1, convolutions = 1, inputs = 1, outputs = 1;
  // planar images of h * w, zeros before them, and gradients of out_h * out_w
  int64_t h = 1, w = 1, pad_x = 0, pad_y = 0, out_h = 1, out_w = 1;
  const void *x = nullptr, *dy = nullptr;
  // nine taps for each output and each input of a convolution, by these strides
  void* dweight = nullptr;
  int64_t dweight_strides[2] = {9, 9};
  // outputs, and inputs, of a task; a multiple of kGradientGroup
  int64_t block = kGradientBlock;

  int64_t tile_size() const { return kind == Convolution::strided ? 2 : 4; }
  int64_t tiles_x() const { return (out_w + tile_size() - 1) / tile_size(); }
  int64_t tiles_y() const { return (out_h + tile_size() - 1) / tile_size(); }
  int64_t tiles() const { return samples * tiles_y() * tiles_x(); }
  int64_t input_blocks() const { return (inputs + block - 1) / block; }
  int64_t blocks() const { return (outputs + block - 1) / block * input_blocks(); }
  // a task is a block of outputs with one of inputs, of a convolution
  int64_t tasks() const { return convolutions * blocks(); }
  // values of one number of the transformed tiles; not a power of two, as all numbers would share one cache set
  int64_t side() const { return block * kGradientTiles + kGradientGroup; }
  // values of aligned scratch memory that a thread needs
  int64_t scratch() const {
    const int64_t numbers = kind == Convolution::strided ? 25 + 9 : 36 + 36;
    return side() * numbers + (kind == Convolution::strided ? 16 : 36) * block * block +
           kGradientRows * kGradientRow * kGradientLanes;
  }

  // of groups with few channels: whether they are; the pieces, and the scratch memory, where a task is a group
  bool narrow() const {
    return kind == Convolution::plain && convolutions > 1 && inputs > 0 && inputs <= kNarrowChannels &&
           outputs <= kNarrowChannels;
  }
  Pieces pieces() const { return {samples, tiles_y(), tiles_x()}; }
  int64_t narrow_scratch() const {
    return kWinogradLanes * kNarrowWindow + narrow_tiles(inputs) + narrow_tiles(outputs) +
           36 * narrow_channels(inputs) * narrow_channels(outputs);
  }
};

// transform the weights of a range of output blocks of all convolutions; convolve for a range of tasks
using WinogradWeightsKernel = void (*)(const Winograd&, DType, int64_t begin, int64_t end);
using WinogradKernel = void (*)(const Winograd&, DType, void* scratch, int64_t begin, int64_t end);
using WinogradGradientKernel = void (*)(const WinogradGradient&, DType, void* scratch, int64_t begin, int64_t end);

IMGOPS_KERNEL(void winograd_weights(const Winograd&, DType, int64_t, int64_t));
IMGOPS_KERNEL(void winograd(const Winograd&, DType, void*, int64_t, int64_t));
IMGOPS_KERNEL(void winograd_gradient(const WinogradGradient&, DType, void*, int64_t, int64_t));
IMGOPS_KERNEL(void winograd_narrow(const Winograd&, DType, void*, int64_t, int64_t));
IMGOPS_KERNEL(void winograd_narrow_gradient(const WinogradGradient&, DType, void*, int64_t, int64_t));

}  // namespace imgops
