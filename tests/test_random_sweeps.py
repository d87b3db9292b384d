"""Random small sweeps: extra lanes change nothing, labels lead back to lanes, and masked steps do not matter.

Shapes are numbered, each with one compiled program; hypothesis draws the numbers in it.
"""

import tempfile
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import tolerance
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_sweeps import DIVERGES, garbled, lanes, larger, numbers_of, run, shape_of
from small import assert_same

import rnnreg as rr

SEEDS = st.integers(0, 2**32 - 1)
# by what they compile: one by one with folds, one by one alone, in chunks, and together with folds
QUICK = (4, 6, 16, 10)
MORE = sorted({*range(18)} - {*QUICK})
numbered = pytest.mark.parametrize(
    "number", [*QUICK, *(pytest.param(number, marks=pytest.mark.slow) for number in MORE)]
)


def drawn(examples):
    """So many draws, the same ones each time."""
    checks = list(HealthCheck)
    return settings(
        derandomize=True,
        deadline=None,
        database=None,
        max_examples=examples,
        suppress_health_check=checks,
    )


def finished(shape, numbers):
    """The sweep, in which lanes may diverge."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"[\s\S]*lanes diverged")
        return run(shape, numbers)


def check_lanes(shape, numbers, seed):
    """Asserts that a lane among more lanes is the same lane, and that the one that diverges is marked."""
    few, (more, where) = finished(shape, numbers), larger(numbers, seed)
    many = finished(shape, more)
    alone, among = lanes(few), lanes(many, where)
    assert alone.keys() == among.keys()
    assert (many.metrics.sel(learning_rate=DIVERGES).diverged_at >= 0).any()
    for name, values in alone.items():
        if shape.plan == "one_by_one":
            np.testing.assert_array_equal(among[name], values, err_msg=f"{shape.words}: {name}")
        else:  # a few updates add up
            close = tolerance(loosen=100)
            np.testing.assert_allclose(
                among[name], values, err_msg=f"{shape.words}: {name}", **close
            )
    check_marks(many)
    return few


def check_marks(result):
    """Asserts that all is finite, or marked."""
    sizes = result.metrics.finished.dims
    diverged = result.metrics.diverged_at.values >= 0
    assert result.metrics.finished.values.all()
    for name in (
        "train_loss",
        "num_updates",
        *(["val_loss"] if "val_loss" in result.metrics else []),
    ):
        values = result.metrics[name].transpose(*sizes).values
        assert np.isfinite(values[~diverged]).all(), name
    assert np.isnan(result.metrics.train_loss.values[diverged]).all()
    for leaf in jax.tree.leaves(
        result.groups[0].params
    ):  # of a lane that diverged, the last finite ones
        assert np.isfinite(leaf).all()


def check_labels(result, seed, *, disk):
    """Asserts that the labels of a lane lead to its numbers, and after the disk too."""
    rng, metrics = np.random.default_rng(seed), result.metrics
    place = {dim: int(rng.integers(metrics.sizes[dim])) for dim in result.dims}
    labels = {dim: metrics[dim].values[number].item() for dim, number in place.items()}
    params = jax.tree.map(lambda leaf: leaf[tuple(place.values())], result.groups[0].params)
    assert_same(result.params_at(**labels), params)
    one = result.select(**labels)
    assert_same(one.groups[0].params, params)
    assert float(one.metrics.train_loss) == float(metrics.train_loss.isel(place))
    if not disk:
        return
    with tempfile.TemporaryDirectory() as folder:
        again = rr.load_result(result.save(Path(folder) / "result.nc"))
    assert again.metrics.identical(metrics)
    assert_same(again.groups[0].params, result.groups[0].params)
    assert_same(again.params_at(**labels), params)


def check_masks(shape, numbers, result, seed):
    """Asserts that what stands at masked steps changes no number."""
    other = lanes(finished(shape, garbled(shape, numbers, seed)))
    for name, values in lanes(result).items():
        np.testing.assert_array_equal(other[name], values, err_msg=f"{shape.words}: {name}")


@numbered
def test_a_random_sweep_is_what_its_lanes_are(number):
    shape, stored = shape_of(number), []

    @drawn(8)
    @given(SEEDS)
    def check(seed):
        numbers = numbers_of(shape, seed)
        result = check_lanes(shape, numbers, seed)
        check_labels(result, seed, disk=not stored)
        stored.append(seed)
        if shape.masked:
            check_masks(shape, numbers, result, seed)

    check()
