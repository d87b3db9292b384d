"""There and back: conversion to each peer's form and from it gives the same weights."""

import chex
import jax
import numpy as np
import pytest
from conftest import require

import rnnreg as rr
from rnnreg import convert

CELLS = {"elman": rr.cells.elman(3), "gru": rr.cells.gru(3), "lstm": rr.cells.lstm(3)}
ONE_BIAS = rr.cells.gru(3, recurrent_bias=False)


def random_params(cells, **options):
    """Parameters in which no bias is zero, as NumPy arrays of float32."""
    params = rr.network(cells, output_size=2, **options).init(jax.random.key(0), 2)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), params)


def assert_same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {np.dtype("float32")}


def only_layers(params):
    return {name: layer for name, layer in params.items() if name.startswith("layer_")}


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", CELLS)
def test_torch_and_back(kind, bidirectional):
    layers = [rr.layer(CELLS[kind], bidirectional=bidirectional)] * 2
    params = random_params(layers)
    state = convert.to_torch(params, kind, prefix="rnn.")
    assert len(state) == (16 if bidirectional else 8)
    assert all(name.startswith("rnn.") for name in state)
    assert_same(convert.from_torch(state, kind, prefix="rnn."), only_layers(params))


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", CELLS)
def test_keras_and_back(kind, bidirectional):
    layer = random_params([rr.layer(CELLS[kind], bidirectional=bidirectional)])["layer_0"]
    weights = convert.to_keras(layer, kind)
    assert len(weights) == (6 if bidirectional else 3)
    assert_same(convert.from_keras(weights, kind), layer)


def test_keras_reset_before_and_back():
    layer = random_params([ONE_BIAS])["layer_0"]
    weights = convert.to_keras(layer, "gru", reset="before")
    assert weights[2].shape == (9,)
    assert_same(convert.from_keras(weights, "gru"), layer)


@pytest.mark.parametrize("style", ["linen", "nnx", "nnx_optimized"])
@pytest.mark.parametrize("kind", CELLS)
def test_flax_and_back(kind, style):
    one_bias = kind == "gru" and style != "linen"
    layer = random_params([ONE_BIAS if one_bias else CELLS[kind]])["layer_0"]
    if "b_hh" in layer:  # Flax holds one bias of the r and z gates, and adds these two on the way
        layer["b_hh"][:6] = 0
    tree = convert.to_flax(layer, kind, style=style)
    assert_same(convert.from_flax(tree, kind), layer)


def test_without_biases_they_are_zero():
    W_xh, W_hh = np.ones((2, 9)), np.ones((3, 9))
    assert not convert.from_keras([W_xh, W_hh], "gru")["b_h"].any()
    state = {"weight_ih_l0": W_xh.T, "weight_hh_l0": W_hh.T}
    assert sorted(convert.from_torch(state, "gru")["layer_0"]) == ["W_hh", "W_xh", "b_h"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
@pytest.mark.parametrize("bias", [True, False])
def test_torch_tensors_of_any_dtype_with_their_readout(dtype, bias):
    torch = require("torch")

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = torch.nn.GRU(2, 3, batch_first=True)
            self.head = torch.nn.Linear(3, 2, bias=bias)

    torch.manual_seed(0)
    model = Model().to(getattr(torch, dtype))
    params = convert.from_torch(model.state_dict(), "gru", prefix="rnn.", readout="head.")
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(params)} == {dtype}
    wide = model.float()
    same = convert.from_torch(wide.state_dict(), "gru", prefix="rnn.", readout="head.")
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.astype(np.float32), b), params, same)
    xs = np.random.default_rng(0).normal(size=(2, 4, 2)).astype(np.float32)
    with torch.no_grad():
        expected = wide.head(wide.rnn(torch.tensor(xs))[0]).numpy()
    net = rr.network([CELLS["gru"]], output_size=2)
    np.testing.assert_allclose(net.apply(same, xs).outputs, expected, atol=1e-5)
    with pytest.raises(
        ValueError, match=r"no readout found: expected 'out.weight' of an nn.Linear"
    ):
        convert.from_torch(model.state_dict(), "gru", prefix="rnn.", readout="out.")


def test_torch_gets_the_readout_and_arrays_of_its_own():
    params = random_params([CELLS["gru"]])
    state = convert.to_torch(params, CELLS["gru"], prefix="rnn.", readout="head.")
    assert all(array.flags.writeable and array.flags.c_contiguous for array in state.values())
    back = convert.from_torch(state, "gru", prefix="rnn.", readout="head.")
    jax.tree.map(np.testing.assert_array_equal, back, {k: params[k] for k in back})
    assert set(back) == {"layer_0", "readout"}
    for arrays in (
        convert.to_keras(params["layer_0"], "gru"),
        jax.tree.leaves(convert.to_flax(params["layer_0"], "gru")),
    ):
        assert all(array.flags.writeable for array in arrays)
    with pytest.raises(
        ValueError, match=r"readout='head.' needs params\['readout'\].*\['layer_0'\]"
    ):
        convert.to_torch({"layer_0": params["layer_0"]}, "gru", readout="head.")


