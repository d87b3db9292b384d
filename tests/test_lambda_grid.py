"""Grids of λ that are measured, and grids that grow: against what theory says of a linear model."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_linear import KEY, linear_net, linear_train, regression, ridge, squared

import rnnreg as rr
from rnnreg.selection import blocked_folds, choose, lambda_grid, sweep_extended
from rnnreg.selection._grid import _following, _Short, _upper_end

SIZE = 3
DATA = regression(40, SIZE, noise=2.0)
XS = np.asarray(DATA.train.xs[:, 0], np.float64)
YS = np.asarray(DATA.train.ys, np.float64)


COMPILED = []


@pytest.fixture(scope="module")
def grid():
    def counted(*arguments, **options):
        result = rr.sweep(*arguments, **options)
        COMPILED.append(result.config["compilations"])
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rnnreg.selection._grid.sweep", counted)
        return lambda_grid(linear_train(SIZE), DATA, key=KEY, num=8, zero=True)


def test_all_rounds_of_short_runs_are_one_program(grid):
    assert len(COMPILED) > 1
    assert sum(COMPILED) <= 1
    assert len(grid.tried) == 4 * len(COMPILED)


@pytest.mark.numerics
def test_curvatures_of_a_linear_model_are_those_of_its_gram_matrix(grid):
    np.testing.assert_allclose(
        grid.loss_curvature, 2 * np.linalg.eigvalsh(XS.T @ XS / len(XS))[-1], rtol=1e-4
    )
    np.testing.assert_allclose(grid.penalty_curvature, 2, rtol=1e-4)
    np.testing.assert_allclose(grid.low, 1e-3 * grid.loss_curvature / 2, rtol=1e-4)
    np.testing.assert_allclose(grid.blind_loss, YS.var(), rtol=1e-4)


def test_values_are_log_spaced_with_zero_in_front(grid):
    assert grid.values[0] == 0
    np.testing.assert_allclose(grid.values[1:], np.geomspace(grid.low, grid.high, 8))
    assert repr(grid).isascii()
    assert "0 and 8 values" in repr(grid)


@pytest.mark.numerics
def test_the_grid_covers_the_best_ridge(grid):
    """λ* of the truth, by the mean error over many test rows; it lies inside, and not near an end."""
    test = regression(4000, SIZE, noise=2.0, seed=9).train
    fine = np.geomspace(1e-5, 1e3, 400)
    best = fine[np.argmin([squared(test, ridge(DATA.train, lam)) for lam in fine])]
    assert 3 * grid.low < best < grid.high / 3


def test_a_step_of_gradient_descent_that_diverges_ends_the_grid(grid):
    assert grid.ended == "diverged"
    # of a step α the run is stable as long as α (κ + 2λ) < 2 for every curvature κ
    bound = (2 / 0.15 - grid.loss_curvature) / 2
    assert bound / 2.5 < grid.high < 1.1 * 2 / 0.15 / 2


@pytest.mark.numerics
def test_the_end_of_a_lasso_is_glmnets():
    train = rr.make_train(
        linear_net(SIZE),
        loss=rr.losses.squared_error("mean"),
        penalties={"l1": rr.penalties.l1()},
        proximal=True,
        optimizer=optax.sgd(0.15),
        num_epochs=60,
    )
    found = lambda_grid(train, DATA, key=KEY)
    lam_max = np.abs(2 * XS.T @ YS / len(XS)).max()  # the smallest λ at which all weights are 0
    assert found.ended == "collapsed"
    assert lam_max / 1.05 < found.high <= 2 * lam_max
    assert (found.penalties[found.tried >= found.high] == 0).all()
    assert (found.penalties[found.tried < lam_max / 1.05] > 0).all()


def shorts(collapse, tried, blind=1.0):
    """Short runs of a network that says nothing from some λ on."""
    return [_Short(lam, blind if lam >= collapse else 0.5 * lam / collapse, 1.0) for lam in tried]


@pytest.mark.parametrize("collapse", [1e-7, 3e-3, 0.7, 1e6])
@pytest.mark.parametrize("lanes", [2, 4])
def test_the_search_ends_within_a_factor_of_two_of_the_collapse(collapse, lanes):
    tried = shorts(collapse, [0.0, *(10.0 ** (2 * step - 1) for step in range(lanes - 1))])
    for _ in range(8):
        following = _following(tried, 1.0, lanes)
        if following is None:
            break
        assert len(following) == lanes
        tried += shorts(collapse, following)
    high, ended = _upper_end(tried, 1.0)
    assert ended == "collapsed"
    assert collapse <= high <= 2 * collapse


def test_a_run_that_learns_nothing_is_told_and_the_penalty_alone_ends_the_grid():
    noise = DATA.replace(train=DATA.train._replace(ys=DATA.train.ys + 50.0))
    train = linear_train(SIZE, num_epochs=2, optimizer=optax.sgd(0.01))
    with pytest.warns(RuntimeWarning, match="no better than a blind guess"):
        found = lambda_grid(train, noise, key=KEY)
    assert found.high > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "l1"}, r"one of \['l2'\]; got 'l1'"),
        ({"num": 1}, "num must be at least 2"),
        ({"fraction": 0.0}, "fraction must be a number above 0"),
        ({"lanes": 1}, "lanes must be at least 2"),
        ({"hyper": {"size": 3.0}}, "size"),
        ({"hyper": {"l2": 3.0}}, "hyper holds every number but the λ that is looked for"),
    ],
)
def test_grids_that_cannot_be_measured_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        lambda_grid(linear_train(SIZE), DATA, key=KEY, **options)


# ---- grids that grow ------------------------------------------------------------------------------


def test_a_grid_grows_to_where_the_best_is_and_compiles_once():
    train = linear_train(SIZE, num_epochs=150, optimizer=optax.sgd(0.05))  # λ = 10 converges too
    options = {"key": KEY, "folds": blocked_folds(3), "progress": False}
    found = sweep_extended(
        train, {"l2": [1e-4, 1e-3]}, DATA, num_added=2, max_extensions=4, **options
    )
    values = found.metrics.l2.values
    np.testing.assert_allclose(values, 10.0 ** np.arange(-4, -4 + len(values)), rtol=1e-9)
    assert found.config["extended"] == {"l2": values[2:].tolist()}
    best = choose(found).lam_min
    assert values[0] < best < values[-1]
    assert found.config["compilations"] == 0  # of the last sweep: the program of the first was kept
    assert found.config["lanes_loaded"] == 3 * (len(values) - 2)
    plain = rr.sweep(train, {"l2": values}, DATA, **options)
    np.testing.assert_array_equal(plain.metrics.val_loss, found.metrics.val_loss)


def test_the_budget_is_kept_and_told():
    train, options = linear_train(SIZE), {"key": KEY, "folds": blocked_folds(3), "progress": False}
    with pytest.warns(RuntimeWarning, match="largest l2 that was tried, after 1 extensions"):
        found = sweep_extended(train, {"l2": [1e-6, 2e-6]}, DATA, max_extensions=1, **options)
    assert found.metrics.sizes["l2"] == 5
    options["folds"] = iter(options["folds"](DATA))  # read once, for all sweeps
    with pytest.warns(RuntimeWarning, match="and 15 lanes are more than max_lanes=14"):
        found = sweep_extended(
            train, {"l2": [1e-6, 2e-6]}, DATA, max_lanes=14, max_extensions=2, **options
        )
    assert found.metrics.sizes["l2"] == 2


def test_of_several_lambdas_each_has_edges_of_its_own():
    train = linear_train(SIZE, penalties={"l2": rr.penalties.l2(), "l1": rr.penalties.l1()})
    options = {"key": KEY, "folds": blocked_folds(3), "progress": False}
    grid = {"l2": [1e-6, 1e-5], "l1": [0.0, 1e-6, 1e-5]}
    with pytest.warns(RuntimeWarning, match="that was tried, after 1 extensions"):
        found = sweep_extended(train, grid, DATA, num_added=1, max_extensions=1, **options)
    assert set(found.config["extended"]) == {"l1", "l2"}
    assert (found.metrics.sizes["l2"], found.metrics.sizes["l1"]) == (3, 4)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"l2": 0.1}, "no list of λ that could be extended"),
        ({"l2": [0.0, 0.1]}, r"'l2' has \[0.1\] above 0, and an extension needs the ratio"),
    ],
)
def test_grids_without_a_ratio_are_named(grid, message):
    with pytest.raises(ValueError, match=message):
        sweep_extended(
            linear_train(SIZE, num_epochs=1), grid, DATA, key=KEY, folds=blocked_folds(3)
        )


@pytest.mark.slow
def test_a_recurrent_network_collapses_inside_the_grid():
    """A bit shown at the first step: the smallest λ of the grid remembers, the largest is blind."""
    bits = jnp.array([1.0, -1.0, 1.0, -1.0])
    batch = rr.Batch(jnp.zeros((4, 8, 1)).at[:, 0, 0].set(bits), bits[:, None])
    train = rr.make_train(
        rr.network([rr.cells.elman(3)], 1, readout="last"),
        loss=rr.losses.squared_error("mean"),
        penalties={"l2": rr.penalties.l2()},
        optimizer=optax.adam(1e-2),
        num_epochs=300,
    )
    grid = lambda_grid(train, batch, key=KEY, num=4)
    assert grid.ended == "collapsed"
    ends = rr.sweep(
        train, {"l2": grid.values}, batch, key=jax.random.key(1), progress=False
    ).metrics.train_loss.squeeze("seed")
    assert ends[0] < 0.1
    assert ends[-1] > 0.95
    assert grid.blind_loss == pytest.approx(1.0)
