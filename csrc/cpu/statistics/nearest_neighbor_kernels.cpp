// Kernels of nearest_neighbor, compiled once per instruction set.
#include "nearest_neighbor.h"

#include <cmath>
#include <limits>

#include "nearest_neighbor_tiles.h"
#include "panels.h"

namespace imgops {
namespace IMGOPS_ISA {
namespace {

// rows of panels that are multiplied at a time, which stay in the first-level cache
constexpr int64_t kSteps = 128;

enum class State : int { zero, defined, undefined };

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

template <class A>
A dot(const A* a, const A* b, int64_t depth) {
  constexpr int64_t L = kLanes<A>;
  V<A> sums[2] = {};
  for (int64_t i = 0; i < depth; i += 2 * L) {
    sums[0] += load(a + i) * load(b + i);
    sums[1] += load(a + i + L) * load(b + i + L);
  }
  sums[0] += sums[1];
  A sum = 0;
  for (int64_t k = 0; k < L; ++k) sum += sums[0][k];
  return sum;
}

// The nearest key found so far.
template <class A>
struct Best {
  A similarity;
  int64_t index;
};

// Take over the nearest of the chunk's keys, where it is nearer. products[block][W][W]: row `query` of each block holds
// the products with its keys, each off by at most `slack`; vectors: the keys one by one, unless the products are exact.
template <class A>
void choose(const A* products, int64_t query, int64_t first_key, int64_t keys, A slack, const A* unit, const A* vectors,
            int64_t depth, Best<A>& best) {
  A largest[W], most = -2;
  const int64_t blocks = (keys + W - 1) / W;
  for (int64_t b = 0; b < blocks; ++b) {
    const A* row = products + (b * W + query) * W;
    const int64_t n = least(W, keys - b * W);
    A top = -2;
#pragma omp simd reduction(max : top)
    for (int64_t j = 0; j < n; ++j) top = row[j] > top ? row[j] : top;
    largest[b] = top;
    most = top > most ? top : most;
  }
  const A threshold = most - 2 * slack > best.similarity - slack ? most - 2 * slack : best.similarity - slack;
  for (int64_t b = 0; b < blocks; ++b) {
    if (largest[b] < threshold) continue;
    const A* row = products + (b * W + query) * W;
    for (int64_t j = 0; j < least(W, keys - b * W); ++j) {
      if (row[j] < threshold) continue;
      const A similarity = vectors ? dot(unit, vectors + (b * W + j) * depth, depth) : row[j];
      // of equals the first is kept
      if (similarity > best.similarity) best = {similarity, first_key + b * W + j};
    }
  }
}

// Scratch memory of a task, one part after the other.
template <class A>
struct Work {
  A *panel, *buffer, *products, *units, *slack;
  State* states;
  uint16_t* rounded;

  Work(void* scratch, const NearestNeighbor& p) {
    const int64_t block = W * p.depth();
    buffer = static_cast<A*>(scratch);
    panel = buffer + kPanel;
    products = panel + block;
    units = products + p.chunk(sizeof(A)) * W * W;
    slack = units + p.span * block;
    states = reinterpret_cast<State*>(slack + p.span * W);
    rounded = reinterpret_cast<uint16_t*>(slack + 2 * p.span * W);
  }
};

template <class T, class A>
void pack(const NearestNeighbor& p, A* scratch, int64_t begin, int64_t end) {
  const int64_t depth = p.depth(), block = W * depth;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t first = task % p.keys.blocks() * W;
    A* vectors = static_cast<A*>(p.vectors) + task * block;
    A* panel = p.screened ? scratch + kPanel : vectors;
    State states[W];
    unit_panel<T>(p.keys, task / p.keys.blocks(), first, p.channels, depth, panel, scratch, states);
    p.undefined[task] = p.keys.count;
    for (int64_t j = W - 1; j >= 0; --j) {
      if (states[j] == State::undefined) p.undefined[task] = first + j;
    }
    if constexpr (sizeof(A) == sizeof(float)) {
      if (!p.screened) continue;
      float errors[W] = {}, largest = 0;
      round_keys(panel, depth, p.rounded + task * block, errors);
      for (int64_t j = 0; j < W; ++j) largest = errors[j] > largest ? errors[j] : largest;
      p.errors[task] = largest;
      transpose_panel(panel, depth, vectors);
    }
  }
}

// The queries of a task: panels, or, screened, the vectors one by one, the same rounded, and how far products are off.
template <class T, class A>
void prepare_queries(const NearestNeighbor& p, const Work<A>& work, int64_t sample, int64_t first, int64_t blocks) {
  const int64_t depth = p.depth(), block = W * depth;
  for (int64_t b = 0; b < blocks; ++b) {
    A* panel = p.screened ? work.panel : work.units + b * block;
    State states[W];
    unit_panel<T>(p.queries, sample, (first + b) * W, p.channels, depth, panel, work.buffer, states);
    for (int64_t j = 0; j < W; ++j) {
      work.states[b * W + j] = states[j];
      work.slack[b * W + j] = 0;
    }
    if constexpr (sizeof(A) == sizeof(float)) {
      if (!p.screened) continue;
      transpose_panel(panel, depth, work.units + b * block);
      round_queries(work.units + b * block, depth, work.rounded + b * block, work.slack + b * W);
    }
  }
}

// products[block][W][W] of a block of queries with some blocks of keys
template <class A>
void multiply_keys(const NearestNeighbor& p, const Work<A>& work, int64_t query_block, int64_t key_block,
                   int64_t blocks) {
  const int64_t depth = p.depth(), block = W * depth;
  if constexpr (sizeof(A) == sizeof(float)) {
    if (p.screened) {
      multiply_tiles(work.rounded + query_block * block, p.rounded + key_block * block, work.products, depth, blocks);
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

template <class T, class A>
void search(const NearestNeighbor& p, void* scratch, int64_t begin, int64_t end) {
  const int64_t depth = p.depth(), key_blocks = p.keys.blocks(), chunk = p.chunk(sizeof(A)), queries = p.queries.count;
  const Work<A> work(scratch, p);
  const TileConfiguration configuration(p.screened);
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
    for (int64_t k = 0; k < key_blocks; k += chunk) {
      const int64_t n = least(chunk, key_blocks - k), keys = least(n * W, p.keys.count - k * W);
      const int64_t at = key_sample * key_blocks + k;
      A error = 0;
      for (int64_t b = 0; b < n; ++b) {
        undefined = least(undefined, p.undefined[at + b]);
        if (p.screened && p.errors[at + b] > error) error = static_cast<A>(p.errors[at + b]);
      }
      const A* vectors = p.screened ? static_cast<const A*>(p.vectors) + at * W * depth : nullptr;
      for (int64_t b = 0; b < blocks; ++b) {
        multiply_keys(p, work, b, at, n);
        for (int64_t q = b * W; q < least((b + 1) * W, count); ++q) {
          if (work.states[q] != State::defined) continue;
          // what rounding took off the query, off the key, and what the sum of the products lost
          const A slack = p.screened ? work.slack[q] * (1 + error) + error + A(depth) * A(1.2e-7) : A(0);
          Best<A> best{similarity[q], index[q]};
          choose(work.products, q - b * W, k * W, keys, slack, work.units + q * depth, vectors, depth, best);
          similarity[q] = best.similarity;
          index[q] = best.index;
        }
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
