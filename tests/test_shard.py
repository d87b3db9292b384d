"""Sweeps in parts: jobs of a cluster that share the lanes, and the call that joins them."""

import functools
import itertools
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from conftest import SEED
from small import make, sine
from small_keep import (
    FOLDS,
    GRID,
    KEY,
    PLANS,
    SPLIT,
    TRAIN,
    assert_equal,
    files,
    forbid_programs,
    go_on,
    loaded,
    stop,
    sweep,
)

import rnnreg as rr
from rnnreg.lanes import for_part, make_plan
from rnnreg.sweeps import _keep as keep_room
from rnnreg.sweeps import _shards as shards
from rnnreg.sweeps._parts import Part, own_lanes


def finished(result):
    return result.metrics.finished.values.ravel()


# ---- the parts and the whole --------------------------------------------------------------------------


@pytest.mark.numerics
@pytest.mark.parametrize("plan", PLANS)
def test_the_parts_in_any_order_are_the_whole(plan, tmp_path, silent, monkeypatch):
    options = {"seeds": 3, **PLANS[plan]}
    expected = sweep(**options)
    before = np.zeros(9, dtype=bool)
    for number in np.random.default_rng(SEED).permutation(4):
        part = sweep(tmp_path, shard=(number, 4), **options)
        done = finished(part)
        assert part.config["shard"] == [number, 4]
        assert part.config["lanes_loaded"] == before.sum() < done.sum()
        assert done[before].all()
        assert part.metrics.train_loss.equals(
            expected.metrics.train_loss.where(part.metrics.finished)
        )
        before = done
    forbid_programs(monkeypatch)
    merged = sweep(tmp_path, **options)
    assert (loaded(merged), merged.config["shard"]) == (9, None)
    assert_equal(merged, expected)


@pytest.mark.optimised  # calls of one, of two and of six lanes are three programs
def test_one_by_one_the_number_of_parts_changes_no_bit(tmp_path):
    options = {"grid": GRID, "seeds": 2, "plan": "auto", "width": None}
    expected = sweep(**options)
    for of in (3, 6):
        for number in range(of):
            part = sweep(tmp_path / str(of), shard=(number, of), **options)
            assert f"one by one on 1 cpu device(s), {6 // of} a call" in part.plan
        assert_equal(sweep(tmp_path / str(of), **options), expected)


def test_what_is_missing_is_trained(tmp_path, monkeypatch):
    expected = sweep()
    sweep(tmp_path, shard=(2, 3))
    stop(monkeypatch, 1, MemoryError())
    with pytest.raises(MemoryError) as caught:
        sweep(tmp_path, shard=(0, 3))
    assert finished(caught.value.partial_result).sum() == 3
    go_on(monkeypatch)
    merged = sweep(tmp_path)
    assert loaded(merged) == 3
    assert_equal(merged, expected)


def test_a_part_again_trains_nothing(tmp_path, monkeypatch):
    part = sweep(tmp_path, shard=(1, 2))
    forbid_programs(monkeypatch)
    again = sweep(tmp_path, shard=(1, 2))
    assert loaded(again) == 3
    assert_equal(again, part)


def test_static_combinations_and_folds_are_dealt_together(tmp_path):
    @functools.cache
    def of(size):
        return make(rr.network([rr.cells.elman(size)], 1, readout="last"), num_epochs=2)

    options = {
        "train": lambda static: of(static["size"]),
        "data": sine(20),
        "folds": FOLDS[:2],
        "static": {"size": [2, 3]},
    }
    options |= {"seeds": 1, "grid": {"l2": 0.0, "learning_rate": 1e-2}}
    parts = [sweep(tmp_path, shard=(number, 4), **options) for number in range(4)]
    assert [finished(part).sum() for part in parts] == [1, 2, 3, 4]
    assert_equal(sweep(tmp_path, **options), sweep(**options))


def test_parts_at_once_in_one_folder(tmp_path, monkeypatch, silent):
    monkeypatch.setattr(keep_room, "_SECONDS_A_SHARD", 0.0)
    monkeypatch.setattr(keep_room, "_TIMES_A_WRITE", 0)
    expected = sweep()
    options = {"seeds": 2, "key": KEY, "progress": False, "plan": "one_by_one", "width": 1}

    def job(number):
        return rr.sweep(TRAIN, GRID, SPLIT, keep=tmp_path, shard=(number, 5), **options)

    with ThreadPoolExecutor(5) as pool:
        parts = list(pool.map(job, range(5)))
    assert np.all([finished(part).any() for part in parts])
    merged = sweep(tmp_path)
    assert loaded(merged) == len(files(tmp_path)) == 6
    assert_equal(merged, expected)


def test_a_manifest_that_another_job_writes_meanwhile_is_not_damaged(tmp_path, monkeypatch, silent):
    read, calls = shards.read_manifest, []

    def late(place):
        calls.append(place)
        if len(calls) == 4:  # between the look for a manifest and the look for what is damaged
            sweep(tmp_path, shard=(1, 2))
        return read(place)

    monkeypatch.setattr(keep_room, "read_manifest", late)
    sweep(tmp_path, shard=(0, 2))
    assert len(calls) > 8  # those of the other job too


