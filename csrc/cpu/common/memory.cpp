// A cache of the memory of large results, and of what threads work in: ranges that the kernel mapped, cut into pieces
// in use and free ones. A result takes the free piece that fits it best, and what is given back merges with free
// neighbours, so that results of many sizes share the memory. It holds at most what was lately in use at the same time;
// after the first passes of a network a quarter more, so that fragments fit: the networks that were tried then run
// again without a fresh page, which other sequences of sizes may still need. Whenever it is short of memory, the kernel
// may take the pages of free pieces; their addresses stay taken.
#include "memory.h"

#ifdef __linux__
#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>

// in libtorch since 2.11; on 2.10 it is null, and memory is libtorch's
extern "C" __attribute__((weak)) AOTITorchError torch_from_blob(
    void* data, int64_t ndim, const int64_t* sizes, const int64_t* strides, int64_t storage_offset, int32_t dtype,
    int32_t device_type, int32_t device_index, AtenTensorHandle* result, int32_t layout, const uint8_t* metadata,
    int64_t metadata_size, void (*deleter)(void* data, void* context), void* context);
#endif

namespace imgops {

#ifdef __linux__

namespace {

// bytes of a huge page; pieces are whole huge pages
constexpr size_t kPage = size_t(2) << 20;
// smaller results stay in the heap, which keeps them mapped
constexpr size_t kLarge = kPage / 2;
// so many results are made with no room to spare: the first pass of a network may be its only one
constexpr size_t kFirst = 128;
// after so many results the largest amount in use is counted anew
constexpr size_t kPeriod = 1024;

size_t whole_pages(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

// Fresh memory at a multiple of kPage, or null.
char* map(size_t bytes) {
  void* const p = mmap(nullptr, bytes + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  // as high as possible: the kernel maps downwards, and what it mapped before is a neighbour
  const size_t below = kPage - reinterpret_cast<uintptr_t>(p) % kPage;
  char* const start = static_cast<char*>(p) + below;
  munmap(p, below);
  if (below < kPage) munmap(start + bytes, kPage - below);
  madvise(start, bytes, MADV_HUGEPAGE);
  return start;
}

bool enabled() {
  static const bool on = [] {
    const char* const value = std::getenv("IMGOPS_CACHE_MEMORY");
    return torch_from_blob != nullptr && (value == nullptr || std::strcmp(value, "0") != 0);
  }();
  return on;
}

class Cache {
 public:
  // The cache is never destroyed: a tensor may outlive any static object.
  static Cache& instance() {
    static Cache* const cache = [] {
      pthread_atfork([] { Cache::instance().mutex_.lock(); }, [] { Cache::instance().mutex_.unlock(); },
                     [] { Cache::instance().mutex_.unlock(); });
      return new Cache;
    }();
    return *cache;
  }

  // bytes: whole pages
  void* take(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    // no insertion allocates after this, so that an error leaves all as it is, and `give` cannot fail
    if (pieces_.capacity() < pieces_.size() + 2) pieces_.reserve(2 * pieces_.size() + 64);
    if (++takes_ % kPeriod == 0) {
      peak_ = recent_;
      recent_ = live_;
      shrink(most(peak_));
    }
    auto best = pieces_.end();
    for (auto it = pieces_.begin(); it != pieces_.end(); ++it) {
      if (it->freed == 0 || it->bytes < bytes) continue;
      // of equals the latest is the likeliest to be in the processor's cache
      if (best == pieces_.end() || std::pair(it->bytes, best->freed) < std::pair(best->bytes, it->freed)) best = it;
    }
    if (best == pieces_.end()) best = grow(bytes);
    if (best->bytes > bytes) {
      const Piece rest{best->start + bytes, best->bytes - bytes, best->freed};
      best->bytes = bytes;
      best = std::prev(pieces_.insert(std::next(best), rest));
    }
    best->freed = 0;
    live_ += bytes;
    recent_ = std::max(recent_, live_);
    peak_ = std::max(peak_, live_);
    return best->start;
  }

  void give(void* p, size_t bytes) noexcept {
    // the kernel may take the pages until something is written to them; if it cannot be told so, they are unmapped
    const bool kept = madvise(p, bytes, MADV_FREE) == 0;
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto it = at(static_cast<char*>(p));
    it->freed = ++gives_;
    live_ -= bytes;
    if (kept || !unmap(it, bytes)) merge(it);
  }

 private:
  struct Piece {
    char* start;
    size_t bytes;
    // 0 while in use, else greater the later it was given back
    size_t freed;
  };
  using Iterator = std::vector<Piece>::iterator;

  // bytes to hold at most while so many were in use at the same time
  size_t most(size_t live) const { return takes_ < kFirst ? live : live + live / 4; }

  // the first piece that does not start below p
  Iterator at(const char* p) {
    const auto below = [](const Piece& a, const char* b) { return a.start < b; };
    return std::lower_bound(pieces_.begin(), pieces_.end(), p, below);
  }

  // A new free piece of at least so many bytes.
  Iterator grow(size_t bytes) {
    shrink(most(std::max(peak_, live_ + bytes)) - bytes);
    char* p = map(bytes);
    if (p == nullptr) shrink(0), p = map(bytes);
    if (p == nullptr) out_of_memory(bytes);
    held_ += bytes;
    return merge(pieces_.insert(at(p), {p, bytes, ++gives_}));
  }

  // Unmaps free memory, the oldest first, until no more than `most` bytes are held, or nothing is free.
  void shrink(size_t most) {
    while (held_ > most) {
      // less one, that of pieces in use is the largest number
      const auto older = [](const Piece& a, const Piece& b) { return a.freed - 1 < b.freed - 1; };
      const auto oldest = std::min_element(pieces_.begin(), pieces_.end(), older);
      if (oldest == pieces_.end() || oldest->freed == 0) break;
      if (!unmap(oldest, std::min(oldest->bytes, whole_pages(held_ - most)))) break;
    }
  }

  // Unmaps the last bytes of a free piece; false where the kernel can have no more ranges.
  bool unmap(Iterator it, size_t bytes) {
    if (munmap(it->start + it->bytes - bytes, bytes) != 0) return false;
    held_ -= bytes;
    it->bytes -= bytes;
    if (it->bytes == 0) pieces_.erase(it);
    return true;
  }

  // Joins a free piece with its free neighbours.
  Iterator merge(Iterator it) {
    const auto meet = [](const Piece& a, const Piece& b) { return b.freed != 0 && a.start + a.bytes == b.start; };
    if (const auto next = std::next(it); next != pieces_.end() && meet(*it, *next)) {
      it->bytes += next->bytes;
      pieces_.erase(next);
    }
    if (it == pieces_.begin() || std::prev(it)->freed == 0 || !meet(*std::prev(it), *it)) return it;
    it->start = std::prev(it)->start;
    it->bytes += std::prev(it)->bytes;
    return pieces_.erase(std::prev(it));
  }

  std::mutex mutex_;
  // by address
  std::vector<Piece> pieces_;
  // bytes in use, and with the free ones; the most in use at the same time, and since it was last counted anew
  size_t live_ = 0, held_ = 0, peak_ = 0, recent_ = 0;
  size_t takes_ = 0, gives_ = 0;
};

std::vector<int64_t> strides_of(const std::vector<int64_t>& size, bool channels_last) {
  std::vector<int64_t> strides(size.size());
  int64_t stride = 1;
  const auto next = [&](size_t d) { strides[d] = stride, stride *= size[d]; };
  if (channels_last) {
    for (const size_t d : {1, 3, 2, 0}) next(d);
  } else {
    for (size_t d = size.size(); d-- > 0;) next(d);
  }
  return strides;
}

}  // namespace

size_t piece_bytes(size_t bytes) {
  // of a size that does not fit libtorch, or the heap, says so
  return enabled() && bytes >= kLarge && bytes <= SIZE_MAX / 2 ? whole_pages(bytes) : 0;
}

void* take_piece(size_t bytes) { return Cache::instance().take(bytes); }

void give_piece(void* p, size_t bytes) noexcept { Cache::instance().give(p, bytes); }

Tensor allocate(const Tensor& like, const std::vector<int64_t>& size, bool channels_last) {
  size_t bytes = like.element_size();
  for (const int64_t n : size) {
    if (__builtin_mul_overflow(bytes, static_cast<size_t>(n), &bytes)) bytes = SIZE_MAX;
  }
  bytes = piece_bytes(bytes);
  if (bytes == 0) return allocate(like, size, like.scalar_type(), channels_last);
  const std::vector<int64_t> strides = strides_of(size, channels_last);
  const int32_t dtype = torch::stable::detail::to<int32_t>(torch::stable::detail::from(like.scalar_type()));
  void* const p = take_piece(bytes);
  AtenTensorHandle handle = nullptr;
  const AOTITorchError error = torch_from_blob(
      p, size.size(), size.data(), strides.data(), 0, dtype, aoti_torch_device_type_cpu(), like.device().index(),
      &handle, aoti_torch_layout_strided(), nullptr, 0,
      [](void* data, void* context) { give_piece(data, reinterpret_cast<size_t>(context)); },
      reinterpret_cast<void*>(bytes));
  // after an error it is unknown whether the deleter has run: to lose the memory is better than to give it out twice
  STD_TORCH_CHECK(error == AOTI_TORCH_SUCCESS, "imgops: cannot make a tensor of ", bytes, " bytes");
  return Tensor(handle);
}

#else

size_t piece_bytes(size_t) { return 0; }

void* take_piece(size_t) { return nullptr; }

void give_piece(void*, size_t) noexcept {}

Tensor allocate(const Tensor& like, const std::vector<int64_t>& size, bool channels_last) {
  return allocate(like, size, like.scalar_type(), channels_last);
}

#endif

}  // namespace imgops
