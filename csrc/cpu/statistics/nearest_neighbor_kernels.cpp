// Kernels of nearest_neighbor, compiled once per instruction set.
#include "nearest_neighbor.h"

#include <cmath>
#include <limits>

#include "nearest_neighbor_bytes.h"
#include "nearest_neighbor_candidates.h"
#include "nearest_neighbor_tiles.h"
#include "panels.h"

namespace imgops {
namespace IMGOPS_ISA {
namespace {

// rows of panels that are multiplied at a time, which stay in the first-level cache
constexpr int64_t kSteps = 128;

// A block of vectors of sample n, scaled to length 1, in panel[depth][W]: zero past the channels and the vectors, and
// where a vector is zero or holds a NaN or an infinity. scratch: kPanel values.
template <class T, class A>
void unit_panel(const VectorSet& v, int64_t n, int64_t first, int64_t channels, int64_t depth, A* panel, A* scratch,
                State (&states)[W]) {
  const int64_t width = least(W, v.count - first);
  const T* data = static_cast<const T*>(v.data) + n * v.strides[0] + first * v.strides[2];
  for (int64_t c = 0; c < channels; c += kPanelDepth) {
    const int64_t steps = least(kPanelDepth, channels - c);
    pack(Matrix<T, A>{data + c * v.strides[1], steps, width, v.strides[1], v.strides[2], nullptr, nullptr},
         panel + c * W, kPanel, scratch);
  }
  for (int64_t i = channels * W; i < depth * W; ++i) panel[i] = 0;
  // divided by the largest value first, so that no square overflows or vanishes
  A largest[W] = {};
  for (int64_t c = 0; c < channels; ++c) {
#pragma omp simd
    for (int64_t j = 0; j < W; ++j) {
      const A a = std::abs(panel[c * W + j]);
      largest[j] = a > largest[j] ? a : largest[j];
    }
  }
  for (int64_t j = 0; j < W; ++j) largest[j] = largest[j] > 0 ? largest[j] : A(1);
  double squares[W] = {};
  for (int64_t c = 0; c < channels; ++c) {
#pragma omp simd
    for (int64_t j = 0; j < W; ++j) {
      const A a = panel[c * W + j] / largest[j];
      panel[c * W + j] = a;
      squares[j] += double(a) * double(a);
    }
  }
  A scale[W];
  bool clean = true;
  for (int64_t j = 0; j < W; ++j) {
    states[j] = squares[j] > 0 ? State::defined : squares[j] == 0 ? State::zero : State::undefined;
    scale[j] = states[j] == State::defined ? static_cast<A>(1 / std::sqrt(squares[j])) : A(0);
    clean = clean && states[j] != State::undefined;
  }
  for (int64_t c = 0; c < channels; ++c) {
    A* row = panel + c * W;
#pragma omp simd
    for (int64_t j = 0; j < W; ++j) row[j] *= scale[j];
    for (int64_t j = 0; j < W && !clean; ++j) row[j] = states[j] == State::undefined ? A(0) : row[j];
  }
}

// The vectors of a panel one by one, vectors[W][depth].
template <class A>
void transpose_panel(const A* panel, int64_t depth, A* vectors) {
  constexpr int64_t L = kLanes<A>;
  for (int64_t c = 0; c < depth; c += L) {
    for (int64_t j = 0; j < W; j += L) {
      V<A> block[L];
#pragma GCC unroll 16
      for (int64_t k = 0; k < L; ++k) block[k] = load(panel + (c + k) * W + j);
      transpose<A, L>(block);
#pragma GCC unroll 16
      for (int64_t k = 0; k < L; ++k) store(vectors + (j + k) * depth + c, block[k]);
    }
  }
}

// Scratch memory of a task, one part after the other.
template <class A>
struct Work {
  A *panel, *buffer, *products, *units;
  State* states;
  // screened: what is known of each rounded query
  Rounded of;
  // screened: the rounded queries
  uint8_t* rounded;

