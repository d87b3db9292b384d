"""The peers' recurrent layers, run on random weights: what each returns, and its gradients.

`tests/test_parity.py` runs them afresh; `tests/golden/make.py` stores what they return, so that
`tests/test_golden.py` makes the same checks where they are not installed.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from conftest import SEED, require, tolerance

import rnnreg as rr
from experiments.keras_gru.peer import keras_at
from rnnreg import convert

BATCH, TIME, INPUT, HIDDEN = 2, 5, 2, 3


class Record(NamedTuple):
    """What a peer returned for a scalar Σ cotangent ⊙ outputs.

    Attributes:
      xs: `[B, T, D]` inputs.
      cotangent: `[B, T, O]`, random, so that no error cancels.
      outputs: `[B, T, O]` hidden states of the last layer.
      input_gradient: `[B, T, D]`.
      weights: the peer's own arrays, by its own names joined by "/".
      gradients: the gradient with respect to each of them.
    """

    xs: Any
    cotangent: Any
    outputs: Any
    input_gradient: Any
    weights: dict[str, Any]
    gradients: dict[str, Any]


class Case(NamedTuple):
    """A peer's layer and the network that should equal it.

    Attributes:
      name: as in the golden files.
      peer: module to import.
      kind: "elman", "gru" or "lstm", as `rnnreg.convert` names it.
      layers: of the rnnreg network.
      run: `run(dtype) -> Record`.
    """

    name: str
    peer: str
    kind: str
    layers: list[Any]
    run: Callable[[Any], Record]


def draw(dtype, *, width=HIDDEN):
    """Inputs, a cotangent, and a function that draws weights of a shape."""
    rng = np.random.default_rng(SEED)
    xs = rng.normal(size=(BATCH, TIME, INPUT)).astype(dtype)
    cotangent = rng.normal(size=(BATCH, TIME, width)).astype(dtype)
    return xs, cotangent, lambda shape: (0.5 * rng.normal(size=shape)).astype(dtype)


def torch_case(name, kind, cell, module, **options):
    sides = 2 if options.get("bidirectional") else 1
    layers = [rr.layer(cell, bidirectional=sides == 2)] * options.get("num_layers", 1)

    def run(dtype):
        torch = require("torch")
        peer = getattr(torch.nn, module)(INPUT, HIDDEN, batch_first=True, **options)
        peer = peer.to(getattr(torch, np.dtype(dtype).name))
        xs, cotangent, weight = draw(dtype, width=sides * HIDDEN)
        named = dict(peer.named_parameters())
        with torch.no_grad():
            for parameter in named.values():
                parameter.copy_(torch.from_numpy(weight(tuple(parameter.shape))))
        inputs = torch.from_numpy(xs).requires_grad_()
        outputs, _ = peer(inputs)
        (outputs * torch.from_numpy(cotangent)).sum().backward()
        return Record(
            xs,
            cotangent,
            outputs.detach().numpy(),
            inputs.grad.numpy(),
            {key: value.detach().numpy() for key, value in named.items()},
            {key: value.grad.numpy() for key, value in named.items()},
        )

    return Case(name, "torch", kind, layers, run)


def keras_case(name, kind, cell, layer, bidirectional=False, **options):
    def run(dtype):
        require("keras")
        keras = keras_at(dtype)
        peer = getattr(keras.layers, layer)(HIDDEN, return_sequences=True, **options)
        peer = keras.layers.Bidirectional(peer) if bidirectional else peer
        peer.build((None, TIME, INPUT))
        xs, cotangent, weight = draw(dtype, width=HIDDEN * (2 if bidirectional else 1))
        weights = [weight(value.shape) for value in peer.trainable_variables]
        rest = [value.value for value in peer.non_trainable_variables]

        def total(weights, xs):
            outputs, _ = peer.stateless_call(weights, rest, xs)
            return jnp.sum(outputs * cotangent), outputs

        gradients, outputs = jax.grad(total, argnums=(0, 1), has_aux=True)(
            [jnp.asarray(value) for value in weights], jnp.asarray(xs)
        )
        return Record(
            xs,
            cotangent,
            np.asarray(outputs),
            np.asarray(gradients[1]),
            {str(index): value for index, value in enumerate(weights)},
            {str(index): np.asarray(value) for index, value in enumerate(gradients[0])},
        )

    return Case(name, "keras", kind, [rr.layer(cell, bidirectional=bidirectional)], run)


def linen_case(name, kind, cell, module):
    def run(dtype):
        nn = require("flax.linen")
        peer = nn.RNN(getattr(nn, module)(HIDDEN, dtype=dtype, param_dtype=dtype), name="rnn")
        return flax_record(
            dtype,
            lambda xs: peer.init(jax.random.key(0), xs)["params"]["cell"],
            lambda tree, xs: peer.apply({"params": {"cell": tree}}, xs),
        )

    return Case(name, "flax", kind, [cell], run)


def nnx_case(name, kind, cell, module):
    def run(dtype):
        nnx = require("flax.nnx")
        peer = getattr(nnx, module)(INPUT, HIDDEN, dtype=dtype, param_dtype=dtype, rngs=nnx.Rngs(0))
        graph, start, rest = nnx.split(peer, nnx.Param, ...)
        template = nnx.to_pure_dict(start)
        zeros = jnp.zeros((BATCH, HIDDEN), dtype)

        def apply(tree, xs):
            state = nnx.State(jax.tree.map(nnx.Param, tree))
            step = nnx.merge(graph, state, rest)
            carry = (zeros, zeros) if kind == "lstm" else zeros
            outputs = []
            for x in jnp.moveaxis(xs, 1, 0):
                carry, output = step(carry, x)
                outputs.append(output)
            return jnp.stack(outputs, axis=1)

        return flax_record(dtype, lambda xs: template, apply)

    return Case(name, "flax", kind, [cell], run)


def flax_record(dtype, init, apply):
    xs, cotangent, weight = draw(dtype)
    template = init(jnp.asarray(xs))
    tree = jax.tree.map(lambda leaf: jnp.asarray(weight(leaf.shape)), template)

    def total(tree, xs):
        outputs = apply(tree, xs)
        return jnp.sum(outputs * cotangent), outputs

    gradients, outputs = jax.grad(total, argnums=(0, 1), has_aux=True)(tree, jnp.asarray(xs))
    return Record(
        xs,
        cotangent,
        np.asarray(outputs),
        np.asarray(gradients[1]),
        flatten(tree),
        flatten(gradients[0]),
    )


def pack(record):
    """A record as one vector, and its layout in JSON; an archive of many small arrays is mostly headers."""
    leaves = {}
    for field, value in record._asdict().items():
        named = value if isinstance(value, dict) else {"": value}
        leaves |= {f"{field}:{name}": np.asarray(leaf) for name, leaf in named.items()}
    layout = json.dumps({name: leaf.shape for name, leaf in leaves.items()})
    return np.concatenate([leaf.ravel() for leaf in leaves.values()]), np.array(layout)


def unpack(values, layout):
    fields = {"weights": {}, "gradients": {}}
    for path, shape in json.loads(str(layout)).items():
        leaf, values = np.split(values, [int(np.prod(shape))])
        field, name = path.split(":")
        if name:
            fields[field][name] = leaf.reshape(shape)
        else:
            fields[field] = leaf.reshape(shape)
    return Record(**fields)


def flatten(tree):
    return {
        f"{module}/{leaf}": np.asarray(v) for module, d in tree.items() for leaf, v in d.items()
    }


def unflatten(flat):
    tree = {}
    for path, value in flat.items():
        module, leaf = path.split("/")
        tree.setdefault(module, {})[leaf] = value
    return tree


def to_network(case, flat):
    """The peer's arrays as parameters of `case.layers`."""
    if case.peer == "torch":
        return convert.from_torch(flat, case.kind)
    if case.peer == "keras":
        return {"layer_0": convert.from_keras([flat[str(i)] for i in range(len(flat))], case.kind)}
    return {"layer_0": convert.from_flax(unflatten(flat), case.kind)}


