"""Noise in the recurrence: what a pass draws, all outside the loop over time, and what stands for it in prediction."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_number, check_share, described
from rnnreg.cells import Cell, Gate, Step, Weights, as_gate, as_step, formed
from rnnreg.networks._dropout import inverted_mask, is_zero, kept_share, uniform_24_bits
from rnnreg.networks._records import Noise


def check_noise(noise: Any, cells: Sequence[Cell], backend: str) -> None:
    """Raises for numbers out of range, and for noise that no cell can have."""
    if not isinstance(noise, Noise):
        raise ValueError(
            f"noise must be a record of rates, such as rr.Noise(zoneout=0.1); got {described(noise)}."
        )
    for name in ("zoneout", "zoneout_c", "dropconnect"):
        check_share(getattr(noise, name), f"noise: {name}", ends="[)")
    for name in ("weight_noise", "recurrent_noise"):
        check_number(getattr(noise, name), f"noise: {name}", least=0)
    states = [jax.eval_shape(lambda c=cell: c.initial_state(1, jnp.float32)) for cell in cells]
    if not is_zero(noise.zoneout_c) and not any(_has(state, "c") for state in states):
        raise ValueError(
            f"zoneout_c holds c, the memory of an LSTM, and no cell of {[cell.name for cell in cells]} has one. Give "
            "zoneout=, which holds h."
        )
    if noise.holding and backend == "native":
        raise ValueError(
            "backend='native' cannot run zoneout in prediction, where each step blends the new state with the old "
            "one. Use backend='auto', which runs compiled what it can."
        )
    for cell in cells if noise.on_weights else ():
        if cell.weights is None or cell.gate is None:
            raise ValueError(
                f"dropconnect and weight_noise change the weights that a cell states; {cell.name!r} does its own "
                "products. Use a gate cell (for example gru(reset='after'))."
            )


class Drawn(NamedTuple):
    """What one pass of a cell runs with.

    Attributes:
      cell: the cell, with the weights of this pass in training, and its expectation in prediction.
      start: the state before the first step; NaN if a traced rate lies outside [0, 1).
      holds: by field of the state, `[T, B, H]` booleans, True where a unit keeps its old value.
      added: `[T, B, H]`, added to h after each step.
    """

    cell: Cell
    start: Any
    holds: dict[str, Array] | None = None
    added: Array | None = None


def draw(
    noise: Noise,
    cell: Cell,
    params: Any,
    start: Any,
    *,
    key: Array | None,
    num_steps: int,
    name: str,
    leaf: str,
) -> Drawn:
    """The noise of one pass, each kind with a key of its own; without a key its expectation.

    Args:
      noise: the rates.
      cell: the cell.
      params: its parameters.
      start: the state before the first step.
      key: of the network's pass over the batch; None in prediction.
      num_steps: T.
      name: of the pass, by which states are keyed.
      leaf: the path of the cell's parameters, by which weights are keyed: repeats of a layer share them.
    """
    if key is None:
        return Drawn(expected(cell, noise), start)
    rates, dtype = held(noise, start), start.h.dtype
    holds = {}
    for field, rate in rates.items():
        kept = kept_share(rate, dtype)
        shape = (num_steps, *getattr(start, field).shape)
        numbers = uniform_24_bits(_keyed(key, f"zoneout of {field} in {name}"), shape)
        holds[field] = numbers.astype(kept.dtype) >= kept * 2**24
        valid = jnp.where(jnp.isnan(kept), jnp.nan, 1).astype(dtype)
        start = start._replace(**{field: getattr(start, field) * valid})
    added = None
    if not is_zero(noise.recurrent_noise):
        own = _keyed(key, f"recurrent noise in {name}")
        added = jax.random.normal(own, (num_steps, *start.h.shape), dtype)
        added = added * jnp.asarray(noise.recurrent_noise, dtype)
    return Drawn(_with_noisy_weights(noise, cell, params, key, leaf), start, holds or None, added)


def _keyed(key: Array, what: str) -> Array:
    """A key by what it is for, so that no kind of noise and no layer moves another."""
    return jax.random.fold_in(key, zlib.crc32(what.encode()))


def _with_noisy_weights(noise: Noise, cell: Cell, params: Any, key: Array, leaf: str) -> Cell:
    """The cell with W_xh + σ ε and (W_hh + σ ε) ⊙ m / (1 − p), formed once for the whole batch."""
    if not noise.on_weights:
        return cell
    assert cell.weights is not None
    found = Weights(*cell.weights(formed(cell, params)))
    for name in ("W_xh", "W_hh"):
        W = getattr(found, name)
        if not is_zero(noise.weight_noise):
            own = _keyed(key, f"weight noise in {leaf}/{name}")
            sigma = jnp.asarray(noise.weight_noise, W.dtype)
            W = W + sigma * jax.random.normal(own, W.shape, W.dtype)
        if name == "W_hh" and not is_zero(noise.dropconnect):
            own = _keyed(key, f"DropConnect in {leaf}/{name}")
            W = W * inverted_mask(own, W.shape, noise.dropconnect, W.dtype)
        found = found._replace(**{name: W})
    return cell._replace(weights=lambda params: found)


def held(noise: Noise, state: Any) -> dict[str, Any]:
    """The rates of zoneout, by those fields of the state that have one."""
    rates = {"h": noise.zoneout, "c": noise.zoneout_c}
    return {name: r for name, r in rates.items() if not is_zero(r) and _has(state, name)}


def _has(state: Any, field: str) -> bool:
    """Whether a state has units in a field; a normalised cell without a memory carries an empty c."""
    return hasattr(state, field) and getattr(state, field).size > 0


def expected(cell: Cell, noise: Noise) -> Cell:
    """The cell without randomness: each step ends with (1 − p) new + p old, field by field."""
    state = jax.eval_shape(lambda: cell.initial_state(1, jnp.float32))
    rates = held(noise, state)
    if not rates:
        return cell

    def blended(new: Any, old: Any) -> Any:
        fields = {}
        for name, rate in rates.items():
            now, before = getattr(new, name), getattr(old, name)
            kept = kept_share(rate, now.dtype)
            fields[name] = kept.astype(now.dtype) * now + (1 - kept).astype(now.dtype) * before
        return new._replace(**fields)

    if cell.gate is None and cell.step is not None:
        whole = as_step(cell.step)

        def stepped(params, state, x):
            new, values = whole.forward(params, state, x)
            return blended(new, state), values

        return cell._replace(step=Step(stepped, whole.facts._replace(native=None)))

    def ending(gate: Gate) -> Gate:
        def forward(params, state, x_proj, h_proj):
            new, values = gate.forward({} if gate.tangent else params, state, x_proj, h_proj)
            return blended(new, state), values

        # The slope is one of a gate that sees the state through its projection alone, and no kernel blends.
        facts = gate.facts._replace(max_slope=None, native=None)
        return Gate(forward, additive=gate.additive, facts=facts)

    assert cell.gate is not None
    training = cell.training  # without a key its gate computes what is stored for prediction
    if training is not None:
        training = training._replace(gate=ending(training.gate))
    return cell._replace(gate=ending(as_gate(cell.gate)), training=training)
