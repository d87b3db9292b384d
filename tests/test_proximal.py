"""Proximal steps: the maps themselves, the steps that optimisers take, the minimisers they reach, what is reported."""

import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import tolerance
from optax import contrib
from scipy.optimize import minimize
from sklearn.linear_model import ElasticNet, Lasso
from small import assert_same, held_out, make, sine

import rnnreg as rr
from rnnreg.penalties import elastic_net, elementwise, group_lasso, l1, l2, nuclear, scheduled
from rnnreg.penalties._prox import shrink_groups, shrink_singular_values
from rnnreg.training._proximal import _reals, _response, steps_of

pytestmark = pytest.mark.numerics

RNG = np.random.default_rng(3)
PARAMS = {
    "layer_0": {
        "W_xh": jnp.asarray(RNG.normal(size=(1, 2))),
        "W_hh": jnp.asarray(RNG.normal(size=(2, 2))),
        "b_h": jnp.asarray(RNG.normal(size=2)),
    },
    "readout": {"W_hy": jnp.asarray(RNG.normal(size=(2, 1)))},
}
AMOUNTS = jax.tree.map(lambda w: jnp.asarray(RNG.uniform(0.05, 1.0, w.shape)), PARAMS)

# The penalty, and whether its prox takes an amount for each weight.
PENALTIES = {
    "l1": (l1(), True),
    "l1, mean": (l1(("W_hh", "b_h"), reduction="mean", include_biases=True), True),
    "l2": (l2("W_hh"), True),
    "elastic_net": (elastic_net(0.7), True),
    "rows": (group_lasso("rows"), True),
    "columns": (group_lasso("columns", by_size=True), True),
    "units": (group_lasso("units", paths="layer_0/*"), True),
    "nuclear": (nuclear(), False),
    "scheduled": (scheduled(l1(), lambda count: 0.5), True),
}
every_penalty = pytest.mark.parametrize("name", PENALTIES)


# ---- the maps -------------------------------------------------------------------------------------


@pytest.mark.float64_only
@pytest.mark.parametrize("per_weight", [False, True])
@every_penalty
def test_a_prox_is_the_minimiser(name, per_weight):
    """R(v) + Σ (v − w)² / 2a has no lower place that SciPy finds, from the prox or from w."""
    penalty, takes_each = PENALTIES[name]
    if per_weight and not takes_each:
        pytest.skip("one amount for a matrix")
    flat, unravel = jax.flatten_util.ravel_pytree(PARAMS)
    amount = AMOUNTS if per_weight else 0.4
    weights = 1 / (jax.flatten_util.ravel_pytree(AMOUNTS)[0] if per_weight else 0.4)
    function = jax.jit(lambda v: penalty(unravel(v)) + jnp.sum(weights * (v - flat) ** 2) / 2)
    found = jax.flatten_util.ravel_pytree(penalty.prox(PARAMS, amount))[0]
    least = float(function(found))
    for start in (found, flat):
        best = minimize(function, start, method="Powell", options={"xtol": 1e-9, "ftol": 1e-13})
        assert least <= best.fun + 1e-10


@every_penalty
def test_a_prox_leaves_the_rest_alone_and_keeps_dtypes(name):
    penalty, _ = PENALTIES[name]
    covered = penalty.covers(PARAMS)
    for dtype in (jnp.bfloat16, jnp.float32):
        params = jax.tree.map(lambda leaf, dtype=dtype: leaf.astype(dtype), PARAMS)
        moved = jax.jit(penalty.prox)(params, 10.0)
        assert jax.tree.map(jnp.result_type, moved) == jax.tree.map(jnp.result_type, params)
        before, after = rr.leaf_paths(params), rr.leaf_paths(moved)
        assert {path for path in before if (before[path] != after[path]).any()} == set(covered)
        same = penalty.prox(params, 0.0)
        for old, new in zip(jax.tree.leaves(params), jax.tree.leaves(same), strict=True):
            np.testing.assert_allclose(
                np.asarray(new, float), np.asarray(old, float), **tolerance(dtype)
            )


