// A recurrent layer through time and its reverse-mode derivative, called by XLA's CPU runtime.
//
// Every matrix product is made of one tile: some rows times some vectors, held in registers. Between two products
// of a step stands the elementwise part of the cell. Widths are padded in scratch memory, never in the arrays
// that XLA owns. One lane's arithmetic does not depend on how many lanes a call has, or on which core runs it.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include "xla/ffi/api/ffi.h"

#if !defined(REAL)  // float or double: a library for each halves the time to the first result
#define REAL float
#endif

#if defined(__clang__)
#define NOCLONE __attribute__((noinline))
#else
#define NOCLONE __attribute__((noinline, noclone))
#endif

namespace {

namespace ffi = xla::ffi;

#if defined(__AVX512F__)
constexpr int kBytes = 64, kAccumulators = 24, kMostVectors = 4;
#elif defined(__AVX__)
constexpr int kBytes = 32, kAccumulators = 12, kMostVectors = 2;
#elif defined(__aarch64__)
constexpr int kBytes = 16, kAccumulators = 24, kMostVectors = 4;
#else
constexpr int kBytes = 16, kAccumulators = 12, kMostVectors = 2;
#endif
constexpr int64_t kMostRows = 48;   // rows that go through time together
constexpr int64_t kFewestRows = 32; // rows of (time, batch) in one update of a weight gradient

// ---- vectors ------------------------------------------------------------------------------------------------

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
inline __attribute__((always_inline)) void each([[maybe_unused]] Body body, std::integer_sequence<int, numbers...>) {
  (body(std::integral_constant<int, numbers>()), ...);
}

// body(0), body(1), … with numbers that the compiler knows: what they index then stays in registers.
template <int count, class Body>
inline __attribute__((always_inline)) void each(Body body) {
  each(body, std::make_integer_sequence<int, count>());
}

// ---- functions ----------------------------------------------------------------------------------------------

template <class T>
struct Exponent;
template <>
struct Exponent<float> {
  static constexpr int mantissa = 23, terms = 7, halley_steps = 2;
  static constexpr uint32_t inverse = 0x7ef311c3;
  static constexpr float round = 12582912.f, log2e = 1.44269504f, most = 88.f, tanh_most = 20.f;
  static constexpr float ln2_high = 0.693145751953125f, ln2_low = 1.42860682e-6f;
};
template <>
struct Exponent<double> {
  static constexpr int mantissa = 52, terms = 13, halley_steps = 3;
  static constexpr uint64_t inverse = 0x7fde623822fc16e6;
  static constexpr double round = 6755399441055744., log2e = 1.4426950408889634, most = 708., tanh_most = 40.;
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

// ---- products -----------------------------------------------------------------------------------------------

// Adds a · panel: row r takes a[r row + k step] times the vectors at panel[k stride], for k < count.
template <class T>
struct Operand {
  const T* a;
  int64_t row, step;
  const T* panel;
  int64_t stride, count;
};

template <class T, int R, int N>
inline void tile(const T* from, int64_t from_row, T* to, int64_t to_row, const Operand<T>* operands,
                 int64_t num_operands, int64_t row, int64_t column) {
  Vec<T> sum[R][N];
  each<R>([&](auto r) { each<N>([&](auto n) { sum[r][n] = load(from + (row + r) * from_row + column + n * kWidth<T>); }); });
  for (int64_t o = 0; o < num_operands; ++o) {
    const Operand<T>& one = operands[o];
    const T* a = one.a + row * one.row;
    const T* panel = one.panel + column;
    for (int64_t k = one.count; k > 0; --k, a += one.step, panel += one.stride) {
      Vec<T> w[N];
      each<N>([&](auto n) { w[n] = load(panel + n * kWidth<T>); });
      each<R>([&](auto r) {
        const Vec<T> factor = fill<T>(a[r * one.row]);
        each<N>([&](auto n) { sum[r][n] += factor * w[n]; });
      });
    }
  }
  each<R>([&](auto r) { each<N>([&](auto n) { store(to + (row + r) * to_row + column + n * kWidth<T>, sum[r][n]); }); });
}

// Tiles of R rows as long as there are so many, then of fewer.
template <class T, int R, int N, class... Given>
inline __attribute__((always_inline)) void tiles(int64_t rows, int64_t row, int64_t column, Given... given) {
  for (; row + R <= rows; row += R) tile<T, R, N>(given..., row, column);
  if constexpr (R > 1) tiles<T, (R > 4 ? 4 : R / 2), N>(rows, row, column, given...);
}

template <class T, int N, class... Given>
NOCLONE void columns(int64_t rows, int64_t column, Given... given) {
  tiles<T, std::min(8, kAccumulators / N), N>(rows, 0, column, given...);
}

// to = from + Σ a · panel, for some rows and vectors; `from_row` 0 gives every row the same start.
template <class T>
NOCLONE void product(int64_t rows, int64_t vectors, const T* from, int64_t from_row, T* to, int64_t to_row,
             const Operand<T>* operands, int64_t num_operands) {
  const int64_t blocks = (vectors + kMostVectors - 1) / kMostVectors;
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t first = vectors * block / blocks, last = vectors * (block + 1) / blocks;
    const int64_t column = first * kWidth<T>;
    switch (last - first) {
      case 1: columns<T, 1>(rows, column, from, from_row, to, to_row, operands, num_operands); break;
      case 2: columns<T, 2>(rows, column, from, from_row, to, to_row, operands, num_operands); break;
      case 3:
        if constexpr (kMostVectors > 2)
          columns<T, 3>(rows, column, from, from_row, to, to_row, operands, num_operands);
        break;
      case 4:
        if constexpr (kMostVectors > 3)
          columns<T, 4>(rows, column, from, from_row, to, to_row, operands, num_operands);
        break;
    }
  }
}

// ---- cells --------------------------------------------------------------------------------------------------

// The elementwise part of each cell. A step's sums stand in blocks of H: first those of both projections (`both`),
// then those of h alone (`of_h`) and of x alone (`of_x`). `saved` is what the derivative reads beside the states;
// `delta` is the derivative with respect to the sums; `through` is the part of the derivative with respect to the
// state before that goes through no product.

template <class X>
struct State {
  X h = {}, c = {};
};

enum Activation { kTanh, kRelu, kIdentity };

template <Activation activation>
struct Elman {
  static constexpr int both = 1, of_h = 0, of_x = 0, saved = 0;
  static constexpr bool memory = false;

