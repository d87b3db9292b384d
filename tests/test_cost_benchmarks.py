"""The benchmarks of the library's own costs: what they run, write and claim. No time is asserted."""

import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tolerance

import rnnreg as rr
from experiments._harness import command_line
from experiments.benchmarks import _cost, _measure, diagnostics, regularisers
from experiments.benchmarks._cost import Task
from experiments.benchmarks.scaling import __main__ as scaling
from experiments.benchmarks.scaling import parts
from experiments.benchmarks.scaling.one_core import OneCore
from experiments.benchmarks.scaling.report import TABLES, table

pytestmark = pytest.mark.usefixtures("quick_clock")

TASK = Task("elman", 8, time=5, batch=3)


@pytest.fixture(scope="module")
def quick_clock():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_measure, "TURN_SECONDS", 0.0)
        patch.setattr(_measure, "REST_SECONDS", 0.0)
        yield


# ---- what is timed, and how -----------------------------------------------------------------------


def test_updates_in_a_row_are_the_updates_one_by_one():
    train = TASK.train(penalties={"l2": rr.penalties.l2()})
    batch, hyper = TASK.data(), {"l2": jnp.float32(0.1)}
    start = train.init(hyper, batch, key=jax.random.key(0))
    together = jax.jit(_cost.updates_in_a_row(train, 3))(start, batch, hyper)
    state = start
    for _ in range(3):
        state, _ = jax.jit(train.update)(state, hyper, batch)
    assert int(together.step) == 3
    chex.assert_trees_all_close(together.params, state.params, **tolerance("float32"))


def test_shapes_are_those_of_the_data():
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), TASK.data()) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), TASK.shapes()
    )


def test_every_call_has_a_baseline_of_its_own_beside_it():
    turns = []
    calls = {name: lambda name=name: turns.append(name) for name in "ab"}
    seconds, before = _cost.beside(calls, lambda: turns.append("-"), 3)
    assert "".join(turns) == "--aa--bb" + "-a-b" + "b-a-" + "-a-b"  # twice to warm up
    for found in (seconds, before):
        assert {name: times.shape for name, times in found.items()} == {"a": (3,), "b": (3,)}
        assert all((times >= 0).all() for times in found.values())


# ---- regularisers ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", list(regularisers.regularisers()))
def test_every_regulariser_changes_the_training_step(name):
    regulariser = regularisers.regularisers()[name]
    batch = TASK.data()._replace(ys=100 * TASK.data().ys)  # a gradient worth clipping
    trained = []
    for train in (regulariser.train(TASK), TASK.train()):
        hyper = dict.fromkeys(train.settings.penalties, 1e-2)
        state = train.init(hyper, batch, key=jax.random.key(0))
        rng = np.random.default_rng(0)  # away from the orthogonal start, where some penalties are 0
        noisy = jax.tree.map(
            lambda leaf, r=rng: leaf + r.normal(0, 0.3, leaf.shape).astype(leaf.dtype), state.params
        )
        new, info = jax.jit(train.update)(state._replace(params=noisy), hyper, batch)
        assert bool(info.finite)
        trained.append(new.params["layer_0"]["W_hh"])
    assert not np.allclose(*trained, rtol=1e-6, atol=0)


@pytest.mark.slow
def test_a_cell_is_measured_and_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rr, "use_all_cores", lambda: 1)
    config = regularisers.Config(
        cells=("elman",),
        hidden=4,
        time=5,
        batch=3,
        updates=1,
        rounds=1,
        only=("l2", "omega"),
        json=tmp_path / "regularisers.json",
    )
    regularisers.main(config)
    written = json.loads(config.json.read_text())
    assert [row["regulariser"] for row in written["rows"]] == list(config.only)
    (claim,) = written["claims"]  # a second backward pass claims nothing
    assert claim["claim"] == "elman, H = 4: l2 adds, in %"
    assert claim["measured"] == written["rows"][0]["percent"]
    assert "omega" in capsys.readouterr().out
    with pytest.raises(ValueError, match="there is no regulariser 'l3'; there are"):
        regularisers.measure_cell("elman", dataclasses.replace(config, only=("l3",)))


# ---- diagnostics ----------------------------------------------------------------------------------


def test_a_diagnostic_in_a_row_is_computed_each_time():
    net, batch = TASK.train().settings.net, TASK.data()
    params = net.init(jax.random.key(0), TASK.inputs)
    diagnostic = diagnostics.DIAGNOSTICS["gradient_flow"]
    once = jax.jit(diagnostics.in_a_row(diagnostic, net, 1))(params, batch)
    thrice = jax.jit(diagnostics.in_a_row(diagnostic, net, 3))(params, batch)
    np.testing.assert_allclose(thrice, 3 * once, **tolerance("float32"))
    assert float(once) < 0  # the logarithms of a gradient that vanishes