@every_penalty
def test_a_prox_is_the_same_under_vmap(name):
    penalty, _ = PENALTIES[name]
    amounts = jnp.array([0.0, 0.1, 3.0])
    together = jax.jit(jax.vmap(lambda a: penalty.prox(PARAMS, a)))(amounts)
    for place, amount in enumerate(amounts):
        alone = jax.jit(penalty.prox)(PARAMS, amount)
        for one, all_ in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(all_[place], one, **tolerance())


@pytest.mark.float64_only
def test_groups_in_a_metric_of_many_scales():
    """The conditions of a minimum, (w − v) / a = v / ‖v‖ or ‖w / a‖ ≤ 1, with amounts from 1e-4 to 1e4."""
    w = RNG.normal(size=(40, 6)) * 10 ** RNG.uniform(-3, 3, (40, 6))
    a = 10 ** RNG.uniform(-4, 4, (40, 6))
    v = np.asarray(shrink_groups(jnp.asarray(w), jnp.asarray(a)))
    kept = np.linalg.norm(w / a, axis=1) > 1
    assert ((v != 0).any(axis=1) == kept).all()
    v, w, a = v[kept], w[kept], a[kept]
    np.testing.assert_allclose(
        v * (1 + a / np.linalg.norm(v, axis=1, keepdims=True)), w, rtol=1e-8, atol=1e-12
    )


def test_groups_of_zeros_and_of_tiny_weights():
    groups = jnp.array([[0.0, 0.0], [3e-30, 4e-30], [3e30, 4e30]], jnp.float32)
    moved = shrink_groups(groups, jnp.float32(2.5e-30))
    np.testing.assert_allclose(moved[1], [1.5e-30, 2e-30], rtol=1e-5)
    np.testing.assert_allclose(moved[2], groups[2], rtol=1e-6)
    assert (moved[0] == 0).all()
    for gradient in jax.grad(lambda w, a: shrink_groups(w, a).sum(), (0, 1))(groups * 0, 0.0):
        assert jnp.isfinite(gradient).all()


@pytest.mark.float64_only
@pytest.mark.parametrize("case", ["random", "wide", "tall", "orthogonal", "zero"])
def test_the_derivative_of_shrunk_singular_values(case):
    """Against finite differences, at singular values that are equal and at 0 too."""
    shape = {"wide": (2, 4), "tall": (4, 2)}.get(case, (3, 3))
    W = RNG.normal(size=shape)
    W = {"orthogonal": np.linalg.qr(W)[0] if W.shape[0] == 3 else W, "zero": 0 * W}.get(case, W)
    W, direction = W[None], RNG.normal(size=(1, *shape))
    function = jax.jit(shrink_singular_values)
    _, found = jax.jvp(function, (W, jnp.float64(0.3)), (direction, jnp.float64(1.0)))
    step = 1e-6
    ends = [function(W + s * direction, jnp.float64(0.3 + s)) for s in (step, -step)]
    np.testing.assert_allclose(found, (ends[0] - ends[1]) / (2 * step), atol=1e-7)


# ---- the steps of optimisers ----------------------------------------------------------------------

RATE, BETA, B2 = 0.1, 0.9, 0.99


def _v_hat(gradients, corrected=True):
    """Adam's second moment, decayed once more."""
    moment = 0.0
    for g in gradients:
        moment = B2 * moment + (1 - B2) * g**2
    return B2 * moment / (1 - B2 ** len(gradients) if corrected else 1)


# An optimiser, and the displacement per unit of a gradient that it has had in every one of n updates.
STEPS = {
    "sgd": (optax.sgd(RATE), lambda n, _: RATE),
    "momentum": (optax.sgd(RATE, momentum=BETA), lambda n, _: RATE * (1 - BETA**n) / (1 - BETA)),
    "nesterov": (
        optax.sgd(RATE, momentum=BETA, nesterov=True),
        lambda n, _: RATE * (1 - BETA ** (n + 1)) / (1 - BETA),
    ),
    "schedule": (
        optax.sgd(optax.exponential_decay(RATE, 1, 0.5)),
        lambda n, _: RATE / 2 ** (n - 1),
    ),
    "clip": (optax.chain(optax.clip_by_global_norm(1e-3), optax.sgd(RATE)), lambda n, _: RATE),
    "inject": (optax.inject_hyperparams(optax.sgd)(RATE), lambda n, _: RATE),
    "adam": (
        optax.adam(RATE, b1=BETA, b2=B2),
        lambda n, g: RATE / (np.sqrt(_v_hat(g)) + 1e-8),
    ),
    "adamw": (
        optax.adamw(RATE, b1=BETA, b2=B2, weight_decay=0.1),
        lambda n, g: RATE / (np.sqrt(_v_hat(g)) + 1e-8),
    ),
    "rmsprop": (
        optax.rmsprop(RATE, decay=B2),
        lambda n, g: RATE / np.sqrt(_v_hat(g, corrected=False) + 1e-8),
    ),
}


