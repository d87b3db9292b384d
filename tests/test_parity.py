"""Against PyTorch, Keras and Flax on copied weights: outputs and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SEED, require, tolerance
from peer_cells import BATCH, CASES, HIDDEN, INPUT, TIME, check

import rnnreg as rr
from experiments.keras_gru.peer import keras_at
from rnnreg import convert

pytestmark = pytest.mark.numerics

KINDS = [
    ("elman", rr.cells.elman(HIDDEN), "RNN", "SimpleRNN", "SimpleCell"),
    ("gru", rr.cells.gru(HIDDEN), "GRU", "GRU", "GRUCell"),
    ("lstm", rr.cells.lstm(HIDDEN), "LSTM", "LSTM", "LSTMCell"),
]
IDS = [kind[0] for kind in KINDS]
LENGTHS = np.array([3, TIME])


def in_force():
    return jnp.zeros(0).dtype


def draw(cell):
    """A one-layer network, its parameters with biases that are not zero, and inputs."""
    net = rr.network([cell], output_size=None)
    params = net.init(jax.random.key(SEED), INPUT)
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(SEED + 1), len(leaves))
    leaves = [0.5 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    xs = jax.random.normal(jax.random.key(SEED + 2), (BATCH, TIME, INPUT))
    return net, jax.tree.unflatten(structure, leaves), xs


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_outputs_and_gradients_equal_the_peers(case):
    check(case, case.run(in_force()), in_force())


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "cell", "module", "_", "__"), KINDS, ids=IDS)
def test_our_weights_in_torch_with_ragged_lengths(kind, cell, module, _, __):
    """PyTorch's packed sequences against our mask: true steps, and the state after the last of them."""
    torch = require("torch")
    net, params, xs = draw(cell)
    peer = getattr(torch.nn, module)(INPUT, HIDDEN, batch_first=True)
    peer = peer.to(getattr(torch, in_force().name))
    state = convert.to_torch(params, kind)
    peer.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in state.items()})
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.from_numpy(np.array(xs)), LENGTHS, batch_first=True, enforce_sorted=False
    )
    with torch.no_grad():
        outputs, final = peer(packed)
    outputs = torch.nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True)[0].numpy()
    mask = rr.data.lengths_to_mask(LENGTHS, TIME)
    ours = net.apply(params, xs, mask=jnp.asarray(mask))
    np.testing.assert_allclose(ours.outputs * mask[:, :, None], outputs, **tolerance())
    final = final if kind == "lstm" else (final,)
    for name, value in zip(ours.final_state["layer_0"]._fields, final, strict=True):
        mine = getattr(ours.final_state["layer_0"], name)
        np.testing.assert_allclose(mine, value[0].numpy(), err_msg=name, **tolerance())


@pytest.mark.parametrize("reset", ["after", "before"])
@pytest.mark.parametrize(("kind", "cell", "_", "layer", "__"), KINDS, ids=IDS)
def test_our_weights_in_keras_with_a_mask(kind, cell, _, layer, __, reset):
    """Keras, like us, holds the state and the output over masked steps, wherever they are."""
    require("keras")
    keras = keras_at(in_force())
    options = {}
    if kind == "gru":
        cell = rr.cells.gru(HIDDEN, reset=reset)
        options = {"reset_after": reset == "after"}
    net, params, xs = draw(cell)
    peer = getattr(keras.layers, layer)(HIDDEN, return_sequences=True, **options)
    peer.build((None, TIME, INPUT))
    peer.set_weights(convert.to_keras(params["layer_0"], kind, reset=reset))
    mask = np.array([[1, 1, 0, 1, 0], [1, 0, 1, 1, 1]], bool)
    ours = net.apply(params, xs, mask=jnp.asarray(mask)).outputs
    np.testing.assert_allclose(ours, peer(xs, mask=jnp.asarray(mask)), **tolerance())


@pytest.mark.parametrize(("kind", "cell", "_", "__", "module"), KINDS, ids=IDS)
def test_our_weights_in_linen(kind, cell, _, __, module):
    nn = require("flax.linen")
    net, params, xs = draw(cell)
    dtype = in_force()
    peer = nn.RNN(getattr(nn, module)(HIDDEN, dtype=dtype, param_dtype=dtype))
    tree = {"cell": convert.to_flax(params["layer_0"], kind)}
    made = peer.init(jax.random.key(0), xs)["params"]
    assert jax.tree.map(jnp.shape, tree) == jax.tree.map(jnp.shape, made)
    outputs = peer.apply({"params": tree}, xs)
    np.testing.assert_allclose(net.apply(params, xs).outputs, outputs, **tolerance())


@pytest.mark.parametrize("module", ["SimpleCell", "GRUCell", "LSTMCell", "OptimizedLSTMCell"])
def test_our_weights_have_the_shapes_of_nnx(module):
    nnx = require("flax.nnx")
    kind, cell = {
        "SimpleCell": ("elman", rr.cells.elman(HIDDEN)),
        "GRUCell": ("gru", rr.cells.gru(HIDDEN, recurrent_bias=False)),
    }.get(module, ("lstm", rr.cells.lstm(HIDDEN)))
    style = "nnx_optimized" if module == "OptimizedLSTMCell" else "nnx"
    _, params, _ = draw(cell)
    tree = convert.to_flax(params["layer_0"], kind, style=style)
    peer = getattr(nnx, module)(INPUT, HIDDEN, rngs=nnx.Rngs(0))
    made = nnx.to_pure_dict(nnx.state(peer, nnx.Param))
    assert jax.tree.map(jnp.shape, tree) == jax.tree.map(jnp.shape, made)
    again = convert.from_flax(tree, kind)
    jax.tree.map(np.testing.assert_array_equal, again, params["layer_0"])
