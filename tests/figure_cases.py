"""Every figure of the library with realistic data, for the rules that all figures keep: records made from arrays.

Each entry draws on the axes that it is given, or on new ones for None, with so many lanes or curves and their names.
"""

import dataclasses

import numpy as np
import xarray as xr
from diagnostic_records import flow_of, hessian_of

from rnnreg import plotting
from rnnreg.diagnostics import (
    DistinctPoints,
    FisherMemory,
    GateOpening,
    GradientSignal,
    Horizon,
    JacobianBounds,
    JacobianProducts,
    LossSurface,
    Lyapunov,
    MemoryCurve,
    ParameterSensitivity,
    PathLengths,
    Saturation,
    SufficientWindow,
    matrix_spectrum,
)
from rnnreg.selection import Choice, Halving, one_standard_error
from rnnreg.sweeps import SweepResult

RNG = np.random.default_rng(20240229)
LAGS = np.arange(20)


def make_choice(lams, num_folds=4):
    folds = 1 + 0.1 * RNG.random((len(lams), num_folds)) + 0.05 * np.arange(len(lams))[:, None]
    curve, best, one_se, paired = one_standard_error(folds, np.arange(1, num_folds + 1), lams)
    return Choice(
        axis="l2",
        metric="val_loss",
        maximise=False,
        rule="min",
        lam=float(lams[best]),
        lam_min=float(lams[best]),
        lam_1se=float(lams[one_se]),
        lam_paired_1se=float(lams[paired]),
        values={"l2": float(lams[best])},
        labels={},
        curve=curve,
        moving=(),
        warnings=(),
    )


def make_trials(num_trials):
    """The choice of a trial by its number, of a search over two λ."""
    choice = make_choice(np.arange(num_trials))
    return dataclasses.replace(
        choice, axis="trial", values={"l1": 0.1, "l2": 0.2}, moving=("l1", "l2")
    )


def make_halving(num_brackets):
    """Brackets of nine trials, of which three and then one go on after 3 and 9 of 27 epochs."""
    bracket = np.repeat(np.arange(num_brackets), 9)
    trials = np.arange(len(bracket))
    ends = np.where(trials % 9 == 0, 27, np.where(trials % 3 == 0, 9, 3))
    epochs = np.arange(1, 28)
    lams = np.geomspace(1e-4, 1, len(trials))
    curves = (1 + trials % 9 + 0.1 * bracket)[:, None] * (0.1 + 1 / epochs)
    curves = np.where(epochs <= ends[:, None], curves, np.nan)[:, None, None] * np.ones(
        (1, 2, 2, 1)
    )
    dims = ("trial", "seed", "fold")
    metrics = {
        "history_val_loss": ((*dims, "epoch"), curves),
        "diverged_at": (dims, np.full(curves.shape[:-1], -1)),
        "fold_size": (["fold"], [10.0, 20.0]),
    }
    coords = {"trial": trials, "l2": ("trial", lams), "seed": [0, 1], "epoch": epochs}
    result = SweepResult(xr.Dataset(metrics, coords), (), {}, "")
    rungs = np.array([3, 9, 27])
    there = rungs <= ends[:, None]
    scores = xr.Dataset(
        {
            "score": (("trial", "epoch"), np.where(there, curves[:, 0, 0, rungs - 1], np.nan)),
            "survived": (("trial", "epoch"), np.where(rungs == 27, there, rungs < ends[:, None])),
            "bracket": (["trial"], bracket),
        },
        {"trial": trials, "l2": ("trial", lams), "epoch": rungs},
    )
    choice = dataclasses.replace(make_trials(9), values={"l2": lams[0]}, labels={"trial": 0})
    return Halving(result, choice, scores, (), 1, 2)


def make_result(lams, folds=("0", "1", "all")):
    dims = ["l2", "seed", "fold", "epoch"]
    values = RNG.random((len(lams), 3, len(folds), 6)) + 0.1
    flow = np.log(0.5) * np.arange(8) * np.ones((*values.shape, 1))
    coords = {"l2": lams, "seed": [0, 1, 2], "fold": list(folds), "epoch": 10 * np.arange(1, 7)}
    metrics = {"history_train_loss": (dims, values), "history_flow.layer_0": ([*dims, "lag"], flow)}
    return SweepResult(xr.Dataset(metrics, coords), (), {"seeds": [0, 1, 2], "dims": dims[:3]}, "")