@pytest.mark.slow
def test_diagnostics_are_measured_and_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rr, "use_all_cores", lambda: 1)
    config = diagnostics.Config(
        cells=("elman",),
        hidden=(4,),
        time=12,
        batch=3,
        repeats=1,
        strides=(1, 10),
        rounds=1,
        json=tmp_path / "diagnostics.json",
    )
    diagnostics.main(config)
    written = json.loads(config.json.read_text())
    assert [row["diagnostic"] for row in written["rows"]] == list(diagnostics.DIAGNOSTICS)
    assert [row["updates_between_records"] for row in written["track"]] == [1, 10]
    claims = {claim["claim"]: claim["measured"] for claim in written["claims"]}
    assert claims == {
        "elman, H = 4: gradient_flow, in training steps": written["rows"][0]["steps"],
        "elman, H = 4: gradient_flow, whole state, in training steps": written["rows"][1]["steps"],
        "elman, H = 4: a record each 10 updates adds, in %": written["track"][1]["percent"],
    }
    assert "path_lengths, 10 lags" in capsys.readouterr().out


# ---- scaling --------------------------------------------------------------------------------------


def test_equations_are_counted_inside_too():
    def loop(x):
        return jax.lax.scan(lambda carry, _: (jnp.sin(carry) + 1, None), x, length=9)[0]

    assert parts.count_equations(jax.make_jaxpr(loop)(1.0).jaxpr) == 3  # scan, sin, add


@pytest.mark.slow
@pytest.mark.parametrize("lanes", [1, 3])
def test_a_plan_of_one_call_trains_every_lane(lanes):
    plan = _cost.one_call(lanes, TASK.hidden)
    assert plan.num_calls == 1
    params = _cost.lanes_call(plan, TASK, 1)()
    assert params["layer_0"]["W_hh"].shape == (plan.width, TASK.hidden, TASK.hidden)


@pytest.fixture(scope="module")
def measured(tmp_path_factory, quick_clock):
    path = tmp_path_factory.mktemp("scaling") / "scaling.json"
    config = command_line(
        scaling.Config, scaling.PRESETS, args=["--preset", "quick", "--json", str(path)]
    )
    config = dataclasses.replace(
        config, rounds=1, times=(4, 9), steps_a_call=9, lanes=(1, 2), sweep_lanes=20, hidden=4
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rr, "use_all_cores", lambda: 1)
        scaling.main(config)
    return config, json.loads(path.read_text())


@pytest.mark.slow
def test_every_part_is_written_with_its_claims(measured):
    config, written = measured
    assert set(written) == {"config", "claims", "environment", *scaling.MEASURE}
    assert set(scaling.MEASURE) == set(config.parts) == set(TABLES)
    assert list(config.parts) == list(scaling.MEASURE)
    several = written["environment"]["num_devices"] > 1
    for part in scaling.MEASURE:
        assert bool(written[part]) == (several or part not in ("cores", "rows")), part
    assert [row["lanes"] for row in written["sweep"]] == [20]
    assert {row["equations"] for row in written["compile"] if row["axis"] == "time"} != {0}
    assert [(row["inputs"], row["chosen_inside"]) for row in written["inputs"]] == [
        (1, True),
        (32, False),
    ]
    if not several:
        (claim,) = [c for c in written["claims"] if c["claim"].startswith("throughput")]
        assert claim["holds"] is None
    folder = config.json.parent
    assert {p.name for p in folder.iterdir()} == {"scaling.json"}


@pytest.mark.slow
def test_a_process_on_one_core_answers_and_ends():
    with OneCore(TASK, 2, 1) as one:
        one()
        one()
        assert one.process.is_alive()
    assert one.process.exitcode == 0


def made_up(ratio):
    row = {"cell": "gru", "hidden": 128, "cores": 2, "lanes_a_core": 4, "ratio": ratio}
    spread = {"ratio_low": ratio, "ratio_high": ratio, "ceiling": 2.0}
    return {**row, **spread}


@pytest.mark.parametrize(("ratio", "holds"), [(1.95, True), (1.8, False)])
def test_cores_are_claimed_to_scale(ratio, holds):
    (claim,) = scaling.claims_of({"cores": [made_up(ratio)]})
    assert (claim.expected, claim.measured, claim.holds) == ("at least 1.9", ratio, holds)
    assert f"{ratio:.3f}" in table("cores", [made_up(ratio)])


def test_rows_claim_only_where_the_library_would_split_them():
    row = {"cell": "gru", "hidden": 128, "cores": 2, "ratio": 1.4}
    rows = [{**row, "step_operations": operations} for operations in (1e3, 1e7)]
    assert [claim.holds for claim in scaling.claims_of({"rows": rows})] == [True]


def test_the_choice_of_place_is_judged_by_its_worst_input_size():
    row = {"cell": "gru", "hidden": 32}
    rows = [
        {**row, "ratio": 0.8, "chosen_inside": True},
        {**row, "ratio": 0.9, "chosen_inside": False},  # inside would have been faster
    ]
    (claim,) = scaling.claims_of({"inputs": rows})
    assert claim.measured == pytest.approx(1 / 0.9)
    assert claim.holds is False
