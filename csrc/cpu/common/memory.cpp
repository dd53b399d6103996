// A cache of the memory of large results. It holds at most as much as was lately in use at the same time (a little more
// where threads ask at the same instant). Whenever it is short of memory, the kernel may take the pages of unused
// blocks; their addresses stay taken.
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

// bytes of a huge page; blocks are whole huge pages
constexpr size_t kPage = size_t(2) << 20;
// smaller results stay in the heap, which keeps them mapped
constexpr size_t kLarge = 4 * kPage;
// most blocks that are kept
constexpr size_t kBlocks = 4096;
// after so many results the largest amount in use is counted anew
constexpr size_t kPeriod = 1024;

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
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      // the latest is the likeliest to be in the processor's cache
      const auto found = std::find_if(free_.rbegin(), free_.rend(), [&](const Block& b) { return b.bytes == bytes; });
      if (found != free_.rend()) {
        void* const p = found->p;
        cached_ -= bytes;
        free_.erase(std::next(found).base());
        count(bytes);
        return p;
      }
      while (!free_.empty() && live_ + bytes + cached_ > std::max(peak_, live_ + bytes)) drop_oldest();
    }
    void* p = std::aligned_alloc(kPage, bytes);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (p == nullptr) {
      while (!free_.empty()) drop_oldest();
      p = std::aligned_alloc(kPage, bytes);
    }
    if (p == nullptr) out_of_memory(bytes);
    madvise(p, bytes, MADV_HUGEPAGE);
    count(bytes);
    return p;
  }

  void give(void* p, size_t bytes) noexcept {
    // the kernel may take the pages until something is written to them; if it cannot be told so, the block is freed
    const bool kept = madvise(p, bytes, MADV_FREE) == 0;
    const std::lock_guard<std::mutex> lock(mutex_);
    live_ -= bytes;
    if (!kept || free_.size() == free_.capacity()) {
      std::free(p);
      return;
    }
    cached_ += bytes;
    free_.push_back({p, bytes});
  }

 private:
  struct Block {
    void* p;
    size_t bytes;
  };

  Cache() { free_.reserve(kBlocks); }

  // `bytes` more are in use; what was in use long ago is forgotten
  void count(size_t bytes) {
    live_ += bytes;
    recent_ = std::max(recent_, live_);
    peak_ = std::max(peak_, live_);
    if (++takes_ % kPeriod == 0) {
      peak_ = recent_;
      recent_ = live_;
      while (!free_.empty() && live_ + cached_ > peak_) drop_oldest();
    }
  }

  void drop_oldest() {
    std::free(free_.front().p);
    cached_ -= free_.front().bytes;
    free_.erase(free_.begin());
  }

  std::mutex mutex_;
  std::vector<Block> free_;
  // bytes in use, and kept; the most in use at the same time, and since the last time that it was counted anew
  size_t live_ = 0, cached_ = 0, peak_ = 0, recent_ = 0;
  size_t takes_ = 0;
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

Tensor allocate(const Tensor& like, const std::vector<int64_t>& size, bool channels_last) {
  size_t bytes = like.element_size();
  bool fits = true;
  for (const int64_t n : size) fits = fits && !__builtin_mul_overflow(bytes, static_cast<size_t>(n), &bytes);
  // libtorch refuses a size that does not fit
  if (!enabled() || !fits || bytes < kLarge || bytes > SIZE_MAX / 2)
    return allocate(like, size, like.scalar_type(), channels_last);
  bytes = (bytes + kPage - 1) / kPage * kPage;
  const std::vector<int64_t> strides = strides_of(size, channels_last);
  const int32_t dtype = torch::stable::detail::to<int32_t>(torch::stable::detail::from(like.scalar_type()));
  void* const p = Cache::instance().take(bytes);
  AtenTensorHandle handle = nullptr;
  const AOTITorchError error = torch_from_blob(
      p, size.size(), size.data(), strides.data(), 0, dtype, aoti_torch_device_type_cpu(), like.device().index(),
      &handle, aoti_torch_layout_strided(), nullptr, 0,
      [](void* data, void* context) { Cache::instance().give(data, reinterpret_cast<size_t>(context)); },
      reinterpret_cast<void*>(bytes));
  // after an error it is unknown whether the deleter has run: to lose the memory is better than to give it out twice
  STD_TORCH_CHECK(error == AOTI_TORCH_SUCCESS, "imgops: cannot make a tensor of ", bytes, " bytes");
  return Tensor(handle);
}

#else

Tensor allocate(const Tensor& like, const std::vector<int64_t>& size, bool channels_last) {
  return allocate(like, size, like.scalar_type(), channels_last);
}

#endif

}  // namespace imgops
