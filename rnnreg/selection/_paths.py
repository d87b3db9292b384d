"""Warm paths: each λ starts from the parameters of the one before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jax import Array

from rnnreg._checks import check_choice
from rnnreg._signatures import typed
from rnnreg.data import Batch, Split, as_split
from rnnreg.lanes import Plan
from rnnreg.sweeps import Request, SweepResult, read_seeds, sweep_path
from rnnreg.training import Train


@typed
def warm_path(
    train: Train,
    grid: Mapping[str, Any],
    data: Split | Batch,
    *,
    key: Array,
    seeds: int | Iterable[int] = 1,
    folds: Any = None,
    params: Any = None,
    direction: str = "up",
    plan: str | Plan = "auto",
) -> SweepResult:
    """A path of λ with warm starts: w(λ_1) starts as any run, and w(λ_i) where w(λ_{i−1}) ended.

    λ rises along the path (in which order the grid has them does not matter). `rr.sweep` is the cold counterpart: there
    every λ starts from the same draw. In a convex problem both end in the same minimum, and a warm path needs fewer
    epochs for each λ. A recurrent network is not convex: a warm path follows the minimum that its smallest λ found, as
    long as that exists, and the number of epochs behind each λ differs.

    Each seed and fold is one lane, a scan over λ inside one compiled program, so a path keeps one core busy for as long
    as all its runs take one after another; a sweep can spread them. Optimiser, minibatches and penalty states start
    anew at each λ. A run that diverges hands on its last finite parameters. It runs in one call: Ctrl-C keeps nothing.

    `direction="down"` is there to show why glmnet's order is wrong here. For a linear model the largest λ, where all
    weights are 0, is the natural start. A recurrent network that has collapsed does not come back: at W_hh = 0 the
    gradient of a loss over k steps with respect to W_hh is of order ‖W_hh‖^{k−1}, so memory once lost stays lost, and
    every smaller λ looks as bad as the largest.

    Args:
      train: from `make_train`; its epochs are those of each λ.
      grid: one list, that of λ, and numbers: `{"l2": [1e-4, 1e-3], "learning_rate": 0.1}`.
      data: the rows.
      key: root of all randomness, as in `rr.sweep`: seeds and folds start like those of a sweep.
      seeds: how many, or which.
      folds: as in `rr.sweep`.
      params: the parameters that every path starts from; None draws them from each lane's key.
      direction: "up", or "down" for the demonstration.
      plan: how lanes run, as in `rr.sweep`.

    Returns:
      A result labelled like that of a sweep, for `choose` and figures; `config["path"]` is the direction. `refit`
      trains the chosen λ from the start, and `rr.verify` refuses a path.

    Raises:
      ValueError: bad arguments, or another number of axes than one, before anything compiles.

    Warns:
      RuntimeWarning: lanes diverged.

    Source: Friedman, Hastie & Tibshirani 2010 (glmnet: warm starts); Pascanu, Mikolov & Bengio 2013 (gradients that
    vanish with ‖W_hh‖).

    >>> import numpy as np, jax, optax, rnnreg as rr
    >>> batch, times = rr.data.windows(np.sin(np.arange(40.0)), window=4)
    >>> train = rr.make_train(rr.network([rr.cells.elman(4)], 1, readout="last"),
    ...     loss=rr.losses.squared_error(), penalties={"l2": rr.penalties.l2()},
    ...     optimizer=optax.adam(1e-2), num_epochs=20)
    >>> result = warm_path(train, {"l2": [1e-4, 1e-3, 1e-2]}, rr.Split(batch, target_times=times),
    ...     folds=rr.selection.blocked_folds(3), key=jax.random.key(0))
    >>> dict(result.metrics.val_loss.sizes), rr.selection.choose(result).axis
    ({'l2': 3, 'seed': 1, 'fold': 3}, 'l2')
    """
    check_choice(direction, "direction", ("up", "down"))
    request = Request(grid, key, read_seeds(seeds), folds, plan=plan)
    down = direction == "down"
    return sweep_path(train, grid, as_split(data), request, down=down, params=params)
