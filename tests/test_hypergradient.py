"""λ by gradient: through a run against finite differences, at an optimum against ridge regression, and online."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import tolerance
from small import held_out, sine

import rnnreg as rr
from rnnreg.selection._implicit import minres

KEY = jax.random.key(3)
LOSS = rr.losses.squared_error("mean")


def run_of(net, optimizer, num_epochs, **options):
    penalties = {"in": rr.penalties.l2("W_xh"), "hh": rr.penalties.l2("W_hh")}
    return rr.make_train(
        net,
        **({"loss": LOSS, "penalties": penalties} | options),
        optimizer=optimizer,
        num_epochs=num_epochs,
    )


def momentum(hyper):
    return optax.chain(
        optax.clip_by_global_norm(0.3), optax.sgd(hyper["learning_rate"], momentum=0.9)
    )


def adam(hyper):
    return optax.adam(hyper["learning_rate"])


RUNS = {"elman, clipped momentum, minibatches": (rr.cells.elman(4), momentum, {"batch_size": 5})}
SLOW_RUNS = {
    "gru, adam": (rr.cells.gru(4), adam, {}),
    "lstm of 16, adam, minibatches": (rr.cells.lstm(16), adam, {"batch_size": 6}),
    "elman, segments": (rr.cells.elman(4), momentum, {"segment_steps": 2}),
}
HYPER = {"in": 1e-2, "hh": 3e-2, "learning_rate": 3e-2}


def differences(value_at, hyper, *, eps=1e-5):
    """Central differences in the logarithm of each number."""
    return {
        name: (
            value_at(hyper | {name: hyper[name] * np.exp(eps)})
            - value_at(hyper | {name: hyper[name] * np.exp(-eps)})
        )
        / (2 * eps)
        for name in hyper
    }


def check_both_modes(cell, optimizer, options, hyper=HYPER):
    every_step = "segment_steps" in options
    data = held_out(sine(24, targets="all" if every_step else "last"), 14)
    net = rr.network([cell], 1, readout="all" if every_step else "last")
    train = run_of(net, optimizer, 4, **options)

    def found(mode, hyper):
        return rr.hypergradient(train, hyper, data, key=KEY, names=tuple(HYPER), mode=mode, remat=2)

    forward, reverse = found("forward", hyper), found("reverse", hyper)
    wanted = differences(lambda hyper: float(found("forward", hyper).value), hyper)
    for name in hyper:
        assert abs(wanted[name]) > 1e-6, "nothing depends on it"
        # a central difference is good to eps² and to rounding / eps
        np.testing.assert_allclose(forward.gradient[name], wanted[name], rtol=1e-6, atol=1e-10)
        np.testing.assert_allclose(reverse.gradient[name], forward.gradient[name], rtol=1e-10)
    run = train(hyper, data, key=KEY)
    np.testing.assert_allclose(forward.value, run.metrics["val_loss"], **tolerance())
    return run


@pytest.mark.numerics
@pytest.mark.float64_only
@pytest.mark.parametrize("name", RUNS)
def test_derivatives_through_a_run_equal_finite_differences_in_both_modes(name):
    check_both_modes(*RUNS[name])


@pytest.mark.slow
@pytest.mark.numerics
@pytest.mark.float64_only
@pytest.mark.parametrize("name", SLOW_RUNS)
def test_derivatives_through_further_runs_equal_finite_differences(name):
    check_both_modes(*SLOW_RUNS[name])


@pytest.mark.slow
@pytest.mark.numerics
@pytest.mark.float64_only
def test_derivatives_through_proximal_steps_are_those_at_the_zeros_of_the_run():
    penalties = {"in": rr.penalties.l1("W_xh"), "hh": rr.penalties.l1("W_hh")}
    options = {"penalties": penalties, "proximal": True}

    def plain(hyper):
        return optax.sgd(hyper["learning_rate"], momentum=0.9)

    run = check_both_modes(rr.cells.elman(4), plain, options, HYPER | {"hh": 1.0})
    assert 0 < run.metrics["zeros_hh"] < 16


# ---- ridge regression: a linear network of one step ------------------------------------------------


def linear(paths=("A", "B")):
    """y = Σ_k x_k W_k for each path k, from 0."""

    def init(key, input_size, dtype):
        return {path: jnp.zeros((input_size // len(paths), 1), dtype) for path in paths}

    def apply(params, xs):
        return xs[:, -1] @ jnp.concatenate([params[path] for path in paths])

    return rr.from_functions(init, apply, readout="last", decayed=list(paths))


@functools.cache
def ridge_data(orthogonal=False):
    rng = np.random.default_rng(1)
    X, truth = rng.normal(size=(30, 4)), np.array([1.0, -0.5, 0.3, 0.0])
    if orthogonal:
        for part in (slice(0, 10), slice(10, 30)):
            X[part] = np.linalg.qr(X[part])[0] * np.sqrt(part.stop - part.start)
    y = X @ truth + 0.8 * rng.normal(size=30)
    dtype = jnp.result_type(float)
    batch = rr.Batch(jnp.asarray(X[:, None], dtype), jnp.asarray(y[:, None], dtype))
    train, validation = (
        rr.data.take_rows(batch, rows) for rows in (np.arange(10), np.arange(10, 30))
    )
    return rr.Split(train, validation=validation), X, y


def ridge(num_epochs, *, optimizer=None, **options):
    penalties = {"a": rr.penalties.l2("A"), "b": rr.penalties.l2("B")}
    options = {"penalties": penalties} | options
    return run_of(linear(), optimizer or optax.sgd(0.1), num_epochs, **options)


def closed_form(lam):
    """Validation loss of ridge regression, and its derivative in each log λ."""
    _, X, y = ridge_data()
    D = np.diag(np.repeat([lam["a"], lam["b"]], 2))
    A, b = X[:10].T @ X[:10] / 10 + D, X[:10].T @ y[:10] / 10
    w = np.linalg.solve(A, b)
    left = X[10:] @ w - y[10:]
    slope = 2 * X[10:].T @ left / 20
    moved = {
        "a": -np.linalg.solve(A, lam["a"] * np.array([1, 1, 0, 0]) * w),
        "b": -np.linalg.solve(A, lam["b"] * np.array([0, 0, 1, 1]) * w),
    }
    return np.mean(left**2), {name: slope @ dw for name, dw in moved.items()}


LAM = {"a": 0.2, "b": 0.5}


@pytest.mark.numerics
def test_the_implicit_derivative_is_that_of_ridge_regression(silent):
    data = ridge_data()[0]
    value, slopes = closed_form(LAM)
    found = rr.hypergradient(ridge(300), LAM, data, key=KEY, mode="implicit")
    np.testing.assert_allclose(found.value, value, **tolerance(loosen=10))  # 300 sums of rounding
    for name, slope in slopes.items():
        np.testing.assert_allclose(found.gradient[name], slope, **tolerance(loosen=10))
    assert found.residual < 1e-5
    assert found.gradient_norm < 1e-5
    assert abs(found.drift) < 1e-5
    lanes = jax.jit(
        jax.vmap(
            lambda b: rr.hypergradient(
                ridge(300), LAM | {"b": b}, data, key=KEY, mode="implicit"
            ).gradient["b"]
        )
    )
    wanted = [closed_form(LAM | {"b": b})[1]["b"] for b in (0.1, 2.0)]
    np.testing.assert_allclose(lanes(jnp.array([0.1, 2.0])), wanted, **tolerance(loosen=10))
    X = ridge_data()[1][:10]
    least = 2 * np.linalg.eigvalsh(X.T @ X / 10 + np.diag([0.2, 0.2, 0.5, 0.5]))[0]
    np.testing.assert_allclose(found.curvature, least, rtol=1e-4)


@pytest.mark.numerics
def test_at_convergence_the_unrolled_derivative_is_the_implicit_one():
    found = rr.hypergradient(ridge(300), LAM, ridge_data()[0], key=KEY, mode="forward")
    for name, slope in closed_form(LAM)[1].items():
        np.testing.assert_allclose(found.gradient[name], slope, **tolerance(loosen=10))


@pytest.mark.slow
@pytest.mark.numerics
@pytest.mark.float64_only
def test_at_convergence_of_a_recurrent_network_both_agree(silent):
    penalties = {"in": rr.penalties.l2("W_xh"), "all": rr.penalties.l2(include_biases=True)}
    net = rr.network([rr.cells.elman(2)], 1, readout="last")
    train = run_of(net, optax.sgd(0.1), 6000, penalties=penalties)
    hyper, data = {"in": 1e-2, "all": 3e-2}, held_out(sine(24), 14)
    run, optimum = (
        rr.hypergradient(train, hyper, data, key=KEY, mode=mode) for mode in ("forward", "implicit")
    )
    assert optimum.curvature > 0.01
    for name in hyper:  # what is left of the way to the optimum
        np.testing.assert_allclose(optimum.gradient[name], run.gradient[name], rtol=1e-3)


def test_a_run_that_stopped_early_has_no_implicit_derivative():
    with pytest.warns(RuntimeWarning, match="has not come to rest") as told:
        found = rr.hypergradient(ridge(17), LAM, ridge_data()[0], key=KEY, mode="implicit")
    assert len(told) == 1
    # the drift is a prediction of what is missing, to first order
    missing = closed_form(LAM)[0] - float(found.value)
    assert 0.5 < float(found.drift) / missing < 2


def test_a_saddle_is_told():
    """W_1 W_2 from 0 stays at 0, whose Hessian has eigenvalues of both signs."""

    def init(key, input_size, dtype):
        return {"A": jnp.zeros((input_size, 1), dtype), "B": jnp.zeros((1, 1), dtype)}

    net = rr.from_functions(
        init,
        lambda params, xs: xs[:, -1] @ params["A"] @ params["B"] + 1.0,
        readout="last",
        decayed=["A", "B"],
    )
    train = run_of(net, optax.sgd(0.1), 2, penalties={"a": rr.penalties.l2("A")})
    with pytest.warns(RuntimeWarning, match="is no minimum"):
        found = rr.hypergradient(train, {"a": 1e-3}, ridge_data()[0], key=KEY, mode="implicit")
    assert found.curvature < 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rr.hypergradient(
            train, {"a": 1e-3}, ridge_data()[0], key=KEY, mode="implicit", damping=10.0
        )


@pytest.mark.numerics
@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_minres_solves_what_is_indefinite(damping):
    rng = np.random.default_rng(0)
    A = rng.normal(size=(7, 7))
    A = A + A.T
    b = rng.normal(size=7)
    found = jax.jit(lambda A, b: minres(lambda v: A @ v, b, 7, damping=damping, key=KEY))(
        jnp.asarray(A, float), jnp.asarray(b, float)
    )
    assert np.linalg.eigvalsh(A)[0] < 0 < np.linalg.eigvalsh(A)[-1]
    wanted = np.linalg.solve(A + damping * np.eye(7), b)
    np.testing.assert_allclose(found.x, wanted, **tolerance(loosen=100))  # condition number
    np.testing.assert_allclose(found.curvature, np.linalg.eigvalsh(A)[0], **tolerance(loosen=10))
    assert found.residual < 1e-4


@pytest.mark.numerics
def test_minres_on_a_singular_matrix_leaves_what_no_x_reaches():
    @jax.jit
    def solved(diagonal, b):
        return minres(lambda v: diagonal * v, b, 3, key=KEY)

    def solve(diagonal, b):
        return solved(jnp.asarray(diagonal), jnp.asarray(b))

    found = solve([2.0, -1.0, 0.0], [2.0, 1.0, 0.0])
    np.testing.assert_allclose(found.x, [1.0, -1.0, 0.0], **tolerance())
    found = solve([2.0, -1.0, 0.0], [2.0, 1.0, 1.0])
    np.testing.assert_allclose(found.residual, 1 / np.sqrt(6), rtol=1e-4)
    assert np.isfinite(found.x).all()
    assert np.array_equal(solve([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]).x, np.zeros(3))


@pytest.mark.numerics
def test_with_few_products_the_residual_is_the_least_of_the_krylov_space():
    rng = np.random.default_rng(2)
    A = rng.normal(size=(9, 9))
    A, b = A + A.T, rng.normal(size=9)
    found = minres(lambda v: jnp.asarray(A, float) @ v, jnp.asarray(b, float), 3, key=KEY)
    K = np.stack([b, A @ b, A @ A @ b], axis=1)
    least = np.linalg.lstsq(A @ K, b, rcond=None)[1][0] ** 0.5 / np.linalg.norm(b)
    np.testing.assert_allclose(found.residual, least, rtol=1e-4)


# ---- truncation, lanes, memory --------------------------------------------------------------------


@pytest.mark.numerics
def test_the_derivative_of_the_last_updates_takes_the_state_before_them_as_constant():
    data, train, key = (
        ridge_data()[0],
        ridge(2, batch_size=4, optimizer=optax.sgd(0.1, momentum=0.9)),
        KEY,
    )
    hyper = LAM

    def found(last, mode="forward"):
        return rr.hypergradient(train, hyper, data, key=key, last=last, mode=mode).gradient

    @jax.jit
    def plain():  # 6 updates by hand, the last two of them differentiated
        state = train.init(hyper, data, key=key)
        orders = [
            rr.training._epoch.rows_of_epoch(train.settings, state.key, epoch, data.train, None)
            for epoch in range(2)
        ]
        rows = jnp.concatenate(orders)

        def go(state, hyper, rows):
            for own in rows:
                state, _ = train.update(state, hyper, rr.data.take_rows(data.train, own))
            return state

        state = go(state, hyper, rows[:-2])

        def end(lam):
            last = go(state, hyper | lam, rows[-2:])
            return train.finish(last, hyper | lam, data).metrics["val_loss"]

        return {name: LAM[name] * slope for name, slope in jax.grad(end)(LAM).items()}

    wanted = plain()
    for name in LAM:
        np.testing.assert_allclose(found(2)[name], wanted[name], **tolerance())
        np.testing.assert_allclose(found(2, "reverse")[name], wanted[name], **tolerance())
        np.testing.assert_allclose(found(6)[name], found(None)[name], **tolerance())
    assert abs(found(2)["a"] - found(None)["a"]) > 1e-3


def test_lanes_are_the_runs_alone():
    data, train = ridge_data()[0], ridge(5, batch_size=4)
    lanes = {"lam": np.array([[0.1, 0.2], [0.3, 0.4], [1.0, 2.0]], np.float32)}
    lanes["key"] = jax.random.split(KEY, 3)

    def of_lane(lane, data):
        hyper = {"a": lane["lam"][0], "b": lane["lam"][1]}
        return rr.hypergradient(train, hyper, data, key=lane["key"], mode="reverse", remat=2)

    found = rr.lanes.map_lanes(of_lane, lanes, shared=data)
    together = jax.vmap(of_lane, in_axes=(0, None))(lanes, data)
    assert found.mode == "reverse"
    for lane in range(3):
        hyper = dict(zip("ab", lanes["lam"][lane].tolist(), strict=True))
        alone = rr.hypergradient(
            train, hyper, data, key=lanes["key"][lane], mode="reverse", remat=2
        )
        for one in (found, together):
            for name in "ab":
                np.testing.assert_allclose(
                    one.gradient[name][lane], alone.gradient[name], **tolerance()
                )
            np.testing.assert_allclose(one.value[lane], alone.value, **tolerance())


def test_reverse_mode_with_remat_needs_little_memory():
    """H = 16, 100 updates: 100 updates are kept by "full", and what about 10 + 10 take by "sqrt"."""
    data = held_out(sine(40, window=8), 30)
    net = rr.network([rr.cells.elman(16)], 1, readout="last", backend="fused")
    train = run_of(net, optax.sgd(1e-2), 100, penalties={"l2": rr.penalties.l2()})

    def bytes_of(**options):
        found = jax.jit(
            lambda lam: rr.hypergradient(train, {"l2": lam}, data, key=KEY, **options).gradient
        )
        return found.lower(1e-3).compile().memory_analysis().temp_size_in_bytes

    full, sqrt = (bytes_of(mode="reverse", remat=remat) for remat in ("full", "sqrt"))
    assert sqrt < full / 5


# ---- what is told and refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hyper", "options", "said"),
    [
        ({"a": 0.0, "b": 1.0}, {}, "hyper\\['a'\\] must be a number above 0.*log=False"),
        (LAM, {"names": "c"}, "names must be names of hyper"),
        (LAM, {"names": []}, "names must hold a hyperparameter"),
        (LAM, {"mode": "backward"}, "mode must be 'auto'"),
        (LAM, {"last": 7}, "last must lie in 1 … 6"),
        (LAM, {"last": 2, "mode": "implicit"}, "last counts the updates"),
        (LAM, {"damping": 0.1}, "damping is of mode='implicit'"),
        (LAM, {"damping": -0.1, "mode": "implicit"}, "damping must be a number of at least 0"),
        (LAM, {"num_iterations": 3}, "num_iterations is of mode='implicit'"),
        (LAM, {"remat": 0}, "remat must be"),
        (LAM | {"c": 1.0}, {}, "unknown hyperparameter 'c'"),
        (LAM | {"a": np.ones(2)}, {}, "must be one number"),
    ],
)
def test_wrong_calls_are_refused(hyper, options, said):
    with pytest.raises(ValueError, match=said):
        rr.hypergradient(ridge(6), hyper, ridge_data()[0], key=KEY, **options)


@pytest.mark.parametrize("function", [rr.hypergradient, rr.selection.tune_online])
def test_runs_that_go_back_or_have_no_validation_rows_are_refused(function):
    options = {"key": KEY} | ({"every": 2} if function is rr.selection.tune_online else {})
    data = ridge_data()[0]
    for settings in ({"keep_best": True}, {"patience": 3}):
        with pytest.raises(ValueError, match="early_stopping=False"):
            function(ridge(6, **settings), LAM, data, **options)
    with pytest.raises(ValueError, match="needs validation rows"):
        function(ridge(6), LAM, data.replace(validation=None), **options)


def test_what_moves_no_optimum_is_refused():
    train = ridge(6, optimizer=lambda hyper: optax.sgd(hyper["rate"]))
    hyper, data = LAM | {"rate": 0.1}, ridge_data()[0]
    with pytest.raises(ValueError, match="'rate' is in neither the objective nor the score"):
        rr.hypergradient(train, hyper, data, key=KEY, mode="implicit", names="rate")
    with pytest.raises(ValueError, match="proximal penalties"):
        rr.hypergradient(ridge(6, proximal="a"), LAM, data, key=KEY, mode="implicit")
    net = rr.network([rr.cells.elman(2)], 1, readout="last", recurrent_dropout=0.1)
    with pytest.raises(ValueError, match="draws random numbers"):
        rr.hypergradient(
            run_of(net, optax.sgd(0.1), 1), {"in": 0.1, "hh": 0.1}, data, key=KEY, mode="implicit"
        )


def test_a_root_of_zero_is_told():
    """A weight whose input is 0 has a gradient of exactly 0, and Adam divides by its root."""
    data = ridge_data()[0]
    blind = data.replace(train=data.train._replace(xs=data.train.xs.at[..., 0].set(0.0)))
    train = ridge(2, optimizer=optax.adam(0.1))
    with pytest.warns(RuntimeWarning, match="eps_root"):
        rr.hypergradient(train, LAM, blind, key=KEY)


def test_a_diverged_run_has_no_derivative():
    found = rr.hypergradient(ridge(80, optimizer=optax.sgd(1e3)), LAM, ridge_data()[0], key=KEY)
    assert np.isnan(found.value)
    assert all(np.isnan(slope) for slope in found.gradient.values())


@pytest.mark.numerics
def test_the_score_is_the_monitored_one_and_the_derivative_may_be_in_lambda():
    metrics = {
        "rmse": rr.metrics.Score(lambda outputs, ys: jnp.sqrt(LOSS(outputs, ys)), maximise=False)
    }
    train = ridge(300, metrics=metrics, monitor="rmse")
    found = rr.hypergradient(train, LAM, ridge_data()[0], key=KEY, log=False, names="b")
    value, slopes = closed_form(LAM)
    np.testing.assert_allclose(found.value, np.sqrt(value), **tolerance(loosen=10))
    wanted = slopes["b"] / LAM["b"] / (2 * np.sqrt(value))
    np.testing.assert_allclose(found.gradient["b"], wanted, **tolerance(loosen=10))
    assert list(found.gradient) == ["b"]


# ---- online ---------------------------------------------------------------------------------------


def ridge_of_one(num_epochs, **options):
    """One λ for all weights, on inputs that are orthogonal: w = Xᵀy / n / (1 + λ)."""
    return ridge(num_epochs, penalties={"l2": rr.penalties.l2()}, **options)


def best_lambda():
    _, X, y = ridge_data(orthogonal=True)
    least_squares = X[:10].T @ y[:10] / 10
    on_validation = X[10:].T @ y[10:] / 20
    return least_squares @ least_squares / (least_squares @ on_validation) - 1


def test_the_online_lambda_goes_to_the_best_one_in_every_lane():
    """With H a multiple of 1 the derivative of one step has the sign of that at the optimum."""
    data, train = ridge_data(orthogonal=True)[0], ridge_of_one(400)

    def of_lane(lam):
        return rr.selection.tune_online(train, {"l2": lam}, data, key=KEY, every=2)

    starts = np.array([0.02, 3.0], np.float32)
    found = jax.jit(jax.vmap(of_lane))(starts)
    best = best_lambda()
    assert starts[0] < best / 2 < best * 2 < starts[1]
    path = np.asarray(found.path["l2"])
    assert path.shape == (2, 200)
    np.testing.assert_allclose(path[:, 0], starts, rtol=1e-5)
    np.testing.assert_allclose(np.median(path[:, -50:], axis=1), best, rtol=0.1)
    assert np.all(np.abs(np.diff(np.log(path))) < 0.0501)
    # lanes are apart: one by one they are the same
    apart = rr.lanes.map_lanes(lambda lam, _: of_lane(lam), starts)
    np.testing.assert_allclose(path, apart.path["l2"], rtol=1e-4)
    history = apart.run.history
    assert history["val_loss"].shape == history["train_loss"].shape == (2, 200)
    assert np.all(history["val_loss"][:, -1] < history["val_loss"][:, 0])


@pytest.mark.numerics
def test_a_score_of_which_more_is_better_is_climbed():
    def path(**options):
        train = ridge(8, proximal="b", **options)
        tuned = rr.selection.tune_online(train, LAM, ridge_data()[0], key=KEY, every=2)
        return tuned.path["a"]

    negative = rr.metrics.Score(lambda outputs, ys: -LOSS(outputs, ys), maximise=True)
    climbed = path(metrics={"negative": negative}, monitor="negative")
    assert len(set(climbed.tolist())) == 4
    np.testing.assert_allclose(climbed, path(), **tolerance())


@pytest.mark.numerics
def test_the_first_step_of_lambda_is_that_of_the_last_updates_of_a_block():
    data, train = ridge_data()[0], ridge(2, batch_size=4)
    tuned = rr.selection.tune_online(
        train, LAM, data, key=KEY, every=3, last=2, optimizer=optax.sgd(0.5), bounds=(1e-3, 0.6)
    )
    found = rr.hypergradient(train.with_epochs(1), LAM, data, key=KEY, last=2)
    for name, lam in LAM.items():
        slope = tuned.gradient[name][0]
        np.testing.assert_allclose(slope, found.gradient[name], **tolerance())
        np.testing.assert_allclose(tuned.run.history["val_loss"][0], found.value, **tolerance())
        moved = np.clip(lam * np.exp(-0.5 * slope), 1e-3, 0.6)
        np.testing.assert_allclose(tuned.path[name][1], moved, **tolerance())
    assert set(tuned.hyper) == set(LAM)
    assert tuned.run.num_updates == 6


def test_wrong_online_calls_are_refused():
    def call(hyper=LAM, **options):
        rr.selection.tune_online(ridge(6), hyper, ridge_data()[0], key=KEY, **options)

    with pytest.raises(ValueError, match="every must divide"):
        call(every=4)
    with pytest.raises(ValueError, match="last must lie in 1 … 2"):
        call(every=2, last=3)
    with pytest.raises(ValueError, match="must lie in bounds"):
        call(every=2, bounds=(0.3, 1.0))
    with pytest.raises(ValueError, match="bounds must rise"):
        call(every=2, bounds=(1.0, 0.3))
