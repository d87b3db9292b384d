"""Linear sequences whose fits and true errors are closed forms, cross-validated by the thousand."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import KFold

from rnnreg.selection import one_standard_error

Pairs = Sequence[tuple[np.ndarray, np.ndarray]]

RULES: tuple[str, ...] = ("min", "1se", "paired_1se")


class Task(NamedTuple):
    """Independent sequences x_1 … x_T and y = Σ_k w_k x_{T−k} + e, as the readout of a delay line of T steps sees them.

    x is an AR(1) of coefficient .5 and variance 1; w_k falls like .8^k, with Var(Σ w_k x_{T−k}) = 1; Var(e) = 1/SNR.

    Attributes:
        num_rows: sequences.
        length: T.
        snr: Var(Σ w_k x_{T−k}) / Var(e).
    """

    num_rows: int
    length: int
    snr: float

    @property
    def covariance(self) -> np.ndarray:
        """`[T, T]` of x, latest first (and last: it is the same)."""
        return powers(0.5, self.length)

    @property
    def weights(self) -> np.ndarray:
        """`[T]`, w, latest first."""
        w = 0.8 ** np.arange(self.length)
        return w / np.sqrt(w @ self.covariance @ w)

    def draw(self, num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """xs `[S, N, T]`, latest first, and ys `[S, N]` of S data sets."""
        rng = np.random.default_rng([seed, self.num_rows, self.length, round(1000 * self.snr)])
        xs = rng.normal(size=(num, self.num_rows, self.length)) @ np.linalg.cholesky(self.covariance).T
        return xs, xs @ self.weights + rng.normal(size=xs.shape[:2]) / np.sqrt(self.snr)

    def error(self, fitted: np.ndarray, bias: np.ndarray | float = 0.0) -> np.ndarray:
        """The mean squared error of Σ v_k x_{T−k} + b, v `[…, T]`, on new sequences: Var(e) + b² + (v − w)ᵀ Σ (v − w).

        >>> round(float(Task(10, 4, 2.0).error(np.zeros(4))), 12)
        1.5
        """
        off = fitted - self.weights
        return 1 / self.snr + np.square(bias) + np.sum(off @ self.covariance * off, axis=-1)


def powers(rho: float, num: int) -> np.ndarray:
    """`[n, n]`, the covariance ρ^|i − j| of an AR(1) of variance 1."""
    places = np.arange(num)
    return rho ** np.abs(places[:, None] - places)


def fit(xs: np.ndarray, ys: np.ndarray, lams: np.ndarray) -> np.ndarray:
    """The minimisers `[…, λ, T]` of (1/n) Σ (y − v·x)² + λ‖v‖², of xs `[…, n, T]` and ys `[…, n]`.

    >>> fit(np.eye(2), np.array([1.0, 2.0]), np.array([0.5])).tolist()
    [[0.5, 1.0]]
    """
    values, vectors = np.linalg.eigh(np.swapaxes(xs, -1, -2) @ xs / xs.shape[-2])
    cross = np.swapaxes(vectors, -1, -2) @ (np.swapaxes(xs, -1, -2) @ ys[..., None]) / xs.shape[-2]
    along = cross[..., None, :, 0] / (values[..., None, :] + lams[:, None])
    return along @ np.swapaxes(vectors, -1, -2)


class Curves(NamedTuple):
    """S cross-validations.

    Attributes:
        scores: `[S, λ, K]`, mean squared errors on the validation rows.
        sizes: `[K]` validation rows.
        fitted: `[S, λ, K, T]`, the models of the folds.
        mean: `[S, λ]`, the mean over folds.
        se: `[S, λ]`, its standard error, as glmnet's cvsd.
        chosen: by rule, `[S]`, the place of λ.
    """

    scores: np.ndarray
    sizes: np.ndarray
    fitted: np.ndarray
    mean: np.ndarray
    se: np.ndarray
    chosen: dict[str, np.ndarray]


def cross_validate(xs: np.ndarray, ys: np.ndarray, lams: np.ndarray, pairs: Pairs) -> Curves:
    """Of S data sets, with the rules of `rr.selection.one_standard_error`."""
    fitted, scores = [], []
    for rows, held in pairs:
        models = fit(xs[:, rows], ys[:, rows], lams)
        left = ys[:, None, held] - models @ np.swapaxes(xs[:, held], 1, 2)
        fitted.append(models)
        scores.append(np.square(left).mean(axis=-1))
    sizes = np.array([len(held) for _, held in pairs])
    return judged(np.stack(scores, axis=-1), sizes, lams, np.stack(fitted, axis=2))


def judged(scores: np.ndarray, sizes: np.ndarray, lams: np.ndarray, fitted: np.ndarray) -> Curves:
    """Curves and choices from the scores of the folds."""
    found = [one_standard_error(each, sizes, lams) for each in scores]
    places = np.array([each[1:] for each in found])
    mean, se = (np.stack([getattr(each[0], name) for each in found]) for name in ("mean", "se"))
    return Curves(scores, sizes, fitted, mean, se, dict(zip(RULES, places.T, strict=True)))


class Nesting(NamedTuple):
    """S nested cross-validations, λ by "min" of the inner folds.

    Attributes:
        scores: `[S, K]`, of the chosen λ on each outer fold.
        true: `[S, K]`, the true errors of the same models.
        mean: `[S]`.
        se: `[S]`.
    """

    scores: np.ndarray
    true: np.ndarray
    mean: np.ndarray
    se: np.ndarray


class Simulated(NamedTuple):
    """S data sets of one task.

    Attributes:
        task: the task.
        lams: `[λ]`.
        cv: their cross-validations.
        inner: `[S, λ, K]`, the true errors of the models of the folds, which saw n (K − 1)/K rows.
        refit: `[S, λ]`, the true errors of the models of all n rows.
        norm: `[S, λ]`, ‖v‖ of those.
        nested: their nested cross-validations.
    """

    task: Task
    lams: np.ndarray
    cv: Curves
    inner: np.ndarray
    refit: np.ndarray
    norm: np.ndarray
    nested: Nesting


def kfold(num_folds: int, num_rows: int) -> Pairs:
    """Scikit-learn's K blocks of rows."""
    return list(KFold(num_folds).split(np.zeros(num_rows)))