  template <class T, int M>
  static State<Group<T, M>> forward(const Group<T, M>* z, const State<Group<T, M>>&, Group<T, M>*) {
    State<Group<T, M>> after;
    after.h = z[0];
    if constexpr (activation == kTanh) after.h = hyperbolic_tangent(z[0]);
    if constexpr (activation == kRelu) after.h = T(0) - where_above(T(0) - z[0], T(0), T(0), T(0) - z[0]);
    return after;
  }

  template <class T, int M>
  static State<Group<T, M>> backward(const Group<T, M>*, const State<Group<T, M>>&, const State<Group<T, M>>& after,
                                     const State<Group<T, M>>& d, Group<T, M>* delta) {
    const auto& y = after.h;
    delta[0] = d.h;
    if constexpr (activation == kTanh) delta[0] = d.h * (T(1) - y * y);
    if constexpr (activation == kRelu) delta[0] = d.h * where_above(y, T(0), T(1), Group<T, M>{});
    return {};
  }
};

struct Gru {  // blocks reset, update, candidate of h, candidate of x
  static constexpr int both = 2, of_h = 1, of_x = 1, saved = 4;
  static constexpr bool memory = false;

  template <class T, int M>
  static State<Group<T, M>> forward(const Group<T, M>* z, const State<Group<T, M>>& before, Group<T, M>* saved) {
    const auto reset = logistic(z[0]), update = logistic(z[1]);
    const auto candidate = hyperbolic_tangent(z[3] + reset * z[2]);
    saved[0] = reset, saved[1] = update, saved[2] = candidate, saved[3] = z[2];
    State<Group<T, M>> after;
    after.h = candidate + update * (before.h - candidate);
    return after;
  }

