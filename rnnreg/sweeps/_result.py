"""What a sweep returns: metrics by label, parameters by label, and how they came about."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

if TYPE_CHECKING:
    import xarray as xr


@dataclasses.dataclass(frozen=True)
class Group:
    """The lanes that share one static combination, and so one tree of parameters.

    Attributes:
      static: the static values by name.
      params: stacked parameters; the leading axes are the traced dimensions in order.
      predictions: `[..., seed, fold, row, …]` on the validation rows, in the split's units; None without any.
      targets: `[fold, row, …]` the targets of those rows; None without any.
      weights: `[fold, row]`, 0 where a row is padding; None without any.
    """

    static: dict[str, Any]
    params: dict[str, Any]
    predictions: np.ndarray | None = None
    targets: np.ndarray | None = None
    weights: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """A finished (or interrupted) sweep.

    Attributes:
      metrics: xarray Dataset; dimensions are the sweep's own axes, `seed`, `fold`, and `epoch` for histories.
        `train_loss`, `val_loss`, `penalty_<name>`, …: final values, NaN where a lane diverged or did not run;
        `history_<name>`: values at the record stride; `diverged_at`: step, −1 where it did not;
        `finished`: False where an interruption came first; `ensemble_val_<name>`: score of the mean
        prediction over seeds; `fold_size` and `fold_train_size`: validation and training rows of each fold.
      groups: parameters and predictions, one entry a static combination.
      config: what was asked for, versions, device, numbers, and a hash of the program; JSON-ready.
      plan: how the lanes ran, and why.
    """

    metrics: xr.Dataset
    groups: tuple[Group, ...]
    config: dict[str, Any]
    plan: str

    @property
    def dims(self) -> tuple[str, ...]:
        """The traced dimensions, in order: the axes, then seed and fold."""
        return tuple(self.config["dims"])

    def params_at(self, *, method: str | None = None, **labels: Any) -> dict[str, Any]:
        """The parameters of one lane, the pytree that `net.apply` takes.

        Args:
          method: "nearest" takes the nearest label; None wants an equal one (to 1e-6).
          **labels: one label a dimension; a dimension of length one may be left out, and `fold` too where
            the sweep has the lane "all".

        Raises:
          ValueError: an unknown dimension, a label that is missing or not there, or a lane that did not finish.
        """
        group = self._group(labels)
        index = tuple(self._position(dim, labels, method) for dim in self.dims)
        where = dict(zip(self.dims, index, strict=True))
        if not bool(self.metrics["finished"].sel(group.static).isel(where)):
            raise ValueError(f"the lane {labels} did not finish: the sweep was interrupted before.")
        return jax.tree.map(lambda leaf: leaf[index], group.params)

    def select(self, *, method: str | None = None, **labels: Any) -> SweepResult:
        """The part of the sweep at one label of each given dimension; those dimensions are gone.

        Args:
          method: "nearest" takes the nearest label; None wants an equal one (to 1e-6).
          **labels: one label of some of the dimensions, and one of every static axis.

        Raises:
          ValueError: an unknown dimension, or a label that is not there.
        """
        group = self._group(labels)
        given = {dim: self._position(dim, labels, method) for dim in self.dims if dim in labels}
        index = tuple(given.get(dim, slice(None)) for dim in self.dims)
        kept = [dim for dim in self.dims if dim not in given]
        at_fold = index[self.dims.index("fold")] if "fold" in self.dims else slice(None)

        def at(array, place):
            return None if array is None else array[place]

        part = Group(
            static={},
            params=jax.tree.map(lambda leaf: leaf[index], group.params),
            predictions=at(group.predictions, index),
            targets=at(group.targets, at_fold),
            weights=at(group.weights, at_fold),
        )
        metrics = self.metrics.sel(group.static).isel(given)
        config = self.config | {"dims": kept, "static": {}, "selected": {**group.static, **labels}}
        return SweepResult(metrics, (part,), config, self.plan)

    def map(
        self,
        function: Callable[..., Any],
        *,
        dims: Mapping[str, Sequence[str]] | None = None,
        plan: str = "auto",
    ) -> xr.Dataset:
        """`function(params)` of every lane, compiled once a static combination and run like the lanes of the sweep.

        Args:
          function: from one network's parameters to arrays, or a tree of them such as a `GradientFlow`. Where the
            sweep has static axes, a function of the static values that returns it, as `train` is:
            `lambda static: lambda params: …`.
          dims: names for the axes of what is returned, by its name or by what holds it: `{"log_ratio": ["lag"]}`
            serves "log_ratio.layer_0" and "log_ratio.layer_1". An axis without one is called by its array and place,
            "log_ratio.layer_0.0".
          plan: how the lanes run, as in `rr.sweep`.

        Returns:
          A Dataset, the sweep's dimensions first. A lone array is called "value", the arrays of a tree by their
          place in it, "log_ratio.layer_0". `finished` and `diverged_at` are there too: an unfinished lane is NaN, and
          a diverged one is measured at its last finite parameters.

        Raises:
          ValueError: names that do not fit the arrays, or no function of params, before anything runs.

        >>> import rnnreg as rr, optax, jax.numpy as jnp
        >>> batch = rr.Batch(jnp.ones((4, 3, 1)), jnp.ones((4, 1)))
        >>> net, loss = rr.network([rr.cells.elman(2)], 1, readout="last"), rr.losses.squared_error()
        >>> train = rr.make_train(net, loss=loss, penalties={"l2": rr.penalties.l2()},
        ...     optimizer=optax.sgd(1e-2), num_epochs=1)
        >>> result = rr.sweep(train, {"l2": [0, 0.1]}, batch, seeds=2, key=jax.random.key(0), progress=False)
        >>> flow = result.map(lambda params: rr.diagnostics.gradient_flow(net, loss, params, batch),
        ...     dims={"log_ratio": ["lag"]})
        >>> flow["log_ratio.layer_0"].dims
        ('l2', 'seed', 'lag')
        """
        from rnnreg.sweeps._map import map_lanes

        return map_lanes(self, function, dims=dims, plan=plan)

    def _group(self, labels: dict[str, Any]) -> Group:
        """The one group at the given static values; raises where a dimension is unknown."""
        static_names = list(self.groups[0].static)
        unknown = set(labels) - set(self.dims) - set(static_names)
        if unknown:
            name = sorted(unknown)[0]
            constant = np.ndim(self.config["grid"].get(name, [0])) == 0
            raise ValueError(
                f"unknown dimension {name!r}; the sweep has {[*static_names, *self.dims]}."
                + (f" {name!r} is constant in this sweep." if constant else "")
            )
        groups = [
            group
            for group in self.groups
            if all(labels.get(n, group.static[n]) == group.static[n] for n in static_names)
        ]
        if len(groups) != 1:
            choices = [group.static for group in self.groups]
            raise ValueError(
                f"give one value of each static axis; the sweep has {choices}, got {labels}."
            )
        return groups[0]

    def _position(self, dim: str, labels: dict[str, Any], method: str | None) -> int:
        if method not in (None, "nearest"):
            raise ValueError(f"method must be None or 'nearest'; got {method!r}.")
        coordinate = self.metrics[dim].values
        if dim not in labels:
            if len(coordinate) == 1:
                return 0
            if dim == "fold" and "all" in coordinate:
                return int(np.flatnonzero(coordinate == "all")[0])
            raise ValueError(f"give a label for {dim!r}; it has {coordinate.tolist()}.")
        label = labels[dim]
        if coordinate.dtype.kind in "OUST":
            found = np.flatnonzero(coordinate.astype(str) == str(label))
        elif method == "nearest":
            found = [int(np.argmin(np.abs(coordinate - label)))]
        elif not isinstance(label, (Real, np.generic, jax.Array, np.ndarray)):
            raise ValueError(f"{dim} has numbers, {coordinate.tolist()}; got {label!r}.")
        else:
            found = np.flatnonzero(np.isclose(coordinate, float(label), rtol=1e-6, atol=0))
        if len(found) == 0:
            advice = "method='nearest' takes the nearest number."
            if dim in ("seed", "fold"):
                advice = (
                    "the fold 'all' is there after sweep(..., refit=True)." if dim == "fold" else ""
                )
            raise ValueError(
                f"{dim}={label!r} is not on the axis, which has {coordinate.tolist()}. {advice}".strip()
            )
        return int(found[0])

    def save(self, path: str | Path) -> Path:
        """Writes everything to one netCDF file, readable by any netCDF tool; `rr.load_result` reads it back.

        The file is written beside its place and moved there, so an interruption leaves no half a file.
        """
        import xarray as xr

        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.unlink(missing_ok=True)
        header = {
            "config": self.config,
            "plan": self.plan,
            "groups": [group.static for group in self.groups],
        }
        metrics = self.metrics.assign_attrs(rnnreg=json.dumps(header))
        metrics.to_netcdf(partial, engine="h5netcdf")
        for number, group in enumerate(self.groups):
            leaves = _flat(group.params)
            variables = {name: (_dims(name, leaf), leaf) for name, leaf in leaves.items()}
            xr.Dataset(variables).to_netcdf(
                partial, mode="a", engine="h5netcdf", group=f"params_{number}"
            )
            if group.predictions is not None:
                arrays = {
                    name: (_dims(name, getattr(group, name)), getattr(group, name))
                    for name in ("predictions", "targets", "weights")
                }
                xr.Dataset(arrays).to_netcdf(
                    partial, mode="a", engine="h5netcdf", group=f"predictions_{number}"
                )
        partial.replace(path)
        return path


def load_result(path: str | Path) -> SweepResult:
    """The sweep that `result.save(path)` wrote.

    Raises:
      ValueError: the file is not one of them.

    >>> import tempfile, xarray as xr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "other.nc"
    ...     xr.Dataset({"x": 1}).to_netcdf(path, engine="h5netcdf")
    ...     load_result(path)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: ...other.nc was not written by rnnreg's SweepResult.save.
    """
    import xarray as xr

    if not Path(path).exists():
        raise FileNotFoundError(f"there is no file {path}.")
    try:
        metrics = xr.load_dataset(path, engine="h5netcdf")
    except OSError as error:
        raise ValueError(f"{path} is not a netCDF file ({error}).") from error
    if "rnnreg" not in metrics.attrs:
        raise ValueError(f"{path} was not written by rnnreg's SweepResult.save.")
    header = json.loads(metrics.attrs.pop("rnnreg"))
    groups = []
    for number, static in enumerate(header["groups"]):
        stored = xr.load_dataset(path, engine="h5netcdf", group=f"params_{number}")
        params = _nested({str(name): stored[name].values for name in stored})
        try:
            arrays = xr.load_dataset(path, engine="h5netcdf", group=f"predictions_{number}")
            scored = {name: arrays[name].values for name in ("predictions", "targets", "weights")}
        except (OSError, KeyError):
            scored = {}
        groups.append(Group(static, params, **scored))
    return SweepResult(metrics, tuple(groups), header["config"], header["plan"])


def _dims(name: str, leaf: np.ndarray) -> list[str]:
    return [f"{name}.{axis}" for axis in range(leaf.ndim)]


def _flat(params: dict[str, Any]) -> dict[str, np.ndarray]:
    from flax.traverse_util import flatten_dict

    return {name: np.asarray(leaf) for name, leaf in flatten_dict(params, sep=".").items()}


def _nested(leaves: dict[str, np.ndarray]) -> dict[str, Any]:
    from flax.traverse_util import unflatten_dict

    return unflatten_dict(leaves, sep=".")
