"""Regression of numbers on sequences."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnreg.estimators._base import RNNEstimatorCV
from rnnreg.estimators._sequences import read_pairs
from rnnreg.estimators._sklearn import RegressorMixin


class RNNRegressorCV(RegressorMixin, RNNEstimatorCV):
    """A recurrent network for one target, or several, a sequence; λ is chosen by cross-validation.

        min_w  Σ_n a_n ‖y_n − f_w(x_n)‖² / (O Σ_n a_n) + λ R(w)

    `fit` is one sweep over λ × folds × seeds, with the refit on all rows in the same compiled program. Everything of
    scikit-learn works: `clone`, `Pipeline`, `cross_val_score`, `GridSearchCV`. Equal settings share what was compiled.

    X is `[N, T, D]`; or a list of sequences `[T_i, D]` of unequal lengths, which are padded and masked; or two axes
    `[N, T · D]`, the features of the first step first, as windows of a series are with D = 1. `predict` takes the form
    that `fit` took; T may differ in the first two. Sequences of a list may be `[T_i · D]` too: an estimator that was
    fitted on a list reads each row of a list as a sequence, whatever the lengths.

    A fitted model can be pickled if its arguments can: names, functions of a module, and the penalties `l2`, `l1` and
    `elastic_net` with arguments of their own. Cells and other penalties that were made cannot: name them, as in
    `cell="gru"`, `penalty="nuclear"`, or give the function that makes a cell.

    Args:
      cell: "elman", "gru" or "lstm"; a function of the hidden size, such as `rr.cells.irnn`; a cell, or a list of
        cells, whose own sizes count.
      hidden_size: H, units.
      lambdas: the values of λ; "auto" is 0 and ten values between those that `rr.selection.lambda_grid` measures.
      penalty: R: the name of a penalty in `rr.penalties`, such as "l2" (Σ w² of all weight matrices) or "l1", or one
        that was made, such as `rr.penalties.l2("W_hh")`.
      cv: folds, as in scikit-learn: how many, a splitter, or pairs of row numbers, such as those of
        `rr.selection.blocked_folds(5)(split)` for overlapping windows. With a number, rows are not shuffled: those in
        the order of time are validated in blocks.
      rule: how λ is chosen from the curve, "min", "1se" or "paired_1se", as in `rr.selection.choose`.
      num_epochs: passes over the training rows.
      batch_size: rows of an update; None takes all.
      learning_rate: of the optimiser.
      optimizer: "adam", "sgd", or a function of the learning rate that returns an optax transformation.
      seeds: how many networks are trained for each λ, or which seeds. Their mean output predicts, and is scored.
      readout: "last" reads the state at the last true step; "flatten" reads all states, and T is fixed.
      input_size: D of an X of two axes.
      standardize: whether inputs and targets are scaled by mean and standard deviation of the training rows of each
        fold, and back.
      random_state: an int, a `RandomState` or None, from which the key of the sweep is drawn.
      verbose: show a bar on anything longer than a few seconds.

    Attributes:
      lambda_: λ by the rule.
      lambda_min_: the largest λ of the best mean score.
      lambda_1se_: the largest λ within one standard error of it.
      choice_: the `Choice`, with its curve and its warnings.
      cv_results_: as of `GridSearchCV`; see `rr.selection.cv_results`. The score is minus the validation loss, in
        the units of scaled targets, if they are scaled.
      best_index_: the row of `lambda_` there.
      best_score_: its mean score.
      result_: the `SweepResult` of λ × folds × seeds.
      refit_result_: the `SweepResult` of the networks that predict, by seed.
      params_: their parameters, a list with a tree for each seed.
      network_: the network.
      n_features_in_: columns of an X of two axes, else D.

    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> windows = np.sin(np.arange(40)[:, None] + np.arange(6))  # [N, T] of a series
    >>> model = RNNRegressorCV("elman", 4, lambdas=[0, 1e-3], cv=2, num_epochs=100, learning_rate=0.05, random_state=0)
    >>> model = make_pipeline(StandardScaler(), model).fit(windows[:, :5], windows[:, 5])
    >>> model.predict(windows[:2, :5]).shape, model[-1].lambda_ in (0, 1e-3)
    ((2,), True)
    >>> model.score(windows[:, :5], windows[:, 5]) > 0.9
    True

    Sequences of unequal lengths:

    >>> rows = [np.ones((length, 2)) for length in (3, 1, 2, 4)]
    >>> model = RNNRegressorCV("elman", 4, lambdas=[0], cv=2, num_epochs=2, random_state=0).fit(rows, [3, 1, 2, 4])
    >>> model.predict(rows).shape
    (4,)
    """

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(
        self, X: Any, y: Any, *, groups: Any = None, sample_weight: Any = None
    ) -> RNNRegressorCV:
        """Chooses λ and trains on all rows.

        Args:
          X: sequences, as the class says.
          y: `[N]` or `[N, O]` numbers.
          groups: `[N]`, for splitters of groups.
          sample_weight: `[N]`, how much a row counts in the loss and in scores.

        Returns:
          Itself.

        Warns:
          RuntimeWarning: `lambda_` is the largest value that was tried, or the smallest and not 0.
        """
        rows = read_pairs(self, X, y, input_size=self.input_size, multi_output=True, y_numeric=True)
        self._one_target = rows.ys.ndim == 1
        ys = rows.ys.astype(rows.xs.dtype).reshape(len(rows.ys), -1)
        self._fit(rows, ys, ys.shape[1], groups, sample_weight)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The targets of sequences.

        Args:
          X: as in `fit`.

        Returns:
          `[N]` or `[N, O]`, as the targets were; of several seeds the mean.
        """
        found = self._outputs(X)
        return found[:, 0] if self._one_target else found
