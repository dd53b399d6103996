// Kernels of efdm and sort_rows, compiled once per instruction set. A task is a plane, which stays in cache from its keys
// to its result; the last pass of the sort of x writes the result itself.
#include "efdm.h"

#include "radix_sort.h"

namespace imgops {
namespace IMGOPS_ISA {
namespace {

template <class T, class Key>
void load_keys(const T* from, int64_t stride, Key* keys, int64_t n) {
  if (stride == 1) {
    for (int64_t i = 0; i < n; ++i) keys[i] = key_of(from[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) keys[i] = key_of(from[i * stride]);
  }
}

// A key's number in the accumulation type.
template <class T>
typename Accumulate<T>::type number(typename Bits<T>::type key) {
  if constexpr (sizeof(T) == 2) {
    return to_float(value_of<T>(key));
  } else {
    return value_of<T>(key);
  }
}

template <class T>
T stored(typename Accumulate<T>::type v) {
  if constexpr (__is_same(T, f16_t)) {
    return to_f16(v);
  } else if constexpr (__is_same(T, bf16_t)) {
    return to_bf16(v);
  } else {
    return v;
  }
}

// to[j], for j < n, is the quantile (j + 0.5) / n of `count` sorted numbers, between the two that are nearest.
template <class A>
void quantiles(const A* sorted, int64_t count, A* to, int64_t n) {
  // positions are whole numbers of 1 / (2 n), so that none is rounded
  const int64_t step = 2 * count, unit = 2 * n, last = unit * (count - 1);
  int64_t at = count - n;
  for (int64_t j = 0; j < n; ++j, at += step) {
    const int64_t place = std::min(std::max<int64_t>(at, 0), last), low = place / unit, beyond = place % unit;
    const A v = sorted[low];
    to[j] = beyond == 0 ? v : v + (sorted[low + 1] - v) * (static_cast<A>(beyond) / static_cast<A>(unit));
  }
}

template <class T>
struct Pass {
  using A = typename Accumulate<T>::type;
  using Key = typename Bits<T>::type;

  const Efdm& p;
  Keyed<Key>*a, *b;
  A *sorted, *matched;
  Key* keys;

  Pass(const Efdm& efdm, void* scratch) : p(efdm) {
    const int64_t n = p.most_pixels();
    a = static_cast<Keyed<Key>*>(scratch);
    b = a + n;
    sorted = reinterpret_cast<A*>(b + n);
    matched = sorted + n;
    keys = reinterpret_cast<Key*>(matched + p.x.pixels);
  }

  int64_t first(const Efdm::Planes& planes, int64_t sample, int64_t channel) const {
    return sample * p.channels * planes.pixels + channel * (planes.channels_last ? 1 : planes.pixels);
  }
  int64_t stride(const Efdm::Planes& planes) const { return planes.channels_last ? p.channels : 1; }

  // Quantiles of a plane of the style, as many as x has pixels.
  const A* style(int64_t sample, int64_t channel, int32_t* order) {
    const int64_t n = p.y.pixels;
    load_keys(static_cast<const T*>(p.style) + first(p.y, sample, channel), stride(p.y), keys, n);
    if (order) {
      radix_sort(keys, n, a, b, [&](int64_t rank, const Keyed<Key>& e) {
        order[rank] = static_cast<int32_t>(e.index);
        sorted[rank] = number<T>(e.key);
      });
    } else {
      radix_sort(keys, n, reinterpret_cast<Bare<Key>*>(a), reinterpret_cast<Bare<Key>*>(b),
                 [&](int64_t rank, const Bare<Key>& e) { sorted[rank] = number<T>(e.key); });
    }
    if (n == p.x.pixels) return sorted;
    quantiles(sorted, n, matched, p.x.pixels);
    return matched;
  }

  void match(int64_t sample, int64_t channel, const A* by_rank) {
    const int64_t n = p.x.pixels, at = first(p.x, sample, channel), apart = stride(p.x);
    load_keys(static_cast<const T*>(p.image) + at, apart, keys, n);
    T* out = static_cast<T*>(p.out) + at;
    const A share = static_cast<A>(p.alpha), rest = static_cast<A>(1 - p.alpha);
    int32_t* order = p.x_order ? p.x_order + (sample * p.channels + channel) * n : nullptr;
    radix_sort(keys, n, a, b, [&](int64_t rank, const Keyed<Key>& e) {
      // of a whole share the style's numbers arrive as they are, and a NaN stays one
      out[e.index * apart] = stored<T>(share * by_rank[rank] + rest * number<T>(e.key));
      if (order) order[rank] = static_cast<int32_t>(e.index);
    });
  }
};

}  // namespace

void efdm(const Efdm& p, DType dtype, void* scratch, int64_t begin, int64_t end) {
  with_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    Pass<T> pass(p, scratch);
    const typename Accumulate<T>::type* by_rank = nullptr;
    int64_t sorted = -1;
    for (int64_t task = begin; task < end; ++task) {
      // the samples of a channel follow each other where they share a style, which then is sorted once
      const bool one = p.one_style();
      const int64_t sample = one ? task % p.x.samples : task / p.channels;
      const int64_t channel = one ? task / p.x.samples : task % p.channels;
      const int64_t plane = (one ? 0 : sample) * p.channels + channel;
      if (plane != sorted) {
        // of several threads that sort a shared style, the one that has the first sample tells its order
        int32_t* order = p.y_order && (!one || sample == 0) ? p.y_order + plane * p.y.pixels : nullptr;
        by_rank = pass.style(one ? 0 : sample, channel, order);
        sorted = plane;
      }
      pass.match(sample, channel, by_rank);
    }
  });
}

void sort_rows(const SortRows& p, DType dtype, void* scratch, int64_t begin, int64_t end) {
  with_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    using Key = typename Bits<T>::type;
    auto* a = static_cast<Keyed<Key>*>(scratch);
    auto* b = a + p.length;
    auto* keys = reinterpret_cast<Key*>(b + p.length);
    for (int64_t row = begin; row < end; ++row) {
      load_keys(static_cast<const T*>(p.x) + row * p.length, 1, keys, p.length);
      T* values = static_cast<T*>(p.values) + row * p.length;
      int32_t* order = p.order + row * p.length;
      radix_sort(keys, p.length, a, b, [&](int64_t rank, const Keyed<Key>& e) {
        values[rank] = value_of<T>(e.key);
        order[rank] = static_cast<int32_t>(e.index);
      });
    }
  });
}

}  // namespace IMGOPS_ISA
}  // namespace imgops