@pytest.mark.float64_only
@pytest.mark.parametrize("name", STEPS)
def test_the_step_is_read_from_the_optimiser(name):
    optimizer, expected = STEPS[name]
    optimizer = optax.with_extra_args_support(optimizer)
    params = {"W": jnp.asarray(RNG.normal(size=(2, 3)))}
    ones, state = jax.tree.map(jnp.ones_like, params), optimizer.init(params)
    unit, gradients = [jnp.zeros_like(leaf) for leaf in _reals(state)], []
    for n in range(1, 4):
        gradients.append(RNG.normal(size=(2, 3)))
        _, after = optimizer.update({"W": jnp.asarray(gradients[-1])}, state, params)
        answer, unit = _response(optimizer, state, after, params, {})(ones, unit)
        np.testing.assert_allclose(-answer["W"], np.broadcast_to(expected(n, gradients), (2, 3)))
        state = after


def test_one_update_of_sgd_is_proximal_gradient_descent():
    """w ← S(w − α ∂L/∂w, αλ) for the covered leaf, and plain steps for the others."""
    split, hyper = sine(), {"l1": 0.3, "l2": 0.1, "learning_rate": 0.2}
    train = make(penalties={"l1": l1("W_hh"), "l2": l2()}, proximal="l1")
    state = train.init(hyper, split, key=jax.random.key(0))
    objective = rr.make_objective(train.settings.net, train.settings.loss, {"l2": l2()})

    def data(params):
        return objective(params, hyper, split.train, {"l2": ()}, key=None, train=True)[0]

    update = jax.jit(train.update)
    for _ in range(3):
        gradients = jax.jit(jax.grad(data))(state.params)
        expected = jax.tree.map(lambda w, g: w - 0.2 * g, state.params, gradients)
        expected["layer_0"]["W_hh"] = l1().prox({"W": expected["layer_0"]["W_hh"]}, 0.06)["W"]
        state, info = update(state, hyper, split.train)
        for one, two in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, two, **tolerance())
    np.testing.assert_allclose(
        info.total,
        info.data_loss + 0.3 * info.penalties["l1"] + 0.1 * info.penalties["l2"],
        **tolerance(),
    )


