"""What both estimators share: reading, one sweep, the choice of λ, the refit, and the forward pass."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import jax
import numpy as np

from rnnreg._checks import check_choice, warn_caller
from rnnreg.data import Batch, Split, standardize
from rnnreg.estimators._run import Architecture, network_of, run_of
from rnnreg.estimators._sequences import Sequences, read_sequences
from rnnreg.estimators._sklearn import (
    BaseEstimator,
    check_cv,
    check_is_fitted,
    check_random_state,
    check_sample_weight,
    is_classifier,
)
from rnnreg.networks import Network
from rnnreg.selection import RULES, Choice, choose, cv_results, lambda_grid, refit
from rnnreg.sweeps import sweep


class RNNEstimatorCV(BaseEstimator):
    """A recurrent network whose λ is chosen by cross-validation; see the classes that users take."""

    def __init__(
        self,
        cell: Any = "gru",
        hidden_size: int = 16,
        *,
        lambdas: Any = "auto",
        penalty: Any = "l2",
        cv: Any = 5,
        rule: str = "min",
        num_epochs: int = 200,
        batch_size: int | None = None,
        learning_rate: float = 1e-2,
        optimizer: Any = "adam",
        seeds: Any = 1,
        readout: str = "last",
        input_size: int = 1,
        standardize: bool = True,
        random_state: Any = None,
        verbose: bool = False,
    ):
        self.cell = cell
        self.hidden_size = hidden_size
        self.lambdas = lambdas
        self.penalty = penalty
        self.cv = cv
        self.rule = rule
        self.num_epochs = num_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.optimizer = optimizer
        self.seeds = seeds
        self.readout = readout
        self.input_size = input_size
        self.standardize = standardize
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_clone__(self):
        """A clone with the same cell, penalty and optimiser, so that what was compiled for them serves it."""
        made = super().__sklearn_clone__()
        made.cell, made.penalty, made.optimizer = self.cell, self.penalty, self.optimizer
        return made

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _fit(
        self, rows: Sequences, ys: np.ndarray, output_size: int, groups: Any, sample_weight: Any
    ) -> None:
        """The sweep over λ × folds × seeds with its refit, and the choice."""
        check_choice(self.rule, "rule", RULES)
        weights = None
        if sample_weight is not None:
            weights = check_sample_weight(sample_weight, rows.xs, ensure_non_negative=True)
        data = Split(Batch(rows.xs, ys, rows.mask, weights))
        folds = check_cv(self.cv, rows.ys, classifier=is_classifier(self))
        pairs = list(folds.split(np.zeros((len(ys), 1)), rows.ys, groups))
        data = standardize(data) if self.standardize else data
        cell = tuple(self.cell) if isinstance(self.cell, list) else self.cell
        num_steps = rows.xs.shape[1] if self.readout == "flatten" else None
        made = Architecture(cell, self.hidden_size, output_size, self.readout, num_steps)
        train = run_of(
            made,
            self.penalty,
            self.optimizer,
            self.num_epochs,
            self.batch_size,
            is_classifier(self),
        )
        key = jax.random.key(check_random_state(self.random_state).randint(2**31 - 1))
        rate = {"learning_rate": self.learning_rate}
        lambdas = self.lambdas
        if isinstance(lambdas, str) and lambdas == "auto":
            lambdas = lambda_grid(train, data, key=key, hyper=rate, num=10, zero=True).values
        grid = {"lam": np.atleast_1d(lambdas).tolist(), **rate}
        options: Any = {"key": key, "progress": bool(self.verbose)}
        seeds = int(self.seeds) if isinstance(self.seeds, Integral) else list(self.seeds)
        result = sweep(train, grid, data, seeds=seeds, folds=pairs, refit=True, **options)
        combine = "ensemble" if result.metrics.sizes["seed"] > 1 else "mean"
        choice = choose(result, axis="lam", rule=self.rule, combine=combine)
        _warn_of_edge(choice)
        self._architecture = made
        self.result_ = result
        self.choice_ = choice
        self.lambda_, self.lambda_min_, self.lambda_1se_ = (
            choice.lam,
            choice.lam_min,
            choice.lam_1se,
        )
        self.cv_results_ = cv_results(result, combine=combine)
        self.best_index_ = self.cv_results_["params"].index(choice.values)
        self.best_score_ = float(self.cv_results_["mean_test_score"][self.best_index_])
        self.refit_result_ = refit(train, result, choice, data, **options)
        self.params_ = [self.refit_result_.params_at(seed=s) for s in result.config["seeds"]]

    def _outputs(self, X: Any) -> np.ndarray:
        """`[N, O]`, the mean over seeds of the outputs, in the units of the targets."""
        check_is_fitted(self, "refit_result_")
        rows = read_sequences(self, X, input_size=self.input_size)
        found = self.refit_result_.predict(
            Batch(rows.xs, None, rows.mask),
            network=self.network_,
            inputs="original",
            outputs="original",
        )
        found = found.mean("seed") if "seed" in found.dims else found
        return found.values.astype(np.float64)

    @property
    def network_(self) -> Network:
        """The network that was trained; `net.apply(params, xs)` is its forward pass."""
        check_is_fitted(self, "refit_result_")
        return network_of(self._architecture)


def _warn_of_edge(choice: Choice) -> None:
    """A warning if the λ that the rule chose is the largest that was tried, or the smallest and not 0."""
    lam, tried = choice.lam, [float(one) for one in choice.curve.lam]
    if len(tried) > 1 and lam in (max(tried), min(tried)) and lam > 0:
        edge, more = (
            ("largest", "larger ones") if lam == max(tried) else ("smallest", "smaller ones, or 0")
        )
        warn_caller(
            f"lambda_ = {lam:.3g} is the {edge} value of lambdas that was tried; try {more}."
        )
