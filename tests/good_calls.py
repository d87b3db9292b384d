"""A good value for every argument of the public functions, small and made once, for the tests of wrong ones.

`good(function, name)` is the value of an argument: by function and name, else by name.
"""

import functools
import types

import figure_cases as figures
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from conftest import require
from diagnostic_records import flow_of, hessian_of
from small import HYPER, held_out, make, sine

import rnnreg as rr

KEY = jax.random.key(0)
SPLIT = sine(12)
BATCH = SPLIT.train
XS = BATCH.xs
NET = rr.network([rr.cells.elman(2)], 1, readout="last")
PARAMS = NET.init(KEY, 1)
CELL = rr.cells.elman(2)
LOSS = rr.losses.squared_error()
TRAIN = make(NET, num_epochs=2)
SPECTRUM = figures.make_spectrum()
POINTS = figures.make_points()
TORCH = {
    "weight_ih_l0": np.ones((2, 1)),
    "weight_hh_l0": np.eye(2),
    "bias_ih_l0": np.ones(2),
    "bias_hh_l0": np.ones(2),
}


@functools.cache
def result():
    """A sweep of two λ."""
    return rr.sweep(TRAIN, {"l2": [0.0, 0.1], "learning_rate": 0.1}, SPLIT, key=KEY, progress=False)


@functools.cache
def started():
    """The state of a run before its first update, as shapes."""
    return jax.eval_shape(lambda: TRAIN.init(HYPER, SPLIT, key=KEY))


def found_points():
    """A fixed point of the network."""
    one, square = np.zeros(1), np.zeros((1, 2, 2))
    return rr.diagnostics.FixedPoints(
        np.zeros((1, 2)), one, one, one, square, {"layer_0/h": (0, 2)}
    )


def gru_of_equinox():
    """A cell of Equinox."""
    return require("equinox").nn.GRUCell(1, 2, key=KEY)


def gru_of_flax():
    """A cell of Flax."""
    import flax.linen as nn

    return nn.GRUCell(2)


@functools.cache
def program():
    """Two lanes of a sum."""
    return rr.lanes.Program(
        lambda lane, shared: lane + shared, rr.lanes.make_plan(2), jnp.ones(2), jnp.ones(())
    )


def distribution():
    """Of Optuna, for a λ."""
    return require("optuna").distributions.FloatDistribution(1e-3, 1.0, log=True)


def ax():
    """Axes of a figure of its own."""
    return plt.figure().add_subplot()


def of(loss):
    """The loss of the network as a function of its parameters."""
    return rr.diagnostics.data_loss_of(NET, loss, BATCH)


