"""Saved results: whole or not at all, and never read as other numbers than were written."""

import errno
import io
import json
import os
import re
import threading

import h5py
import numpy as np
import pytest
import xarray as xr

import rnnreg as rr
from rnnreg.sweeps import Group, SweepResult
from rnnreg.sweeps import _disk as disk

FULL = "/dev/full"  # a device on which nothing has room


def result(value=0.5):
    """A small result that nobody trained."""
    scores = np.full((3, 2), value, np.float32)
    metrics = xr.Dataset(
        {"val_loss": (("l2", "seed"), scores), "finished": (("l2", "seed"), np.ones((3, 2), bool))},
        {"l2": [0.0, 1e-3, 1e-2], "seed": [0, 1], "name": ("l2", ["none", "λ", "x" * 40])},
    )
    params = {
        "layer_0": {"W_hh": np.full((3, 2, 4, 4), value, np.float32)},
        "rest": (None, np.arange(6).reshape(3, 2)),
    }
    return SweepResult(
        metrics, (Group({}, params),), {"grid": {"l2": [0.0, 1e-3, 1e-2]}, "λ": "ok"}, "a plan"
    )


def same(one, other):
    assert one.metrics.equals(other.metrics)
    assert (one.config, one.plan) == (other.config, other.plan)
    mine, theirs = one.groups[0].params, other.groups[0].params
    assert isinstance(theirs["rest"], tuple)
    assert theirs["rest"][0] is None
    for first, second in (
        (mine["layer_0"]["W_hh"], theirs["layer_0"]["W_hh"]),
        (mine["rest"][1], theirs["rest"][1]),
    ):
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second)


def forged(path, image):
    """A file whose last line is right, whatever is in it."""
    path.write_bytes(image + disk.last_line(image))
    return path


def test_what_is_saved_comes_back_and_other_tools_read_it(tmp_path):
    path = result().save(tmp_path / "sine.nc")
    same(rr.load_result(path), result())
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        assert tree["params/0/layer_0/W_hh"].shape == (3, 2, 4, 4)
    with h5py.File(path) as file:
        assert file["val_loss"].shape == (3, 2)


def test_no_changed_byte_is_read_as_a_number(tmp_path):
    path = result().save(tmp_path / "sine.nc")
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for place in rng.choice(len(content), 200, replace=False):
        changed = bytearray(content)
        changed[place] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=re.escape(str(path))):
            rr.load_result(path)


