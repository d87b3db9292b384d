"""`python -m experiments.memory_thresholds`."""

from experiments._report import command_line
from experiments.memory_thresholds import PRESETS, Config, main

if __name__ == "__main__":
    main(command_line(Config, PRESETS))
