"""Sweeps that end early: by an error, by Ctrl-C, by a kill; what is finished is there."""

import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SEED
from small import make
from small_keep import COMPUTE, NET, RUN, assert_equal, go_on, interrupted, loaded, stop, sweep

import rnnreg as rr
from rnnreg.lanes import Program
from rnnreg.sweeps import _keep as keep_room
from rnnreg.sweeps import _shards as shards


@pytest.fixture(scope="module")
def whole():
    """An uninterrupted sweep that keeps nothing."""
    return sweep()


# ---- how it ends early ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError("the device is gone"), MemoryError()], ids=repr)
def test_an_error_has_the_result_so_far(error, tmp_path, monkeypatch, whole):
    stop(monkeypatch, 4, error)
    with pytest.raises(type(error)) as caught:
        sweep(tmp_path)
    assert caught.value is error
    assert error.__notes__ == ["4 of 6 lanes are finished: error.partial_result has them."]
    part = error.partial_result
    finished = part.metrics.finished
    assert part.config["interrupted"]
    assert int(finished.sum()) == 4
    assert part.metrics.val_loss.equals(whole.metrics.val_loss.where(finished))
    go_on(monkeypatch)
    again = sweep(tmp_path)
    assert loaded(again) == 4
    assert_equal(again, whole)


def test_an_error_has_it_without_a_folder_too(monkeypatch):
    error = RuntimeError()
    stop(monkeypatch, 1, error)
    with pytest.raises(RuntimeError):
        sweep()
    assert int(error.partial_result.metrics.finished.sum()) == 1


def test_an_error_before_the_first_lane_has_none(monkeypatch):
    error = RuntimeError()
    stop(monkeypatch, 0, error)
    with pytest.raises(RuntimeError):
        sweep()
    assert not hasattr(error, "partial_result")


def test_an_error_of_the_second_compilation_has_the_first(tmp_path, monkeypatch):
    class Compiles(Program):
        made = 0

        def __init__(self, *args, **options):
            Compiles.made += 1
            if Compiles.made == 2:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")
            super().__init__(*args, **options)

    def train(static):
        return make(rr.network([rr.cells.elman(static["size"])], 1, readout="last"), num_epochs=2)

    options = {"train": train, "seeds": 1, "static": {"size": [2, 3]}}
    monkeypatch.setattr(COMPUTE, "Program", Compiles)
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED") as caught:
        sweep(tmp_path, **options)
    part = caught.value.partial_result
    assert part.metrics.finished.sel(size=2).all()
    assert not part.metrics.finished.sel(size=3).any()
    go_on(monkeypatch)
    assert loaded(sweep(tmp_path, **options)) == 3


def test_an_error_of_the_labels_hides_no_other(monkeypatch):
    def fail(*args, **options):
        raise ValueError("no labels")

    error = RuntimeError("the device is gone")
    stop(monkeypatch, 1, error)
    monkeypatch.setattr(RUN, "label", fail)
    with pytest.raises(RuntimeError, match="the device is gone") as caught:
        sweep()
    assert "could not be labelled: ValueError('no labels')" in caught.value.__notes__[0]


class Called:
    """A metric that calls Python, which raises once after so many calls."""

    def __init__(self):
        self.left = 10**6

    def __call__(self, outputs, ys):
        def host(value):
            self.left -= 1
            if self.left == -1:
                raise OSError("a callback failed")
            return value

        value = jnp.mean(jnp.abs(outputs - ys))
        return jax.pure_callback(host, jax.ShapeDtypeStruct((), value.dtype), value)


def test_a_callback_that_fails(tmp_path):
    called = Called()
    train = make(NET, num_epochs=2, metrics={"mae": called})
    expected = sweep(train=train)
    each = (10**6 - called.left) // 6
    called.left = each * 2
    with pytest.raises(Exception, match="a callback failed") as caught:
        sweep(tmp_path, train=train)
    assert int(caught.value.partial_result.metrics.finished.sum()) == 2
    called.left = 10**6
    other = make(NET, num_epochs=2, metrics={"mae": called})
    with pytest.warns(RuntimeWarning, match="calls functions of Python, whose code is not"):
        again = sweep(tmp_path, train=other)
    assert loaded(again) == 2
    assert_equal(again, expected)
    # what is known of them is compared
    other = make(NET, num_epochs=2, metrics={"mae": lambda a, b: called(a, b)})
    with pytest.raises(ValueError, match=r"metrics.mae.name: kept 'Called', asked"):
        sweep(tmp_path, train=other)


