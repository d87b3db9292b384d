"""Lanes in blocks of epochs: wherever a run is cut, stopped or killed, its bits are those of an unbroken one."""

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import OPTIMISED, SEED, tolerance
from small import HYPER, assert_same, make
from small_keep import (
    COMPUTE,
    KEY,
    NET,
    PLANS,
    RUN,
    SPLIT,
    assert_equal,
    files,
    interrupted,
    loaded,
    sweep,
)

import rnnreg as rr
from rnnreg.lanes import Pace, Program
from rnnreg.sweeps import _unfinished as unfinished_room
from rnnreg.sweeps._axes import Axis, coarse_first
from rnnreg.sweeps._carry import nothing, stored, usable
from rnnreg.training import Progress, go_on, whole

EPOCHS = 8
GRID = {"l2": [0.0, 1e-2, 1.0], "learning_rate": [1e-2]}
TRAIN = make(
    NET,
    num_epochs=EPOCHS,
    batch_size=5,
    record_every=2,
    keep_best=True,
    optimizer=lambda hyper: optax.adam(hyper["learning_rate"]),
)
OPTIONS = {"train": TRAIN, "grid": GRID, "seeds": 1}


@pytest.fixture(autouse=True)
def usual_signals():
    """A shell starts what runs in its background with SIGINT ignored."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, usual[number]) for number in usual}
    yield
    assert {number: signal.getsignal(number) for number in usual} == usual
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def cut(monkeypatch):
    """Blocks of three epochs, which end inside of records."""
    monkeypatch.setattr(Pace, "end_of", lambda pace, first: min(first + 3, pace.num_steps))


@pytest.fixture(scope="module")
def unbroken():
    """By plan, a sweep of one block a call."""
    return {plan: sweep(**OPTIONS | options) for plan, options in PLANS.items()}


def during(monkeypatch, block, act):
    """Does something while a block of the sweep runs; blocks count from 0."""

    class Disturbed(Program):
        blocks = 0

        def __call__(self, *given):
            Disturbed.blocks += 1
            if Disturbed.blocks == block + 1:
                act()
            return super().__call__(*given)

    monkeypatch.setattr(COMPUTE, "Program", Disturbed)


def undisturbed(monkeypatch):
    monkeypatch.setattr(COMPUTE, "Program", Program)


def states(folder):
    """The files of calls under way."""
    return sorted(Path(folder).rglob("*.unfinished"))


# ---- a run in pieces --------------------------------------------------------------------------------------------


@pytest.mark.numerics
@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 5, "record_every": 3, "optimizer": optax.adam(1e-2)},
        # stops at its patience in the middle of a block; the last record is a short one
        {"record_every": None, "num_epochs": 60, "keep_best": True, "patience": 3},
        {"optimizer": optax.sgd(1e3), "record_every": 3},  # diverges in the middle of a record
        {"penalties": {"l2": rr.penalties.l1()}, "proximal": True},
    ],
    ids=["minibatches", "patience", "diverges", "proximal"],
)
def test_a_run_in_pieces_is_the_run_alone(options):
    train = make(NET, **{"num_epochs": 6} | options)
    total, data = train.settings.num_epochs, SPLIT.replace(target_times=None)
    hyper = dict(HYPER)
    if "optimizer" in options:
        del hyper["learning_rate"]

    def carried():
        state, run = whole(train, hyper, data, KEY, None)
        norm = run.history["gradient_norm"][0]
        return stored(Progress(state, run, norm, norm == 0))

    zeros = nothing(jax.eval_shape(carried), 1)
    progress = usable(jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), zeros))
    step = jax.jit(lambda key, *given: go_on(train.settings, *given, key=key))
    whole_run = step(KEY, progress, hyper, data, 0, total).run
    for first, last in itertools.pairwise([0, 1, 2, 5, total]):
        progress = step(KEY, progress, hyper, data, first, last)
    assert step._cache_size() == 1
    assert_same(progress.run, whole_run)
    alone = train(hyper, data, key=KEY)
    if OPTIMISED:
        assert_same(progress.run, alone)
    for one, other in zip(jax.tree.leaves(progress.run), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(one, other, **tolerance(loosen=10))  # 60 updates add up


def test_blocks_grow_until_they_take_a_second_or_two():
    pace, ends = Pace(num_steps=1000, call_seconds=1000.0), [0]  # ten times too slow
    while ends[-1] < 1000:
        ends.append(pace.end_of(ends[-1]))
        pace.note(ends[-1] - ends[-2], seconds=0.1 * (ends[-1] - ends[-2]))
    sizes = np.diff(ends)
    assert sizes[:3].tolist() == [1, 8, 15]
    assert set(sizes[2:-1]) == {15}
    assert Pace(num_steps=1000, call_seconds=0.2).end_of(0) == 1000  # a short one is a single block


def test_a_path_is_coarse_before_it_is_fine():
    lams, rates = np.array([1.0, 0.0, 1e-3, 1e-2, 1e-1]), np.arange(3.0)
    axes = [Axis("l2", {}, lams), Axis("rate", {}, rates)]
    order = coarse_first((2, 2, 5, 3), axes)
    assert sorted(order) == list(range(60))
    paths = order.reshape(4, 15)
    np.testing.assert_array_equal(paths // 15, np.arange(4)[:, None].repeat(15, 1))
    places = [np.unravel_index(number, (5, 3)) for number in paths[1] % 15]
    seen = [(float(lams[i]), float(rates[j])) for i, j in places]
    ends = {(lam, rate) for lam in (0.0, 1.0) for rate in (0.0, 2.0)}
    assert set(seen[:4]) == ends
    assert set(seen[:9]) == {(lam, rate) for lam in (0.0, 1e-2, 1.0) for rate in rates}


# ---- a sweep in blocks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", PLANS)
def test_a_sweep_in_blocks_goes_on_where_it_stopped(plan, tmp_path, monkeypatch, cut, unbroken):
    options = OPTIONS | PLANS[plan]
    width, whole = PLANS[plan]["width"], unbroken[plan]
    stops = 5 if width == 1 else 4  # in the second call, after one of its three blocks and more
    during(monkeypatch, stops, lambda: signal.raise_signal(signal.SIGINT))
    part = interrupted(tmp_path, **options)
    assert int(part.metrics.finished.sum()) == width
    (state,) = states(tmp_path)
    undisturbed(monkeypatch)
    again = sweep(tmp_path, **options)
    assert_equal(again, whole)
    assert (loaded(again), again.config["lanes_resumed"]) == (width, 1)
    assert again.config["program_sha256"] == whole.config["program_sha256"]
    assert not state.exists()
    assert again.config["compilations"] == 0  # one program for all blocks and calls of this width


def test_a_state_that_is_damaged_or_of_other_lanes_is_not_taken(tmp_path, monkeypatch, cut):
    during(monkeypatch, 2, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path, **OPTIONS)
    undisturbed(monkeypatch)
    (state,) = states(tmp_path)
    content = state.read_bytes()
    other = sweep(tmp_path, **OPTIONS | {"grid": GRID | {"l2": [0.5]}})
    assert other.config["lanes_resumed"] == 0
    assert states(tmp_path) == [state]
    state.write_bytes(content[:-100])
    with pytest.warns(RuntimeWarning, match=r"unfinished is damaged, and its lanes run again"):
        again = sweep(tmp_path, **OPTIONS)
    assert again.config["lanes_resumed"] == 0
    assert not states(tmp_path)


def test_a_full_disk_stops_no_sweep(tmp_path, monkeypatch, cut, unbroken):
    def full(path, shard):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(unfinished_room, "write_shard", full)
        with pytest.warns(RuntimeWarning, match="what unfinished lanes have learned could not be"):
            result = sweep(tmp_path, **OPTIONS)
    assert_equal(result, unbroken["one_by_one"])
    assert len(files(tmp_path)) == 3


# ---- signals --------------------------------------------------------------------------------------------------------


def test_sigterm_ends_in_order(tmp_path, monkeypatch, cut, unbroken):
    during(monkeypatch, 4, lambda: signal.raise_signal(signal.SIGTERM))
    with (
        pytest.warns(RuntimeWarning, match="stopped by SIGTERM; 1 of 3 lanes are finished"),
        pytest.raises(SystemExit) as caught,
    ):
        sweep(tmp_path, **OPTIONS)
    assert caught.value.code == 143
    assert int(caught.value.partial_result.metrics.finished.sum()) == 1
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    undisturbed(monkeypatch)
    again = sweep(tmp_path, **OPTIONS)
    assert (loaded(again), again.config["lanes_resumed"]) == (1, 1)
    assert_equal(again, unbroken["one_by_one"])


def test_a_second_signal_waits_until_all_is_put_away(tmp_path, monkeypatch, cut):
    label, write = RUN.label, unfinished_room.write_shard

    def interrupt(function):
        def both(*given, **options):
            signal.raise_signal(signal.SIGINT)
            return function(*given, **options)

        return both

    during(monkeypatch, 4, lambda: signal.raise_signal(signal.SIGINT))
    with monkeypatch.context() as patch:
        patch.setattr(RUN, "label", interrupt(label))
        part = interrupted(tmp_path, **OPTIONS)
    assert int(part.metrics.finished.sum()) == 1
    assert len(states(tmp_path)) == 1
    with monkeypatch.context() as patch:  # while a state is written
        undisturbed(patch)
        patch.setattr(unfinished_room, "write_shard", interrupt(write))
        interrupted(tmp_path, **OPTIONS)
    assert len(states(tmp_path)) == 1


def test_ctrl_c_while_a_finished_sweep_is_labelled_loses_nothing(monkeypatch, unbroken):
    label = RUN.label

    def interrupt(*given, **options):
        signal.raise_signal(signal.SIGINT)
        return label(*given, **options)

    monkeypatch.setattr(RUN, "label", interrupt)
    assert_equal(interrupted(**OPTIONS), unbroken["one_by_one"])


def test_a_handler_of_the_users_own_is_left_to_act(monkeypatch):
    came = []
    former = signal.signal(signal.SIGTERM, lambda *given: came.append(given))
    try:
        during(monkeypatch, 1, lambda: signal.raise_signal(signal.SIGTERM))
        assert sweep(**OPTIONS).metrics.finished.all()
    finally:
        signal.signal(signal.SIGTERM, former)
    assert len(came) == 1


# ---- a real kill --------------------------------------------------------------------------------------------------

CHILD = """
import os, signal, sys, threading, time
sys.path.insert(0, {tests!r})
signal.signal(signal.SIGINT, signal.default_int_handler)
import jax
jax.config.update("jax_default_matmul_precision", "highest")
import test_blocks as of

