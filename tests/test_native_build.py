"""How the compiled recurrence is built and kept, and that everything runs where it cannot be."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import rnnreg as rr
from rnnreg.recurrence.native import _build

pytestmark = pytest.mark.skipif(
    os.name == "nt", reason="the compiler of these tests is a shell script"
)

# Says that it is a compiler, notes each call, and hands out what the true one made before.
COMPILER = """#!/bin/sh
if [ "$1" = --version ]; then echo "shell++ 1.0"; exit 0; fi
echo compiled >> "{log}"
while [ "$1" != -o ]; do shift; done
cp "{library}" "$2"
"""
FAILING = """#!/bin/sh
if [ "$1" = --version ]; then echo "shell++ 1.0"; exit 0; fi
echo "kernel.cc:1: error: out of paper" >&2
exit 1
"""


def script(path, text):
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture
def forgotten():
    """What the process knows of the library is forgotten for a test, and known again after it."""
    _build._library.cache_clear()
    yield
    _build._library.cache_clear()


@pytest.fixture
def compiler(tmp_path, monkeypatch, forgotten):
    """A quick compiler with a cache folder of its own; returns how often it was called."""
    found = _build.kernel_library()
    if found.path is None:
        pytest.skip(found.reason)
    _build._library.cache_clear()
    log = tmp_path / "log"
    text = COMPILER.format(log=log, library=found.path)
    monkeypatch.setenv("CXX", script(tmp_path / "shell++", text))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # one process registers a name once; that XLA takes the function was shown before
    monkeypatch.setattr(jax.ffi, "register_ffi_target", lambda *at, **options: None)
    return lambda: log.read_text().count("compiled") if log.exists() else 0


def again():
    """The library as a new process would find it."""
    _build._library.cache_clear()
    return _build.kernel_library()


def test_it_is_compiled_once_and_kept_in_the_cache_folder(compiler, tmp_path):
    first = again()
    assert first.path.parent == tmp_path / "cache" / "rnnreg" / "native"
    assert first.reason == "compiled for this processor by shell++ 1.0"
    assert again() == first
    assert compiler() == 1
    assert sorted(path.suffix for path in first.path.parent.iterdir()) == [".sha256", ".so"]


@pytest.mark.parametrize("kept", [b"not a library", b"", None], ids=["text", "empty", "half"])
def test_a_broken_file_is_compiled_anew(compiler, kept):
    path = again().path
    whole = path.read_bytes()
    path.unlink()  # this process has it in memory
    path.write_bytes(whole[:5000] if kept is None else kept)
    assert again().path == path
    assert compiler() == 2


def test_another_source_compiler_or_processor_is_another_file(compiler, monkeypatch, tmp_path):
    paths = {again().path}
    monkeypatch.setattr(_build, "cpu_model", lambda: "another")
    paths.add(again().path)
    own = tmp_path / "kernel.cc"
    own.write_text("// other")
    monkeypatch.setattr(_build, "SOURCES", [own])
    paths.add(again().path)
    other = Path(os.environ["CXX"]).read_text().replace("1.0", "2.0")
    monkeypatch.setenv("CXX", script(tmp_path / "other++", other))
    paths.add(again().path)
    assert len(paths) == compiler() == 4


def test_a_folder_that_cannot_be_written_gives_way_to_one_of_the_process(
    compiler, monkeypatch, tmp_path
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    found = again()
    assert found.path.parent == _build._own_folder()
    assert found.path.exists()
    assert re.search(r"in each process anew.*file/.*native: .*set XDG_CACHE_HOME", found.reason)


def test_a_user_without_a_home_folder_has_one_of_the_process(compiler, monkeypatch):
    monkeypatch.setattr(_build, "cache_folder", lambda: None)
    found = again()
    assert found.path.parent == _build._own_folder()
    assert "there is no home folder): set XDG_CACHE_HOME" in found.reason


def test_without_a_compiler_all_runs_as_before_and_is_told_what_to_install(monkeypatch, forgotten):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(_build.importlib.util, "find_spec", lambda name: None)
    choice = rr.explain(rr.network([rr.cells.gru(3)], 1), input_size=2)["layer_0"]
    assert choice.backend == "fused"
    assert choice.reason.endswith(
        "; the compiled kernel needs a C++ compiler: install a C++ compiler such as g++, or "
        "pip install 'rnnreg[native]'"
    )


def test_a_compiler_that_is_not_there_is_named(monkeypatch, forgotten):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "/nowhere/g++ -m64")
    monkeypatch.setattr(_build.importlib.util, "find_spec", lambda name: None)
    assert _build.kernel_library().reason.endswith("; there is no CXX=/nowhere/g++")


def test_ziglang_serves_where_the_system_has_no_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(_build.importlib.util, "find_spec", lambda name: name == "ziglang")
    assert _build.find_compiler() == (sys.executable, "-m", "ziglang", "c++")


def runs(net):
    params = net.init(jax.random.key(0), 2)
    return bool(jnp.isfinite(net.apply(params, jnp.ones((1, 3, 2))).outputs).all())


def test_a_compiler_that_fails_is_told_once(monkeypatch, tmp_path, forgotten):
    monkeypatch.setenv("CXX", script(tmp_path / "failing++", FAILING))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    net = rr.network([rr.cells.elman(3)], 1)
    with pytest.warns(
        RuntimeWarning, match=r"kernel\.cc:1: error: out of paper.*runs without it"
    ) as told:
        assert runs(net)
    assert len(told) == 1
    assert "out of paper" in rr.explain(net, input_size=2)["layer_0"].reason


def test_a_jaxlib_that_does_not_take_the_function_is_told_once(compiler, monkeypatch):
    def refuse(*at, **options):
        raise ValueError("another version of the interface")

    monkeypatch.setattr(jax.ffi, "register_ffi_target", refuse)
    with pytest.warns(RuntimeWarning, match="jaxlib does not take it: another version") as told:
        assert runs(rr.network([rr.cells.elman(3)], 1))
    assert len(told) == 1


PROCESS = """
import json
import jax.numpy as jnp
import rnnreg as rr
from rnnreg.recurrence import unroll
cell = rr.cells.elman(1)
params = {"W_xh": jnp.ones((1, 1)), "W_hh": jnp.zeros((1, 1)), "b_h": jnp.zeros(1)}
_, states = unroll(cell, params, jnp.ones((1, 1, 1)), cell.initial_state(1), backend="native")
print(json.dumps([float(states.h[0, 0, 0])]))
"""


def test_processes_that_start_at_once_do_not_disturb_each_other(compiler, tmp_path):
    started = [
        subprocess.Popen([sys.executable, "-c", PROCESS], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in started:
        out, _ = process.communicate(timeout=300)
        assert process.returncode == 0
        assert json.loads(out) == pytest.approx([0.7615942])
    assert 1 <= compiler() <= 3
    assert len(list((tmp_path / "cache" / "rnnreg" / "native").glob("*"))) == 2


def test_an_import_builds_nothing(tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    subprocess.run(
        [sys.executable, "-c", "import rnnreg"], check=True, env=environment, timeout=300
    )
    assert not list(tmp_path.iterdir())
