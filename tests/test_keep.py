"""Lanes that a sweep keeps in a folder: the same call goes on, with the same bits, and another one is refused."""

import json
import os
import re

import jax
import optax
import pytest
from small import make, sine
from small_keep import (
    FOLDS,
    GRID,
    NET,
    PLANS,
    RUN,
    SPLIT,
    assert_equal,
    copied,
    files,
    forbid_programs,
    go_on,
    interrupted,
    loaded,
    stop,
    sweep,
)

import rnnreg as rr
from rnnreg.sweeps import _facts as facts_room
from rnnreg.sweeps import _keep as keep_room
from rnnreg.sweeps import _shards as shards


@pytest.fixture(scope="module")
def whole():
    """An uninterrupted sweep that keeps nothing."""
    return sweep()


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder with a finished sweep, a shard for each of its six lanes; copy it before a change."""
    folder = tmp_path_factory.mktemp("kept")
    sweep(folder)
    return folder


@pytest.fixture
def copy(kept, tmp_path):
    return copied(kept, tmp_path)


# ---- the same call again ------------------------------------------------------------------------------


def test_keeping_changes_no_bit_and_a_finished_sweep_is_loaded(
    kept, copy, whole, silent, monkeypatch
):
    assert len(files(kept)) == 6
    forbid_programs(monkeypatch)
    again = sweep(copy)
    assert_equal(again, whole)
    assert (loaded(whole), loaded(again), again.config["compilations"]) == (0, 6, 0)
    assert again.config["program_sha256"] == whole.config["program_sha256"]
    assert len(files(copy)) == 6


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("calls", [1, 2])
def test_after_an_interrupt_the_rest_runs(plan, calls, tmp_path, monkeypatch):
    options = {"seeds": 3, "grid": GRID | {"l2": [0.0, 1e-2, 1.0]}, **PLANS[plan]}
    expected = sweep(**options)
    stop(monkeypatch, calls, KeyboardInterrupt())
    part = interrupted(tmp_path, **options)
    done = calls * PLANS[plan]["width"]
    assert int(part.metrics.finished.sum()) == done
    assert loaded(interrupted(tmp_path, **options)) == done  # and once more
    go_on(monkeypatch)
    again = sweep(tmp_path, **options)
    assert loaded(again) == 2 * done
    assert_equal(again, expected)


@pytest.mark.slow
def test_static_combinations_have_folders_of_their_own(tmp_path, monkeypatch):
    def train(static):
        return make(rr.network([rr.cells.elman(static["size"])], 1, readout="last"), num_epochs=2)

    options = {"train": train, "seeds": 1, "static": {"size": [2, 3]}}
    expected = sweep(**options)
    sweep(tmp_path, **options | {"static": {"size": [3]}})
    stop(monkeypatch, 2, KeyboardInterrupt())
    assert loaded(interrupted(tmp_path, **options)) == 3
    go_on(monkeypatch)
    again = sweep(tmp_path, **options)
    assert loaded(again) == 5
    assert_equal(again, expected)


def test_the_plan_is_that_of_the_folder(tmp_path):
    chunks = {"plan": "chunks", "chunk": 2, "width": None}
    sweep(tmp_path, **chunks)
    again = sweep(tmp_path, plan="auto", width=None)
    assert (loaded(again), again.config["plans"][0]["chunk"]) == (6, 2)
    for asked, said in (
        ({"plan": "vmap", "width": None}, "plan.name: kept 'chunks', asked 'vmap'"),
        ({"plan": "auto", "width": None, "chunk": 4}, "plan.chunk: kept 2, asked 4"),
        (
            {"plan": rr.lanes.make_plan(6, plan="chunks", chunk=2, width=2), "width": None},
            "plan.width: kept 6, asked 2",
        ),
        (chunks | {"max_memory": 1}, "2 ran at the same time"),
    ):
        with pytest.raises(ValueError, match=re.escape(said)):
            sweep(tmp_path, **asked)


def test_lanes_that_run_alone_are_the_same_by_any_width(copy, whole):
    again = sweep(copy, plan="auto", width=None, seeds=3)
    assert (loaded(again), again.config["plans"][0]["name"]) == (6, "one_by_one")
    assert_equal(again, sweep(seeds=3))
    ready = rr.lanes.make_plan(6, plan="one_by_one", width=3)
    for asked in ({"width": 2}, {"plan": ready, "width": None}, {"max_memory": 10**9}):
        assert_equal(sweep(copy, **asked), whole)
    with pytest.raises(ValueError, match=r"plan.name: kept 'one_by_one', asked 'vmap'"):
        sweep(copy, plan="vmap", width=None)


def test_what_was_asked_may_be_asked_again(tmp_path):
    # a chunk larger than there are lanes is cut, and is no other plan the second time
    options = {"plan": "chunks", "chunk": 64, "width": None}
    sweep(tmp_path, **options)
    assert loaded(sweep(tmp_path, **options)) == 6


def test_a_plan_needs_its_devices(tmp_path):
    sweep(tmp_path, plan="vmap", width=None)
    (place,) = tmp_path.iterdir()
    content = shards.read_manifest(place)
    content["facts"]["plan"]["devices"] = 64
    shards.write_manifest(place, content)
    with pytest.raises(ValueError, match=r"plan.devices: kept 64, and JAX shows \d+"):
        sweep(tmp_path, plan="vmap", width=None)


# ---- more lanes ------------------------------------------------------------------------------------------


def test_values_and_seeds_may_be_added_in_any_order(copy, silent):
    options = {"grid": GRID | {"l2": [1e-1, 1e-2, 0.0, 1e-3]}, "seeds": [2, 1, 0]}
    grown = sweep(copy, **options)
    assert (loaded(grown), grown.config["lanes"]) == (6, 12)
    assert_equal(grown, sweep(**options))
    fewer = sweep(copy, grid=GRID | {"l2": [1e-2]}, seeds=[1])
    assert loaded(fewer) == 1


def test_folds_may_be_added_in_any_order(tmp_path, silent):
    options = {"data": sine(20), "seeds": 1}
    sweep(tmp_path, folds=FOLDS[:2], **options)
    grown = sweep(tmp_path, folds=FOLDS[::-1], **options)
    assert (loaded(grown), grown.config["lanes"]) == (6, 9)
    assert_equal(grown, sweep(folds=FOLDS[::-1], **options))


def test_a_longer_fold_changes_the_padding_and_all_run_again(tmp_path):
    options = {"data": sine(20), "seeds": 1, "folds": FOLDS[:2]}
    sweep(tmp_path, **options)
    grown = sweep(tmp_path, refit=True, **options)
    assert loaded(grown) == 0
    assert_equal(grown, sweep(refit=True, **options))
    assert loaded(sweep(tmp_path, **options)) == 6  # and the old ones are there still


def test_a_lone_fold_is_of_another_program(tmp_path):
    # XLA drops an axis of length one, and rounds otherwise
    options = {"data": sine(20), "seeds": 1}
    sweep(tmp_path, folds=FOLDS[:1], **options)
    grown = sweep(tmp_path, folds=FOLDS[:2], **options)
    assert loaded(grown) == 0
    assert_equal(grown, sweep(folds=FOLDS[:2], **options))


def test_given_parameters_belong_to_a_lane(tmp_path):
    start = NET.init(jax.random.key(1), 1)
    other = jax.tree.map(lambda leaf: leaf + 1, start)
    sweep(tmp_path, params=start)
    assert loaded(sweep(tmp_path, params=other)) == 0
    again = sweep(tmp_path, params=start)
    assert loaded(again) == 6
    assert_equal(again, sweep(params=start))


def test_lanes_that_are_alike_are_loaded_for_each_place(tmp_path):
    options = {"data": sine(20), "seeds": 1}
    sweep(tmp_path, folds=FOLDS[:2], **options)
    folds = [FOLDS[1], FOLDS[0], FOLDS[1]]
    twice = sweep(tmp_path, folds=folds, **options)
    assert loaded(twice) == 9
    assert_equal(twice, sweep(folds=folds, **options))


def test_a_lane_that_diverged_is_kept_too(tmp_path):
    options = {"grid": {"l2": 0.0, "learning_rate": [1e-2, 1e30]}, "seeds": 1}
    with pytest.warns(RuntimeWarning, match="1 of 2 lanes diverged"):
        expected = sweep(tmp_path, **options)
    with pytest.warns(RuntimeWarning, match="1 of 2 lanes diverged"):
        again = sweep(tmp_path, **options)
    assert loaded(again) == 2
    assert_equal(again, expected)


# ---- another sweep is refused ----------------------------------------------------------------------------


def _other_data():
    rows = SPLIT.train
    return SPLIT.replace(train=rr.Batch(rows.xs, rows.ys.at[3].add(1.0)))


CHANGES = {
    "network.layers[0].cell.hidden_size: kept 3, asked 4": lambda: {
        "train": make(rr.network([rr.cells.elman(4)], 1, readout="last"), num_epochs=2)
    },
    "network.layers[0].cell.arguments.activation: kept 'tanh', asked 'relu'": lambda: {
        "train": make(
            rr.network([rr.cells.elman(3, activation="relu")], 1, readout="last"), num_epochs=2
        )
    },
    "num_epochs: kept 2, asked 3": lambda: {"train": make(NET, num_epochs=3)},
    "batch_size: kept None, asked 4": lambda: {"train": make(NET, num_epochs=2, batch_size=4)},
    "loss.reduction: kept 'mean', asked": lambda: {
        "train": make(
            NET,
            num_epochs=2,
            loss=rr.losses.squared_error("sum"),
        )
    },
    "penalties.l2.name: kept 'l2', asked 'l1'": lambda: {
        "train": make(NET, num_epochs=2, penalties={"l2": rr.penalties.l1()})
    },
    "optimizer.states": lambda: {
        "train": make(
            NET,
            num_epochs=2,
            optimizer=lambda hyper: optax.adam(hyper["learning_rate"]),
        )
    },
    "program: kept": lambda: {
        "train": make(
            NET,
            num_epochs=2,
            optimizer=lambda hyper: optax.sgd(2 * hyper["learning_rate"]),
        )
    },
    "data: kept": lambda: {"data": _other_data()},
    "key.data": lambda: {"key": jax.random.key(1)},
    "folds: kept False, asked True": lambda: {"data": sine(20), "folds": FOLDS},
}


@pytest.mark.parametrize("said", CHANGES)
def test_another_sweep_is_refused_before_it_compiles(said, copy, monkeypatch):
    forbid_programs(monkeypatch)
    before = {path: path.read_bytes() for path in copy.rglob("*.*")}
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        sweep(copy, **CHANGES[said]())
    assert str(caught.value).startswith(f"{copy}{os.sep}lanes-44136fa3 keeps lanes of another")
    assert str(caught.value).endswith("Give another folder as keep=, or delete this one.")
    assert {path: path.read_bytes() for path in copy.rglob("*.*")} == before


def test_another_machine_is_refused(copy, monkeypatch):
    forbid_programs(monkeypatch)
    with (
        jax.default_matmul_precision("bfloat16"),
        pytest.raises(ValueError, match="matmul_precision: kept 'highest', asked 'bfloat16'"),
    ):
        sweep(copy)
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    other = {"jax": "0.0.1", "numpy": "0.0.2", "processor": "Another processor"}
    now = facts_room.environment() | other
    monkeypatch.setattr(facts_room, "environment", lambda: now)
    with pytest.raises(ValueError, match="keeps lanes of another sweep") as caught:
        sweep(copy)
    for said in (
        "versions.jax: kept '0.",
        "versions.numpy: kept '",
        "asked 'Another processor'",
        "asked '--xla_cpu_enable_fast_math=true'",
    ):
        assert said in str(caught.value)


def test_every_fact_is_compared(copy):
    (place,) = copy.iterdir()
    facts = shards.read_manifest(place)["facts"]

    def leaves(node, path=()):
        for name, value in node.items() if isinstance(node, dict) else [("", node)]:
            if isinstance(value, dict) and value:
                yield from leaves(value, (*path, name))
            else:
                yield (*path, name)

    found = list(leaves(facts))
    assert len(found) >= 20
    for path in found:
        changed = json.loads(json.dumps(facts))
        node = changed
        for name in path[:-1]:
            node = node[name]
        node[path[-1]] = "another"
        lines = facts_room.differences(changed, facts, described=(None, {}))
        if path != ("calls_python",):  # the program says it already
            assert lines, path
            assert lines[0].startswith(".".join(path)), lines
    assert facts_room.differences(facts, facts, described=(None, {})) == []


def test_a_digest_tells_every_lane_from_the_others(tmp_path, monkeypatch):
    seen = []

    class Keeper(keep_room.Keeper):
        def load(self, *rooms):
            seen.extend(self._digests)
            super().load(*rooms)

    monkeypatch.setattr(keep_room, "Keeper", Keeper)
    monkeypatch.setattr(RUN, "run_jobs", lambda jobs, done, *rest, **options: done)
    sweep(tmp_path, data=sine(20), folds=FOLDS, seeds=3)
    assert len(set(seen)) == len(seen) == 27
