"""A standardised split under folds: scores and predictions in the split's units, whatever the network sees."""

import jax
import numpy as np
import optax
import pytest
from conftest import SEED
from small import make

import rnnreg as rr
from rnnreg.data import scale_batch, stack_folds, take_rows

KEY = jax.random.key(SEED)
FOLDS = rr.selection.blocked_folds(3)
NET = rr.network([rr.cells.elman(4)], 1, readout="last")
CLOSE = {"rtol": 1e-4, "atol": 1e-6}  # outputs are unscaled after rounding to float32


@pytest.fixture(scope="module")
def trended():
    """A sweep over the folds of a steep ramp: no fold's mean or spread is that of all rows."""
    time = np.arange(60.0)
    series = 1e3 + 20 * time * (1 + time / 60) + np.random.default_rng(0).normal(size=60)
    batch, times = rr.data.windows(series.astype(np.float32), window=4)
    split = rr.data.standardize(rr.Split(batch, target_times=times))
    train = make(NET, optimizer=lambda hyper: optax.adam(hyper["learning_rate"]), num_epochs=20)
    grid = {"l2": [0.0, 1e-2], "learning_rate": 1e-2}
    result = rr.sweep(train, grid, split, folds=FOLDS, refit=True, key=KEY, progress=False)
    return split, *stack_folds(FOLDS(split), split, include_all=True), result


@pytest.mark.slow
def test_folds_are_scaled_far_from_identity(trended):
    _, folds, labels, _ = trended
    assert labels == ["0", "1", "2", "all"]
    shift, scale = folds.scaling.y_shift[:, 0], folds.scaling.y_scale[:, 0]
    assert (np.abs(shift[[0, 2]]) > 0.3).all()
    assert (np.abs(scale[:3] - 1) > 0.1).all()
    assert (shift[3], scale[3]) == (0, 1)  # all rows are standardised already


@pytest.mark.slow
@pytest.mark.parametrize("lam", [0.0, 1e-2])
@pytest.mark.parametrize("number", range(4))
def test_losses_and_predictions_are_in_the_splits_units(trended, number, lam):
    split, folds, labels, result = trended
    fold = jax.tree.map(lambda leaf: leaf[number], folds)
    params = result.params_at(l2=lam, fold=labels[number])
    lane = result.metrics.sel(l2=lam, fold=labels[number]).isel(seed=0)

    def by_hand(rows, weights):
        batch = take_rows(split.train, rows[weights > 0])
        outputs = NET.apply(params, scale_batch(batch, fold.scaling).xs).outputs
        predictions = np.asarray(outputs) * fold.scaling.y_scale + fold.scaling.y_shift
        return predictions, np.mean((predictions - batch.ys) ** 2), batch.ys

    _, train_loss, _ = by_hand(fold.train_rows, fold.train_weights)
    np.testing.assert_allclose(lane.train_loss, train_loss, **CLOSE)
    if labels[number] == "all":
        assert np.isnan(lane.val_loss)
        return
    predictions, val_loss, ys = by_hand(fold.validation_rows, fold.validation_weights)
    np.testing.assert_allclose(lane.val_loss, val_loss, **CLOSE)
    group = result.groups[0]
    place = (int(lam > 0), 0, number)
    counts = group.weights[number] > 0
    np.testing.assert_allclose(group.predictions[place][counts], predictions, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(group.targets[number][counts], ys)
    np.testing.assert_allclose(lane.history_val_loss[-1], val_loss, **CLOSE)
    np.testing.assert_allclose(lane.ensemble_val_loss, val_loss, **CLOSE)  # of one seed
