"""Decay beside the loss, cautious decay and λ‖W‖²: where they are one method, and where they are not."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import SEED, tolerance
from small import make, sine

import rnnreg as rr
from rnnreg.constraints import cautious_decay, covering, decoupled_decay

pytestmark = pytest.mark.numerics

RNG = np.random.default_rng(SEED)
W, STEP = RNG.normal(size=(2, 3, 4))
A, B = RNG.normal(size=(5, 3)) / 2, RNG.normal(size=(5, 4))
RATE, LEARNING_RATE = 0.3, 0.01


def leaves(matrix):
    return {"W_hh": jnp.asarray(matrix), "b_h": jnp.ones(4)}


def descend(optimizer, gradient_of, start, num_updates):
    """The path `[K + 1, M, N]` of one weight matrix."""

    def step(carry, _):
        params, state = carry
        grads = {"W": gradient_of(params["W"])}
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params["W"]

    params = {"W": jnp.asarray(start, float)}
    first = params, optimizer.init(params)
    _, path = jax.jit(lambda first: jax.lax.scan(step, first, length=num_updates))(first)
    return np.concatenate([params["W"][None], path])


def adam_with(part, learning_rate=LEARNING_RATE):
    return optax.chain(optax.scale_by_adam(), part, optax.scale_by_learning_rate(learning_rate))


def penalised(lam):
    """The gradient of ½‖AW − B‖² + λ‖W‖²."""

    def objective(matrix):
        penalty = rr.penalties.l2()({"W": matrix})
        return jnp.sum((jnp.asarray(A) @ matrix - jnp.asarray(B)) ** 2) / 2 + lam * penalty

    return jax.grad(objective)


# ---- the formulas ---------------------------------------------------------------------------------


def test_both_add_the_decayed_weight_and_leave_biases_alone():
    params, updates = leaves(W), leaves(STEP)
    agree = np.sign(W) * np.sign(STEP) >= 0
    for factory, expected in (
        (decoupled_decay, STEP + RATE * W),
        (cautious_decay, STEP + RATE * np.where(agree, W, 0)),
    ):
        decay = factory(RATE)
        found, _ = decay.update(updates, decay.init(params), params)
        np.testing.assert_allclose(found["W_hh"], expected, **tolerance())
        np.testing.assert_array_equal(found["b_h"], updates["b_h"])
        everything = factory(RATE, include_biases=True)
        found, _ = everything.update(updates, everything.init(params), params)
        np.testing.assert_allclose(found["b_h"], 1 + RATE, **tolerance())


def test_the_sign_is_compared_where_a_product_would_underflow():
    params, updates = {"W_hh": jnp.array([[1e-30, 1e-30]])}, {"W_hh": jnp.array([[1e-30, -1e-30]])}
    decay = cautious_decay(1.0)
    found, _ = decay.update(updates, decay.init(params), params)
    np.testing.assert_allclose(found["W_hh"], [[2e-30, -1e-30]], rtol=1e-6)


@pytest.mark.parametrize("factory", [decoupled_decay, cautious_decay])
def test_the_rate_is_traced_and_dtypes_are_kept(factory):
    @jax.jit
    @jax.vmap
    def after(rate):
        decay, params = factory(rate), leaves(W)
        return decay.update(leaves(STEP), decay.init(params), params)[0]["W_hh"]

    first, second = after(jnp.array([0.0, 0.5]))
    np.testing.assert_array_equal(first, jnp.asarray(STEP))
    assert not np.array_equal(second, first)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), leaves(W))
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        decay = factory(0.5)
        found, _ = decay.update(half, decay.init(half), half)
    assert {leaf.dtype for leaf in found.values()} == {jnp.dtype("bfloat16")}


def test_what_cannot_be_meant_is_refused():
    for call, message in (
        (lambda: decoupled_decay(-0.1), "rate must be a number of at least 0; got -0.1"),
        (lambda: cautious_decay(np.inf), "rate must be a number of at least 0"),
        (lambda: decoupled_decay(0.1, paths="W_x").init(leaves(W)), "decay path 'W_x' matches no"),
        (
            lambda: decoupled_decay(0.1).update(leaves(W), rr.constraints.Decayed({})),
            "need the parameters",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()


# ---- λ‖W‖² and decay ------------------------------------------------------------------------------


def test_under_sgd_the_penalty_is_decay_at_twice_its_strength():
    """Before any clipping; momentum is linear too. After the clipping it is another method."""
    lam, clip, sgd = 0.2, optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9)
    for rest in (sgd, optax.chain(clip, sgd)):
        expected = descend(rest, penalised(lam), W, 10)
        for decay in (
            decoupled_decay(2 * lam),
            optax.add_decayed_weights(2 * lam, mask=covering()),
        ):
            found = descend(optax.chain(decay, rest), penalised(0.0), W, 10)
            np.testing.assert_allclose(found, expected, **tolerance())
    late = descend(optax.chain(clip, decoupled_decay(2 * lam), sgd), penalised(0.0), W, 10)
    assert np.abs(late - expected).max() > 0.1


def test_under_adam_the_penalty_is_not_decay():
    """Nor is decay before Adam anything but the penalty; after it, it is AdamW."""
    lam, adam = 0.2, optax.adam(LEARNING_RATE)
    penalty = descend(adam, penalised(lam), W, 30)
    before = descend(optax.chain(decoupled_decay(2 * lam), adam), penalised(0.0), W, 30)
    after = descend(adam_with(decoupled_decay(2 * lam)), penalised(0.0), W, 30)
    adamw = optax.adamw(LEARNING_RATE, weight_decay=2 * lam)
    np.testing.assert_allclose(before, penalty, **tolerance())
    np.testing.assert_allclose(after, descend(adamw, penalised(0.0), W, 30), **tolerance())
    assert np.abs(after - penalty).max() > 3 * LEARNING_RATE


def test_a_run_under_sgd_is_the_same_either_way():
    lam, sgd = 0.05, optax.sgd(0.1)
    by_penalty = make(optimizer=sgd)({"l2": lam}, sine(), key=jax.random.key(0))
    train = make(optimizer=optax.chain(decoupled_decay(2 * lam), sgd), penalties={})
    for path, leaf in rr.leaf_paths(train({}, sine(), key=jax.random.key(0)).params).items():
        np.testing.assert_allclose(leaf, rr.leaf_paths(by_penalty.params)[path], **tolerance())


def test_without_data_decay_is_geometric_and_adam_with_the_penalty_walks_at_its_own_pace():
    num = 20
    decayed = descend(adam_with(decoupled_decay(RATE)), jnp.zeros_like, W, num)
    powers = (1 - LEARNING_RATE * RATE) ** np.arange(num + 1)
    np.testing.assert_allclose(decayed, powers[:, None, None] * W, **tolerance())
    weak, strong = (
        descend(optax.adam(LEARNING_RATE), lambda w, lam=lam: 2 * lam * w, np.sign(W), num)
        for lam in (1e-3, 10.0)
    )
    np.testing.assert_allclose(weak, strong, rtol=1e-4)  # Adam's ε of 1e-8 beside 2λ|w|
    np.testing.assert_allclose(np.abs(np.diff(strong, axis=0)), LEARNING_RATE, rtol=0.05)


@pytest.mark.parametrize("rate", [0.2, 2.0])
def test_where_each_ends_on_a_parabola(rate):
    """½a(w − w*)²: the penalty moves the minimum, decay bounds |w| by 1/rate, cautious decay does neither."""
    a, minimum, lam = 0.5, 2.0, rate / 2

    def slope(w):
        return a * (w - minimum)

    found = {
        "penalty": (optax.adam(LEARNING_RATE), lambda w: slope(w) + 2 * lam * w),
        "decay": (adam_with(decoupled_decay(rate)), slope),
        "cautious": (adam_with(cautious_decay(rate)), slope),
    }
    expected = {
        "penalty": a * minimum / (a + 2 * lam),
        "decay": minimum if rate * minimum < 1 else 1 / rate,
        "cautious": minimum,
    }
    for name, (optimizer, gradient_of) in found.items():
        path = descend(optimizer, gradient_of, np.array([[0.1]]), 8000)
        # AdamW comes to w* as slowly as its mean square forgets, over some 1/(1 − β₂) updates
        end = path[-500:].mean()
        assert abs(end - expected[name]) < 3 * LEARNING_RATE * (1 + rate), (name, end)


# ---- the warning ----------------------------------------------------------------------------------


def begin(penalty, part):
    train = make(
        penalties={"shrink": penalty},
        optimizer=lambda hyper: optax.chain(optax.scale_by_adam(), part, optax.scale(-0.1)),
    )
    return train.init({"shrink": 0.1}, sine(), key=jax.random.key(0))


@pytest.mark.parametrize("factory", [decoupled_decay, cautious_decay])
def test_decay_and_an_l2_penalty_on_one_leaf_warn(factory):
    message = r"penalties\['shrink'\] and the decay in the optimiser both shrink layer_0/W_hh: .*Leave one"
    for penalty in (rr.penalties.l2(), rr.penalties.elastic_net(0.5)):
        with pytest.warns(RuntimeWarning, match=message):
            begin(penalty, factory(0.1, paths="W_hh"))


def test_what_is_no_contradiction_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        begin(rr.penalties.l2("W_xh"), decoupled_decay(0.1, paths="W_hh"))
        begin(rr.penalties.l1(), decoupled_decay(0.1))
        begin(rr.penalties.l2(), optax.identity())
