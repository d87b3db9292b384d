"""What λ means elsewhere: the same problem in the conventions of other tools."""

from __future__ import annotations

from typing import Any

from rnnreg._checks import check_count, check_number
from rnnreg._signatures import Numbers, typed

# Each entry: the factor c with (λ here) = c(sizes) · (strength there), and the sizes that it needs.
_TO_OURS = {
    "rnnreg": (lambda: 1.0, ()),
    "keras": (lambda: 1.0, ()),
    "weight_decay": (lambda: 0.5, ()),
    "element_mean": (lambda num_weights: 1.0 / num_weights, ("num_weights",)),
    "sklearn_ridge": (
        lambda num_rows, num_outputs: 1.0 / (num_rows * num_outputs),
        ("num_rows", "num_outputs"),
    ),
    "sklearn_lasso": (lambda num_outputs: 2.0 / num_outputs, ("num_outputs",)),
    "glmnet_ridge": (lambda target_sd: 1.0 / target_sd, ("target_sd",)),
    "glmnet_lasso": (lambda: 2.0, ()),
}


@typed
def convert_lambda(
    lam: Numbers,
    from_: str,
    to: str,
    *,
    num_weights: int | None = None,
    num_rows: int | None = None,
    num_outputs: int = 1,
    target_sd: float | None = None,
) -> Any:
    """The strength in the convention `to` of the problem that has strength `lam` in `from_`.

    The problem, here, is L + λ Σ w² (or L + λ Σ |w| for the lassos), biases left out. If the loss of the other tool is
    fixed, L is `rr.losses.squared_error("mean")`, (1/nO) Σ (y − ŷ)² over n rows of O = `num_outputs` numbers. With
    `squared_error("sum")`, (1/n) Σ (y − ŷ)², leave `num_outputs` at 1.

    | convention | its objective | λ here |
    |---|---|---|
    | `rnnreg`, `keras` | L + λ Σ w², any loss L | λ |
    | `weight_decay` (optax.add_decayed_weights, torch.optim.SGD) | L, any loss; adds wd·w to its gradient | wd / 2 |
    | `element_mean` (pycog, PsychRNN) | L + λ mean(w²), any loss L | λ / num_weights |
    | `sklearn_ridge` | Σ (y − ŷ)² + α Σ w², sums over rows and outputs | α / (num_rows · num_outputs) |
    | `sklearn_lasso` | (1/2n) Σ (y − ŷ)² + α Σ |w|, sums over rows and outputs | 2 α / num_outputs |
    | `glmnet_ridge` (alpha=0, standardize=FALSE) | (1/2n) Σ (y − ŷ)² + (λ / 2 sd(y)) Σ w² | λ / target_sd |
    | `glmnet_lasso` (alpha=1, standardize=FALSE) | (1/2n) Σ (y − ŷ)² + λ Σ |w| | 2 λ |

    `weight_decay` is equal under SGD only; AdamW is another method, whatever its strength.

    Args:
      lam: the strength, a number or an array.
      from_: the convention of `lam`.
      to: the convention wanted.
      num_weights: number of penalised elements, for `element_mean`.
      num_rows: n, for `sklearn_ridge`.
      num_outputs: the numbers that the mean loss divides by in each row, for scikit-learn: O with one target a row, T·O
        with targets at T steps; 1 with the sum loss. glmnet's conventions hold for one output.
      target_sd: standard deviation of y with 1/n, for `glmnet_ridge`.

    Returns:
      The strength in the convention `to`, of the type of `lam`.

    Raises:
      ValueError: an unknown convention, or a size that is needed and missing.

    >>> convert_lambda(1e-3, "rnnreg", "weight_decay")
    0.002
    >>> convert_lambda(5.0, "sklearn_ridge", "rnnreg", num_rows=100)
    0.05
    >>> convert_lambda(0.5, "rnnreg", "sklearn_ridge", num_rows=100, num_outputs=3)  # the mean loss of three outputs
    150.0
    """
    check_count(num_outputs, "num_outputs")
    for name, size in (("num_weights", num_weights), ("num_rows", num_rows)):
        if size is not None:
            check_count(size, name)
    if target_sd is not None:
        check_number(target_sd, "target_sd", least=0, above=True)
    sizes = {
        "num_weights": num_weights,
        "num_rows": num_rows,
        "num_outputs": num_outputs,
        "target_sd": target_sd,
    }

    def factor(name: str) -> float:
        if name.startswith("glmnet") and num_outputs != 1:
            raise ValueError(
                f"the convention {name!r} holds for one output; got num_outputs={num_outputs}. Fit glmnet to one "
                "output at a time."
            )
        if name not in _TO_OURS:
            raise ValueError(f"unknown λ convention {name!r}; expected one of {sorted(_TO_OURS)}.")
        function, needed = _TO_OURS[name]
        missing = [size for size in needed if sizes[size] is None]
        if missing:
            raise ValueError(f"the convention {name!r} needs {missing[0]}=…; it was not given.")
        return function(**{size: sizes[size] for size in needed})

    return lam * factor(from_) / factor(to)
