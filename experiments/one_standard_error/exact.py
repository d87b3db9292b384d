"""What must be equal: the trained readout and scikit-learn's ridge, our rules and glmnet's, nested and two loops."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score

import rnnreg as rr
from experiments.one_standard_error.ridge import Simulated

SIZE, STEPS, INPUTS = 5, 6, 2
MSE = "neg_mean_squared_error"


class RidgeOfMeans(RegressorMixin, BaseEstimator):
    """Scikit-learn's ridge with λ of this library: (1/n) Σ (y − ŷ)² + λ‖w‖², so α = nλ for each number of rows."""

    def __init__(self, lam: float = 1.0):
        self.lam = lam

    def fit(self, X: np.ndarray, y: np.ndarray) -> RidgeOfMeans:
        """Fits it, the intercept unpenalised."""
        alpha = rr.convert_lambda(self.lam, "rnnreg", "sklearn_ridge", num_rows=len(X))
        self.model_ = Ridge(alpha=alpha, solver="svd").fit(X, y)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """ŷ."""
        return self.model_.predict(X)


def glmnet_rule(folds: np.ndarray, sizes: np.ndarray, lams: np.ndarray) -> tuple[np.ndarray, np.ndarray, int, int]:
    """cvm, cvsd and the places of lambda.min and lambda.1se, as cv.glmnet defines them, from errors `[λ, K]` of folds.

    >>> glmnet_rule(np.array([[1.0, 2.0], [1.1, 2.0], [3.0, 3.0]]), np.ones(2), np.array([0.1, 1.0, 10.0]))[2:]
    (0, 1)
    """
    cvm = np.average(folds, axis=1, weights=sizes)
    cvsd = np.sqrt(np.average((folds - cvm[:, None]) ** 2, axis=1, weights=sizes) / (folds.shape[1] - 1))
    lambda_min = lams[cvm <= cvm.min()].max()
    semin = (cvm + cvsd)[lams == lambda_min][0]
    lambda_1se = lams[cvm <= semin].max()
    place, place_1se = (int(np.flatnonzero(lams == each)[0]) for each in (lambda_min, lambda_1se))
    return cvm, cvsd, place, place_1se


def disagreements(simulations: Iterable[Simulated]) -> tuple[int, int, float]:
    """In how many data sets λ_min or λ_1se is not glmnet's, of how many, and the largest difference of cvsd."""
    wrong, total, largest = 0, 0, 0.0
    for one in simulations:
        for number, scores in enumerate(one.cv.scores):
            _, cvsd, *places = glmnet_rule(scores, one.cv.sizes, one.lams)
            wrong += places != [one.cv.chosen[rule][number] for rule in ("min", "1se")]
            total += 1
            largest = max(largest, float(np.abs(one.cv.se[number] / cvsd - 1).max()))
    return wrong, total, largest


class Exact(NamedTuple):
    """Largest relative differences, and places of λ where one tool and the other choose.

    Attributes:
        weights: of the readout fitted on all rows, to `Ridge`.
        scores: of the errors of the folds, to `Ridge`.
        left_out: of the errors of single rows left out, to `RidgeCV`.
        nested: of the errors of the outer folds, to `cross_val_score` of `GridSearchCV`.
        chosen: λ_min and λ_1se by `rr.selection.one_standard_error`, from the errors here.
        expected: by glmnet's rule from scikit-learn's errors.
        ridge_cv: λ_min by `RidgeCV`, with the same folds.
        lams: `[λ]`.
        folds: `[λ, K]`, the errors here.
        sizes: `[K]`.
    """

    weights: float
    scores: float
    left_out: float
    nested: float
    chosen: tuple[float, float]
    expected: tuple[float, float]
    ridge_cv: float
    lams: np.ndarray
    mean: np.ndarray
    se: np.ndarray


