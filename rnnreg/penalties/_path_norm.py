"""The path norm of a recurrent network: the sum over all paths through it of the product of their squared weights."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rnnreg._checks import check_count
from rnnreg._linalg import wide
from rnnreg._signatures import typed
from rnnreg._tree import leaf_paths, matrices
from rnnreg.penalties._base import Params, Penalty


@typed
def path_norm(num_steps: int = 10) -> Penalty:
    """γ² = Σ_paths Π_edges w², over the paths from any input at `num_steps` steps to any output at the last of them.

    Rescaling the units of a relu network, which changes no output, leaves it unchanged, as it does not leave ‖W‖². It
    is the output of the network with squared weights, no bias and no activation, on inputs of ones:

        a_t = 1 W_xh² + a_{t−1} W_hh²,   γ² = Σ_o (a_T W_hy²)_o,   squares elementwise, T = num_steps.

    It grows without bound in T where the spectral radius of W_hh² (elementwise) is above 1, and says little of units
    that saturate. It is of degree 2(k + 2) in weights along a path of k recurrent steps, so λ has no fixed unit.

    Args:
      num_steps: T; the cost is that of T steps on a single row, forwards and backwards.

    Returns:
      The penalty. It covers the matrices of a plain network: embedding, Elman layers, readout. A layer that is applied
      several times counts once.

    Raises:
      ValueError: `num_steps` below 1; in use, a network of other parts (gated or bidirectional layers), whose outputs
        are no sums over paths.

    Source: Neyshabur, Wu, Salakhutdinov & Srebro 2016, "Path-normalized optimization of recurrent neural networks with
    ReLU activations"; Neyshabur, Tomioka & Srebro 2015, "Norm-based capacity control in neural networks".

    >>> params = {"layer_0": {"W_xh": jnp.array([[2.0]]), "W_hh": jnp.array([[3.0]])}}
    >>> float(path_norm(2)(params))  # 2² + 2² 3²
    40.0
    """
    check_count(num_steps, "num_steps")

    def value(params, context, state):
        leaves = leaf_paths(params)

        def times(x, W):
            return jnp.matmul(x, W, precision=jax.lax.Precision.HIGHEST)

        def squared(path):
            return jnp.square(leaves[path].astype(wide(leaves[path].dtype)))

        parts = chain(params)
        before = [squared(path) for path in parts.before]
        layers = [tuple(map(squared, pair)) for pair in parts.layers]
        width = (before[0] if before else layers[0][0]).shape[0]
        x = jnp.ones((1, width), layers[0][0].dtype)
        for W in before:
            x = times(x, W)

        def step(units, _):
            below, now = x, []
            for (W_xh, W_hh), a in zip(layers, units, strict=True):
                below = times(below, W_xh) + times(a, W_hh)
                now.append(below)
            return tuple(now), None

        rest = tuple(jnp.zeros((1, W_hh.shape[0]), W_hh.dtype) for _, W_hh in layers)
        top = jax.lax.scan(step, rest, length=num_steps)[0][-1]
        for path in parts.after:
            top = times(top, squared(path))
        return jnp.sum(top), state

    def init(params):
        chain(params)
        return ()

    def covers(params, weight_paths=None):
        parts = chain(params)
        return sorted([*parts.before, *sum(parts.layers, ()), *parts.after])

    arguments = (("num_steps", num_steps),)
    return Penalty(init, value, covers=covers, name="path_norm", arguments=arguments)


class Chain(NamedTuple):
    """The matrices of a plain network, in the order in which a signal passes them.

    Attributes:
      before: paths of the embedding, or none.
      layers: (W_xh, W_hh) of each layer.
      after: paths of the readout, or none.
    """

    before: list[str]
    layers: list[tuple[str, ...]]
    after: list[str]


def chain(params: Params) -> Chain:
    """The matrices of a network by name; raises if there are others, or if they do not follow each other."""
    leaves = leaf_paths(params)
    count = sum(name.startswith("layer_") for name in params)
    layers = [tuple(f"layer_{i}/{name}" for name in ("W_xh", "W_hh")) for i in range(count)]
    before, after = (
        [path for path in (path,) if path in leaves]
        for path in ("embedding/W_embed", "readout/W_hy")
    )
    known = [*before, *sum(layers, ()), *after]
    shapes = {path: leaf.shape for path, leaf in leaves.items() if path in set(matrices(leaves))}
    if not layers or set(known) != set(shapes) or not _fit(known, shapes):
        raise ValueError(
            "path_norm is about plain networks: an embedding, Elman layers with W_xh [D, H] and W_hh [H, H], and a "
            f"readout of single steps, as rr.network makes them; the matrices are {shapes}. A gate multiplies signals, "
            "so that an output is no sum over paths."
        )
    return Chain(before, layers, after)


def _fit(paths: list[str], shapes: dict[str, tuple[int, ...]]) -> bool:
    """Whether each matrix takes what the one before gives."""
    square = all(shape[0] == shape[1] for path, shape in shapes.items() if path.endswith("/W_hh"))
    return square and all(shapes[one][1] == shapes[after][0] for one, after in pairwise(paths))