def make_scores(lams, rates=(0.001, 0.01, 0.1), num_seeds=8):
    """A sweep's scores over λ, learning rate, seeds and folds, with a valley and a lane that diverged."""
    shape = (len(lams), len(rates), num_seeds, 2)
    values = 1 + 0.1 * RNG.random(shape)
    values += 0.1 * np.abs(np.arange(len(lams))[:, None] - np.arange(len(rates)))[..., None, None]
    diverged = np.full(shape, -1)
    diverged[-1, -1, 0, 0] = 3
    dims = ["l2", "learning_rate", "seed", "fold"]
    coords = {
        "l2": lams,
        "learning_rate": list(rates),
        "seed": range(num_seeds),
        "fold": ["0", "1"],
    }
    metrics = {"val_loss": (dims, values), "diverged_at": (dims, diverged)}
    metrics["fold_size"] = ("fold", [1.0, 2.0])
    config = {"seeds": list(range(num_seeds)), "dims": dims}
    return SweepResult(xr.Dataset(metrics, coords), (), config, "")


def make_place(lams):
    """A choice at a learning rate."""
    return dataclasses.replace(
        make_choice(lams), labels={"l2": float(lams[0]), "learning_rate": 0.01}
    )


def make_flow(rate, layers=("layer_0",)):
    with np.errstate(divide="ignore"):
        return flow_of(dict.fromkeys(layers, np.log([[rate**lag for lag in range(8)]])))


def make_fisher(converged=True):
    return FisherMemory(LAGS, 1 / (LAGS + 1), 3.6, np.eye(2), np.eye(2), 0.0, converged)


def make_curve():
    recall = np.exp(-LAGS / 4)
    surrogates = 0.02 + 0.01 * RNG.normal(size=(9, 20))
    baseline = surrogates.mean(axis=0)
    return MemoryCurve(LAGS, recall, recall.sum(), recall, baseline, surrogates, 200, 0)


def make_window(whole=16):
    windows = 2 ** np.arange(6)
    deviation = np.exp(-windows / 3)[:, None] * RNG.uniform(0.5, 1, (6, 4))
    return SufficientWindow(windows, deviation, np.full(4, whole), whole)


def make_plane(flat=False):
    grid = np.linspace(-1, 1, 7)
    loss = np.ones((7, 7)) if flat else np.add.outer(grid**2, 10 * grid**2)
    return LossSurface(grid, grid, loss, np.sqrt(loss), np.zeros((7, 7, 2)))


def make_line():
    grid = np.linspace(-1, 1, 7)
    return LossSurface(grid, None, 0.1 + grid**2, 2 * np.abs(grid), 2 * grid[:, None])


def make_points(num_points=9, slow=()):
    points = RNG.normal(size=(num_points, 3))
    unstable = np.arange(num_points) % 4
    kind = tuple({0: "stable", 3: "unstable"}.get(count, "saddle") for count in unstable)
    is_slow = np.isin(np.arange(num_points), slow)
    zeros = np.zeros(num_points)
    linear = points + 0j, unstable, kind
    return DistinctPoints(points, zeros, *linear, is_slow, zeros > 0, zeros, 0, 0, 0)


def make_saturation(gates=True):
    histogram = RNG.dirichlet(np.ones(10), size=12)
    gate = GateOpening(0.6, 0.3, 0.1, np.full(12, 0.6), RNG.random(5) / 2, RNG.random(5) / 2)
    found = {"input": gate, "forget": gate, "output": gate} if gates else {}
    shares = RNG.random(12)
    units = np.zeros(5)
    edges = np.linspace(-1, 1, 11)
    return Saturation(
        (-1.0, 1.0), 0.4, 0.2, 0.0, units, units, units > 0, shares, histogram, edges, 2.5, found
    )


def make_products(rate, *, rows=2, steps=5, unresolved=()):
    lags = np.arange(steps)
    log = np.stack([rate * lags, 2 * rate * lags], axis=-1)[None] * np.ones((rows, 1, 1))
    flags = np.zeros(log.shape, bool)
    for place in unresolved:
        flags[place] = True
    return JacobianProducts(lags, log[..., 0].mean(axis=0), log, log[..., 0], flags)


