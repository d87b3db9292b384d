"""Small sweeps that keep their lanes in a folder, for the tests of `keep=`."""

import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import SEED
from small import assert_same, held_out, make, sine

import rnnreg as rr
from rnnreg.lanes import Program
from rnnreg.sweeps import _keep as keep_room
from rnnreg.sweeps import _unfinished as unfinished_room

RUN = sys.modules["rnnreg.sweeps._run"]  # `rnnreg.sweep` is the function
COMPUTE = sys.modules["rnnreg.sweeps._compute"]
KEY = jax.random.key(SEED)
SPLIT = held_out(sine(20), 12)
NET = rr.network([rr.cells.elman(3)], 1, readout="last")
TRAIN = make(NET, num_epochs=2)
GRID = {"l2": [0.0, 1e-3, 1e-2], "learning_rate": 1e-2}
ROWS = np.arange(16)
FOLDS = [(ROWS[:8], ROWS[8:12]), (ROWS[4:12], ROWS[12:]), (ROWS[8:], ROWS[:4])]
PLANS = {
    "one_by_one": {"plan": "one_by_one", "width": 1},
    "chunks": {"plan": "chunks", "chunk": 2, "width": 2},
    "vmap": {"plan": "vmap", "width": 2},
}


def sweep(keep=None, train=TRAIN, grid=GRID, data=SPLIT, *, pause=(0.0, 0), **options):
    """Six lanes one by one, unless options say otherwise; each call is written at once, unless `pause` does."""
    options = {"seeds": 2, "key": KEY, **PLANS["one_by_one"]} | options
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keep_room, "_SECONDS_A_SHARD", pause[0])
        patch.setattr(unfinished_room, "_SECONDS_A_STATE", pause[0])
        patch.setattr(keep_room, "_TIMES_A_WRITE", pause[1])
        patch.setattr(unfinished_room, "_TIMES_A_WRITE", pause[1])
        return rr.sweep(train, grid, data, keep=keep, progress=False, **options)


def interrupted(*arguments, **options):
    """What is finished of a sweep that Ctrl-C ends."""
    with pytest.raises(KeyboardInterrupt) as caught:
        sweep(*arguments, **options)
    return caught.value.partial_result


def assert_equal(one, other):
    """Both results are equal bit for bit."""
    assert one.metrics.equals(other.metrics)
    assert_same([each.params for each in one.groups], [each.params for each in other.groups])
    for mine, theirs in zip(one.groups, other.groups, strict=True):
        assert_same(mine.predictions, theirs.predictions)


def loaded(result):
    return result.config["lanes_loaded"]


def files(folder):
    """The shards of a folder, in order."""
    return sorted(Path(folder).rglob("*.npz"))


def copied(folder, tmp_path):
    """A copy of a folder, which a test may change."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def stop(monkeypatch, calls, error):
    """Makes programs raise after so many calls, until `go_on`."""

    class Stops(Program):
        def calls(self):
            for number, call in enumerate(super().calls()):
                if number == calls:
                    raise error
                yield call

    monkeypatch.setattr(COMPUTE, "Program", Stops)


def go_on(monkeypatch):
    monkeypatch.setattr(COMPUTE, "Program", Program)


def forbid_programs(monkeypatch):
    """Makes a sweep fail that compiles or runs anything."""

    def refuse(*args, **options):
        raise AssertionError("nothing may compile")

    monkeypatch.setattr(COMPUTE, "Program", refuse)
