"""What data is made of: rows, splits of rows, the scaling of features, and folds as row numbers."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from rnnreg.data._times import as_times

if TYPE_CHECKING:
    from typing import Self


class Batch(NamedTuple):
    """Rows of input and target sequences.

    Steps may be left out for two reasons, and each has its own field. Padding and missing steps are not read: `mask`.
    Steps that are read and have no label count for nothing in the loss: `weights` of shape `[N, T]`.

    Attributes:
      xs: inputs, `[N, T, D]` real numbers or `[N, T]` integer tokens.
      ys: targets, `[N, T, O]` (one a step), `[N, O]` (one a row), or integer classes `[N, T]` or `[N]`.
      mask: `[N, T]`, 1 where a step counts, 0 where it is not read: the state is held there, and lags count it as a
        step of the clock all the same. None when every step counts.
      weights: `[N]`, how much a row counts in means; 0 marks a padding row. Or `[N, T]`, how much each step counts in
        the loss of its row; 0 marks a step without a label, and a row counts as much as its heaviest step. None when
        all count 1.

    The first half of each sequence is read, and the second half is scored:

    >>> batch = Batch(np.zeros((2, 4, 1)), np.zeros((2, 4, 1)), weights=np.array([[0, 0, 1, 1]] * 2))
    >>> batch
    Batch(xs=float64[2, 4, 1], ys=float64[2, 4, 1], weights=int64[2, 4])
    """

    xs: Any
    ys: Any
    mask: Any = None
    weights: Any = None

    def __repr__(self) -> str:
        return f"Batch({', '.join(_shown(self._asdict()))})"


def check_is_batch(value: Any, name: str) -> None:
    """Raises if a value is no batch."""
    if isinstance(value, Batch):
        return
    cure = ""
    if isinstance(value, tuple) and value and isinstance(value[0], Batch):
        cure = " rr.data.windows returns (batch, times): give rr.Split(batch, target_times=times)."
    elif getattr(value, "ndim", 0) == 2:
        cure = " Times have a name of their own: rr.Split(batch, target_times=times)."
    raise ValueError(
        f"{name} must be an rnnreg Batch(xs, ys, mask, weights); got {type(value).__name__}.{cure}"
    )


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


@dataclasses.dataclass(frozen=True, repr=False)
class Split(_Replaceable):
    """Training rows with optional validation rows and named test sets.

    Attributes:
      train: the rows to learn from.
      validation: rows scored during training; None when there are none (folds make their own).
      test: test sets by name.
      target_times: `[N, 2]`, the first and the last time of the targets of each training row, numbers or dates
        (`datetime64`, or what pandas holds); needed by folds that are blocked in time. No part of a tree of arrays if
        they are dates: JAX has none.
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

    def __post_init__(self) -> None:
        check_is_batch(self.train, "data.train")
        if self.validation is not None:
            check_is_batch(self.validation, "data.validation")
        if not isinstance(self.test, Mapping):
            raise ValueError(
                f"test must be a dict of named test sets, as {{'test': batch}}; got {type(self.test).__name__}."
            )
        times = self.target_times
        plain = isinstance(times, (np.ndarray, jax.Array)) and times.dtype != object
        if times is not None and not plain:
            object.__setattr__(self, "target_times", as_times(times, "target_times"))

    def __repr__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        tests = {f"test[{name!r}]": batch for name, batch in values.pop("test").items()}
        return "Split(\n" + "".join(f"  {one},\n" for one in _shown(values | tests)) + ")"


def _shown(fields: Mapping[str, Any]) -> list[str]:
    """`name=value` of every field that is there; arrays by type and shape, such as "float32[36, 4, 1]"."""
    found = []
    for name, value in fields.items():
        if isinstance(value, Scaling):
            found.append(f"{name}=Scaling({', '.join(_shown(value._asdict()))})")
        elif hasattr(value, "shape") and hasattr(value, "dtype"):
            found.append(f"{name}={value.dtype}[{', '.join(map(str, value.shape))}]")
        elif value is not None:
            found.append(f"{name}={value!r}")
    return found


class _Dates:
    """Dates as a static part of a tree, compared by value."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Dates) and np.array_equal(self.values, other.values)

    def __hash__(self) -> int:
        return hash(np.asarray(self.values).tobytes())


def _flatten(split: Split) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
    dated = isinstance(split.target_times, np.ndarray) and split.target_times.dtype.kind in "Mm"
    arrays = {name: getattr(split, name) for name in _ARRAYS}
    if dated:
        arrays["target_times"] = None
    children = [(jax.tree_util.GetAttrKey(name), value) for name, value in arrays.items()]
    return children, (_Dates(split.target_times) if dated else None, split.epoch_rows)


def _unflatten(static: tuple[Any, ...], children: Any) -> Split:
    split = object.__new__(Split)
    fields = dict(zip(_ARRAYS, children, strict=True)) | {"epoch_rows": static[1]}
    if static[0] is not None:
        fields["target_times"] = static[0].values
    for name, value in fields.items():
        object.__setattr__(split, name, value)
    return split


_ARRAYS = ("train", "validation", "test", "target_times", "units", "scaling")
jax.tree_util.register_pytree_with_keys(Split, _flatten, _unflatten)

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
