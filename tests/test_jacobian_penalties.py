"""Ω, the norm of Jacobians and gradient flossing, against loops in NumPy, finite differences and closed forms."""

import activity_cases as cases
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import tolerance

import rnnreg as rr
from rnnreg.penalties import gradient_flossing, jacobian_norm, omega

pytestmark = pytest.mark.numerics

every_cell = pytest.mark.parametrize("name", cases.NAMES)
LINEAR = rr.network([rr.cells.elman(4, activation="identity")], 1)


def _omega(name, params, batch, *, squared=True, bound=1e-20):
    """Ω and its immediate derivative with respect to W_hh."""
    total, gradient, count = 0.0, 0.0, 0.0
    for walk, weight in zip(cases.walks(name, params, batch), cases.weights(), strict=True):
        for J, pull, delta in zip(walk.jacobians, walk.pulls, walk.deltas, strict=True):
            length, back = delta @ delta, delta @ J
            if length < bound:
                continue
            ratio = back @ back / length
            by_W = 2 * np.outer(back[: cases.HIDDEN], delta @ pull) / length
            if not squared:
                by_W = by_W / (2 * np.sqrt(ratio))
                ratio = np.sqrt(ratio)
            total += weight * (ratio - 1) ** 2
            gradient = gradient + weight * 2 * (ratio - 1) * by_W
            count += weight
    return total / count, gradient / count


def _norm(name, params, batch):
    found = [
        np.mean([np.sum(J**2) / len(J) for J in walk.jacobians])
        for walk in cases.walks(name, params, batch)
    ]
    return np.average(found, weights=cases.weights())


def _flossing(name, params, batch, *, k=3, every=1, discard=0, target=0.0):
    """QR by LAPACK, each row alone."""
    found = []
    for walk in cases.walks(name, params, batch):
        n = len(walk.jacobians[0])
        frame = np.linalg.qr(np.random.default_rng(0).normal(size=(n, k)))[0]
        logs, steps = np.zeros(k), 0
        for start in range(0, len(walk.jacobians), every):
            block = walk.jacobians[start : start + every]
            for J in block:
                frame = J @ frame
            frame, R = np.linalg.qr(frame)
            if start >= discard:
                logs, steps = logs + np.log(np.abs(np.diagonal(R))), steps + len(block)
        found.append(np.mean((logs / steps - target) ** 2))
    return np.average(found, weights=cases.weights())


# By name: the penalty, and its value in NumPy.
PENALTIES = {
    "omega": (omega(derivative="full"), lambda *given: _omega(*given)[0]),
    "omega_of_norms": (
        omega(derivative="full", squared=False),
        lambda *given: _omega(*given, squared=False)[0],
    ),
    "jacobian_norm": (jacobian_norm(), _norm),
    "flossing": (gradient_flossing(3, discard=0), _flossing),
    "flossing_every": (
        gradient_flossing(2, every=2, discard=1, target=-0.5),
        lambda *given: _flossing(*given, k=2, every=2, discard=1, target=-0.5),
    ),
}


@pytest.mark.float64_only
@pytest.mark.parametrize("penalty", PENALTIES)
@every_cell
def test_value_and_derivative_equal_a_loop_in_numpy(name, penalty):
    made, formula = PENALTIES[penalty]
    if name == "elman_relu" and penalty.startswith("flossing"):
        pytest.skip("dead units: the Jacobians are singular, see below")
    net, params, batch = cases.problem(name)
    value, gradient = cases.gradient_of(net, made)(params, batch)
    np.testing.assert_allclose(value, formula(name, params, batch), rtol=1e-8)
    direction = cases.along(params)
    by_hand = cases.slope(lambda p: formula(name, p, batch), params, direction)
    # a central difference of step 1e-6 is exact to about 1e-9, times the third derivative
    np.testing.assert_allclose(cases.inner(gradient, direction), by_hand, rtol=1e-6, atol=1e-7)


@pytest.mark.float64_only
@pytest.mark.parametrize("squared", [True, False])
@every_cell
def test_the_immediate_derivative_of_omega_moves_only_the_last_product(name, squared):
    net, params, batch = cases.problem(name)
    value, gradient = cases.gradient_of(net, omega(squared=squared))(params, batch)
    expected, by_W = _omega(name, params, batch, squared=squared)
    np.testing.assert_allclose(value, expected, rtol=1e-8)
    np.testing.assert_allclose(gradient["layer_0"].pop("W_hh"), by_W, rtol=1e-8, atol=1e-12)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient))


