"""The benchmarks: what they write and read, and that all contenders compute the same. No time is asserted."""

import dataclasses
import functools
import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import require, tolerance

import rnnreg as rr
from experiments import __main__ as listing
from experiments._harness import command_line, write_json
from experiments.benchmarks import _measure
from experiments.benchmarks.lanes import __main__ as lanes
from experiments.benchmarks.lanes import jax_peers, peers, problem, report, torch_peers
from experiments.benchmarks.lanes.problem import Task
from rnnreg import runtime

TASK = Task("elman", hidden=8, lanes=4, batch=3, time=5)
ROW = {
    "cell": str,
    "hidden": int,
    "batch": int,
    "time": int,
    "lanes": int,
    "who": str,
    "what": str,
    "plan": str,
    "milliseconds": float,
    "low": float,
    "high": float,
    "gflops": float,
    "share_of_matmul": float,
    "device": str,
}


def call_each(calls, *, trials=1):
    """In the place of `_measure.faster`: every plan runs, and the last is taken."""
    for call in calls.values():
        call()
    return list(calls)[-1]


@pytest.fixture(autouse=True, scope="module")
def quick_clock():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_measure, "TURN_SECONDS", 0.0)
        patch.setattr(_measure, "REST_SECONDS", 0.0)
        patch.setattr(_measure, "MATMUL_SIZE", 32)
        for module in (jax_peers, torch_peers):
            patch.setattr(module, "faster", call_each)
        yield


def tiny(folder, **options):
    config = lanes.Config(
        cells=("elman",),
        sizes=(8,),
        lanes=4,
        batch=3,
        time=5,
        peers=(),
        rounds=1,
        json=folder / "lanes.json",
        figure=folder / "lanes",
    )
    return dataclasses.replace(config, **options)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    config = tiny(tmp_path_factory.mktemp("lanes"))
    result = lanes.measure(config, say=lambda line: None)
    return result, json.loads(config.json.read_text())


@pytest.mark.slow
def test_what_is_written_is_what_is_measured(measured):
    result, written = measured
    assert written == result
    assert set(written) == {"rows", "matmul_gflops", "environment", "missing"}
    assert written["missing"] == []
    assert written["matmul_gflops"] > 0
    assert {"cpu", "jax", "cores", "torch", "keras", "equinox"} <= set(written["environment"])
    assert [(row["who"], row["what"]) for row in written["rows"]] == [
        ("rnnreg", "gradient"),
        ("rnnreg", "step"),
    ]
    for row in written["rows"]:
        assert {name: type(value) for name, value in row.items()} == ROW
        assert row["low"] <= row["milliseconds"] <= row["high"]
        flops = row["gflops"] * row["milliseconds"] * 1e6
        assert flops == pytest.approx(6 * 4 * 5 * 3 * 8 * (8 + 2 + 1))
        assert row["share_of_matmul"] == pytest.approx(row["gflops"] / written["matmul_gflops"])


@pytest.mark.parametrize(("cell", "gates"), [("elman", 1), ("gru", 3), ("lstm", 4)])
def test_operations_are_counted_product_by_product(cell, gates):
    task = Task(cell, hidden=7, lanes=3, batch=5, time=11, inputs=2, outputs=4)
    products = [  # of one step of one row: (rows, columns)
        (task.hidden, gates * task.hidden),
        (task.inputs, gates * task.hidden),
        (task.hidden, task.outputs),
    ]
    forwards = 2 * sum(rows * columns for rows, columns in products)
    assert task.flops == 3 * forwards * task.lanes * task.batch * task.time


def test_a_missing_peer_is_named_and_the_rest_goes_on(tmp_path, monkeypatch):
    def absent(name, device):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(peers, "_load", absent)
    said = []
    result = lanes.measure(tiny(tmp_path, peers=("torch", "equinox")), say=said.append)
    assert result["missing"] == ["equinox", "torch"]
    assert {row["who"] for row in result["rows"]} == {"rnnreg"}
    assert "torch is missing, and not compared: No module named 'torch'" in said
    assert "missing: equinox, torch" in report.report(result)


