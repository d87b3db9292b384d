"""What a sweep returns: metrics by label, parameters by label, and how they came about."""

from __future__ import annotations

import dataclasses
import html
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from rnnreg._checks import check_choice
from rnnreg._signatures import Numbers, typed
from rnnreg.data import Batch, Scaling
from rnnreg.lanes import Plan
from rnnreg.networks import Network
from rnnreg.sweeps._disk import read_path
from rnnreg.sweeps._files import write_tree
from rnnreg.sweeps._group import Group
from rnnreg.sweeps._lookup import default_position, group_number, position
from rnnreg.sweeps._map import map_groups
from rnnreg.sweeps._predict import Ahead, network_for, network_of, predict, scaling_of
from rnnreg.sweeps._show import lines

if TYPE_CHECKING:
    import xarray as xr


@dataclasses.dataclass(frozen=True, repr=False)
class SweepResult:
    """A finished (or interrupted) sweep.

    Attributes:
      metrics: xarray Dataset; dimensions are the sweep's own axes, `seed`, `fold`, and `epoch` for histories.
        `train_loss`, `val_loss`, `penalty_<name>`, …: final values, NaN where a lane diverged or did not run;
        of proximal penalties also `zeros_<name>`, `units_off.<path>` and `rank.<path>`;
        `history_<name>`: values at the record stride ("." for the "/" of a path: `history_norm.layer_0.W_hh`);
        `diverged_at`: step, −1 where it did not;
        `finished`: False where an interruption came first; `ensemble_val_<name>`: score of the mean
        prediction over seeds; `fold_size` and `fold_train_size`: validation and training rows of each fold.
      groups: parameters and predictions, one entry for each static combination.
      config: what was asked for, and what the runs were, ready for JSON: `network`, `optimizer`, `penalties` (by the
        name of the λ, with the leaves that each covers), `loss`, `metrics`, `data` (its digest and scaling) and a hash
        of the program, one entry for each static combination (`by_group` names all such lists); `key`, versions,
        device, and what the whole sweep took.
      plan: how the lanes ran, and why.
    """

    metrics: xr.Dataset
    groups: tuple[Group, ...]
    config: dict[str, Any]
    plan: str

    def __repr__(self) -> str:
        return lines(self)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(lines(self))}</pre>{self.metrics._repr_html_()}"

    @property
    def dims(self) -> tuple[str, ...]:
        """The traced dimensions, in order: the axes, then seed and fold."""
        return tuple(self.config["dims"])

    @typed
    def params_at(self, *, method: str | None = None, **labels: Any) -> dict[str, Any]:
        """The parameters of one lane, the pytree that `net.apply` takes.

        Args:
          method: "nearest" takes the nearest label; None wants an equal one (to 1e-6).
          **labels: one label for each dimension; a dimension of length one may be left out, and `fold` too if
            the sweep has the lane "all".

        Returns:
          A tree of arrays without lane axes. Those of a fold expect rows in the fold's own scaling, `scaling_at`.

        Raises:
          ValueError: an unknown dimension, a label that is missing or not there, or a lane that did not finish.
        """
        group, place = self.groups[self._group_number(labels)], self._place(labels, method)
        if not self._is_finished(group, place):
            raise ValueError(
                f"the lane {labels} did not finish: the sweep was interrupted before, or trained another part."
            )
        return jax.tree.map(lambda leaf: leaf[tuple(place.values())], group.params)

    @typed
    def scaling_at(self, *, method: str | None = None, **labels: Any) -> Scaling | None:
        """The scaling that a lane's network was trained in, for `rr.evaluate(…, scaling=…)`.

        Args:
          method: as in `params_at`.
          **labels: as in `params_at`.

        Returns:
          From the split's arrays to what the network sees; None if it sees them as they are.

        Raises:
          ValueError: as in `params_at`.
        """
        stored = self.config["data"][self._group_number(labels)]["scaling"]
        return self._stored_scaling(stored, self._place(labels, method))

    @typed
    def network(self, **static: Any) -> Network:
        """The network of the lanes, made again from the configuration; for its forward pass, without dropout.

        Args:
          **static: one value of each static axis.

        Returns:
          The network; its `init` draws as the cells do by default.

        Raises:
          ValueError: a network, a cell or an activation that is a function of a user's own.
        """
        number = group_number(self.groups, static, (), {})
        return network_of(self.config["network"][number])

    @typed
    def predict(
        self,
        batch: Batch | Any,
        *,
        network: Network | None = None,
        inputs: str = "scaled",
        outputs: str = "scaled",
        method: str | None = None,
        **labels: Any,
    ) -> xr.DataArray:
        """The outputs of the lanes' networks for new rows, each with the scaling that its lane was trained in.

        A fold of a standardised split has a scaling of its own, fitted on its training rows; it is applied to the
        inputs and taken back from the outputs, as in training. The forward pass is compiled once per network and shape.

        Args:
          batch: rows as in training, or their inputs alone, `[N, T, D]` (or `[N, T]` tokens). Targets are not read.
          network: the network that was trained; None makes it again from the configuration, which is possible for
            `rr.network` of the library's own cells.
          inputs: what units they are in: "scaled", those of the split's arrays (after `rr.data.standardize`, if it was
            called), or "original", the data's own.
          outputs: the same of what is returned.
          method: "nearest" takes the nearest label; None wants an equal one (to 1e-6).
          **labels: as in `params_at`, but a dimension may be left out: all its lanes predict.

        Returns:
          Predictions, with the dimensions left out first, then "row", ("step") and "output"; logits, if the loss takes
          logits; NaN for a lane that did not finish. The mean forecast of an ensemble is
          `result.predict(batch, l2=1e-3).mean("seed")`.

        Raises:
          ValueError: labels as in `params_at`, a network that cannot be made again, rows that do not fit it or are NaN.

        Warns:
          RuntimeWarning: rows that are said to be scaled lie far from where scaled rows lie.

        >>> import rnnreg as rr, optax
        >>> batch, times = rr.data.windows(np.sin(np.arange(40.0)), window=4)
        >>> split = rr.data.standardize(rr.Split(batch, target_times=times))
        >>> train = rr.make_train(rr.network([rr.cells.elman(4)], 1, readout="last"),
        ...     loss=rr.losses.squared_error(), penalties={"l2": rr.penalties.l2()},
        ...     optimizer=optax.adam(1e-2), num_epochs=20)
        >>> result = rr.sweep(train, {"l2": [0, 1e-3]}, split, key=jax.random.key(0), progress=False)
        >>> dict(result.predict(batch, inputs="original", outputs="original").sizes)
        {'l2': 2, 'row': 36, 'output': 1}
        """
        options = {"network": network, "inputs": inputs, "outputs": outputs, "method": method}
        return self._predicted(batch, labels, name="prediction", **options)

    @typed
    def forecast(
        self,
        batch: Batch | Any,
        num_steps: int,
        *,
        window: int | None = None,
        future: Numbers | None = None,
        mask: Numbers | None = None,
        network: Network | None = None,
        inputs: str = "scaled",
        outputs: str = "scaled",
        method: str | None = None,
        **labels: Any,
    ) -> xr.DataArray:
        """`rr.forecast` of the lanes' networks, each with the scaling that its lane was trained in, as in `predict`.

        Args:
          batch: the past, rows as in training, or their inputs alone, `[N, T, D]`. Targets are not read.
          num_steps: how far to go.
          window: the steps that are read afresh before each step, as `rr.forecast` says; a network that was trained on
            windows of W steps expects W. None carries the state on.
          future: `[N, num_steps, D − O]`, the known inputs next to each forecast, the last features of the rows.
          mask: `[N, T]`, 1 where a step counts; None takes that of the batch.
          network: as in `predict`.
          inputs: what units the rows and `future` are in, "scaled" or "original", as in `predict`.
          outputs: the same of what is returned.
          method: as in `predict`.
          **labels: as in `predict`.

        Returns:
          Forecasts, with the dimensions left out first, then "row", "step" and "output"; NaN for a lane that did not
          finish.

        Raises:
          ValueError: as in `predict` and `rr.forecast`.

        >>> import rnnreg as rr, optax
        >>> series = 300 + np.sin(np.arange(40.0))
        >>> batch, _ = rr.data.windows(series, window=4)
        >>> train = rr.make_train(rr.network([rr.cells.elman(4)], 1, readout="last"),
        ...     loss=rr.losses.squared_error(), penalties={"l2": rr.penalties.l2()},
        ...     optimizer=optax.adam(1e-2), num_epochs=20)
        >>> split = rr.data.standardize(batch)
        >>> result = rr.sweep(train, {"l2": [0, 1e-3]}, split, key=jax.random.key(0), progress=False)
        >>> ahead = result.forecast(series[None, -4:, None], 3, window=4, inputs="original", outputs="original")
        >>> dict(ahead.sizes), bool((abs(ahead - 300) < 5).all())
        ({'l2': 2, 'row': 1, 'step': 3, 'output': 1}, True)
        """
        ahead = Ahead(num_steps, window, future, mask)
        options = {"network": network, "inputs": inputs, "outputs": outputs, "method": method}
        return self._predicted(batch, labels, name="forecast", ahead=ahead, **options)

    def _predicted(
        self,
        batch: Any,
        labels: dict[str, Any],
        *,
        name: str,
        network: Network | None,
        method: str | None,
        **options: Any,
    ) -> xr.DataArray:
        """`predict` of every lane that the labels leave, in one array."""
        import xarray as xr

        number = self._group_number(labels)
        group, stored = self.groups[number], self.config["data"][number]
        coordinates = {dim: self.metrics[dim] for dim in self.dims if dim not in labels}
        every = [
            dim for dim, each in coordinates.items() if default_position(dim, each.values) is None
        ]

        def one(own: tuple[Any, ...]) -> np.ndarray:
            place = self._place(labels | dict(zip(every, own, strict=True)), method)
            params = jax.tree.map(lambda leaf: leaf[tuple(place.values())], group.params)
            finished = self._is_finished(group, place)
            if not finished:  # NaN until now
                params = jax.tree.map(np.zeros_like, params)
            scaling = self._stored_scaling(stored["scaling"], place)
            units = scaling_of(stored["units"])
            found = predict(net, params, batch, scaling=scaling, units=units, **options)
            return found if finished else np.full_like(found, np.nan)

        net = network_for(self.config, number, every, network)
        names = [coordinates[dim].values.tolist() for dim in every]
        found = np.stack([one(own) for own in itertools.product(*names)])
        found = found.reshape(*map(len, names), *found.shape[1:])
        rows = ("row", "step", "output") if found.ndim == len(every) + 3 else ("row", "output")
        labelled = {dim: coordinates[dim].variable for dim in every}
        return xr.DataArray(found, labelled, (*every, *rows), name=name)

    def _stored_scaling(self, stored: Any, place: Mapping[str, int]) -> Scaling | None:
        """The scaling of one lane's fold, of what the configuration holds."""
        if self.config["folds"]:
            fold = self.config.get("selected", {}).get("fold")
            fold = fold if "fold" not in place else self.metrics["fold"].values[place["fold"]]
            stored = stored[str(fold)]
        return scaling_of(stored)

    @typed
    def select(self, *, method: str | None = None, **labels: Any) -> SweepResult:
        """The part of the sweep at one label of each given dimension; those dimensions are gone.

        Args:
          method: "nearest" takes the nearest label; None wants an equal one (to 1e-6).
          **labels: one label of some of the dimensions, and one of every static axis.

        Returns:
          Another result.

        Raises:
          ValueError: an unknown dimension, or a label that is not there.
        """
        check_choice(method, "method", (None, "nearest"))
        number = self._group_number(labels)
        group = self.groups[number]
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
        config = self.config | {
            name: [self.config[name][number]] for name in self.config["by_group"]
        }
        selected = self.config.get("selected", {}) | group.static
        selected |= {dim: self.metrics[dim].values[place].item() for dim, place in given.items()}
        config |= {"dims": kept, "static": {}, "selected": selected}
        return SweepResult(metrics, (part,), config, self.plan)

    @typed
    def map(
        self,
        function: Callable[..., Any],
        *,
        dims: Mapping[str, Sequence[str]] | None = None,
        plan: str | Plan = "auto",
    ) -> xr.Dataset:
        """`function(params)` of every lane, compiled once for each static combination and run like those of a sweep.

        The compiled program is kept for as long as `function` lives: give the same function again, and nothing is
        compiled. As under `jax.jit`, what it calls is read once. If JAX runs as several processes, each of them
        measures all lanes on its own devices, and waits for none; call it in one of them, or on parts (`select`).

        Args:
          function: from one network's parameters to arrays, or a tree of them such as a `GradientFlow`. If the
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

        The figure of a record takes it as it is, `rr.plotting.gradient_flow(flow)`, with a curve for each λ.
        """
        return map_groups(
            function,
            self.groups,
            self.metrics,
            networks=self.config["network"],
            sweep_dims=self.dims,
            static=self.config["static"],
            dims=dict(dims or {}),
            plan=plan,
        )

    def _group_number(self, labels: Mapping[str, Any]) -> int:
        """The number of the one group at the given static values."""
        return group_number(self.groups, labels, self.dims, self.config["grid"])

    def _place(self, labels: Mapping[str, Any], method: str | None) -> dict[str, int]:
        """The position of one lane on every dimension."""
        return {dim: self._position(dim, labels, method) for dim in self.dims}

    def _position(self, dim: str, labels: Mapping[str, Any], method: str | None) -> int:
        return position(dim, self.metrics[dim].values, labels, method)

    def _is_finished(self, group: Group, place: Mapping[str, int]) -> bool:
        if "finished" not in self.metrics:
            raise ValueError("the metrics have lost 'finished', which says what lanes ended.")
        return bool(self.metrics["finished"].sel(group.static).isel(place))

    @typed
    def save(self, path: str | Path) -> Path:
        """Writes everything to one netCDF file, readable by any netCDF tool; `rr.load_result` reads it back.

        `xarray.open_datatree` shows it: metrics at the root, `params/<group>/layer_0/W_hh`, `predictions/<group>`. The
        file is made in memory, written beside its place and moved there: an interruption leaves no half a file, and a
        full disk harms neither the old file nor the result. Its last line is a check sum.

        Args:
          path: the file, "~" for the home folder; its folder is made if absent.

        Returns:
          The path.

        Raises:
          OSError: it cannot be written; the message names the file and says why.
          TypeError, ValueError: no path of a file.
        """
        path = read_path(path)
        write_tree(path, self.metrics, self.groups, {"config": self.config, "plan": self.plan})
        return path
