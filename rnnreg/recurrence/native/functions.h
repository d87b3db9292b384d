// tanh and the logistic function on vectors, to two roundings; several vectors at a time.

#pragma once

#include "vectors.h"

namespace {

template <class T>
struct Exponent;
template <>
struct Exponent<float> {
  static constexpr int mantissa = 23, terms = 7, halley_steps = 2;
  static constexpr uint32_t inverse = 0x7ef311c3;
  static constexpr float round = 12582912.f, log2e = 1.44269504f, most = 86.f, tanh_most = 20.f;
  static constexpr float ln2_high = 0.693145751953125f, ln2_low = 1.42860682e-6f;
};
template <>
struct Exponent<double> {
  static constexpr int mantissa = 52, terms = 13, halley_steps = 3;
  static constexpr uint64_t inverse = 0x7fde623822fc16e6;
  static constexpr double round = 6755399441055744., log2e = 1.4426950408889634, most = 706., tanh_most = 40.;
  static constexpr double ln2_high = 0.693147180369123816490, ln2_low = 1.90821492927058770002e-10;
};

// Some vectors on which the same is done at the same time: one alone would wait for each result.
template <class T, int M>
struct Group {
  Vec<T> v[M];
};

template <class T, int M, class Function>
inline __attribute__((always_inline)) Group<T, M> map(Function function) {
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
// 12 %, three times the digits by each step of Halley, and what then remains of p.
template <class T, int M>
inline Group<T, M> quotient(const Group<T, M>& p, const Group<T, M>& q) {
  auto inverse = map<T, M>([&](auto m) { return (Vec<T>)(Exponent<T>::inverse - (Ints<T>)q.v[m]); });
  each<Exponent<T>::halley_steps>([&](auto) {
    const auto error = T(1) - q * inverse;
    inverse = inverse + inverse * (error + error * error);
  });
  const auto result = p * inverse;
  return result + (p - q * result) * inverse;
}

// e^x = scale (1 + rest) with scale = 2^k and |rest| < 0.42: k = round(x / ln 2), rest = e^(x - k ln 2) - 1 by Taylor.
template <class T, int M>
inline void exponential(const Group<T, M>& x, Group<T, M>& scale, Group<T, M>& rest) {
  using E = Exponent<T>;
  const auto shifted = x * E::log2e + E::round;  // its last bits are k
  scale = map<T, M>([&](auto m) {
    return (Vec<T>)(((Ints<T>)shifted.v[m] << E::mantissa) + (Ints<T>)fill<T>(1));
  });
  const auto k = shifted - E::round;
  const auto r = (x - k * E::ln2_high) - k * E::ln2_low;
  T inverse[E::terms], factorial = 1;
  for (int i = 0; i < E::terms; ++i) inverse[i] = 1 / (factorial *= i + 1);
  auto p = r * inverse[E::terms - 1] + inverse[E::terms - 2];
  each<E::terms - 2>([&](auto i) { p = p * r + inverse[E::terms - 3 - i]; });
  rest = p * r;
}

// tanh x = (e^2x - 1) / (e^2x + 1), by |x|, so that small arguments lose nothing. NaN passes.
template <class T, int M>
inline Group<T, M> hyperbolic_tangent(const Group<T, M>& x) {
  const Ints<T> sign = (Ints<T>)fill<T>(-T(0));
  const auto size = map<T, M>([&](auto m) { return (Vec<T>)((Ints<T>)x.v[m] & ~sign); });
  Group<T, M> scale, rest;
  exponential(at_most(size * T(2), Exponent<T>::tanh_most), scale, rest);
  const auto minus_one = scale * rest + (scale - T(1));
  const auto result = quotient(minus_one, minus_one + T(2));
  return map<T, M>([&](auto m) { return (Vec<T>)((Ints<T>)result.v[m] | ((Ints<T>)x.v[m] & sign)); });
}

template <class T, int M>
inline Group<T, M> logistic(const Group<T, M>& x) {
  constexpr T most = Exponent<T>::most;
  Group<T, M> scale, rest;
  exponential(T(0) - at_most(T(0) - at_most(T(0) - x, most), most), scale, rest);
  const auto one = map<T, M>([](auto) { return fill<T>(1); });
  return quotient(one, scale * rest + (scale + T(1)));
}

}  // namespace
