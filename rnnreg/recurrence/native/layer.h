// A recurrent layer through time, one lane: forwards, and its reverse-mode derivative.
//
// Between two matrix products of a step stands the elementwise part of the cell. Widths are padded in scratch memory,
// never in the arrays of the caller. Rows go through time in blocks that the cache holds.

#pragma once

#include <algorithm>
#include <cstdint>

#include "cells.h"
#include "memory.h"
#include "product.h"

namespace {

constexpr int64_t kMostRows = 48;   // rows that go through time together
constexpr int64_t kFewestRows = 96; // rows of (time, batch) in one update of a weight gradient

template <class T, class Cell>
class Pass {
 public:
  static constexpr int kGates = Cell::both + Cell::of_h, kBlocks = kGates + Cell::of_x;
  static constexpr int kLate = Cell::two_products, kEarly = Cell::both - kLate;  // of the blocks of both projections
  static constexpr int kTogether = Cell::saved == 0 ? 4 : 2;  // rows of the elementwise part

  Pass(const Sizes& sizes, const Lane<T>& lane, Scratch<T>& scratch)
      : s_(sizes), l_(lane), scratch_(scratch), units_(vectors_of<T>(s_.H)), row_(row_of<T>(kBlocks * units_)) {}

  void forward() {
    const T* W_h = padded_gates(l_.W_hh, s_.H);
    const T* W_x = padded_gates(l_.W_xh, s_.D);
    const T* bias = biases();
    sums_ = scratch_.take(most_rows() * row_);
    masked_ = l_.mask ? scratch_.take(most_rows() * s_.H) : nullptr;
    T* entering_late = kLate ? scratch_.take(most_rows() * row_of<T>(units_)) : nullptr;
    for_blocks([&](int64_t first, int64_t rows) {
      for (int64_t turn = 0; turn < s_.T; ++turn) {
        const int64_t t = time(turn);
        const T* h = before(turn, l_.h, l_.h_0) + first * s_.H;
        const T* entering = dropped(h, first, rows, masked_);
        const Operand<T> both[] = {
            {l_.x + (t * s_.B + first) * s_.D, s_.D, 1, W_x, row_, s_.D},
            {entering, s_.H, 1, W_h, row_, s_.H},
        };
        blocks(rows, 0, kEarly, bias, both, 2);
        blocks(rows, Cell::both, Cell::of_h, bias, both + 1, 1);
        blocks(rows, kGates, Cell::of_x, bias, both, 1);
        if constexpr (kLate > 0) {
          enter(h, rows, entering_late);
          const Operand<T> late[] = {both[0], {entering_late, row_of<T>(units_), 1, W_h, row_, s_.H}};
          blocks(rows, kEarly, kLate, bias, late, 2);
        }
        settle(turn, first, rows);
      }
    });
    const int64_t all = s_.B * s_.H, end = time(s_.T - 1) * all;
    std::copy_n(l_.h + end, all, l_.h_last);
    if (Cell::memory) std::copy_n(l_.c + end, all, l_.c_last);
  }