@pytest.mark.parametrize(
    ("cell", "known"),
    [
        (rr.cells.elman(3, activation="relu"), True),
        (rr.cells.irnn(3), True),
        (rr.cells.lstm(3), True),
        (rr.cells.chrono(rr.cells.gru(3), longest=9), True),
        (rr.cells.gru(3, reset="before"), False),
        (rr.cells.gru(3, activation="relu"), False),
        (rr.cells.elman(3, activation="sigmoid"), False),
        (rr.cells.elman(3)._replace(gate=lambda params, state, x, h: state), False),
        (rr.cells.gru(3)._replace(made=None), False),
    ],
)
def test_a_cell_that_torch_does_not_have_is_refused(cell, known):
    params = random_params([cell])
    if known:
        assert len(convert.to_torch(params, cell)) == 4
        return
    with pytest.raises(ValueError, match="torch has no module that computes the cell"):
        convert.to_torch(params, cell)


def test_the_bias_of_torch_moves_twice_as_fast():
    torch = require("torch")
    module = torch.nn.RNN(1, 1, batch_first=True)
    before = convert.from_torch(module.state_dict(), "elman")
    module(torch.ones(1, 1, 1))[0].sum().backward()
    torch.optim.SGD(module.parameters(), lr=1.0).step()
    moved = convert.from_torch(module.state_dict(), "elman")["layer_0"]["b_h"]
    net, xs = rr.network([rr.cells.elman(1)], output_size=None), np.ones((1, 1, 1), np.float32)
    params = jax.tree.map(jax.numpy.asarray, before)
    gradient = jax.grad(lambda params: net.apply(params, xs).outputs.sum())(params)
    expected = before["layer_0"]["b_h"] - 2 * gradient["layer_0"]["b_h"]
    np.testing.assert_allclose(moved, expected, rtol=1e-5)


def test_numpy_weights_go_into_a_jitted_network_as_they_are():
    net = rr.network([CELLS["lstm"]], output_size=2, embedding=(4, 2))
    params = jax.tree.map(np.asarray, net.init(jax.random.key(0)))
    params["layer_0"] = convert.from_keras(convert.to_keras(params["layer_0"], "lstm"), "lstm")
    tokens = np.zeros((2, 5), np.int32)
    outputs = jax.jit(lambda tokens: net.apply(params, tokens).outputs)(tokens)
    np.testing.assert_allclose(outputs, net.apply(params, tokens).outputs, rtol=1e-6)


def test_wrong_arguments_say_what_to_do():
    params = random_params([CELLS["lstm"]])
    learned = random_params([CELLS["elman"]], initial_state="learned")
    layer = params["layer_0"]
    with pytest.raises(ValueError, match="cell must be 'elman', 'gru' or 'lstm'; got"):
        convert.to_torch(params, "rnn")
    with pytest.raises(ValueError, match=r"Give prefix='rnn\.'"):
        convert.from_torch(convert.to_torch(params, "lstm", prefix="rnn."), "lstm")
    with pytest.raises(ValueError, match=r"has 3 gate\(s\)"):
        convert.from_torch(convert.to_torch(params, "lstm"), "gru")
    with pytest.raises(ValueError, match=r"has 3 gate\(s\)"):
        convert.from_keras(convert.to_keras(layer, "lstm"), "gru")
    with pytest.raises(ValueError, match="proj_size"):
        convert.from_torch({"weight_hr_l0": np.ones((2, 3))}, "lstm")
    with pytest.raises(ValueError, match="learned initial state"):
        convert.to_torch(learned, "elman")
    with pytest.raises(ValueError, match="get_weights"):
        convert.from_keras([np.ones((1, 1))], "elman")
    with pytest.raises(ValueError, match="the cell's own tree"):
        convert.from_flax({"params": {}}, "lstm")
    with pytest.raises(ValueError, match="no bias inside the reset"):
        convert.to_flax(random_params([CELLS["gru"]])["layer_0"], "gru", style="nnx")
    with pytest.raises(ValueError, match="W_hh is missing"):
        convert.to_keras({"W_xh": np.ones((1, 1))}, "elman")


def test_every_direction_takes_the_cell_itself_and_refuses_what_the_library_has_not():
    before = rr.cells.gru(3, reset="before", recurrent_bias=False)
    after, lstm = rr.cells.gru(3), rr.cells.lstm(3)
    key = jax.random.key(0)
    for cell, name in ((after, "gru"), (lstm, "lstm"), (rr.cells.elman(3), "elman")):
        layer = cell.init(key, 2)
        for write, read in (
            (rr.convert.to_keras, rr.convert.from_keras),
            (rr.convert.to_flax, rr.convert.from_flax),
        ):
            by_cell, by_name = write(layer, cell), write(layer, name)
            chex.assert_trees_all_equal(by_cell, by_name)
            chex.assert_trees_all_equal(read(by_cell, cell), read(by_name, name))
        state = rr.convert.to_torch({"layer_0": layer}, cell)
        chex.assert_trees_all_equal(
            rr.convert.from_torch(state, cell), rr.convert.from_torch(state, name)
        )
    layer = before.init(key, 2)
    assert rr.convert.to_keras(layer, before)[2].shape == (9,)  # the cell says its convention
    with pytest.raises(ValueError, match="has reset='before', and reset='after' was given"):
        rr.convert.to_keras(layer, before, reset="after")
    with pytest.raises(ValueError, match=r"flax has no module .* gru\(reset='after'\)"):
        rr.convert.to_flax(layer, before)
    with pytest.raises(ValueError, match="torch has no module"):
        rr.convert.from_torch({}, before)
    with pytest.raises(
        ValueError, match=r"state_dict must be a dict; got \[\].* module.state_dict\(\)"
    ):
        rr.convert.from_torch([], "gru")
    with pytest.raises(ValueError, match=r"params must be a dict; got None"):
        rr.convert.to_torch(None, "gru")
