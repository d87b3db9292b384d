"""The checks of test_parity.py on stored arrays, where the peers are not installed.

`python tests/golden/make.py` makes them.
"""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from peer_cells import GOLDEN_CASES, check, unpack

pytestmark = pytest.mark.numerics

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("case", GOLDEN_CASES, ids=lambda case: case.name)
def test_outputs_and_gradients_equal_the_stored_ones(case):
    with np.load(GOLDEN / f"{case.peer}.npz") as arrays:
        record = unpack(arrays[f"{case.name}/values"], arrays[f"{case.name}/layout"])
    check(case, record, jnp.zeros(0).dtype)
