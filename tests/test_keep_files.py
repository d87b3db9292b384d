"""The files of kept lanes: damage is found and mended, and a disk that is slow or full ends no sweep."""

import errno
import json
import shutil
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import assert_same
from small_keep import RUN, assert_equal, copied, files, forbid_programs, loaded, sweep

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
def opened(kept):
    """The keeper of the finished sweep, and the room for its lanes, which are loaded."""
    seen = []

    def stop(jobs, done, keepers, *rest):
        seen.extend((keepers[0], *done[0][:2]))
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RUN, "run_jobs", stop)
        sweep(kept)
    return seen


@pytest.fixture
def copy(kept, tmp_path):
    return copied(kept, tmp_path)


# ---- damaged files -----------------------------------------------------------------------------------------


def _damage(path, rng, kind=None):
    """Damages a file in one of five ways; returns which."""
    content = bytearray(path.read_bytes())
    kind = kind or rng.choice(["flip", "cut", "empty", "missing", "longer"])
    if kind == "flip":
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    elif kind == "cut":
        del content[rng.integers(1, len(content)) :]
    elif kind == "longer":
        content += b"\0"
    path.write_bytes(b"" if kind == "empty" else content)
    if kind == "missing":
        path.unlink()
    return kind


@pytest.mark.parametrize("kind", ["flip", "cut", "empty", "missing"])
def test_a_damaged_file_is_named_and_its_lane_runs_again(kind, copy, whole):
    path = files(copy)[2]
    _damage(path, np.random.default_rng(0), kind)
    with pytest.warns(RuntimeWarning, match="1 files of .* are damaged or missing") as caught:
        again = sweep(copy)
    assert len(caught) == 1
    assert f"{path.parent.name}/{path.name}" in str(caught[0].message)
    assert "small_keep" in caught[0].filename
    assert loaded(again) == 5
    assert_equal(again, whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the folder is whole again
        assert_equal(sweep(copy, seeds=3), sweep(seeds=3))


def test_a_part_of_the_lanes_tells_of_a_damaged_file_too(copy, whole):
    """It mends the folder, so nobody would hear of it later."""
    _damage(files(copy)[2], np.random.default_rng(0), "flip")
    with pytest.warns(
        RuntimeWarning, match="lanes that were in them run again when they are asked for"
    ):
        assert loaded(sweep(copy, seeds=1)) >= 2
    assert_equal(sweep(copy), whole)


def test_lanes_of_another_sweep_are_told_of(copy, whole, monkeypatch):
    """Two that began at the same time, before there was a manifest."""
    monkeypatch.setattr(keep_room.Keeper, "compare", lambda *_: None)
    monkeypatch.setattr(keep_room.Keeper, "declare", lambda *_: None)
    with pytest.warns(RuntimeWarning, match="6 files of .* hold lanes of another sweep"):
        assert loaded(sweep(copy, key=jax.random.key(1))) == 0


def test_no_damage_gives_another_number(kept, opened, tmp_path, whole):
    keeper, store, finished = opened
    expected = whole.metrics.train_loss.transpose("seed", "l2").values.reshape(-1)
    names, rng = [path.name for path in files(kept)], np.random.default_rng(0)
    lanes = np.array([0, 2, 1, 3, 5, 4])  # of each file: the ends of a path run first
    for number in range(50):
        folder = Path(shutil.copytree(kept, tmp_path / str(number)))
        keeper.place = folder / keeper.place.name
        hit = sorted(rng.choice(6, rng.integers(1, 6), replace=False).tolist())
        kinds = {n: _damage(keeper.place / names[n], rng) for n in hit}
        finished[:] = False
        store.metrics["train_loss"][:] = np.nan
        keeper.load(store, finished)
        np.testing.assert_array_equal(np.flatnonzero(~finished), sorted(lanes[hit]))
        np.testing.assert_array_equal(
            store.metrics["train_loss"], np.where(finished, expected, np.nan)
        )
        # that the last files are gone, nobody can know
        last = max(n for n in range(6) if kinds.get(n) != "missing")
        assert {path.name for path in keeper._unread} == {names[n] for n in hit if n <= last}


@pytest.mark.parametrize("kind", ["flip", "cut", "empty", "missing"])
def test_a_manifest_is_made_again_from_the_shards(kind, copy, whole, monkeypatch):
    (manifest,) = copy.rglob(shards.MANIFEST)
    content = json.loads(manifest.read_bytes())
    _damage(manifest, np.random.default_rng(1), kind)
    with pytest.raises(ValueError, match=r"key.data\[1\]: kept"):
        sweep(copy, key=jax.random.key(1))
    forbid_programs(monkeypatch)
    with pytest.warns(RuntimeWarning, match="manifest.json was damaged or missing"):
        again = sweep(copy, plan="auto", width=None)
    assert_equal(again, whole)
    assert json.loads(manifest.read_bytes())["facts"] == content["facts"]


def test_without_a_whole_file_all_runs_again(copy, whole):
    for path in copy.rglob("*.*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.warns(RuntimeWarning, match="damaged or missing") as caught:
        again = sweep(copy)
    assert len(caught) == 2  # the manifest, and the shards
    assert loaded(again) == 0
    assert_equal(again, whole)
    assert loaded(sweep(copy)) == 6


def test_a_file_holds_every_type_of_leaf(tmp_path):
    leaves = [
        np.asarray(jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3)),
        np.array([True, False]),
        np.arange(4, dtype=np.int64).reshape(2, 2, 1),
        np.array([[1 + 2j], [np.nan]], np.complex64),
        np.zeros((2, 0, 3), np.float32),
    ]
    kinds = [jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) for leaf in leaves]
    shard = shards.shard_of({"a": 1}, "p", [b"x" * 32, b"y" * 32], leaves)
    shards.write_shard(tmp_path / "s.npz", shard)
    back = shards.read_shard(tmp_path / "s.npz")
    assert (back.facts, back.program, back.lanes) == ({"a": 1}, "p", [b"x" * 32, b"y" * 32])
    for mine, theirs in zip(leaves, back.take([0, 1], kinds), strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)
    assert back.take([1], kinds)[2].tolist() == [[[2], [3]]]
    with np.load(tmp_path / "s.npz", allow_pickle=False) as arrays:  # other tools read it too
        assert arrays["lanes"].size == 64


