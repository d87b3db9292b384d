"""Lanes that run again: they come back bit for bit, what was changed shows, and what was not given again is refused."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from small import held_out, make, sine

import rnnreg as rr
from rnnreg.sweeps import _verify

KEY = jax.random.key(5)
SPLIT = held_out(sine(20), 12)
ROWS = np.arange(16)
FOLDS = [(ROWS[:8], ROWS[8:12]), (ROWS[4:12], ROWS[12:])]
GRID = {"l2": [0.0, 1e-2], "learning_rate": 1e-2}
OPTIONS = {"key": KEY, "progress": False, "plan": "one_by_one"}


def run_of(static, **options):
    net = rr.network([rr.cells.elman(static["hidden_size"])], 1, readout="last")
    return make(net, num_epochs=static["hidden_size"], record_every=1, **options)


TRAIN = make(num_epochs=2)


@pytest.fixture(scope="module")
def result():
    return rr.sweep(TRAIN, GRID, SPLIT, seeds=2, **OPTIONS)


@pytest.fixture(scope="module")
def static():
    """Two sizes with histories of their own lengths, over folds, and a zipped axis."""
    grid = {"pair": rr.zipped(l2=[0.0, 1e-2, 1e-1], learning_rate=[1e-2, 2e-2, 1e-2])}
    sizes = {"hidden_size": [2, 3]}
    return rr.sweep(run_of, grid, sine(20), folds=FOLDS, refit=True, static=sizes, **OPTIONS)


def test_lanes_of_a_folder_with_other_folds_are_those_of_the_sweep(tmp_path):
    options = OPTIONS | {"keep": tmp_path}
    rr.sweep(TRAIN, GRID, sine(20), folds=[*FOLDS, (ROWS[8:], ROWS[:4])], **options)
    fewer = rr.sweep(TRAIN, GRID, sine(20), folds=FOLDS, **options)
    assert fewer.config["lanes_loaded"] == 4
    assert rr.verify(fewer, TRAIN, sine(20), folds=FOLDS, lanes=2).equal
    other = make(num_epochs=2, optimizer=lambda hyper: optax.sgd(2 * hyper["learning_rate"]))
    with pytest.raises(ValueError, match="what is given is not what the sweep was given"):
        rr.verify(fewer, other, sine(20), folds=FOLDS)


@pytest.mark.numerics
def test_numbers_of_other_types_are_the_same_again():
    grid = GRID | {"l2": np.array([1e-3, 0.1], np.float32)}
    result = rr.sweep(TRAIN, grid, SPLIT, **OPTIONS)
    assert result.config["grid"]["l2"] == [1e-3, 0.1]
    assert rr.verify(result, TRAIN, SPLIT, lanes=2).equal


@pytest.mark.numerics
def test_lanes_come_back_bit_for_bit_and_compile_nothing(result):
    found = rr.verify(result, TRAIN, SPLIT, lanes=4)
    assert found.equal
    assert found.changed == ()
    assert (found.num_lanes, len(found.lanes)) == (4, 4)
    for name in ("params", "history", "metrics"):
        np.testing.assert_array_equal(getattr(found, name), np.zeros(4))
    assert {(each["l2"], each["seed"]) for each in found.lanes} == {
        (lam, seed) for lam in GRID["l2"] for seed in (0, 1)
    }
    assert repr(found).startswith("4 of 4 lanes ran again, each alone: equal bit for bit\n  l2=0.0")


def test_the_same_lanes_are_drawn_again_and_more_begin_with_them(result):
    few, again, more = (
        [(each["l2"], each["seed"]) for _, each in _verify._chosen(result, n)] for n in (2, 2, 3)
    )
    assert few == again
    assert set(few) < set(more)
    assert len(_verify._chosen(result, 99)) == 4


def test_a_changed_number_shows_where_it_is(result):
    lane = {"l2": 1e-2, "seed": 1}
    params = jax.tree.map(np.array, result.groups[0].params)
    params["layer_0"]["W_hh"][1, 1, 0, 0] += 0.5
    metrics = result.metrics.copy(deep=True)
    metrics["history_train_loss"].loc[lane | {"epoch": 2}] = np.nan
    metrics["num_updates"].loc[lane] += 3
    group = dataclasses.replace(result.groups[0], params=params)
    other = dataclasses.replace(result, groups=(group,), metrics=metrics)
    found = rr.verify(other, TRAIN, SPLIT, lanes=[lane, {"l2": 0, "seed": 1}])
    assert not found.equal
    np.testing.assert_allclose(found.params, [0.5, 0], rtol=1e-6)
    assert found.history.tolist() == [np.inf, 0]
    assert found.metrics.tolist() == [3, 0]
    assert "the largest difference is inf\n  l2=0.01 seed=1: params 0.5, history inf" in repr(found)


def test_a_saved_result_of_static_axes_folds_and_zipped_hyperparameters(static, tmp_path):
    found = rr.verify(static.save(tmp_path / "static.nc"), run_of, sine(20), folds=FOLDS, lanes=18)
    assert found.equal
    assert len(found.lanes) == found.num_lanes == 18
    assert list(found.lanes[0]) == ["hidden_size", "pair", "seed", "fold"]


def test_a_part_of_a_result(static):
    part = static.select(hidden_size=3, fold="all")
    found = rr.verify(part, run_of, sine(20), folds=FOLDS, lanes=[{"pair": 1}])
    assert found.equal
    assert found.lanes == ({"pair": 1, "seed": 0},)


@pytest.mark.parametrize("plan", [{"plan": "vmap"}, {"plan": "chunks", "chunk": 2}])
def test_lanes_that_ran_together_come_back_within_rounding(plan):
    together = rr.sweep(TRAIN, GRID, SPLIT, **OPTIONS | plan)
    found = rr.verify(together, TRAIN, SPLIT, lanes=2)
    assert found.changed == ()
    assert max(found.params.max(), found.history.max(), found.metrics.max()) < 1e-5


def _other_data():
    return SPLIT.replace(train=SPLIT.train._replace(ys=SPLIT.train.ys + 1))


REFUSED = {
    "network.layers": lambda: {
        "train": make(
            rr.network([rr.cells.elman(4, activation="relu")], 1, readout="last"), num_epochs=2
        )
    },
    "num_epochs: kept 2, asked 3": lambda: {"train": make(num_epochs=3)},
    "data.sha256: kept ": lambda: {"data": _other_data()},
    "optimizer.states": lambda: {
        "train": make(num_epochs=2, optimizer=lambda h: optax.adam(h["learning_rate"]))
    },
    "program: a number or a function that is written into the program": lambda: {
        "train": make(num_epochs=2, optimizer=lambda h: optax.sgd(h["learning_rate"] * 2))
    },
    "the sweep had no folds": lambda: {"folds": FOLDS, "data": sine(20)},
    "the sweep drew its parameters": lambda: {"params": {}},
    "a positive number of lanes, or a list of labels": lambda: {"lanes": 0},
    "on the axis": lambda: {"lanes": [{"l2": 7.0, "seed": 0}]},
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_the_sweep_was_not_given_is_refused(said, result, monkeypatch):
    monkeypatch.setattr(_verify, "_run_alone", None)
    given = {"train": TRAIN, "data": SPLIT} | REFUSED[said]()
    with pytest.raises(ValueError) as caught:
        rr.verify(result, **given)
    assert said in str(caught.value)


def test_other_folds_are_named(static):
    with pytest.raises(ValueError, match=r"data.folds.1: kept \w+…, asked"):
        rr.verify(static, run_of, sine(20), folds=[FOLDS[0], (ROWS[4:12], ROWS[13:])])


def test_another_precision_is_refused_and_another_machine_is_told(result, monkeypatch):
    with (
        jax.default_matmul_precision("bfloat16"),
        pytest.raises(ValueError, match="matmul_precision: kept 'highest', asked 'bfloat16'"),
    ):
        rr.verify(result, TRAIN, SPLIT)
    now = rr.environment() | {"code": "0" * 64, "jax": "0.0.1", "processor": "Another"}
    monkeypatch.setattr(_verify, "environment", lambda: now)
    found = rr.verify(result, TRAIN, SPLIT, lanes=1)
    assert [line.split(":")[0] for line in found.changed] == ["code", "jax", "processor"]
    assert "\n  changed: jax: kept '" in repr(found)


def test_lanes_that_did_not_finish_have_nothing_to_compare(result):
    metrics = result.metrics.copy(deep=True)
    metrics["finished"].loc[{"seed": 0}] = False
    part = dataclasses.replace(result, metrics=metrics)
    assert {each["seed"] for _, each in _verify._chosen(part, 9)} == {1}
    with pytest.raises(ValueError, match="did not finish, so it has nothing to compare"):
        rr.verify(part, TRAIN, SPLIT, lanes=[{"l2": 0, "seed": 0}])
    metrics["finished"].loc[{}] = False
    with pytest.raises(ValueError, match="no lane of this result is finished"):
        rr.verify(part, TRAIN, SPLIT)


def test_the_order_of_the_arguments_is_told(result):
    with pytest.raises(ValueError, match=r"The call is verify\(result, train, data\)"):
        rr.verify(TRAIN, result, SPLIT)


def test_a_result_says_where_it_comes_from(result):
    """Configuration, code, versions, device, precision, data and key."""
    config = result.config
    assert {"grid", "seeds", "folds", "key", "static", "network", "optimizer"} <= set(config)
    assert {"code", "rnnreg", "jax", "jaxlib", "numpy", "optax", "python"} <= set(
        config["environment"]
    )
    assert {"processor", "backend", "device_kind", "num_devices"} <= set(config["environment"])
    assert {"x64", "matmul_precision", "optimised", "xla_flags"} <= set(config["environment"])
    assert len(config["environment"]["code"]) == len(config["data"][0]["sha256"]) == 64
    assert config["plans"] == [{"name": "one_by_one", "width": 4, "chunk": 1, "devices": 1}]
