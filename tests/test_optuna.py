"""Optuna: a sweep as a study, and studies whose trials are lanes."""

import sys

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import SEED, require
from small import make, sine

import rnnreg as rr
from rnnreg.selection import choose, run_study, to_optuna

optuna = require("optuna")
optuna.logging.set_verbosity(optuna.logging.WARNING)
KEY = jax.random.key(SEED)
SPLIT = sine(24)
FOLDS = rr.selection.blocked_folds(3)
TRAIN = make(metrics={"r2": rr.metrics.r2()})
FAIL, COMPLETE = optuna.trial.TrialState.FAIL, optuna.trial.TrialState.COMPLETE
LOG = optuna.distributions.FloatDistribution(1e-4, 1.0, log=True)
SPACE = {"l2": LOG, "learning_rate": optuna.distributions.FloatDistribution(1e-3, 0.1, log=True)}
OPTIONS = {"key": KEY, "folds": FOLDS, "progress": False}


@pytest.fixture(scope="module")
def result():
    """λ × learning rate × seed × fold; a learning rate of 1e30 diverges."""
    grid = {"l2": [0.0, 0.1], "learning_rate": [1e-3, 1e-2, 1e30]}
    with pytest.warns(RuntimeWarning, match="diverged"):
        return rr.sweep(TRAIN, grid, SPLIT, seeds=2, **OPTIONS)


def states(study):
    return [trial.state for trial in study.trials]


# ---- a sweep as a study -----------------------------------------------------------------------------


def test_a_trial_is_the_mean_over_seeds_and_folds(result):
    study = to_optuna(result)
    sizes = result.metrics.fold_size.values
    for trial in study.trials:
        scores = result.metrics.val_loss.sel(trial.params).mean("seed", skipna=False).values
        if trial.params["learning_rate"] == 1e30:
            assert (trial.state, trial.value, trial.user_attrs["diverged"]) == (FAIL, None, 6)
            continue
        mean = np.sum(scores * sizes) / sizes.sum()
        np.testing.assert_allclose(trial.value, mean, rtol=1e-12)
        np.testing.assert_allclose(trial.user_attrs["folds"], scores, rtol=1e-12)
        assert (trial.user_attrs["seeds"], trial.user_attrs["diverged"]) == ([0, 1], 0)
        assert max(trial.intermediate_values) == 6
        np.testing.assert_allclose(trial.intermediate_values[6], trial.value, rtol=1e-6)
    choice = choose(result, axis="l2")
    assert study.best_params == choice.values
    np.testing.assert_allclose(study.best_value, choice.curve.mean.min(), rtol=1e-12)
    best = np.argmin(choice.curve.mean)
    np.testing.assert_allclose(study.best_trial.user_attrs["se"], choice.curve.se[best], rtol=1e-12)


def test_distributions_follow_the_values(result):
    made = to_optuna(result).trials[0].distributions
    assert not made["l2"].log  # there is a 0
    assert (made["learning_rate"].log, made["learning_rate"].high) == (True, 1e30)


def test_more_is_better_if_the_metric_says_so(result):
    study = to_optuna(result, metric="val_r2")
    assert study.direction.name == "MAXIMIZE"
    assert study.best_value == max(t.value for t in study.trials if t.state == COMPLETE)


@pytest.mark.slow
def test_static_axes_are_categories():
    def of(static):
        cell = {"elman": rr.cells.elman, "gru": rr.cells.gru}[static["cell"]]
        return make(rr.network([cell(2)], 1, readout="last"), num_epochs=1)

    grid, static = {"l2": [1e-3, 1e-2, 0.1], "learning_rate": 0.01}, {"cell": ["elman", "gru"]}
    swept = rr.sweep(of, grid, SPLIT, static=static, **OPTIONS)
    study = to_optuna(swept)
    assert study.trials[0].distributions["cell"].choices == ("elman", "gru")
    assert study.trials[0].distributions["l2"].log
    assert study.user_attrs["constants"] == {"learning_rate": 0.01}
    for trial in study.trials:
        own = swept.metrics.val_loss.sel(trial.params).isel(seed=0)
        np.testing.assert_allclose(
            trial.value, own.weighted(swept.metrics.fold_size.isel(cell=0)).mean()
        )


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_every_figure_draws_a_study(result, no_figures_left):
    study, draw = to_optuna(result), optuna.visualization.matplotlib
    others = {"plot_hypervolume_history", "plot_pareto_front"}  # of several objectives
    others |= {"is_available", "plot_terminator_improvement"}  # the latter is deprecated
    names = set(draw.__all__) - others
    assert len(names) >= 9
    for name in names:
        getattr(draw, name)(study)
        plt.close("all")


def test_a_study_in_a_file_goes_on_where_a_grid_ended(result, tmp_path):
    storage = f"sqlite:///{tmp_path}/study.db"
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(storage=storage, study_name="λ", sampler=sampler)
    to_optuna(result, study=study, space=SPACE)
    assert len(study.trials) == 2  # λ = 0 and the learning rate of 1e30 are outside
    run_study(study, TRAIN, SPACE, SPLIT, num_trials=3, batch=2, seeds=2, **OPTIONS)
    assert states(optuna.load_study(storage=storage, study_name="λ")) == [COMPLETE] * 5


# ---- a study of lanes -------------------------------------------------------------------------------


SAMPLERS = {
    "random": lambda: optuna.samplers.RandomSampler(seed=0),
    "tpe": lambda: optuna.samplers.TPESampler(constant_liar=True, n_startup_trials=3, seed=0),
    "cma-es": lambda: optuna.samplers.CmaEsSampler(n_startup_trials=3, seed=0),
    "gp": lambda: optuna.samplers.GPSampler(n_startup_trials=3, seed=0),
}


