"""A training loop of PyTorch, as an estimator of scikit-learn; it imports neither JAX nor this library."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator


class Recurrent(BaseEstimator):
    """One recurrent layer, a linear readout of its last state, Adam on all rows, λ‖W‖² by weight decay.

    Args:
        cell: "elman" or "gru".
        hidden_size: H.
        output_size: O.
        num_updates: updates.
        lam: λ; the decay of Adam is 2λ, on matrices alone.
        learning_rate: of Adam.
        seed: of the start.
    """

    def __init__(
        self,
        cell: str = "elman",
        hidden_size: int = 16,
        output_size: int = 1,
        num_updates: int = 100,
        lam: float = 0.0,
        learning_rate: float = 1e-2,
        seed: int = 0,
    ):
        self.cell = cell
        self.hidden_size = hidden_size
        self.output_size = output_size
        self.num_updates = num_updates
        self.lam = lam
        self.learning_rate = learning_rate
        self.seed = seed

    def fit(self, xs: np.ndarray, ys: np.ndarray) -> Recurrent:
        """Trains on rows `[N, T, D]` with targets `[N, O]`, or classes `[N]`."""
        torch.set_num_threads(1)  # networks this small are fastest so
        torch.manual_seed(self.seed)
        kind: Any = {"elman": torch.nn.RNN, "gru": torch.nn.GRU}[self.cell]
        self.layer_ = kind(xs.shape[-1], self.hidden_size, batch_first=True)
        self.readout_ = torch.nn.Linear(self.hidden_size, self.output_size)
        leaves = [*self.layer_.parameters(), *self.readout_.parameters()]
        groups = [
            {"params": [leaf for leaf in leaves if leaf.ndim > 1], "weight_decay": 2 * self.lam},
            {"params": [leaf for leaf in leaves if leaf.ndim == 1]},
        ]
        optimizer = torch.optim.Adam(groups, lr=self.learning_rate)
        inputs, targets = torch.as_tensor(xs), torch.as_tensor(ys)
        targets = targets.long() if targets.ndim == 1 else targets
        for _ in range(self.num_updates):
            optimizer.zero_grad()
            self._loss(inputs, targets).backward()
            torch.nn.utils.clip_grad_norm_(leaves, 1.0)
            optimizer.step()
        return self

    def score(self, xs: np.ndarray, ys: np.ndarray) -> float:
        """Minus the loss: more is better."""
        targets = torch.as_tensor(ys)
        with torch.no_grad():
            loss = self._loss(torch.as_tensor(xs), targets.long() if targets.ndim == 1 else targets)
        return -float(loss)

    def _loss(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        outputs = self.readout_(self.layer_(inputs)[0][:, -1])
        functional = torch.nn.functional
        return (
            functional.cross_entropy(outputs, targets) if targets.ndim == 1 else functional.mse_loss(outputs, targets)
        )
