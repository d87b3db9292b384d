"""The chosen network against its peers on the test years: forecasts, scores with intervals, paired comparisons."""

from __future__ import annotations

from typing import Any

import numpy as np

import rnnreg as rr
from experiments._sunspots import autoregression as linear
from experiments._sunspots.errors import Interval, PairedComparison, arv, bootstrap_interval, paired_bootstrap
from experiments.lambda_sweep.path import LambdaPath

SPANS = {"train": None, "test_1921_1955": "1921-1955", "test_1956_1979": "1956-1979", "test_1980_2008": "1980-2008"}
TESTS = {name: span for name, span in SPANS.items() if span}

BySpan = dict[str, dict[str, Any]]


class Comparison:
    """Everything that is compared on the same years.

    Attributes:
      years: by span, the target years.
      truth: by span, the sunspot numbers.
      forecasts: one step ahead, by method and span.
      errors: truth less forecast, by method and span.
      chosen: the place of the chosen λ on the path.
      plain: that of λ = 0.
    """

    def __init__(self, config: Any, data: rr.Split, path: LambdaPath, lam: float):
        self.path, self.data = path, data
        self.plain, self.chosen = (np.flatnonzero(path.lam == at)[0] for at in (0, lam))
        first, last = rr.datasets.TRAIN_YEARS
        ends = {"train": (first + max(config.window, 12), last)}  # AR(12) starts in 1712
        ends |= {name: rr.datasets.TEST_YEARS[span] for name, span in TESTS.items()}
        self.years = {name: np.arange(a, b + 1) for name, (a, b) in ends.items()}
        self.series = rr.datasets.sunspot_series()
        self.truth = {span: linear.truth(self.series, at) for span, at in self.years.items()}
        self.forecasts = self._forecasts(config)
        self.errors = {
            method: {span: self.truth[span] - by[span] for span in SPANS} for method, by in self.forecasts.items()
        }

    def _forecasts(self, config: Any) -> dict[str, dict[str, np.ndarray]]:
        ours = {
            name: self.path.mean_forecast(self.data.test[span] if span else self.data.train)
            for name, span in SPANS.items()
        }
        methods = linear.METHODS | {
            "ridge_ar": linear.ridge_autoregression(config.window, rule=config.rule, num_folds=config.folds)
        }
        places = {"chosen": self.chosen, "unregularised": self.plain}
        found = {
            method: {name: ours[name][place, -len(at) :] for name, at in self.years.items()}
            for method, place in places.items()
        }
        return found | {
            name: {s: linear.one_step(methods[name], self.series, at) for s, at in self.years.items()}
            for name in ("linear_ar12", "ar9", "ar9_sqrt", "ridge_ar", "persistence")
        }

    def scores(self) -> dict[str, dict[str, dict[str, Interval]]]:
        """ARV and R² with their intervals, by method and span."""
        return {
            method: {
                span: {"arv": bootstrap_interval(errors), "r2": bootstrap_interval(errors, targets=self.truth[span])}
                for span, errors in by_span.items()
            }
            for method, by_span in self.errors.items()
        }

    def paired(self) -> dict[str, PairedComparison]:
        """The chosen network against others, year by year; then one network alone against one without λ."""
        found = {}
        for other in ("unregularised", "ar9_sqrt"):
            ours, theirs = self.errors["chosen"], self.errors[other]
            for span in TESTS:
                name = f"chosen - {other}, {span}"
                found[name] = paired_bootstrap(ours[span], theirs[span])
            together = [np.concatenate([by[span] for span in TESTS]) for by in (ours, theirs)]
            found[f"chosen - {other}, all tests"] = paired_bootstrap(*together)
        for name, span in TESTS.items():
            errors = self.truth[name] - self.path.seed_forecasts(self.data.test[span])
            root = np.sqrt(np.mean(np.square(errors), axis=1))  # [λ, year], over seeds
            pair = paired_bootstrap(root[self.chosen], root[self.plain])
            found[f"one network, chosen - unregularised, {name}"] = pair
        return found

    def hindsight(self) -> BySpan:
        """By test span, ARV at every λ: of the mean forecast of the seeds, and of single networks on average."""
        found = {}
        for name, span in TESTS.items():
            batch, truth = self.data.test[span], self.truth[name]
            single = [[arv(truth, y) for y in seeds] for seeds in self.path.seed_forecasts(batch)]
            found[name] = {
                "lam": self.path.lam.tolist(),
                "mean_forecast": [arv(truth, y) for y in self.path.mean_forecast(batch)],
                "one_network": np.mean(single, axis=1).tolist(),
            }
        return found
