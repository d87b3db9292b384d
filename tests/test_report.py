"""The command line, the claims and the summary that every experiment shares."""

import dataclasses
import json
import math
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import __main__ as listing
from experiments import mnist1d
from experiments._harness import (
    Claim,
    Options,
    Report,
    carry_out,
    claims_table,
    command_line,
    format_table,
    mean_and_error,
    pages,
    proportion,
    run,
    write_summary,
)


@dataclass(frozen=True)
class Config:
    """An experiment."""

    preset: Literal["quick", "full"] = "full"
    """Base values that the other options override."""
    num_epochs: int = 300
    """Passes over the training data."""
    learning_rate: float = 3e-3
    """Step size."""
    hidden_sizes: tuple[int, ...] = (8, 16)
    """Sizes to try."""
    refit: bool = True
    """Train on everything afterwards."""
    out: Path = Path("results/x")
    """Where files go."""


PRESETS = {"quick": {"num_epochs": 3, "hidden_sizes": (4,)}, "full": {}}


def parsed(*args):
    return command_line(Config, PRESETS, args=args)


def test_a_preset_gives_the_base_values():
    assert parsed() == Config()
    assert parsed("--preset", "quick") == Config(preset="quick", num_epochs=3, hidden_sizes=(4,))
    assert parsed("--preset=quick") == parsed("--preset", "quick")


def test_other_options_override_the_preset_wherever_they_stand():
    expected = Config(preset="quick", num_epochs=7, hidden_sizes=(4,), refit=False)
    assert parsed("--preset", "quick", "--num-epochs", "7", "--no-refit") == expected
    assert parsed("--num-epochs", "7", "--no-refit", "--preset", "quick") == expected


def test_help_lists_every_option_with_its_docstring_and_the_presets_defaults(capsys):
    with pytest.raises(SystemExit) as stop:
        parsed("--preset", "quick", "--help")
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in Config.__dataclass_fields__:
        assert "--" + name.replace("_", "-") in text
    for words in ("Passes over the training data.", "default: 3", "default: 0.003", "Step size."):
        assert words in text


@pytest.mark.parametrize("args", [("--preset", "slow"), ("--preset",), ("--epochs", "3")])
def test_what_is_not_an_option_is_refused(args, capsys):
    with pytest.raises(SystemExit) as stop:
        parsed(*args)
    assert stop.value.code != 0


def test_a_config_without_a_preset_is_told_so():
    @dataclass(frozen=True)
    class Bare:
        num_epochs: int = 3

    with pytest.raises(ValueError, match="Bare needs a field `preset` whose default is one of"):
        command_line(Bare, PRESETS, args=())


def claims():
    return [
        Claim("a", "s").close(1.0, 1.05, tolerance=0.1),
        Claim("b", "s").close(1.0, math.nan, tolerance=0.1),
        Claim("c", "s").at_most(0.11, np.float32(0.12)),
        Claim("d", "s").at_least(0.9, jnp.asarray(0.95)),
        Claim("e", "s").at_most(0.11, None),
    ]


def test_claims_hold_fail_or_are_not_measured():
    assert [claim.holds for claim in claims()] == [True, False, False, True, None]
    with pytest.raises(ValueError, match="nothing was measured"):
        Claim("a", "s", 1.0, None, None, True)


@pytest.mark.parametrize(
    ("better", "worse", "verdict"),
    [(0.01, 0.99, "holds"), (0.98, 0.02, "fails"), (0.3, 0.7, "not shown")],
)
def test_a_claim_that_a_test_could_not_show_does_not_fail(better, worse, verdict):
    claim = Claim("f", "s").shown(types.SimpleNamespace(p_better=better, p_worse=worse))
    assert (claim.verdict, claim.measured) == (verdict, better)


def test_claims_table_shows_every_claim():
    header, _, *rows = claims_table(claims()).splitlines()
    assert header.split() == ["claim", "source", "expected", "measured"]
    assert [row.split()[-1] for row in rows] == ["holds", "FAILS", "FAILS", "holds", "measured"]
    assert "1 ± 0.1" in rows[0]
    assert "at most 0.11" in rows[2]


def test_what_is_measured_becomes_a_number_of_python():
    assert [type(claim.measured) for claim in claims()] == [float] * 4 + [type(None)]
    assert type(Claim("n", "s").at_most(3, np.int64(2)).measured) is int


@dataclass(frozen=True)
class Small(Options):
    """Options of a small experiment."""

    num_rows: int = 4
    """Rows."""


def small(config):
    import matplotlib.pyplot as plt

    figure, _ = plt.subplots()
    summary = {"rows": jnp.zeros(config.num_rows), "dtype": str(jnp.zeros(1).dtype)}
    return Report(summary, claims(), "a line", {"plot": figure})


