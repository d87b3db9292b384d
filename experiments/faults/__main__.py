"""Tries every fault, and measures what keeping costs."""

from __future__ import annotations

import dataclasses
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import rnnreg as rr
from experiments._harness import Claim, Options, Report, run, text_table
from experiments.faults import kinds
from experiments.faults.kinds import End, Outcome
from experiments.faults.sweep import PLANS, Work, digest
from rnnreg.plotting import COLORS

STATED = "what rr.sweep and SweepResult.save state"


@dataclasses.dataclass(frozen=True)
class Config(Options):
    """Options of the experiment on faults."""

    kills: int = 20
    """Processes that are killed at random times, spread over the plans."""
    signals: int = 4
    """Processes that end by SIGTERM, and as many by SIGINT."""
    corruptions: int = 50
    """Damaged files of kept lanes, and as many results; half of them by a flipped bit, half by a cut."""
    writes: int = 50
    """Results that each of two processes saves under one path."""
    end_epochs: int = 2000
    """Of a lane whose process ends: a sweep of some ten seconds, so that lanes are kept and others are under way."""
    num_epochs: int = 400
    """Of a lane of the other sweeps."""
    seeds: int = 10
    """For each of four λ."""
    pairs: int = 7
    """Runs with and without keeping that are compared, each as long as the others."""
    pair_seeds: int = 50
    """Seeds of these."""
    seed: int = 0
    """Of the random times and places."""


PRESETS = {
    "quick": {
        "kills": 3,
        "signals": 1,
        "corruptions": 8,
        "writes": 5,
        "end_epochs": 500,
        "num_epochs": 100,
        "seeds": 6,
        "pairs": 2,
        "pair_seeds": 6,
    },
    "full": {},
}


def main(config: Config) -> Report:
    """Disturbs, runs again, compares bit for bit."""
    rng = np.random.default_rng(config.seed)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        ends = _ends(config, rng, scratch)
        outcomes = [*_by_signal(ends), *_files(config, rng, scratch)]
        ratios, resumes = _cost(config, scratch)
    rows = [(one.fault, str(one.tried), str(one.survived), str(one.tried - one.survived)) for one in outcomes]
    tried, lost = (
        sum(values) for values in zip(*((one.tried, one.tried - one.survived) for one in outcomes), strict=True)
    )
    rows.append(("all", str(tried), str(tried - lost), str(lost)))
    low, middle, high = np.percentile(ratios, (25, 50, 75))
    caught = float(np.mean([one.kept + one.resumed > 0 for _, one in ends if one.hit]))
    text = "\n".join(
        [
            text_table(("fault", "tried", "survived", "lost"), rows),
            f"of {len(ends)} processes {sum(one.hit for _, one in ends)} were ended while their sweep ran, and these "
            f"alone count; {caught:.0%} of them had lanes that were kept or under way",
            f"run time with keep= over that without: median {middle:.4f}, quartiles {low:.4f} … {high:.4f} "
            f"({len(ratios)} pairs); a finished sweep is loaded in {np.median(resumes):.2f} s",
        ]
    )
    claims = [
        *(Claim(f"lost: {one.fault}", STATED).at_most(0, one.tried - one.survived) for one in outcomes),
        Claim("processes that end with lanes kept or under way, share", "stated beforehand").at_least(0.5, caught),
        Claim("run time with keep= over that without, median", "stated beforehand").at_most(1.03, middle),
        Claim("seconds until a finished sweep is loaded, median", "stated beforehand").at_most(
            1.0, float(np.median(resumes))
        ),
    ]
    summary = {"outcomes": outcomes, "ends": ends, "ratios": ratios, "seconds_to_load": resumes}
    figures = {"faults": _draw([kind for _, kind in ends], outcomes, ratios)}
    return Report(summary, claims, text, figures)


def _ends(config: Config, rng: np.random.Generator, scratch: Path) -> list[tuple[str, End]]:
    """Kills in every plan, and signals, each with what it did."""
    works = {plan: Work(config.end_epochs, config.seeds, plan) for plan in PLANS}
    expected, seconds = {}, {}
    for plan, work in works.items():
        result = work.run()
        expected[plan], seconds[plan] = digest(result), 1.0 + result.config["seconds_compute"]
    faults = [("kill -9", signal.SIGKILL, plan) for plan in kinds.ends_by_plan(config.kills)]
    for name, how in (("SIGTERM", signal.SIGTERM), ("SIGINT", signal.SIGINT)):
        faults += [(name, how, "one_by_one")] * config.signals
    found = []
    for number, (name, how, plan) in enumerate(faults):
        folder, at = scratch / f"end-{number}", float(rng.uniform())
        options = {"at": at, "seconds": seconds[plan], "folder": folder}
        found.append((f"{name}, {plan}", kinds.end(works[plan], expected[plan], how, **options)))
    return found


