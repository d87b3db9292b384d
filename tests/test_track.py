"""What is tracked inside training: it changes nothing, it is what a call afterwards gives, and a sweep labels it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SEED, tolerance
from sklearn.model_selection import KFold
from small import HYPER, assert_same, make, sine

import rnnreg as rr
from rnnreg.diagnostics import gradient_flow, track_gradient_flow
from rnnreg.training import Track

KEY = jax.random.key(SEED)
NET = rr.network([rr.cells.elman(4)], 1, readout="last")
LOSS = rr.losses.squared_error("mean")
TRACK = {
    "flow": track_gradient_flow(LOSS, num_rows=5),
    "rho": lambda net, params, batch: jnp.abs(params["layer_0"]["W_hh"]).max(),
    "share": Track(lambda net, params, batch: {"h": jnp.zeros((2, 3))}, ("row", "unit")),
}


@pytest.mark.slow
@pytest.mark.optimised
def test_tracking_changes_no_update_and_is_what_a_call_afterwards_gives():
    batch = sine().train
    options = {"num_epochs": 4, "record_every": 2, "batch_size": 8}
    plain, tracked = make(NET, **options), make(NET, track=TRACK, **options)
    run = jax.jit(tracked)(HYPER, batch, key=KEY)
    assert_same(run.params, jax.jit(plain)(HYPER, batch, key=KEY).params)
    assert set(run.history) >= {"flow/layer_0", "rho", "share/h", "train_loss"}
    assert run.history["flow/layer_0"].shape == (2, 4)
    assert run.history["share/h"].shape == (2, 2, 3)
    assert not set(run.metrics) & {"flow/layer_0", "rho", "share/h"}
    rows = np.linspace(0, 35, 5).round().astype(int)
    seen = rr.data.take_rows(batch, jnp.asarray(rows))
    flow = jax.jit(lambda params: gradient_flow(NET, LOSS, params, seen))(run.params)
    np.testing.assert_allclose(
        run.history["flow/layer_0"][-1], flow.log_ratio["layer_0"], **tolerance(loosen=10)
    )
    assert float(run.history["rho"][-1]) == float(np.abs(run.params["layer_0"]["W_hh"]).max())
    longer = tracked.with_epochs(8)
    assert jax.eval_shape(longer, HYPER, batch, key=KEY).history["rho"].shape == (4,)


@pytest.mark.slow
def test_a_sweep_labels_what_is_tracked(tmp_path):
    train = make(NET, num_epochs=2, track=TRACK)
    grid = {"l2": [0.0, 1e-1], "learning_rate": 1e-2}
    result = rr.sweep(train, grid, sine(), folds=KFold(2), key=KEY, progress=False)
    flow = result.metrics["history_flow.layer_0"]
    assert flow.dims == ("l2", "seed", "fold", "epoch", "lag")
    assert result.metrics.history_rho.dims == ("l2", "seed", "fold", "epoch")
    assert result.metrics["history_share.h"].dims[-2:] == ("row", "unit")
    assert (flow.sel(lag=0) == 0).all() if "lag" in flow.coords else (flow[..., 0] == 0).all()
    assert np.isfinite(flow).all()
    again = rr.load_result(result.save(tmp_path / "tracked.nc"))
    np.testing.assert_array_equal(again.metrics["history_flow.layer_0"], flow)


def _of(function, dims=None):
    return {"a": Track(function, dims)}


@pytest.mark.parametrize(
    ("track", "message"),
    [
        ({"flow": 3}, "track must be a dict of functions"),
        ({"a b": lambda net, params, batch: 0.0}, "by a word"),
        ({"train_loss": lambda net, params, batch: 0.0}, "which is recorded already"),
        ({"norm": lambda net, params, batch: {"layer_0": {"W_hh": 0.0}}}, "recorded already"),
        (
            _of(lambda net, params, batch: jnp.zeros(3), ("l2",)),
            "needs 1 names that the sweep does",
        ),
        (_of(lambda net, params, batch: jnp.zeros(3), ()), "a has shape .3,. and so needs 1 names"),
    ],
)
def test_tracks_that_cannot_be_recorded_are_refused(track, message):
    grid = {"l2": [0.0], "learning_rate": 1e-2}
    with pytest.raises(ValueError, match=message):
        rr.dry_run(make(NET, track=track), grid, sine(), key=KEY)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_rows": 0}, "num_rows must be at least 1, a whole number; got 0"),
        ({"num_rows": 2.0}, "num_rows must be a whole number; got 2.0"),
        ({"step": -2}, "step must be -1, None, or lie in 0 … T − 1; got -2"),
        ({"step": 1.5}, "step must be a whole number or None; got 1.5"),
        ({"wrt": "x"}, "wrt must be 'h' or 'state'"),
    ],
)
def test_flows_that_no_network_has_are_refused_before_training(options, message):
    with pytest.raises(ValueError, match=message):
        track_gradient_flow(LOSS, **options)
