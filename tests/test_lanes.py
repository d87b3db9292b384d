"""How lanes run changes time, never meaning."""

import dataclasses
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import SEED
from small import Counted, assert_same, fold_of, make, sine

import rnnreg as rr
from rnnreg.lanes import (
    Calibration,
    Program,
    calibrate,
    load_calibration,
    make_plan,
    map_lanes,
    trace,
)
from rnnreg.sweeps._job import Request, make_job
from rnnreg.sweeps._lane import one_lane

KEY = jax.random.key(SEED)
PAIRS = [(list(range(12)), list(range(12, 20))), (list(range(20, 36)), [0, 1, 2])]  # unequal


# ---- a lane is a run ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept():
    """Twenty steps with momentum over λ, seed and fold, run each way."""
    train = make(optimizer=lambda hyper: optax.sgd(hyper["learning_rate"], 0.9), num_epochs=20)
    grid = {"l2": [0.0, 1e-2], "learning_rate": 1e-2}

    def run(plan):
        return rr.sweep(
            train, grid, sine(), seeds=[0, 3], folds=PAIRS, key=KEY, plan=plan, progress=False
        )

    return jax.jit(train), run("one_by_one"), run("vmap"), run("chunks")


LANES = [(0.0, 0, 0), (1e-2, 3, 0), (1e-2, 0, 1)]


def _lane(swept, lam, seed, fold):
    train = swept[0]
    hyper = {"l2": lam, "learning_rate": 1e-2}
    return train(hyper, fold_of(PAIRS, sine(), fold), key=jax.random.fold_in(KEY, seed))


@pytest.mark.optimised
@pytest.mark.slow
@pytest.mark.parametrize(("lam", "seed", "fold"), LANES)
def test_one_by_one_a_lane_equals_the_run_alone_bit_for_bit(swept, lam, seed, fold):
    alone = _lane(swept, lam, seed, fold)
    labels = {"l2": lam, "seed": seed, "fold": str(fold)}
    result = swept[1]
    assert_same(result.params_at(**labels), alone.params)
    lane = result.metrics.sel(labels)
    for name, value in alone.metrics.items():
        assert float(lane[name.replace("/", ".")]) == float(value), name
    for name, values in alone.history.items():
        np.testing.assert_array_equal(lane["history_" + name.replace("/", ".")], values)
    assert int(lane["num_updates"]) == 20


@pytest.mark.parametrize(("lam", "seed", "fold"), LANES)
def test_together_a_lane_equals_the_run_alone_within_rounding(swept, lam, seed, fold):
    alone = _lane(swept, lam, seed, fold)
    for result in swept[2:]:
        params = result.params_at(l2=lam, seed=seed, fold=str(fold))
        for one, two in zip(jax.tree.leaves(params), jax.tree.leaves(alone.params), strict=True):
            np.testing.assert_allclose(one, two, atol=1e-5, rtol=1e-5)


