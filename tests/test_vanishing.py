"""The parts of the experiments on vanishing gradients that can be checked by hand: intervals, the latch."""

import numpy as np
import pytest

from experiments._harness import proportion
from experiments.gradient_profiles import latch


@pytest.mark.parametrize(
    ("count", "low", "high"), [(0, 0, 0.3085), (5, 0.1871, 0.8129), (10, 0.6915, 1)]
)
def test_clopper_pearson_of_ten(count, low, high):
    np.testing.assert_allclose(proportion(np.array(count), 10), (low, high), atol=5e-5)


def test_held_state_is_a_fixed_point():
    w = np.array([0.5, 1.0, 1.001, 1.5, 4.0])
    h = latch.held_state(w)
    np.testing.assert_allclose(np.tanh(w * h), h, atol=1e-10)
    np.testing.assert_array_equal(h > 0, w > 1)


def test_margin_is_where_held_and_unstable_state_meet():
    for w in (1.2, 2.0, 3.5):
        u = latch.margin(w)
        h = np.linspace(0, 1, 200_001)[1:-1]
        force = np.tanh(w * h - u) - h  # touches 0 at the margin, from above before it
        assert abs(force.max()) < 1e-8


def test_lambda_s_grows_like_the_root_of_the_length():
    ratio = latch.lambda_s(40_000) / latch.lambda_s(10_000)
    assert abs(ratio - 2) < 0.05