def gradients_to_network(case, flat):
    """The peer's gradients as gradients of ours.

    Two biases that we hold as one have one and the same gradient, so PyTorch's second is left out.
    Of `b_hh`, a linen GRU has the candidate's part alone: NaN marks what it says nothing about.
    """
    if case.peer == "torch" and case.kind != "gru":
        flat = {name: value for name, value in flat.items() if not name.startswith("bias_hh")}
    params = to_network(case, flat)
    if case.peer == "flax" and "b_hh" in params["layer_0"]:
        params["layer_0"]["b_hh"][: 2 * HIDDEN] = np.nan
    return params


def check(case, record, dtype):
    """Outputs, gradients of every weight and of the inputs equal the peer's, within the dtype's tolerance."""
    net = rr.network(case.layers, output_size=None)
    cotangent = np.asarray(record.cotangent, dtype)

    def total(params, xs):
        outputs = net.apply(params, xs).outputs
        return jnp.sum(outputs * cotangent), outputs

    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), to_network(case, record.weights))
    xs = jnp.asarray(record.xs, dtype)
    drawn = jax.eval_shape(lambda key: net.init(key, INPUT), jax.random.key(0))
    made = jax.tree.map(jnp.shape, drawn)
    assert made == jax.tree.map(jnp.shape, params), "converted parameters are not the network's own"
    differentiate = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))
    (gradients, input_gradient), outputs = differentiate(params, xs)

    np.testing.assert_allclose(outputs, record.outputs, **tolerance(dtype))
    np.testing.assert_allclose(input_gradient, record.input_gradient, **tolerance(dtype))
    expected = rr.leaf_paths(gradients_to_network(case, record.gradients))
    ours = rr.leaf_paths(gradients)
    assert sorted(ours) == sorted(expected)
    for path, value in expected.items():
        known = ~np.isnan(value)
        np.testing.assert_allclose(
            np.asarray(ours[path])[known], value[known], err_msg=path, **tolerance(dtype)
        )


