"""What is cached on disk is optional and never trusted: damaged or unreadable it is passed over, with one warning."""

import itertools
import json
import os
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

import rnnreg as rr
from rnnreg.lanes import _calibration as calibration
from rnnreg.lanes import _rates, calibration_path, load_calibration

RATES = {8: {1: 5.5, 2: 4.25}, 16: {1: 11.0, 2: 10.5}}


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Where the rates of this device are stored, in a cache folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    _rates._warn_of_file.cache_clear()
    return calibration_path(jax.devices()[0])


@pytest.fixture
def measured(monkeypatch):
    """What `calibrate` measures, without measuring."""
    monkeypatch.setattr(calibration, "_measure", lambda size, chunks, rounds: RATES[size])
    return lambda: rr.lanes.calibrate(sizes=list(RATES), chunks=[1, 2], rounds=1)


def damaged(path, how):
    whole = path.read_bytes()
    if how == "a folder":
        path.unlink()
        path.mkdir()
    elif how == "unreadable":
        path.unlink()
        path.symlink_to(path)  # a circle; root may read any file
    else:
        flipped = whole.replace(b"5.5", b"7.5")
        kinds = {"empty": b"", "cut": whole[: len(whole) // 2], "flipped": flipped}
        kinds |= {
            "no text": b"\xff\xfe\x00",
            "a list": b"[1]",
            "other keys": b'{"rates": {"a": {"1": 2}}}',
        }
        kinds |= {"no rates": b"{}", "no numbers": json.dumps({"rates": {8: {1: None}}}).encode()}
        path.write_bytes(kinds[how])


DAMAGES = ["empty", "cut", "flipped", "no text", "a list", "other keys", "no rates", "no numbers"]
DAMAGES += ["a folder", "unreadable"]


def test_a_calibration_is_whole_and_alone(path, measured, silent):
    assert measured() == load_calibration()
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_calibration_is_passed_over_with_one_warning(path, measured, how):
    measured()
    damaged(path, how)
    with pytest.warns(
        RuntimeWarning, match=r"calibration .* cannot be read .*calibrate\(\) writes"
    ) as told:
        plans = [rr.lanes.make_plan(3), rr.lanes.make_plan(4)]
    assert len(told) == 1
    assert all("shipped" in plan.reason for plan in plans)
    if how != "a folder":
        assert measured() == load_calibration()


@pytest.mark.parametrize("place", ["a file", "a folder in its place"])
def test_rates_that_cannot_be_stored_are_returned(path, measured, place):
    if place == "a file":
        path.parent.parent.mkdir(parents=True)
        path.parent.write_text("")
    else:
        path.mkdir(parents=True)
    with pytest.warns(RuntimeWarning, match="rates cannot be stored .*calibration=") as told:
        found = measured()
    assert len(told) == 1
    assert found.rates == RATES
    assert place == "a file" or list(path.parent.iterdir()) == [path]


def test_without_a_home_folder_nothing_is_stored_or_said(measured, monkeypatch, silent):
    for module in (_rates, rr.runtime):
        monkeypatch.setattr(module, "cache_folder", lambda: None)
    assert measured().rates == RATES
    assert load_calibration().source.startswith("shipped")


def test_two_calibrations_at_the_same_time_do_not_mix(path, silent):
    """A reader sees one of them whole, at any time."""
    every = [{8: {1: float(number), 2: float(number)}, 16: {1: float(number)}} for number in (1, 2)]
    _rates.store_rates(path, every[0])
    stop, seen = threading.Event(), set()

    def write(rates):
        while not stop.is_set():
            _rates.store_rates(path, rates)

    writers = [threading.Thread(target=write, args=(rates,)) for rates in every]
    for writer in writers:
        writer.start()
    for _ in range(200):
        seen.add(json.dumps(load_calibration().rates))
    stop.set()
    for writer in writers:
        writer.join()
    assert seen <= {json.dumps(rates) for rates in every}
    assert list(path.parent.iterdir()) == [path]


# ---- compiled programs ---------------------------------------------------------------------------------

COMPILED = """
import sys, warnings
import jax, jax.numpy as jnp
import rnnreg as rr
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    folder = rr.compilation_cache(sys.argv[1] or None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    value = float(jax.jit(lambda x: jnp.tanh(x @ x.T).sum())(jnp.arange(12.0).reshape(3, 4) / 10))
print(folder, round(value, 4), len(told), *[str(one.message) for one in told], sep="|")
"""


def compiled(folder, **environment):
    """What a process says that compiles a program with a cache: its folder, a value, its warnings."""
    clean = {
        name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"
    }
    done = subprocess.run(
        [sys.executable, "-c", COMPILED, str(folder)],
        env=clean | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    place, value, count, *told = done.stdout.strip().split("|")
    return place, float(value), int(count), told


@pytest.mark.slow
def test_a_damaged_program_is_compiled_anew(tmp_path):
    first = compiled(tmp_path)
    kept = sorted(tmp_path.glob("*-cache"))
    assert len(kept) >= 3
    for path, how in zip(
        kept, itertools.cycle(["empty", "cut", "flipped", "a folder"]), strict=False
    ):
        if how == "flipped":
            whole = path.read_bytes()
            path.write_bytes(whole[:200] + bytes([whole[200] ^ 16]) + whole[201:])
        else:
            damaged(path, how)
    assert first[2] == 0
    assert compiled(tmp_path)[:2] == first[:2]  # JAX warns of each entry that it cannot read


def test_a_user_without_a_home_folder_compiles_without_a_cache(tmp_path):
    """Nor has the user an entry among the passwords."""
    code = COMPILED.replace(
        "import jax,", "import os, pwd; pwd.getpwuid = lambda uid: {}[uid]\nimport jax,"
    )
    clean = {
        n: v
        for n, v in os.environ.items()
        if n not in ("HOME", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR")
    }
    done = subprocess.run(
        [sys.executable, "-c", code, ""], env=clean, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    place, value, count, told = done.stdout.strip().split("|")
    assert (place, count) == ("None", "1")
    assert "there is no home folder; set XDG_CACHE_HOME" in told
    assert np.isfinite(float(value))