def test_an_experiment_is_carried_out(tmp_path, capsys):
    import matplotlib.pyplot as plt

    config = Small(preset="quick", out=tmp_path / "small")
    carry_out(small, config, x64=True)
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == "a line"
    assert rest[1] == "The claims are about --preset full; this run is too short for them."
    assert [line.split()[0] for line in rest[5:10]] == list("abcde")
    assert not any("FAILS" in line for line in rest)
    assert sum(line.endswith("too short to tell") for line in rest) == 2
    assert rest[-1] == f"wrote {config.out}/"
    written = json.loads((config.out / "summary.json").read_text("utf-8"))
    assert list(written) == ["config", "rows", "dtype", "claims", "environment"]
    assert written["config"]["num_rows"] == len(written["rows"]) == 4
    assert (written["dtype"], written["environment"]["x64"]) == ("float64", True)
    assert {path.name for path in config.out.iterdir()} == {
        "summary.json",
        "report.txt",
        "plot.pdf",
        "plot.png",
    }
    assert plt.get_fignums() == []


def test_what_was_found_ends_the_output_and_the_claims_go_to_a_file(tmp_path, capsys):
    def told(config):
        return dataclasses.replace(
            small(config), found=["λ helps."], further=["another command"], details="a long table"
        )

    carry_out(told, Small(out=tmp_path / "small"))
    printed = capsys.readouterr().out
    assert printed.splitlines() == [
        *("a line", "", "Found", "- λ helps.", ""),
        f"wrote {tmp_path / 'small'}/: plot.pdf, report.txt (every claim), summary.json",
        *("Try next", "- another command"),
    ]
    written = (tmp_path / "small/report.txt").read_text("utf-8")
    assert all(words in written for words in ("a long table", "λ helps.", claims_table(claims())))


def test_an_experiment_writes_under_its_own_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["small", "--preset", "quick"])
    monkeypatch.setattr("rnnreg.compilation_cache", lambda: None)
    run(small, Small, {"quick": {"num_rows": 2}, "full": {}})
    (folder,) = (tmp_path / "results").iterdir()
    assert folder.name == __name__.rpartition(".")[2]
    assert json.loads((folder / "summary.json").read_text("utf-8"))["config"]["num_rows"] == 2


def test_help_of_an_experiment_shows_the_options_of_all(capsys):
    with pytest.raises(SystemExit):
        command_line(Small, {"full": {}}, args=["--help"], name="experiments.small")
    text = " ".join(capsys.readouterr().out.split())
    for words in ("python -m experiments.small", "results/small", "Base values", "Rows."):
        assert words in text


def test_records_make_a_table():
    table = format_table({"a": "{x:.1f}", "b": "{y}"}, [{"x": 1.25, "y": "z"}])
    assert [line.split() for line in table.splitlines()][::2] == [["a", "b"], ["1.2", "z"]]


def test_small_statistics():
    mean, error = mean_and_error([1.0, 2.0, 3.0, 6.0])
    assert (mean, error) == (3.0, pytest.approx(np.sqrt(14 / 3 / 4)))
    low, high = proportion([[0, 5], [10, 10]], 10)
    assert low.shape == high.shape == (2, 2)
    np.testing.assert_allclose([low[0, 1], high[0, 1]], [0.1871, 0.8129], atol=5e-5)
    np.testing.assert_allclose([low[1, 0], high[0, 0]], [0.6915, 0.3085], atol=5e-5)


class Point(NamedTuple):
    lam: float
    mean: object


def test_summary_is_strict_json(tmp_path):
    summary = {
        "config": Config(),
        "cv": [Point(1e-3, jnp.asarray([0.5, jnp.inf]))],
        "lam_min": np.float32(0.25),
        "lanes": np.int64(16),
        "seconds": math.nan,
    }
    path = write_summary(tmp_path / "results" / "x", summary, claims())
    assert path == tmp_path / "results" / "x" / "summary.json"

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    read = json.loads(path.read_text("utf-8"), parse_constant=refuse)
    assert read["cv"] == [{"lam": 1e-3, "mean": [0.5, None]}]
    assert read["config"]["out"] == "results/x"
    assert (read["lam_min"], read["lanes"], read["seconds"]) == (0.25, 16, None)
    assert list(read["claims"][0]) == [
        "claim",
        "source",
        "expected",
        "tolerance",
        "measured",
        "holds",
    ]
    assert [claim["holds"] for claim in read["claims"]] == [True, False, False, True, None]
    assert [claim["measured"] is None for claim in read["claims"]] == [0, 1, 0, 0, 1]
    assert {"jax", "commit", "device_kind"} <= read["environment"].keys()


