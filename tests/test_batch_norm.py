"""Recurrent batch normalisation: per-step statistics in training, stored ones for prediction, weights of rows."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import tolerance
from recurrent_cases import forget_programs  # noqa: F401 - it works by being here
from small import assert_same, held_out, make, sine

import rnnreg as rr

pytestmark = pytest.mark.numerics

B, T, D, H = 5, 4, 2, 3
CELLS = {"elman": rr.cells.elman(H), "gru": rr.cells.gru(H), "lstm": rr.cells.lstm(H)}
every_cell = pytest.mark.parametrize("kind", CELLS)


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


def _network(kind, num_steps=T, **options):
    net = rr.network([rr.cells.batch_norm(CELLS[kind], num_steps, gain=0.7)], 1, **options)
    rng = np.random.default_rng(0)
    params = net.init(jax.random.key(0), D)
    own = {
        name: leaf
        if "_" in name and name.split("_")[0] in ("mean", "variance")
        else rng.normal(size=leaf.shape)
        for name, leaf in params["layer_0"].items()
    }
    dtype = jnp.result_type(float)
    return net, params | {"layer_0": {name: jnp.asarray(leaf, dtype) for name, leaf in own.items()}}


def _xs(rows=B, steps=T, seed=1):
    return jnp.asarray(
        np.random.default_rng(seed).normal(size=(rows, steps, D)), jnp.result_type(float)
    )


def _loop(kind, params, xs, moments, zoneout=0.0, zoneout_c=0.0):
    """h at every step, `[B, T, H]`; `moments(name, t, z)` are the mean and the variance of a step.

    With the expectation of zoneout, (1 − p) new + p old.
    """
    p = jax.tree.map(lambda leaf: np.asarray(leaf, float), params["layer_0"])
    h = c = np.zeros((len(xs), H))
    out = []

    def normalised(name, t, z):
        mean, variance = moments(name, t, z)
        return p[f"gain_{name}"] * (z - mean) / np.sqrt(variance + 1e-5)

    for t in range(xs.shape[1]):
        x = normalised("x", t, xs[:, t] @ p["W_xh"]) + p["b_h"]
        u = normalised("h", t, h @ p["W_hh"]) + p.get("b_hh", 0)
        old, old_c = h, c
        if kind == "elman":
            h = np.tanh(x + u)
        elif kind == "gru":
            (x_r, x_z, x_n), (u_r, u_z, u_n) = np.split(x, 3, 1), np.split(u, 3, 1)
            z = _sigmoid(x_z + u_z)
            h = (1 - z) * np.tanh(x_n + _sigmoid(x_r + u_r) * u_n) + z * h
        else:
            i, f, g, o = np.split(x + u, 4, 1)
            c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
            h = _sigmoid(o) * np.tanh(normalised("c", t, c) + p["b_c"])
        h = (1 - zoneout) * h + zoneout * old
        c = (1 - zoneout_c) * c + zoneout_c * old_c
        out.append(h)
    return np.stack(out, axis=1)


def _of(weights):
    """Weighted mean and variance over rows."""

    def moments(name, t, z):
        mean = np.average(z, axis=0, weights=weights)
        return mean, np.average((z - mean) ** 2, axis=0, weights=weights)

    return moments


@every_cell
def test_training_equals_a_loop_with_the_statistics_of_the_batch(kind):
    net, params = _network(kind)
    for weights in (None, jnp.array([1.0, 0.0, 2.0, 1.0, 0.5])):
        run = jax.jit(
            lambda p, xs, w=weights: net.apply(p, xs, train=True, weights=w).states["layer_0"].h
        )
        expected = _loop(kind, params, np.asarray(_xs(), float), _of(weights))
        np.testing.assert_allclose(run(params, _xs()), expected, **tolerance(loosen=10))


@every_cell
def test_stored_statistics_are_those_of_each_step_and_a_row_alone_gives_the_same(kind):
    net, params = _network(kind)
    stored = jax.jit(lambda p, xs: rr.networks.calibrated(net, p, xs))(params, _xs())
    seen = {}

    def moments(name, t, z):
        seen[name, t] = _of(None)(name, t, z)
        return seen[name, t]

    in_training = _loop(kind, params, np.asarray(_xs(), float), moments)
    own = stored["layer_0"]
    for (name, t), (mean, variance) in seen.items():
        np.testing.assert_allclose(own[f"mean_{name}"][t], mean, **tolerance(loosen=10))
        np.testing.assert_allclose(own[f"variance_{name}"][t], variance, **tolerance(loosen=10))
    predict = jax.jit(lambda xs: net.apply(stored, xs).states["layer_0"].h)
    whole = predict(_xs())
    np.testing.assert_allclose(whole, in_training, **tolerance(loosen=30))
    np.testing.assert_allclose(predict(_xs()[2:3]), whole[2:3], **tolerance())
    other = predict(_xs(rows=7, seed=3).at[4].set(_xs()[2]))
    np.testing.assert_allclose(other[4], whole[2], **tolerance())


# ---- with noise and dropout -----------------------------------------------------------------------


@every_cell
def test_statistics_are_stored_for_the_states_that_zoneout_leaves_on_average(kind):
    """In prediction each step ends with (1 − p) new + p old, so that is what the stored statistics are of."""
    rates = {"zoneout": 0.4} | ({"zoneout_c": 0.3} if kind == "lstm" else {})
    net, params = _network(kind, noise=rr.Noise(**rates))
    seen = {}

    def moments(name, t, z):
        seen[name, t] = _of(None)(name, t, z)
        return seen[name, t]

    expected = _loop(kind, params, np.asarray(_xs(), float), moments, **rates)
    stored = jax.jit(lambda p, xs: rr.networks.calibrated(net, p, xs))(params, _xs())
    for (name, t), found in seen.items():
        for moment, value in zip(("mean", "variance"), found, strict=True):
            np.testing.assert_allclose(
                stored["layer_0"][f"{moment}_{name}"][t], value, **tolerance(loosen=10)
            )
    predicted = jax.jit(lambda xs: net.apply(stored, xs).states["layer_0"].h)(_xs())
    np.testing.assert_allclose(predicted, expected, **tolerance(loosen=30))


RANDOM = {
    "zoneout": {"noise": rr.Noise(zoneout=0.3, zoneout_c=0.2)},
    "dropconnect": {"noise": rr.Noise(dropconnect=0.3)},
    "weight_noise": {"noise": rr.Noise(weight_noise=0.1)},
    "recurrent_noise": {"noise": rr.Noise(recurrent_noise=0.1)},
    "dropout": {"dropout": 0.2, "output_dropout": 0.2, "recurrent_dropout": 0.2},
    "variational": {"recurrent_dropout": 0.2, "variational": True},
    "all": {
        "noise": rr.Noise(0.1, 0.1, 0.1, 0.05, 0.05),
        "dropout": 0.1,
        "output_dropout": 0.1,
        "recurrent_dropout": 0.1,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RANDOM)
def test_noise_and_dropout_train_batch_normalised_cells(name):
    cell = rr.cells.batch_norm(CELLS["lstm"], 4, gain=0.5)
    net = rr.network([cell], 1, readout="last", **RANDOM[name])
    data = held_out(sine(), 24)
    train = make(net, penalties={}, num_epochs=20, batch_size=8)
    key = jax.random.key(0)
    runs = {rate: train({"learning_rate": rate}, data, key=key) for rate in (0.0, 0.1, 0.2)}
    run = runs[0.1]
    assert run.diverged_at == -1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((run.params, run.metrics)))
    assert run.metrics["train_loss"] < runs[0.0].metrics["train_loss"]
    # the same key gives the same run, another key another one
    assert_same(run.params, train({"learning_rate": 0.1}, data, key=key).params)
    other = train({"learning_rate": 0.1}, data, key=jax.random.key(1), params=runs[0.0].params)
    again = train({"learning_rate": 0.1}, data, key=key, params=runs[0.0].params)
    assert (other.params["layer_0"]["W_hh"] != again.params["layer_0"]["W_hh"]).any()
    # beside other lanes
    rates = jnp.array([0.1, 0.2])
    lanes = jax.jit(jax.vmap(lambda r: train({"learning_rate": r}, data, key=key).params))(rates)
    for place, rate in enumerate((0.1, 0.2)):
        for one, beside in zip(*map(jax.tree.leaves, (runs[rate].params, lanes)), strict=True):
            np.testing.assert_allclose(beside[place], one, **tolerance(loosen=100))
    results = [
        rr.sweep(
            train,
            {"learning_rate": list(rates)},
            data,
            seeds=1,
            key=key,
            plan="one_by_one",
            progress=False,
        )
        for rates in ((0.1,), (0.1, 0.2))
    ]
    alone, beside = (
        jax.tree.map(lambda leaf: leaf[0], result.groups[0].params) for result in results
    )
    assert_same(alone, beside)
    # prediction draws nothing, and looks at no other row
    predict = jax.jit(lambda xs: net.apply(run.params, xs).outputs)
    rows = data.validation.xs
    np.testing.assert_allclose(predict(rows), run.predictions, **tolerance())
    np.testing.assert_allclose(predict(rows[1:2]), run.predictions[1:2], **tolerance())


def test_the_empty_memory_of_a_normalised_gru_is_nothing_to_hold():
    cell = rr.cells.batch_norm(CELLS["gru"], T)
    with pytest.raises(ValueError, match=r"zoneout_c holds c, the memory of an LSTM, and no cell"):
        rr.network([cell], 1, noise=rr.Noise(zoneout_c=0.1))
    mixed = [cell, CELLS["lstm"]]
    net = rr.network(mixed, 1, noise=rr.Noise(zoneout_c=0.1))
    net.apply(net.init(jax.random.key(0), D), _xs())


# ---- rows, gradients, steps -----------------------------------------------------------------------


def test_a_row_of_weight_0_changes_nothing():
    net, params = _network("gru")
    weights = jnp.array([1.0, 1.0, 0.0, 1.0, 1.0])
    apply = jax.jit(lambda xs: net.apply(params, xs, train=True, weights=weights).outputs)
    store = jax.jit(lambda xs: rr.networks.calibrated(net, params, xs, weights=weights))
    kept, moved = _xs(), _xs().at[2].set(9.0)
    rows = np.array([0, 1, 3, 4])
    np.testing.assert_allclose(apply(moved)[rows], apply(kept)[rows], **tolerance())
    for one, other in zip(*(jax.tree.leaves(store(xs)) for xs in (kept, moved)), strict=True):
        np.testing.assert_allclose(one, other, **tolerance())


def test_the_gradient_goes_through_the_statistics():
    """Adding the same to a projection of every row changes nothing, so the sum of that gradient over rows is 0."""
    net, params = _network("elman")

    def loss(xs):
        return jnp.sum(jnp.sin(net.apply(params, xs, train=True).outputs))

    gradient = jax.jit(jax.grad(loss))(_xs())
    np.testing.assert_allclose(gradient.sum(axis=0), 0, atol=tolerance()["atol"] * 10)
    assert np.abs(gradient).max() > 1e-3
    direction = _xs(seed=7)
    step = 1e-5 if jax.config.jax_enable_x64 else 1e-2
    value = jax.jit(loss)
    numeric = (value(_xs() + step * direction) - value(_xs() - step * direction)) / (2 * step)
    exact = jnp.sum(gradient * direction)
    np.testing.assert_allclose(exact, numeric, rtol=1e-6 if step < 1e-3 else 3e-2, atol=1e-2 * step)


def test_back_ends_agree_in_both_modes():
    cell = rr.cells.batch_norm(CELLS["lstm"], T)
    nets = [rr.network([cell], 1, backend=backend) for backend in ("scan", "fused")]
    params = nets[0].init(jax.random.key(0), D)
    for train in (True, False):

        def run(net, train=train):
            def loss(params, xs):
                return jnp.sum(jnp.sin(net.apply(params, xs, train=train).outputs))

            return jax.jit(jax.value_and_grad(loss))(params, _xs())

        for one, other in zip(*map(jax.tree.leaves, map(run, nets)), strict=True):
            np.testing.assert_allclose(one, other, **tolerance(loosen=10))


def test_steps_go_on_where_a_state_left_off_and_the_last_statistics_serve_later_ones():
    net, params = _network("lstm", num_steps=3)
    params = rr.networks.calibrated(net, params, _xs(steps=6))
    whole = net.apply(params, _xs(steps=6)).outputs
    first = net.apply(params, _xs(steps=6)[:, :2])
    second = net.apply(params, _xs(steps=6)[:, 2:], state=first.final_state)
    np.testing.assert_allclose(second.outputs, whole[:, 2:], **tolerance())
    J = jax.jacobian(
        lambda h: (
            net.layers[0]
            .cell.gate(
                params["layer_0"],
                net.layers[0].cell.initial_state(1)._replace(h=h, step=jnp.full((1, 1), 9.0)),
                jnp.ones((1, 4 * H)),
                jnp.ones((1, 4 * H)),
            )
            .step
        )
    )(jnp.zeros((1, H)))
    assert not np.asarray(J).any()  # a count has no derivative


# ---- diagnostics ----------------------------------------------------------------------------------


def _late_step(params, h, x):
    """A step of the Elman cell with the statistics of the last step, by hand."""
    p = params["layer_0"]

    def normalised(name, z):
        root = jnp.sqrt(p[f"variance_{name}"][-1] + 1e-5)
        return p[f"gain_{name}"] * (z - p[f"mean_{name}"][-1]) / root

    return jnp.tanh(normalised("x", x @ p["W_xh"]) + normalised("h", h @ p["W_hh"]) + p["b_h"])


@pytest.mark.slow
def test_fixed_points_are_those_of_the_last_statistics():
    """Found from any count of steps: Newton on h alone, with the step written by hand, is the oracle."""
    net, params = _network("elman")
    params = rr.networks.calibrated(net, params, _xs())
    x, cell = jnp.array([0.3, -0.2], _xs().dtype), net.layers[0].cell
    rng = np.random.default_rng(5)
    h = jnp.asarray(rng.uniform(-1, 1, (6, H)), x.dtype)
    expected = jax.jit(
        lambda: rr.diagnostics.fixed_points(
            lambda p, state, given: _late_step(p, state, given), params, x, starts=h
        )
    )()
    own = rr.diagnostics.distinct_points(expected)
    assert len(own.points) > 0
    visited = net.apply(params, _xs(rows=6)).states["layer_0"]
    tree = jax.tree.map(lambda leaf: leaf[:, 1], visited)._replace(h=h)
    flat = jnp.concatenate([h, jnp.zeros((6, 2), h.dtype)], axis=1)
    for system, own_params, starts in (
        (net, params, {"layer_0": tree}),
        (net, params, flat),
        (cell, params["layer_0"], tree),
    ):
        found = jax.jit(
            lambda s=system, p=own_params, at=starts: rr.diagnostics.fixed_points(
                s, p, x, starts=at
            )
        )()
        table = rr.diagnostics.distinct_points(found)
        assert table.num_unfinished == rr.diagnostics.distinct_points(expected).num_unfinished
        np.testing.assert_allclose(table.points[:, :H], own.points, atol=1e-4)
        place = next(where for name, where in found.places.items() if name.endswith("step"))
        np.testing.assert_array_equal(found.points[:, place[0]], T - 1)
        np.testing.assert_allclose(found.jacobians[:, :H, :H], expected.jacobians, atol=1e-4)
        assert not np.asarray(found.jacobians[:, H:]).any()
        held = jax.vmap(lambda one: _late_step(params, one, x))(found.points[:, :H])
        near = np.asarray(found.speed) < 1e-10
        np.testing.assert_allclose(held[near], found.points[near, :H], atol=1e-4)


@pytest.mark.slow
def test_exponents_and_spectra_are_those_of_a_row_with_its_statistics():
    """Along data each step has its own statistics, afterwards the last: products of Jacobians of h alone."""
    net, params = _network("elman")
    params, xs = rr.networks.calibrated(net, params, _xs()), _xs(rows=2, steps=12)
    p = params["layer_0"]

    def loop(h, xs):  # one row
        Js = []
        for t, x in enumerate(xs):
            at = min(t, T - 1)

            def step(h, x=x, at=at):
                u = p["gain_h"] * (h @ p["W_hh"] - p["mean_h"][at])
                v = p["gain_x"] * (x @ p["W_xh"] - p["mean_x"][at])
                return jnp.tanh(
                    u / jnp.sqrt(p["variance_h"][at] + 1e-5)
                    + v / jnp.sqrt(p["variance_x"][at] + 1e-5)
                    + p["b_h"]
                )

            Js.append(jax.jacfwd(step)(h))
            h = step(h)
        return jnp.stack(Js)

    expected = jax.jit(jax.vmap(loop))(jnp.zeros((2, H), xs.dtype), xs)
    own = rr.diagnostics.step_jacobians(net, params, xs, field="layer_0/h")
    np.testing.assert_allclose(own, expected, **tolerance(loosen=10))
    whole = rr.diagnostics.step_jacobians(net, params, xs)
    assert not np.delete(whole, np.s_[:H], axis=-2).any()
    assert not np.delete(whole, np.s_[:H], axis=-1).any()
    exponents = rr.diagnostics.lyapunov(net, params, xs, discard=1).exponents
    assert np.isfinite(exponents[:, 0]).all()
    assert (exponents[:, H:] == -np.inf).all()
    if jax.config.jax_enable_x64:  # float32 does not resolve the smallest
        # once the frame lies in the directions of h, its volume grows by |det J_t|
        volume = np.log(np.abs(np.linalg.det(np.asarray(expected, float))))[:, 1:].mean(axis=1)
        np.testing.assert_allclose(exponents[:, :H].sum(axis=1), volume, rtol=1e-6)


def test_a_gradient_flows_back_through_a_cell_without_a_memory():
    """Its state holds an empty c, which has no largest element."""
    net, params = _network("elman")
    batch = rr.Batch(_xs(), jnp.ones((B, T, 1), _xs().dtype))
    flow = rr.diagnostics.gradient_flow(net, rr.losses.squared_error("mean"), params, batch)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(flow.log_ratio))


def test_both_directions_store_the_statistics_of_their_own_steps():
    cell = rr.cells.batch_norm(CELLS["elman"], T)
    net = rr.network([rr.layer(cell, bidirectional=True)], 1)
    params = net.init(jax.random.key(0), D)
    stored = rr.networks.calibrated(net, params, _xs())
    np.testing.assert_allclose(
        net.apply(stored, _xs()).outputs,
        net.apply(params, _xs(), train=True).outputs,
        **tolerance(loosen=30),
    )


def test_a_run_scores_and_returns_the_network_that_predicts():
    cell = rr.cells.batch_norm(rr.cells.elman(4), 4, gain=0.5)
    net = rr.network([cell], 1, readout="last")
    data = held_out(sine(), 24)
    train = make(net, penalties={}, optimizer=optax.adamw(0.05), num_epochs=12, batch_size=8)
    run = train({}, data, key=jax.random.key(0))
    again = rr.networks.calibrated(net, run.params, data.train.xs)
    for one, other in zip(jax.tree.leaves(run.params), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(one, other, **tolerance(loosen=10))
    alone = net.apply(run.params, data.validation.xs[:1]).outputs
    np.testing.assert_allclose(alone, run.predictions[:1], **tolerance())
    np.testing.assert_allclose(
        run.metrics["val_loss"], np.mean((run.predictions - data.validation.ys) ** 2), rtol=1e-4
    )
    assert run.history["train_loss"][-1] < run.history["train_loss"][0]
    covered = rr.penalties.covered(rr.penalties.l2(), run.params, net=net)
    assert covered == ["layer_0/W_hh", "layer_0/W_xh", "readout/W_hy"]
    described = rr.networks.rebuild(rr.networks.describe(net))
    np.testing.assert_array_equal(
        described.apply(run.params, data.validation.xs).outputs,
        net.apply(run.params, data.validation.xs).outputs,
    )


def test_what_cannot_be_normalised_is_refused():
    net, params = _network("gru")
    with pytest.raises(ValueError, match="statistics of each step over the rows of a batch"):
        net.apply(params, _xs(), mask=jnp.ones((B, T)), train=True)
    net.apply(params, _xs(), mask=jnp.ones((B, T)))  # prediction knows masks
    with pytest.raises(ValueError, match="does its own; use 'after'"):
        rr.cells.batch_norm(rr.cells.gru(H, reset="before"), T)
    with pytest.raises(ValueError, match="batch_norm is for a cell as elman"):
        rr.cells.batch_norm(rr.cells.layer_norm(CELLS["gru"]), T)
    with pytest.raises(ValueError, match="num_steps must be at least 1"):
        rr.cells.batch_norm(CELLS["gru"], 0)
    train = make(
        rr.network([rr.cells.batch_norm(CELLS["elman"], 4)], 1, readout="last"), penalties={}
    )
    with pytest.raises(ValueError, match="plan='split_rows' deals"):
        rr.sweep(
            train, {"learning_rate": 0.1}, sine(), seeds=1, key=jax.random.key(0), plan="split_rows"
        )


def test_updates_of_one_row_are_refused():
    """z − E z is 0 then, and nothing of the inputs would be learned."""
    net, _ = _network("elman", readout="last")
    split, hyper = sine(), {"l2": 0.1, "learning_rate": 0.1}
    one_row = split.replace(train=rr.data.take_rows(split.train, np.arange(1)), target_times=None)
    for data, batch_size in ((split, 1), (one_row, None)):
        with pytest.raises(ValueError, match="over the rows of an update, and an update has 1 row"):
            make(net, batch_size=batch_size)(hyper, data, key=jax.random.key(0))


def test_statistics_are_no_weights_without_the_network_either():
    net, params = _network("lstm")
    weights = rr.networks.weight_paths(net, params)
    assert rr.penalties.covered(rr.penalties.l2(), params) == weights
    assert list(rr.constraints.decoupled_decay(0.1).init(params).covers) == weights
    assert list(rr.constraints.non_negative("*").init(params).covers) == weights
    every = rr.penalties.covered(rr.penalties.l2(include_biases=True), params, net=net)
    assert [path for path in rr.leaf_paths(params) if path not in every] == [
        f"layer_0/{kind}_{name}" for kind in ("mean", "variance") for name in "chx"
    ]
