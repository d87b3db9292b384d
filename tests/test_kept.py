"""Compiled programs are kept for as long as what they were made for lives, and no longer."""

import contextlib
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SEED
from sklearn.model_selection import KFold
from small import make, sine

import rnnreg as rr
from rnnreg.runtime import Kept

KEY = jax.random.key(SEED)


@contextlib.contextmanager
def compilations():
    """The compilations of XLA, and what was traced, as they come."""
    events = []

    def listen(event, duration, **_):
        if event.endswith(("backend_compile_duration", "jaxpr_trace_duration")):
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)


def swept(train, lams=(0.0, 1e-2), rate=1e-2, **options):
    grid = {"l2": list(lams), "learning_rate": rate}
    options = {"folds": KFold(3), "seeds": 2, "key": KEY, "progress": False} | options
    return rr.sweep(train, grid, sine(), **options)


def test_the_same_sweep_compiles_once_and_leaves_with_its_train():
    train = make(num_epochs=2)
    first = swept(train)
    with compilations() as events:
        again, other = swept(train), swept(train, (1.0, 0.5), 1e-3, key=jax.random.key(1))
    assert not events  # nothing was compiled, and nothing traced
    counts = [one.config["compilations"] for one in (first, again, other)]
    assert counts == [1, 0, 0]
    assert len({one.config["program_sha256"][0] for one in (first, again, other)}) == 1
    np.testing.assert_array_equal(first.metrics.val_loss, again.metrics.val_loss)
    alone = jax.jit(train)({"l2": 0.5, "learning_rate": 1e-3}, sine(), key=jax.random.key(2))
    trained = swept(train, [0.5], 1e-3, folds=None, seeds=1).config
    assert trained["compilations"] == 1  # of other shapes
    assert np.isfinite(alone.metrics["train_loss"])
    gone = weakref.ref(train)
    del train, alone
    gc.collect()
    assert gone() is None


def test_a_run_that_is_derived_again_is_the_same():
    train = make()
    assert train.with_epochs(3) is train.with_epochs(3)
    assert train.split_rows(jax.devices()) is train.split_rows(jax.devices())


@pytest.fixture(scope="module")
def result():
    return swept(make(num_epochs=1), folds=None)


def test_a_function_is_mapped_again_without_compiling(result):
    def norm(params):
        return jnp.sum(jnp.square(params["layer_0"]["W_hh"]))

    first = result.map(norm)
    with compilations() as events:
        again = result.map(norm)
    assert not [event for event in events if "backend_compile" in event]
    np.testing.assert_array_equal(first["value"], again["value"])


def test_a_function_whose_names_mean_something_else_is_compiled_anew(result):
    factor = jnp.float32(1)

    def scaled(params):
        return factor * params["readout"]["b_y"][0]

    one = result.map(scaled)["value"]
    factor = jnp.float32(2)
    np.testing.assert_allclose(result.map(scaled)["value"], 2 * one)
    lanes = {"x": np.arange(3, dtype=np.float32)}
    power = np.float32(1)

    def raised(lane, shared):
        return lane["x"] ** power

    assert rr.lanes.map_lanes(raised, lanes).tolist() == [0, 1, 2]
    power = np.float32(2)
    assert rr.lanes.map_lanes(raised, lanes).tolist() == [0, 1, 4]


def test_what_is_kept_is_bounded_and_needs_no_weak_reference():
    kept, owner, made = Kept(most=2), make, []
    for key in (1, 2, 1, 3, 2):  # 2 is the oldest when 3 comes
        kept.get(owner, key, lambda key=key: made.append(key))
    assert made == [1, 2, 3, 2]
    for _ in range(2):  # a list has no hash
        kept.get([], 1, lambda: made.append("list"))
    assert made[4:] == ["list"] * 2

    class Unhashable:
        __hash__ = None

        def __call__(self, lane, shared):
            return 2 * lane

    assert rr.lanes.map_lanes(Unhashable(), np.arange(2.0)).tolist() == [0, 2]
