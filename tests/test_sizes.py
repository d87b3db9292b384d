"""Sizes beyond reason: an error that says what was asked for and what there is, before anything is made or compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import HYPER, make, sine

import rnnreg as rr
from rnnreg import _memory

KEY = jax.random.key(0)
SPLIT = sine()
GRID = {"l2": [0.0, 1e-3], "learning_rate": 1e-2}
RATES = np.linspace(0, 1, 10**5)
BIG, HUGE = 10**9, 10**12
W = np.eye(3, dtype=np.float32)


def net(hidden_size=4, **options):
    return rr.network([rr.cells.elman(hidden_size)], 1, readout="last", **options)


# the draw of parameters is no part of what is timed
ZEROS = jax.tree.map(
    lambda leaf: np.zeros(leaf.shape, leaf.dtype),
    jax.eval_shape(lambda key: net().init(key, 1), KEY),
)


def sweep(train=None, grid=GRID, data=SPLIT, *, of=rr.sweep, **options):
    return of(make(num_epochs=1) if train is None else train, grid, data, key=KEY, **options)


def of_size(hidden_size, **options):
    return make(net(hidden_size), num_epochs=1, **options)


LONG = rr.Batch(np.zeros((16, 10**5, 1), np.float32), np.zeros((16, 1), np.float32))
IN_ALL = r".* would take [\d.]+ [TPE]iB of memory, and there are 16.0 GiB in all\. Take"
GIB = IN_ALL.replace("TPE", "GTPE")
CASES = {
    "parameters": (lambda: net(BIG).init(KEY, 1), "the parameters of this network" + IN_ALL),
    "inputs": (lambda: net().init(KEY, HUGE), "the parameters" + IN_ALL + ".*input_size"),
    "outputs": (
        lambda: rr.network([rr.cells.gru(4)], HUGE).init(KEY, 1),
        "the parameters" + IN_ALL,
    ),
    "tokens": (
        lambda: rr.network([rr.cells.lstm(4)], 1, embedding=(HUGE, 4)).init(KEY),
        "the parameters" + IN_ALL,
    ),
    "cell": (lambda: rr.cells.gru(10**8).init(KEY, 1), "a matrix of shape" + IN_ALL),
    "initialiser": (
        lambda: rr.cells.orthogonal()(KEY, (BIG, BIG), jnp.float32),
        "a matrix of shape" + IN_ALL,
    ),
    "run": (
        lambda: of_size(BIG)(HYPER, SPLIT, key=KEY),
        "training 1000000003000000001 parameters" + IN_ALL,
    ),
    "start": (lambda: of_size(BIG).init(HYPER, SPLIT, key=KEY), "training .* parameters" + IN_ALL),
    "history": (
        lambda: make(num_epochs=2**31 - 1, record_every=1)(HYPER, SPLIT, key=KEY),
        "what the run returns" + GIB,
    ),
    "lanes": (
        lambda: sweep(of_size(BIG)),
        "what 2 lanes return,.* 1 records and predictions" + IN_ALL,
    ),
    "records": (
        lambda: sweep(make(num_epochs=BIG, record_every=1)),
        "what 2 lanes return, each .* 1000000000 records" + GIB,
    ),
    "states": (
        lambda: sweep(of_size(10**4), data=LONG),
        "one lane, with 100030001 parameters and updates on 16 rows of 100000 steps" + GIB,
    ),
    "epochs": (
        lambda: make(num_epochs=HUGE),
        "num_epochs must be at most 2147483647.*; got 1000000000000",
    ),
    "patience": (lambda: make(patience=HUGE), "patience must be at most 2147483647"),
    "batches": (lambda: sweep(make(batch_size=HUGE)), "batch_size must be at most"),
    "rows": (lambda: sweep(make(batch_size=BIG)), "batch_size=1000000000 is larger than the 36"),
    "updates": (
        lambda: sweep(make(num_epochs=BIG, batch_size=1)),
        "1000000000 epochs of 36 rows with batch_size=1 are 36000000000 updates",
    ),
    "seeds": (lambda: sweep(seeds=BIG), "a list of 1000000000 seeds" + GIB),
    "more seeds": (lambda: sweep(seeds=HUGE), r"seeds must be at most 2\*\*32"),
    "seeds to look at": (lambda: sweep(of=rr.dry_run, seeds=BIG), "a list of 1000000000 seeds"),
    "grid": (
        lambda: sweep(grid={"l2": RATES, "learning_rate": 1 + RATES}),
        r"a list of 10000000000 lanes \(1 seeds × 1 folds × 10000000000 values\)" + GIB,
    ),
    "folds": (
        lambda: sweep(folds=rr.selection.blocked_folds(10**6)),
        "1000000 folds need at least",
    ),
    "static": (
        lambda: sweep(lambda static: make(), static={"size": range(BIG)}),
        "the static axis 'size' has 1000000000 values",
    ),
    "windows": (
        lambda: rr.data.windows(np.zeros(200_000), 100_000),
        "100000 windows of 100000 steps would take",
    ),
    "mask": (
        lambda: rr.data.lengths_to_mask([1, 2], HUGE),
        "a mask of 2 × 1000000000000 steps" + IN_ALL,
    ),
    "forecast": (
        lambda: rr.forecast(net(), ZEROS, SPLIT.train.xs, HUGE),
        "a forecast of 1000000000000 steps would take",
    ),
    "rows of a task": (
        lambda: rr.tasks.adding(10).sample(KEY, HUGE),
        "a batch of 1000000000000 rows" + IN_ALL,
    ),
    "steps of a task": (lambda: rr.tasks.adding(HUGE).sample(KEY, 2), "steps beyond 32 bits"),
    "bits of a task": (
        lambda: jax.jit(rr.tasks.flip_flop(9, num_bits=HUGE).sample, static_argnums=1)(KEY, 2),
        "a batch of 2 rows" + IN_ALL,
    ),
    "lags": (
        lambda: rr.diagnostics.fisher_memory(W, W[0], num_lags=HUGE, noise=W),
        "1000000000000 lags" + IN_ALL,
    ),
}


@pytest.fixture
def small_machine(monkeypatch):
    monkeypatch.setattr(_memory, "total_memory", lambda device=None: 2**34)
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda *at: pytest.fail("it was compiled"))


@pytest.mark.parametrize("case", CASES)
def test_it_is_said_before_anything_is_made(case, small_machine):
    call, said = CASES[case]
    with pytest.raises(ValueError, match=said):
        call()


def test_a_dry_run_tells_sizes_that_nothing_holds(small_machine):
    planned = sweep(of_size(BIG), of=rr.dry_run)
    assert planned.lanes == 2
    assert planned.bytes > 2 * 4 * BIG**2
    assert planned.memory >= 2**62


def test_lanes_are_looked_at_in_no_longer_than_a_path_takes():
    planned = sweep(of=rr.dry_run, seeds=200_000)
    assert planned.lanes == 400_000


def test_what_fits_runs(monkeypatch):
    """What is asked for is at most what then is there, so no sweep that fits is refused."""
    needed = []
    check = _memory.check_fits
    monkeypatch.setattr(
        "rnnreg.sweeps._dry_run.check_fits", lambda *at: needed.append(at[0]) or check(*at)
    )
    result = sweep(make(num_epochs=3), progress=False)
    returned = sum(leaf.nbytes for leaf in jax.tree.leaves(result.groups[0].params))
    assert returned < needed[0] < 10 * returned
    plan = sweep(make(num_epochs=3), of=rr.dry_run).plans[0]
    assert needed[1] < plan.lane_bytes


def test_more_lanes_a_call_than_there_are_make_no_copies():
    assert rr.lanes.make_plan(3, plan="one_by_one", width=7).width == 7
    for lanes, most in ((3, 256), (10**4, 10**4)):
        for width in (BIG, np.int64(BIG)):
            assert rr.lanes.make_plan(lanes, plan="one_by_one", width=width).width == most
