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
from rnnreg.recurrence.native import _build, _compiler, _kept

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
    assert sorted(path.suffix for path in first.path.parent.iterdir()) == [".json", ".so"]


BROKEN = {
    "text": lambda whole: b"not a library",
    "empty": lambda whole: b"",
    "half": lambda whole: whole[:5000],
    "flipped": lambda whole: whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:],
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("part", [".so", ".json"])
def test_a_broken_file_is_compiled_anew(compiler, kind, part):
    path = again().path
    one = path.with_suffix(part)
    whole = one.read_bytes() if part == ".so" else one.read_bytes() * 100  # no JSON any more
    one.unlink()  # this process has it in memory
    one.write_bytes(BROKEN[kind](whole))
    assert again().path == path
    assert compiler() == 2


@pytest.mark.parametrize("part", [".so", ".json"])
def test_a_folder_in_the_place_of_a_file_gives_way_to_one_of_the_process(compiler, part, silent):
    one = again().path.with_suffix(part)
    one.unlink()
    (one / "of somebody").mkdir(parents=True)
    found = again()
    assert found.path.parent == _kept.own_folder()
    assert "in each process anew" in found.reason
    assert compiler() in (2, 3)  # the folder of the process may have one of another test


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
    monkeypatch.setattr(_build, "_ffi_headers", lambda: (b"other",))
    paths.add(again().path)
    assert len(paths) == compiler() == 5


