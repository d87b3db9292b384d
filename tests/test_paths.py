"""Warm paths: a loop of runs as the oracle, the cold sweep where the problem is convex, and memory that stays lost."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import tolerance
from small import make, sine
from small_linear import KEY, linear_train, regression, ridge

import rnnreg as rr
from rnnreg.selection import blocked_folds, choose, warm_path

LAMS = [0.3, 0.01, 3.0]  # in no order, on purpose


@pytest.mark.numerics
def test_a_warm_path_is_a_loop_of_runs_that_start_from_each_other():
    train, split = make(num_epochs=4), sine(20)
    grid = {"l2": LAMS, "learning_rate": 0.05}
    found = warm_path(train, grid, split, key=KEY, seeds=[3])
    params = None
    for lam in sorted(LAMS):
        run = train(
            {"l2": lam, "learning_rate": 0.05},
            split,
            key=jax.random.fold_in(KEY, 3),
            params=params,
        )
        params = run.params
        loss = float(found.metrics.train_loss.sel(l2=lam, seed=3))
        np.testing.assert_allclose(loss, float(run.metrics["train_loss"]), **tolerance())
        for one, two in zip(
            jax.tree.leaves(params), jax.tree.leaves(found.params_at(l2=lam, seed=3)), strict=True
        ):
            np.testing.assert_allclose(one, two, **tolerance())
    assert found.metrics.l2.values.tolist() == LAMS
    assert found.config["path"] == "up"


@pytest.fixture(scope="module")
def paths():
    """Ridge on three folds: cold, warm upwards and warm downwards."""
    split, train = regression(30, 3), linear_train(3, num_epochs=60)
    options = {"key": KEY, "folds": blocked_folds(3)}
    warm = [
        warm_path(train, {"l2": LAMS}, split, direction=direction, **options)
        for direction in ("up", "down")
    ]
    return split, rr.sweep(train, {"l2": LAMS}, split, progress=False, **options), warm


@pytest.mark.numerics
def test_in_a_convex_problem_every_path_ends_where_the_closed_form_is(paths):
    split, cold, (up, down) = paths
    for number, (rows, _) in enumerate(blocked_folds(3)(split)):
        for lam in LAMS:
            expected = ridge(rr.data.take_rows(split.train, rows), lam)
            for result in (cold, up, down):
                W = result.params_at(l2=lam, fold=str(number))["W"]
                np.testing.assert_allclose(W, expected, rtol=1e-3, atol=1e-4)  # of 60 epochs
    np.testing.assert_allclose(up.metrics.val_loss, cold.metrics.val_loss, rtol=1e-3)


def test_a_path_can_be_chosen_from_like_a_sweep(paths):
    _, cold, (up, _) = paths
    one, two = choose(cold), choose(up)
    assert (one.lam, one.values, one.labels) == (two.lam, two.values, two.labels)
    np.testing.assert_allclose(one.curve.mean, two.curve.mean, rtol=1e-3)
    assert up.dims == cold.dims
    assert set(cold.metrics.data_vars) == set(up.metrics.data_vars)


def test_a_path_is_no_sweep_that_could_be_verified(paths):
    split, _, (up, _) = paths
    with pytest.raises(ValueError, match="the result is a warm path, whose runs start from one an"):
        rr.verify(up, linear_train(3), split)


@pytest.mark.numerics
def test_memory_that_is_lost_stays_lost_on_the_way_down():
    """A bit is shown at the first step and asked for at the last; a collapsed network never finds it again."""
    bits = jnp.array([1.0, -1.0, 1.0, -1.0])
    xs = jnp.zeros((4, 8, 1)).at[:, 0, 0].set(bits)
    train = rr.make_train(
        rr.network(
            [rr.cells.elman(2, activation="tanh", recurrent_init=rr.cells.identity(0.9))],
            1,
            readout="last",
        ),
        loss=rr.losses.squared_error("mean"),
        penalties={"l2": rr.penalties.l2()},
        optimizer=optax.sgd(0.1),
        num_epochs=200,
    )
    batch, grid = rr.Batch(xs, bits[:, None]), {"l2": [1e-4, 1e-2, 1.0]}
    losses = {
        direction: warm_path(train, grid, batch, key=KEY, direction=direction)
        .metrics.train_loss.squeeze("seed")
        .values
        for direction in ("up", "down")
    }
    blind = 1.0  # the error of a constant
    assert losses["up"][0] < 0.1  # remembers
    np.testing.assert_allclose(losses["up"][-1], blind, atol=1e-3)  # has collapsed
    np.testing.assert_allclose(losses["down"], blind, atol=1e-3)  # and never remembers again


@pytest.mark.parametrize(
    ("grid", "options", "message"),
    [
        (
            {"l2": LAMS, "learning_rate": [0.1, 0.2]},
            {},
            r"a path has one axis.*got \['l2', 'learning",
        ),
        ({"l2": 0.1, "learning_rate": 0.1}, {}, r"a path has one axis.*got \[\]"),
        ({"l2": LAMS, "learning_rate": 0.1}, {"direction": "left"}, "direction must be 'up' or 'd"),
        ({"l2": [0.1, 0.1], "learning_rate": 0.1}, {}, "has a repeated value"),
    ],
)
def test_paths_that_cannot_be_are_named(grid, options, message):
    with pytest.raises(ValueError, match=message):
        warm_path(make(), grid, sine(), key=KEY, **options)
