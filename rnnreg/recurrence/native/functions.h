// tanh and the logistic function on vectors, to two roundings; several vectors at a time.

#pragma once

#include "vectors.h"

namespace {

template <class T>
struct Numbers;
template <>
struct Numbers<float> {
  static constexpr int mantissa = 23, terms = 6;
  static constexpr uint32_t inverse = 0x7ef311c3;
  static constexpr float round = 12582912.f, most = 87.f, tanh_most = 10.f, log2e_high = 1.44269502f, log2e_low = 1.92596303e-8f,
                         ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  // 2^f - 1 = f Σ c_i f^i for |f| <= 1/2, by interpolation at the nodes of Chebyshev
  static constexpr float power[terms] = {0.693147188f,   0.240226508f,   0.0555035711f,
                                         0.00961808256f, 0.00133908634f, 0.000154531629f};
};
template <>
struct Numbers<double> {
  static constexpr int mantissa = 52, terms = 11;
  static constexpr uint64_t inverse = 0x7fde623822fc16e6;
  static constexpr double round = 6755399441055744., most = 708., tanh_most = 20., log2e_high = 1.4426950408889634,
                          log2e_low = 2.0355273740931033e-17, ln2_high = 0.693145751953125,
                          ln2_low = 1.42860682030941723212e-6;
  static constexpr double power[terms] = {
      0.693147180559945309,    0.240226506959100982,   0.0555041086648215943,  0.00961812910760688853,
      0.00133335581464169353,  0.000154035304417360502, 1.52527338298361184e-5, 1.32154425879216897e-6,
      1.01780624458457735e-7,  7.0725859492692237e-9,  4.45496059818651839e-10};
};

// Some vectors on which the same is done at the same time: one alone would wait for each result.
template <class T, int M>
struct Group {
  Vec<T> v[M];
};

template <class T, int M, class Function>
INLINE Group<T, M> map(Function function) {
  Group<T, M> result;
  each<M>([&](auto m) { result.v[m] = function(m); });
  return result;
}

#define OPERATOR(symbol)                                                          \
  template <class T, int M>                                                       \
  inline Group<T, M> operator symbol(const Group<T, M>& a, const Group<T, M>& b) { \
    return map<T, M>([&](auto m) { return a.v[m] symbol b.v[m]; });               \
  }                                                                               \
  template <class T, int M>                                                       \
  inline Group<T, M> operator symbol(T a, const Group<T, M>& b) {                 \
    return map<T, M>([&](auto m) { return a symbol b.v[m]; });                    \
  }                                                                               \
  template <class T, int M>                                                       \
  inline Group<T, M> operator symbol(const Group<T, M>& a, T b) {                 \
    return map<T, M>([&](auto m) { return a.v[m] symbol b; });                    \
  }
OPERATOR(+)
OPERATOR(-)
OPERATOR(*)
#undef OPERATOR

// Where `above` is greater than `than`, one, else other; NaN is not greater.
template <class T, int M>
inline Group<T, M> where_above(const Group<T, M>& above, T than, T one, const Group<T, M>& other) {
  return map<T, M>([&](auto m) { return above.v[m] > than ? fill<T>(one) : other.v[m]; });
}

template <class T, int M>
inline Group<T, M> at_most(const Group<T, M>& x, T most) {
  return where_above(x, most, most, x);
}

// p / q for q > 0, in a third of the time of the processor's division of wide vectors: 1 / q from the bits of q to
// 5 %, by a step of Newton to 0.13 % (its constants spread the error to both sides) and by one of Halley to the cube
// of that; then what remains of p.
template <class T, int M>
INLINE Group<T, M> quotient(const Group<T, M>& p, const Group<T, M>& q) {
  auto inverse = map<T, M>([&](auto m) { return (Vec<T>)(Numbers<T>::inverse - (Ints<T>)q.v[m]); });
  inverse = inverse * (T(2.00128) - T(1.00064) * q * inverse);
  const auto error = T(1) - q * inverse;
  inverse = inverse + inverse * (error + error * error);
  const auto result = p * inverse;
  return result + (p - q * result) * inverse;
}

// e^(factor x) = scale (1 + rest) with scale = 2^k, |rest| < 0.42 and `factor` a power of 2 with a sign.
template <class T, int M>
INLINE void exponential(const Group<T, M>& x, T factor, Group<T, M>& scale, Group<T, M>& rest) {
  using N = Numbers<T>;
  const auto shifted = x * (factor * N::log2e_high) + N::round;  // its last bits are k
  scale = map<T, M>([&](auto m) {
    return (Vec<T>)(((Ints<T>)shifted.v[m] << N::mantissa) + (Ints<T>)fill<T>(1));
  });
  const auto k = shifted - N::round;
#if defined(__FMA__) || defined(__AVX512F__) || defined(__aarch64__)
  const auto f = (x * (factor * N::log2e_high) - k) + x * (factor * N::log2e_low);
#else  // the product above would be rounded before k is taken off; k ln2_high is exact
  const auto f = ((x * factor - k * N::ln2_high) - k * N::ln2_low) * N::log2e_high;
#endif
  auto p = f * N::power[N::terms - 1] + N::power[N::terms - 2];
  each<N::terms - 2>([&](auto i) { p = p * f + N::power[N::terms - 3 - i]; });
  rest = p * f;
}

template <class T, int M>
inline Group<T, M> absolute(const Group<T, M>& x) {
  return map<T, M>([&](auto m) { return (Vec<T>)((Ints<T>)x.v[m] & ~(Ints<T>)fill<T>(-T(0))); });
}

// tanh x = (e^2x - 1) / (e^2x + 1), by |x|, so that small arguments lose nothing. NaN passes.
template <class T, int M>
INLINE Group<T, M> hyperbolic_tangent(const Group<T, M>& x) {
  const Ints<T> sign = (Ints<T>)fill<T>(-T(0));
  Group<T, M> scale, rest;
  exponential(at_most(absolute(x), Numbers<T>::tanh_most), T(2), scale, rest);
  const auto minus_one = scale * rest + (scale - T(1));
  const auto result = quotient(minus_one, minus_one + T(2));
  return map<T, M>([&](auto m) { return (Vec<T>)((Ints<T>)result.v[m] | ((Ints<T>)x.v[m] & sign)); });
}

// 1 / (1 + e^-x) for x >= 0, e^x / (1 + e^x) below. NaN passes.
template <class T, int M>
INLINE Group<T, M> logistic(const Group<T, M>& x) {
  Group<T, M> scale, rest;
  exponential(at_most(absolute(x), Numbers<T>::most), T(-1), scale, rest);
  const auto small = scale * rest + scale;
  return quotient(where_above(x, T(0), T(1), small), small + T(1));
}

}  // namespace
