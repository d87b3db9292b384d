"""What each regulariser adds to a whole training step: penalties, dropout, clipping, beside none of them.

A step is `Train.update` under SGD (loss, gradient, penalty, checks and new parameters) of one network on one
device. A call is a loop of several steps, so what it costs to start one does not count. Each regulariser runs next
to a run of its own without any, in every round; its cost is the median of their ratios.

The claim is that each adds less than a tenth. Penalties on ∂L/∂h_t and on Jacobians are reported without one: they go
through every step again, and back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import optax

import rnnreg as rr
from experiments._harness import Claim, claims_table, command_line, format_table
from experiments.benchmarks._cost import LEARNING_RATE, Task, beside, compile_updates, entries, spread, write
from experiments.benchmarks._measure import quartiles

LIMIT_PERCENT = 10.0
RATE = 0.1  # of every dropout


@dataclass(frozen=True)
class Config:
    """What to time, and where the numbers go."""

    preset: Literal["quick", "full"] = "full"
    """Base values that the other options override."""
    cells: tuple[Literal["elman", "gru", "lstm"], ...] = ("elman", "gru")
    """Cells."""
    hidden: int = 64
    """Hidden size H."""
    time: int = 100
    """Steps T."""
    batch: int = 32
    """Rows B."""
    inputs: int = 2
    """Input features D."""
    updates: int = 10
    """Training steps a call."""
    rounds: int = 31
    """Pairs of calls, with and without, of each regulariser."""
    only: tuple[str, ...] = ()
    """Names of the regularisers to time; all of them by default."""
    json: Path = Path("results/benchmarks/regularisers.json")
    """Where the numbers go, after each cell."""


PRESETS: dict[str, dict[str, Any]] = {
    "full": {},
    "quick": {"hidden": 16, "time": 20, "batch": 8, "updates": 2, "rounds": 3},
}


@dataclass(frozen=True)
class Regulariser:
    """One way to regularise, as arguments of the run and of its network.

    Attributes:
      penalties: of `rr.make_train`.
      options: of `rr.network`.
      clip: whether the gradient's global norm is clipped.
      cheap: whether it should add less than a tenth.
      gated: whether it is defined for gated cells too.
    """

    penalties: dict[str, rr.penalties.Penalty] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    clip: bool = False
    cheap: bool = True
    gated: bool = True

    def train(self, task: Task) -> rr.Train:
        """The run with this regulariser."""
        sgd = optax.sgd(LEARNING_RATE)
        clipped = optax.chain(optax.clip_by_global_norm(1.0), sgd)
        return task.train(penalties=self.penalties, optimizer=clipped if self.clip else sgd, **self.options)


def weight_penalties() -> dict[str, Regulariser]:
    """The penalties on whole matrices, each with its default arguments."""
    penalties = rr.penalties
    factories = {
        "group_lasso": penalties.group_lasso(),
        "group_lasso of units": penalties.group_lasso("units"),
        "nuclear": penalties.nuclear(),
        "spectral_norm": penalties.spectral_norm(),
        "soft_orthogonality": penalties.soft_orthogonality(),
        "soft_orthogonality, spectral": penalties.soft_orthogonality(norm="spectral"),
        "singular_value_margin": penalties.singular_value_margin(),
        "non_normal": penalties.non_normal(),
        "l2, scheduled": penalties.scheduled(penalties.l2(), optax.linear_schedule(1.0, 0.0, 100)),
    }
    plain = {"to_identity": penalties.to_identity(), "path_norm": penalties.path_norm()}
    return {name: Regulariser({"penalty": one}) for name, one in factories.items()} | {
        name: Regulariser({"penalty": one}, gated=False) for name, one in plain.items()
    }


def regularisers() -> dict[str, Regulariser]:
    """What is timed, by name."""
    l2, l1, elastic = rr.penalties.l2(), rr.penalties.l1(), rr.penalties.elastic_net()
    norms = {"l2": l2, "l1": l1, "elastic_net": elastic}
    states = {
        "activation": rr.penalties.activation(),
        "temporal_activation": rr.penalties.temporal_activation(),
        "norm_stabilizer": rr.penalties.norm_stabilizer(),
        "activity_l1": rr.penalties.activity_l1(),
        "firing_rate": rr.penalties.firing_rate(target=0.1),
    }
    jacobians = {
        "omega": rr.penalties.omega(),
        "omega, full derivative": rr.penalties.omega(derivative="full"),
        "jacobian_norm, 1 direction": rr.penalties.jacobian_norm(num_directions=1, key=jax.random.key(0)),
        "gradient_flossing of 8, 1 row": rr.penalties.gradient_flossing(8, num_rows=1),
    }
    once = {"variational": True}
    noises = {name: {"noise": rr.Noise(**{name: RATE})} for name in ("zoneout", "dropconnect", "recurrent_noise")}
    return {
        "l2": Regulariser({"l2": l2}),
        "l1": Regulariser({"l1": l1}),
        "elastic_net": Regulariser({"elastic_net": elastic}),
        "l2 of W_hh": Regulariser({"l2": rr.penalties.l2("W_hh")}),
        "l2, l1 and elastic_net": Regulariser(norms),
        **weight_penalties(),
        **{name: Regulariser({name: penalty}) for name, penalty in states.items()},
        "clipping": Regulariser(clip=True),
        "input_dropout": Regulariser(options={"input_dropout": RATE}),
        "input_dropout, variational": Regulariser(options={"input_dropout": RATE, **once}),
        "output_dropout": Regulariser(options={"output_dropout": RATE}),
        "output_dropout, variational": Regulariser(options={"output_dropout": RATE, **once}),
        "recurrent_dropout": Regulariser(options={"recurrent_dropout": RATE}),
        "all of these, variational": Regulariser(
            {**norms, **states},
            {**dict.fromkeys(("input_dropout", "output_dropout", "recurrent_dropout"), RATE), **once},
            clip=True,
        ),
        **{name: Regulariser({"penalty": penalty}, cheap=False) for name, penalty in jacobians.items()},
        **{name: Regulariser(options=options, cheap=False) for name, options in noises.items()},
    }


def measure_cell(cell: str, config: Config) -> list[dict[str, Any]]:
    """A row for each regulariser of one cell: milliseconds a step, and what it adds in per cent.

    Raises:
      ValueError: `--only` names something else.
    """
    task = Task(cell, config.hidden, config.time, config.batch, config.inputs)
    chosen = regularisers()
    unknown = [name for name in config.only if name not in chosen]
    if unknown:
        raise ValueError(f"there is no regulariser {unknown[0]!r}; there are {list(chosen)}.")
    chosen = {
        name: one
        for name, one in chosen.items()
        if (not config.only or name in config.only) and (one.gated or cell == "elman")
    }
    device = jax.devices()[0]

    def call_of(regulariser: Regulariser):
        return compile_updates(regulariser.train(task), task, config.updates, device=device)[1]

    calls = {name: call_of(regulariser) for name, regulariser in chosen.items()}
    seconds, without = beside(calls, call_of(Regulariser()), config.rounds)
    scale = 1e3 / config.updates
    return [
        {
            **task._asdict(),
            "regulariser": name,
            "cheap": regulariser.cheap,
            **entries("milliseconds", seconds[name], scale=scale),
            "milliseconds_without": scale * quartiles(without[name]).median,
            **entries("percent", seconds[name] / without[name] - 1, scale=100),
            "device": device.device_kind,
        }
        for name, regulariser in chosen.items()
    ]


def claims_of(rows: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """One claim for each row that makes one."""
    return [
        Claim(f"{row['cell']}, H = {row['hidden']}: {row['regulariser']} adds, in %", "the library's own aim").at_most(
            LIMIT_PERCENT, row["percent"]
        )
        for row in rows
        if row["cheap"]
    ]


COLUMNS = {
    "cell": "{cell}",
    "with": "{regulariser}",
    "ms": "{milliseconds:.3f}",
    "ms without": "{milliseconds_without:.3f}",
    **spread("percent", "adds", "+.1f", " %"),
}


def main(config: Config) -> None:
    """Measure every cell; print the table and the claims."""
    rr.use_all_cores()  # as in a sweep: a device is a core
    rows: list[dict[str, Any]] = []
    for cell in config.cells:
        rows += measure_cell(cell, config)
        write(config.json, {"config": config, "rows": rows}, claims_of(rows))
        print(f"{cell} done", flush=True)
    print(f"\na training step, written to {config.json}\n\n{format_table(COLUMNS, rows)}\n")
    print(claims_table(claims_of(rows)))


if __name__ == "__main__":
    main(command_line(Config, PRESETS))
