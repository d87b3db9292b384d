"""Networks and cells of other libraries: Flax (linen and nnx), Equinox, and any pair of pure functions."""

from rnnreg.bridges._equinox import cell_from_equinox, from_equinox
from rnnreg.bridges._flax import cell_from_flax, from_flax
from rnnreg.bridges._functions import Functions, from_functions

__all__ = [
    "Functions",
    "cell_from_equinox",
    "cell_from_flax",
    "from_equinox",
    "from_flax",
    "from_functions",
]
