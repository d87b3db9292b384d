"""The scores of a sweep in the form that users of scikit-learn know."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnreg._signatures import typed
from rnnreg.selection._combinations import combinations
from rnnreg.selection._scores import check_combine
from rnnreg.sweeps import SweepResult


@typed
def cv_results(
    result: SweepResult,
    *,
    metric: str = "val_loss",
    maximise: bool | None = None,
    combine: str = "mean",
) -> dict[str, Any]:
    """A sweep as `cv_results_` of scikit-learn's searches, with a row for each combination of axes.

    As there, more is always better: a metric of which less is better, such as a loss, enters with its sign changed
    (as in "neg_mean_squared_error"). Seeds are combined inside a fold first. Means over folds are weighted by their
    sizes, as in `choose`; with folds of equal size that is scikit-learn's mean. There are no times: lanes run together.

    Args:
      result: a sweep; without folds there is one split, the validation set.
      metric: a variable of `result.metrics`.
      maximise: whether more of it is better, as in `choose`.
      combine: how seeds are combined, "mean" or "ensemble", as in `choose`.

    Returns:
      `params` (a dict of every hyperparameter and static value, as `Choice.values`), and arrays `[n]`: `param_<name>`,
      `split<k>_test_score`, `mean_test_score`, `std_test_score`, `se_test_score` (the standard error of `choose`) and
      `rank_test_score` (1 is best, ties share a rank). Scores are NaN, and the rank last, where a lane diverged or did
      not finish. The row of a choice (with `num_epochs="fixed"`) is
      `cv_results(result)["params"].index(choice.values)`.

    Raises:
      ValueError: an unknown metric, or one whose direction nobody stated.

    >>> import rnnreg as rr, jax, optax
    >>> batch, times = rr.data.windows(np.sin(np.arange(40.0)), window=4)
    >>> train = rr.make_train(rr.network([rr.cells.elman(4)], 1, readout="last"),
    ...     loss=rr.losses.squared_error(), penalties={"l2": rr.penalties.l2()},
    ...     optimizer=optax.adam(1e-2), num_epochs=20)
    >>> result = rr.sweep(train, {"l2": [1e-3, 1e-1]}, rr.Split(batch, target_times=times),
    ...     folds=rr.selection.blocked_folds(3), key=jax.random.key(0), progress=False)
    >>> table = cv_results(result)
    >>> table["params"], table["rank_test_score"].tolist()
    ([{'l2': 0.001}, {'l2': 0.1}], [1, 2])

    `pandas.DataFrame(table)` is a table of it.
    """
    check_combine(combine)
    found = combinations(result, metric=metric, maximise=maximise, combine=combine)
    sign = 1.0 if found.maximise else -1.0
    shares = found.sizes / found.sizes.sum(axis=1, keepdims=True)
    spread = np.sum(shares * np.square(found.folds - found.mean[:, None]), axis=1)
    splits = {f"split{k}_test_score": sign * scores for k, scores in enumerate(found.folds.T)}
    ranked = np.where(np.isfinite(found.mean), -sign * found.mean, np.inf)
    return {
        "params": found.values,
        **{
            f"param_{name}": np.array([row[name] for row in found.values])
            for name in found.values[0]
        },
        **splits,
        "mean_test_score": sign * found.mean,
        "std_test_score": np.sqrt(spread),
        "se_test_score": found.se,
        "rank_test_score": np.searchsorted(np.sort(ranked), ranked).astype(np.int32) + 1,
    }
