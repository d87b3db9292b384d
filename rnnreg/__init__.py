"""Norm regularisation in recurrent networks: λ paths, and what λ did to weights and gradients."""

from rnnreg import (
    bridges,
    cells,
    constraints,
    convert,
    data,
    datasets,
    diagnostics,
    lanes,
    losses,
    metrics,
    networks,
    parametrizations,
    penalties,
    plotting,
    recurrence,
    runtime,
    selection,
    sweeps,
    tasks,
    training,
)
from rnnreg._tree import leaf_paths, with_leaves
from rnnreg.bridges import from_equinox, from_flax, from_functions
from rnnreg.data import Batch, Scaling, Split
from rnnreg.metrics import evaluate
from rnnreg.networks import Network, Noise, explain, forecast, layer, network, sample
from rnnreg.objective import make_objective
from rnnreg.penalties import convert_lambda
from rnnreg.runtime import compilation_cache, environment, use_all_cores
from rnnreg.selection import hypergradient
from rnnreg.sweeps import SweepResult, dry_run, load_result, sweep, verify, zipped
from rnnreg.training import Train, make_train

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Network",
    "Noise",
    "Scaling",
    "Split",
    "SweepResult",
    "Train",
    "bridges",
    "cells",
    "compilation_cache",
    "constraints",
    "convert",
    "convert_lambda",
    "data",
    "datasets",
    "diagnostics",
    "dry_run",
    "environment",
    "evaluate",
    "explain",
    "forecast",
    "from_equinox",
    "from_flax",
    "from_functions",
    "hypergradient",
    "lanes",
    "layer",
    "leaf_paths",
    "load_result",
    "losses",
    "make_objective",
    "make_train",
    "metrics",
    "network",
    "networks",
    "parametrizations",
    "penalties",
    "plotting",
    "recurrence",
    "runtime",
    "sample",
    "selection",
    "sweep",
    "sweeps",
    "tasks",
    "training",
    "use_all_cores",
    "verify",
    "with_leaves",
    "zipped",
]