def test_no_part_of_a_file_is_read(tmp_path):
    path = result().save(tmp_path / "sine.nc")
    content = path.read_bytes()
    for end in [0, 1, 8, 100, len(content) // 2, len(content) - 79, len(content) - 1]:
        path.write_bytes(content[:end])
        with pytest.raises(
            ValueError, match=r"sine\.nc (is not a netCDF file|was not written by|is damaged)"
        ):
            rr.load_result(path)
    path.write_bytes(content + b"more")
    with pytest.raises(ValueError, match="was cut off or changed afterwards"):
        rr.load_result(path)


def test_a_full_disk_harms_neither_the_result_nor_the_old_file(tmp_path, monkeypatch):
    path = result(1.0).save(tmp_path / "sine.nc")
    kept = result(2.0)

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(disk.os, "fsync", full)
        with pytest.raises(
            OSError,
            match=r"sine\.nc could not be written: the disk is full\. The result is still in",
        ):
            kept.save(path)
    assert os.listdir(tmp_path) == ["sine.nc"]
    same(rr.load_result(path), result(1.0))
    same(rr.load_result(kept.save(path)), result(2.0))


@pytest.mark.skipif(not os.path.exists(FULL), reason="no device that is always full")
def test_a_device_is_written_to_and_stays_one():
    with pytest.raises(OSError, match="/dev/full could not be written: the disk is full") as caught:
        result().save(FULL)
    assert caught.value.errno == errno.ENOSPC
    result().save(os.devnull)
    assert not os.path.isfile(os.devnull)


def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupted(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(disk.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        result().save(tmp_path / "sine.nc")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="links and modes of POSIX")
def test_links_and_modes_stay(tmp_path):
    target, link = tmp_path / "far" / "sine.nc", tmp_path / "link.nc"
    target.parent.mkdir()
    link.symlink_to(target)
    result(1.0).save(link)
    assert link.is_symlink()
    same(rr.load_result(target), result(1.0))
    plain = tmp_path / "plain"
    plain.write_text("as every file")
    assert target.stat().st_mode == plain.stat().st_mode
    target.chmod(0o640)
    result(2.0).save(link)
    assert target.stat().st_mode & 0o777 == 0o640
    same(rr.load_result(link), result(2.0))


def test_two_writers_of_one_path_do_not_mix(tmp_path):
    path = tmp_path / "sine.nc"
    threads = [
        threading.Thread(target=lambda v=v: [result(v).save(path) for _ in range(5)])
        for v in (1.0, 2.0)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = rr.load_result(path)
    same(found, result(float(found.metrics.val_loss[0, 0])))
    assert os.listdir(tmp_path) == ["sine.nc"]


@pytest.mark.parametrize(("place", "error", "message"), [
    (".", IsADirectoryError, "it is a folder"),
    ("file/sine.nc", OSError, "a part of its path is a file and no folder"),
    ("x" * 300, OSError, "its name is too long"),
])  # fmt: skip
def test_a_place_that_takes_no_file_is_named(place, error, message, tmp_path):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(
        error, match=rf"could not be written: {message}\. The result is still in memory"
    ):
        result().save(tmp_path / "y" / ".." / place if place != "." else tmp_path)


@pytest.mark.parametrize(("path", "error", "message"), [
    (3, ValueError, "path must be a text or a path; got 3"),
    (b"sine.nc", ValueError, "got b'sine.nc'"),
    (None, ValueError, "got None"),
    ("", ValueError, "needs the name of a file"),
    ("a\0b", ValueError, "needs the name of a file"),
    ("~nobody_has_this_name/sine.nc", ValueError, "the home folder of .* is not known; write the whole path"),
])  # fmt: skip
@pytest.mark.parametrize("call", [lambda path: result().save(path), rr.load_result])
def test_what_is_no_path_is_refused(call, path, error, message):
    with pytest.raises(error, match=message):
        call(path)


def test_a_folder_and_a_missing_file_are_not_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.nc"):
        rr.load_result(tmp_path / "none.nc")
    with pytest.raises(IsADirectoryError, match="could not be read: it is a folder"):
        rr.load_result(tmp_path)


def secret(file, folder):
    (folder / "secret").write_bytes(b"12345678")
    file.create_dataset("stolen", (8,), "u1", external=[(str(folder / "secret"), 0, 8)])


def elsewhere(file, folder):
    with h5py.File(folder / "other.h5", "w") as other:
        other["x"] = np.ones(3)
    file["stolen"] = h5py.ExternalLink(str(folder / "other.h5"), "/x")


def virtual(file, folder):
    with h5py.File(folder / "other.h5", "w") as other:
        other["x"] = np.ones(3)
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "x", (3,))
    file.create_virtual_dataset("stolen", layout)


def bomb(file, folder):
    file.create_dataset("stolen", (10**12,), "f4", chunks=(10**6,), compression="gzip")


def soft(file, folder):
    file["stolen"] = h5py.SoftLink("/val_loss")


@pytest.mark.parametrize("spoil", [secret, elsewhere, virtual, bomb, soft])
def test_nothing_outside_a_file_is_read_and_no_bomb_unpacked(spoil, tmp_path):
    image = io.BytesIO(result().save(tmp_path / "sine.nc").read_bytes()[:-79])
    with h5py.File(image, "a") as file:
        spoil(file, tmp_path)
    path = forged(tmp_path / "forged.nc", image.getvalue())
    with pytest.raises(
        ValueError, match=r"forged\.nc has an array that is not in the file itself, /stolen"
    ):
        rr.load_result(path)


def test_a_forged_file_that_is_as_saved_is_read(tmp_path):
    """The forgery of the tests above is not refused for itself."""
    image = result().save(tmp_path / "sine.nc").read_bytes()[:-79]
    same(rr.load_result(forged(tmp_path / "forged.nc", image)), result())
    assert json.loads(xr.open_datatree(tmp_path / "forged.nc", engine="h5netcdf").attrs["rnnreg"])[
        "trees"
    ]
