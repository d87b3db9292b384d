"""Sweeps of random configurations, as a program: `python device_cases.py FIRST LAST` prints what comes out of them."""

import hashlib
import json
import sys
import warnings

import jax
import numpy as np
import optax
from small import make, sine

import rnnreg as rr

CELLS = {"elman": rr.cells.elman, "irnn": rr.cells.irnn, "gru": rr.cells.gru, "lstm": rr.cells.lstm}
PENALTIES = {
    "l2": rr.penalties.l2,
    "l1": lambda: rr.penalties.l1("W_hh"),
    "activation": rr.penalties.activation,
    "soft_orthogonality": rr.penalties.soft_orthogonality,
}
OPTIMIZERS = {"sgd": optax.sgd, "momentum": lambda rate: optax.sgd(rate, 0.9), "adam": optax.adam}
HOW = [{"plan": "one_by_one"}, {"plan": "chunks", "chunk": 2}, {"plan": "vmap"}]


def case(number):
    """The arguments of one sweep. Every third runs as the one before it, in chunks and then under vmap."""
    rng = np.random.default_rng(number // 3)

    def pick(options):
        return list(options)[rng.integers(len(options))]

    cell, backend, batch = pick(CELLS), pick(["scan", "fused", "native"]), pick([None, 4, 7])
    folds, penalty, optimizer = pick([None, 2, 3]), pick(PENALTIES), pick(OPTIMIZERS)
    dropout, lambdas = pick([0.0, 0.0, 0.2]), [0.0, 0.1, 0.01][: rng.integers(1, 4)]
    net = rr.network(
        [CELLS[cell](int(rng.integers(2, 9)))],
        1,
        readout="last",
        backend=backend,
        output_dropout=dropout,
    )
    split = sine(int(rng.integers(25, 38)), window=int(rng.integers(3, 9)))
    train = make(
        net,
        penalties={penalty: PENALTIES[penalty]()},
        optimizer=lambda hyper: OPTIMIZERS[optimizer](hyper["learning_rate"]),
        num_epochs=4,
        batch_size=batch,
        keep_best=folds is not None,
    )
    options = {"seeds": int(rng.integers(1, 4)), "key": jax.random.key(number), "progress": False}
    if folds is not None:
        options["folds"] = rr.selection.blocked_folds(folds)
    grid = {penalty: lambdas, "learning_rate": 3e-2}
    return (train, grid, rr.data.standardize(split)), options | HOW[number % 3]


def digest(result):
    """SHA-256 of every number of a result."""
    arrays = [*jax.tree.leaves(result.groups[0].params)]
    arrays += [each.values for _, each in sorted(result.metrics.data_vars.items())]
    return hashlib.sha256(b"".join(np.asarray(each).tobytes() for each in arrays)).hexdigest()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    for number in range(*map(int, sys.argv[1:])):
        arguments, options = case(number)
        result = rr.sweep(*arguments, **options)
        print(
            json.dumps(
                {
                    "plan": result.config["plans"][0],
                    "program": result.config["program_sha256"],
                    "digest": digest(result),
                    "loss": result.metrics.train_loss.values.tolist(),
                }
            ),
            flush=True,
        )
