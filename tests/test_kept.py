"""Compiled programs are kept for as long as what they were made for lives, and no longer."""

import contextlib
import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_what_is_made_again_is_compiled_once_if_it_is_the_same():
    def train(static):
        return make(rr.network([rr.cells.elman(static["size"])], 1, readout="last"), num_epochs=1)

    options = {"folds": None, "seeds": 1, "static": {"size": [5]}}
    with compilations() as events:
        first = swept(train, **options)
        before = len([event for event in events if "backend_compile" in event])
        again = swept(train, [0.5, 0.7], **options)
        after = len([event for event in events if "backend_compile" in event])
    assert (first.config["compilations"], again.config["compilations"]) == (1, 0)
    assert before == after

    def other(static):
        loss = rr.losses.squared_error()
        return make(train(static).settings.net, num_epochs=1, loss=lambda *given: 2 * loss(*given))

    assert swept(other, **options).config["compilations"] == 1


def test_programs_that_only_look_the_same_are_not_mixed_up():
    lanes = {"a": np.arange(3.0, dtype=np.float32), "b": np.arange(3.0, 6.0, dtype=np.float32)}
    one, two = (
        rr.lanes.map_lanes(lambda lane, shared, name=name: lane[name], lanes) for name in "ab"
    )
    assert (one.tolist(), two.tolist()) == ([0, 1, 2], [3, 4, 5])
    shape = jax.ShapeDtypeStruct((), np.float32)

    def on_host(function):
        return rr.lanes.map_lanes(
            lambda lane, shared: jax.pure_callback(function, shape, lane["a"]), lanes
        ).tolist()

    assert on_host(lambda a: np.float32(a + 1)) == [1, 2, 3]
    assert on_host(lambda a: np.float32(a + 2)) == [2, 3, 4]
    tables = np.zeros((2, 20000), np.float32)
    tables[1, 15000] = 1.0
    sums = [
        rr.lanes.map_lanes(lambda lane, shared, t=table: lane["a"] + jnp.asarray(t).sum(), lanes)
        for table in tables
    ]
    assert [total.tolist() for total in sums] == [[0, 1, 2], [1, 2, 3]]
    dicts = [rr.lanes.map_lanes(lambda lane, shared, k=k: {k: lane["a"]}, lanes) for k in "xy"]
    assert [list(each) for each in dicts] == [["x"], ["y"]]


def test_a_run_called_with_arrays_compiles_once():
    train, data = make(num_epochs=2), sine()
    hyper = {"l2": 0.1, "learning_rate": 1e-2}
    first = train(hyper, data, key=KEY)
    with compilations() as events:
        again, other = (train(hyper | {"l2": lam}, data, key=KEY) for lam in (0.1, 0.2))
    assert not any("backend_compile" in event for event in events)
    np.testing.assert_array_equal(first.params["layer_0"]["W_hh"], again.params["layer_0"]["W_hh"])
    assert other.metrics["train_loss"] != again.metrics["train_loss"]
    gone = weakref.ref(train)
    del train
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("jitted", [False, True])
def test_a_run_refuses_names_that_nothing_reads(jitted):
    train = make(num_epochs=1)
    call = jax.jit(train) if jitted else train
    hyper = {"l2": 0.1, "learning_rate": 1e-2}
    with pytest.raises(ValueError, match="hyperparameter 'l1': nothing"):
        call(hyper | {"l1": 0.1}, sine().replace(target_times=None), key=KEY)
    if not jitted:
        with pytest.raises(ValueError, match="λ must be finite and not negative; 'l2' has"):
            call(hyper | {"l2": -0.1}, sine(), key=KEY)


def test_numbers_that_are_read_all_at_once_count_as_read():
    train = make(num_epochs=1, optimizer=lambda hyper: optax.sgd(dict(**hyper)["learning_rate"]))
    train({"l2": 0.1, "learning_rate": 1e-2}, sine(), key=KEY)


def test_gradient_flow_called_with_arrays_compiles_once():
    net = rr.network([rr.cells.elman(3)], 1, readout="last")
    params, batch = net.init(KEY, 1), sine().train
    flow = rr.diagnostics.gradient_flow
    first = flow(net, rr.losses.squared_error(), params, batch)
    with compilations() as events:
        again = flow(net, rr.losses.squared_error(), params, batch)
    assert not any("backend_compile" in event for event in events)
    np.testing.assert_array_equal(first.log_norms["layer_0"], again.log_norms["layer_0"])
    traced = jax.jit(functools.partial(flow, net, rr.losses.squared_error()))(params, batch)
    np.testing.assert_allclose(traced.log_ratio["layer_0"], first.log_ratio["layer_0"], rtol=1e-4)
    gone = weakref.ref(net.apply)
    del net, flow, traced
    gc.collect()
    assert gone() is None
