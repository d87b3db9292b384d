"""Rows of sequences: batches, splits, windows of a series, scaling, and folds as lists of row numbers.

A fold is nothing but a transformation of the data: `take_fold(split, fold)` returns the split that
one fold trains and validates on, so that training itself knows nothing about folds.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnnreg._checks import warn_caller

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "Batch",
    "Fold",
    "Scaling",
    "Split",
    "as_split",
    "check_batch",
    "fit_scaling",
    "lengths_to_mask",
    "row_weights",
    "scale_batch",
    "stack_folds",
    "standardize",
    "take_fold",
    "take_rows",
    "unscale_outputs",
    "windows",
]


class Batch(NamedTuple):
    """Rows of input and target sequences.

    Attributes:
      xs: inputs, `[N, T, D]` real numbers or `[N, T]` integer tokens.
      ys: targets, `[N, T, O]` (one a step), `[N, O]` (one a row), or integer classes `[N, T]` or `[N]`.
      mask: `[N, T]`, 1 where a step counts, 0 at padding; None when every step counts.
      weights: `[N]`, how much a row counts in means; 0 marks a padding row; None when all count 1.
    """

    xs: Any
    ys: Any
    mask: Any = None
    weights: Any = None


class Scaling(NamedTuple):
    """An affine map of inputs and targets; `unscaled = scaled * scale + shift`, feature by feature.

    Attributes:
      x_shift: `[D]` shift of the inputs.
      x_scale: `[D]` scale of the inputs.
      y_shift: `[O]` shift of the targets.
      y_scale: `[O]` scale of the targets.
    """

    x_shift: Any
    x_scale: Any
    y_shift: Any
    y_scale: Any


class _Replaceable:
    """What `Split` and `Fold` share."""

    def replace(self, **fields: Any) -> Self:
        """The record with other values of some fields.

        Args:
          **fields: new values by name.

        Returns:
          Another record.

        Raises:
          TypeError: a name that the record does not have.
        """
        return dataclasses.replace(self, **fields)  # type: ignore[type-var]


_ARRAYS = ("train", "validation", "test", "target_times", "units", "scaling")


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=_ARRAYS, meta_fields=("epoch_rows",)
)
@dataclasses.dataclass(frozen=True)
class Split(_Replaceable):
    """Training rows with optional validation rows and named test sets.

    Attributes:
      train: the rows to learn from.
      validation: rows scored during training; None when there are none (folds make their own).
      test: test sets by name.
      target_times: `[N, 2]`, the first and the last time of the targets of each training row; needed
        by folds that are blocked in time.
      units: how the arrays relate to the data's own units, `own = array * scale + shift`.
      scaling: how the network sees the arrays, `seen = (array - shift) / scale`. `take_fold` fits it
        on the training rows of one fold; None means that the network sees the arrays as they are.
      epoch_rows: rows that make an epoch of minibatches; None takes all training rows. Static.
    """

    train: Batch
    validation: Batch | None = None
    test: Mapping[str, Batch] = dataclasses.field(default_factory=dict)
    target_times: Any = None
    units: Scaling | None = None
    scaling: Scaling | None = None
    epoch_rows: int | None = None


_ROWS = ("train_rows", "train_weights", "validation_rows", "validation_weights", "scaling")


@functools.partial(jax.tree_util.register_dataclass, data_fields=_ROWS, meta_fields=("epoch_rows",))
@dataclasses.dataclass(frozen=True)
class Fold(_Replaceable):
    """One way to cut the training rows in two; with a leading axis, one for each fold.

    Attributes:
      train_rows: `[n]` row numbers to train on, padded with repeats.
      train_weights: `[n]`, 1 for a true row, 0 for padding.
      validation_rows: `[m]` row numbers to validate on, padded with repeats.
      validation_weights: `[m]`, 1 for a true row, 0 for padding.
      scaling: fitted on the training rows of the fold; None when the split is not standardised.
      epoch_rows: rows of the longest fold (without "all"); it sets the number of updates an epoch, so that
        every fold and "all" make the same number. Static.
    """

    train_rows: Any
    train_weights: Any
    validation_rows: Any
    validation_weights: Any
    scaling: Scaling | None = None
    epoch_rows: int | None = None


def lengths_to_mask(lengths: Any, num_steps: int) -> np.ndarray:
    """The mask `[N, T]` of sequences of the given true lengths.

    Args:
      lengths: `[N]` true steps of each sequence.
      num_steps: T, the steps of the padded arrays.

    Returns:
      float32 `[N, T]`, 1 where a step is true.

    Raises:
      ValueError: a length is negative or beyond `num_steps`.

    >>> lengths_to_mask([1, 3], num_steps=3).astype(int).tolist()
    [[1, 0, 0], [1, 1, 1]]
    """
    lengths = np.asarray(lengths)
    if lengths.ndim != 1:
        raise ValueError(
            f"lengths must be one number a sequence, shape [N]; got shape {lengths.shape}."
        )
    if lengths.size and (lengths.min() < 0 or lengths.max() > num_steps):
        worst = lengths.max() if lengths.max() > num_steps else lengths.min()
        raise ValueError(
            f"every length must lie between 0 and num_steps={num_steps}; got {worst}. "
            "Cut the sequence, or pad all of them to a longer num_steps."
        )
    return (np.arange(num_steps)[None, :] < lengths[:, None]).astype(np.float32)


def windows(
    series: Any, window: int, *, times: Any = None, targets: str = "last", horizon: int = 1
) -> tuple[Batch, np.ndarray]:
    """Sliding windows of a series, each with the value (or values) that follow.

    Row i sees `series[i : i + window]`. With `targets="last"` its target is the value `horizon` steps
    after the window's end; with `targets="all"` each step has the value `horizon` steps after it.

    Args:
      series: `[S]` or `[S, D]`.
      window: T, the number of steps that a row sees.
      times: `[S]` time of each value; default 0 … S−1.
      targets: "last" gives ys `[N, D]`, "all" gives ys `[N, T, D]`.
      horizon: how many steps ahead the target lies.

    Returns:
      The batch, and `[N, 2]` first and last target time of each row.

    Raises:
      ValueError: a series that has no such window, or times of another length.

    >>> batch, target_times = windows(np.arange(6.0), window=3)
    >>> batch.xs[:, :, 0].tolist(), batch.ys[:, 0].tolist(), target_times[:, 1].tolist()
    ([[0.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 4.0]], [3.0, 4.0, 5.0], [3.0, 4.0, 5.0])
    """
    series = np.asarray(series)
    if not np.issubdtype(series.dtype, np.floating):  # counts are numbers here, not tokens
        series = series.astype(np.float64)
    series = series[:, None] if series.ndim == 1 else series
    if targets not in ("last", "all"):
        raise ValueError(f"targets must be 'last' or 'all'; got {targets!r}.")
    num_rows = len(series) - window - horizon + 1
    if window < 1 or horizon < 1 or num_rows < 1:
        raise ValueError(
            f"a series of {len(series)} values has no window of {window} steps with a target "
            f"{horizon} ahead; use a shorter window."
        )
    times = np.arange(len(series), dtype=float) if times is None else np.asarray(times, dtype=float)
    if len(times) != len(series):
        raise ValueError(f"times must have one entry a value: {len(series)}; got {len(times)}.")
    steps = np.arange(num_rows)[:, None] + np.arange(window)[None, :]
    last = steps[:, -1] + horizon
    first = steps[:, 0] + horizon if targets == "all" else last
    ys = series[last] if targets == "last" else series[steps + horizon]
    return Batch(xs=series[steps], ys=ys), np.stack([times[first], times[last]], axis=1)


def fit_scaling(batch: Batch, *, rows: Any = None) -> Scaling:
    """Mean and standard deviation of the inputs and targets of the given training rows.

    Padding (mask 0, rows of weight 0) is left out. A constant feature keeps scale 1. Token inputs and class targets
    are not scaled (shift 0, scale 1).

    Args:
      batch: the rows.
      rows: `[n]` numbers of the rows to fit on; None takes all.

    Returns:
      Shift and scale of each feature.

    >>> batch = Batch(np.array([[[0.0], [2.0]], [[4.0], [6.0]]]), np.array([[1.0], [3.0]]))
    >>> fit_scaling(batch).y_shift.tolist(), fit_scaling(batch, rows=[0]).x_shift.tolist()
    ([2.0], [1.0])
    """
    rows = np.arange(len(batch.ys)) if rows is None else np.asarray(rows)
    if batch.weights is not None:
        rows = rows[np.asarray(batch.weights)[rows] > 0]
    mask = None if batch.mask is None else np.asarray(batch.mask)[rows] > 0

    def fit(values):
        values = np.asarray(values)[rows]
        if not np.issubdtype(values.dtype, np.floating):
            return np.zeros(1), np.ones(1)
        if mask is not None and values.ndim == 3:
            flat = values[mask]
        else:
            flat = values.reshape(-1, values.shape[-1])
        scale = flat.std(axis=0)
        return flat.mean(axis=0), np.where(scale > 0, scale, 1.0)

    x_shift, x_scale = fit(batch.xs)
    y_shift, y_scale = fit(batch.ys)
    return Scaling(x_shift, x_scale, y_shift, y_scale)


def scale_batch(batch: Batch, scaling: Scaling | None) -> Batch:
    """The batch in the network's units: `(array - shift) / scale`; integers pass unchanged.

    Args:
      batch: rows in the units of the split's arrays.
      scaling: shift and scale; None changes nothing.

    Returns:
      The batch that the network sees.

    >>> batch = Batch(np.array([[[1.0], [3.0]]]), np.array([[5.0]]))
    >>> scale_batch(batch, Scaling(np.ones(1), 2 * np.ones(1), np.ones(1), np.ones(1))).xs.tolist()
    [[[0.0], [1.0]]]
    """
    if scaling is None:
        return batch
    return batch._replace(
        xs=_scaled(batch.xs, scaling.x_shift, scaling.x_scale),
        ys=_scaled(batch.ys, scaling.y_shift, scaling.y_scale),
    )


def unscale_outputs(outputs: Any, scaling: Scaling | None) -> Any:
    """Network outputs back in the units of the targets: `outputs * scale + shift`.

    Args:
      outputs: `[..., O]` what the network returns.
      scaling: shift and scale; None changes nothing.

    Returns:
      Outputs of the same shape.

    >>> scaling = Scaling(np.zeros(1), np.ones(1), np.ones(1), 2 * np.ones(1))
    >>> unscale_outputs(np.array([[3.0]]), scaling).tolist()
    [[7.0]]
    """
    if scaling is None:
        return outputs
    return outputs * _like(scaling.y_scale, outputs) + _like(scaling.y_shift, outputs)


def _like(values, array):
    return values.astype(array.dtype) if isinstance(values, (np.ndarray, Array)) else values


def _scaled(values, shift, scale):
    if not jnp.issubdtype(values.dtype, jnp.floating):
        return values
    return (values - _like(shift, values)) / _like(scale, values)


def standardize(split: Split) -> Split:
    """The split with zero-mean, unit-variance features, fitted on its training rows alone.

    The map back to the data's own units is kept in `units`. Folds are scaled once more, each on its
    own training rows, so that no fold sees the mean of its validation block.

    Args:
      split: the split in its own units.

    Returns:
      The standardised split, its test sets too.

    Raises:
      ValueError: it is standardised already.

    >>> split = standardize(Split(windows(np.arange(6.0), window=2)[0]))
    >>> float(split.train.ys.mean()), split.units.y_shift.tolist()
    (0.0, [3.5])
    """
    if split.units is not None:
        raise ValueError("the split is standardised already (its `units` are set).")
    scaling = fit_scaling(split.train)

    def apply(batch):
        return None if batch is None else scale_batch(batch, scaling)

    return split.replace(
        train=apply(split.train),
        validation=apply(split.validation),
        test={name: apply(batch) for name, batch in split.test.items()},
        units=scaling,
    )


def stack_folds(
    pairs: Iterable[tuple[Any, Any]], split: Split, *, include_all: bool = False
) -> tuple[Fold, list[str]]:
    """(training rows, validation rows) pairs as one `Fold` with a leading axis, and the folds' labels.

    Shorter lists are padded with weight 0, so that all folds run in one compiled program.

    Args:
      pairs: what a scikit-learn splitter's `split` yields.
      split: whose training rows are meant; a standardised split gets a scaling for each fold.
      include_all: add the fold "all", which trains on every row and validates on none.

    Returns:
      The folds, and their labels "0" … and "all".

    Raises:
      ValueError: no folds; a fold with nothing to train or validate on; a row outside the data; a
        row on both sides.

    >>> split = Split(windows(np.arange(6.0), window=2)[0])
    >>> folds, labels = stack_folds([([0, 1], [2]), ([3], [0, 1])], split, include_all=True)
    >>> labels, folds.train_weights.tolist()
    (['0', '1', 'all'], [[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    """
    num_rows = len(split.train.ys)
    pairs = [(np.asarray(train, dtype=int), np.asarray(val, dtype=int)) for train, val in pairs]
    if not pairs:
        raise ValueError(
            "folds is empty; expected at least one (train_rows, validation_rows) pair."
        )
    for index, (train, val) in enumerate(pairs):
        if train.size == 0 or val.size == 0:
            side = "train" if train.size == 0 else "validate"
            raise ValueError(
                f"fold {index} leaves nothing to {side} on (got {train.size} training and {val.size} "
                "validation rows); use fewer folds, a shorter window or a smaller embargo."
            )
        rows = np.concatenate([train, val])
        if rows.min() < 0 or rows.max() >= num_rows:
            raise ValueError(
                f"fold {index} names row {rows.max() if rows.max() >= num_rows else rows.min()}; the "
                f"training data has rows 0 to {num_rows - 1}."
            )
        if np.intersect1d(train, val).size:
            raise ValueError(
                f"fold {index} has rows {np.intersect1d(train, val)[:5].tolist()} on both sides; a row "
                "may train or validate, not both."
            )
    _warn_of_leaks(pairs, split.target_times)
    labels = [str(index) for index in range(len(pairs))]
    epoch_rows = max(len(train) for train, _ in pairs)
    if include_all:
        pairs = [*pairs, (np.arange(num_rows), np.arange(0))]
        labels.append("all")

    train_rows, train_weights = _padded([train for train, _ in pairs])
    validation_rows, validation_weights = _padded([val for _, val in pairs])
    scaling = None
    if split.units is not None:
        fitted = [fit_scaling(split.train, rows=train) for train, _ in pairs]
        if include_all:  # the arrays are standardised on all rows already
            fitted[-1] = Scaling(*(_identity(k, v) for k, v in fitted[-1]._asdict().items()))
        dtype = np.asarray(split.train.xs).dtype
        dtype = dtype if np.issubdtype(dtype, np.floating) else np.float32
        scaling = Scaling(*(np.stack(field).astype(dtype) for field in zip(*fitted, strict=True)))
    fold = Fold(train_rows, train_weights, validation_rows, validation_weights, scaling, epoch_rows)
    return fold, labels


def _warn_of_leaks(pairs, target_times) -> None:
    """Warns where a training row of a series has a target among the validation targets."""
    if target_times is None:
        return
    first, last = np.asarray(target_times).T
    for index, (train, val) in enumerate(pairs):
        shared = (first[train, None] <= last[None, val]) & (last[train, None] >= first[None, val])
        if shared.any():
            warn_caller(
                f"fold {index}: {int(shared.any(axis=1).sum())} training rows share target times with "
                "validation rows, so the score is too good; use rr.selection.blocked_folds, which leaves "
                "them out."
            )
            return


def _identity(name, values):
    return np.zeros_like(values) if name.endswith("shift") else np.ones_like(values)


def _padded(rows):
    longest = max(map(len, rows))
    padded = np.stack([np.resize(r, longest) if len(r) else np.zeros(longest, int) for r in rows])
    weights = np.stack([np.arange(longest) < len(r) for r in rows])
    return padded.astype(np.int32), weights.astype(np.float32)


def row_weights(batch: Batch) -> Any:
    """How much each row counts in a mean over rows; 0 for padding and for rows without a true step.

    Args:
      batch: the rows, of NumPy or JAX.

    Returns:
      `[N]`.

    >>> row_weights(Batch(np.ones((2, 3, 1)), np.ones(2), mask=np.array([[1, 1, 0], [0, 0, 0]]))).tolist()
    [1.0, 0.0]
    """
    weights = jnp.ones(len(batch.ys)) if batch.weights is None else batch.weights
    if batch.mask is None:
        return weights
    return weights * (batch.mask > 0).any(axis=1).astype(weights.dtype)


def take_rows(batch: Batch, rows: Any, *, weights: Any = None) -> Batch:
    """The given rows of a batch; `weights` multiply the rows' own.

    Args:
      batch: the rows to choose from.
      rows: `[n]` row numbers.
      weights: `[n]` how much each counts; None leaves the batch's own.

    Returns:
      A batch of n rows.

    >>> take_rows(Batch(np.zeros((3, 1, 1)), np.array([5, 6, 7])), np.array([2, 0])).ys.tolist()
    [7, 5]
    """

    def take(leaf):
        return None if leaf is None else jnp.take(leaf, rows, axis=0)

    taken = Batch(*(take(leaf) for leaf in batch))
    if weights is None:
        return taken
    return taken._replace(
        weights=weights
        if taken.weights is None
        else weights.astype(taken.weights.dtype) * taken.weights
    )


def take_fold(split: Split, fold: Fold | None) -> Split:
    """The split that one fold trains and validates on.

    Args:
      split: whose training rows are cut.
      fold: without its leading axis; None leaves the split as it is.

    Returns:
      A split with training and validation rows, and the fold's own scaling.

    >>> split = Split(windows(np.arange(6.0), window=2)[0])
    >>> folds, labels = stack_folds([([0, 1], [2]), ([2, 3], [0, 1])], split)
    >>> first = take_fold(split, jax.tree.map(lambda leaf: leaf[0], folds))
    >>> labels, first.train.ys[:, 0].tolist(), first.validation.weights.tolist()
    (['0', '1'], [2.0, 3.0], [1.0, 0.0])
    """
    if fold is None:
        return split
    return split.replace(
        train=take_rows(split.train, fold.train_rows, weights=fold.train_weights),
        validation=take_rows(split.train, fold.validation_rows, weights=fold.validation_weights),
        scaling=fold.scaling,
        epoch_rows=fold.epoch_rows,
    )


def as_split(data: Split | Batch) -> Split:
    """A bare batch is a split with training rows only.

    Args:
      data: either.

    Returns:
      A split.

    >>> as_split(Batch(np.zeros((3, 1, 1)), np.zeros((3, 1)))).validation is None
    True
    """
    return data if isinstance(data, Split) else Split(train=data)


def check_batch(batch: Batch, *, name: str = "data.train") -> None:
    """Raises a `ValueError` that says what is wrong with a batch of concrete or traced arrays.

    Shapes are always checked; values (NaN, a mask of zeros) only where arrays are concrete.

    Args:
      batch: the rows.
      name: what messages call it.

    Raises:
      ValueError: it is no batch, or one that cannot be trained on.
    """
    if not isinstance(batch, Batch):
        raise ValueError(
            f"{name} must be an rnnreg Batch(xs, ys, mask, weights); got {type(batch).__name__}."
        )
    for field, values in batch._asdict().items():
        if not (values is None and field in ("mask", "weights")) and not isinstance(
            values, (np.ndarray, np.generic, Array, jax.ShapeDtypeStruct)
        ):
            kind = f"{type(values).__module__.split('.')[0]}.{type(values).__name__}"
            raise ValueError(
                f"{name}.{field} must be a NumPy or JAX array; got {kind.removeprefix('builtins.')}. Wrap it in "
                "np.asarray."
            )
    xs, ys, mask, weights = batch
    tokens = jnp.issubdtype(xs.dtype, jnp.integer)
    if xs.ndim != (2 if tokens else 3):
        expected = "[N, T] integer tokens" if tokens else "[N, T, D] real numbers"
        advice = (
            " Whole numbers that are features become real: xs.astype(np.float32)." if tokens else ""
        )
        raise ValueError(
            f"{name}.xs must be {expected}; got shape {xs.shape} of {xs.dtype}.{advice}"
        )
    if xs.shape[0] == 0:
        raise ValueError(f"{name} has no rows.")
    if len(ys) != len(xs):
        raise ValueError(
            f"{name}.ys must have as many rows as xs: {len(xs)}; got {len(ys)} (shape {ys.shape})."
        )
    if mask is not None and mask.shape != xs.shape[:2]:
        raise ValueError(
            f"{name}.mask must be [N, T] = {xs.shape[:2]}; got {mask.shape}. Make one from lengths with "
            "rr.data.lengths_to_mask(lengths, num_steps)."
        )
    if weights is not None and weights.shape != xs.shape[:1]:
        raise ValueError(f"{name}.weights must be [N] = {xs.shape[:1]}; got {weights.shape}.")
    if any(isinstance(leaf, jax.core.Tracer) for leaf in batch if leaf is not None):
        return
    for field in ("xs", "ys", "mask", "weights"):
        values = getattr(batch, field)
        if values is not None and jnp.issubdtype(values.dtype, jnp.floating):
            finite = np.isfinite(np.asarray(values, dtype=np.float64))
            if not finite.all():
                where = tuple(int(i) for i in np.argwhere(~finite)[0])
                raise ValueError(
                    f"{name}.{field} has {int((~finite).sum())} values that are NaN or infinite, the first "
                    f"at {where}; remove them, or mark the steps in `mask` and set the values to 0."
                )
    if mask is not None and not np.isin(np.asarray(mask, dtype=np.float64), (0, 1)).all():
        raise ValueError(f"{name}.mask must hold 0 (padding) and 1 (a true step) only.")
    if weights is not None and (np.asarray(weights) < 0).any():
        raise ValueError(f"{name}.weights must not be negative; got {np.asarray(weights).min()}.")
    if mask is not None and not np.asarray(mask).any():
        raise ValueError(f"{name}.mask masks every step; at least one step must count (1).")
    if weights is not None and not np.asarray(weights).any():
        raise ValueError(f"{name}.weights are all 0; at least one row must count.")