TWO_DEVICES = """
import functools, json, sys, jax, numpy as np
import rnnreg as rr
assert rr.use_all_cores(2) == 2
from small import make, sine

train, split = make(num_epochs=3), sine()
grid = {"l2": [0.0, 1e-3, 1e-2, 1e-1, 1.0], "learning_rate": 1e-2}
module, results = sys.modules["rnnreg.sweeps._job"], []
make_plan = module.make_plan
for count in (1, 2):
    module.make_plan = functools.partial(make_plan, devices=jax.devices()[:count])
    results.append(rr.sweep(train, grid, split, key=jax.random.key(0), width=2, progress=False))
one, two = results

# rows split over both devices, with weights, a mask and an odd number of rows
from rnnreg.training._gradients import gradients_of, split_gradients_of
net = rr.network([rr.cells.gru(4)], 1, readout="last")
batch = split.train._replace(weights=np.arange(len(split.train.ys)) % 3.0)
batch = batch._replace(mask=np.arange(batch.xs.shape[1])[None] >= np.arange(len(batch.ys))[:, None] % 6)
batch = rr.data.take_rows(batch, np.arange(33))
objective = rr.make_objective(net, rr.losses.squared_error(), {"l2": rr.penalties.l2()})
params = net.init(jax.random.key(1), 1)
arguments = (objective, params, {"l2": 0.1}, batch, {"l2": ()})
whole = gradients_of(*arguments, key=jax.random.key(2))
parts = jax.jit(functools.partial(split_gradients_of, objective, key=jax.random.key(2),
                                  devices=tuple(jax.devices())))(*arguments[1:])
apart = max(jax.tree.leaves(jax.tree.map(lambda a, b: float(abs(a - b).max()), whole, parts)))
alone = rr.sweep(train, grid | {"l2": 1e-3}, split, key=jax.random.key(0), plan="split_rows", progress=False)
drift = abs(float((alone.metrics.train_loss - one.metrics.train_loss.sel(l2=1e-3)).squeeze()))

from rnnreg.lanes import Program  # nine lanes in calls of six: the last one is filled up
plan = make_plan(9, plan="one_by_one", width=6, devices=jax.devices()[:2])
lanes, shared = {"x": np.arange(9.0, dtype=np.float32)}, np.float32(1)
program = Program(lambda lane, shared: lane["x"] + shared, plan, lanes, shared)
calls = [(n.tolist(), values.tolist()) for n, values in program.run(lanes, shared)]
same = jax.tree.map(lambda a, b: a.tobytes() == b.tobytes(), one.groups[0].params, two.groups[0].params)
print(json.dumps({
    "params": jax.tree.leaves(same), "metrics": one.metrics.identical(two.metrics),
    "finished": int(two.metrics.finished.sum()), "plans": [one.plan, two.plan],
    "calls": calls, "apart": apart, "drift": drift, "split": alone.plan,
}))
"""


@pytest.mark.slow
def test_two_devices_change_no_bit():
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    environment.pop("XLA_FLAGS", None)
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert all(seen["params"])
    assert seen["apart"] < 1e-5
    assert seen["drift"] < 1e-5
    assert "split rows on 2 cpu device(s)" in seen["split"]
    assert seen["metrics"]
    assert seen["finished"] == 5
    assert [len(numbers) for numbers, _ in seen["calls"]] == [6, 3]
    assert sorted(n for numbers, _ in seen["calls"] for n in numbers) == list(range(9))
    for numbers, values in seen["calls"]:
        assert values == [number + 1 for number in numbers]
    for number, plan in enumerate(seen["plans"]):
        assert f"one by one on {number + 1} cpu device(s), 2 a call, 3 call(s)" in plan


# ---- programs and plans ---------------------------------------------------------------------------


def _square(lane, shared):
    return {"square": lane["x"] ** 2 + shared, "x": lane["x"]}


