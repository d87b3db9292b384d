"""Modules of other libraries as networks: the same numbers as our own cells with the same weights, everywhere."""

import doctest
import functools
import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import SEED, require, tolerance
from flax import nnx

import rnnreg as rr

HIDDEN, INPUTS, LOSS = 4, 2, rr.losses.squared_error("mean")


def batch_of(key, *, rows=5, steps=6, masked=True):
    key_x, key_y = jax.random.split(key)
    xs = jax.random.normal(key_x, (rows, steps, INPUTS))
    ys = jax.random.normal(key_y, (rows, steps, 1))
    lengths = jnp.arange(rows) % steps + 1
    mask = (jnp.arange(steps)[None] < lengths[:, None]).astype(xs.dtype)
    return rr.Batch(xs, ys, mask if masked else None)


def close(one, two, **options):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance(**options)), one, two)


def perturbed(params, key):
    """Biases that are zero at the start would hide a bias that goes astray."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    moved = [
        leaf + 0.3 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(structure, moved)


# By name: a module of Flax, and the cell of ours that does the same, with its arguments.
RECURRENT = {
    "linen SimpleCell": (lambda: nn.SimpleCell(HIDDEN), "elman", {}),
    "linen GRUCell": (lambda: nn.GRUCell(HIDDEN), "gru", {}),
    "linen RNN(GRUCell)": (lambda: nn.RNN(nn.GRUCell(HIDDEN)), "gru", {}),
    "linen LSTMCell": (lambda: nn.LSTMCell(HIDDEN), "lstm", {}),
    "linen OptimizedLSTMCell": (lambda: nn.OptimizedLSTMCell(HIDDEN), "lstm", {}),
    "nnx SimpleCell": (
        # nnx computes in float32 unless it is told otherwise
        lambda: (
            lambda rngs: nnx.SimpleCell(INPUTS, HIDDEN, rngs=rngs, dtype=jnp.result_type(float))
        ),
        "elman",
        {},
    ),
    "nnx GRUCell": (
        lambda: lambda rngs: nnx.GRUCell(INPUTS, HIDDEN, rngs=rngs),
        "gru",
        {"recurrent_bias": False},
    ),
    "nnx RNN(OptimizedLSTMCell)": (
        lambda: lambda rngs: nnx.RNN(nnx.OptimizedLSTMCell(INPUTS, HIDDEN, rngs=rngs)),
        "lstm",
        {},
    ),
}


# Plain pytest tries one module of each kind and of each library.
QUICK = ("linen SimpleCell", "linen RNN(GRUCell)", "nnx GRUCell", "nnx RNN(OptimizedLSTMCell)")


@pytest.fixture(
    params=[
        pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in RECURRENT
    ],
    scope="module",
)
def pair(request):
    """(network of theirs, params, the same of ours, params, kind of cell)."""
    make, kind, options = RECURRENT[request.param]
    key = jax.random.key(SEED)
    theirs = rr.from_flax(make(), output_size=1)
    ours = rr.network([getattr(rr.cells, kind)(HIDDEN, **options)], output_size=1)
    params = perturbed(theirs.init(key, INPUTS), key)
    own = jax.tree.map(jnp.asarray, rr.convert.from_flax(params["layer_0"], kind))
    return theirs, params, ours, {"layer_0": own, "readout": params["readout"]}, kind


@pytest.mark.numerics
def test_outputs_states_and_gradients_are_those_of_our_cell(pair, key):
    theirs, params, ours, own, kind = pair
    batch = batch_of(key)

    def measured(net, params):
        def value(params):
            out = net.apply(params, batch.xs, mask=batch.mask)
            return LOSS(out.outputs, batch.ys, batch.mask), out

        return jax.jit(jax.value_and_grad(value, has_aux=True))(params)

    (loss, out), gradients = measured(theirs, params)
    (own_loss, own_out), own_gradients = measured(ours, own)
    close((loss, out.outputs), (own_loss, own_out.outputs))
    assert type(out.states["layer_0"]) is type(own_out.states["layer_0"])
    close(out, own_out)
    close(gradients["readout"], own_gradients["readout"])
    layer = rr.convert.from_flax(gradients["layer_0"], kind)
    for name in ("W_xh", "W_hh", "b_h"):
        close(layer[name], own_gradients["layer_0"][name])


@pytest.mark.slow
@pytest.mark.numerics
def test_diagnostics_of_states_are_those_of_our_cell(pair, key):
    theirs, params, ours, own, _ = pair
    batch = batch_of(key)
    bounds = []

    def measured(net, params):
        found = rr.diagnostics.saturation(net, params, batch.xs, mask=batch.mask)["layer_0"]
        bounds.append(found.bounds)
        return (
            rr.diagnostics.gradient_flow(net, LOSS, params, batch, step=None),
            rr.diagnostics.lyapunov(net, params, batch.xs, every=2).exponents,
            found.histogram,
            rr.diagnostics.path_lengths(net, LOSS, params, batch, path="readout/W_hy").norms,
        )

    both = [
        jax.jit(functools.partial(measured, net))(p) for net, p in ((theirs, params), (ours, own))
    ]
    (flows, spectra, histograms, lags) = zip(*both, strict=True)
    close(*flows, loosen=100)  # ratios of small norms
    close(*spectra, loosen=1000)  # logarithms of small singular values
    assert bounds[0] == bounds[1]
    close(*histograms)
    close(*lags)


def test_states_stream(pair, key):
    theirs, params, *_ = pair
    xs = batch_of(key).xs

    @jax.jit
    def streamed(params):
        first = theirs.apply(params, xs[:, :2])
        second = theirs.apply(params, xs[:, 2:], state=first.final_state)
        return jnp.concatenate([first.outputs, second.outputs], axis=1)

    close(streamed(params), jax.jit(theirs.apply)(params, xs).outputs)


def test_flax_runs_its_own_rnn_alike(key):
    rnn = nn.RNN(nn.LSTMCell(HIDDEN))
    xs = batch_of(key).xs
    net = rr.from_flax(rnn)
    variables = rnn.init(key, xs)
    params = {"layer_0": variables["params"]["cell"]}
    close(net.apply(params, xs).outputs, rnn.apply(variables, xs))
    drawn = net.init(key, INPUTS)
    assert jax.tree.structure(drawn) == jax.tree.structure(params)


class Normalised(nn.Module):
    """A network of a user: layer normalisation, dropout, a recurrent layer and a readout."""

    rate: float = 0.5

    @nn.compact
    def __call__(self, xs, *, mask=None, train=False):
        hidden = nn.RNN(nn.GRUCell(HIDDEN))(nn.LayerNorm()(xs))
        hidden = nn.Dropout(self.rate)(hidden, deterministic=not train)
        return nn.Dense(1)(hidden)


class NormalisedNNX(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.LayerNorm(INPUTS, rngs=rngs)
        self.layers = nnx.List([nnx.RNN(nnx.GRUCell(INPUTS, HIDDEN, rngs=rngs))])
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.dense = nnx.Linear(HIDDEN, 1, rngs=rngs)

    def __call__(self, xs, *, mask=None):
        return self.dense(self.dropout(self.layers[0](self.norm(xs))))


class Pair:
    """Two functions of a user."""

    @staticmethod
    def init(key, input_size):
        kernel = jax.random.normal(key, (input_size, 1))
        return {
            "norm": {"scale": jnp.ones(input_size)},
            "mix": {"kernel": kernel, "bias": jnp.zeros(1)},
        }

    @staticmethod
    def apply(params, xs, *, key, mask=None):
        xs = jnp.cumsum(xs * params["norm"]["scale"], axis=1)
        if key is not None:
            xs = xs * jax.random.bernoulli(key, 0.5, xs.shape)
        return xs @ params["mix"]["kernel"] + params["mix"]["bias"]


def equinox_module():
    eqx = require("equinox")

    class Module(eqx.Module):
        norm: eqx.nn.LayerNorm
        cell: eqx.nn.GRUCell
        dropout: eqx.nn.Dropout
        layers: list

        def __init__(self, key):
            self.norm = eqx.nn.LayerNorm(INPUTS)
            self.cell = eqx.nn.GRUCell(INPUTS, HIDDEN, key=key)
            self.dropout = eqx.nn.Dropout(0.5)
            self.layers = [eqx.nn.Linear(HIDDEN, 1, key=key)]

        def __call__(self, xs, *, key=None, mask=None):
            def step(h, x):
                h = self.cell(self.norm(x), h)
                return h, h

            _, hidden = jax.lax.scan(step, jnp.zeros(HIDDEN, xs.dtype), xs)
            return jax.vmap(self.layers[0])(self.dropout(hidden, key=key))

    return Module


WHOLE = {
    "linen": (
        lambda: rr.from_flax(Normalised()),
        {
            "Dense_0/kernel",
            *(f"GRUCell_0/{name}/kernel" for name in ("hn", "hr", "hz", "in", "ir", "iz")),
        },
    ),
    "nnx": (
        lambda: rr.from_flax(NormalisedNNX),
        {"dense/kernel", "layers/0/cell/dense_h/kernel", "layers/0/cell/dense_i/kernel"},
    ),
    "equinox": (
        lambda: rr.from_equinox(equinox_module()),
        {"cell/weight_hh", "cell/weight_ih", "layers/0/weight"},
    ),
    "functions": (lambda: rr.from_functions(Pair.init, Pair.apply), {"mix/kernel"}),
}


@pytest.fixture(params=WHOLE, scope="module")
def whole(request):
    make, weights = WHOLE[request.param]
    return make(), weights


def test_l2_covers_kernels_and_no_bias_or_scale(whole, key):
    net, weights = whole
    params = net.init(key, INPUTS)
    assert set(rr.penalties.covered(rr.penalties.l2(), params, net=net)) == weights
    own = net._replace(decayed=("*bias",))
    assert all(path.endswith("bias") for path in rr.networks.weight_paths(own, params))
    with pytest.raises(ValueError, match="matches none of"):
        rr.networks.weight_paths(net._replace(decayed=("W_hh",)), params)


def test_dropout_draws_in_training_only(whole, key):
    net, _ = whole
    params, xs = net.init(key, INPUTS), batch_of(key).xs
    assert net.random
    in_training = jax.jit(lambda key: net.apply(params, xs, train=True, key=key).outputs)
    one, two, again = (in_training(jax.random.key(seed)) for seed in (1, 2, 1))
    assert not np.allclose(one, two)
    np.testing.assert_array_equal(one, again)
    outputs = jax.jit(lambda key: [net.apply(params, xs, key=k).outputs for k in (None, key)])
    np.testing.assert_array_equal(*outputs(key))
    with pytest.raises(ValueError, match="key=key"):
        net.apply(params, xs, train=True)


def test_seeds_draw_other_parameters(whole, key):
    net, _ = whole
    one, two = (net.init(jax.random.key(seed), INPUTS) for seed in (1, 2))
    assert jax.tree.structure(one) == jax.tree.structure(two)
    assert any(
        not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (one, two)), strict=True)
    )
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(net.init(key, INPUTS, dtype=jnp.bfloat16))}
    assert dtypes == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.slow
def test_a_sweep_is_its_lanes_alone_and_is_read_back(whole, key, tmp_path):
    net, _ = whole
    batch = batch_of(key)
    train = rr.make_train(
        net,
        loss=LOSS,
        penalties={"l2": rr.penalties.l2()},
        optimizer=optax.sgd(0.1),
        num_epochs=2,
        batch_size=2,
    )
    result = rr.sweep(train, {"l2": [0.0, 0.5]}, batch, key=key, progress=False)
    lanes = [result.params_at(l2=lam) for lam in (0.0, 0.5)]
    assert any(not np.allclose(a, b) for a, b in zip(*map(jax.tree.leaves, lanes), strict=True))
    alone = jax.jit(train)
    for lam, params in zip((0.0, 0.5), lanes, strict=True):
        close(
            params, alone({"l2": lam}, rr.Split(train=batch), key=jax.random.fold_in(key, 0)).params
        )
    again = rr.load_result(result.save(tmp_path / "result.nc")).params_at(l2=0.5)
    assert list(rr.leaf_paths(again)) == list(rr.leaf_paths(lanes[1]))
    close(net.apply(again, batch.xs).outputs, net.apply(lanes[1], batch.xs).outputs)


@pytest.mark.slow
def test_diagnostics_of_parameters_and_outputs_work(whole, key):
    net, _ = whole
    batch, params = batch_of(key), net.init(key, INPUTS)
    loss_of = rr.diagnostics.data_loss_of(net, LOSS, batch)

    @jax.jit
    def measured(params):
        direction = rr.diagnostics.random_direction(params, key=key)
        return (
            rr.diagnostics.hessian_directions(loss_of, params, key=key, num_iterations=3),
            rr.diagnostics.loss_surface(loss_of, params, direction, alphas=jnp.linspace(-1, 1, 3)),
        )

    found, surface = measured(params)
    assert np.isfinite(found.eigenvalues).all()
    assert np.isfinite(surface.loss).all()
    assert surface.loss.shape == (3,)


def test_what_needs_states_says_that_there_are_none(whole, key):
    net, _ = whole
    batch, params = batch_of(key, masked=False), net.init(key, INPUTS)
    ask = [
        lambda: rr.diagnostics.gradient_flow(net, LOSS, params, batch),
        lambda: rr.diagnostics.path_lengths(
            net, LOSS, params, batch, path=next(iter(rr.leaf_paths(params)))
        ),
        lambda: rr.diagnostics.lyapunov(net, params, batch.xs),
        lambda: rr.diagnostics.saturation(net, params, batch.xs),
    ]
    for one in ask:
        with pytest.raises(ValueError, match="hands back no states"):
            one()
    for needs, words in (("states", "hands back no states"), ("step", "hands back no states")):
        penalty = rr.penalties.Penalty(
            lambda p: (), lambda p, c, s: (0.0, s), needs=frozenset({needs})
        )
        objective = rr.make_objective(net, LOSS, {"r": penalty})
        with pytest.raises(ValueError, match=words):
            objective(params, {"r": 1.0}, batch, {"r": ()}, key=None, train=False)


def test_a_result_says_where_the_network_comes_from(whole):
    made = rr.networks.describe(whole[0])["made"]
    assert made["factory"] in ("from_flax", "from_equinox", "from_functions")
    if made["factory"] == "from_functions":
        assert made["arguments"] == {"init": "Pair.init", "apply": "Pair.apply"}
    else:
        assert made["arguments"]["library"] in ("flax.linen", "flax.nnx", "equinox")
        assert made["arguments"]["module"].startswith(f"{__name__}.")
    cell = rr.networks.describe(rr.from_flax(nn.RNN(nn.GRUCell(3))))["layers"][0]["cell"]
    assert cell["factory"] == "cell_from_flax"
    assert not cell["changed"]
    assert cell["arguments"]["module"] == "flax.linen.recurrent.GRUCell"


def test_spectra_of_named_matrices(key):
    params = rr.from_flax(nn.GRUCell(HIDDEN)).init(key, INPUTS)
    found = rr.diagnostics.spectra(params, paths="layer_0/h*/kernel")
    assert list(found) == [f"layer_0/{name}/kernel" for name in ("hn", "hr", "hz")]
    np.testing.assert_allclose(
        found["layer_0/hn/kernel"].rho, 1, rtol=1e-5
    )  # orthogonal at the start


# Functions that know their states


def stateful_net():
    own = rr.network([rr.cells.elman(HIDDEN)], output_size=1)

    def apply(params, xs, *, mask, state, perturbations):
        return own.apply(params["own"], xs, mask=mask, state=state, perturbations=perturbations)

    return rr.from_functions(lambda key, input_size: {"own": own.init(key, input_size)}, apply), own


@pytest.mark.slow
def test_states_that_a_function_returns_are_used(key):
    net, own = stateful_net()
    batch, params = batch_of(key), net.init(key, INPUTS)

    def measured(net, params):
        flow = rr.diagnostics.gradient_flow(net, LOSS, params, batch, step=None)
        return flow, rr.diagnostics.lyapunov(net, params, batch.xs).exponents

    both = [
        jax.jit(functools.partial(measured, n))(p) for n, p in ((net, params), (own, params["own"]))
    ]
    close(*both, loosen=100)
    train = rr.make_train(net, loss=LOSS, optimizer=optax.sgd(0.1), num_epochs=2, segment_steps=3)
    assert np.isfinite(train({}, rr.Split(train=batch), key=key).metrics["train_loss"])


def test_segments_need_a_state(key):
    net = rr.from_functions(Pair.init, Pair.apply)
    train = rr.make_train(net, loss=LOSS, optimizer=optax.sgd(0.1), num_epochs=2, segment_steps=3)
    with pytest.raises(ValueError, match="hands back no states"):
        train({}, rr.Split(train=batch_of(key)), key=key)


def test_a_forecast_feeds_outputs_back(key):
    def apply(params, xs):
        return 2 * xs * params["a"]

    net = rr.from_functions(lambda key: {"a": jnp.ones(())}, apply, output_size=1)
    values = rr.forecast(net, net.init(key), jnp.ones((1, 3, 1)), 2, window=2)
    assert values.ravel().tolist() == [2.0, 4.0]


# Cells of users


class Leaky(nn.RNNCellBase):
    """A carry of two leaves, the second of which is put out."""

    features: int

    @nn.compact
    def __call__(self, carry, x):
        slow = 0.9 * carry["slow"] + 0.1 * carry["out"]
        out = jnp.tanh(nn.Dense(self.features)(x) + slow)
        return {"out": out, "slow": slow}, out

    def initialize_carry(self, rng, input_shape):
        zeros = jnp.zeros((*input_shape[:-1], self.features))
        return {"out": zeros, "slow": zeros}

    @property
    def num_feature_axes(self):
        return 1


def test_a_cell_of_a_user_names_its_carry(key):
    xs = batch_of(key).xs
    net = rr.from_flax(Leaky(HIDDEN), carry=("h", "slow"))
    params = net.init(key, INPUTS)
    out = net.apply(params, xs)
    assert out.states["layer_0"]._fields == ("h", "slow")
    variables = {"params": {"cell": params["layer_0"]}}
    close(out.outputs, nn.RNN(Leaky(HIDDEN)).apply(variables, xs))
    learned = rr.network(
        [rr.bridges.cell_from_flax(Leaky(HIDDEN), carry=("h", "slow"))], 1, initial_state="learned"
    )
    assert learned.apply(learned.init(key, INPUTS), xs).outputs.shape == (5, 6, 1)


@pytest.mark.parametrize(
    ("carry", "words"),
    [
        (None, "is not known"),
        (("h",), "must name each leaf"),
        (("c", "slow"), "must name each leaf"),
        (("h", "h"), "must name each leaf"),
    ],
)
def test_a_carry_that_is_not_named_is_an_error(carry, words):
    with pytest.raises(ValueError, match=words):
        rr.from_flax(Leaky(HIDDEN), carry=carry)


# Equinox


def test_cells_state_their_recurrent_matrices(pair):
    theirs, params, ours, own, _ = pair
    found, W_hh = rr.networks.recurrent_paths(theirs, params), "layer_0/W_hh"
    assert rr.networks.recurrent_paths(ours, own) == [W_hh]
    leaves = rr.leaf_paths(params)
    entries = np.concatenate([np.ravel(leaves[path]) for path in found])
    np.testing.assert_array_equal(np.sort(entries), np.sort(np.ravel(rr.leaf_paths(own)[W_hh])))


def test_a_run_records_norms_of_what_a_cell_states(key):
    def init(key, input_size, dtype):
        U = jax.random.normal(key, (2 * HIDDEN, HIDDEN), dtype)
        return {"U": U, "W_hh": jnp.ones((HIDDEN, HIDDEN), dtype)}

    def step(params, state, x):
        return rr.cells.HiddenState(jnp.tanh(state.h @ params["U"][:HIDDEN] + x[:, :1]))

    cell = rr.cells.from_step(step, init=init, hidden_size=HIDDEN, recurrent=("U", "absent"))
    net = rr.network([cell], 1)
    train = rr.make_train(net, loss=LOSS, penalties={}, optimizer=optax.sgd(0.0), num_epochs=1)
    run = train({}, batch_of(key), key=key)
    norms = {name for name in run.metrics if name.startswith(("norm/", "sigma_max/"))}
    assert norms == {"norm/layer_0/U", "sigma_max/layer_0/U"}
    blocks = np.split(np.asarray(run.params["layer_0"]["U"]), 2)
    exact = max(np.linalg.norm(block, 2) for block in blocks)
    np.testing.assert_allclose(run.metrics["sigma_max/layer_0/U"], exact, rtol=0.02)


@pytest.mark.numerics
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_equinox_cells_are_ours(kind, key):
    eqx = require("equinox")
    made = {"gru": eqx.nn.GRUCell, "lstm": eqx.nn.LSTMCell}[kind]
    net = rr.from_equinox(lambda key: made(INPUTS, HIDDEN, key=key), output_size=1)
    params, batch = net.init(key, INPUTS), batch_of(key)
    layer = params["layer_0"]
    own = {"W_xh": layer["weight_ih"].T, "W_hh": layer["weight_hh"].T, "b_h": layer["bias"]}
    if kind == "gru":
        own["b_hh"] = jnp.concatenate([jnp.zeros(2 * HIDDEN), layer["bias_n"]])
    own = {"layer_0": own, "readout": params["readout"]}
    ours = rr.network([getattr(rr.cells, kind)(HIDDEN)], output_size=1)

    def measured(net, params):
        out = net.apply(params, batch.xs, mask=batch.mask)
        return out, rr.diagnostics.gradient_flow(net, LOSS, params, batch, step=None)

    both = [jax.jit(functools.partial(measured, n))(p) for n, p in ((net, params), (ours, own))]
    outs, flows = zip(*both, strict=True)
    close(*outs)
    close(*flows, loosen=100)  # ratios of small norms
    assert rr.networks.weight_paths(net, params)[:2] == ["layer_0/weight_hh", "layer_0/weight_ih"]


def test_equinox_modules_of_one_step(key):
    eqx = require("equinox")
    mlp = eqx.nn.MLP(INPUTS, 1, 3, 1, key=key)
    net = rr.from_equinox(mlp, over="step")
    params, xs = net.init(jax.random.key(7), INPUTS), batch_of(key).xs
    close(net.apply(params, xs).outputs, jax.vmap(jax.vmap(mlp))(xs))
    close(params["layers"]["0"]["weight"], mlp.layers[0].weight)  # a module starts from its own


def test_equinox_without_state(key):
    eqx = require("equinox")
    norm = eqx.nn.BatchNorm(INPUTS, axis_name="batch", mode="batch")
    with pytest.raises(ValueError, match="keeps a state"):
        rr.from_equinox(norm)
    with pytest.raises(ValueError, match="over must be"):
        rr.from_equinox(eqx.nn.Identity(), over="time")
    with pytest.raises(ValueError, match="an Equinox module"):
        rr.from_equinox(3)
    with pytest.raises(ValueError, match="GRUCell or eqx"):
        rr.bridges.cell_from_equinox(eqx.nn.Linear(2, 2, key=key))
    with pytest.raises(ValueError, match="cannot read 3 input features"):
        rr.from_equinox(eqx.nn.GRUCell(2, 4, key=key)).init(key, 3)


@pytest.mark.parametrize("name", ["from_equinox", "cell_from_equinox"])
def test_examples_of_equinox_hold(name):
    require("equinox")
    function = getattr(rr.bridges, name)
    text = function.__doc__.replace("# doctest: +SKIP", "")
    example = doctest.DocTestParser().get_doctest(
        text, inspect.unwrap(function).__globals__ | {}, name, None, 0
    )
    assert doctest.DocTestRunner(verbose=False).run(example).failed == 0


# Bad input


class BatchNormalised(nn.Module):
    @nn.compact
    def __call__(self, xs):
        return nn.BatchNorm(use_running_average=True)(xs)


class Demanding(nn.Module):
    @nn.compact
    def __call__(self, xs, context):
        return nn.Dense(1)(xs + context)


def test_wrong_flax_modules_say_what_to_do(key):
    with pytest.raises(ValueError, match="batch_stats"):
        rr.from_flax(BatchNormalised()).init(key, INPUTS)
    with pytest.raises(ValueError, match="BatchStat"):
        rr.from_flax(lambda rngs: nnx.BatchNorm(INPUTS, rngs=rngs))
    with pytest.raises(ValueError, match="needs an argument 'context'"):
        rr.from_flax(Demanding())
    with pytest.raises(ValueError, match="must be a linen module"):
        rr.from_flax(nn.GRUCell)
    with pytest.raises(ValueError, match="must be a linen module"):
        rr.from_flax(3)
    with pytest.raises(ValueError, match="must return an nnx module"):
        rr.from_flax(lambda rngs: 3)
    with pytest.raises(ValueError, match="reads its sequence backwards"):
        rr.from_flax(nn.RNN(nn.GRUCell(3), reverse=True))
    with pytest.raises(ValueError, match="is none"):
        rr.from_flax(nn.Dense(3), carry=("h",))
    with pytest.raises(ValueError, match="a recurrent cell of Flax"):
        rr.bridges.cell_from_flax(nn.Dense(3))
    with pytest.raises(ValueError, match="reads images"):
        rr.from_flax(nn.ConvLSTMCell(3, kernel_size=(3, 3)), carry=("c", "h"))
    with pytest.raises(ValueError, match="cannot read 5 input features"):
        rr.from_flax(lambda rngs: nnx.GRUCell(INPUTS, 3, rngs=rngs)).init(key, 5)
    with pytest.raises(ValueError, match="num_steps"):
        rr.from_flax(nn.Dense(1), num_steps=0)


class Dropped(nnx.GRUCell):
    """A cell with dropout inside."""

    def __init__(self, rngs, *, streams=None):
        super().__init__(INPUTS, HIDDEN, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=streams)

    def __call__(self, carry, x):
        return super().__call__(carry, self.dropout(x))


@pytest.mark.parametrize("wrap", [lambda cell: cell, nnx.RNN])
def test_a_cell_of_nnx_with_dropout_is_refused(wrap):
    for make in (
        lambda rngs: wrap(Dropped(rngs, streams=rngs)),
        lambda rngs: wrap(Dropped(rngs)),  # without a stream of its own
    ):
        with pytest.raises(ValueError, match="draws no random numbers, and Dropped holds dropout"):
            rr.from_flax(make, carry=("h",))


class Stacked(nnx.Module):
    """Three blocks with dropout, whose parameters and random streams have an axis for the block."""

    def __init__(self, rngs):
        @nnx.split_rngs(splits=3)
        @nnx.vmap(in_axes=0, out_axes=0)
        def made(rngs):
            return nnx.Sequential(
                nnx.Linear(INPUTS, INPUTS, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
            )

        self.blocks = made(rngs)

    def __call__(self, xs):
        scanned = nnx.scan(lambda xs, block: block(xs), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return scanned(xs, self.blocks)


def test_blocks_that_are_stacked_draw_each_for_itself(key):
    net = rr.from_flax(Stacked)
    params, xs = net.init(key, INPUTS), jnp.ones((50, 4, INPUTS))
    kernel = params["blocks"]["layers"]["0"]["kernel"]
    assert kernel.shape == (3, INPUTS, INPUTS)
    params["blocks"]["layers"]["0"]["kernel"] = jnp.broadcast_to(jnp.eye(INPUTS), kernel.shape)
    kept = jax.jit(lambda key: net.apply(params, xs, train=True, key=key).outputs)(key)
    assert set(np.unique(kept)) == {
        0.0,
        8.0,
    }  # three halves drop 7/8, one and the same would drop 1/2
    assert 0.05 < (kept > 0).mean() < 0.2
    np.testing.assert_array_equal(net.apply(params, xs).outputs, xs)


class Switched(nnx.GRUCell):
    """A cell with a switch that nnx sets."""

    def __init__(self, rngs):
        super().__init__(INPUTS, HIDDEN, rngs=rngs)
        self.deterministic = False

    def __call__(self, carry, x):
        return super().__call__(carry, x if self.deterministic else 0 * x)


def test_a_cell_of_nnx_steps_as_in_evaluation(key):
    net, plain = (
        rr.from_flax(lambda rngs, make=make: make(rngs), carry=("h",))
        for make in (Switched, lambda rngs: nnx.GRUCell(INPUTS, HIDDEN, rngs=rngs))
    )
    params, xs = net.init(key, INPUTS), batch_of(key).xs
    close(net.apply(params, xs).outputs, plain.apply(params, xs).outputs)


class OtherFlag(nn.Module):
    @nn.compact
    def __call__(self, xs, is_training=False):
        return nn.Dense(1)(nn.Dropout(0.5)(xs, deterministic=not is_training))


def test_a_switch_of_another_name_is_refused():
    words = r"has a switch 'is_training'.*'deterministic', 'mask', 'train', 'training'"
    with pytest.raises(ValueError, match=words):
        rr.from_flax(OtherFlag())
    with pytest.raises(ValueError, match=r"has a switch 'inference'.*'key', 'mask'.*'train'"):
        rr.from_functions(Pair.init, lambda params, xs, inference=True: xs)


@pytest.mark.parametrize("wrap", [lambda apply: apply, jax.jit])
def test_keywords_of_a_partial_stay(wrap, key):
    def apply(params, xs, *, train=True, rate=1.0, inference=True):
        return xs[..., :1] * (params["mix"]["bias"] + (2.0 if train else 1.0))

    bound = functools.partial(wrap(functools.partial(apply, train=False)), inference=False)
    net = rr.from_functions(Pair.init, bound)
    params, xs = net.init(key, INPUTS), jnp.ones((2, 3, INPUTS))
    close(net.apply(params, xs, train=True).outputs, xs[..., :1])


def test_a_mask_that_would_broadcast_is_refused(key):
    net = rr.from_functions(Pair.init, Pair.apply)
    params, xs = net.init(key, INPUTS), jnp.ones((2, 3, INPUTS))
    with pytest.raises(ValueError, match=r"mask must be \[B, T\] = \(2, 3\); got \(1, 3\)"):
        net.apply(params, xs, mask=jnp.ones((1, 3)))


def test_wrong_functions_say_what_to_do(key):
    init, xs = Pair.init, jnp.ones((2, 3, INPUTS))

    def net_of(apply, init=init, **options):
        return rr.from_functions(init, apply, **options)

    with pytest.raises(ValueError, match="needs an argument 'context'"):
        net_of(lambda params, xs, context: xs)
    with pytest.raises(ValueError, match=r"must take 2 argument\(s\)"):
        net_of(lambda params: params)
    with pytest.raises(ValueError, match="must be a function"):
        net_of(3)
    with pytest.raises(ValueError, match="readout must be"):
        net_of(lambda params, xs: xs, readout="first")
    params = init(key, INPUTS)
    net = net_of(lambda params, xs, **others: xs)  # named arguments only: nothing else is given
    with pytest.raises(ValueError, match="takes no mask"):
        net.apply(params, xs, mask=jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="takes no state"):
        net.apply(params, xs, state={"layer_0": 0})
    with pytest.raises(ValueError, match=r"\[B, T, D\] real numbers"):
        net.apply(params, xs[0])
    with pytest.raises(ValueError, match="readout='all' is for"):
        net_of(lambda params, xs: xs[:, -1]).apply(params, xs)
    with pytest.raises(ValueError, match="must return outputs"):
        net_of(lambda params, xs: (xs, xs)).apply(params, xs)
    for bad, words in (
        ([jnp.ones(2)], "got list"),
        ({"a": [jnp.ones(2)]}, "got list"),
        ({"a.b": jnp.ones(2)}, "the name 'a.b'"),
        ({"a": jnp.arange(2)}, "must be real numbers"),
        ({}, "has no parameters"),
    ):
        with pytest.raises(ValueError, match=words):
            net_of(lambda params, xs: xs, init=lambda key, bad=bad: bad).init(key)


def test_padding_may_hold_anything(key):
    net = rr.from_functions(Pair.init, Pair.apply)
    batch, params = batch_of(key), net.init(key, INPUTS)
    spoiled = jnp.where(batch.mask[..., None] > 0, batch.xs, jnp.nan)
    gradient = jax.grad(
        lambda p: LOSS(net.apply(p, spoiled, mask=batch.mask).outputs, batch.ys, batch.mask)
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient(params)))