_elman, _relu = rr.cells.elman(HIDDEN), rr.cells.elman(HIDDEN, activation=jax.nn.relu)
_gru, _lstm = rr.cells.gru(HIDDEN), rr.cells.lstm(HIDDEN)
_gru_one_bias = rr.cells.gru(HIDDEN, recurrent_bias=False)
_gru_before = rr.cells.gru(HIDDEN, reset="before", recurrent_bias=False)
_gru_tanh = rr.cells.gru(HIDDEN, gate_activation=jnp.tanh)
_deep = {"num_layers": 2, "bidirectional": True}

CASES = [
    torch_case("torch_rnn_tanh", "elman", _elman, "RNN"),
    torch_case("torch_rnn_relu", "elman", _relu, "RNN", nonlinearity="relu"),
    torch_case("torch_gru", "gru", _gru, "GRU"),
    torch_case("torch_lstm", "lstm", _lstm, "LSTM"),
    torch_case("torch_rnn_deep", "elman", _elman, "RNN", **_deep),
    torch_case("torch_gru_deep", "gru", _gru, "GRU", **_deep),
    torch_case("torch_lstm_deep", "lstm", _lstm, "LSTM", **_deep),
    keras_case("keras_simple_rnn", "elman", _elman, "SimpleRNN"),
    keras_case("keras_gru_reset_after", "gru", _gru, "GRU"),
    keras_case("keras_gru_reset_before", "gru", _gru_before, "GRU", reset_after=False),
    keras_case("keras_gru_tanh_gates", "gru", _gru_tanh, "GRU", recurrent_activation="tanh"),
    keras_case("keras_lstm", "lstm", _lstm, "LSTM"),
    keras_case("keras_gru_bidirectional", "gru", _gru, "GRU", bidirectional=True),
    linen_case("linen_simple", "elman", _elman, "SimpleCell"),
    linen_case("linen_gru", "gru", _gru, "GRUCell"),
    linen_case("linen_lstm", "lstm", _lstm, "LSTMCell"),
    linen_case("linen_optimized_lstm", "lstm", _lstm, "OptimizedLSTMCell"),
    nnx_case("nnx_simple", "elman", _elman, "SimpleCell"),
    nnx_case("nnx_gru", "gru", _gru_one_bias, "GRUCell"),
    nnx_case("nnx_lstm", "lstm", _lstm, "LSTMCell"),
    nnx_case("nnx_optimized_lstm", "lstm", _lstm, "OptimizedLSTMCell"),
]

# PyTorch's stacks are left to test_parity.py: they would be most of the stored bytes.
GOLDEN_CASES = [case for case in CASES if not case.name.endswith("_deep")]