  template <class T, int M>
  static State<Group<T, M>> backward(const Group<T, M>* saved, const State<Group<T, M>>& before,
                                     const State<Group<T, M>>&, const State<Group<T, M>>& d, Group<T, M>* delta) {
    const auto &reset = saved[0], &update = saved[1], &candidate = saved[2];
    delta[3] = d.h * (T(1) - update) * (T(1) - candidate * candidate);
    delta[2] = delta[3] * reset;
    delta[1] = d.h * (before.h - candidate) * update * (T(1) - update);
    delta[0] = delta[3] * saved[3] * reset * (T(1) - reset);
    State<Group<T, M>> through;
    through.h = d.h * update;
    return through;
  }
};

struct Lstm {  // blocks input, forget, candidate, output
  static constexpr int both = 4, of_h = 0, of_x = 0, saved = 4;
  static constexpr bool memory = true;

  template <class T, int M>
  static State<Group<T, M>> forward(const Group<T, M>* z, const State<Group<T, M>>& before, Group<T, M>* saved) {
    const auto input = logistic(z[0]), forget = logistic(z[1]), output = logistic(z[3]);
    const auto candidate = hyperbolic_tangent(z[2]);
    saved[0] = input, saved[1] = forget, saved[2] = candidate, saved[3] = output;
    State<Group<T, M>> after;
    after.c = forget * before.c + input * candidate;
    after.h = output * hyperbolic_tangent(after.c);
    return after;
  }

  template <class T, int M>
  static State<Group<T, M>> backward(const Group<T, M>* saved, const State<Group<T, M>>& before,
                                     const State<Group<T, M>>& after, const State<Group<T, M>>& d,
                                     Group<T, M>* delta) {
    const auto &input = saved[0], &forget = saved[1], &candidate = saved[2], &output = saved[3];
    const auto y = hyperbolic_tangent(after.c);
    const auto d_c = d.c + d.h * output * (T(1) - y * y);
    delta[0] = d_c * candidate * input * (T(1) - input);
    delta[1] = d_c * before.c * forget * (T(1) - forget);
    delta[2] = d_c * input * (T(1) - candidate * candidate);
    delta[3] = d.h * y * output * (T(1) - output);
    State<Group<T, M>> through;
    through.c = d_c * forget;
    return through;
  }
};

// ---- one lane -----------------------------------------------------------------------------------------------

// The arrays of one lane, row-major; what is absent is null. Those from d_W_xh on are results of the derivative.
template <class T>
struct Lane {
  T *x, *W_xh, *W_hh, *b_h, *b_hh, *h_0, *c_0, *mask, *perturbations;
  const bool* keep;
  T *h, *c, *saved, *g_h, *g_c;
  T *d_W_xh, *d_W_hh, *d_b_h, *d_b_hh, *d_h_0, *d_c_0, *d_x, *d_mask, *d_perturbations;
};

struct Sizes {
  int64_t T, B, D, H;
  bool reverse, by_unit;  // by_unit: `keep` is [T, B, H], not [T, B]
};

// Memory of one thread, kept from call to call.
template <class T>
class Scratch {
 public:
  void start() { used_ = 0; }
  // `count` numbers, all 0, which begin where a line of the cache does.
  T* take(int64_t count) {
    constexpr uintptr_t line = 64;
    arrays_.resize(std::max(arrays_.size(), used_ + 1));
    std::vector<T>& one = arrays_[used_++];
    one.assign(count + kWidth<T> + line / sizeof(T), T(0));
    return reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(one.data()) + line - 1) / line * line);
  }

 private:
  std::vector<std::vector<T>> arrays_;
  size_t used_ = 0;
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

template <class T, class Cell>
class Pass {
 public:
  static constexpr int kGates = Cell::both + Cell::of_h, kBlocks = kGates + Cell::of_x;
  static constexpr int kTogether = Cell::saved == 0 ? 4 : 2;  // rows of the elementwise part

  Pass(const Sizes& sizes, const Lane<T>& lane, Scratch<T>& scratch)
      : s_(sizes), l_(lane), scratch_(scratch), units_(vectors_of<T>(s_.H)), row_(row_of<T>(kBlocks * units_)) {}