def test_omega_of_the_authors_code():
    """Elman with tanh: the lines of the original in NumPy, with gradients that vanish below the bound."""
    _, params, batch = cases.problem("elman_tanh")
    net = rr.network([rr.cells.elman(4)], 1, readout="last")
    params["layer_0"]["W_hh"] *= 0.02
    batch = rr.Batch(batch.xs, batch.ys[:, -1])
    penalty = omega(bound=1e-9)
    value, gradient = cases.gradient_of(net, penalty)(params, batch)

    W = np.asarray(params["layer_0"]["W_hh"], float)
    out = net.apply(params, batch.xs)
    h = np.asarray(out.states["layer_0"].h, float).swapaxes(0, 1)
    d_h = np.zeros_like(h)
    error = np.asarray(out.outputs - batch.ys, float)
    d_h[-1] = 2 * error @ np.asarray(params["readout"]["W_hy"], float).T / len(error)
    for t in range(len(h) - 1, 0, -1):
        d_h[t - 1] = (d_h[t] * (1 - h[t] ** 2)) @ W.T
    sloped = d_h * (1 - h**2)
    tmp_x, tmp_y = np.sum((sloped @ W.T) ** 2, axis=2), np.sum(d_h**2, axis=2)
    counts = tmp_y >= 1e-9
    ratio = np.where(counts, tmp_x / np.where(counts, tmp_y, 1), 1)
    expected = np.mean((ratio - 1) ** 2, axis=1).sum() / np.mean(counts, axis=1).sum()
    assert 0 < counts.sum() < counts.size
    np.testing.assert_allclose(value, expected, **tolerance())
    outer = 2 * np.einsum("tbi,tbj->tbij", sloped @ W.T, sloped)
    scale = np.where(counts, 2 * (ratio - 1) / np.where(counts, tmp_y, 1), 0)[..., None, None]
    by_W = (scale * outer).sum((0, 1)) / counts.sum()
    np.testing.assert_allclose(gradient["layer_0"]["W_hh"], by_W, **tolerance())


def _linear(W):
    params = LINEAR.init(jax.random.key(0), 2, dtype=jnp.result_type(float))
    params["layer_0"]["W_hh"] = jnp.asarray(W, float)
    rng = np.random.default_rng(0)
    return params, rr.Batch(
        jnp.asarray(rng.normal(size=(2, 40, 2))), jnp.asarray(rng.normal(size=(2, 40, 1)))
    )


def test_an_orthogonal_linear_network_has_omega_and_exponents_of_zero():
    params, batch = _linear(np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0])
    for penalty, expected in (
        (omega(), 0),
        (omega(derivative="full"), 0),
        (gradient_flossing(4), 0),
        (jacobian_norm(), 1),
    ):
        value, gradient = cases.gradient_of(LINEAR, penalty)(params, batch)
        np.testing.assert_allclose(value, expected, **tolerance())
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_exponents_of_a_linear_network_are_the_logarithms_of_its_eigenvalues():
    """Of a triangular matrix whose eigenvalues are apart; the frame has turned to them after 20 steps."""
    W = np.diag([2.0, 1.0, 0.4, 0.1]) + np.triu(np.ones((4, 4)), 1)
    params, batch = _linear(W)
    for k in (1, 2, 4):
        value = cases.objective_of(LINEAR, gradient_flossing(k, discard=20))(params, batch)[0]
        np.testing.assert_allclose(value, np.mean(np.log([2.0, 1.0, 0.4, 0.1][:k]) ** 2), rtol=1e-3)


@pytest.mark.parametrize("name", ["elman_relu", "lstm"])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_value_and_gradient_are_finite_where_jacobians_are_singular(penalty, name):
    net, params, batch = cases.problem(name)
    gradient_of, own = cases.gradient_of(net, PENALTIES[penalty][0]), params["layer_0"]
    W = own["W_hh"]
    for singular in (0 * W, jnp.outer(W[:, 0], W[0])):
        value, gradient = gradient_of(params | {"layer_0": own | {"W_hh": singular}}, batch)
        assert np.isfinite(value)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_random_directions_give_the_norm_on_average_and_others_at_each_update():
    net, params, batch = cases.problem("lstm")
    exact = cases.objective_of(net, jacobian_norm())(params, batch)[0]
    run = cases.objective_of(net, jacobian_norm(num_directions=8, key=jax.random.key(0)))
    drawn, state = [], None
    for _ in range(20):
        value, state = run(params, batch, state)
        drawn.append(float(value))
    assert int(state) == 20
    assert len(set(drawn)) == 20
    error = np.std(drawn, ddof=1) / np.sqrt(20)
    assert abs(np.mean(drawn) - exact) < 4 * error
    assert run(params, batch)[0] == drawn[0]  # the same update draws the same