def make_lyapunov(exponents, *, unconverged):
    exponents = np.asarray(exponents)[None]
    trace = np.broadcast_to(exponents[:, None], (1, 10, exponents.shape[1]))
    flags = np.full(exponents.shape, unconverged)
    dimension, error = np.array([1.25]), np.full(exponents.shape, 0.01)
    return Lyapunov(
        exponents, error, flags, 0 * error, dimension, dimension, trace, np.arange(1, 11)
    )


def make_parts(rest=0.0, num_lags=8):
    lags, shares = np.arange(num_lags), np.full(num_lags, (1 - rest) / num_lags)
    return PathLengths(
        lags,
        0.5**lags,
        shares,
        np.asarray(rest),
        np.asarray(rest),
        np.ones((num_lags, 2)),
        np.ones(2),
    )


def make_signal():
    lags = np.arange(8)
    return GradientSignal(lags, 0.5**lags, -(0.3**lags), np.ones((3, 8)))


def make_sensitivity():
    logs = np.log([[1.0, 2.0, 4.0], [1.0, 8.0, 4.0]])
    return ParameterSensitivity(np.arange(3), logs, -logs)


def make_horizon(num_lams):
    lag = np.geomspace(9, 1, num_lams)[:, None] + RNG.uniform(-0.5, 0.5, (num_lams, 3))
    censored = lag > 8
    each, reach = np.minimum(lag, 8)[..., None], np.full(lag.shape, 8.0)
    return Horizon(each[..., 0], censored, each, censored[..., None], reach, 0 * reach)


def make_spectrum(*leading):
    return matrix_spectrum(RNG.normal(size=(*leading, 1, 12, 12)) / np.sqrt(12))


BOUNDS = JacobianBounds(1.0, 2.0, 1.5, np.log(2.0), np.log(1.5))
NO_BOUNDS = JacobianBounds(None, None, None, None, None)
DATES = np.datetime64("2019-11-03") + 9 * np.arange(90).astype("timedelta64[D]")
SERIES = np.sin(np.arange(90) / 7.0)
SPANS = {
    "validation": (DATES[40], DATES[60]),
    "test": (DATES[61], DATES[89]),
}


def lams_of(count):
    """So many λ, the first of them 0."""
    return np.array([0.0, *np.geomspace(1e-4, 1e-1, count - 1)]) if count > 1 else np.array([1e-2])


def names_of(count):
    """So many names as users give them."""
    return [f"λ = {lam:.3g}" for lam in lams_of(count)]


def each(count, make):
    """A record by name."""
    return {name: make() for name in names_of(count)}