# ---- how lanes are dealt ------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", ["one_by_one", "chunks", "vmap"])
def test_every_lane_has_one_part_and_the_parts_are_even(plan):
    for lanes, of, chunk in itertools.product((1, 7, 24, 60), (1, 2, 3, 5, 7), (1, 2, 4)):
        options = {"chunk": chunk} if plan == "chunks" else {}
        plans = [make_plan(lanes, plan=plan, devices=jax.devices()[:1], **options)] * 2
        share = -(-lanes * min(2, of) // of) if of > 1 else lanes
        plans = [for_part(each, share) for each in plans]
        if of > 2 * lanes:
            continue
        owned = [np.concatenate(own_lanes(plans, Part(number, of))) for number in range(of)]
        assert np.array_equal(np.sum(owned, axis=0), np.ones(2 * lanes))
        # a unit is never torn
        unit = plans[0].width if plan != "one_by_one" else 1
        for mine in owned:
            for half in (mine[:lanes], mine[lanes:]):
                assert all(
                    len(set(half[start : start + unit])) == 1 for start in range(0, lanes, unit)
                )
        most = max(mine.sum() for mine in owned)
        assert most <= -(-2 * lanes // of) + 2 * unit


@pytest.mark.parametrize("axis", range(2, 13))
def test_each_part_spans_the_axis(axis):
    # an interleaving of a fixed stride gives a part the same value of an axis, for some lengths
    plan = make_plan(axis * 20, plan="one_by_one", devices=jax.devices()[:1])
    for of in range(2, 13):
        for number in range(of):
            (mine,) = own_lanes([plan], Part(number, of))
            values = np.flatnonzero(mine) % axis
            assert len(set(values)) >= min(axis, len(values)) / 2


def test_a_plan_is_no_wider_than_a_part_needs():
    one, two = (tuple(jax.devices()[:1]) * count for count in (1, 2))
    wide = {"width": 64, "devices": one}
    assert for_part(make_plan(64, plan="one_by_one", **wide), 9).width == 9
    vmap = for_part(make_plan(64, plan="vmap", **wide), 9)
    assert (vmap.width, vmap.chunk, vmap.num_calls) == (9, 9, 8)
    chunks = for_part(make_plan(64, plan="chunks", chunk=4, **wide), 9)
    assert (chunks.width, chunks.chunk) == (12, 4)  # the neighbours stay
    pair = make_plan(64, plan="chunks", chunk=4, width=64, devices=two)
    assert for_part(pair, 9).width == 16
    assert (for_part(pair, 3).width, len(for_part(pair, 3).devices)) == (4, 1)
    alone = for_part(make_plan(64, plan="one_by_one", width=64, devices=two), 1)
    assert (alone.width, len(alone.devices)) == (1, 1)
    for plan in ("one_by_one", "chunks", "vmap", "split_rows"):
        whole = make_plan(7, plan=plan, devices=two)
        assert for_part(whole, 7) == whole


# ---- wrong calls --------------------------------------------------------------------------------------

WRONG = {
    "one past the end": ((4, 4), r"shard must be \(i, n\), the part i of 0 … n − 1, such as \(0"),
    "negative": ((-1, 4), "shard must be"),
    "a fraction": ((0.5, 4), "shard must hold whole numbers"),
    "a fraction of parts": ((0, 4.0), "shard must hold whole numbers"),
    "no parts": ((0, 0), "shard must be"),
    "a number": (3, "shard must be a pair of whole numbers or None; got 3"),
    "a text": ("12", "shard must be"),
    "three": ((0, 1, 2), "shard must be"),
    "a flag": ((False, 2), "shard must hold whole numbers; got False"),
    "too many parts": ((0, 7), r"shard=\(0, 7\) deals 6 lanes to 7 parts; give at most 6 parts"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_shard(case, tmp_path, monkeypatch):
    forbid_programs(monkeypatch)
    shard, said = WRONG[case]
    with pytest.raises(ValueError, match=said):
        sweep(tmp_path, shard=shard)
    assert not files(tmp_path)


def test_a_part_needs_a_folder(monkeypatch):
    with pytest.raises(ValueError, match=r"shard=\(1, 2\) needs keep=, the folder in which the 2"):
        sweep(shard=(1, 2))
    assert finished(sweep(shard=(0, 1))).all()  # all lanes, and no folder
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    with pytest.raises(ValueError, match=r"JAX runs as 3 processes, .*give keep=, one that all"):
        sweep()


def test_another_plan_is_refused_by_a_part(tmp_path):
    sweep(tmp_path, shard=(0, 2))
    with pytest.raises(ValueError, match=r"plan.name: kept 'one_by_one', asked 'vmap'"):
        sweep(tmp_path, shard=(1, 2), plan="vmap", width=None)