def test_flossing_at_every_third_update_holds_its_value_in_between():
    net, params, batch = cases.problem("elman_tanh")
    made = gradient_flossing(2, period=3)
    held = cases.objective_of(net, made)
    run = jax.jit(jax.value_and_grad(lambda p, state: held(p, batch, state), has_aux=True))
    whole = cases.objective_of(net, gradient_flossing(2))
    state, values, moves = made.init(params), [], []
    for update in range(4):
        own = jax.tree.map(lambda leaf, update=update: leaf * (1 + 0.1 * update), params)
        (value, state), gradient = run(own, state)
        values.append(float(value))
        moves.append(any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient)))
    first, last = (
        whole(jax.tree.map(lambda leaf, by=by: leaf * by, params), batch)[0] for by in (1.0, 1.3)
    )
    np.testing.assert_allclose(values, [first, first, first, last], **tolerance())
    assert moves == [True, False, False, True]


def test_flossing_of_the_first_rows():
    net, params, batch = cases.problem("gru")
    part = jax.tree.map(lambda leaf: leaf[:2], batch)
    few = cases.objective_of(net, gradient_flossing(2, num_rows=2))(params, batch)[0]
    np.testing.assert_allclose(
        few, cases.objective_of(net, gradient_flossing(2))(params, part)[0], **tolerance()
    )


@pytest.mark.parametrize("penalty", ["omega", "jacobian_norm", "flossing_every"])
def test_a_layer_that_reads_backwards_is_one_that_reads_reversed_sequences(penalty):
    cell = rr.cells.lstm(4)
    forwards, backwards = rr.network([cell], 1), rr.network([rr.layer(cell, reverse=True)], 1)
    _, params, batch = cases.problem("lstm")
    mask = jnp.asarray(
        np.array([[1, 1, 1, 1, 1, 0], [1, 0, 1, 1, 0, 0], [1] * 6, [0, 0, 1, 1, 1, 1]])
    )
    batch = rr.Batch(batch.xs, batch.ys, mask)
    reversed_ = jax.tree.map(lambda leaf: leaf[:, ::-1], batch)
    made = PENALTIES[penalty][0]
    values = [
        cases.objective_of(forwards, made)(params, batch)[0],
        cases.objective_of(backwards, made)(params, reversed_)[0],
    ]
    np.testing.assert_allclose(*values, **tolerance())


def test_a_cell_that_does_its_own_products_has_the_same_numbers():
    """And an immediate derivative, of which its slopes are a part; the other parameters stay where they are."""
    gate = rr.cells.elman(4)
    own = rr.cells.from_step(rr.recurrence.cell_step(gate), init=gate.init, hidden_size=4)
    _, params, batch = cases.problem("elman_tanh")
    for made in (omega(), omega(derivative="full"), gradient_flossing(2)):
        nets = [rr.network([cell], 1) for cell in (gate, own)]
        found = [cases.gradient_of(net, made)(params, batch) for net in nets]
        values, gradients = zip(*found, strict=True)
        np.testing.assert_allclose(*values, **tolerance())
        if dict(made.arguments).get("derivative") == "immediate":
            moved = {
                path for path, leaf in rr.leaf_paths(gradients[1]).items() if np.asarray(leaf).any()
            }
            assert moved == {"layer_0/W_hh"}
        else:
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, **tolerance(loosen=10)), *gradients
            )


@pytest.mark.parametrize("name", ["elman_tanh", "lstm"])
def test_the_back_ends_agree_on_derivatives_of_second_order(name):
    net, params, batch = cases.problem(name)
    cell, found = net.layers[0].cell, []
    for backend in ("auto", "fused", "scan"):
        run = cases.objective_of(rr.network([cell], 1, backend=backend), omega(derivative="full"))
        found.append(jax.value_and_grad(lambda p, run=run: run(p, batch)[0])(params))
    for other in found[:2]:
        # a second derivative: rounding of the first is divided by ‖δ‖
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, **tolerance(loosen=30)), other, found[2]
        )


