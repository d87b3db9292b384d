// The call of a recurrent layer from XLA's CPU runtime, over the lanes of a `vmap`.
//
// One lane's arithmetic does not depend on how many lanes a call has, or on which core runs it.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include "layer.h"
#include "xla/ffi/api/ffi.h"

#if !defined(REAL)  // float or double: a library for each halves the time to the first result
#define REAL float
#endif

namespace {

namespace ffi = xla::ffi;

// Subnormal numbers count as 0 while this lives: a product with one takes a hundred times as long.
class FlushSubnormals {
 public:
#if defined(__SSE__)
  FlushSubnormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~FlushSubnormals() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#elif defined(__aarch64__)
  FlushSubnormals() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" ::"r"(before_ | (uint64_t(1) << 24)));
  }
  ~FlushSubnormals() { asm volatile("msr fpcr, %0" ::"r"(before_)); }

 private:
  uint64_t before_;
#endif
};

template <class T, class Cell>
void run_lane(const Sizes& sizes, const Lane<T>& lane, bool backward) {
  thread_local Scratch<T> scratch;
  struct Use {
    Use() { scratch.start(); }
    ~Use() { scratch.finish(); }
  };
  const Use use;
  const FlushSubnormals flush;
  Pass<T, Cell> pass(sizes, lane, scratch);
  backward ? pass.backward() : pass.forward();
}

template <class T>
using Run = void (*)(const Sizes&, const Lane<T>&, bool);

template <class T>
Run<T> cell_of(std::string_view name) {
  if (name == "elman_tanh") return run_lane<T, Elman<kTanh>>;
  if (name == "elman_relu") return run_lane<T, Elman<kRelu>>;
  if (name == "elman_identity") return run_lane<T, Elman<kIdentity>>;
  if (name == "gru") return run_lane<T, Gru>;
  if (name == "gru_reset_before") return run_lane<T, GruResetBefore>;
  if (name == "lstm") return run_lane<T, Lstm>;
  return nullptr;
}

// Runs `work(i)` for i < count on this thread and on those of the pool that are free; whether each i had its memory.
// Nothing is thrown once a thread of the pool has the work: it could not be caught there, and the work must outlive it.
template <class Work>
bool share(ffi::ThreadPool& pool, int64_t count, const Work& work) {
  const auto succeeds = [&work](int64_t i) noexcept {
    try {
      return work(i), true;
    } catch (const std::exception&) {
      return false;
    }
  };
  if (count == 1) return succeeds(0);
  struct Shared {
    std::atomic<int64_t> next{0};
    int64_t done = 0;
    bool well = true;
    std::mutex mutex;
    std::condition_variable all_done;
  };
  auto shared = std::make_shared<Shared>();
  const auto* task = &succeeds;  // alive while a number below `count` is at work
  auto take = [shared, task, count] {
    for (int64_t i; (i = shared->next.fetch_add(1)) < count;) {
      const bool well = (*task)(i);
      std::lock_guard<std::mutex> lock(shared->mutex);
      shared->well &= well;
      if (++shared->done == count) shared->all_done.notify_all();
    }
  };
  try {
    for (int64_t i = 1; i < std::min(count, pool.num_threads()); ++i) pool.Schedule(decltype(take)(take));
  } catch (const std::exception&) {  // those that have it, and this one, do all of it
  }
  take();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->all_done.wait(lock, [&] { return shared->done == count; });
  return shared->well;
}

template <class T>
struct Named {
  std::string_view name;
  T* Lane<T>::*place;
};

template <class T>
constexpr Named<T> kArrays[] = {
    {"x", &Lane<T>::x}, {"W_xh", &Lane<T>::W_xh}, {"W_hh", &Lane<T>::W_hh}, {"b_h", &Lane<T>::b_h},
    {"b_hh", &Lane<T>::b_hh}, {"h_0", &Lane<T>::h_0}, {"c_0", &Lane<T>::c_0}, {"mask", &Lane<T>::mask},
    {"perturbations", &Lane<T>::perturbations}, {"h", &Lane<T>::h}, {"c", &Lane<T>::c},
    {"h_last", &Lane<T>::h_last}, {"c_last", &Lane<T>::c_last}, {"saved", &Lane<T>::saved},
    {"g_h", &Lane<T>::g_h}, {"g_c", &Lane<T>::g_c}, {"g_h_last", &Lane<T>::g_h_last},
    {"g_c_last", &Lane<T>::g_c_last}, {"d_x", &Lane<T>::d_x}, {"d_W_xh", &Lane<T>::d_W_xh},
    {"d_W_hh", &Lane<T>::d_W_hh}, {"d_b_h", &Lane<T>::d_b_h}, {"d_b_hh", &Lane<T>::d_b_hh},
    {"d_h_0", &Lane<T>::d_h_0}, {"d_c_0", &Lane<T>::d_c_0}, {"d_mask", &Lane<T>::d_mask},
    {"d_perturbations", &Lane<T>::d_perturbations},
};

