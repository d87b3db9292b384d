"""The sunspot series: its values, its windows, and that no test year reaches the training rows."""

import subprocess
import sys

import numpy as np
import pytest

from rnnreg import datasets


def _years(name):
    first, last = datasets.TEST_YEARS[name]
    return np.arange(first, last + 1)


def test_series_is_whole():
    years, values = datasets.sunspot_series()
    np.testing.assert_array_equal(years, np.arange(1700, 2009))
    assert values.shape == (309,)
    assert values.dtype == np.float64
    assert (values >= 0).all()
    known = {1700: 5.0, 1778: 154.4, 1810: 0.0, 1913: 1.4, 1957: 190.2, 2008: 2.9}
    for year, value in known.items():
        assert values[year - 1700] == value


@pytest.mark.parametrize("window", [1, 12, 24])
@pytest.mark.parametrize("targets", ["last", "all"])
def test_windows_are_aligned(window, targets):
    data = datasets.sunspots(window, targets=targets, standardized=False)
    _, values = datasets.sunspot_series()
    assert len(data.train.xs) == 221 - window
    batches = {
        "train": np.arange(1700 + window, 1921),
        **{name: _years(name) for name in data.test},
    }
    for name, target_years in batches.items():
        batch = data.train if name == "train" else data.test[name]
        assert len(batch.xs) == len(target_years)
        for row, year in enumerate(target_years):
            stop = year - 1700
            np.testing.assert_allclose(batch.xs[row, :, 0], values[stop - window : stop], rtol=1e-6)
            if targets == "last":
                np.testing.assert_allclose(batch.ys[row], values[stop : stop + 1], rtol=1e-6)
            else:
                expected = values[stop - window + 1 : stop + 1]
                np.testing.assert_allclose(batch.ys[row, :, 0], expected, rtol=1e-6)


def test_target_times():
    last = datasets.sunspots(24).target_times
    np.testing.assert_array_equal(last[:, 0], np.arange(1724, 1921))
    np.testing.assert_array_equal(last[:, 1], np.arange(1724, 1921))
    every = datasets.sunspots(24, targets="all").target_times
    np.testing.assert_array_equal(every[:, 1], np.arange(1724, 1921))
    np.testing.assert_array_equal(every[:, 0], np.arange(1701, 1898))


@pytest.mark.parametrize("transform", ["identity", "sqrt"])
def test_training_knows_no_test_year(transform, monkeypatch):
    """Changing every value after 1920 changes neither a training row nor the scaling."""
    before = datasets.sunspots(24, transform=transform)
    years, values = datasets.sunspot_series()
    changed = np.where(years > 1920, 7.0 * values + 100.0, values)
    monkeypatch.setattr("rnnreg.datasets._sunspots.sunspot_series", lambda: (years, changed))
    after = datasets.sunspots(24, transform=transform)
    np.testing.assert_array_equal(before.train.xs, after.train.xs)
    np.testing.assert_array_equal(before.train.ys, after.train.ys)
    for old, new in zip(before.units, after.units, strict=True):
        np.testing.assert_array_equal(old, new)


def test_standardized_split_maps_back_to_its_units():
    raw, data = datasets.sunspots(24, standardized=False), datasets.sunspots(24)
    assert raw.units is None
    assert np.mean(data.train.ys) == pytest.approx(0.0, abs=1e-6)
    assert np.std(data.train.ys) == pytest.approx(1.0, abs=1e-6)
    for name in data.test:
        back = data.test[name].ys * data.units.y_scale + data.units.y_shift
        np.testing.assert_allclose(back, raw.test[name].ys, rtol=1e-5, atol=1e-4)


def test_sqrt_transform_and_its_inverse():
    _, values = datasets.sunspot_series()
    z = datasets.sqrt_transform(values)
    np.testing.assert_allclose(z, 2 * (np.sqrt(1 + values) - 1))
    np.testing.assert_allclose(datasets.inverse_sqrt(z), values, rtol=1e-12, atol=1e-12)
    low = datasets.inverse_sqrt([-5.0, -2.0, -1.0, 0.0])
    assert (np.diff(low) >= 0).all()
    assert low[0] == -1.0
    data = datasets.sunspots(24, transform="sqrt", standardized=False)
    np.testing.assert_allclose(
        datasets.inverse_sqrt(data.train.ys[:, 0]), values[24:221], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"transform": "log"}, "transform must be 'identity' or 'sqrt'; got 'log'"),
        ({"targets": "some"}, "targets must be"),
        ({"window": 0}, "window must lie in 1 … 220, a whole number; got"),
        ({"window": 221}, "window must lie in 1 … 220, a whole number; got"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        datasets.sunspots(**kwargs)


def test_import_is_light():
    heavy = "{'sklearn', 'pandas', 'matplotlib', 'statsmodels'}"
    code = (
        f"import sys, rnnreg.datasets; found = {heavy} & set(sys.modules); assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