  void backward() {
    const int64_t H = s_.H, most = most_rows(), chunk = std::max<int64_t>(1, kFewestRows / most);
    const int64_t row_H = row_of<T>(units_), row_D = row_of<T>(vectors_of<T>(s_.D));
    const T* W_hT = transposed(l_.W_hh, H, row_H);
    const T* W_xT = l_.d_x ? transposed(l_.W_xh, s_.D, row_D) : nullptr;
    T* d_W_h = scratch_.zeros(H * row_);
    T* d_W_x = scratch_.zeros(s_.D * row_);
    d_bias_ = scratch_.zeros(row_);
    d_h_ = scratch_.take(most * row_H);
    d_c_ = scratch_.take(most * row_H);
    T* back = l_.mask ? scratch_.take(most * row_H) : nullptr;
    T* d_x = l_.d_x ? scratch_.take(most * row_D) : nullptr;
    T* deltas = scratch_.take(chunk * most * row_);
    T* masked = l_.mask ? scratch_.take(chunk * most * H) : nullptr;
    T* late = kLate ? scratch_.take(chunk * most * row_H) : nullptr;
    const T* zeros = scratch_.zeros(std::max(row_H, row_D));
    Operand<T> of_h[kFewestRows], of_x[kFewestRows], of_late[kLate ? kFewestRows : 1];
    int64_t place = 0;  // in the chunk
    if (l_.d_mask) std::fill_n(l_.d_mask, s_.B * H, T(0));
    for_blocks([&](int64_t first, int64_t rows) {
      begin(l_.g_h_last, first, rows, d_h_);
      begin(l_.g_c_last, first, rows, d_c_);
      for (int64_t turn = s_.T - 1; turn >= 0; --turn) {
        const int64_t t = time(turn);
        T* delta = deltas + place * most * row_;
        const T* h = before(turn, l_.h, l_.h_0) + first * H;
        const T* x = l_.x + (t * s_.B + first) * s_.D;
        unsettle(turn, first, rows, delta);
        Operand<T> through[kGates];
        for (int g = 0; g < kGates; ++g)
          through[g] = {delta + g * units_ * kWidth<T>, row_, 1, W_hT + g * H * row_H, row_H, H};
        if constexpr (kLate > 0) {
          T* entered = late + place * most * row_H;
          product<T>(rows, units_, zeros, 0, entered, row_H, through + kEarly, kLate);
          leave(turn, h, first, rows, delta, entered);
          of_late[place] = {entered, 1, row_H, delta, row_, rows};
        }
        if (l_.mask) {
          product<T>(rows, units_, zeros, 0, back, row_H, through, kGates - kLate);
          unmask(h, first, rows, back);
        } else {
          product<T>(rows, units_, d_h_, row_H, d_h_, row_H, through, kGates - kLate);
        }
        if (l_.d_x) {
          for (int g = 0; g < kGates; ++g) {
            through[g].a = delta + x_block(g) * units_ * kWidth<T>;
            through[g].panel = W_xT + g * H * row_D, through[g].stride = row_D;
          }
          product<T>(rows, vectors_of<T>(s_.D), zeros, 0, d_x, row_D, through, kGates);
          cut(d_x, row_D, l_.d_x + (t * s_.B + first) * s_.D, rows, s_.D);
        }
        const T* entering = dropped(h, first, rows, masked ? masked + place * most * H : nullptr);
        of_h[place] = {entering, 1, H, delta, row_, rows};
        of_x[place] = {x, 1, s_.D, delta, row_, rows};
        if (++place == chunk || turn == 0) {
          if (l_.d_W_hh) accumulate(H, 0, kGates - kLate, d_W_h, of_h, place);
          if (l_.d_W_hh) accumulate(H, kGates - kLate, kLate, d_W_h, of_late, place);
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

  int64_t most_rows() const { return std::min(s_.B, kMostRows); }

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
    T* padded = scratch_.zeros(rows * row_);
    for (int64_t i = 0; i < rows; ++i)
      for (int g = 0; g < kGates; ++g)
        std::copy_n(weights + (i * kGates + g) * s_.H, s_.H, padded + i * row_ + g * units_ * kWidth<T>);
    return padded;
  }

  // [gates H, rows] of weights [rows, gates H].
  const T* transposed(const T* weights, int64_t rows, int64_t row) {
    T* turned = scratch_.zeros(kGates * s_.H * row);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < kGates * s_.H; ++j) turned[j * row + i] = weights[i * kGates * s_.H + j];
    return turned;
  }

  const T* biases() {
    T* bias = scratch_.zeros(row_);
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

  // The derivative with respect to the last state, padded; 0 where there is none.
  void begin(const T* last, int64_t first, int64_t rows, T* to) const {
    const int64_t row_H = row_of<T>(units_);
    std::fill_n(to, rows * row_H, T(0));
    for (int64_t b = 0; last && b < rows; ++b) std::copy_n(last + (first + b) * s_.H, s_.H, to + b * row_H);
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
  INLINE void settle(int64_t turn, int64_t first, int64_t b, int64_t unit) {
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
  INLINE void unsettle(int64_t turn, int64_t first, int64_t b, int64_t unit, T* delta, Vec<T>* d_bias) {
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

  // body(M, b, unit) for M rows from b on and a vector of units: M is `most` as long as there are so many, then 1.
  template <int most, class Body>
  INLINE void for_vectors(int64_t rows, Body body) const {
    for (int64_t unit = 0; unit < s_.H; unit += kWidth<T>) {
      int64_t b = 0;
      for (; b + most <= rows; b += most) body(std::integral_constant<int, most>(), b, unit);
      for (; b < rows; ++b) body(std::integral_constant<int, 1>(), b, unit);
    }
  }

  // From the sums of block 0 to its gate, and to what enters the late product, padded.
  void enter(const T* h, int64_t rows, T* to) {
    const int64_t H = s_.H, row_H = row_of<T>(units_);
    for_vectors<4>(rows, [&](auto together, int64_t b, int64_t unit) {
      constexpr int M = together;
      auto gate = load_rows<M>(sums_ + b * row_ + unit, row_, kWidth<T>);
      const auto entering = Cell::enter(gate, load_rows<M>(h + b * H + unit, H, H - unit));
      store_rows<M>(to + b * row_H + unit, row_H, entering, kWidth<T>);
      store_rows<M>(sums_ + b * row_ + unit, row_, gate, kWidth<T>);
    });
  }

  // From what came back through the late product to the delta of block 0 and its part of d_h. `entered` holds the
  // derivative with respect to what entered that product, and then what entered.
  void leave(int64_t turn, const T* h, int64_t first, int64_t rows, T* delta, T* entered) {
    constexpr int S = Cell::saved;
    const int64_t H = s_.H, row_H = row_of<T>(units_);
    const T* saved = l_.saved + (time(turn) * s_.B + first) * S * H;
    for_vectors<4>(rows, [&](auto together, int64_t b, int64_t unit) {
      constexpr int M = together;
      const int64_t carry = b * row_H + unit;
      const auto gate = load_rows<M>(saved + b * S * H + unit, S * H, H - unit);
      const auto old = load_rows<M>(h + b * H + unit, H, H - unit);
      auto d_h = load_rows<M>(d_h_ + carry, row_H, kWidth<T>);
      const auto out = Cell::leave(gate, old, load_rows<M>(entered + carry, row_H, kWidth<T>), d_h);
      store_rows<M>(d_h_ + carry, row_H, d_h, kWidth<T>);
      store_rows<M>(entered + carry, row_H, gate * old, kWidth<T>);
      store_rows<M>(delta + b * row_ + unit, row_, out, kWidth<T>);
      Vec<T> d_bias = load(d_bias_ + unit);
      each<M>([&](auto m) { d_bias += out.v[m]; });
      store(d_bias_ + unit, d_bias);
    });
  }

  const Sizes s_;
  const Lane<T> l_;
  Scratch<T>& scratch_;
  const int64_t units_, row_;
  T *sums_ = nullptr, *masked_ = nullptr, *d_bias_ = nullptr, *d_h_ = nullptr, *d_c_ = nullptr;
};

}  // namespace