REFUSED = {
    "lion": (optax.lion(0.1), "it takes its sign"),
    "sign": (optax.sign_sgd(0.1), "it takes its sign"),
    "signum": (optax.signum(0.1), "it takes its sign"),
    "rprop": (optax.rprop(0.1), "it takes its sign"),
    "rprop of one leaf": (
        optax.partition(
            {"rprop": optax.rprop(0.1), "sgd": optax.sgd(0.1)},
            {
                "layer_0": {"W_hh": "rprop", "W_xh": "sgd", "b_h": "sgd"},
                "readout": {"W_hy": "sgd", "b_y": "sgd"},
            },
        ),
        "it takes its sign",
    ),
    "nothing moves": (optax.set_to_zero(), "moves none of the leaves that 'l1' covers"),
    "adafactor": (optax.adafactor(0.1, multiply_by_parameter_scale=False), "Adafactor"),
    "polyak": (optax.polyak_sgd(), "the value of the loss"),
    "lars": (optax.lars(0.1), "size of the weights"),
    "fromage": (optax.fromage(0.1), "size of the weights"),
    "novograd": (optax.novograd(0.1), "size of the weights"),
    "momo": (contrib.momo(), "mixes the gradients"),
    "lbfgs": (optax.lbfgs(0.1), "mixes the gradients"),
    "line search": (
        optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(5)),
        "mixes the gradients",
    ),
    "muon": (contrib.muon(0.1), "mixes the gradients"),
    "lamb": (optax.lamb(0.1), "size of the weights"),
    "normalised": (
        optax.chain(optax.normalize_by_update_norm(), optax.sgd(0.1)),
        "by a norm or a mean of all",
    ),
    "centred": (optax.chain(optax.centralize(), optax.adam(0.1)), "by a norm or a mean of all"),
    "every second update": (
        optax.MultiSteps(optax.sgd(0.1), 2),
        r"in some of its updates only .optax.MultiSteps.",
    ),
    "schedule_free": (contrib.schedule_free(optax.sgd(0.1), 0.1), "averages the parameters"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_optimisers_without_such_a_step_are_refused(name):
    optimizer, why = REFUSED[name]
    train = make(penalties={"l1": l1()}, optimizer=optimizer, proximal=True)
    with pytest.raises(ValueError, match=rf"proximal=\['l1'\]: no proximal step.*{why}.*optax.sgd"):
        jax.eval_shape(lambda: train({"l1": 0.1}, sine(), key=jax.random.key(0)))


def test_the_nuclear_norm_wants_one_rate_a_matrix():
    options = {"penalties": {"rank": nuclear()}, "proximal": True}
    with pytest.raises(ValueError, match="nuclear norm has no proximal step with another amount"):
        make(optimizer=optax.adam(0.1), **options).init(
            {"rank": 0.1}, sine(), key=jax.random.key(0)
        )
    params = make().init({"l2": 0.0, "learning_rate": 0.1}, sine(), key=jax.random.key(0)).params
    sgd = optax.with_extra_args_support(optax.sgd(0.1, momentum=0.9))
    assert set(steps_of(sgd, sgd.init(params), params).values()) == {"one"}


# ---- the minimisers -------------------------------------------------------------------------------

INPUTS, NUM_UPDATES, LAMS = 5, 1500, np.array([0.05, 0.3, 1.0, 2.5])


def _linear(num_outputs=1):
    """A linear network at T = 1 whose only free parameters are W_xh and b_y; rows; and the optimiser of those alone."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, INPUTS))
    true = rng.normal(size=(INPUTS, num_outputs)) * [[1], [0], [1], [0.3], [0]]
    Y = X @ true + 0.3 * rng.normal(size=(30, num_outputs)) + 1.5
    net = rr.network(
        [rr.cells.elman(num_outputs, activation="identity")], num_outputs, readout="last"
    )
    params = net.init(jax.random.key(0), INPUTS, dtype=jnp.float64)
    params["readout"]["W_hy"] = jnp.eye(num_outputs)
    labels = jax.tree.map(lambda _: "fixed", params)
    labels["layer_0"]["W_xh"] = labels["readout"]["b_y"] = "free"

    def alone(optimizer):
        return optax.partition({"free": optimizer, "fixed": optax.set_to_zero()}, labels)

    return net, params, rr.Batch(jnp.asarray(X)[:, None], jnp.asarray(Y)), X, Y, alone


def _path(penalty, optimizer, num_outputs=1, lams=LAMS):
    """W_xh `[n, p, O]` of each λ."""
    net, params, batch, _, _, alone = _linear(num_outputs)
    train = make(
        net,
        loss=rr.losses.squared_error("sum"),
        penalties={"r": penalty},
        optimizer=alone(optimizer),
        num_epochs=NUM_UPDATES,
        record_every=NUM_UPDATES,
        proximal=True,
    )
    run = jax.jit(
        jax.vmap(lambda lam: train({"r": lam}, batch, key=jax.random.key(0), params=params))
    )(jnp.asarray(lams))
    return np.asarray(run.params["layer_0"]["W_xh"])


OPTIMISERS = {
    "sgd": optax.sgd(0.2),
    "momentum": optax.sgd(0.05, momentum=0.8),
    "nesterov": optax.sgd(0.05, momentum=0.8, nesterov=True),
    "clipped": optax.chain(optax.clip_by_global_norm(0.3), optax.sgd(0.2)),
    "adam": optax.adam(optax.cosine_decay_schedule(0.05, NUM_UPDATES)),
    "amsgrad, injected": optax.inject_hyperparams(optax.amsgrad)(0.05),
    "nadam": optax.nadam(optax.cosine_decay_schedule(0.05, NUM_UPDATES)),
    "rmsprop": optax.rmsprop(optax.cosine_decay_schedule(0.05, NUM_UPDATES), decay=0.9),
    "clipped adam": optax.chain(
        optax.clip_by_global_norm(0.3),
        optax.adam(optax.cosine_decay_schedule(0.05, NUM_UPDATES)),
    ),
}


_FALLING = optax.cosine_decay_schedule(0.05, NUM_UPDATES)
MORE = {  # the others of optax that are not refused
    "adabelief": optax.adabelief(_FALLING),
    "adagrad": optax.adagrad(0.5),
    "adamax": optax.adamax(_FALLING),
    "adan": optax.adan(_FALLING),
    "adamw": optax.adamw(_FALLING, weight_decay=0.0),
    "noisy_sgd": optax.noisy_sgd(0.1, eta=1e-12, key=jax.random.key(0)),
    "optimistic_gradient_descent": optax.optimistic_gradient_descent(0.05),
    "optimistic_adam_v2": optax.optimistic_adam_v2(_FALLING),
    "radam": optax.radam(_FALLING),
    "centred rmsprop": optax.rmsprop(_FALLING, centered=True),
    "sm3": optax.sm3(0.5),
    "yogi": optax.yogi(_FALLING),
    "acprop": contrib.acprop(_FALLING),
    "adopt": contrib.adopt(_FALLING),
    "every second update": optax.chain(optax.sgd(0.05), optax.apply_every(2)),
}
OPTIMISERS |= MORE


@pytest.mark.float64_only
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in MORE else ()) for name in OPTIMISERS],
)
def test_the_l1_path_of_a_linear_network_is_the_lasso(name):
    """To 1e-6 and with the same zeros, whatever the optimiser: a metric or a clipped norm do not move the minimiser."""
    _, _, _, X, Y, _ = _linear()
    found = _path(l1("W_xh"), OPTIMISERS[name])[..., 0]
    for lam, w in zip(LAMS, found, strict=True):
        alpha = rr.penalties.convert_lambda(lam, "rnnreg", "sklearn_lasso")
        lasso = Lasso(alpha=alpha, tol=1e-14, max_iter=100_000).fit(X, Y[:, 0])
        np.testing.assert_allclose(w, lasso.coef_, atol=1e-6)
        np.testing.assert_array_equal(w == 0, lasso.coef_ == 0)
    assert 0 < (found == 0).sum() < found.size


@pytest.mark.float64_only
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_the_path_of_elastic_net(name):
    _, _, _, X, Y, _ = _linear()
    found = _path(elastic_net(0.6, paths="W_xh"), OPTIMISERS[name])[..., 0]
    for lam, w in zip(LAMS, found, strict=True):
        first, second = lam * 0.6 / 2, lam * 0.4  # α ρ and α (1 − ρ) there
        net = ElasticNet(
            alpha=first + second, l1_ratio=first / (first + second), tol=1e-14, max_iter=100_000
        ).fit(X, Y[:, 0])
        np.testing.assert_allclose(w, net.coef_, atol=1e-6)
        np.testing.assert_array_equal(w == 0, net.coef_ == 0)


@pytest.mark.float64_only
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_the_path_of_the_group_lasso_fulfils_its_conditions(name):
    """2 Xᵀ(XW + b − Y) / n = −λ w_g / ‖w_g‖ on rows that are kept, and no longer than λ on those that are 0."""
    _, _, _, X, Y, _ = _linear(2)
    centred, Y = X - X.mean(0), Y - Y.mean(0)
    zeros = []
    for lam, W in zip(
        LAMS, _path(group_lasso("rows", paths="W_xh"), OPTIMISERS[name], 2), strict=True
    ):
        pull = 2 * centred.T @ (centred @ W - Y) / len(X)
        length = np.linalg.norm(W, axis=1, keepdims=True)
        kept = length[:, 0] > 0
        np.testing.assert_allclose(pull[kept], -lam * W[kept] / length[kept], atol=1e-6)
        assert (np.linalg.norm(pull[~kept], axis=1) <= lam + 1e-9).all()
        zeros.append((~kept).sum())
    assert zeros[-1] > 0
    assert zeros[0] < INPUTS


@pytest.mark.float64_only
def test_the_path_of_the_nuclear_norm_fulfils_its_conditions():
    """The gradient is −λ (U Vᵀ + rest), the rest orthogonal to W and not longer than 1."""
    _, _, _, X, Y, _ = _linear(2)
    centred, Y = X - X.mean(0), Y - Y.mean(0)
    ranks = []
    for lam, W in zip(LAMS, _path(nuclear("W_xh"), optax.sgd(0.1, momentum=0.5), 2), strict=True):
        pull = -2 * centred.T @ (centred @ W - Y) / len(X) / lam
        U, sigma, Vt = np.linalg.svd(W, full_matrices=False)
        kept = sigma > 1e-9
        assert np.linalg.norm(pull, 2) <= 1 + 1e-6
        np.testing.assert_allclose(
            (U.T @ pull @ Vt.T)[np.ix_(kept, kept)], np.eye(kept.sum()), atol=1e-6
        )
        ranks.append(kept.sum())
    assert ranks[0] == 2
    assert ranks[-1] < 2


# ---- runs -----------------------------------------------------------------------------------------


def _small(**options):
    defaults = {"penalties": {"l1": l1("W_hh")}, "proximal": True, "num_epochs": 6}
    return make(**(defaults | options))


@pytest.mark.slow
def test_l1_of_a_recurrent_matrix_reaches_true_zeros_on_the_sunspots():
    split = rr.datasets.sunspots(window=6)
    net = rr.network([rr.cells.elman(4)], 1, readout="last")
    options = {"optimizer": optax.adam(1e-2), "num_epochs": 150, "record_every": 50}
    grid = {"l1": [0.0, 3e-2, 1.0]}
    found = {}
    for proximal in (True, False):
        train = make(net, penalties={"l1": l1("W_hh")}, proximal=proximal, **options)
        result = rr.sweep(train, grid, split, key=jax.random.key(0), progress=False)
        weights = result.groups[0].params["layer_0"]["W_hh"]
        found[proximal] = (weights == 0).sum(axis=(-2, -1))[:, 0]
        if proximal:
            np.testing.assert_array_equal(result.metrics.zeros_l1[:, 0], found[True])
            np.testing.assert_array_equal(result.metrics.history_zeros_l1[:, 0, -1], found[True])
            last = result.metrics.isel(l1=-1, seed=0)
            assert last["units_off.layer_0.W_hh"] == 4
            assert last["rank.layer_0.W_hh"] == 0
            assert result.config["proximal"] == [["l1"]]
        else:
            assert "zeros_l1" not in result.metrics
    assert found[True][0] == 0 < found[True][1] < found[True][2] == 16
    assert (found[False] == 0).all()


@pytest.mark.parametrize("optimizer", [optax.sgd(0.1, momentum=0.9), optax.adam(1e-2)])
def test_lambda_zero_is_the_run_without_the_penalty(optimizer):
    split = sine()
    plain = make(penalties={}, optimizer=optimizer)({}, split, key=jax.random.key(0))
    zero = _small(optimizer=optimizer)({"l1": 0.0}, split, key=jax.random.key(0))
    for one, two in zip(jax.tree.leaves(zero.params), jax.tree.leaves(plain.params), strict=True):
        np.testing.assert_allclose(one, two, **tolerance())  # two programs round differently


def test_weights_without_a_gradient_stay_finite_under_adam():
    """An input that is always 0 with weights that are 0: the root of a second moment of 0 has no derivative."""
    split = sine()
    rows = split.train._replace(xs=jnp.concatenate([split.train.xs, 0 * split.train.xs], axis=-1))
    train = _small(penalties={"l1": l1("W_xh")}, optimizer=optax.adam(1e-2))
    params = train.init({"l1": 0.1}, rows, key=jax.random.key(0)).params
    params["layer_0"]["W_xh"] = params["layer_0"]["W_xh"].at[1].set(0)
    for lam in (0.0, 0.1):
        run = train({"l1": lam}, rows, key=jax.random.key(0), params=params)
        assert run.diverged_at == -1
        assert (run.params["layer_0"]["W_xh"][1] == 0).all()
        assert jnp.isfinite(run.params["layer_0"]["W_xh"]).all()


def test_a_path_under_vmap_equals_the_runs_alone_and_its_gradient_is_that_of_differences():
    split = sine(dtype=jnp.result_type(float))
    train = _small(optimizer=optax.adam(3e-2), num_epochs=8)

    def loss(lam):
        return train({"l1": lam}, split, key=jax.random.key(0)).metrics["train_loss"]

    lams = jnp.array([0.0, 0.05, 0.2])
    together = jax.jit(jax.vmap(loss))(lams)
    np.testing.assert_allclose(together, [loss(lam) for lam in lams], **tolerance())
    if jax.config.jax_enable_x64:
        step = 1e-6
        slope = jax.jit(jax.grad(loss))(0.05)
        ends = [loss(0.05 + sign * step) for sign in (1, -1)]
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-5)


@pytest.mark.slow
def test_segments_best_records_and_split_rows():
    split = held_out(sine(targets="all"), 24)
    net = rr.network([rr.cells.elman(4)], 1)
    options = {"optimizer": optax.adam(1e-2), "net": net, "batch_size": 8}
    cut = _small(segment_steps=2, keep_best=True, **options)
    run = cut({"l1": 3.0}, split, key=jax.random.key(0))
    assert run.num_updates == 6 * 3 * 2
    assert run.metrics["zeros_l1"] == (run.params["layer_0"]["W_hh"] == 0).sum()
    whole = _small(**options)
    split_up = whole.split_rows(tuple(jax.devices()[:1]))
    one, two = (train({"l1": 0.5}, split, key=jax.random.key(0)) for train in (whole, split_up))
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(two.params), strict=True):
        np.testing.assert_allclose(a, b, **tolerance())


def test_a_lane_that_diverges_keeps_its_last_finite_state():
    train = _small(optimizer=optax.sgd(0.1))
    state = train.init({"l1": 0.1}, sine(), key=jax.random.key(0))
    bad = sine().train._replace(ys=jnp.full_like(sine().train.ys, jnp.inf))
    after, info = jax.jit(train.update)(state, {"l1": 0.1}, bad)
    assert not info.finite
    assert after.diverged_at == 0
    assert_same(after.proximal, state.proximal)


CHANGING = {
    "sgd": optax.sgd(0.1),
    "clipped": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.02)),
    "momentum": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.01, momentum=0.5)),
    "adam": optax.adam(1e-2),
}


@pytest.mark.parametrize("name", CHANGING)
def test_while_a_schedule_is_0_no_lambda_matters(name):
    """Warm-up: as without the penalty; then, with SGD and a large λ, every weight is 0."""
    warm = scheduled(l1("W_hh"), lambda count: jnp.where(count < 3, 0.0, 1.0))
    train = _small(penalties={"l1": warm}, optimizer=CHANGING[name])
    plain = make(penalties={}, optimizer=CHANGING[name])
    state = train.init({"l1": 50.0}, sine(), key=jax.random.key(0))
    other = plain.init({}, sine(), key=jax.random.key(0))
    update, step = jax.jit(train.update), jax.jit(plain.update)
    for count in range(5):
        state, _ = update(state, {"l1": 50.0}, sine().train)
        other, _ = step(other, {}, sine().train)
        if count < 3:
            for one, two in zip(*map(jax.tree.leaves, (state.params, other.params)), strict=True):
                np.testing.assert_allclose(one, two, **tolerance())
    if name == "sgd":
        assert (state.params["layer_0"]["W_hh"] == 0).all()


@pytest.mark.parametrize(
    ("name", "by"),
    [("clipped", "schedule"), ("clipped", "hand"), ("momentum", "hand"), ("adam", "schedule")],
)
def test_a_strength_that_changes_kicks_no_weight(name, by):
    """λ s = 0, then a pulse of 5, then 0: prox and gradient go one way, but for weights that the prox holds at 0."""
    pulse = scheduled(l1("W_hh"), lambda count: jnp.where((count >= 3) & (count < 6), 1.0, 0.0))
    penalty = pulse if by == "schedule" else l1("W_hh")
    sizes = {}
    for proximal in (True, False):
        train = make(penalties={"l1": penalty}, optimizer=CHANGING[name], proximal=proximal)
        state = train.init({"l1": 5.0}, sine(), key=jax.random.key(0))
        update = jax.jit(train.update)
        norms = []
        for count in range(10):
            lam = 5.0 if by == "schedule" or 3 <= count < 6 else 0.0
            state, _ = update(state, {"l1": lam}, sine().train)
            norms.append(float(jnp.abs(state.params["layer_0"]["W_hh"]).sum()))
        sizes[proximal] = norms
    np.testing.assert_allclose(sizes[True], sizes[False], rtol=1e-2)
    assert sizes[True][-1] < sizes[True][2]


def test_what_is_counted():
    """A unit is off if its row or its column is 0; a GRU's unit receives through three gates."""
    net = rr.network([rr.cells.gru(3)], 1, readout="last")
    train = make(net, penalties={"l1": l1("W_*h")}, proximal=True, optimizer=optax.sgd(0.1))
    state = train.init({"l1": 0.0}, sine(), key=jax.random.key(0))
    vectors = zip(
        [[1, 1, 1], [1, 1, -1], [2, 1, 1]], [[1, 1, 1], [2, 3, 1], [1, 4, 2]], strict=True
    )
    W = np.concatenate([np.outer(u, v) for u, v in vectors], axis=1)  # each block of rank 1
    W[0] = 0  # unit 0 sends nothing
    W[:, [2, 5]] = 0  # unit 2 receives through one gate only
    params = state.params | {"layer_0": state.params["layer_0"] | {"W_hh": jnp.asarray(W)}}
    counted = train.finish(state._replace(params=params), {"l1": 0.0}, sine()).metrics
    assert counted["zeros_l1"] == 9 + 4
    assert counted["units_off/layer_0/W_hh"] == 1
    assert np.linalg.matrix_rank(W) == 2
    assert counted["rank/layer_0/W_hh"] == 1  # the largest over the blocks


def test_nothing_is_carried_without_proximal_penalties():
    state = make().init({"l2": 0.1, "learning_rate": 0.1}, sine(), key=jax.random.key(0))
    assert state.proximal == ()


# ---- wrong calls ----------------------------------------------------------------------------------

WRONG = {
    "unknown": ({"proximal": "l3"}, "names of penalties, .'l1', 'quartic'.; got 'l3'"),
    "no prox": ({"proximal": "quartic"}, "'elementwise' states no prox.*with a prox are .'l1'."),
    "none has one": (
        {"proximal": True, "penalties": {"q": elementwise(jnp.square)}},
        "none of the penalties .'q'. states a prox",
    ),
    "states": (
        {"proximal": True, "penalties": {"l1": replace(l1(), needs=frozenset({"states"}))}},
        "looks at states",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_names_are_told(name):
    options, message = WRONG[name]
    given = {"penalties": {"l1": l1(), "quartic": elementwise(lambda w: w**4)}} | options
    with pytest.raises(ValueError, match=message):
        make(**given)


def test_two_proximal_penalties_may_not_share_a_leaf():
    train = make(penalties={"a": l1("W_hh"), "b": group_lasso("columns")}, proximal=True)
    with pytest.raises(ValueError, match="'a' and 'b' both cover 'layer_0/W_hh'"):
        train.init({"a": 0.1, "b": 0.1, "learning_rate": 0.1}, sine(), key=jax.random.key(0))


def test_a_prox_of_ones_own_must_return_parameters():
    wrong = replace(l1(), prox=lambda params, amount, weights=None, state=None: params["layer_0"])
    train = make(penalties={"l1": wrong}, proximal=True)
    with pytest.raises(ValueError, match=r"prox of penalties\['l1'\] must return parameters"):
        train.init({"l1": 0.1, "learning_rate": 0.1}, sine(), key=jax.random.key(0))


def test_the_same_penalty_by_prox_and_by_gradient_warns():
    warns = pytest.warns(
        RuntimeWarning, match="'a'.*prox and penalties.'b'.*'layer_0/W_hh'.*add up"
    )
    others = (l1(), l1("layer_0/*"), scheduled(l1("W_*"), lambda count: 0.5))
    for other in others:
        train = make(penalties={"a": l1("W_hh"), "b": other}, proximal="a")
        with warns:
            _start_of(train)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for other in (l1("W_xh"), l2()):
            _start_of(make(penalties={"a": l1("W_hh"), "b": other}, proximal="a"))


def _start_of(train):
    hyper = {"a": 0.1, "b": 0.1, "learning_rate": 0.1}
    return jax.eval_shape(lambda: train.init(hyper, sine(), key=jax.random.key(0)))
