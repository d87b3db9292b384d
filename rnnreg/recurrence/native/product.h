// The matrix product: tiles of some rows times some vectors, held in registers.

#pragma once

#include <algorithm>

#include "vectors.h"

namespace {

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
  each<R>([&](auto r) {
    each<N>([&](auto n) { sum[r][n] = load(from + (row + r) * from_row + column + n * kWidth<T>); });
  });
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
  each<R>([&](auto r) {
    each<N>([&](auto n) { store(to + (row + r) * to_row + column + n * kWidth<T>, sum[r][n]); });
  });
}

// Tiles of R rows as long as there are so many, then of fewer.
template <class T, int R, int N, class... Given>
INLINE void tiles(int64_t rows, int64_t row, int64_t column, Given... given) {
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

}  // namespace