def simulate(task: Task, lams: np.ndarray, *, num_simulations: int, num_folds: int, seed: int = 0) -> Simulated:
    """Draws data sets, chooses λ on each by every rule, fits again on all rows, and nests."""
    xs, ys = task.draw(num_simulations, seed)
    pairs = kfold(num_folds, task.num_rows)
    cv = cross_validate(xs, ys, lams, pairs)
    inner = task.error(cv.fitted)
    models = fit(xs, ys, lams)
    chosen = np.stack(
        [
            cross_validate(xs[:, rows], ys[:, rows], lams, kfold(num_folds, len(rows))).chosen["min"]
            for rows, _ in pairs
        ],
        axis=1,
    )
    nested = nest(cv.scores, inner, cv.sizes, chosen)
    return Simulated(task, lams, cv, inner, task.error(models), np.linalg.norm(models, axis=-1), nested)


def nest(scores: np.ndarray, true: np.ndarray, sizes: np.ndarray, chosen: np.ndarray) -> Nesting:
    """Nested cross-validation from scores `[S, λ, K]` of the outer folds and what was chosen inside, `[S, K]`."""
    picked, known = (np.take_along_axis(each, chosen[:, None], axis=1)[:, 0] for each in (scores, true))
    rule = functools.partial(one_standard_error, fold_sizes=sizes, lam=[0.0])
    curves = [rule(each[None])[0] for each in picked]
    return Nesting(picked, known, *(np.array([getattr(c, name)[0] for c in curves]) for name in ("mean", "se")))