  void forward() {
    const T* W_h = padded_gates(l_.W_hh, s_.H);
    const T* W_x = padded_gates(l_.W_xh, s_.D);
    const T* bias = biases();
    sums_ = scratch_.take(kMostRows * row_);
    masked_ = l_.mask ? scratch_.take(kMostRows * s_.H) : nullptr;
    for_blocks([&](int64_t first, int64_t rows) {
      for (int64_t turn = 0; turn < s_.T; ++turn) {
        const int64_t t = time(turn);
        const T* h = before(turn, l_.h, l_.h_0) + first * s_.H;
        const T* entering = dropped(h, first, rows, masked_);
        const Operand<T> both[] = {
            {l_.x + (t * s_.B + first) * s_.D, s_.D, 1, W_x, row_, s_.D},
            {entering, s_.H, 1, W_h, row_, s_.H},
        };
        blocks(rows, 0, Cell::both, bias, both, 2);
        blocks(rows, Cell::both, Cell::of_h, bias, both + 1, 1);
        blocks(rows, kGates, Cell::of_x, bias, both, 1);
        settle(turn, first, rows);
      }
    });
  }

  void backward() {
    const int64_t H = s_.H, chunk = std::max<int64_t>(1, kFewestRows / std::min(s_.B, kMostRows));
    const int64_t row_H = row_of<T>(units_), row_D = row_of<T>(vectors_of<T>(s_.D));
    const T* W_hT = transposed(l_.W_hh, H, row_H);
    const T* W_xT = l_.d_x ? transposed(l_.W_xh, s_.D, row_D) : nullptr;
    T* d_W_h = scratch_.take(H * row_);
    T* d_W_x = scratch_.take(s_.D * row_);
    d_bias_ = scratch_.take(row_);
    d_h_ = scratch_.take(kMostRows * row_H);
    d_c_ = scratch_.take(kMostRows * row_H);
    T* back = scratch_.take(kMostRows * row_H);
    T* d_x = l_.d_x ? scratch_.take(kMostRows * row_D) : nullptr;
    T* deltas = scratch_.take(chunk * kMostRows * row_);
    T* masked = l_.mask ? scratch_.take(chunk * kMostRows * H) : nullptr;
    const T* zeros = scratch_.take(std::max(row_H, row_D));
    Operand<T> of_h[kFewestRows], of_x[kFewestRows];
    int64_t place = 0;  // in the chunk
    if (l_.d_mask) std::fill_n(l_.d_mask, s_.B * H, T(0));
    for_blocks([&](int64_t first, int64_t rows) {
      std::fill_n(d_h_, rows * row_H, T(0));
      std::fill_n(d_c_, rows * row_H, T(0));
      for (int64_t turn = s_.T - 1; turn >= 0; --turn) {
        const int64_t t = time(turn);
        T* delta = deltas + place * kMostRows * row_;
        const T* h = before(turn, l_.h, l_.h_0) + first * H;
        const T* x = l_.x + (t * s_.B + first) * s_.D;
        unsettle(turn, first, rows, delta);
        Operand<T> through[kGates];
        for (int g = 0; g < kGates; ++g)
          through[g] = {delta + g * units_ * kWidth<T>, row_, 1, W_hT + g * H * row_H, row_H, H};
        if (l_.mask) {
          product<T>(rows, units_, zeros, 0, back, row_H, through, kGates);
          unmask(h, first, rows, back);
        } else {
          product<T>(rows, units_, d_h_, row_H, d_h_, row_H, through, kGates);
        }
        if (l_.d_x) {
          for (int g = 0; g < kGates; ++g) {
            through[g].a = delta + x_block(g) * units_ * kWidth<T>;
            through[g].panel = W_xT + g * H * row_D, through[g].stride = row_D;
          }
          product<T>(rows, vectors_of<T>(s_.D), zeros, 0, d_x, row_D, through, kGates);
          cut(d_x, row_D, l_.d_x + (t * s_.B + first) * s_.D, rows, s_.D);
        }
        const T* entering = dropped(h, first, rows, masked ? masked + place * kMostRows * H : nullptr);
        of_h[place] = {entering, 1, H, delta, row_, rows};
        of_x[place] = {x, 1, s_.D, delta, row_, rows};
        if (++place == chunk || turn == 0) {
          if (l_.d_W_hh) accumulate(H, 0, kGates, d_W_h, of_h, place);
          if (l_.d_W_xh) accumulate(s_.D, 0, Cell::both, d_W_x, of_x, place);
          if (l_.d_W_xh) accumulate(s_.D, kGates, Cell::of_x, d_W_x, of_x, place);
          place = 0;
        }
      }
      if (l_.d_h_0) cut(d_h_, row_H, l_.d_h_0 + first * H, rows, H);
      if (l_.d_c_0) cut(d_c_, row_H, l_.d_c_0 + first * H, rows, H);
    });
    for (int g = 0; g < kGates; ++g) {
      const int64_t from_h = g * units_ * kWidth<T>, from_x = x_block(g) * units_ * kWidth<T>;
      if (l_.d_W_hh)
        for (int64_t i = 0; i < H; ++i) std::copy_n(d_W_h + i * row_ + from_h, H, l_.d_W_hh + (i * kGates + g) * H);
      if (l_.d_W_xh)
        for (int64_t i = 0; i < s_.D; ++i)
          std::copy_n(d_W_x + i * row_ + from_x, H, l_.d_W_xh + (i * kGates + g) * H);
      if (l_.d_b_h) std::copy_n(d_bias_ + from_x, H, l_.d_b_h + g * H);
      if (l_.d_b_hh) std::copy_n(d_bias_ + from_h, H, l_.d_b_hh + g * H);
    }
  }