def _by_signal(ends: Sequence[tuple[str, End]]) -> list[Outcome]:
    names = dict.fromkeys(name for name, _ in ends)
    return [kinds.counted(name, [one.survived for other, one in ends if other == name and one.hit]) for name in names]


def _files(config: Config, rng: np.random.Generator, scratch: Path) -> list[Outcome]:
    """Damaged files, disks and folders that take nothing, and two writers."""
    work = Work(config.num_epochs, seeds=6)
    whole = work.run()
    expected, kept = digest(whole), scratch / "kept"
    for number in range(4):  # so that there are shards of several writers
        work.run(keep=kept, shard=(number, 4))
    path = whole.save(scratch / "result.nc")
    half = (config.corruptions + 1) // 2
    outcomes = []
    for how, words in (("flip", "a bit flipped"), ("cut", "a file cut")):
        outcomes += [
            kinds.counted(
                f"kept lanes, {words}",
                [kinds.damaged_folder(work, expected, kept, how, rng, scratch) for _ in range(half)],
            ),
            kinds.counted(f"a result, {words}", [kinds.damaged_result(path, expected, how, rng) for _ in range(half)]),
        ]
    other = dataclasses.replace(work, seeds=2).run()
    small = other.save(scratch / "small.nc")
    return [
        *outcomes,
        kinds.counted("a full disk", kinds.full_disk(work, expected, small, scratch / "full")),
        kinds.counted("a read-only folder", kinds.read_only(work, expected, kept, scratch)),
        kinds.counted("no home", kinds.no_home(work, expected, scratch / "homeless")),
        kinds.counted("two sweeps, one folder", kinds.two_sweeps(work, expected, scratch / "both")),
        kinds.counted("two writers, one path", kinds.two_writers([whole, other], config.writes, scratch)),
    ]


def _cost(config: Config, scratch: Path) -> tuple[np.ndarray, np.ndarray]:
    """Of each pair the run time with keeping over that without; and the seconds until a finished sweep is loaded."""
    work = Work(config.num_epochs, config.pair_seeds)
    work.run(keep=scratch / "warm")

    def seconds(**options):
        start = time.perf_counter()
        work.run(**options)
        return time.perf_counter() - start

    ratios, resumes = [], []
    for number in range(config.pairs):
        folder = scratch / f"pair-{number}"
        order = (None, folder) if number % 2 else (folder, None)
        found = {keep: seconds(keep=keep) for keep in order}
        ratios.append(found[folder] / found[None])
        resumes.append(seconds(keep=folder))
    return np.array(ratios), np.array(resumes)


def _draw(ends: Sequence[End], outcomes: Sequence[Outcome], ratios: np.ndarray) -> Figure:
    figure, (of_faults, of_kills, of_cost) = plt.subplots(1, 3, figsize=(11, 3.8), width_ratios=(1.2, 1, 0.5))
    names = [one.fault for one in outcomes][::-1]
    survived = np.array([one.survived for one in outcomes][::-1])
    tried = np.array([one.tried for one in outcomes][::-1])
    of_faults.barh(names, survived, color=COLORS[0], label="survived")
    of_faults.barh(names, tried - survived, left=survived, color=COLORS[1], label="lost")
    of_faults.set(xlabel="faults tried")
    of_faults.tick_params(axis="y", labelsize=7)
    of_faults.legend(loc="upper right", fontsize=7)
    of_faults.set_title("(a) every fault", loc="left")
    for plan, color in zip(PLANS, COLORS, strict=False):
        mine = [one for one in ends if one.plan == plan and one.hit]
        at, kept = np.array([one.at for one in mine]), np.array([one.kept for one in mine])
        of_kills.vlines(at, kept, kept + [one.resumed for one in mine], color=color, linewidth=3, alpha=0.4)
        of_kills.plot(at, kept, "o", color=color, label=plan.replace("_", " "))
    of_kills.set(xlabel="time of the end / time of the sweep", ylabel="lanes kept (bar: under way)", ylim=(-0.05, 1.05))
    of_kills.legend(loc="upper left", fontsize=7)
    of_kills.set_title("(b) processes that end", loc="left")
    of_cost.axhline(1, color="0.7", linewidth=0.8)
    of_cost.plot(np.zeros(len(ratios)), ratios, "o", alpha=0.5)
    of_cost.plot([-0.2, 0.2], [np.median(ratios)] * 2, color="black")
    of_cost.set(ylabel="run time with keep= / without", xlim=(-0.6, 0.6), xticks=[])
    of_cost.set_title("(c) what it costs", loc="left")
    return figure


if __name__ == "__main__":
    rr.use_all_cores(1)
    run(main, Config, PRESETS)
