"""`convert_lambda` against the tools themselves: the same problem must have the same solution.

glmnet.json holds what R's glmnet said; golden/glmnet.R is the script that asked it.
"""

import itertools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import require, tolerance
from sklearn.linear_model import Lasso, Ridge

import rnnreg as rr
from rnnreg import convert_lambda
from rnnreg.penalties._conventions import _TO_OURS

pytestmark = pytest.mark.numerics

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "glmnet.json").read_text())
X, Y = np.array(GOLDEN["X"]), np.array(GOLDEN["y"])
SIZES = {"num_weights": 12, "num_rows": len(Y), "target_sd": Y.std()}  # std is the one with 1/n

LOSS = rr.losses.squared_error("mean")


def _gradient_of_loss(coefficients, intercept):
    """∂/∂w and ∂/∂b of our mean squared error of a linear model, at another tool's solution."""
    dtype = jnp.result_type(float)
    xs, ys = jnp.asarray(X, dtype), jnp.asarray(Y[:, None], dtype)

    def data_loss(w, b):
        return LOSS(xs @ w[:, None] + b, ys)

    w, b = jnp.asarray(coefficients, dtype), jnp.asarray(intercept, dtype)
    return jax.grad(data_loss, argnums=(0, 1))(w, b)


def _assert_minimises_ridge(lam, coefficients, intercept, limits):
    """The gradient of mean loss + λ Σ w² vanishes, and does not at a λ that is 1 % larger."""
    gradient_w, gradient_b = _gradient_of_loss(coefficients, intercept)
    penalty = jax.grad(lambda w: rr.penalties.l2(include_biases=True).value({"W": w}, None, ())[0])
    pull = penalty(jnp.asarray(coefficients, gradient_w.dtype))
    np.testing.assert_allclose(gradient_w + lam * pull, 0, **limits)
    np.testing.assert_allclose(gradient_b, 0, **limits)
    assert np.abs(gradient_w + 1.01 * lam * pull).max() > 5 * limits["atol"]


def _assert_minimises_lasso(lam, coefficients, intercept, limits):
    """Subgradient conditions of mean loss + λ Σ |w|: −λ sign(w) where w ≠ 0, within ±λ at 0."""
    coefficients = np.asarray(coefficients)
    gradient_w, gradient_b = map(np.asarray, _gradient_of_loss(coefficients, intercept))
    active = coefficients != 0
    assert active.any()
    np.testing.assert_allclose(gradient_w[active], -lam * np.sign(coefficients[active]), **limits)
    assert (np.abs(gradient_w[~active]) <= lam).all()
    np.testing.assert_allclose(gradient_b, 0, **limits)


# ---- scikit-learn ---------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.1, 5.0, 100.0])
def test_scikit_learn_ridge(alpha):
    lam = convert_lambda(alpha, "sklearn_ridge", "rnnreg", num_rows=len(Y))
    model = Ridge(alpha=alpha, tol=1e-14).fit(X, Y)
    _assert_minimises_ridge(lam, model.coef_, model.intercept_, tolerance())
    # and the closed form of our own problem, (XᵀX/n + λI) w = Xᵀy/n on centred data
    centred, target = X - X.mean(axis=0), Y - Y.mean()
    gram = centred.T @ centred / len(Y) + lam * np.eye(X.shape[1])
    closed_form = np.linalg.solve(gram, centred.T @ target / len(Y))
    np.testing.assert_allclose(model.coef_, closed_form, rtol=1e-10)


@pytest.mark.parametrize("alpha", [0.02, 0.3, 0.9])
def test_scikit_learn_lasso(alpha):
    lam = convert_lambda(alpha, "sklearn_lasso", "rnnreg")
    model = Lasso(alpha=alpha, tol=1e-14, max_iter=100_000).fit(X, Y)
    _assert_minimises_lasso(lam, model.coef_, model.intercept_, tolerance())
    if alpha > 0.1:
        assert (model.coef_ == 0).any()


# Coordinate descent at thresh=1e-14 stops about 1e-8 from the minimum, however exact our gradient is.
_GLMNET = {"rtol": max(tolerance()["rtol"], 1e-7), "atol": max(tolerance()["atol"], 1e-7)}

# ---- glmnet ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(3))
def test_glmnet_ridge(index):
    """glmnet works on y / sd(y) and scales λ too, so that its ridge λ carries the unit of y."""
    path = GOLDEN["ridge"]
    lam = convert_lambda(path["lambda"][index], "glmnet_ridge", "rnnreg", target_sd=Y.std())
    _assert_minimises_ridge(lam, path["coefficients"][index], path["intercept"][index], _GLMNET)


@pytest.mark.parametrize("index", range(3))
def test_glmnet_lasso(index):
    path = GOLDEN["lasso"]
    lam = convert_lambda(path["lambda"][index], "glmnet_lasso", "rnnreg")
    _assert_minimises_lasso(lam, path["coefficients"][index], path["intercept"][index], _GLMNET)


