"""Classes of sequences."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnreg.estimators._base import RNNEstimatorCV
from rnnreg.estimators._sequences import read_pairs
from rnnreg.estimators._sklearn import ClassifierMixin, check_classification_targets


class RNNClassifierCV(ClassifierMixin, RNNEstimatorCV):
    """A recurrent network for the class of a sequence; λ is chosen by cross-validation.

        min_w  Σ_n a_n (−log softmax(f_w(x_n))[y_n]) / Σ_n a_n + λ R(w)

    X, the arguments and the attributes are those of `RNNRegressorCV`. λ is chosen by the cross-entropy on validation
    rows. A whole number for `cv` means stratified folds, as in scikit-learn. Of several seeds the mean logit predicts.

    Attributes:
      classes_: the classes, sorted; the columns of `predict_proba`.

    >>> X = np.repeat([[0.0], [1.0]], 6, axis=0) * np.ones(3)  # [N, T]: sequences of zeros and of ones
    >>> y = np.repeat(["low", "high"], 6)
    >>> model = RNNClassifierCV("elman", 4, lambdas=[0, 1e-3], cv=2, num_epochs=50, learning_rate=0.05, random_state=0)
    >>> model = model.fit(X, y)
    >>> model.predict(X[[0, -1]]).tolist(), model.classes_.tolist(), model.predict_proba(X).shape
    (['low', 'high'], ['high', 'low'], (12, 2))
    """

    def fit(
        self, X: Any, y: Any, *, groups: Any = None, sample_weight: Any = None
    ) -> RNNClassifierCV:
        """Chooses λ and trains on all rows.

        Args:
          X: sequences, as `RNNRegressorCV` says.
          y: `[N]` classes, numbers or texts.
          groups: `[N]`, for splitters of groups.
          sample_weight: `[N]`, how much a row counts in the loss and in scores.

        Returns:
          Itself.

        Warns:
          RuntimeWarning: `lambda_` is the largest value that was tried, or the smallest and not 0.
        """
        rows = read_pairs(self, X, y, input_size=self.input_size)
        check_classification_targets(rows.ys)
        self.classes_, ys = np.unique(rows.ys, return_inverse=True)
        self._fit(rows, ys.astype(np.int32), len(self.classes_), groups, sample_weight)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class.

        Args:
          X: as in `fit`.

        Returns:
          `[N, classes]`, in the order of `classes_`.
        """
        logits = self._outputs(X)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class.

        Args:
          X: as in `fit`.

        Returns:
          `[N]` classes.
        """
        logits = self._outputs(X)
        return self.classes_[logits.argmax(axis=1)]
