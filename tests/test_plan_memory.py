"""Plans keep within memory: fewer lanes together, fewer devices, and it is said why."""

import jax
import numpy as np
import pytest
from conftest import tolerance
from small import make, sine
from small_keep import COMPUTE, interrupted
from small_keep import sweep as kept_sweep

import rnnreg as rr
from rnnreg import _memory, runtime
from rnnreg.lanes import Program, make_plan


class _Device:
    device_kind = "of these tests"

    def __init__(self, platform, stats=None):
        self.platform, self.stats = platform, stats

    def memory_stats(self):
        return self.stats


CPUS = {"devices": [_Device("cpu")] * 4, "lane_bytes": 100}


@pytest.mark.parametrize(
    ("options", "streams", "chunk"),
    [
        ({"plan": "one_by_one", "max_memory": 250}, 2, 1),
        ({"plan": "one_by_one", "max_memory": 99}, 1, 1),  # one has to run
        ({"plan": "one_by_one", "max_memory": 10**6}, 4, 1),
        ({"plan": "chunks", "chunk": 3, "max_memory": 900}, 4, 2),
        ({"plan": "chunks", "chunk": 3, "max_memory": 10**6}, 4, 3),
        ({"plan": "chunks", "chunk": 3, "max_memory": 300}, 3, 1),
        ({"plan": "vmap", "max_memory": 800}, 4, 2),
        ({"plan": "vmap", "max_memory": 10**6}, 4, 10),
        ({"plan": "vmap", "max_memory": 200}, 2, 1),
    ],
)
def test_lanes_at_the_same_time_fit(options, streams, chunk):
    plan = make_plan(40, **CPUS, **options)
    assert (plan.streams, plan.chunk) == (streams, chunk)
    assert plan.memory == 100 * streams * chunk
    assert plan.num_calls * plan.width >= 40
    tight = options["max_memory"] < 10**6
    assert (f"; max_memory, {options['max_memory']} bytes, holds no more" in plan.reason) == tight
    assert f"about {plan.memory} bytes at a time" in str(plan) or plan.memory >= 1024


def test_half_of_what_is_free_is_taken_unasked(monkeypatch):
    monkeypatch.setattr("rnnreg.lanes._plan.free_memory", lambda device: 1000)
    assert make_plan(40, plan="vmap", **CPUS).width == 4  # the cores share 500 bytes
    gpus = [_Device("gpu")] * 2
    plan = make_plan(40, plan="vmap", devices=gpus, lane_bytes=100)
    assert plan.width == 10  # each device has 500
    assert "half of the free memory, 1000 bytes, holds no more lanes of about 100" in str(plan)


def test_an_unknown_size_limits_nothing():
    assert make_plan(40, plan="vmap", devices=CPUS["devices"], max_memory=1).width == 40
    gpu = {"devices": [_Device("gpu")], "lane_bytes": 100}  # says nothing of its memory
    assert make_plan(40, plan="vmap", **gpu).width == 40


def test_a_width_that_was_asked_for_stays():
    assert make_plan(40, plan="one_by_one", width=8, max_memory=1, **CPUS).width == 8


@pytest.mark.parametrize("value", [0, -1, 1.5, "2 GB"])
def test_memory_is_a_number_of_bytes(value):
    with pytest.raises(ValueError, match="max_memory must be a"):
        make_plan(4, max_memory=value)


def test_a_device_says_what_is_free():
    assert _memory.free_memory(_Device("gpu", {"bytes_limit": 100, "bytes_in_use": 30})) == 70
    assert _memory.free_memory(_Device("gpu", {"bytes_limit": 100})) == 100
    assert _memory.free_memory(_Device("gpu")) is None


def test_a_cgroup_says_what_is_free(tmp_path):
    inner = tmp_path / "job"
    inner.mkdir()
    assert _memory._read_free(inner) is None
    (inner / "memory.max").write_text("1000\n")
    (inner / "memory.current").write_text("400\n")
    assert _memory._read_free(inner) == 600
    (inner / "memory.max").write_text("max\n")
    assert _memory._read_free(inner) is None
    (inner / "memory.limit_in_bytes").write_text("500\n")
    (inner / "memory.usage_in_bytes").write_text("200\n")
    assert _memory._read_free(inner) == 300
    membership = tmp_path / "cgroup"
    membership.write_text("0::/job\n")
    (tmp_path / "memory.max").write_text("700\n")
    (tmp_path / "memory.current").write_text("0\n")
    found = runtime.of_cgroups("memory", _memory._read_free, membership, tmp_path)
    assert found == [300, 700]


