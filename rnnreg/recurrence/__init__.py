"""A cell through time: the plain scan, the fused one with a derivative of its own, a compiled one, and segments."""

from rnnreg.recurrence._backend import BACKENDS as BACKENDS
from rnnreg.recurrence._backend import Asked as Asked
from rnnreg.recurrence._backend import BackendChoice, choose_backend
from rnnreg.recurrence._backend import check_backend as check_backend
from rnnreg.recurrence._product import check_precision as check_precision
from rnnreg.recurrence._product import product
from rnnreg.recurrence._scan import affine as affine
from rnnreg.recurrence._scan import cell_step
from rnnreg.recurrence._scan import cell_values as cell_values
from rnnreg.recurrence._scan import check_recurrent_dropout as check_recurrent_dropout
from rnnreg.recurrence._scan import settle as settle
from rnnreg.recurrence._scan import states_before as states_before
from rnnreg.recurrence._unroll import check_segments as check_segments
from rnnreg.recurrence._unroll import held_apart as held_apart
from rnnreg.recurrence._unroll import unroll

__all__ = ["BackendChoice", "cell_step", "choose_backend", "product", "unroll"]