@pytest.mark.parametrize("path", ["cv_ridge", "cv_lasso"])
def test_golden_cross_validation_follows_the_weighted_rule(path):
    """cvm and cvsd weigh folds by their rows; an unweighted mean would choose another λ here."""
    cv, sizes = GOLDEN[path], np.array(GOLDEN["fold_sizes"])
    lam, errors = np.array(cv["lambda"]), np.array(cv["fold_errors"])
    assert errors.shape == (len(sizes), len(lam))
    cvm = np.average(errors, axis=0, weights=sizes)
    variance = np.average((errors - cvm) ** 2, axis=0, weights=sizes)
    cvsd = np.sqrt(variance / (len(sizes) - 1))
    np.testing.assert_allclose(cvm, cv["cvm"], rtol=1e-12)
    np.testing.assert_allclose(cvsd, cv["cvsd"], rtol=1e-12)
    best = lam[cvm <= cvm.min()].max()
    within = cvm <= cvm[lam == best] + cvsd[lam == best]
    assert best == cv["lambda_min"]
    assert lam[within].max() == cv["lambda_1se"]
    assert lam[errors.mean(axis=0).argmin()] != best


# ---- weight decay: optax and PyTorch --------------------------------------------------------------


def _regression(dtype):
    w = np.linspace(-1.0, 1.0, X.shape[1])[:, None]
    return {"W_hy": jnp.asarray(w, dtype), "b_y": jnp.asarray([0.3], dtype)}


def _steps(params, optimizer, lam, num_steps):
    """Steps of an optax optimiser on mean loss + λ Σ w², biases left out."""
    xs, ys = jnp.asarray(X, params["W_hy"].dtype), jnp.asarray(Y[:, None], params["W_hy"].dtype)
    penalty = rr.penalties.l2()

    def total(params):
        loss = LOSS(xs @ params["W_hy"] + params["b_y"], ys)
        return loss + lam * penalty.value(params, None, ())[0]

    @jax.jit
    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(total)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=num_steps)
    return params


def _decay(lam):
    strength = convert_lambda(lam, "rnnreg", "weight_decay")
    assert strength == 2 * lam
    return optax.add_decayed_weights(strength, mask={"W_hy": True, "b_y": False})


@pytest.mark.parametrize("num_steps", [1, 50])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_optax_weight_decay_is_the_same_under_sgd(momentum, num_steps):
    lam, sgd = 0.05, optax.sgd(0.02, momentum=momentum or None)
    params = _regression(jnp.result_type(float))
    ours = _steps(params, sgd, lam, num_steps)
    theirs = _steps(params, optax.chain(_decay(lam), sgd), 0.0, num_steps)
    plain = _steps(params, sgd, 0.0, num_steps)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance()), ours, theirs)
    assert np.abs(ours["W_hy"] - plain["W_hy"]).max() > 1e-3  # the penalty did something


def test_penalty_and_decay_give_the_same_gradient_bit_for_bit():
    """2 λ w both ways; a factor of two costs no rounding."""
    lam = jnp.asarray(0.0371)
    params = _regression(lam.dtype)
    ours = jax.grad(lambda p: lam * rr.penalties.l2().value(p, None, ())[0])(params)
    zeros = jax.tree.map(jnp.zeros_like, params)
    theirs, _ = _decay(lam).update(zeros, _decay(lam).init(params), params)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert not np.asarray(ours["b_y"]).any()


def test_clipping_tells_decay_and_penalty_apart():
    """Equal before clipping only: decay placed after it is not clipped, a penalty's gradient is."""
    lam, clip, sgd = 0.05, optax.clip_by_global_norm(0.1), optax.sgd(0.02)
    params = _regression(jnp.result_type(float))
    ours = _steps(params, optax.chain(clip, sgd), lam, 5)
    before = _steps(params, optax.chain(_decay(lam), clip, sgd), 0.0, 5)
    after = _steps(params, optax.chain(clip, _decay(lam), sgd), 0.0, 5)
    np.testing.assert_allclose(ours["W_hy"], before["W_hy"], **tolerance())
    assert np.abs(ours["W_hy"] - after["W_hy"]).max() > 1e-4


def test_adamw_is_another_method():
    lam = 0.05
    params = _regression(jnp.result_type(float))
    ours = _steps(params, optax.adam(0.02), lam, 5)
    theirs = _steps(params, optax.adamw(0.02, weight_decay=2 * lam), 0.0, 5)
    assert np.abs(ours["W_hy"] - theirs["W_hy"]).max() > 1e-4