# By figure: (ax, number of lanes or curves) → the axes.
DRAW = {
    "bifurcation": lambda ax, n: plotting.bifurcation(
        np.arange(n), [make_points() for _ in range(n)], xlabel="bias b", ax=ax
    ),
    "cv_curve": lambda ax, n: plotting.cv_curve(
        make_result(lams_of(n)), make_choice(lams_of(n)), ax=ax
    ),
    "cv_map": lambda ax, n: plotting.cv_map(make_scores(lams_of(n)), make_place(lams_of(n)), ax=ax),
    "cv_seeds": lambda ax, n: plotting.cv_seeds(
        make_scores(lams_of(n)), make_place(lams_of(n)), ax=ax
    ),
    "eigenvalue_cloud": lambda ax, n: plotting.eigenvalue_cloud(each(n, make_spectrum), ax=ax),
    "fisher_memory": lambda ax, n: plotting.fisher_memory(each(n, make_fisher), ax=ax),
    "fixed_points": lambda ax, n: plotting.fixed_points(
        make_points(3 * n, slow=(2,)), states=RNG.normal(size=(2, 30, 3)), ax=ax
    ),
    "gate_openings": lambda ax, n: plotting.gate_openings(make_saturation(), ax=ax),
    "gradient_flow": lambda ax, n: plotting.gradient_flow(
        [make_flow(0.9 - lam) for lam in lams_of(n)], lams=lams_of(n), ax=ax
    ),
    "gradient_flow, named": lambda ax, n: plotting.gradient_flow(
        [make_flow(0.9 - lam) for lam in lams_of(n)], labels=names_of(n), fit=True, ax=ax
    ),
    "gradient_signal": lambda ax, n: plotting.gradient_signal(make_signal(), ax=ax),
    "hessian_spectrum": lambda ax, n: plotting.hessian_spectrum(
        hessian_of([9.0, 2.0], [0.1, 1.0], [-1.0, 0.0, 2.0, 9.0]), ax=ax
    ),
    "history": lambda ax, n: plotting.history(make_result(lams_of(n)), ax=ax),
    "horizons": lambda ax, n: plotting.horizons(lams_of(n), make_horizon(n), ax=ax),
    "jacobian_products": lambda ax, n: plotting.jacobian_products(
        each(n, lambda: make_products(-0.5)), bounds=BOUNDS, ax=ax
    ),
    "jacobian_products, no bound": lambda ax, n: plotting.jacobian_products(
        make_products(-0.5), bounds=NO_BOUNDS, ax=ax
    ),
    "loss_curves": lambda ax, n: plotting.loss_curves(
        {name: RNG.uniform(0.1, 1.0, 30) for name in names_of(n)}, ax=ax
    ),
    "loss_surface": lambda ax, n: plotting.loss_surface(make_line(), xlabel="w", ax=ax),
    "loss_surface, gradient": lambda ax, n: plotting.loss_surface(
        make_plane(), show="gradient_norm", ax=ax
    ),
    "loss_surface, plane": lambda ax, n: plotting.loss_surface(
        make_plane(), paths={name: RNG.uniform(-1, 1, (4, 2)) for name in names_of(n)}, ax=ax
    ),
    "lyapunov_spectrum": lambda ax, n: plotting.lyapunov_spectrum(
        each(n, lambda: make_lyapunov([0.4, -0.2, -1.6, -np.inf], unconverged=False)), ax=ax
    ),
    "lyapunov_trace": lambda ax, n: plotting.lyapunov_trace(
        make_lyapunov(np.linspace(0.4, -1, n), unconverged=True), num_exponents=n, ax=ax
    ),
    "memory_curve": lambda ax, n: plotting.memory_curve(each(n, make_curve), ax=ax),
    "parameter_sensitivity": lambda ax, n: plotting.parameter_sensitivity(
        each(n, make_sensitivity), ax=ax
    ),
    "predicted_series": lambda ax, n: plotting.predicted_series(
        DATES,
        SERIES,
        {name: SERIES + 0.1 * RNG.normal(size=90) for name in names_of(n)},
        spans=SPANS,
        ylabel="temperature (°C)",
        ax=ax,
    ),
    "saturation": lambda ax, n: plotting.saturation(make_saturation(), ax=ax),
    "singular_value_histogram": lambda ax, n: plotting.singular_value_histogram(
        make_products(-0.5, steps=n + 1), lags=range(1, n + 1), ax=ax
    ),
    "spectral_paths": lambda ax, n: plotting.spectral_paths(lams_of(n), make_spectrum(n, 3), ax=ax),
    "spectral_paths, epochs": lambda ax, n: plotting.spectral_paths(
        10 * np.arange(n), make_spectrum(n, 3), over="epoch", ax=ax
    ),
    "sufficient_window": lambda ax, n: plotting.sufficient_window(
        make_window(), tolerance=0.1, ax=ax
    ),
    "weight_norms": lambda ax, n: plotting.weight_norms(
        lams_of(n), {"ρ(W_hh)": RNG.random((n, 3)), "σ_max(W_hh)": 1 + RNG.random((n, 3))}, ax=ax
    ),
    "cv_curve, trials": lambda ax, n: plotting.cv_curve(
        make_result(lams_of(n)), make_trials(n), ax=ax
    ),
    "halving_brackets": lambda ax, n: plotting.halving_brackets(make_halving(min(n, 4)), ax=ax),
    "regret": lambda ax, n: plotting.regret(
        {name: 1 + RNG.exponential(size=(9, 4)) for name in names_of(n)}, best=1.0, ax=ax
    ),
}

# Figures of several panels: (axes, number of lanes) → the axes; and how many panels.
PANELS = {
    "gradient_heat_map": (
        lambda axes, n: plotting.gradient_heat_map(
            make_result(lams_of(n)), lams=lams_of(n)[:3], axes=axes
        ),
        3,
    ),
    "path_lengths": (
        lambda axes, n: plotting.path_lengths(
            [make_parts(0.2) for _ in range(n)], labels=names_of(n), axes=axes
        ),
        2,
    ),
}
