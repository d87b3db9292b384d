// The arrays of a call, and the memory of a thread beside them.

#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "vectors.h"

namespace {

// The arrays of one lane, row-major; what is absent is null. Those from d_W_xh on are results of the derivative.
template <class T>
struct Lane {
  T *x, *W_xh, *W_hh, *b_h, *b_hh, *h_0, *c_0, *mask, *perturbations;
  const bool* keep;
  T *h, *c, *h_last, *c_last, *saved, *g_h, *g_c, *g_h_last, *g_c_last;
  T *d_W_xh, *d_W_hh, *d_b_h, *d_b_hh, *d_h_0, *d_c_0, *d_x, *d_mask, *d_perturbations;
};

struct Sizes {
  int64_t T, B, D, H;
  bool reverse, by_unit;  // by_unit: `keep` is [T, B, H], not [T, B]
};

constexpr size_t kMostHeld = 16 << 20;  // bytes that a thread keeps: zeroing more is little beside such a call's work

// Memory of one thread, kept from call to call unless it is large.
template <class T>
class Scratch {
 public:
  void start() { used_ = 0; }
  void finish() {
    if (held_ > kMostHeld) std::vector<std::vector<T>>().swap(arrays_), held_ = 0;
  }

  // `count` numbers, all 0.
  T* zeros(int64_t count) {
    T* taken = take(count);
    std::fill_n(taken, count, T(0));
    return taken;
  }

  // `count` numbers, which begin where a line of the cache does.
  T* take(int64_t count) {
    constexpr uintptr_t line = 64;
    arrays_.resize(std::max(arrays_.size(), used_ + 1));
    std::vector<T>& one = arrays_[used_++];
    const size_t needed = count + kWidth<T> + line / sizeof(T);
    if (one.size() < needed) held_ += (needed - one.size()) * sizeof(T), one.resize(needed);
    return reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(one.data()) + line - 1) / line * line);
  }

 private:
  std::vector<std::vector<T>> arrays_;
  size_t used_ = 0, held_ = 0;  // arrays; bytes
};

template <class T>
inline int64_t vectors_of(int64_t width) {
  return (width + kWidth<T> - 1) / kWidth<T>;
}

// A row of so many vectors and one more: rows one after another then fall on different lines of the cache.
template <class T>
inline int64_t row_of(int64_t vectors) {
  return (vectors + 1) * kWidth<T>;
}

}  // namespace
