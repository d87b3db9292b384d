"""Complete records of diagnostics made from plain numbers, for tests of what reads them."""

import warnings

import jax
import numpy as np

from rnnreg.diagnostics import GradientFlow, HessianDirections


def flow_of(log_norms, *, whole=False):
    """The gradient flow of log norms `[B, T]`, or `[S, B, T]` over runs: of one layer, or of a tree of layers."""
    logs = log_norms if isinstance(log_norms, dict) else {"layer_0": log_norms}
    logs = jax.tree.map(
        lambda leaf: np.asarray(leaf, float), logs, is_leaf=lambda x: isinstance(x, list)
    )
    first = jax.tree.leaves(logs)[0]
    runs, num_steps = first.shape[:-2], first.shape[-1]

    def ratios(leaf):
        leaf = np.where(np.isfinite(leaf), leaf, np.nan)
        return leaf - leaf[..., :1]

    def error(leaf):
        return np.nanstd(ratios(leaf), axis=-2, ddof=1) / np.sqrt(np.isfinite(leaf).sum(axis=-2))

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # lags at which no gradient is left
        log_ratio = jax.tree.map(lambda leaf: np.nanmean(ratios(leaf), axis=-2), logs)
        return GradientFlow(
            lags=np.broadcast_to(np.arange(num_steps), (*runs, num_steps)),
            ratio=jax.tree.map(np.exp, log_ratio),
            vanished=jax.tree.map(lambda leaf: np.isneginf(leaf).mean(axis=-2), logs),
            norms=jax.tree.map(np.exp, logs),
            log_ratio=log_ratio,
            log_ratio_se=jax.tree.map(error, logs),
            log_norms=logs,
            whole_loss=np.full(runs, whole),
            not_finite=jax.tree.map(lambda leaf: np.isposinf(leaf).mean(axis=-2), logs),
        )


def hessian_of(eigenvalues, residuals, ritz_values):
    """Eigenpairs of a Hessian of as many parameters as there are estimates."""
    size = len(ritz_values)
    return HessianDirections(
        eigenvalues=np.array(eigenvalues),
        directions=np.eye(size)[: len(eigenvalues)],
        residuals=np.array(residuals),
        ritz_values=np.array(ritz_values),
        diagonal=np.array(ritz_values),
        off_diagonal=np.zeros(size - 1),
    )
