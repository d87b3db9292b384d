"""What `python -m rnnreg doctor` says of a machine on which all works, and of others."""

import jax
import pytest

from rnnreg import __main__ as command
from rnnreg.recurrence import BACKENDS
from rnnreg.recurrence.native import _build

MISSING = "the compiled kernel needs a C++ compiler: install a C++ compiler such as g++"


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """One cell and small sizes: most of the time is compiling."""
    monkeypatch.setattr(command, "CELLS", {"Elman": command.elman})
    monkeypatch.setattr(command, "SIZES", (3,))
    monkeypatch.setattr(command, "PRODUCT", 8)
    monkeypatch.setattr(command, "SECONDS", 0)


@pytest.fixture
def no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # where no library is kept
    monkeypatch.setattr(_build, "find_compiler", lambda: None)
    monkeypatch.setattr(command, "find_compiler", lambda: None)
    _build._library.cache_clear()
    yield
    _build._library.cache_clear()


@pytest.fixture
def without_numerics(monkeypatch):
    """The machine alone is looked at, no back end is run."""
    monkeypatch.setattr(command, "BACKENDS", {})


def examined(**options):
    report = command.doctor(**options)
    return report, {finding.part: finding for finding in report.findings}


@pytest.mark.slow
def test_where_all_works_each_back_end_is_run_compared_and_timed(capsys):
    assert command.main(["doctor"]) == 0
    *lines, _, end = capsys.readouterr().out.splitlines()
    assert end == "all that was tried works"
    text = {line[:18].strip(): line[19:] for line in lines}
    for part in ("scan float32", "fused float32", "fused float64"):
        assert text[part].startswith("Elman: states and gradients are right, to ")
    assert "scan " in text["Elman H = 3"]
    assert "times as fast as scan: fused " in text["Elman H = 3"]
    assert text["product 8³"].endswith("operations a second in float32")
    compiled = _build.kernel_library().path is not None
    assert ("are right" in text["native float32"]) == compiled
    assert ("native" in text["Elman H = 3"]) == compiled


@pytest.mark.parametrize("factor", [1.001, float("nan")])
def test_a_back_end_with_wrong_numbers_ends_with_status_1(monkeypatch, capsys, factor):
    right = BACKENDS["fused"]

    def wrong(*args, **options):
        return jax.tree.map(lambda leaf: factor * leaf, right.run(*args, **options))

    monkeypatch.setitem(BACKENDS, "fused", right._replace(run=wrong))
    assert command.main(["doctor", "--quick"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "fails: fused float32, fused float64"
    (line,) = [line for line in lines if line.startswith("fused float32")]
    assert "FAILS: Elman is " in line
    assert line.endswith("roundings off scan float64")


def test_a_back_end_that_raises_is_a_line(monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("out of\npaper")

    monkeypatch.setitem(BACKENDS, "fused", BACKENDS["fused"]._replace(run=broken))
    report, found = examined(quick=True)
    assert not report.works
    assert found["fused float32"].text == "Elman raises RuntimeError: out of paper"
    assert found["scan float32"].works


def test_without_a_compiler_the_others_run_and_it_says_what_to_install(no_compiler):
    report, found = examined()
    assert report.works
    assert found["compiler"].text == "none"
    assert found["kernel float32"].text.startswith(f"none: {MISSING}")
    assert found["native float32"].text.startswith(f"does not run: {MISSING}")
    assert "right" in found["fused float32"].text
    assert "native" not in found["Elman H = 3"].text


def test_a_compiler_that_fails_ends_with_status_1(monkeypatch, tmp_path, capsys, without_numerics):
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _build._library.cache_clear()
    try:
        assert command.main(["doctor", "--quick"]) == 1
    finally:
        _build._library.cache_clear()
    *lines, end = capsys.readouterr().out.splitlines()
    assert end == "fails: kernel float32, kernel float64"
    (line,) = [line for line in lines if line.startswith("kernel float32")]
    assert "FAILS: the compiled kernel cannot be built or loaded (false failed: exit status" in line


def test_a_part_that_fails_is_a_line(monkeypatch, without_numerics):
    def unknown():
        raise OSError("no processor")

    monkeypatch.setattr(command, "cpu_model", unknown)
    seen = []
    report, found = examined(quick=True, show=seen.append)
    assert not report.works
    assert str(found["processor"]) == f"{'processor':<18} FAILS: OSError: no processor"
    assert tuple(seen) == report.findings


@pytest.fixture
def cache():
    """Sets the folder of compiled programs for a test."""
    before = jax.config.jax_compilation_cache_dir
    yield lambda folder: jax.config.update("jax_compilation_cache_dir", folder and str(folder))
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.usefixtures("no_compiler", "without_numerics")
def test_folders_are_named_with_whether_they_can_be_written(monkeypatch, cache, tmp_path):
    (tmp_path / "file").write_text("")
    for folder, able in ((tmp_path / "new", "can"), (tmp_path / "file", "cannot")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
        cache(folder / "xla")
        _, found = examined(quick=True)
        assert found["cache folder"].text.endswith(f"{folder / 'rnnreg'}, {able} be written")
        assert found["compilation cache"].text == f"{folder / 'xla'}, {able} be written"
    cache(None)
    assert examined(quick=True)[1]["compilation cache"].text.startswith("off; ")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.usefixtures("no_compiler", "without_numerics")
def test_a_calibration_that_cannot_be_read_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = command.calibration_path(jax.devices()[0])
    path.parent.mkdir(parents=True)
    path.write_text("{")
    assert f"{path} cannot be read" in examined(quick=True)[1]["calibration"].text


def test_no_command_prints_the_commands(capsys):
    assert command.main([]) == 0
    assert "doctor" in capsys.readouterr().out
