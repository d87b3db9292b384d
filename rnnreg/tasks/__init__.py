"""Synthetic tasks that ask for memory: pure generators, each with its loss and what a blind guess scores on it."""

from rnnreg.tasks._base import Task
from rnnreg.tasks._marked import adding, multiplication, xor
from rnnreg.tasks._recall import delayed_recall, flip_flop
from rnnreg.tasks._series import lorenz, mackey_glass, narma10, sines
from rnnreg.tasks._symbols import (
    copy_memory,
    memorisation,
    random_permutation,
    temporal_order,
    three_bit_order,
)

__all__ = [
    "Task",
    "adding",
    "copy_memory",
    "delayed_recall",
    "flip_flop",
    "lorenz",
    "mackey_glass",
    "memorisation",
    "multiplication",
    "narma10",
    "random_permutation",
    "sines",
    "temporal_order",
    "three_bit_order",
    "xor",
]
