"""What every experiment shares: its options, its claims and tables, its summary on disk, and the command that runs it.

An experiment is a module, or a package with a `__main__`, of five parts: options, expected values, what is measured,
claims, figures. `run` does the rest.

    @dataclass(frozen=True)
    class Config(Options):
        \"\"\"Options of the experiment.\"\"\"

        num_epochs: int = 300
        \"\"\"Passes over the training data.\"\"\"

    PRESETS = {"quick": {"num_epochs": 20}, "full": {}}

    def main(config: Config) -> Report:
        arv = measure(config)
        claims = [Claim("ARV 1921-1955", source="…").at_most(0.11, arv.mean())]
        return Report({"arv": arv}, claims, figures={"arv": draw(arv)})

    if __name__ == "__main__":
        run(main, Config, PRESETS)
"""

from experiments._harness.claims import Claim, claims_table
from experiments._harness.command import Options, Report, carry_out, command_line, run
from experiments._harness.statistics import Comparison, holm, mean_and_error, paired, proportion, standard_error
from experiments._harness.summary import commit, plain, write_json, write_summary
from experiments._harness.sweeps import finished
from experiments._harness.tables import format_table, plus_minus, text_table

__all__ = [
    "Claim",
    "Comparison",
    "Options",
    "Report",
    "carry_out",
    "claims_table",
    "command_line",
    "commit",
    "finished",
    "format_table",
    "holm",
    "mean_and_error",
    "paired",
    "plain",
    "plus_minus",
    "proportion",
    "run",
    "standard_error",
    "text_table",
    "write_json",
    "write_summary",
]