// An array of a call, with its axes of lanes first; one that all lanes share has size 1 there.
struct Array {
  std::string_view name;
  ffi::AnyBuffer buffer;

  // Where that of one lane begins, in numbers, among `lanes` axes of the sizes `sizes`.
  int64_t offset(int64_t lane, const int64_t* sizes, size_t lanes) const {
    const auto dims = buffer.dimensions();
    int64_t stride = 1, offset = 0;
    for (size_t i = lanes; i < dims.size(); ++i) stride *= dims[i];
    for (size_t i = lanes; i-- > 0; lane /= sizes[i]) {
      if (dims[i] > 1) offset += lane % sizes[i] * stride;
      stride *= dims[i];
    }
    return offset;
  }
};

ffi::Error out_of_memory() {
  return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                    "the compiled recurrence of rnnreg has no memory for its weights and sums: "
                    "use a smaller hidden size or fewer threads, or backend='fused'");
}

template <class T>
ffi::Error run_lanes(ffi::ThreadPool& pool, std::string_view cell, Sizes sizes, bool backward,
                     const std::vector<Array>& arrays, const ffi::AnyBuffer& result) {
  const Run<T> run = cell_of<T>(cell);
  if (!run) return ffi::Error::InvalidArgument("unknown cell " + std::string(cell));
  const auto of_x = arrays[0].buffer.dimensions();
  const size_t axes = of_x.size() - 3;
  int64_t lanes = 1;
  for (size_t i = 0; i < axes; ++i) lanes *= result.dimensions()[i];
  const bool well = share(pool, lanes, [&](int64_t i) {
    Lane<T> lane = {};
    for (const Array& array : arrays) {
      const int64_t offset = array.offset(i, result.dimensions().begin(), axes);
      if (array.name == "keep") lane.keep = array.buffer.typed_data<bool>() + offset;
      for (const Named<T>& one : kArrays<T>)
        if (one.name == array.name) lane.*one.place = array.buffer.typed_data<T>() + offset;
    }
    run(sizes, lane, backward);
  });
  return well ? ffi::Error::Success() : out_of_memory();
}

// The names, separated by spaces, of what is given.
std::vector<std::string_view> words(std::string_view text) {
  std::vector<std::string_view> found;
  while (!text.empty()) {
    const size_t end = std::min(text.find(' '), text.size());
    found.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return found;
}

// `operands` begins with x, W_hh. `results` and `operands` name the arrays in order.
ffi::Error call(ffi::ThreadPool pool, std::string_view cell, bool backward, bool reverse,
                      std::string_view operands, std::string_view results, ffi::RemainingArgs args,
                      ffi::RemainingRets rets) {
  std::vector<Array> arrays;
  for (std::string_view name : words(operands)) {
    auto buffer = args.get<ffi::AnyBuffer>(arrays.size());
    if (buffer.has_error()) return buffer.error();
    arrays.push_back({name, *buffer});
  }
  const size_t num_operands = arrays.size();
  for (std::string_view name : words(results)) {
    auto buffer = rets.get<ffi::AnyBuffer>(arrays.size() - num_operands);
    if (buffer.has_error()) return buffer.error();
    arrays.push_back({name, **buffer});
  }
  const auto of_x = arrays[0].buffer.dimensions(), of_W = arrays[1].buffer.dimensions();
  const size_t axes = of_x.size() - 3;
  Sizes sizes = {of_x[axes], of_x[axes + 1], of_x[axes + 2], of_W[of_W.size() - 2], reverse, false};
  for (const Array& array : arrays)
    if (array.name == "keep") sizes.by_unit = array.buffer.dimensions().size() - axes == 3;
  const ffi::AnyBuffer& result = arrays[num_operands].buffer;
  return run_lanes<REAL>(pool, cell, sizes, backward, arrays, result);
}

// XLA knows no exceptions.
ffi::Error recurrence(ffi::ThreadPool pool, std::string_view cell, bool backward, bool reverse,
                      std::string_view operands, std::string_view results, ffi::RemainingArgs args,
                      ffi::RemainingRets rets) {
  try {
    return call(pool, cell, backward, reverse, operands, results, args, rets);
  } catch (const std::exception&) {
    return out_of_memory();
  }
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(rnnreg_recurrence, recurrence,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Attr<std::string_view>("cell")
                                  .Attr<bool>("backward")
                                  .Attr<bool>("reverse")
                                  .Attr<std::string_view>("operands")
                                  .Attr<std::string_view>("results")
                                  .RemainingArgs()
                                  .RemainingRets());