 private:
  static int x_block(int gate) { return gate < Cell::both ? gate : gate + Cell::of_h; }
  int64_t time(int64_t turn) const { return s_.reverse ? s_.T - 1 - turn : turn; }

  // The state that a turn starts from, [B, H].
  const T* before(int64_t turn, const T* states, const T* start) const {
    return turn == 0 ? start : states + time(turn - 1) * s_.B * s_.H;
  }

  // Blocks of rows that go through time one after another, of about equal size.
  template <class Body>
  void for_blocks(Body body) const {
    const int64_t count = (s_.B + kMostRows - 1) / kMostRows;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t first = s_.B * i / count;
      body(first, s_.B * (i + 1) / count - first);
    }
  }

  // [rows, gates H] with every gate padded to whole vectors.
  const T* padded_gates(const T* weights, int64_t rows) {
    T* padded = scratch_.take(rows * row_);
    for (int64_t i = 0; i < rows; ++i)
      for (int g = 0; g < kGates; ++g)
        std::copy_n(weights + (i * kGates + g) * s_.H, s_.H, padded + i * row_ + g * units_ * kWidth<T>);
    return padded;
  }

  // [gates H, rows] of weights [rows, gates H].
  const T* transposed(const T* weights, int64_t rows, int64_t row) {
    T* turned = scratch_.take(kGates * s_.H * row);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < kGates * s_.H; ++j) turned[j * row + i] = weights[i * kGates * s_.H + j];
    return turned;
  }

  const T* biases() {
    T* bias = scratch_.take(row_);
    for (int g = 0; g < kGates; ++g)
      for (int64_t i = 0; i < s_.H; ++i) {
        bias[x_block(g) * units_ * kWidth<T> + i] += l_.b_h[g * s_.H + i];
        if (l_.b_hh) bias[g * units_ * kWidth<T> + i] += l_.b_hh[g * s_.H + i];
      }
    return bias;
  }

  void blocks(int64_t rows, int first, int count, const T* bias, const Operand<T>* operands, int64_t num) {
    if (count == 0) return;
    const int64_t column = first * units_ * kWidth<T>, panel = std::min(first, Cell::both) * units_ * kWidth<T>;
    Operand<T> shifted[2];
    for (int64_t i = 0; i < num; ++i) shifted[i] = operands[i], shifted[i].panel += panel;
    product<T>(rows, count * units_, bias + column, 0, sums_ + column, row_, shifted, num);
  }

  void accumulate(int64_t rows, int first, int count, T* sum, const Operand<T>* operands, int64_t num) {
    if (count == 0) return;
    const int64_t column = first * units_ * kWidth<T>;
    Operand<T> shifted[kFewestRows];
    for (int64_t i = 0; i < num; ++i) shifted[i] = operands[i], shifted[i].panel += column;
    product<T>(rows, count * units_, sum + column, row_, sum + column, row_, shifted, num);
  }

  // The h that enters the recurrent product.
  const T* dropped(const T* h, int64_t first, int64_t rows, T* to) const {
    if (!l_.mask) return h;
    for (int64_t i = 0; i < rows * s_.H; ++i) to[i] = h[i] * l_.mask[first * s_.H + i];
    return to;
  }

  // d_h and d_mask from what came back through the recurrent product of a masked h.
  void unmask(const T* h, int64_t first, int64_t rows, const T* back) {
    const int64_t row_H = row_of<T>(units_);
    for (int64_t b = 0; b < rows; ++b)
      for (int64_t i = 0; i < s_.H; ++i) {
        d_h_[b * row_H + i] += back[b * row_H + i] * l_.mask[(first + b) * s_.H + i];
        if (l_.d_mask) l_.d_mask[(first + b) * s_.H + i] += back[b * row_H + i] * h[b * s_.H + i];
      }
  }

  static void cut(const T* from, int64_t from_row, T* to, int64_t rows, int64_t width) {
    for (int64_t b = 0; b < rows; ++b) std::copy_n(from + b * from_row, width, to + b * width);
  }

  // All ones where a step of these units counts.
  Ints<T> counts(int64_t place, int64_t unit, int64_t count) const {
    Ints<T> one = {};
    if (!s_.by_unit) return one - Ints<T>(one + (l_.keep[place] ? 1 : 0));
    for (int64_t i = 0; i < std::min<int64_t>(count, kWidth<T>); ++i)
      one[i] = l_.keep[place * s_.H + unit + i] ? -1 : 0;
    return one;
  }

  // Whether the elementwise part has whole vectors and nothing that few networks have.
  bool plain() const {
    return s_.H % kWidth<T> == 0 && !l_.keep && !l_.perturbations && !l_.d_perturbations;
  }

  // The vectors of some rows after each other.
  template <int M>
  static Group<T, M> load_rows(const T* from, int64_t row, int64_t count) {
    return map<T, M>([&](auto m) { return load(from + m * row, count); });
  }

  template <int M>
  static void store_rows(T* to, int64_t row, const Group<T, M>& x, int64_t count) {
    each<M>([&](auto m) { store(to + m * row, x.v[m], count); });
  }

  template <int M>
  static Group<T, M> chosen(const Group<T, M>& kept, const Group<T, M>& one, const Group<T, M>& other) {
    return map<T, M>([&](auto m) { return (Ints<T>)kept.v[m] != 0 ? one.v[m] : other.v[m]; });
  }

  // From the sums of a step to its state.
  void settle(int64_t turn, int64_t first, int64_t rows) {
    for (int64_t unit = 0; unit < s_.H; unit += kWidth<T>) {
      int64_t b = 0;
      if (plain())
        for (; b + kTogether <= rows; b += kTogether) settle<kTogether, true>(turn, first, b, unit);
      for (; b < rows; ++b) settle<1, false>(turn, first, b, unit);
    }
  }

  // Of M rows from b on, and of a vector of units.
  template <int M, bool plain>
  inline __attribute__((always_inline)) void settle(int64_t turn, int64_t first, int64_t b, int64_t unit) {
    constexpr int S = std::max(Cell::saved, 1);
    const int64_t H = s_.H, count = plain ? kWidth<T> : H - unit, block = units_ * kWidth<T>;
    const int64_t place = time(turn) * s_.B + first + b, at = place * H + unit, old_at = (first + b) * H + unit;
    Group<T, M> z[kBlocks], saved[S];
    each<kBlocks>([&](auto q) { z[q] = load_rows<M>(sums_ + b * row_ + q * block + unit, row_, kWidth<T>); });
    State<Group<T, M>> old;
    old.h = load_rows<M>(before(turn, l_.h, l_.h_0) + old_at, H, count);
    if (Cell::memory) old.c = load_rows<M>(before(turn, l_.c, l_.c_0) + old_at, H, count);
    State<Group<T, M>> made = Cell::forward(z, old, saved);
    if (Cell::saved == 0) saved[0] = made.h;
    if (l_.saved)
      each<S>([&](auto q) { store_rows<M>(l_.saved + (place * S + q) * H + unit, S * H, saved[q], count); });
    if (!plain && l_.perturbations) made.h = made.h + load_rows<M>(l_.perturbations + at, H, count);
    if (!plain && l_.keep) {
      const Group<T, M> kept = map<T, M>([&](auto m) { return (Vec<T>)counts(place + m, unit, count); });
      made.h = chosen(kept, made.h, old.h), made.c = chosen(kept, made.c, old.c);
    }
    store_rows<M>(l_.h + at, H, made.h, count);
    if (Cell::memory) store_rows<M>(l_.c + at, H, made.c, count);
  }

  // From the derivative with respect to a step's state to those with respect to its sums and to the state before.
  void unsettle(int64_t turn, int64_t first, int64_t rows, T* delta) {
    for (int64_t unit = 0; unit < s_.H; unit += kWidth<T>) {
      Vec<T> d_bias[kBlocks];
      each<kBlocks>([&](auto q) { d_bias[q] = load(d_bias_ + q * units_ * kWidth<T> + unit); });
      int64_t b = 0;
      if (plain())
        for (; b + kTogether <= rows; b += kTogether) unsettle<kTogether, true>(turn, first, b, unit, delta, d_bias);
      for (; b < rows; ++b) unsettle<1, false>(turn, first, b, unit, delta, d_bias);
      each<kBlocks>([&](auto q) { store(d_bias_ + q * units_ * kWidth<T> + unit, d_bias[q]); });
    }
  }

  template <int M, bool plain>
  inline __attribute__((always_inline)) void unsettle(int64_t turn, int64_t first, int64_t b, int64_t unit, T* delta,
                                                      Vec<T>* d_bias) {
    const int64_t H = s_.H, count = plain ? kWidth<T> : H - unit, row_H = row_of<T>(units_);
    const int64_t place = time(turn) * s_.B + first + b, at = place * H + unit, old_at = (first + b) * H + unit;
    const int64_t carry = b * row_H + unit;
    Group<T, M> saved[Cell::saved + 1], out[kBlocks];
    each<Cell::saved>([&](auto q) {
      saved[q] = load_rows<M>(l_.saved + (place * Cell::saved + q) * H + unit, Cell::saved * H, count);
    });
    State<Group<T, M>> old, after, d;
    after.h = load_rows<M>((Cell::saved == 0 && l_.saved ? l_.saved : l_.h) + at, H, count);
    d.h = load_rows<M>(d_h_ + carry, row_H, kWidth<T>);
    if (Cell::saved > 0) old.h = load_rows<M>(before(turn, l_.h, l_.h_0) + old_at, H, count);
    if (l_.g_h) d.h = d.h + load_rows<M>(l_.g_h + at, H, count);
    if (Cell::memory) {
      old.c = load_rows<M>(before(turn, l_.c, l_.c_0) + old_at, H, count);
      after.c = load_rows<M>(l_.c + at, H, count);
      d.c = load_rows<M>(d_c_ + carry, row_H, kWidth<T>);
      if (l_.g_c) d.c = d.c + load_rows<M>(l_.g_c + at, H, count);
    }
    State<Group<T, M>> held;
    if (!plain && l_.keep) {
      const Group<T, M> kept = map<T, M>([&](auto m) { return (Vec<T>)counts(place + m, unit, count); });
      const Group<T, M> none = {};
      held.h = chosen(kept, none, d.h), held.c = chosen(kept, none, d.c);
      d.h = chosen(kept, d.h, none), d.c = chosen(kept, d.c, none);
    }
    if (!plain && l_.d_perturbations) store_rows<M>(l_.d_perturbations + at, H, d.h, count);
    const State<Group<T, M>> through = Cell::backward(saved, old, after, d, out);
    each<kBlocks>([&](auto q) {
      store_rows<M>(delta + b * row_ + q * units_ * kWidth<T> + unit, row_, out[q], kWidth<T>);
      each<M>([&](auto m) { d_bias[q] += out[q].v[m]; });
    });
    store_rows<M>(d_h_ + carry, row_H, through.h + held.h, kWidth<T>);
    if (Cell::memory) store_rows<M>(d_c_ + carry, row_H, through.c + held.c, kWidth<T>);
  }

  const Sizes s_;
  const Lane<T> l_;
  Scratch<T>& scratch_;
  const int64_t units_, row_;
  T *sums_ = nullptr, *masked_ = nullptr, *d_bias_ = nullptr, *d_h_ = nullptr, *d_c_ = nullptr;
};