def readout_train(num_epochs: int) -> rr.Train:
    """A linear recurrent network whose cell stays as it starts: L-BFGS on its readout alone."""
    cell = rr.cells.elman(SIZE, activation=jax.nn.identity, recurrent_init=rr.cells.orthogonal(0.9))

    def held(params):
        return jax.tree_util.tree_map_with_path(lambda path, _: "layer" in path[0].key, params)

    def still(optimizer):
        return optax.chain(optax.masked(optax.set_to_zero(), held), optimizer)

    return rr.make_train(
        rr.network([cell], output_size=1, readout="last"),
        loss=rr.losses.squared_error("mean"),
        penalties={"l2": rr.penalties.l2("W_hy")},
        optimizer=still(optax.lbfgs(1.0, linesearch=None)),
        num_epochs=num_epochs,
        record_every=num_epochs,
    )


def states(params: Any, xs: np.ndarray) -> np.ndarray:
    """h_T of h ← x W_xh + h W_hh + b, in NumPy."""
    W_xh, W_hh, b = (np.asarray(params["layer_0"][name]) for name in ("W_xh", "W_hh", "b_h"))
    h = np.zeros((len(xs), len(b)))
    for x in np.swapaxes(xs, 0, 1):
        h = x @ W_xh + h @ W_hh + b
    return h


def measure(lams: np.ndarray, *, num_rows: int, few_rows: int, num_epochs: int) -> Exact:
    """Trains the readout for every λ and fold, and compares; rows are left out one by one of the first few."""
    rng = np.random.default_rng(0)
    xs = rng.normal(size=(num_rows, STEPS, INPUTS))
    ys = xs[:, -3:].sum(axis=(1, 2)) + 2.0 * rng.normal(size=num_rows) + 1.0
    train = readout_train(num_epochs)
    batch = rr.Batch(jnp.asarray(xs), jnp.asarray(ys[:, None]))
    five, four, few = KFold(5), KFold(4), np.arange(few_rows)
    options: dict[str, Any] = {"key": jax.random.key(0), "progress": False}
    inside = rr.selection.nested(train, {"l2": lams}, batch, outer=five, inner=four, **options)
    one_out = [(np.delete(few, row), few[[row]]) for row in few]
    result = rr.sweep(train, {"l2": lams}, batch, folds=one_out, refit=True, **options).select(seed=0)
    scores = inside.result.select(seed=0).metrics["val_loss"].values[:, :5]  # l2 × fold, the outer folds first
    curve, *ours = rr.selection.one_standard_error(scores, inside.fold_sizes, lams)

    params = jax.tree.map(np.asarray, result.select(fold="all").groups[0].params)
    H = states(jax.tree.map(lambda leaf: leaf[0], params), xs)
    theirs = np.stack([-cross_val_score(RidgeOfMeans(lam), H, ys, cv=five, scoring=MSE) for lam in lams])
    ridges = np.stack([RidgeOfMeans(lam).fit(H, ys).model_.coef_ for lam in lams])
    _, _, *places = glmnet_rule(theirs, inside.fold_sizes, lams)
    inner_rows, one_less = num_rows * 4 // 5, few_rows - 1
    alphas = rr.convert_lambda(lams, "rnnreg", "sklearn_ridge", num_rows=inner_rows)
    by_folds = RidgeCV(alphas, cv=five, scoring=MSE).fit(H, ys)
    alone = RidgeCV(lams * one_less, store_cv_results=True).fit(H[:few_rows], ys[:few_rows])
    search = GridSearchCV(RidgeOfMeans(), {"lam": lams}, cv=four, scoring=MSE)
    outside = -cross_val_score(search, H, ys, cv=five, scoring=MSE)
    return Exact(
        weights=relative(params["readout"]["W_hy"][..., 0], ridges),
        scores=relative(scores, theirs),
        left_out=relative(result.metrics["val_loss"].values[:, :few_rows], alone.cv_results_.T),
        nested=relative(inside.scores, outside),
        chosen=(float(lams[ours[0]]), float(lams[ours[1]])),
        expected=(float(lams[places[0]]), float(lams[places[1]])),
        ridge_cv=float(np.asarray(by_folds.alpha_)) / inner_rows,
        lams=lams,
        mean=curve.mean,
        se=curve.se,
    )


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference, relative to the largest number of each row."""
    scale = np.abs(theirs).max(axis=-1, keepdims=True)
    return float((np.abs(ours - theirs) / scale).max())