@pytest.mark.parametrize("penalty", ["omega", "jacobian", "flossing"])
def test_strengths_are_traced_and_lanes_share_one_program(penalty):
    made = {
        "omega": omega(),
        "jacobian": jacobian_norm(num_directions=1, key=jax.random.key(0)),
        "flossing": gradient_flossing(2, period=2),
    }[penalty]
    net, params, batch = cases.problem("elman_tanh")
    objective = rr.make_objective(net, cases.LOSS, {"penalty": made})
    traces = []

    @jax.jit
    def gradient(lam):
        traces.append(None)
        state = {"penalty": made.init(params)}
        return jax.grad(
            lambda p: objective(p, {"penalty": lam}, batch, state, key=None, train=True)[0]
        )(params)

    lams = jnp.array([0.0, 0.1, 2.0])
    together = jax.jit(jax.vmap(gradient))(lams)
    alone = [gradient(lam) for lam in lams]
    assert len(traces) == 1
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **tolerance(loosen=10)), together, stacked
    )


def test_half_precision_is_computed_in_float32_under_strict_types():
    net, params, batch = cases.problem("lstm", dtype=jnp.bfloat16)
    for made in (
        omega(),
        omega(derivative="full"),
        jacobian_norm(),
        gradient_flossing(2, period=2),
    ):
        objective = rr.make_objective(net, cases.LOSS, {"penalty": made})

        def value(params, made=made, objective=objective):
            state = {"penalty": made.init(params)}
            total = objective(params, {"penalty": 1.0}, batch, state, key=None, train=True)
            return total[1][0].penalties["penalty"]

        with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
            found, gradient = jax.eval_shape(jax.value_and_grad(value), params)
        assert found.dtype == jnp.float32
        assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype(jnp.bfloat16)}


def test_they_train_with_dropout_and_segments():
    net = rr.network([rr.cells.elman(4)], 1, input_dropout=0.1)
    _, _, batch = cases.problem("elman_tanh")
    penalties = {
        "omega": omega(),
        "jacobian": jacobian_norm(num_directions=1, key=jax.random.key(0)),
        "floss": gradient_flossing(2, period=2, num_rows=1),
    }

    train = rr.make_train(
        net,
        loss=cases.LOSS,
        penalties=penalties,
        optimizer=optax.sgd(0.1),
        num_epochs=2,
        segment_steps=3,
    )
    run = train(dict.fromkeys(penalties, 0.1), rr.Batch(batch.xs, batch.ys), key=jax.random.key(0))
    assert int(run.diverged_at) == -1
    assert all(np.isfinite(run.history[f"penalty_{name}"]).all() for name in penalties)


WRONG = {
    "derivative must be 'immediate' or 'full'; got 'half'": lambda: omega(derivative="half"),
    "bound must be a number of at least 0; got -1": lambda: omega(bound=-1),
    "key must be one random key": lambda: jacobian_norm(num_directions=2),
    "give num_directions": lambda: jacobian_norm(key=jax.random.key(0)),
    "num_exponents must be at least 1": lambda: gradient_flossing(0),
    "period must be at least 1": lambda: gradient_flossing(2, period=0),
    "layers must be a text or a list of texts; got 0": lambda: omega(layers=0),
}


@pytest.mark.parametrize("message", WRONG)
def test_arguments_that_are_none_are_named(message):
    with pytest.raises(ValueError, match=message):
        WRONG[message]()


def test_what_a_batch_or_a_network_does_not_have_is_named():
    net, params, batch = cases.problem("elman_tanh")
    function = net._replace(apply=lambda *args, **options: net.apply(*args, **options))
    for made, message in (
        (gradient_flossing(5), "num_exponents must lie in 1 … 4"),
        (
            gradient_flossing(2, every=4),
            "every must divide the number of steps; got every=4 and T=6",
        ),
        (gradient_flossing(2, discard=6), r"discard must lie in 0 … 5"),
    ):
        with pytest.raises(ValueError, match=message):
            cases.objective_of(net, made)(params, batch)
    with pytest.raises(ValueError, match="known as a function alone"):
        cases.objective_of(function, omega())(params, batch)
