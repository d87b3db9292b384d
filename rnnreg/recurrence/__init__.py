"""A cell through time: the plain scan, the fused one with a derivative of its own, segments of either."""

from rnnreg.recurrence._backend import BackendChoice, choose_backend
from rnnreg.recurrence._product import product
from rnnreg.recurrence._scan import cell_step
from rnnreg.recurrence._unroll import unroll

__all__ = ["BackendChoice", "cell_step", "choose_backend", "product", "unroll"]