def test_a_sweep_is_planned_within_memory():
    grid = {"l2": [0.0, 1e-3, 1e-2, 1e-1], "learning_rate": 1e-2}
    options = {"key": jax.random.key(0), "plan": "vmap"}
    wide = rr.dry_run(make(num_epochs=1), grid, sine(), **options)
    (plan,) = wide.plans
    assert wide.memory == plan.memory == 4 * plan.lane_bytes > 0
    small = rr.dry_run(make(num_epochs=1), grid, sine(), max_memory=2 * plan.lane_bytes, **options)
    assert small.plans[0].width == 2
    assert small.memory == 2 * plan.lane_bytes
    assert "max_memory" in repr(small)


def test_out_of_memory_half_as_many_lanes_run_at_the_same_time(monkeypatch):
    """The calls that were finished stay, and one lane alone that does not fit is an error."""
    calls = []

    class Tight(Program):
        most = 1

        def __call__(self, chunk, shared):
            lanes = self.plan.chunk
            if lanes > self.most and len(calls) > 0:
                raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte.")
            calls.append(lanes)
            return super().__call__(chunk, shared)

    grid = {"l2": np.linspace(0, 1, 10), "learning_rate": 1e-2}
    options = {"key": jax.random.key(0), "progress": False}
    train = make(num_epochs=1)
    monkeypatch.setattr(COMPUTE, "Program", Tight)
    with pytest.warns(RuntimeWarning, match="out of memory with .* lanes at the same time") as told:
        result = rr.sweep(train, grid, sine(), plan="vmap", width=4, **options)
    assert ["with 4 lanes" in str(told[0].message), "with 2 lanes" in str(told[1].message)] == [
        True
    ] * 2
    assert calls == [4, 1, 1, 1, 1, 1, 1]
    assert bool(result.metrics.finished.all())
    assert "halved, since a device was out of memory" in result.plan
    alone = rr.sweep(train, grid, sine(), plan="one_by_one", **options)
    np.testing.assert_allclose(result.metrics.train_loss, alone.metrics.train_loss, rtol=1e-4)
    monkeypatch.setattr(Tight, "most", 0)
    with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"):
        rr.sweep(train, grid, sine(), plan="one_by_one", **options)


@pytest.mark.parametrize("still_tight", [True, False])
def test_what_was_kept_while_lanes_were_halved_is_taken_up_again(
    still_tight, tmp_path, monkeypatch
):
    """The folder names the first plan; by which of them a lane ran is no matter."""
    calls = []

    class Tight(Program):
        stops = True

        def __call__(self, chunk, shared):
            if self.plan.chunk > 1 and calls:
                raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte.")
            if self.stops and len(calls) == 3:
                raise KeyboardInterrupt
            calls.append(self.plan.chunk)
            return super().__call__(chunk, shared)

    options = {"grid": {"l2": np.linspace(0, 1, 8), "learning_rate": 1e-2}, "seeds": 1}
    options |= {"plan": "vmap", "width": 4}
    expected = kept_sweep(**options)
    monkeypatch.setattr(COMPUTE, "Program", Tight)
    with pytest.warns(RuntimeWarning, match="out of memory"):
        part = interrupted(tmp_path, **options)
    assert calls == [4, 1, 1]
    assert int(part.metrics.finished.sum()) == 6
    monkeypatch.setattr(Tight, "stops", False)
    if still_tight:
        with pytest.warns(RuntimeWarning, match="out of memory"):
            again = kept_sweep(tmp_path, **options)
        assert calls == [4, 1, 1, 1, 1]
    else:
        monkeypatch.setattr(COMPUTE, "Program", Program)
        again = kept_sweep(tmp_path, **options)
    assert again.config["lanes_loaded"] == 6
    np.testing.assert_allclose(
        again.metrics.train_loss, expected.metrics.train_loss, **tolerance(loosen=10)
    )
    assert kept_sweep(tmp_path, **options).config["lanes_loaded"] == 8


def test_folds_take_memory_in_proportion_to_the_rows():
    """What a lane is estimated at, and what its folds hold."""

    def planned(num):
        split = sine(num)
        folds = rr.selection.blocked_folds(3)
        grid = {"l2": 0.0, "learning_rate": 1e-2}
        options = {"folds": folds, "key": jax.random.key(0)}
        return rr.dry_run(make(num_epochs=1), grid, split, **options).plans[0].lane_bytes

    few, many = planned(1003), planned(4003)
    np.testing.assert_allclose(many / few, 4, rtol=0.05)