@pytest.mark.parametrize("how", ["one_by_one", "vmap", "chunks", "split_rows"])
@pytest.mark.parametrize("width", [1, 3, 7, 10])
def test_every_lane_runs_once_and_in_its_place(how, width):
    lanes = {"x": np.arange(7.0, dtype=np.float32)}
    chunk = {"chunk": 5 if width == 10 else width} if how == "chunks" else {}
    plan = make_plan(7, plan=how, width=width, devices=jax.devices()[:1], **chunk)
    assert plan.num_calls == -(-7 // width)
    program = Program(_square, plan, lanes, jnp.float32(1))
    calls = list(program.run(lanes, jnp.float32(1)))
    assert len(calls) == plan.num_calls
    numbers = np.concatenate([numbers for numbers, _ in calls])
    assert sorted(numbers) == list(range(7))
    for numbers, outputs in calls:  # copies that fill up the last call are dropped
        np.testing.assert_array_equal(outputs["x"], numbers)
        np.testing.assert_array_equal(outputs["square"], numbers.astype(np.float32) ** 2 + 1)


def test_a_program_is_the_same_for_other_values():
    plan = make_plan(4, plan="one_by_one", devices=jax.devices()[:1])
    one, two = (
        Program(_square, plan, {"x": np.full(4, value, np.float32)}, jnp.float32(value))
        for value in (1.0, 2.0)
    )
    assert one.fingerprint == two.fingerprint
    assert one.compile_seconds > 0


@pytest.mark.parametrize("how", ["auto", "one_by_one", "vmap", "chunks"])
def test_any_function_runs_over_lanes(how):
    lanes = {"x": np.arange(7.0, dtype=np.float32)}
    found = map_lanes(_square, lanes, shared=jnp.float32(1), plan=how)
    np.testing.assert_array_equal(found["x"], lanes["x"])
    np.testing.assert_array_equal(found["square"], lanes["x"] ** 2 + 1)
    assert isinstance(found["x"], np.ndarray)


def test_a_lane_may_be_a_key():
    keys = jax.random.split(KEY, 3)
    plan = make_plan(
        3, plan="one_by_one", width=2, devices=jax.devices()[:1]
    )  # the last is filled up
    for each in ("vmap", plan):
        found = map_lanes(lambda key, shared: jax.random.bits(key), keys, plan=each)
        np.testing.assert_array_equal(found, jax.vmap(jax.random.bits)(keys))


@pytest.mark.slow
def test_a_ready_plan_serves_wherever_a_name_does():
    plan = make_plan(7, plan="one_by_one", width=3, devices=jax.devices()[:1])
    assert make_plan(7, plan=plan) is plan
    lanes = {"x": np.arange(7.0, dtype=np.float32)}
    found = map_lanes(_square, lanes, shared=jnp.float32(0), plan=plan)
    np.testing.assert_array_equal(found["square"], lanes["x"] ** 2)
    with pytest.raises(ValueError, match="the plan is for 7 lanes, and there are 6; make one"):
        make_plan(6, plan=plan)
    with pytest.raises(ValueError, match="a ready Plan has its width"):
        make_plan(7, plan=plan, width=3)
    two = make_plan(2, plan="vmap", devices=jax.devices()[:1])
    options = {"plan": two, "key": KEY, "progress": False}
    result = rr.sweep(make(num_epochs=1), {"l2": [0, 1], "learning_rate": 0.1}, sine(), **options)
    assert result.plan.startswith(str(two))
    with pytest.raises(ValueError, match="the plan is for 2 lanes, and there are 3"):
        rr.sweep(make(), {"l2": [0, 1, 2], "learning_rate": 0.1}, sine(), **options)


@pytest.mark.parametrize("lanes", [{}, {"x": np.arange(2), "y": np.arange(3)}, {"x": 1.0}])
def test_lanes_have_one_leading_axis(lanes):
    with pytest.raises(ValueError, match="arrays with one leading axis of lanes; got"):
        map_lanes(lambda lane, shared: lane, lanes)


class _Device:
    device_kind = "of these tests"  # no calibration is stored for it

    def __init__(self, platform, limit=None):
        self.platform, self.limit = platform, limit

    def memory_stats(self):
        return None if self.limit is None else {"bytes_limit": self.limit}


def test_the_plan_says_what_was_chosen_and_why():
    cpu = make_plan(100, devices=[_Device("cpu")] * 2, lane_seconds=0.2)
    assert (cpu.name, cpu.width % 2) == ("one_by_one", 0)
    assert cpu.width * cpu.num_calls >= 100
    assert cpu.width <= 2 * 6  # about a second a call
    assert "cache" in str(cpu)
    gpu = make_plan(100, devices=[_Device("gpu", limit=1000)], lane_bytes=20)
    assert (gpu.name, gpu.width, gpu.num_calls) == ("vmap", 25, 4)  # half of the memory
    assert "accelerator" in gpu.reason
    asked = make_plan(100, devices=[_Device("gpu")], plan="one_by_one", width=10)
    assert (asked.name, asked.width, asked.reason) == ("one_by_one", 10, "as asked")
    assert len(make_plan(1, devices=[_Device("cpu")] * 4).devices) == 1  # no idle device


def test_the_plan_follows_measured_rates():
    rates = Calibration({8: {1: 1.0, 4: 2.0}, 64: {1: 5.0, 4: 3.0}}, "measured on this device")
    two = {"devices": [_Device("cpu")] * 2, "calibration": rates}
    small = make_plan(100, hidden_size=10, **two)
    assert (small.name, small.chunk) == ("chunks", 4)
    assert small.width % 8 == 0
    assert "4 lanes of hidden size 10 together ran best (measured on this device)" in str(small)
    assert make_plan(100, hidden_size=60, **two).name == "one_by_one"
    assert make_plan(100, hidden_size=60, plan="chunks", **two).chunk == 4
    assert make_plan(3, hidden_size=10, **two).chunk == 2  # no more than a device's share
    assert rates.rate(64) == 5.0
    assert rates.rate(4) == 1.0  # half of the smallest size's


@pytest.mark.parametrize("name", ["num_lanes", "chunk", "width"])
@pytest.mark.parametrize("value", [0, -2, 1.5])
def test_counts_must_be_positive(name, value):
    given = {"num_lanes": 4, "plan": "chunks", name: value}
    with pytest.raises(ValueError, match=f"{name} must be a (positive|whole) .*got {value}"):
        make_plan(given.pop("num_lanes"), **given)


def test_many_cores_are_not_spent_on_a_few_rows():
    many = {"devices": jax.devices()[:1] * 64}
    assert make_plan(63, step_operations=3e5, **many).name == "one_by_one"
    assert make_plan(1, step_operations=3e5, **many).name == "one_by_one"


def test_a_lone_large_lane_has_its_rows_split():
    two = {"devices": [_Device("cpu")] * 2}
    assert make_plan(1, step_operations=1e8, **two).name == "split_rows"
    assert make_plan(1, step_operations=1e4, **two).name == "one_by_one"
    assert make_plan(2, step_operations=1e8, **two).name == "one_by_one"
    assert len(make_plan(1, step_operations=1e8, **two).devices) == 2
    rates = Calibration({8: {1: 1.0}}, "measured on this device", split_rows_from=1e9)
    assert make_plan(1, step_operations=1e8, calibration=rates, **two).name == "one_by_one"


def test_a_calibration_is_stored_for_its_device_and_found_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert load_calibration().source.startswith("shipped")
    measured = calibrate(sizes=[4], chunks=[1, 2], rounds=1)
    assert load_calibration() == measured
    (path,) = (path for path in tmp_path.rglob("*.json") if "native" not in path.parts)
    path.write_text("{}")
    with pytest.warns(RuntimeWarning, match="cannot be read"):
        assert load_calibration().source.startswith("shipped")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plan": "pmap"}, "'split_rows'.; got 'pmap'"),
        ({"width": 3}, "positive multiple of the 2 devices; got 3"),
        ({"width": 0}, "positive multiple of the 2 devices; got 0"),
        ({"plan": "chunks", "chunk": 2, "width": 6}, "2 devices × 2 lanes a chunk; got 6"),
        ({"plan": "vmap", "chunk": 2}, "chunk=2 belongs to plan='chunks'"),
    ],
)
def test_impossible_plans_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_plan(8, devices=[_Device("cpu")] * 2, **options)


