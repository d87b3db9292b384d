"""What other tools take for the same choice: Optuna's TPE and scikit-learn's random search, each around PyTorch."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable

import numpy as np

from experiments.choosing_lambda.tasks import Task

OPTUNA, SKLEARN = "Optuna TPE + PyTorch", "scikit-learn random + PyTorch"
COUNTERPART = {OPTUNA: "TPE", SKLEARN: "random"}

Peer = Callable[[Task, int, int], float]


def available() -> dict[str, Peer]:
    """The peers that can run here."""
    needs = {OPTUNA: ("torch", "optuna"), SKLEARN: ("torch", "sklearn")}
    run = {OPTUNA: optuna_search, SKLEARN: sklearn_search}
    return {name: run[name] for name, modules in needs.items() if all(map(importlib.util.find_spec, modules))}


def optuna_search(task: Task, num_trials: int, seed: int) -> float:
    """One trial after another; the least validation loss."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    held = task.search.validation
    assert held is not None

    def objective(trial):
        lam = trial.suggest_float("l2", *task.lams, log=True)
        rate = trial.suggest_float("learning_rate", *task.rates, log=True)
        model = estimator(task).set_params(lam=lam, learning_rate=rate)
        return -model.fit(task.search.train.xs, task.search.train.ys).score(held.xs, held.ys)

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(objective, n_trials=num_trials)
    return float(study.best_value)


def sklearn_search(task: Task, num_trials: int, seed: int) -> float:
    """Random trials in as many processes as there are cores; the least validation loss."""
    from scipy.stats import loguniform
    from sklearn.model_selection import PredefinedSplit, RandomizedSearchCV

    first, held = task.search.train, task.search.validation
    assert held is not None
    xs, ys = np.concatenate([first.xs, held.xs]), np.concatenate([first.ys, held.ys])
    fold = PredefinedSplit(np.repeat([-1, 0], [len(first.ys), len(held.ys)]))
    space = {"lam": loguniform(*task.lams), "learning_rate": loguniform(*task.rates)}
    options = {"n_iter": num_trials, "cv": fold, "refit": False, "random_state": seed, "n_jobs": os.cpu_count()}
    found = RandomizedSearchCV(estimator(task), space, **options).fit(xs, ys)
    return -float(found.cv_results_["mean_test_score"].max())


def estimator(task: Task):
    """The network of the task, and its training, in PyTorch."""
    from experiments.choosing_lambda.torch_loop import Recurrent

    return Recurrent(task.cell, task.hidden_size, task.output_size, task.num_updates)