  Work(void* scratch, const NearestNeighbor& p) {
    const int64_t block = W * p.depth(), queries = p.span * W;
    rounded = static_cast<uint8_t*>(scratch);
    buffer = reinterpret_cast<A*>(rounded + p.span * block * p.rounded_item());
    panel = buffer + kPanel;
    products = panel + block;
    units = products + p.chunk(sizeof(A)) * W * W;
    states = reinterpret_cast<State*>(units + p.span * block);
    of.errors = reinterpret_cast<float*>(states + queries);
    of.scales = of.errors + queries;
    of.sums = reinterpret_cast<int32_t*>(of.scales + queries);
  }
  Rounded of_block(int64_t b) const { return {of.scales + b * W, of.errors + b * W, of.sums + b * W}; }
};

// The blocks of rounded vectors, from one on.
inline uint8_t* blocks_from(void* rounded, int64_t block, const NearestNeighbor& p) {
  return static_cast<uint8_t*>(rounded) + block * W * p.depth() * p.rounded_item();
}

template <class T, class A>
void pack(const NearestNeighbor& p, A* scratch, int64_t begin, int64_t end) {
  const int64_t depth = p.depth(), block = W * depth;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t first = task % p.keys.blocks() * W;
    A* vectors = static_cast<A*>(p.vectors) + task * block;
    A* panel = p.screened() ? scratch + kPanel : vectors;
    State states[W];
    unit_panel<T>(p.keys, task / p.keys.blocks(), first, p.channels, depth, panel, scratch, states);
    p.undefined[task] = p.keys.count;
    for (int64_t j = W - 1; j >= 0; --j) {
      if (states[j] == State::undefined) p.undefined[task] = first + j;
    }
    if constexpr (kScreens<A>) {
      if (!p.screened()) continue;
      transpose_panel(panel, depth, vectors);
      float* errors = p.errors + task * W;
      uint8_t* rounded = blocks_from(p.rounded, task, p);
      if (p.screen == Screen::tiles) {
        round_keys(panel, depth, reinterpret_cast<uint16_t*>(rounded), errors);
      } else {
        int32_t sums[W];
        mix_channels(panel, depth);
        round_to_bytes(panel, depth, p.key_levels(), p.key_levels() + 1, W, rounded,
                       {p.scales + task * W, errors, sums});
      }
      // past the last key nothing is known
      for (int64_t j = p.keys.count - first; j < W; ++j) errors[j] = 4;
    }
  }
}

// The queries of a task: panels, or, screened, the vectors one by one, and the same rounded.
template <class T, class A>
void prepare_queries(const NearestNeighbor& p, const Work<A>& work, int64_t sample, int64_t first, int64_t blocks) {
  const int64_t depth = p.depth(), block = W * depth;
  for (int64_t b = 0; b < blocks; ++b) {
    A* panel = p.screened() ? work.panel : work.units + b * block;
    State states[W];
    unit_panel<T>(p.queries, sample, (first + b) * W, p.channels, depth, panel, work.buffer, states);
    for (int64_t j = 0; j < W; ++j) work.states[b * W + j] = states[j];
    if constexpr (kScreens<A>) {
      if (!p.screened()) continue;
      float* vectors = work.units + b * block;
      uint8_t* rounded = blocks_from(work.rounded, b, p);
      transpose_panel(panel, depth, vectors);
      if (p.screen == Screen::tiles) {
        round_queries(vectors, depth, reinterpret_cast<uint16_t*>(rounded), work.of.errors + b * W);
      } else {
        mix_channels(panel, depth);
        round_to_bytes(panel, depth, p.kQueryLevels, 0, kRows, rounded, work.of_block(b));
      }
    }
  }
}

// products[block][W][W] of a block of queries with some blocks of keys
template <class A>
void multiply_keys(const NearestNeighbor& p, const Work<A>& work, int64_t query_block, int64_t key_block,
                   int64_t blocks) {
  const int64_t depth = p.depth(), block = W * depth;
  if constexpr (kScreens<A>) {
    if (p.screened()) {
      const uint8_t *left = blocks_from(work.rounded, query_block, p), *right = blocks_from(p.rounded, key_block, p);
      if (p.screen == Screen::tiles) {
        multiply_tiles(reinterpret_cast<const uint16_t*>(left), reinterpret_cast<const uint16_t*>(right), work.products,
                       depth, blocks);
      } else {
        multiply_bytes(left, work.of_block(query_block), right, p.scales + key_block * W, p.vnni, p.key_levels() + 1,
                       depth, blocks, work.products);
      }
      return;
    }
  }
  const A *queries = work.units + query_block * block, *keys = static_cast<const A*>(p.vectors) + key_block * block;
  for (int64_t b = 0; b < blocks; ++b) {
    for (int64_t i = 0; i < p.channels; i += kSteps) {
      multiply_panels(queries + i * W, keys + b * block + i * W, work.products + b * W * W,
                      least(kSteps, p.channels - i), W, false, i > 0);
    }
  }
}

// chunks of keys that a block of queries goes unscreened for, after one in which every block was compared whole
constexpr int kUnscreened = 3;

template <class T, class A>
void search(const NearestNeighbor& p, void* scratch, int64_t begin, int64_t end) {
  const int64_t depth = p.depth(), key_blocks = p.keys.blocks(), chunk = p.chunk(sizeof(A)), queries = p.queries.count;
  const Work<A> work(scratch, p);
  const TileConfiguration configuration(p.screen == Screen::tiles);
  for (int64_t task = begin; task < end; ++task) {
    const int64_t sample = task / p.spans(), first = task % p.spans() * p.span;
    const int64_t blocks = least(p.span, p.queries.blocks() - first), count = least(blocks * W, queries - first * W);
    const int64_t key_sample = p.keys.samples == 1 ? 0 : sample;
    A* similarity = static_cast<A*>(p.similarity) + sample * queries + first * W;
    int64_t* index = p.index + sample * queries + first * W;
    prepare_queries<T>(p, work, sample, first, blocks);
    for (int64_t q = 0; q < count; ++q) {
      similarity[q] = work.states[q] == State::zero ? A(0) : A(-2);
      index[q] = 0;
    }
    int64_t undefined = p.keys.count;
    int unscreened[kLongestSpan] = {};
    for (int64_t k = 0; k < key_blocks; k += chunk) {
      const int64_t n = least(chunk, key_blocks - k), at = key_sample * key_blocks + k;
      for (int64_t b = 0; b < n; ++b) undefined = least(undefined, p.undefined[at + b]);
      const KeyChunk<A> keys{static_cast<const A*>(p.vectors) + at * W * depth, p.errors + at * W, k * W,
                             least(n * W, p.keys.count - k * W)};
      for (int64_t b = 0; b < blocks; ++b) {
        const int64_t q = b * W;
        const QueryBlock<A> block{work.units + q * depth, work.of.errors + q, work.states + q,
                                  least(W, count - q),    similarity + q,     index + q};
        if constexpr (kScreens<A>) {
          if (p.screened() && unscreened[b] > 0) {
            --unscreened[b];
            for (int64_t i = 0; i < n; ++i) compare_block(work.products, block, keys, i, depth);
            continue;
          }
          if (p.screened()) {
            multiply_keys(p, work, b, at, n);
            if (take_candidates(work.products, block, keys, depth) == n) unscreened[b] = kUnscreened;
            continue;
          }
        }
        multiply_keys(p, work, b, at, n);
        for (int64_t i = 0; i < n; ++i) take_nearest(work.products + i * W * W, block, keys, i);
      }
    }
    for (int64_t q = 0; q < count; ++q) {
      const bool alone = work.states[q] == State::undefined;
      if (!alone && undefined == p.keys.count) continue;
      similarity[q] = std::numeric_limits<A>::quiet_NaN();
      index[q] = alone ? 0 : undefined;
    }
  }
}

}  // namespace

void pack_keys(const NearestNeighbor& p, DType dtype, void* scratch, int64_t begin, int64_t end) {
  with_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    using A = typename Accumulate<T>::type;
    pack<T, A>(p, static_cast<A*>(scratch), begin, end);
  });
}

void search_keys(const NearestNeighbor& p, DType dtype, void* scratch, int64_t begin, int64_t end) {
  with_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    search<T, typename Accumulate<T>::type>(p, scratch, begin, end);
  });
}

}  // namespace IMGOPS_ISA
}  // namespace imgops
