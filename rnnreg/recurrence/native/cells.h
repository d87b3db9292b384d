// The elementwise part of each cell, forwards and backwards.

#pragma once

#include "functions.h"

namespace {

// The elementwise part of each cell. A step's sums stand in blocks of H: first those of both projections (`both`),
// then those of h alone (`of_h`) and of x alone (`of_x`). `saved` is what the derivative reads beside the states;
// `delta` is the derivative with respect to the sums; `through` is the part of the derivative with respect to the
// state before that goes through no product. With `two_products` a step has two phases: the last block's product is
// not with h but with what the gate of block 0 lets through of it (`enter`), so it waits for that gate; backwards, the
// gate's `delta` waits for what comes back through that product (`leave`).

template <class X>
struct State {
  X h = {}, c = {};
};

enum Activation { kTanh, kRelu, kIdentity };

template <Activation activation>
struct Elman {
  static constexpr int both = 1, of_h = 0, of_x = 0, saved = 0;
  static constexpr bool memory = false, two_products = false;

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
    // a choice and no factor, as jax.nn.relu has it: a unit that is off passes no NaN back, and no infinity
    if constexpr (activation == kRelu)
      delta[0] = map<T, M>([&](auto m) { return y.v[m] > T(0) ? d.h.v[m] : Vec<T>{}; });
    return {};
  }
};

struct Gru {  // blocks reset, update, candidate of h, candidate of x
  static constexpr int both = 2, of_h = 1, of_x = 1, saved = 4;
  static constexpr bool memory = false, two_products = false;

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

struct GruResetBefore {  // blocks reset, update, candidate
  static constexpr int both = 3, of_h = 0, of_x = 0, saved = 3;
  static constexpr bool memory = false, two_products = true;

  // From the reset gate's sum, which becomes the gate, to the h that enters the candidate's product.
  template <class T, int M>
  static Group<T, M> enter(Group<T, M>& reset, const Group<T, M>& h) {
    reset = logistic(reset);
    return reset * h;
  }

  template <class T, int M>
  static State<Group<T, M>> forward(const Group<T, M>* z, const State<Group<T, M>>& before, Group<T, M>* saved) {
    const auto update = logistic(z[1]), candidate = hyperbolic_tangent(z[2]);
    saved[0] = z[0], saved[1] = update, saved[2] = candidate;
    State<Group<T, M>> after;
    after.h = candidate + update * (before.h - candidate);
    return after;
  }

  template <class T, int M>
  static State<Group<T, M>> backward(const Group<T, M>* saved, const State<Group<T, M>>& before,
                                     const State<Group<T, M>>&, const State<Group<T, M>>& d, Group<T, M>* delta) {
    const auto &update = saved[1], &candidate = saved[2];
    delta[2] = d.h * (T(1) - update) * (T(1) - candidate * candidate);
    delta[1] = d.h * (before.h - candidate) * update * (T(1) - update);
    delta[0] = {};
    State<Group<T, M>> through;
    through.h = d.h * update;
    return through;
  }

  // From the derivative with respect to what entered to the reset gate's delta; d_h gets its part.
  template <class T, int M>
  static Group<T, M> leave(const Group<T, M>& reset, const Group<T, M>& h, const Group<T, M>& d_entering,
                           Group<T, M>& d_h) {
    d_h = d_h + d_entering * reset;
    return d_entering * h * reset * (T(1) - reset);
  }
};

struct Lstm {  // blocks input, forget, candidate, output
  static constexpr int both = 4, of_h = 0, of_x = 0, saved = 5;
  static constexpr bool memory = true, two_products = false;

  template <class T, int M>
  static State<Group<T, M>> forward(const Group<T, M>* z, const State<Group<T, M>>& before, Group<T, M>* saved) {
    const auto input = logistic(z[0]), forget = logistic(z[1]), output = logistic(z[3]);
    const auto candidate = hyperbolic_tangent(z[2]);
    State<Group<T, M>> after;
    after.c = forget * before.c + input * candidate;
    const auto y = hyperbolic_tangent(after.c);
    after.h = output * y;
    saved[0] = input, saved[1] = forget, saved[2] = candidate, saved[3] = output, saved[4] = y;
    return after;
  }

  template <class T, int M>
  static State<Group<T, M>> backward(const Group<T, M>* saved, const State<Group<T, M>>& before,
                                     const State<Group<T, M>>&, const State<Group<T, M>>& d,
                                     Group<T, M>* delta) {
    const auto &input = saved[0], &forget = saved[1], &candidate = saved[2], &output = saved[3], &y = saved[4];
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

}  // namespace