class Refusing:
    """A metric that calls Python, which refuses NaN, as scores of other libraries do; and says what it saw."""

    def __init__(self):
        self.fails = False

    def __call__(self, outputs, ys):
        def host(value):
            if self.fails or np.isnan(value):
                raise ValueError("Input contains NaN")
            return value

        value = jnp.mean(jnp.abs(outputs - ys))
        return jax.pure_callback(host, jax.ShapeDtypeStruct((), value.dtype), value)


@pytest.mark.filterwarnings("ignore:.*lanes diverged")
def test_a_metric_that_refuses_nan_sees_no_lane_that_diverged(tmp_path):
    metric = Refusing()
    train = make(NET, num_epochs=2, metrics={"mae": metric})
    grid = {"l2": 0.0, "learning_rate": [1e-2, 1e30]}
    result = sweep(train=train, grid=grid)
    assert np.isfinite(result.metrics.ensemble_val_mae.values).tolist() == [True, False]
    part = sweep(tmp_path, train=train, grid=grid, shard=(0, 2))
    assert int(part.metrics.finished.sum()) == 2


def test_a_metric_that_fails_on_means_costs_no_lane(whole):
    metric = Refusing()
    train = make(NET, num_epochs=2, metrics={"mae": metric})
    assert sweep(train=train).metrics.ensemble_val_mae.notnull().all()
    with pytest.MonkeyPatch.context() as patch:
        label = RUN.label

        def labels(*args, **options):
            metric.fails = True
            return label(*args, **options)

        patch.setattr(RUN, "label", labels)
        with pytest.warns(RuntimeWarning, match="'mae' fails on the mean prediction of all seeds"):
            result = sweep(train=train)
    assert result.metrics.ensemble_val_mae.isnull().all()
    assert result.metrics.val_loss.equals(whole.metrics.val_loss)


def test_an_interrupt_of_the_labels_is_answered_as_asked(monkeypatch, whole, ctrl_c):
    label = RUN.label

    def interrupted_label(*args, **options):
        signal.raise_signal(signal.SIGINT)
        return label(*args, **options)

    monkeypatch.setattr(RUN, "label", interrupted_label)
    assert_equal(sweep(on_interrupt="return"), whole)
    with pytest.raises(KeyboardInterrupt) as caught:
        sweep()
    assert_equal(caught.value.partial_result, whole)


def test_a_second_interrupt_loses_nothing(tmp_path, monkeypatch, whole):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    stop(monkeypatch, 3, KeyboardInterrupt())
    with monkeypatch.context() as patch:
        patch.setattr(RUN, "label", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sweep(tmp_path)
    go_on(monkeypatch)
    again = sweep(tmp_path)
    assert loaded(again) == 3
    assert_equal(again, whole)


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupt_of_the_writing_loses_nothing(when, tmp_path, monkeypatch):
    written = []

    def write(path, shard):
        written.append(path)
        if len(written) in (2, 3) and when == "before":
            raise KeyboardInterrupt
        shards.write_shard(path, shard)
        if len(written) in (2, 3) and when == "after":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(keep_room, "write_shard", write)
        part = interrupted(tmp_path)
    assert int(part.metrics.finished.sum()) == 1
    assert loaded(sweep(tmp_path)) == 2  # the second one had run


# ---- a real kill ----------------------------------------------------------------------------------------------

CHILD = """
import os, sys, threading, time
sys.path.insert(0, {tests!r})
import jax
jax.config.update("jax_default_matmul_precision", "highest")
import small_keep as of

class Killed(of.Program):
    def calls(self):
        end = threading.Timer({seconds}, os.kill, (os.getpid(), {how}))
        end.daemon = True
        end.start()
        for call in super().calls():
            time.sleep(0.02)
            yield call

of.COMPUTE.Program = Killed
of.sweep({folder!r}, **{options!r})
"""


def _killed(folder, options, how, seconds):
    """A process that runs a sweep and is killed some seconds after its first call began."""
    code = CHILD.format(
        tests=str(Path(__file__).parent),
        folder=str(folder),
        options=options,
        how=int(how),
        seconds=seconds,
    )
    return subprocess.Popen([sys.executable, "-c", code])


@pytest.mark.slow
def test_two_processes_that_are_killed_lose_no_finished_lane(tmp_path):
    options = {"seeds": 20}
    expected = sweep(**options)
    rng = np.random.default_rng(SEED)
    children = [  # at once, in one folder
        _killed(tmp_path, options, how, rng.uniform(0.2, 0.8))
        for how in (signal.SIGKILL, signal.SIGTERM)
    ]
    assert [child.wait() for child in children] == [-signal.SIGKILL, 143]
    again = sweep(tmp_path, **options)
    assert 1 <= loaded(again) <= 60
    assert_equal(again, expected)
