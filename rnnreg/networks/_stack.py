"""The forward pass of a network of recurrent layers: embedding → layers → readout."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._arrays import as_array
from rnnreg._checks import check_key, check_mask, described
from rnnreg._linalg import computing, widen_labels
from rnnreg._signatures import typed
from rnnreg.cells import Cell, made_for
from rnnreg.networks._dropout import Drops
from rnnreg.networks._init import check_fits, check_parts, check_perturbations, check_state
from rnnreg.networks._noise import expected
from rnnreg.networks._records import (
    Dropout,
    Layer,
    Network,
    NetworkOutput,
    Noise,
    Params,
    Recurrence,
)
from rnnreg.networks._walk import SIDES, Visit, by_layer, merged, walk
from rnnreg.recurrence import product


@dataclasses.dataclass(frozen=True, eq=False)
class Stack:
    """`net.apply(params, xs, mask=…)` of a network of recurrent layers: embedding → layers → readout.

    It returns a `NetworkOutput` of `outputs`, `states` and `final_state`; `__call__` below explains every argument. It
    is a function, and it knows what it goes through: `walk` visits the passes one by one. A network whose `apply` was
    replaced by a function has no walk, and diagnostics that need one say so.

    Attributes:
      layers: the recurrent layers.
      output_size: O, or None without a readout matrix.
      embedding: (number of tokens, size) for integer inputs; None for real ones.
      readout: "all", "last" or "flatten".
      rates: of dropout.
      recurrence: how the recurrence is computed.
      learned: whether the states to start from are learned.
      num_steps: T, for a readout of all steps together.
      noise: in the recurrence.
    """

    layers: tuple[Layer, ...]
    output_size: int | None
    embedding: tuple[int, int] | None
    readout: str
    rates: Dropout
    recurrence: Recurrence
    learned: bool = False
    num_steps: int | None = None
    noise: Noise = Noise()  # noqa: RUF009 - a tuple of numbers

    @typed
    def __call__(
        self,
        params: Params,
        xs: Array,
        *,
        mask: Array | None = None,
        state: dict[str, Any] | None = None,
        key: Array | None = None,
        train: bool = False,
        perturbations: dict[str, Any] | None = None,
        weights: Array | None = None,
    ) -> NetworkOutput:
        """Outputs, states and the final state on a batch of sequences.

        Args:
          params: from `net.init`; their dtype is the one that is computed in, whatever that of xs.
          xs: `[B, T, D]` real inputs, or `[B, T]` integer tokens with an embedding.
          mask: `[B, T]`, 1 where a step counts; a masked step holds the state.
          state: by layer, the state before the first step, such as the `final_state` of the part before; None is the
            network's own. A cell that reads backwards starts at the end: give a state that it has there, and not the
            `final_state`, which it has at the first step.
          key: for dropout and noise; needed if `train` and some rate is not 0.
          train: whether to drop units, to draw noise, and to take statistics over the batch in cells that do so in
            training; if not, zoneout has its expectation.
          perturbations: by layer, `[B, T, H]`, added to h after each step; the gradient with respect to zeros is
            ∂L/∂h_t.
          weights: `[B]`, how much a row counts in statistics over the batch.

        Returns:
          A `NetworkOutput`.

        Raises:
          ValueError: inputs, a mask or a state that do not fit, or dropout without a key.
        """
        options = {"mask": mask, "state": state, "key": key, "train": train, "weights": weights}
        return self._run(params, xs, perturbations=perturbations, **options)[0]

    def _run(
        self,
        params: Params,
        xs: Array,
        *,
        mask: Array | None,
        state: dict[str, Any] | None,
        key: Array | None,
        train: bool,
        perturbations: dict[str, Any] | None,
        weights: Array | None = None,
    ) -> tuple[NetworkOutput, list[Visit]]:
        """The output, and every pass on the way."""
        if train and self.random:
            if key is None:
                raise ValueError(
                    "dropout and noise draw random numbers in training: pass apply(..., train=True, key=key)."
                )
            check_key(key)
        mask = None if mask is None else jnp.asarray(mask)
        drops = Drops(key if train else None, self.rates.variational)
        visits, hidden, unknown = self._visited(
            params,
            xs,
            mask=mask,
            state=state,
            drops=drops,
            perturbations=perturbations,
            train=train,
            weights=weights,
        )
        if self.readout == "last":
            tops = [one.final.h for one in visits[-2 if self.layers[-1].bidirectional else -1 :]]
            hidden = merged(self.layers[-1], tops)
        hidden = drops(hidden, self.rates.outputs, over_time=self.readout != "last")
        if self.readout == "flatten":
            hidden = self._flat(hidden, mask)
        outputs = self.read(params, hidden)
        at_each = self.readout == "all"
        outputs = poisoned(outputs, unknown if at_each else unknown[-1])
        visits = _poisoned(visits, unknown)
        states = jax.tree.map(
            lambda leaf: jnp.swapaxes(leaf, 0, 1), by_layer(self.layers, [v.states for v in visits])
        )
        out = NetworkOutput(
            jnp.swapaxes(outputs, 0, 1) if at_each else outputs,
            states,
            by_layer(self.layers, [one.final for one in visits]),
        )
        return out, visits

    @property
    def random(self) -> bool:
        """Whether training draws random numbers."""
        return self.rates.any or self.noise.any

    @typed
    def walk(
        self,
        params: Params,
        xs: Array,
        *,
        mask: Array | None = None,
        state: dict[str, Any] | None = None,
        drops: Drops | None = None,
        perturbations: dict[str, Any] | None = None,
        train: bool = False,
        weights: Array | None = None,
    ) -> tuple[list[Visit], Array]:
        """Every pass over `xs [B, T, …]` in order, and the h of the last layer; time first from here on.

        Args:
          params: from `net.init`.
          xs: `[B, T, D]` real inputs, or `[B, T]` integer tokens with an embedding.
          mask: `[B, T]`, 1 where a step counts; a masked step holds the state.
          state: by layer, the state before the first step; None is the network's own.
          drops: draws dropout masks; None drops nothing.
          perturbations: by layer, `[B, T, H]`, added to h after each step.
          train: whether cells take statistics over the batch, if they do so in training.
          weights: `[B]`, how much a row counts in them.

        Returns:
          The visits in order, and the h of the last layer, `[T, B, H]` (two directions joined).

        Raises:
          ValueError: inputs, a mask or a state that do not fit the network.
        """
        options = {"mask": mask, "state": state, "drops": drops, "perturbations": perturbations}
        options |= {"train": train, "weights": weights}
        visits, hidden, unknown = self._visited(params, xs, **options)
        return _poisoned(visits, unknown), poisoned(hidden, unknown)

    def _visited(
        self, params: Params, xs: Array, *, mask: Array | None, state: Any, **options: Any
    ) -> tuple[list[Visit], Array, Array]:
        """The same with 0 for inputs that are not finite, and where they reach, `[T, B]`."""
        table = {} if self.embedding is None else {"embedding": ("W_embed",)}
        sides = {f"layer_{n}": SIDES[: 2 * one.bidirectional] for n, one in enumerate(self.layers)}
        check_parts(params, table | sides)
        sequence, params = enter(params, xs, mask, self.embedding)
        check_width(params, sequence, self.layers)
        if options.get("perturbations") is not None:
            check_perturbations(self, options["perturbations"], sequence.shape[:2])
        sequence = jnp.swapaxes(sequence, 0, 1)
        unknown = ~jnp.isfinite(sequence).all(axis=-1)
        try:
            visits, hidden = walk(
                self.layers,
                params,
                jnp.where(unknown[..., None], 0, sequence),
                mask=None if mask is None else jnp.swapaxes(mask, 0, 1),
                state=state,
                rates=self.rates,
                noise=self.noise,
                recurrence=self.recurrence,
                **options,
            )
        except (TypeError, ValueError, KeyError):  # shapes that do not fit, in words
            check_fits(self, params, None if self.embedding else sequence.shape[-1])
            if state is not None:
                check_state(self, state, sequence.shape[1])
            raise
        if all(entry.forwards for entry in self.layers):
            steps = jnp.arange(len(unknown))[:, None]
            reached = steps >= jnp.where(unknown, steps, len(unknown)).min(axis=0, keepdims=True)
        else:
            reached = jnp.broadcast_to(unknown.any(axis=0), unknown.shape)
        return visits, hidden, reached

    def _flat(self, hidden: Array, mask: Array | None) -> Array:
        """The h of all steps side by side, `[B, T·H]`, 0 where a step does not count."""
        if len(hidden) != self.num_steps:
            raise ValueError(
                f"the readout was made for {self.num_steps} steps, num_steps={self.num_steps}; xs has {len(hidden)}."
            )
        if mask is not None:
            hidden = jnp.where(jnp.swapaxes(mask, 0, 1).astype(bool)[..., None], hidden, 0)
        return jnp.swapaxes(hidden, 0, 1).reshape(hidden.shape[1], -1)

    @typed
    def read(self, params: Params, hidden: Array) -> Array:
        """y = h W_hy + b_y of any h `[…, H]`; h itself without a readout matrix.

        Args:
          params: from `net.init`.
          hidden: `[…, H]`, of the last layer.

        Returns:
          `[…, O]`.
        """
        if self.output_size is None:
            return hidden
        check_parts(params, {"readout": ("W_hy", "b_y")})
        if not hidden.ndim:
            raise ValueError(f"hidden must be [..., H]; got {described(hidden)}.")
        own = params["readout"]
        W_hy, b_y = (jnp.asarray(own[name], hidden.dtype) for name in ("W_hy", "b_y"))
        wanted = (hidden.shape[-1], self.output_size), (self.output_size,)
        if (W_hy.shape, b_y.shape) != wanted:
            raise ValueError(
                f"the readout needs W_hy and b_y of shapes {wanted[0]} and {wanted[1]}; the parameters have "
                f"{W_hy.shape} and {b_y.shape}. Are they those of another network?"
            )
        outputs = product(hidden, W_hy, precision=self.recurrence.precision)
        return outputs + jnp.broadcast_to(b_y, outputs.shape)


def visited(
    net: Network, params: Params, xs: Array, **options: Any
) -> tuple[NetworkOutput, list[Visit]]:
    """`net.apply(params, xs, **options)`, all of them given, and every pass on the way; none of a function's own."""
    if isinstance(net.apply, Stack):
        return net.apply._run(params, xs, **options)
    return net.apply(params, xs, **options), []