of.Pace.end_of = lambda pace, first: first + 1

class Slow(of.Program):
    begun = False

    def __call__(self, *given):
        if not Slow.begun:
            Slow.begun = True
            end = threading.Timer({seconds}, os.kill, (os.getpid(), {how}))
            end.daemon = True
            end.start()
        time.sleep(0.05)
        return super().__call__(*given)

of.COMPUTE.Program = Slow
of.sweep({folder!r}, **of.OPTIONS | {options!r})
"""


def _end_of_child(folder, options, how, seconds):
    """The status of a process that runs a sweep, and is sent a signal some seconds after its first block began."""
    values = {"folder": str(folder), "options": options, "how": int(how), "seconds": seconds}
    code = CHILD.format(tests=str(Path(__file__).parent), **values)
    errors = {"stderr": subprocess.DEVNULL}
    return subprocess.run([sys.executable, "-c", code], env=os.environ, **errors).returncode


@pytest.mark.parametrize(
    "plan", ["one_by_one", *(pytest.param(p, marks=pytest.mark.slow) for p in ("chunks", "vmap"))]
)
def test_a_process_that_is_killed_goes_on_from_its_last_block(plan, tmp_path):
    rng, options = np.random.default_rng(SEED), PLANS[plan] | {"seeds": 4}
    ends = [
        _end_of_child(tmp_path, options, how, rng.uniform(0.2, 1.5))
        for how in (signal.SIGKILL, signal.SIGTERM)
    ]
    assert ends == [-signal.SIGKILL, 143]
    under_way = bool(states(tmp_path))
    again = sweep(tmp_path, **OPTIONS | options)
    assert (again.config["lanes_resumed"] > 0) == under_way
    assert under_way or loaded(again)
    assert_equal(again, sweep(**OPTIONS | options))
    assert not states(tmp_path)