def test_sizes_are_written_one_after_another(tmp_path, monkeypatch):
    config = tiny(tmp_path, sizes=(4, 8))
    measure_task, seen = lanes.measure_task, []

    def interrupted(task, *rest):
        if task.hidden == 8:
            raise KeyboardInterrupt
        seen.append(task)
        return measure_task(task, *rest)

    monkeypatch.setattr(lanes, "measure_task", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lanes.measure(config, say=lambda line: None)
    assert [task.lanes for task in seen] == [4]
    assert {row["hidden"] for row in json.loads(config.json.read_text())["rows"]} == {4}


# ---- all contenders compute the same --------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("who", "num_lanes"), [("rnnreg", 1), *((who, 3) for who in lanes.OURS)])
def test_our_plans_agree_with_a_loop_over_lanes(who, num_lanes):
    made = problem.make_problem(TASK._replace(lanes=num_lanes))
    entry = lanes.ours(made, who)
    net, loss = problem.network(made.task), rr.losses.squared_error("mean")

    def value(params):
        return loss(net.apply(params, made.xs).outputs, made.ys)

    one_lane = jax.jit(jax.value_and_grad(value))
    expected = [one_lane(made.lane(number)) for number in range(num_lanes)]
    np.testing.assert_allclose(entry.losses, [one for one, _ in expected], **tolerance("float32"))
    gradients = [gradient["layer_0"]["W_hh"] for _, gradient in expected]
    np.testing.assert_allclose(entry.recurrent, gradients, **tolerance("float32"))
    for contender in entry.contenders:
        contender.call()


@functools.cache
def our_entry(cell):
    made = problem.make_problem(TASK._replace(cell=cell))
    return made, lanes.ours(made, "rnnreg")


@pytest.mark.slow
@pytest.mark.parametrize("cell", list(problem.GATES))
@pytest.mark.parametrize("build", [b for peer in peers.PEERS.values() for b in peer])
def test_every_peer_computes_what_we_do(build, cell):
    module = next(name for name, builders in peers.PEERS.items() if build in builders)
    require(module)
    made, ours = our_entry(cell)
    theirs = build(made)
    lanes.check(theirs, ours)
    for contender in theirs.contenders:
        contender.call()
    if build is torch_peers.torch_bmm:  # our layout too
        np.testing.assert_allclose(theirs.losses, ours.losses, **tolerance("float32"))
        np.testing.assert_allclose(theirs.recurrent, ours.recurrent, **tolerance("float32"))


def test_a_contender_that_computes_something_else_is_refused():
    ones = np.ones(2)
    contender = problem.Contender("keras", "step", "fit", lambda: None)
    same = problem.Entry([contender], ones, None)
    lanes.check(same, same)
    for losses in (1.1 * ones, np.array([1.0, math.nan]), np.ones(3)):
        with pytest.raises(RuntimeError, match="keras computes something else: its losses"):
            lanes.check(same._replace(losses=losses), same)


# ---- timing ---------------------------------------------------------------------------------------


def test_every_contender_takes_its_turn_in_every_round():
    turns = []
    calls = {name: lambda name=name: turns.append(name) for name in "abc"}
    timings = _measure.interleave(calls, 3, turn_seconds=0, rest_seconds=0)
    assert "".join(turns) == "aabbcc" + "abc" + "cba" + "abc"  # twice to warm up
    for timing in timings.values():
        assert 0 <= timing.low <= timing.median <= timing.high
    with pytest.raises(ValueError, match="rounds must be at least 1; got 0"):
        _measure.interleave(calls, 0)


def test_the_faster_of_several_is_found():
    import time

    assert _measure.faster({"slow": lambda: time.sleep(0.02), "quick": lambda: None}) == "quick"
    assert _measure.faster({"only": lambda: 1 / 0}) == "only"  # no choice, no call


def test_the_processor_is_named(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor : 0\nmodel name\t: Some CPU @ 3 GHz: 2\n")
    assert runtime.cpu_model(path) == "Some CPU @ 3 GHz: 2"
    assert runtime.cpu_model(tmp_path / "absent")


# ---- reading a result -----------------------------------------------------------------------------


def made_up():
    """A result by hand: two sizes of one cell, the second without peers."""

    def row(hidden, who, gflops, what="gradient"):
        return {
            "cell": "gru",
            "hidden": hidden,
            "batch": 32,
            "time": 100,
            "lanes": 64,
            "who": who,
            "what": what,
            "plan": "vmap",
            "milliseconds": 10.0,
            "low": 9.0,
            "high": 12.0,
            "gflops": gflops,
            "share_of_matmul": gflops / 200,
            "device": "cpu",
        }

    rates = {
        "rnnreg": 50.0,
        "rnnreg_vmap": 60.0,
        "torch_bmm": 25.0,
        "torch_loop": 5.0,
        "flax": 20.0,
    }
    rows = [row(16, who, gflops) for who, gflops in rates.items()]
    rows += [row(16, "keras", 2.0), row(32, "rnnreg", 80.0), row(16, "rnnreg", 40.0, what="step")]
    return {
        "rows": rows,
        "matmul_gflops": 200.0,
        "environment": {"cpu": "Some CPU", "cores": 2, "device_kind": "cpu", "jax": "0.10"},
        "missing": ["equinox"],
    }


def test_ratios_are_to_the_best_peer_and_to_the_best_framework():
    small, large = report.ratios(made_up()["rows"])
    assert list(small.values())[:4] == ["gru", 16, 64, 0.25]
    assert (small["best_peer"], small["over_peer"]) == ("torch_bmm", 2.0)
    assert (small["best_framework"], small["over_framework"]) == ("flax", 2.5)
    assert (large["best_peer"], large["best_framework"]) == (None, None)
    assert math.isnan(large["over_peer"])


def test_the_table_has_a_line_a_size_and_a_column_a_tool():
    header, _, small, large = report.table(made_up()["rows"]).splitlines()
    columns = "cell H lanes rnnreg rnnreg_vmap torch_loop keras flax torch_bmm of matmul"
    assert header.split()[:11] == columns.split()
    assert small.split()[3:9] == ["50.00", "60.00", "5.00", "2.00", "20.00", "25.00"]
    assert small.endswith("25.0 %     2.00 × torch_bmm  2.50 × flax")
    assert large.split() == ["gru", "32", "64", "80.00", *"–" * 5, "40.0", "%", "–", "–"]


def test_a_result_is_reported_and_drawn_from_its_file(tmp_path, capsys):
    path = tmp_path / "old.json"
    write_json(path, made_up())
    lanes.main(tiny(tmp_path, from_json=path))
    text = capsys.readouterr().out
    for words in ("losses and gradients", "a whole step of SGD", "200.0 GFLOP/s", "Some CPU"):
        assert words in text
    assert "missing: equinox" in text
    assert {file.name for file in tmp_path.iterdir()} == {"old.json", "lanes.pdf", "lanes.png"}


def test_an_empty_result_is_reported():
    assert "–" in report.report(made_up() | {"rows": [], "matmul_gflops": None})


# ---- the command line -----------------------------------------------------------------------------


def test_the_command_line_takes_lists_and_no_peers():
    args = ["--cells", "gru", "--sizes", "16", "32", "--peers", "--preset", "quick"]
    config = command_line(lanes.Config, lanes.PRESETS, args=args)
    assert (config.cells, config.sizes, config.peers) == (("gru",), (16, 32), ())
    assert (config.rounds, config.lanes) == (3, 4)
    assert command_line(lanes.Config, lanes.PRESETS, args=[]).peers == tuple(peers.PEERS)


def test_benchmarks_are_no_experiments():
    assert "lanes" not in listing.discover(Path(listing.__file__).parent)