# ---- other machines -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("cell", [rr.cells.elman, rr.cells.gru, rr.cells.lstm])
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_a_whole_sweep_lowers_for_accelerators(cell, platform):
    counted = Counted(rr.network([cell(4)], 1, readout="last"))
    train = make(
        counted.net,
        optimizer=lambda hyper: optax.adam(hyper["learning_rate"]),
        num_epochs=4,
        batch_size=6,
        keep_best=True,
        patience=2,
    )
    grid = {"l2": [0.0, 1e-2], "learning_rate": [1e-3, 1e-2]}
    folds = rr.selection.blocked_folds(3)
    request = Request(grid, KEY, np.arange(2), folds, plan="vmap", width=4)
    job = make_job(train, sine(), request, static={})
    assert job.plan.num_lanes == 24
    before = counted.count
    traced = trace(lambda *given: one_lane(job.train, *given), job.plan, job.lanes, job.shared)
    lowered = traced.lower(lowering_platforms=(platform,))
    assert "stablehlo.while" in lowered.as_text()
    assert counted.count - before == before  # as often as one lane's shapes: not once a lane


def test_blas_has_one_thread_while_lanes_are_on_several_cores():
    from threadpoolctl import ThreadpoolController

    from rnnreg.lanes._program import _one_blas_thread

    threads = ThreadpoolController()
    before = [one["num_threads"] for one in threads.info()]
    plan = make_plan(4)
    core = types.SimpleNamespace(platform="cpu")
    with _one_blas_thread(dataclasses.replace(plan, devices=(core, core)))():
        blas = [one for one in threads.info() if one["user_api"] == "blas"]
        assert {one["num_threads"] for one in blas} == {1}
    assert [one["num_threads"] for one in threads.info()] == before
    with _one_blas_thread(dataclasses.replace(plan, devices=(core,)))():
        assert [one["num_threads"] for one in threads.info()] == before
