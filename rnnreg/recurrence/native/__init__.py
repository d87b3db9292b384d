"""The recurrence compiled for this processor: how it is built, and how JAX calls and differentiates it."""

from rnnreg.recurrence.native._build import kernel_library as kernel_library
from rnnreg.recurrence.native._compiler import find_compiler as find_compiler