// ---- calls --------------------------------------------------------------------------------------------------

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
  const FlushSubnormals flush;
  scratch.start();
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
  if (name == "lstm") return run_lane<T, Lstm>;
  return nullptr;
}

// Runs `work(i)` for i < count on this thread and on those of the pool that are free.
template <class Work>
void share(ffi::ThreadPool& pool, int64_t count, const Work& work) {
  struct Shared {
    std::atomic<int64_t> next{0};
    int64_t done = 0;
    std::mutex mutex;
    std::condition_variable all_done;
  };
  auto shared = std::make_shared<Shared>();
  const Work* task = &work;  // alive while a number below `count` is at work
  auto take = [shared, task, count] {
    for (int64_t i; (i = shared->next.fetch_add(1)) < count;) {
      (*task)(i);
      std::lock_guard<std::mutex> lock(shared->mutex);
      if (++shared->done == count) shared->all_done.notify_all();
    }
  };
  for (int64_t i = 1; i < std::min(count, pool.num_threads()); ++i) pool.Schedule(decltype(take)(take));
  take();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->all_done.wait(lock, [&] { return shared->done == count; });
}

// ---- the call from XLA --------------------------------------------------------------------------------------

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
    {"saved", &Lane<T>::saved}, {"g_h", &Lane<T>::g_h}, {"g_c", &Lane<T>::g_c},
    {"d_x", &Lane<T>::d_x}, {"d_W_xh", &Lane<T>::d_W_xh}, {"d_W_hh", &Lane<T>::d_W_hh},
    {"d_b_h", &Lane<T>::d_b_h}, {"d_b_hh", &Lane<T>::d_b_hh}, {"d_h_0", &Lane<T>::d_h_0},
    {"d_c_0", &Lane<T>::d_c_0}, {"d_mask", &Lane<T>::d_mask},
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

template <class T>
ffi::Error run_lanes(ffi::ThreadPool& pool, std::string_view cell, Sizes sizes, bool backward,
                     const std::vector<Array>& arrays, const ffi::AnyBuffer& result) {
  const Run<T> run = cell_of<T>(cell);
  if (!run) return ffi::Error::InvalidArgument("unknown cell " + std::string(cell));
  const auto of_x = arrays[0].buffer.dimensions();
  const size_t axes = of_x.size() - 3;
  int64_t lanes = 1;
  for (size_t i = 0; i < axes; ++i) lanes *= result.dimensions()[i];
  share(pool, lanes, [&](int64_t i) {
    Lane<T> lane = {};
    for (const Array& array : arrays) {
      const int64_t offset = array.offset(i, result.dimensions().begin(), axes);
      if (array.name == "keep") lane.keep = array.buffer.typed_data<bool>() + offset;
      for (const Named<T>& one : kArrays<T>)
        if (one.name == array.name) lane.*one.place = array.buffer.typed_data<T>() + offset;
    }
    run(sizes, lane, backward);
  });
  return ffi::Error::Success();
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
ffi::Error recurrence(ffi::ThreadPool pool, std::string_view cell, bool backward, bool reverse,
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
