"""Layer normalisation inside the cells of the library."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from rnnreg._checks import check_number
from rnnreg._linalg import wide
from rnnreg._signatures import Number, typed
from rnnreg.cells._base import Cell, made_by, normalisable, plain_weights
from rnnreg.cells._contracts import Params
from rnnreg.cells._elman import elman_gate
from rnnreg.cells._gru import gru_gate, reset_before
from rnnreg.cells._lstm import lstm_gate
from rnnreg.cells._norm import Norm, inner_bias


@typed
def layer_norm(cell: Cell, *, epsilon: Number = 1e-5) -> Cell:
    """Each gate's sum z is replaced by g ⊙ (z − mean z) / √(var z + ε) + b, over the H units of that gate.

    For an Elman cell h_t = φ(g ⊙ LN(h_{t−1} W_hh + x_t W_xh) + b_h). In a GRU the candidate's sum is normalised after
    the reset. An LSTM also normalises the memory on its way out, h_t = o ⊙ φ(g_c ⊙ LN(c_t) + b_c); c_t itself is
    carried as it is. The two projections are normalised as one sum, since LN(x W_xh) alone would take the size out of
    an input with few features. Rescaling a gate's weights changes nothing, so L2 on W_hh and W_xh acts on their
    effective learning rate alone.

    b_h is the shift, after the normalisation: forget biases and `chrono` mean what they mean without it. New are the
    gains `gain [G·H]`, and in an LSTM `gain_c`, `b_c [H]`; they start at 1 and 0, and penalties leave them alone.

    Args:
      cell: from `elman`, `irnn`, `gru` or `lstm`, before any other change of it.
      epsilon: ε, added to the variance.

    Returns:
      The cell. It goes row by row and runs fused, its derivative by `jax.jvp` of the gate.

    Raises:
      ValueError: another cell, or a negative ε.

    Source: Ba, Kiros & Hinton 2016, "Layer normalization", section 3.1; each gate by itself, as in TensorFlow's
    `LayerNormBasicLSTMCell`.

    >>> import rnnreg as rr
    >>> cell = layer_norm(rr.cells.lstm(2))
    >>> params = cell.init(jax.random.key(0), 1)
    >>> {name: leaf.shape for name, leaf in params.items() if leaf.ndim == 1}
    {'b_h': (8,), 'gain': (8,), 'gain_c': (2,), 'b_c': (2,)}
    """
    check_number(epsilon, "epsilon", least=0)
    made = normalisable(cell, "layer_norm")
    given = dict(made.arguments)
    memory = made.factory == "lstm"

    def norm(params: Params, place: int | str, z: Array) -> Array:
        if isinstance(place, str):  # the memory
            gain, shift = params["gain_c"], params["b_c"]
        else:
            H = z.shape[-1]
            gain, shift = (params[name][place * H : place * H + H] for name in ("gain", "b_h"))
        z = jax.nn.standardize(z.astype(wide(z.dtype)), epsilon=epsilon).astype(z.dtype)
        return gain[None] * z + shift[None]

    def init(key, input_size: int, dtype: Any = jnp.float32):
        params = cell.init(key, input_size, dtype)
        params |= {"gain": jnp.ones_like(params["b_h"])}
        H = cell.hidden_size
        own = {"gain_c": jnp.ones(H, dtype), "b_c": jnp.zeros(H, dtype)} if memory else {}
        return params | own

    def weights(params):
        return plain_weights(params)._replace(b_h=inner_bias(params, norm))

    found = cell._replace(init=init, weights=weights, **_gate(made.factory, given, norm))
    return made_by("layer_norm", found, cell=cell, epsilon=epsilon)


def _gate(factory: str, given: dict[str, Any], norm: Norm) -> dict[str, Any]:
    """The gate, or the step, that normalises."""
    phi = given["activation"]
    if factory == "elman":
        return {"gate": elman_gate(phi, norm)}
    sigma = given["gate_activation"]
    if factory == "lstm":
        return {"gate": lstm_gate(phi, sigma, norm)}
    if given["reset"] == "before":
        return {"step": reset_before(phi, sigma, norm)}
    return {"gate": gru_gate(phi, sigma, norm)}