# ---- files ----------------------------------------------------------------------------------------------------


def test_calls_share_a_file_until_a_second_has_passed(tmp_path, monkeypatch):
    now = iter(np.arange(0, 1000, 0.3))
    monkeypatch.setattr(keep_room.time, "monotonic", lambda: next(now))
    sweep(tmp_path, seeds=6, pause=(1.0, 0))
    sizes = [len(shards.read_shard(path).lanes) for path in files(tmp_path)]
    assert sum(sizes) == 18
    assert set(sizes[:-1]) == {4}


def test_a_slow_disk_is_written_to_less_often(opened, monkeypatch):
    keeper, store, _ = opened
    now, written = [0.0], []

    def write(path, shard):
        written.append(len(shard.lanes))
        now[0] += 0.5

    monkeypatch.setattr(keep_room, "_SECONDS_A_SHARD", 1.0)
    monkeypatch.setattr(keep_room, "_TIMES_A_WRITE", 50)
    monkeypatch.setattr(keep_room, "write_shard", write)
    monkeypatch.setattr(keep_room.time, "monotonic", lambda: now[0])
    outputs = jax.tree.map(lambda leaf: leaf[:1], store)
    with keeper:
        for _ in range(100):
            now[0] += 1.0
            keeper.add(np.array([0]), outputs, "program")
    assert len(written) == 5
    assert sum(written) == 100
    assert 0.5 * len(written) < 0.03 * now[0]


def test_a_full_disk_does_not_end_the_sweep(tmp_path, monkeypatch, whole):
    full = [True]

    def write(path, shard):
        if full[0]:
            full[0] = len(shard.lanes) < 4
            raise OSError(errno.ENOSPC, "No space left on device")
        shards.write_shard(path, shard)

    monkeypatch.setattr(keep_room, "write_shard", write)
    with pytest.warns(RuntimeWarning, match="could not be written to .* tries again") as caught:
        assert_equal(sweep(tmp_path), whole)
    assert len(caught) == 1
    assert loaded(sweep(tmp_path)) == 6


def test_a_disk_that_stays_full_is_told_at_the_end(tmp_path, monkeypatch, whole):
    def write(path, shard):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(keep_room, "write_shard", write)
        with (
            pytest.warns(RuntimeWarning, match="tries again later"),
            pytest.warns(RuntimeWarning, match="6 finished lanes could not be written to"),
        ):
            assert_equal(sweep(tmp_path), whole)
    assert loaded(sweep(tmp_path)) == 0


def test_a_folder_that_is_none_is_told_before_anything_compiles(tmp_path, monkeypatch):
    forbid_programs(monkeypatch)
    (tmp_path / "file").write_text("text")
    with pytest.raises(NotADirectoryError, match="it is a file, and a folder is needed"):
        sweep(tmp_path / "file")
    with pytest.raises(ValueError, match="keep must be a text, a path or None; got 3"):
        sweep(3)


def test_two_keepers_neither_mix_nor_lose(kept, opened, tmp_path):
    one, store, _ = opened
    two = keep_room.Keeper.__new__(keep_room.Keeper)
    two.__dict__ |= one.__dict__ | {"_waiting": [], "_writer": "0" * 12, "_number": 0}
    other = keep_room.Keeper.__new__(keep_room.Keeper)
    other.__dict__ |= two.__dict__ | {"_waiting": [], "_writer": "1" * 12}
    other._facts = one._facts | {"plan": one._facts["plan"] | {"width": 2}}
    one.place = two.place = other.place = tmp_path / one.place.name

    def rows(numbers, plus=0.0):
        return jax.tree.map(lambda leaf: (leaf[numbers] + plus).astype(leaf.dtype), store)

    for keeper, numbers, plus in ((one, [0, 1], 0), (other, [2, 3], 1), (two, [1, 2], 0)):
        keeper.add(np.array(numbers), rows(numbers, plus), "program")
    assert len(files(tmp_path)) == 3
    room = jax.tree.map(np.zeros_like, store)
    found = np.zeros(6, bool)
    one.load(room, found)
    assert np.flatnonzero(found).tolist() == [0, 1, 2]  # the other's plan is not this one's
    assert_same(jax.tree.map(lambda leaf: leaf[:3], room), rows([0, 1, 2]))
