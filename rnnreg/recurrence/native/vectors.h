// Vectors of the processor's width, by the compiler's own vector types, and loops that leave none in memory.

#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__clang__)
#define NOCLONE __attribute__((noinline))
#else
#define NOCLONE __attribute__((noinline, noclone))
#endif
// A function that is called hands over vectors through memory, and how large it may grow before it is called would
// depend on how many cells use it.
#define INLINE inline __attribute__((always_inline))

namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64, kAccumulators = 24, kMostVectors = 4;
#elif defined(__AVX__)
constexpr int kBytes = 32, kAccumulators = 12, kMostVectors = 2;
#elif defined(__aarch64__)
constexpr int kBytes = 16, kAccumulators = 24, kMostVectors = 4;
#else
constexpr int kBytes = 16, kAccumulators = 12, kMostVectors = 2;
#endif

template <class T>
struct Vectors;
template <>
struct Vectors<float> {
  typedef float V __attribute__((vector_size(kBytes)));
  typedef uint32_t I __attribute__((vector_size(kBytes)));
};
template <>
struct Vectors<double> {
  typedef double V __attribute__((vector_size(kBytes)));
  typedef uint64_t I __attribute__((vector_size(kBytes)));
};
template <class T>
using Vec = typename Vectors<T>::V;
template <class T>
using Ints = typename Vectors<T>::I;
template <class T>
constexpr int kWidth = kBytes / sizeof(T);

template <class T>
inline Vec<T> load(const T* from) {
  Vec<T> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class T>
inline void store(T* to, Vec<T> v) {
  std::memcpy(to, &v, sizeof v);
}

template <class T>
NOCLONE void copy_part(T* to, const T* from, int64_t count) {
  std::memcpy(to, from, count * sizeof(T));
}

// The first `count` numbers of a vector; 0 beyond them.
template <class T>
inline Vec<T> load(const T* from, int64_t count) {
  if (__builtin_expect(count >= kWidth<T>, 1)) return load(from);
  T part[kWidth<T>] = {};
  copy_part(part, from, count);
  return load(part);
}

template <class T>
inline void store(T* to, Vec<T> v, int64_t count) {
  if (__builtin_expect(count >= kWidth<T>, 1)) return store(to, v);
  T part[kWidth<T>];
  store(part, v);
  copy_part(to, part, count);
}

template <class T>
inline Vec<T> fill(T a) {
  return a - Vec<T>{};
}

template <class Body, int... numbers>
INLINE void each([[maybe_unused]] Body body, std::integer_sequence<int, numbers...>) {
  (body(std::integral_constant<int, numbers>()), ...);
}

// body(0), body(1), … with numbers that the compiler knows: what they index then stays in registers.
template <int count, class Body>
INLINE void each(Body body) {
  each(body, std::make_integer_sequence<int, count>());
}

}  // namespace