# By name, or by "function.name" where one name means two things; functions of no argument are called at the first use.
GOOD = {
    "W": np.eye(2) / 2,
    "alphas": np.linspace(-1, 1, 3),
    "apply": lambda: lambda params, xs: xs @ params["W"],
    "at": lambda: None,
    "ax": ax,
    "batch": BATCH,
    "best": 0.5,
    "cell": CELL,
    "cells": [CELL],
    "carry": None,
    "choice": lambda: figures.make_choice([0.0, 0.1]),
    "connected": np.eye(2),
    "curves": {"training": np.ones(3)},
    "data": SPLIT,
    "delay": 3,
    "described": lambda: rr.networks.describe(NET),
    "devices": lambda: tuple(jax.devices()[:1]),
    "directions": lambda: rr.diagnostics.random_direction(PARAMS, key=KEY),
    "figure": lambda: plt.figure(),
    "flows": lambda: flow_of([[0.0, -1.0, -2.0]]),
    "fold": None,
    "fold_sizes": [1, 1],
    "folds": [[1.0, 2.0], [2.0, 3.0]],
    "found": lambda: figures.make_saturation(),
    "from_": "rnnreg",
    "function": lambda: jnp.square,
    "given": lambda: jnp.tanh,
    "grid": {"l2": [0.0], "learning_rate": 0.1},
    "hidden": np.ones((3, 2)),
    "hidden_size": 4,
    "hyper": HYPER,
    "init": lambda: lambda key, input_size, dtype: {"W": jnp.ones((input_size, 1), dtype)},
    "input_size": 1,
    "key": KEY,
    "lam": 0.1,
    "lams": [0.0, 0.1],
    "lanes": jnp.ones(2),
    "leaves": {},
    "left": np.eye(2),
    "lengths": [1, 2],
    "limit": 1.0,
    "log_norms": np.zeros((2, 5)),
    "longest": 10,
    "loss": LOSS,
    "loss_of": lambda: of(LOSS),
    "margin": 0.1,
    "matrices": np.eye(2),
    "memories": lambda: figures.make_fisher(),
    "net": NET,
    "num_batches": 2,
    "num_epochs": 2,
    "num_exponents": 1,
    "num_folds": 2,
    "num_lags": 2,
    "num_lanes": 3,
    "num_rows": 2,
    "num_steps": 10,
    "num_trials": 3,
    "optimizer": lambda: optax.sgd(0.1),
    "output_size": 1,
    "outputs": np.ones((2, 1)),
    "pairs": [([0, 1], [2])],
    "parametrization": lambda: rr.parametrizations.Parametrization(
        "same", start=lambda key, W: {"W": W}, form=lambda leaves: leaves["W"]
    ),
    "params": PARAMS,
    "parts": lambda: figures.make_parts(),
    "path": "layer_0/W_hh",
    "paths": "W_hh",
    "penalties": lambda: {"l2": rr.penalties.l2()},
    "penalty": lambda: rr.penalties.l2(),
    "plan": lambda: rr.lanes.make_plan(2),
    "predictions": {"model": [1.0, 2.0]},
    "products": lambda: figures.make_products(-0.5),
    "prompt": np.array([0, 1]),
    "radius": 1.0,
    "rank": 1,
    "rate": 0.1,
    "reach": lambda: figures.make_horizon(2),
    "result": lambda: figures.make_result([0.0, 0.1]),
    "right": np.eye(2),
    "rows": [0, 1],
    "scaling": None,
    "schedule": lambda: lambda count: 1.0,
    "series": np.arange(9.0),
    "scores": {"random": [2.0, 1.0]},
    "settings": TRAIN.settings,
    "shared": jnp.ones(()),
    "shares": [0.0, 0.5],
    "signal": lambda: figures.make_signal(),
    "signs": [1, -1],
    "space": {"l2": rr.selection.LogUniform(1e-4, 1.0), "learning_rate": rr.selection.OneOf([0.1])},
    "spectra": lambda: SPECTRUM,
    "spectrum": lambda: SPECTRUM,
    "split": SPLIT,
    "starts": np.zeros((1, 2)),
    "state": started,
    "state_dict": TORCH,
    "step": lambda: lambda params, state, x: state,
    "study": lambda: require("optuna").create_study(),
    "surface": lambda: figures.make_line(),
    "system": NET,
    "table": POINTS,
    "tables": [POINTS],
    "times": [1, 2],
    "to": "weight_decay",
    "tolerance": 0.1,
    "train": TRAIN,
    "tree": PARAMS,
    "truth": [1.0, 2.0],
    "v": np.ones(2),
    "values": [0.0],
    "weights": [np.ones((1, 2)), np.eye(2), np.ones(2)],
    "window": 3,
    "x": np.zeros(1),
    "xs": XS,
}
OWN = {
    "cells.chrono.cell": rr.cells.lstm(2),
    "bridges.cell_from_equinox.module": gru_of_equinox,
    "bridges.cell_from_flax.module": gru_of_flax,
    "bridges.from_equinox.module": gru_of_equinox,
    "bridges.from_flax.module": gru_of_flax,
    "SweepResult.save.path": "result.nc",
    "hypergradient.data": held_out(SPLIT, 6),
    "lanes.map_lanes.function": lambda: lambda lane, shared: lane,
    "lanes.trace.function": lambda: lambda lane, shared: lane,
    "SweepResult.map.function": lambda: lambda params: params["layer_0"]["b_h"],
    "diagnostics.distinct_points.found": found_points,
    "load_result.path": "result.nc",
    "plotting.save.path": "figure",
    "compilation_cache.path": None,
    "plotting.halving_brackets.found": lambda: figures.make_halving(1),
    "plotting.hessian_spectrum.found": lambda: hessian_of([9.0], [0.1], [-1.0, 9.0]),
    "plotting.parameter_sensitivity.found": figures.make_sensitivity,
    "plotting.sufficient_window.found": figures.make_window,
    "plotting.memory_curve.curves": figures.make_curve,
    "plotting.lyapunov_spectrum.spectra": lambda: figures.make_lyapunov(
        [0.4, -0.2], unconverged=False
    ),
    "plotting.lyapunov_trace.spectrum": lambda: figures.make_lyapunov(
        [0.4, -0.2], unconverged=False
    ),
    "plotting.cv_map.result": lambda: figures.make_scores([0.0, 0.1]),
    "plotting.cv_seeds.result": lambda: figures.make_scores([0.0, 0.1]),
    "plotting.spectral_paths.at": [0.0, 0.1],
    "plotting.spectral_paths.spectrum": lambda: figures.make_spectrum(2),
    "plotting.weight_norms.lam": [0.0, 0.1],
    "plotting.weight_norms.values": {"norm": [1.0, 2.0]},
    "plotting.lyapunov_trace.num_exponents": 2,
    "selection.one_standard_error.lam": [0.0, 0.1],
    "selection.choose.result": result,
    "selection.improvement.result": result,
    "selection.lambda_grid.train": lambda: make(NET, optimizer=optax.sgd(0.1), num_epochs=2),
    "selection.nested.outer": [([0, 1, 2, 3], [4, 5]), ([4, 5, 6, 7], [0, 1])],
    "selection.nested.inner": lambda: rr.selection.blocked_folds(2),
    "selection.rolling_origin.horizon": 2,
    "selection.grouped.splitter": rr.selection.grouped,
    "selection.grouped.groups": [0, 1],
    "selection.hyperband.train": make(NET, num_epochs=3),
    "selection.halving.grid": {"l2": [0.0, 0.1], "learning_rate": 0.1},
    "selection.cv_results.result": result,
    "selection.run_study.space": lambda: {"l2": distribution(), "learning_rate": 0.1},
    "selection.refit.result": result,
    "selection.to_optuna.result": result,
    "selection.tune_online.data": held_out(SPLIT, 6),
    "selection.tune_online.every": 1,
    "sweeps.verify.result": result,
    "convert.from_flax.tree": lambda: rr.convert.to_flax(PARAMS["layer_0"], "elman"),
    "convert.to_keras.params": PARAMS["layer_0"],
    "convert.to_flax.params": PARAMS["layer_0"],
    "recurrence.unroll.params": PARAMS["layer_0"],
    "recurrence.unroll.xs": XS.swapaxes(0, 1),
    "recurrence.unroll.state": CELL.initial_state(len(XS), XS.dtype),
    "diagnostics.decay_rate.first": 0,
    "tasks.adding.target": "sum",
    "networks.sample.net": rr.network([CELL], 5, embedding=(5, 2)),
    "networks.sample.params": rr.network([CELL], 5, embedding=(5, 2)).init(KEY),
    "evaluate.data": BATCH,
    "data.lengths_to_mask.num_steps": 3,
    "data.windows.times": None,
    "diagnostics.gradient_flow.state": None,
}
OPTIONS = {  # what an argument needs beside it
    "network.num_steps": {"readout": "flatten"},
    "evaluate.batch_size": {"loss": LOSS},
    "selection.run_study.plan": {"folds": [([0, 1, 2], [3])]},
    "selection.run_study.seeds": {"folds": [([0, 1, 2], [3])]},
}
SELF = {
    "SweepResult": result,
    "Train": lambda: TRAIN,
    "lanes.Calibration": lambda: rr.lanes.Calibration({4: {1: 1.0}}, "measured"),
    "lanes.Program": program,
    "selection.IntUniform": lambda: rr.selection.IntUniform(1, 3),
    "selection.LogUniform": lambda: rr.selection.LogUniform(1e-3, 1.0),
    "selection.OneOf": lambda: rr.selection.OneOf([0.1, 0.2]),
    "selection.Uniform": lambda: rr.selection.Uniform(0.0, 1.0),
    "networks.Stack": lambda: NET.apply,
    "networks.Pass": lambda: NET.apply.walk(PARAMS, XS)[0][0].place,
    "networks.Visit": lambda: NET.apply.walk(PARAMS, XS)[0][0],
}


def good(function, name):
    """A value of an argument of a function."""
    if name == "cell" and function.startswith("convert."):
        return "elman"
    place = f"{function}.{name}"
    assert place in OWN or name in GOOD, f"give a good value of {place} in tests/good_calls.py"
    value = OWN.get(place, GOOD.get(name))
    return (
        value() if isinstance(value, (types.FunctionType, functools._lru_cache_wrapper)) else value
    )


def good_call(function, wrong, parameters):
    """The arguments that a function needs beside the one that will be wrong."""
    owner, arguments = function.rpartition(".")[0], {}
    for name, parameter in parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        if name == "self":
            arguments[name] = SELF[owner]()
        elif name != wrong and parameter.default is parameter.empty:
            arguments[name] = good(function, name)
    return arguments | OPTIONS.get(f"{function}.{wrong}", {})
