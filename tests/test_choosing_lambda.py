"""The experiment on ways to choose λ: its rows, budgets, searches, what is tested, peers and claims."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import require

import rnnreg as rr
from experiments.choosing_lambda import methods, peers, report, runs, tasks
from experiments.choosing_lambda.methods import METHODS, Step
from experiments.choosing_lambda.runs import BEST, ZERO, Outcome, Result, Timed

SIZE = tasks.Size(hidden_size=3, num_updates=27, num_rows=20, num_held=30)
IDEAL = {"l2": 3e-2, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def task():
    return tasks.yearly_sunspots(SIZE)


@pytest.fixture(scope="module")
def search(task):
    return methods.search_of(task, num_trials=8, grid_rates=2, batch=4, starts=2)


def bowl(l2, learning_rate):
    """A loss that is least at IDEAL."""
    return (jnp.log(l2 / IDEAL["l2"])) ** 2 + 0.5 * (
        jnp.log(learning_rate / IDEAL["learning_rate"])
    ) ** 2


@pytest.mark.parametrize("name", tasks.TASKS)
def test_no_row_is_in_two_parts_and_both_splits_train_on_the_same(name):
    made = tasks.TASKS[name](SIZE)
    if made is None:
        pytest.skip("mnist1d is not installed")
    parts = [made.search.train, made.search.validation, made.final.validation]
    assert made.final.train is made.search.train
    assert parts[1].xs.shape == parts[2].xs.shape  # one program scores both
    if name == "sunspots":  # windows overlap: the years count
        assert [len(part.ys) for part in parts] == [124, 88, 88]
        years, series = rr.datasets.sunspot_series()
        units = rr.datasets.sunspots(window=9).units
        assert units is not None
        known = np.concatenate([part.ys[:, 0] for part in parts]) * units.y_scale + units.y_shift
        np.testing.assert_allclose(
            known, series[np.flatnonzero(years == 1709)[0] :][:300], rtol=1e-4, atol=1e-3
        )
        return
    rows = [{each.tobytes() for each in np.asarray(part.xs)} for part in parts]
    assert [len(each) for each in rows] == [20, 30, 30]
    assert len(set.union(*rows)) == 80


def test_the_grid_and_its_halving_choose_by_the_losses_of_a_sweep(search):
    trials = methods.grid_trials(search)
    assert len(trials) == 8
    assert {trial["l2"] for trial in trials} == set(np.geomspace(1e-4, 1.0, 4))
    losses = methods.scores(search, trials, repeat=0)
    best = {name: methods.short(value) for name, value in trials[int(losses.argmin())].items()}
    steps = methods.grid(search, 0)
    assert (steps[-1].updates, steps[-1].values) == (search.updates, best)
    halved = methods.halved_grid(search, 0)
    assert [step.updates for step in halved] == np.cumsum([8 * 3, 2 * 6, 18]).tolist()
    assert halved[-1].values in [
        {n: methods.short(v) for n, v in trial.items()} for trial in trials
    ]


def test_halving_takes_as_many_trials_as_the_budget_pays(search, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        methods, "halved", lambda search, trials, repeat: seen.setdefault("trials", trials)
    )
    methods.halving(search, 0)
    num = len(seen["trials"])
    assert sum(methods.rung_updates(search.task, num)) <= search.updates
    assert sum(methods.rung_updates(search.task, num + 1)) > search.updates
    assert seen["trials"][:8] == methods.drawn(search, 8, 0) != methods.drawn(search, 8, 1)


def test_the_hypergradient_descends_within_the_box_and_the_budget(search):
    def slopes(lane, shared):
        logs = {name: jnp.log(lane[name] / IDEAL[name]) for name in IDEAL}
        return bowl(**lane), {"l2": 2 * logs["l2"], "learning_rate": logs["learning_rate"]}

    wide = dataclasses.replace(search, slopes=slopes, num_trials=120)
    steps = methods.hypergradient(wide, 0)
    assert steps[-1].updates == 120 * 27
    first, last = (bowl(**step.values) for step in (steps[0], steps[-1]))
    assert last < 0.05 < first
    short = methods.hypergradient(dataclasses.replace(wide, num_trials=9), 0)
    # one step of two descents, each with the price of four runs
    assert short[-1].updates == 2 * 4 * 27


def test_online_trains_again_where_lambda_ended(search, monkeypatch):
    ended = dataclasses.replace(
        search, tuned=lambda lane, shared: lane["l2"] * 0 + 0.25, num_trials=16
    )
    monkeypatch.setattr(
        methods, "scores", lambda search, trials, repeat: [each["learning_rate"] for each in trials]
    )
    steps = methods.online(ended, 0)
    assert {step.values["l2"] for step in steps} == {0.25}
    tried = [trial["learning_rate"] for trial in methods.drawn(search, 3, 0)]
    assert steps[-1].values["learning_rate"] == min(tried)
    assert steps[-1].updates == 3 * (27 + 3 * 27 + 27) <= ended.updates


def test_tpe_finds_the_bottom_of_a_bowl(search, monkeypatch):
    optuna = require("optuna")

    def study_of(study, train, space, data, *, num_trials, **options):
        assert options["batch"] == 4
        for _ in range(num_trials):
            trial = study.ask(space)
            study.tell(trial, float(bowl(**trial.params)))

    monkeypatch.setattr(rr.selection, "run_study", study_of)
    steps = methods.tpe(dataclasses.replace(search, num_trials=40), 0)
    assert steps[-1].updates == 40 * 27
    assert bowl(**steps[-1].values) < 1
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING


def test_a_search_without_a_finite_score_says_so():
    with pytest.raises(ValueError, match="no trial has a finite score"):
        methods.steps_of(1, [np.nan, np.inf], [{}, {}])


def test_what_was_chosen_is_tested_against_the_best_with_the_same_seeds(task, monkeypatch):
    asked = []

    def losses(task, train, trials, *, seeds, key):
        asked.append(list(seeds))
        value = np.array([trial["l2"] for trial in trials])[:, None] + 1000.0 * np.array(
            list(seeds)
        )
        return value, np.full(value.shape, np.nan)

    untrained: Any = None
    monkeypatch.setattr(runs, "losses", losses)
    known = runs.reference(task, untrained, 3, 2, 5)
    assert known[ZERO] == known[BEST] == {"l2": 0.0, "learning_rate": 3e-3}
    steps = [
        Step(10, {"l2": 0.3, "learning_rate": 1.0}),
        Step(40, {"l2": 0.1, "learning_rate": 1.0}),
    ]
    found = runs.tested(
        task, untrained, {"grid": [Timed(steps, 1.0)] * 2}, known, np.array([5, 10, 39, 40]), 3
    )
    regret = found["grid"].curve - found[BEST].loss[:, None]
    np.testing.assert_allclose(regret, [[np.nan, 0.3, 0.3, 0.1]] * 2)
    np.testing.assert_allclose(found["grid"].loss - found[BEST].loss, 0.1)
    assert asked == [[0, 1, 2, 3, 4], [1000, 1001, 1002], [2000, 2001, 2002]]


def outcome(loss, seconds=(9.0, 1.0, 1.0), updates=100):
    loss = np.asarray(loss, float)
    numbers = np.full(len(loss), updates)
    return Outcome(
        loss, loss * np.nan, loss[:, None], [IDEAL] * len(loss), numbers, np.array(seconds)
    )


def small_result(task, gain=1.0):
    noise = np.array([0.0, 0.01, -0.01])
    outcomes = {name: outcome(1.5 + noise * (1 + i)) for i, name in enumerate(METHODS)}
    outcomes["grid"] = outcome(1.9 + noise, seconds=(9.0, 4.0, 4.0))
    outcomes["halved grid"] = outcome(1.95 + noise, updates=30)
    outcomes["online"] = outcome(1.2 - noise)
    outcomes |= {ZERO: outcome(1 + gain + noise), BEST: outcome([1.0, 1.0, 1.0])}
    seconds = {peers.OPTUNA: [18.0, 12.0]}
    return Result(task, np.array([10, 100]), outcomes, seconds, {peers.OPTUNA: 0.5})


def test_claims_are_about_pairs_shares_and_clocks(task):
    result = small_result(task)
    claims = {claim.claim: claim for claim in report.claims_of({"sunspots": result}, 12.0)}
    said = lambda words: next(claim for name, claim in claims.items() if words in name)  # noqa: E731
    assert said("sunspots: random is better than grid").holds
    assert said("sunspots: online is better than random").holds
    assert said("sunspots: TPE is better than random").holds is None
    assert said("sunspots: halved grid, loss above that of the best").measured == pytest.approx(
        0.95
    )
    assert said("sunspots: halved grid, loss above that of the whole").measured == pytest.approx(
        0.05
    )
    assert said("updates of the halved grid").measured == pytest.approx(0.3)
    assert said("seconds of the halved grid").measured == pytest.approx(0.25)
    assert said(f"seconds of {peers.OPTUNA} over ours, later").measured == pytest.approx(12)
    assert said(f"seconds of {peers.OPTUNA} over ours, first").measured == pytest.approx(2)
    assert said(f"seconds of {peers.SKLEARN}").measured is None
    assert said("16 λ").holds
    assert said("digits: TPE").measured is None
    assert "online" in report.table(result)
    assert any("online 20" in line for line in report.found_of({"sunspots": result}))


def test_there_is_no_share_of_a_gain_that_is_not_there(task):
    result = small_result(task, gain=0.0)
    assert report.relative(result, (0.1, 0.01)) is None
    claims = report.claims_of({"sunspots": result}, None)
    assert all(claim.measured is None for claim in claims if "shares of what" in claim.claim)
    assert all(claim.measured is None for claim in report.claims_of({}, None))


def test_the_peers_have_the_same_network_and_penalty(task, monkeypatch):
    require("torch")
    from experiments.choosing_lambda.torch_loop import Recurrent

    first, held = task.search.train, task.search.validation
    options = {"cell": task.cell, "hidden_size": 3}
    start = Recurrent(num_updates=0, **options).fit(first.xs, first.ys)
    params = rr.convert.from_torch(start.layer_.state_dict(), "elman")
    params |= {
        "readout": {
            "W_hy": start.readout_.weight.detach().numpy().T,
            "b_y": start.readout_.bias.detach().numpy(),
        }
    }
    outputs = jax.jit(lambda params, xs: task.network.apply(params, xs).outputs)(params, held.xs)
    assert float(((outputs - held.ys) ** 2).mean()) == pytest.approx(
        -start.score(held.xs, held.ys), rel=1e-4
    )
    learnt = Recurrent(num_updates=40, learning_rate=0.03, **options).fit(first.xs, first.ys)
    assert learnt.score(held.xs, held.ys) > start.score(held.xs, held.ys)
    gone = Recurrent(num_updates=60, learning_rate=0.03, lam=10.0, **options).fit(
        first.xs, first.ys
    )
    sizes = {
        name: float(leaf.detach().abs().max()) for name, leaf in gone.layer_.named_parameters()
    }
    assert max(sizes["weight_ih_l0"], sizes["weight_hh_l0"]) < 0.05 < sizes["bias_ih_l0"]
    monkeypatch.setattr(peers.os, "cpu_count", lambda: 1)
    assert peers.sklearn_search(task, 2, 0) > 0
    require("optuna")
    assert peers.optuna_search(task, 2, 0) > 0