def test_summary_refuses_what_json_cannot_hold(tmp_path):
    with pytest.raises(TypeError, match="cannot hold object"):
        write_summary(tmp_path, {"x": object()}, [])
    with pytest.raises(ValueError, match="rename yours"):
        write_summary(tmp_path, {"claims": []}, [])


def test_discover_parses_without_importing(tmp_path):
    body = (
        '"""One line.\n\nMore."""\nimport not_installed\nclass Config: ...\ndef main(config): ...'
    )
    (tmp_path / "good.py").write_text(body)
    (tmp_path / "_private.py").write_text(body)
    (tmp_path / "helper.py").write_text("def main(): ...")
    assert listing.discover(tmp_path) == {"good": "One line.\n\nMore."}


def test_discover_finds_packages(tmp_path):
    whole = "class Config: ...\ndef main(config): ..."
    for name, files in {
        "split": {"__init__": '"""Of the package."""', "__main__": f'"""Not this."""\n{whole}'},
        "imported": {"__init__": '"""Two files."""\nfrom x.run import Config, main'},
        "library": {"__init__": '"""No experiment."""', "part": whole},
        "_hidden": {"__init__": whole},
    }.items():
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / f"{file}.py").write_text(text)
    assert listing.discover(tmp_path) == {"imported": "Two files.", "split": "Of the package."}


def test_every_experiment_has_a_line_and_a_documented_config():
    folder = Path(listing.__file__).parent
    for name, line in listing.discover(folder).items():
        assert line, f"experiments.{name} needs a one-line docstring"


def test_python_m_experiments_lists_them():
    done = subprocess.run(
        [sys.executable, "-m", "experiments"],
        capture_output=True,
        text=True,
        cwd=Path(listing.__file__).parents[1],
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    for name in listing.discover(Path(listing.__file__).parent):
        assert name in done.stdout


def test_all_runs_each_and_reports_failures(tmp_path, monkeypatch, capsys):
    outcomes = {"one": 0, "two": 3}

    class Done(NamedTuple):
        returncode: int

    def fake(command):
        name = command[2].removeprefix("experiments.")
        assert command[3:] == ["--preset", "quick"]
        if outcomes[name] == 0:
            write_summary(Path("results") / name, {}, claims())
        return Done(outcomes[name])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(listing, "discover", lambda folder: dict.fromkeys(outcomes, "A line."))
    monkeypatch.setattr(listing.subprocess, "run", fake)
    monkeypatch.setattr("experiments._harness.summary.commit", lambda: None)
    assert listing.main(listing.Arguments("all", "quick")) == 1
    one, two = capsys.readouterr().out.splitlines()[-2:]
    assert one.split() == [
        "one",
        "ok",
        one.split()[2],
        "2",
        "0",
        "3",
    ]  # nothing fails in a quick run
    assert two.split()[1:3] == ["exit", "3"]


def test_an_experiment_without_its_package_measures_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "mnist1d", None)
    report = mnist1d.main(mnist1d.Config(**mnist1d.PRESETS["quick"]))
    assert {claim.verdict for claim in report.claims} == {"not measured"}
    assert "pip install" in report.text


# ---- the pages ------------------------------------------------------------------------------------


def test_a_quick_run_replaces_no_full_one(tmp_path):
    for folder, preset in (("first", "full"), ("second", "quick")):
        carry_out(small, Small(preset=preset, out=tmp_path / folder / "small"))
    kept = pages.collect(tmp_path / "first", {})
    assert pages.collect(tmp_path / "second", kept) == kept
    assert kept["small"]["preset"] == "full"
    assert [claim["claim"] for claim in kept["small"]["claims"]] == list("abcde")


def test_a_page_shows_every_claim(tmp_path):
    (tmp_path / "small.md").write_text("What was found.\n")
    carry_out(small, Small(preset="quick", out=tmp_path / "small"))
    kept = pages.collect(tmp_path, {})
    page = pages.experiments_page({"small": "What is asked.\n\nHow."}, kept, tmp_path)
    for words in (
        "What is asked.",
        "How.",
        "What was found.",
        "| at most 0.11 | 0.12 | **fails** |",
    ):
        assert words in page
    assert (
        "| [`small`](#small) | What is asked. | 2 (quick) | 2 (quick) | 0 (quick) | 1 (quick) |"
        in page
    )


def test_the_committed_pages_are_made_from_what_is_committed(tmp_path):
    import shutil

    folder = Path(listing.__file__).parent
    copy = shutil.copytree(folder, tmp_path / "experiments")
    listing.write_pages(copy, tmp_path / "nothing")
    for name in ("README.md", "results.json", "benchmarks/README.md"):
        assert (copy / name).read_text("utf-8") == (folder / name).read_text("utf-8"), (
            f"experiments/{name} is old: run `python -m experiments readme`."
        )
