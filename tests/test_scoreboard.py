"""The experiment on all regularisers: none is missing, what shares a program, what is chosen, how it is told."""

import jax
import numpy as np
import pytest

import rnnreg as rr
from experiments._harness import plain
from experiments.scoreboard import report, runs, tasks
from experiments.scoreboard.methods import FAMILIES, METHODS, NONE
from experiments.scoreboard.runs import Outcome, Trial


def small(num_epochs=1):
    return tasks.memory(num_steps=4, hidden_size=3, num_rows=100, num_epochs=num_epochs)


def outcome(error, horizon=0.0):
    error = np.asarray(error, float)
    full = np.full(len(error), horizon)
    return Outcome(error, full, full > 3, full)


def test_every_penalty_of_the_library_is_there():
    names = {method.penalty().name for method in METHODS.values() if method.penalty}
    assert {row.name for row in rr.penalties.table()} - names == {"elementwise", "scheduled"}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_method_enters_a_run_in_one_place(method):
    ways = [method.penalty, method.option, method.noise, method.step, method.cell]
    if method.name == NONE:
        assert not any(ways)
        return
    assert method.family in FAMILIES
    assert method.key.isidentifier()
    assert sum(way is not None for way in ways) == (2 if method.cell and method.step else 1)
    assert method.strength(0.0) == pytest.approx(method.mild or method.off)
    assert method.strength(1.0) == pytest.approx(method.strong or method.off)
    assert len({other.key for other in METHODS.values()}) == len(METHODS)


@pytest.mark.slow
def test_a_method_among_those_of_its_program_is_the_method_alone():
    """A sweep holds several methods, of which all but one are off."""
    task, key = small(), jax.random.key(3)
    names = ("none", "L2", "spectral norm", "decoupled decay", "max norm", "AR")
    trials = [Trial(METHODS[name], 3e-2, METHODS[name].strength(1.0)) for name in names]
    found = {}
    for places, metrics in runs.sweeps(task, task.search, trials, seeds=[5], key=key):
        found |= dict(zip(places, metrics["val_error"].values[:, 0], strict=True))
    for place, trial in enumerate(trials):
        own = [] if trial.method.name == NONE else [trial.method]
        train = runs.train_of(task, own, len(task.search.train.ys))
        hyper = {"learning_rate": trial.learning_rate} | {
            method.key: trial.strength for method in own
        }
        alone = train(hyper, task.search, key=jax.random.fold_in(key, 5))
        assert found[place] == pytest.approx(float(alone.metrics["val_error"]), rel=1e-4)
    assert len({round(float(error), 7) for error in found.values()}) == len(
        names
    )  # each does something


def test_the_trial_with_the_least_mean_error_is_chosen(monkeypatch):
    methods = [METHODS[name] for name in ("none", "L2", "AR")]

    def sweeps(task, split, trials, *, seeds, key):
        errors = np.ones((len(trials), len(seeds)))
        for place in range(
            len(methods)
        ):  # of the first method the first trial, of the second the second, …
            errors[3 * place + place] = [0.2, 0.4]
            errors[3 * place + (place + 1) % 3] = [
                0.0,
                np.nan,
            ]  # a run that diverged is a blind guess
        yield list(range(len(trials))), {"val_error": type("Values", (), {"values": errors})}

    monkeypatch.setattr(runs, "sweeps", sweeps)
    task = small()
    chosen = runs.search(task, methods, num_trials=3, num_seeds=2)
    points = runs.hypercube(3, task.rates)
    for place, (one, method) in enumerate(zip(chosen, methods, strict=True)):
        rate, shares = points[place]
        assert one.trial == Trial(method, rate, method.strength(shares[0]))
        assert one.error == pytest.approx(0.3)


@pytest.mark.slow
def test_what_is_measured_of_a_network_is_that_of_its_parameters():
    """Horizon and ρ are recorded in the run, where each lane has a network of its own."""
    task = small()
    (one,) = runs.confirm(task, [Trial(METHODS["L2"], 1e-2, 1e-3)], num_seeds=1)
    train = runs.train_of(task, [METHODS["L2"]], len(task.final.train.ys))
    hyper = {"learning_rate": 1e-2, "l2": 1e-3}
    run = train(hyper, task.final, key=jax.random.fold_in(jax.random.key(1), 1000))
    shown = rr.data.take_rows(task.test, np.arange(25))
    flow = rr.diagnostics.gradient_flow(train.network(hyper), task.loss, run.params, shown)
    reach = rr.diagnostics.horizon(flow.log_norms["layer_0"], threshold=runs.THRESHOLD)
    assert bool(reach.censored) == one.beyond[0]
    assert one.horizon[0] == pytest.approx(3 if one.beyond[0] else float(reach.lag), rel=1e-4)
    rho = np.abs(np.linalg.eigvals(np.asarray(run.params["layer_0"]["W_hh"]))).max()
    assert one.radius[0] == pytest.approx(rho, rel=1e-4)
    assert one.error[0] == pytest.approx(float(run.metrics["val_error"]), rel=1e-4)


def test_the_radius_is_that_of_the_block():
    matrices = np.random.default_rng(0).normal(size=(2, 4, 3, 9))
    matrices[1, 2] = np.nan
    found = runs.spectral_radii(matrices, 2)
    assert np.isnan(found[1, 2])
    assert found[0, 3] == pytest.approx(np.abs(np.linalg.eigvals(matrices[0, 3][:, 6:])).max())


def test_a_gain_is_positive_where_the_error_is_less():
    none = np.array([1.0, 2.0, 3.0])
    by_name = {NONE: outcome(none), "L2": outcome(none - [0.5, 0.6, 0.4]), "AR": outcome(none + 1)}
    gain = report.gains(by_name)
    assert list(gain) == ["L2", "AR"]
    assert gain["L2"].mean == pytest.approx(0.5)
    result = report.Result(small(), {}, by_name, gain)
    assert report.relative(result, "AR")[0] == pytest.approx(50)  # per cent of 2
    assert report.relative(result, "L2")[0] == pytest.approx(-25)


def test_of_what_was_not_run_nothing_is_claimed():
    claims = report.claims_of({}, {NONE: outcome([0.5], 4.0)})
    assert all(claim.measured is None for claim in claims)
    strong = {
        NONE: outcome([0.5], 4.0),
        "L2": outcome([1.0], 1.0),
        "to identity": outcome([0.5], 4.0),
    }
    held = {claim.claim: claim.holds for claim in report.claims_of({}, strong)}
    assert list(held.values())[:5] == [True, True, None, True, None]
    plain([claim.measured for claim in claims])


def test_methods_for_plain_cells_are_left_out_of_gated_ones():
    digits = tasks.digits(num_rows=50, num_epochs=1, hidden_size=2)
    if digits is None:
        pytest.skip("mnist1d is not installed")
    assert {name for name, method in METHODS.items() if not method.gated} == {
        "to identity",
        "path norm",
    }
    assert set(METHODS) - set(runs.applicable(digits, METHODS)) == {"to identity", "path norm"}
    assert set(runs.applicable(small(), METHODS)) == set(METHODS)
    np.testing.assert_array_equal(digits.search.train.ys, digits.final.train.ys)
    assert (
        not np.isin(digits.test.xs[:, :, 0], digits.search.validation.xs[:, :, 0]).all(axis=1).any()
    )
