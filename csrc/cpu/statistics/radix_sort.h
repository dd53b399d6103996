// Floating-point numbers as keys that sort as integers, and a stable sort of them; compiled once per instruction set.
#pragma once

#include <algorithm>

#include "cpu/common/vectors.h"

namespace imgops {
namespace IMGOPS_ISA {

// The bits of T: as an unsigned integer, and those of infinity.
template <class T>
struct Bits;
template <>
struct Bits<double> {
  using type = uint64_t;
  static constexpr type infinity = 0x7ff0000000000000;
};
template <>
struct Bits<float> {
  using type = uint32_t;
  static constexpr type infinity = 0x7f800000;
};
template <>
struct Bits<f16_t> {
  using type = uint16_t;
  static constexpr type infinity = 0x7c00;
};
template <>
struct Bits<bf16_t> {
  using type = uint16_t;
  static constexpr type infinity = 0x7f80;
};

// An integer that is larger where the number is; zeros of both signs have one key, and NaNs the largest.
template <class T>
inline typename Bits<T>::type key_of(T v) {
  using Key = typename Bits<T>::type;
  constexpr Key sign = Key(1) << (8 * sizeof(Key) - 1);
  Key bits;
  std::memcpy(&bits, &v, sizeof(bits));
  const Key magnitude = bits & Key(~sign);
  if (magnitude == 0) bits = 0;
  const Key key = bits & sign ? Key(~bits) : Key(bits | sign);
  return magnitude > Bits<T>::infinity ? Key(~Key(0)) : key;
}

// The number of a key.
template <class T>
inline T value_of(typename Bits<T>::type key) {
  using Key = typename Bits<T>::type;
  constexpr Key sign = Key(1) << (8 * sizeof(Key) - 1);
  const Key bits = key & sign ? Key(key ^ sign) : Key(~key);
  T v;
  std::memcpy(&v, &bits, sizeof(v));
  return v;
}

// A key, and where it came from.
template <class Key>
struct Keyed {
  Key key;
  uint32_t index;

  static Keyed make(Key key, int64_t i) { return {key, static_cast<uint32_t>(i)}; }
};

// A key alone.
template <class Key>
struct Bare {
  Key key;

  static Bare make(Key key, int64_t) { return {key}; }
};

// Up to so many keys, half as many of 8 bytes, are sorted by counting for each the smaller ones, and the equal ones before.
constexpr int64_t kMostCounted = kBytes == 64 ? 192 : kBytes == 32 ? 96 : 40;

template <class Entry, class Key, class Emit>
inline void sort_by_counting(const Key* keys, int64_t n, const Emit& emit) {
  using Lane = std::conditional_t<sizeof(Key) == 8, uint64_t, uint32_t>;
  using Lanes = typename Vector<Lane, kLanes<Lane>>::type;
  constexpr int64_t L = kLanes<Lane>;
  Lane all[kMostCounted + L], ranks[L];
  for (int64_t i = 0; i < n; ++i) all[i] = keys[i];
  for (int64_t i = n; i < n + L; ++i) all[i] = 0;
  Lanes place;
  for (int64_t i = 0; i < L; ++i) place[i] = static_cast<Lane>(i);
  for (int64_t first = 0; first < n; first += L) {
    Lanes mine, rank = {};
    std::memcpy(&mine, all + first, sizeof(mine));
    const int64_t after = std::min(first + L, n);
    // a comparison that holds is -1
    for (int64_t i = 0; i < first; ++i) rank -= reinterpret_cast<Lanes>(mine >= all[i]);
    for (int64_t i = first; i < after; ++i) {
      rank -= reinterpret_cast<Lanes>((mine > all[i]) | ((mine == all[i]) & (place > static_cast<Lane>(i - first))));
    }
    for (int64_t i = after; i < n; ++i) rank -= reinterpret_cast<Lanes>(mine > all[i]);
    std::memcpy(ranks, &rank, sizeof(rank));
    for (int64_t i = first; i < after; ++i) emit(static_cast<int64_t>(ranks[i - first]), Entry::make(keys[i], i));
  }
}

// Keys below which a sort takes bytes as digits: its counts are fewer, its passes more.
constexpr int64_t kFewKeys = 1024;

template <int bits, class Entry, class Key, class Emit>
inline void sort_by_digits(const Key* keys, int64_t n, Entry* a, Entry* b, const Emit& emit) {
  constexpr int digits = (8 * sizeof(Key) + bits - 1) / bits;
  constexpr uint32_t values = 1u << bits;
  const auto digit = [](Key key, int d) { return static_cast<uint32_t>(key >> (d * bits)) & (values - 1); };
  uint32_t counts[digits][values] = {};
  for (int64_t i = 0; i < n; ++i) {
#pragma GCC unroll 8
    for (int d = 0; d < digits; ++d) ++counts[d][digit(keys[i], d)];
  }
  // a digit that all keys share needs no pass
  int passes[digits], last = -1;
  for (int d = 0; d < digits; ++d) {
    if (counts[d][digit(keys[0], d)] != n) passes[++last] = d;
  }
  if (last < 0) {
    for (int64_t i = 0; i < n; ++i) emit(i, Entry::make(keys[i], i));
    return;
  }
  for (int pass = 0; pass <= last; ++pass) {
    const int d = passes[pass];
    uint32_t* const place = counts[d];
    uint32_t before = 0;
    for (uint32_t v = 0; v < values; ++v) {
      const uint32_t count = place[v];
      place[v] = before;
      before += count;
    }
    const auto run = [&](const auto& read, const auto& write) {
      for (int64_t i = 0; i < n; ++i) {
        const Entry entry = read(i);
        write(place[digit(entry.key, d)]++, entry);
      }
    };
    const auto first = [&](int64_t i) { return Entry::make(keys[i], i); };
    const auto next = [&](int64_t i) { return a[i]; };
    const auto keep = [&](uint32_t at, const Entry& entry) { b[at] = entry; };
    if (pass == 0 && pass == last) {
      run(first, emit);
    } else if (pass == 0) {
      run(first, keep);
    } else if (pass == last) {
      run(next, emit);
    } else {
      run(next, keep);
    }
    Entry* const done = b;
    b = a;
    a = done;
  }
}

// Call emit(rank, entry) for each of n > 0 keys, equal ones in the order in which they came; a and b have n places each.
template <class Entry, class Key, class Emit>
inline void radix_sort(const Key* keys, int64_t n, Entry* a, Entry* b, const Emit& emit) {
  if (n <= (sizeof(Key) == 8 ? kMostCounted / 2 : kMostCounted)) {
    sort_by_counting<Entry>(keys, n, emit);
  } else if (n < kFewKeys || sizeof(Key) == 2) {
    sort_by_digits<8>(keys, n, a, b, emit);
  } else {
    sort_by_digits<11>(keys, n, a, b, emit);
  }
}

}  // namespace IMGOPS_ISA
}  // namespace imgops