@pytest.mark.parametrize("num_steps", [1, 50])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_torch_sgd_weight_decay(momentum, num_steps):
    torch = require("torch")
    lam = 0.05
    dtype = jnp.result_type(float)
    params = _regression(dtype)
    w, b = (torch.tensor(np.array(params[name]), requires_grad=True) for name in ("W_hy", "b_y"))
    xs, ys = (torch.tensor(np.asarray(array, dtype)) for array in (X, Y[:, None]))
    decay = convert_lambda(lam, "rnnreg", "weight_decay")
    groups = [{"params": [w], "weight_decay": decay}, {"params": [b], "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.02, momentum=momentum)
    for _ in range(num_steps):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(xs @ w + b, ys).backward()
        optimizer.step()
    ours = _steps(params, optax.sgd(0.02, momentum=momentum or None), lam, num_steps)
    np.testing.assert_allclose(ours["W_hy"], w.detach().numpy(), **tolerance())
    np.testing.assert_allclose(ours["b_y"], b.detach().numpy(), **tolerance())


# ---- Keras and element means ----------------------------------------------------------------------


def test_keras_regulariser():
    keras = require("keras")
    lam = 0.013
    W = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    theirs = keras.regularizers.L2(convert_lambda(lam, "rnnreg", "keras"))(keras.ops.array(W))
    ours = lam * rr.penalties.l2().value({"W": jnp.asarray(W)}, None, ())[0]
    np.testing.assert_allclose(ours, keras.ops.convert_to_numpy(theirs), rtol=1e-6)
    theirs = keras.regularizers.L1(lam)(keras.ops.array(W))
    ours = lam * rr.penalties.l1().value({"W": jnp.asarray(W)}, None, ())[0]
    np.testing.assert_allclose(ours, keras.ops.convert_to_numpy(theirs), rtol=1e-6)


def test_element_mean_is_our_own_mean_reduction():
    params = {"W": jnp.arange(12.0).reshape(3, 4), "b_h": jnp.ones(5)}
    lam = convert_lambda(0.7, "element_mean", "rnnreg", num_weights=12)
    mean = 0.7 * rr.penalties.l2(reduction="mean").value(params, None, ())[0]
    np.testing.assert_allclose(lam * rr.penalties.l2().value(params, None, ())[0], mean, rtol=1e-6)


# ---- the table of conventions ---------------------------------------------------------------------


@pytest.mark.parametrize(("from_", "to"), list(itertools.product(_TO_OURS, repeat=2)))
def test_there_and_back_is_the_identity_and_ways_agree(from_, to):
    forth = convert_lambda(0.3, from_, to, **SIZES)
    np.testing.assert_allclose(convert_lambda(forth, to, from_, **SIZES), 0.3, rtol=1e-12)
    by_ours = convert_lambda(convert_lambda(0.3, from_, "rnnreg", **SIZES), "rnnreg", to, **SIZES)
    np.testing.assert_allclose(forth, by_ours, rtol=1e-12)


@pytest.mark.parametrize(("reduction", "num_outputs"), [("mean", 3), ("sum", 1)])
@pytest.mark.parametrize("tool", ["sklearn_ridge", "sklearn_lasso"])
def test_scikit_learn_with_several_outputs(tool, reduction, num_outputs):
    """The gradient of our loss of three outputs and its penalty vanish at scikit-learn's solution."""
    rng, lam = np.random.default_rng(0), 0.05
    targets = X @ rng.normal(size=(X.shape[1], 3)) + rng.normal(size=(len(X), 3))
    alpha = convert_lambda(lam, "rnnreg", tool, num_rows=len(X), num_outputs=num_outputs)
    model = Ridge(alpha) if tool == "sklearn_ridge" else Lasso(alpha, tol=1e-12)
    fitted = model.fit(X, targets)
    found = jnp.asarray(fitted.coef_.T)
    xs, ys, b = (jnp.asarray(array, found.dtype) for array in (X, targets, fitted.intercept_))
    loss = rr.losses.squared_error(reduction)
    gradient = np.asarray(jax.grad(lambda w: loss(xs @ w + b[None], ys))(found))
    pull = np.asarray(2 * lam * found if tool == "sklearn_ridge" else lam * jnp.sign(found))
    active = np.asarray(found != 0)
    np.testing.assert_allclose(gradient[active], -pull[active], **tolerance(loosen=20))  # sums of X


def test_glmnet_holds_for_one_output():
    with pytest.raises(ValueError, match="'glmnet_ridge' holds for one output; got num_outputs=2"):
        convert_lambda(1.0, "rnnreg", "glmnet_ridge", num_outputs=2, target_sd=1.0)
    with pytest.raises(ValueError, match="num_outputs must be at least 1"):
        convert_lambda(1.0, "rnnreg", "sklearn_ridge", num_rows=2, num_outputs=0)


def test_a_whole_grid_can_be_converted():
    grid = np.logspace(-4, 0, 5)
    np.testing.assert_allclose(convert_lambda(grid, "rnnreg", "weight_decay"), 2 * grid)
    traced = jax.jit(lambda lam: convert_lambda(lam, "sklearn_lasso", "rnnreg"))(0.25)
    assert float(traced) == 0.5


def test_unknown_conventions_and_missing_sizes_are_named():
    with pytest.raises(ValueError, match=r"unknown λ convention 'adamw'.*'weight_decay'"):
        convert_lambda(1.0, "adamw", "rnnreg")
    with pytest.raises(ValueError, match=r"'sklearn_ridge' needs num_rows="):
        convert_lambda(1.0, "rnnreg", "sklearn_ridge")
    with pytest.raises(ValueError, match=r"'glmnet_ridge' needs target_sd="):
        convert_lambda(1.0, "glmnet_ridge", "rnnreg")
    with pytest.raises(ValueError, match=r"'element_mean' needs num_weights="):
        convert_lambda(1.0, "element_mean", "rnnreg")