def expected_cell(net: Network, index: int) -> Cell:
    """The cell of a layer as the network predicts with it: its own, or the expectation of zoneout."""
    cell = net.layers[index].cell
    return expected(cell, net.apply.noise) if isinstance(net.apply, Stack) else cell


def num_tokens(net: Network) -> int | None:
    """The rows of a network's embedding; None where it has none, or where none is known."""
    embedding = net.apply.embedding if isinstance(net.apply, Stack) else None
    return None if embedding is None else embedding[0]


def poisoned(tree: Any, unknown: Array) -> Any:
    """NaN in every real leaf of `unknown`'s leading axes where that is true.

    An input that is not finite makes NaN of all that it reaches. It is put there at the end, and is no number on the
    way, so that the row has the gradient 0 if the loss does not count it, and not 0 · NaN.
    """

    def poison(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        places = unknown.reshape(*unknown.shape, *[1] * (leaf.ndim - unknown.ndim))
        return jnp.where(places, jnp.nan, leaf)

    return jax.tree.map(poison, tree)


def _poisoned(visits: list[Visit], unknown: Array) -> list[Visit]:
    def poison(one: Visit) -> Visit:
        ends = unknown[-1]  # what is reached stays so to the end
        return one._replace(
            inputs=poisoned(one.inputs, unknown),
            final=poisoned(one.final, ends),
            states=poisoned(one.states, unknown),
        )

    return [poison(one) for one in visits]


def enter(
    params: Params, xs: Array, mask: Array | None, embedding: tuple[int, int] | None
) -> tuple[Array, Params]:
    """The inputs as real numbers `[B, T, D]`, padding cleared, and the parameters, both in the dtype of the latter."""
    xs = jnp.asarray(as_array(xs, "xs"))
    if xs.dtype == bool:
        xs = xs.astype(jnp.int32 if xs.ndim == 2 else jnp.result_type(float))
    params, xs = computing(params, xs)
    tokens = jnp.issubdtype(xs.dtype, jnp.integer)
    if tokens != (embedding is not None) or xs.ndim != (2 if tokens else 3):
        expected = "[B, T] integer tokens" if embedding is not None else "[B, T, D] real numbers"
        raise ValueError(f"xs must be {expected}; got shape {xs.shape} of {xs.dtype}.")
    if 0 in xs.shape[:2]:
        raise ValueError(f"xs needs at least one row and one step; got shape {xs.shape}.")
    if mask is not None:
        check_mask(mask, xs.shape[:2])
        # what stands at padding is not looked at, and a padding token needs no row
        true = mask.astype(bool)
        xs = jnp.where(true if tokens else true[..., None], xs, 0)
    if embedding is not None:
        # JAX would clamp a token that has no row to the last one, and wrap a negative one: NaN instead
        xs = widen_labels(xs)
        rows = jnp.where(xs < 0, embedding[0], xs)
        table = jnp.asarray(params["embedding"]["W_embed"])
        return table.at[rows].get(mode="fill", fill_value=jnp.nan), params
    return xs, params


def check_width(params: Params, sequence: Array, layers: tuple[Layer, ...]) -> None:
    """Raises where the inputs do not have the number of features that the first layer was made for."""
    own = params["layer_0"]["forward"] if layers[0].bidirectional else params["layer_0"]
    expected = made_for(layers[0].cell, own)
    if expected not in (None, sequence.shape[-1]):
        raise ValueError(
            f"the network was made for {expected} input features; xs has "
            f"{sequence.shape[-1]} (shape {sequence.shape}, [batch, time, feature])."
        )