@pytest.mark.parametrize(
    "sampler",
    ["random", "tpe", *(pytest.param(n, marks=pytest.mark.slow) for n in ("cma-es", "gp"))],
)
def test_one_program_serves_every_batch(sampler, monkeypatch):
    for module in {"cma-es": ["cmaes"], "gp": ["torch", "scipy"]}.get(sampler, []):
        pytest.importorskip(module)
    train = make() if sampler == "random" else TRAIN
    compiled = []
    sweep = sys.modules["rnnreg.selection._run_study"].sweep

    def counted(*arguments, **options):
        swept = sweep(*arguments, **options)
        compiled.append((swept.config["compilations"], swept.metrics.sizes["trial"]))
        return swept

    monkeypatch.setattr("rnnreg.selection._run_study.sweep", counted)
    study = optuna.create_study(sampler=SAMPLERS[sampler]())
    assert run_study(study, train, SPACE, SPLIT, num_trials=8, batch=3, **OPTIONS) is study
    assert states(study) == [COMPLETE] * 8
    first = 1 if sampler == "random" else compiled[0][0]  # others share what is compiled
    assert compiled == [(first, 3), (0, 3), (0, 3)]  # the last trial of the last batch runs twice


def test_a_trial_is_the_lane_of_its_values():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    space = {"l2": LOG, "learning_rate": 0.01}
    run_study(study, TRAIN, space, SPLIT, num_trials=2, batch=2, seeds=[3], **OPTIONS)
    trial = study.trials[1]
    grid = {"l2": [trial.params["l2"]], "learning_rate": 0.01}
    alone = rr.sweep(TRAIN, grid, SPLIT, seeds=[3], **OPTIONS).metrics.val_loss.values.reshape(-1)
    np.testing.assert_allclose(trial.user_attrs["folds"], alone, rtol=1e-5)
    assert trial.user_attrs["seeds"] == [3]


def test_what_diverges_fails_and_counts():
    rates = optuna.distributions.CategoricalDistribution([0.01, 1e30])
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    with pytest.warns(RuntimeWarning, match="diverged"):
        run_study(
            study,
            TRAIN,
            {"learning_rate": rates, "l2": 0.1},
            SPLIT,
            num_trials=6,
            batch=6,
            **OPTIONS,
        )
    diverged = [trial.params["learning_rate"] == 1e30 for trial in study.trials]
    assert 0 < sum(diverged) < 6
    assert states(study) == [FAIL if one else COMPLETE for one in diverged]
    assert [trial.user_attrs["diverged"] for trial in study.trials] == [3 * one for one in diverged]
    run_study(study, TRAIN, {"learning_rate": rates, "l2": 0.1}, SPLIT, num_trials=6, **OPTIONS)
    assert len(study.trials) == 6


def test_a_stopped_study_goes_on(tmp_path, monkeypatch):
    storage, name = f"sqlite:///{tmp_path}/study.db", "stopped"
    study = optuna.create_study(storage=storage, study_name=name)
    call = (TRAIN, SPACE, SPLIT)
    run_study(study, *call, num_trials=2, batch=2, **OPTIONS)
    theirs = study.ask()  # a trial of somebody else stays as it is

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("rnnreg.selection._run_study.sweep", killed)
        patch.setattr("rnnreg.selection._run_study._abandon", lambda study: None)  # as a kill
        with pytest.raises(KeyboardInterrupt):
            run_study(study, *call, num_trials=4, batch=2, **OPTIONS)
    study = optuna.load_study(storage=storage, study_name=name)
    left = [trial.params for trial in study.trials[3:]]
    run_study(study, *call, num_trials=4, batch=2, **OPTIONS)
    assert [state.name for state in states(study)] == (
        ["COMPLETE"] * 2 + ["RUNNING"] + ["FAIL"] * 2 + ["COMPLETE"] * 2
    )
    assert [trial.params for trial in study.trials[5:]] == left
    assert study.trials[theirs.number].state.name == "RUNNING"


WRONG = {
    "no distribution": ({"space": {"l2": 0.1, "learning_rate": 0.01}}, "no distribution"),
    "a list": ({"space": {"l2": [0.1, 1.0], "learning_rate": 0.01}}, r"space\['l2'\]"),
    "a text": (
        {
            "space": {
                "l2": optuna.distributions.CategoricalDistribution(["a"]),
                "learning_rate": 0.01,
            }
        },
        "category 'a'",
    ),
    "a name that nothing reads": ({"space": {**SPACE, "dropuot": 0.1}}, "dropuot"),
    "a missing name": ({"space": {"l2": LOG}}, "learning_rate"),
    "a metric": ({"metric": "val_accuracy"}, "metric must be 'val_loss'"),
    "the other direction": ({"metric": "val_r2"}, "direction 'maximize'"),
    "no validation rows": ({"folds": None}, "needs validation rows"),
    "no trials": ({"num_trials": 0}, "num_trials"),
    "too small for float32": (
        {"space": {**SPACE, "l2": optuna.distributions.FloatDistribution(1e-60, 1.0, log=True)}},
        "cannot tell apart|float32",
    ),
}


@pytest.mark.float32_only
@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_refused_before_a_trial_is_asked_for(case):
    given, message = WRONG[case]
    study = optuna.create_study()
    options = {"space": SPACE, "num_trials": 2, **OPTIONS} | given
    with pytest.raises(ValueError, match=message):
        run_study(study, TRAIN, data=SPLIT, **options)
    assert study.trials == []


def test_a_study_of_two_objectives_is_refused(result):
    study = optuna.create_study(directions=["minimize", "minimize"])
    with pytest.raises(ValueError, match="2 directions"):
        to_optuna(result, study=study)


def test_without_optuna_the_error_names_the_extra(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"rnnreg\[optuna\]"):
        to_optuna(result)
