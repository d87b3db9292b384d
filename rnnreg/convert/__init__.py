"""Weights of layers from and to PyTorch, Keras and Flax, as plain NumPy arrays; no peer is imported (`rr.from_flax`
makes a network of a whole module instead).

| | order of gates | kernel | biases |
|---|---|---|---|
| rnnreg | GRU r, z, n; LSTM i, f, g, o | `[D, G·H]` | `b_h`, and a GRU may have `b_hh` |
| PyTorch | the same | `[G·H, D]` | `bias_ih` and `bias_hh` |
| Keras | GRU z, r, h; LSTM i, f, c, o | `[D, G·H]` | one; `[2, 3H]` with `reset_after=True` |
| Flax | one array a gate, or joined as here | `[D, H]` a gate | on one side; GRU also `hn` |

Only where two biases enter one sum are they added (Elman, LSTM, the r and z gates of a GRU); the
bias inside the reset of a GRU's candidate is always kept apart. The arrays keep their dtype.
"""

from rnnreg.convert._flax import from_flax, to_flax
from rnnreg.convert._keras import from_keras, to_keras
from rnnreg.convert._torch import from_torch, to_torch

__all__ = ["from_flax", "from_keras", "from_torch", "to_flax", "to_keras", "to_torch"]