def test_a_folder_that_cannot_be_written_gives_way_to_one_of_the_process(
    compiler, monkeypatch, tmp_path
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    found = again()
    assert found.path.parent == _kept.own_folder()
    assert found.path.exists()
    assert re.search(r"in each process anew.*file/.*native.*set XDG_CACHE_HOME", found.reason)


def test_a_user_without_a_home_folder_has_one_of_the_process(compiler, monkeypatch):
    monkeypatch.setattr(_kept, "cache_folder", lambda: None)
    found = again()
    assert found.path.parent == _kept.own_folder()
    assert "there is no home folder): set XDG_CACHE_HOME" in found.reason


@pytest.fixture
def no_compiler(monkeypatch, tmp_path, forgotten):
    """A machine without a compiler, and with nothing that is kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(_compiler.importlib.util, "find_spec", lambda name: None)


def test_without_a_compiler_all_runs_as_before_and_is_told_what_to_install(no_compiler):
    choice = rr.explain(rr.network([rr.cells.gru(3)], 1), input_size=2)["layer_0"]
    assert choice.backend == "fused"
    assert choice.reason.endswith(
        "; the compiled kernel needs a C++ compiler: install a C++ compiler such as g++, or "
        "pip install 'rnnreg[native]'"
    )


def test_without_a_compiler_the_library_of_this_machine_serves(compiler, monkeypatch):
    other, first = again(), None
    newer = Path(os.environ["CXX"]).read_text().replace("1.0", "2.0")
    Path(os.environ["CXX"]).write_text(newer)
    first = again()
    os.utime(other.path, (0, 0))
    os.utime(other.path.with_suffix(".json"), (0, 0))
    monkeypatch.setattr(_build, "find_compiler", lambda: None)
    found = again()
    assert found.path == first.path
    assert found.reason.startswith("compiled for this processor by shell++ 2.0, which is not there")
    first.path.write_bytes(b"half")
    assert again().path == other.path
    monkeypatch.setattr(_build, "cpu_model", lambda: "another")
    assert again().path is None
    assert compiler() == 2


def test_a_compiler_that_is_not_there_is_named(monkeypatch, no_compiler):
    monkeypatch.setenv("CXX", "/nowhere/g++ -m64")
    assert _build.kernel_library().reason.endswith("; there is no CXX=/nowhere/g++")


def test_ziglang_serves_where_the_system_has_no_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(_compiler.importlib.util, "find_spec", lambda name: name == "ziglang")
    assert _compiler.find_compiler() == (sys.executable, "-m", "ziglang", "c++")


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


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("printf '\\377\\376rubbish\\n'; printf '\\377 error\\n' >&2; exit 1", "\ufffd error"),
        ("exit 3", "failed: exit status 3"),
        ("exit 0", "failed: it wrote no library"),
    ],
    ids=["no text", "silent", "nothing"],
)
def test_what_a_failing_compiler_says_is_told(compiler, monkeypatch, tmp_path, text, why):
    monkeypatch.setenv("CXX", script(tmp_path / "odd++", f"#!/bin/sh\n{text}\n"))
    with pytest.warns(RuntimeWarning, match=why):
        found = again()
    assert found.failed
    assert found.path is None


HANGING = """#!/bin/sh
if [ "$1" = --version ]; then echo "shell++ 1.0"; exit 0; fi
echo compiled >> "{log}"
sleep 1000 &
echo $! > "{pid}"
wait
"""


def is_running(pid):
    done = subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True)
    return done.stdout.strip()[:1] not in ("", "Z")


def test_a_compiler_that_hangs_is_ended_with_all_that_it_started(compiler, monkeypatch, tmp_path):
    pid = tmp_path / "pid"
    hanging = HANGING.format(log=tmp_path / "log", pid=pid)
    monkeypatch.setenv("CXX", script(tmp_path / "hanging++", hanging))
    monkeypatch.setattr(_compiler, "MOST_SECONDS", 2)
    with pytest.warns(RuntimeWarning, match=r"hanging\+\+ did not end in 2 s\)"):
        assert again().failed
    assert compiler() == 1
    assert not is_running(pid.read_text().strip())


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


# ---- what is kept ---------------------------------------------------------------------------------


def test_a_folder_of_the_process_is_made_only_where_it_is_needed(compiler, monkeypatch, tmp_path):
    """No folder for temporary files is needed where the library is kept, and none stays behind empty."""
    monkeypatch.setattr(_kept.tempfile, "tempdir", str(tmp_path / "nowhere"))
    _kept.own_folder.cache_clear()
    assert again() == again()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(_kept.tempfile, "tempdir", str(temporary))

    def refuse(*at, **options):
        raise ValueError("another version of the interface")

    monkeypatch.setattr(jax.ffi, "register_ffi_target", refuse)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "log"))  # a file
    Path(tmp_path / "log").touch()
    text = Path(os.environ["CXX"]).read_text().replace(str(tmp_path / "log"), "/dev/null")
    monkeypatch.setenv("CXX", script(tmp_path / "quiet++", text.replace("cp ", "exit 3; cp ")))
    with pytest.warns(RuntimeWarning, match="exit status 3"):
        assert again().failed
    assert not list(temporary.iterdir())


def test_a_folder_without_room_gives_way_to_one_of_the_process(compiler, monkeypatch, tmp_path):
    full = f'case "$*" in *{tmp_path}/cache*) echo "No space left on device" >&2; exit 1;; esac'
    text = Path(os.environ["CXX"]).read_text().replace("while", f"{full}\nwhile")
    monkeypatch.setenv("CXX", script(tmp_path / "full++", text))
    found = again()
    assert found.path.parent == _kept.own_folder()
    assert "cannot be kept (No space left on device)" in found.reason


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="rights as POSIX has them")
def test_what_others_can_write_is_not_loaded(compiler, monkeypatch):
    path = again().path
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.parent.chmod(0o777)
    path.chmod(0o666)
    assert again().path == path
    assert compiler() == 2
    assert not (path.parent.stat().st_mode | path.stat().st_mode) & 0o022
    monkeypatch.setattr(_kept, "_is_ours", lambda path: "cache" not in str(path))
    found = again()
    assert found.path.parent == _kept.own_folder()
    assert f"cannot be kept ({path.parent} belongs to another user)" in found.reason


def test_a_library_without_the_processors_instructions_has_its_own_name(
    compiler, monkeypatch, tmp_path
):
    healed = tmp_path / "healed"
    fails = f'case "$*" in *-march=native*) [ -e {healed} ] || {{ echo "error: no memory" >&2; exit 1; }};; esac'
    text = Path(os.environ["CXX"]).read_text().replace("while", f"{fails}\nwhile")
    monkeypatch.setenv("CXX", script(tmp_path / "passing++", text))
    monkeypatch.setattr(_compiler, "PROCESSOR", ("-march=native", ""))
    plain = again()
    assert plain.path.name.endswith("-plain.so")
    assert plain.reason == (
        "compiled without the instructions of this processor by shell++ 1.0 (error: no memory)"
    )
    healed.touch()
    assert again() == plain  # for a day
    assert compiler() == 2
    os.utime(plain.path, (0, 0))
    found = again()
    assert found.reason == "compiled for this processor by shell++ 1.0"
    assert found.path != plain.path
    assert compiler() == 3


def test_what_is_old_is_removed(compiler, monkeypatch):
    folder = again().path.parent
    old = [folder / f"recurrence-float32-{number}.so" for number in range(20)]
    for age, path in enumerate(old):
        path.touch()
        os.utime(path, (1000 - age, 1000 - age))
    left, now, other = folder / "building-left", folder / "building-now", folder / "notes.txt"
    left.mkdir()
    now.mkdir()
    other.touch()
    os.utime(left, (0, 0))
    monkeypatch.setattr(_build, "cpu_model", lambda: "another")
    made = again().path
    assert made.exists()
    assert [path.exists() for path in old] == [True] * 14 + [False] * 6
    assert not left.exists()
    assert now.exists()
    assert other.exists()


@pytest.mark.parametrize(
    ("word", "on"), [("False", False), (" OFF", False), ("no", False), ("True", True), ("on", True)]
)
def test_the_switch_knows_its_words(compiler, monkeypatch, word, on):
    monkeypatch.setenv("RNNREG_NATIVE", word)
    found = again()
    assert (found.path is not None) == on
    assert not found.failed


def test_an_unknown_word_of_the_switch_warns_once_and_leaves_it_on(compiler, monkeypatch):
    monkeypatch.setenv("RNNREG_NATIVE", "never")
    with pytest.warns(RuntimeWarning, match=r"must be one of 0, false.*; got 'never'") as told:
        assert again().path == again().path
    assert len(told) == 1
