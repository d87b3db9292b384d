"""Searches that drop trials: what is left goes on as in a sweep, to the bit, and all that was trained is counted."""

import dataclasses
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr
from conftest import SEED, tolerance
from small import assert_same, held_out, make, sine
from test_kept import compilations

import rnnreg as rr
from rnnreg.lanes import make_plan, repacked
from rnnreg.selection import LogUniform, OneOf, blocked_folds, choose, halving, hyperband, refit
from rnnreg.selection._rungs import score_at

KEY = jax.random.key(SEED)
LAMS = [0.0, 1e-3, 1e-2, 1e-1, 1.0, 10.0]
OPTIONS = {"key": KEY, "seeds": 2, "folds": blocked_folds(2), "progress": False}
TRAIN = make(
    num_epochs=9, track={"norm_squared": lambda net, params, batch: {"b": params["readout"]["b_y"]}}
)
RATE = {"learning_rate": 3e-2}
DIVERGES = float(np.finfo(jnp.result_type(float)).max) ** 0.66  # a learning rate
ONE_BY_ONE = {"plan": "one_by_one"}


@pytest.fixture(scope="module")
def swept():
    """The plain sweep over all trials."""
    return rr.sweep(TRAIN, {"l2": LAMS, **RATE}, sine(), **OPTIONS, **ONE_BY_ONE)


@pytest.fixture(scope="module")
def found(swept):
    """The same by halving."""
    return halving(TRAIN, {"l2": LAMS, **RATE}, sine(), **OPTIONS, **ONE_BY_ONE)


# ---- what goes on ---------------------------------------------------------------------------------


def test_what_is_left_has_the_bits_of_the_sweep(swept, found):
    result = found.result
    finished = result.metrics.finished
    left = finished.isel(seed=0, fold=0)
    assert int(left.sum()) == 2
    assert bool((finished == left).all())  # a trial is all of its seeds and folds
    for name in ("val_loss", "train_loss", "history_val_loss", "history_norm_squared.b"):
        one, other = (each.metrics[name].where(finished, drop=True) for each in (swept, result))
        np.testing.assert_array_equal(one, other)
    for lam in left.l2.values[left.values]:
        for seed in (0, 1):
            assert_same(
                swept.params_at(l2=lam, seed=seed, fold="1"),
                result.params_at(l2=lam, seed=seed, fold="1"),
            )


def test_one_by_one_no_stage_compiles_or_traces_anything(swept, monkeypatch):
    advance, seen = rr.sweeps.Stages.advance, []

    def counted(stages, trials, num_epochs):
        with compilations() as events:
            advance(stages, trials, num_epochs)
        seen.append(events)

    monkeypatch.setattr(rr.sweeps.Stages, "advance", counted)
    halved = halving(TRAIN, {"l2": LAMS, **RATE}, sine(), **OPTIONS, **ONE_BY_ONE)
    assert seen == [[], []]
    assert halved.result.config["compilations"] == 0  # the sweep before had its program


def test_updates_are_counted_to_the_last(found):
    halved = found
    assert [tuple(rung) for rung in halved.rungs] == [
        (0, 3, 6, 0, 2, pytest.approx(halved.scores.score.sel(epoch=3).min())),
        (0, 9, 2, 0, 2, pytest.approx(halved.scores.score.sel(epoch=9).min())),
    ]
    assert halved.num_updates == 4 * (6 * 3 + 2 * 6)
    assert halved.full_updates == 4 * 6 * 9
    assert halved.saved == pytest.approx(1 - 30 / 54)


def test_rungs_rank_by_the_mean_of_seeds_and_folds_at_their_record(swept, found):
    halved = found
    weights = swept.metrics.fold_size / swept.metrics.fold_size.sum()
    for rung in (3, 9):
        expected = (swept.metrics.history_val_loss.sel(epoch=rung).mean("seed") * weights).sum(
            "fold"
        )
        score = halved.scores.score.sel(epoch=rung)
        compared = np.isfinite(score)
        np.testing.assert_allclose(score[compared], expected[compared], rtol=1e-6)
    first = halved.scores.sel(epoch=3)
    best = np.sort(first.score.argsort().values[:2])
    np.testing.assert_array_equal(np.flatnonzero(first.survived), best)


def test_the_choice_is_the_best_that_is_left_and_is_refitted(swept, found):
    halved = found
    left = [lam for lam in LAMS if halved.scores.survived.sel(l2=lam, epoch=9)]
    curve = dict(zip(LAMS, choose(swept).curve.mean.tolist(), strict=True))
    best = min(left, key=curve.get)
    assert halved.values == {"l2": best, **RATE}
    assert (halved.choice.axis, halved.choice.lam) == ("l2", best)
    np.testing.assert_allclose(halved.choice.curve.mean, [curve[lam] for lam in left])
    final = refit(TRAIN, halved.result, halved.choice, sine(), key=KEY, progress=False)
    assert final.dims == ("seed",)
    assert final.config["chosen"] == halved.values
    again = rr.verify(halved.result, TRAIN, sine(), folds=OPTIONS["folds"], lanes=2)
    assert again.metrics.max() < 1e-5
    with pytest.raises(ValueError, match="a search that dropped trials"):
        choose(halved.result)


def test_dropped_lanes_keep_what_they_recorded_and_nothing_else(swept, found, tmp_path):
    metrics, dropped = found.result.metrics, ~found.result.metrics.finished
    for name in ("val_loss", "train_loss", "ensemble_val_loss"):
        assert bool(metrics[name].isnull().where(dropped, True).all())
    lost = metrics.history_val_loss.where(dropped, drop=True)
    whole = swept.metrics.history_val_loss.where(dropped, drop=True)
    np.testing.assert_array_equal(lost.sel(epoch=slice(3)), whole.sel(epoch=slice(3)))
    assert bool(lost.sel(epoch=slice(4, None)).isnull().all())
    assert set(np.unique(metrics.num_updates)) == {3, 9}
    again = rr.load_result(found.result.save(tmp_path / "halved.nc"))
    assert again.config["search"] == found.result.config["search"]
    with pytest.raises(ValueError, match="did not finish"):
        again.params_at(l2=float(lost.l2[0]), seed=0, fold="0")


def test_the_record_says_what_was_done(found):
    text = repr(found)
    assert "120 of 216 updates, 44% saved" in text
    assert "chosen: l2=" in text
    assert text.isascii()


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"plan": "vmap"}, {"plan": "chunks", "chunk": 2}])
def test_together_what_is_left_is_that_of_the_sweep_up_to_rounding(swept, options):
    halved = halving(TRAIN, {"l2": LAMS, **RATE}, sine(), **OPTIONS, **options)
    result = halved.result
    assert result.config["compilations"] <= len(halved.rungs)
    for name in ("val_loss", "history_val_loss"):
        one, other = (
            each.metrics[name].where(result.metrics.finished, drop=True) for each in (swept, result)
        )
        np.testing.assert_allclose(one, other, **tolerance("float32"))
    assert halved.num_updates == 120


@pytest.mark.slow
def test_minibatches_dropout_and_momentum_go_on_where_they_were():
    net = rr.network([rr.cells.gru(3)], 1, readout="last", input_dropout=0.2)
    train = make(net, num_epochs=6, batch_size=8, optimizer=optax.adam(1e-2), record_every=2)
    split = held_out(sine(), 24)
    options = {"key": KEY, "progress": False, **ONE_BY_ONE}
    swept = rr.sweep(train, {"l2": [0.0, 0.1, 1.0]}, split, **options)
    halved = halving(train, {"l2": [0.0, 0.1, 1.0]}, split, min_epochs=1, **options)
    assert [rung.num_epochs for rung in halved.rungs] == [
        2,
        4,
        6,
    ]  # 1 and 3 lie between two records
    finished = halved.result.metrics.finished
    assert int(finished.sum()) == 1
    for name in ("val_loss", "history_train_loss", "history_gradient_norm"):
        one, other = (
            each.metrics[name].where(finished, drop=True) for each in (swept, halved.result)
        )
        np.testing.assert_array_equal(one, other)
    assert halved.num_updates == 3 * (3 * 2 + 1 * 2 + 1 * 2)
    assert "fold" not in halved.scores.dims


@pytest.mark.slow
def test_static_values_are_trials_too():
    made = {
        size: make(rr.network([rr.cells.elman(size)], 1, readout="last"), num_epochs=4)
        for size in (2, 3)
    }
    halved = halving(
        lambda static: made[static["hidden_size"]],
        {"pair": rr.zipped(l2=[0.0, 0.1], learning_rate=[1e-2, 3e-2])},
        sine(),
        key=KEY,
        folds=blocked_folds(2),
        static={"hidden_size": [2, 3]},
        factor=2,
        min_epochs=1,
        progress=False,
    )
    assert [rung[1:5] for rung in halved.rungs] == [(1, 4, 0, 2), (2, 2, 0, 1), (4, 1, 0, 1)]
    assert halved.scores.score.dims == ("hidden_size", "pair", "epoch")
    assert set(halved.values) == {"l2", "learning_rate", "hidden_size"}
    assert halved.choice.labels == {
        "pair": int(halved.choice.lam),
        "hidden_size": halved.values["hidden_size"],
    }
    train = lambda static: made[static["hidden_size"]]  # noqa: E731
    final = refit(train, halved.result, halved.choice, sine(), key=KEY, progress=False)
    assert np.isfinite(final.metrics.train_loss)


# ---- what does not --------------------------------------------------------------------------------


def test_a_trial_that_diverges_is_last_counted_and_shown():
    grid = {
        "trial": rr.zipped(learning_rate=[DIVERGES, 1e-2, DIVERGES, 2e-2], l2=[0.0, 0.0, 0.1, 0.1])
    }
    with pytest.warns(RuntimeWarning, match="8 of 16 lanes diverged"):
        halved = halving(TRAIN, grid, sine(), factor=2, min_epochs=1, **OPTIONS, **ONE_BY_ONE)
    assert [rung[1:5] for rung in halved.rungs] == [
        (1, 4, 2, 2),
        (2, 2, 0, 1),
        (4, 1, 0, 1),
        (8, 1, 0, 1),
        (9, 1, 0, 1),
    ]
    assert halved.values["learning_rate"] < 1
    assert halved.choice.axis == "trial"
    assert halved.choice.lam in (1.0, 3.0)
    diverged = halved.result.metrics.diverged_at >= 0
    assert diverged.any(["seed", "fold"]).values.tolist() == [True, False, True, False]
    updates = np.maximum(halved.result.metrics.num_updates, 0)
    assert halved.num_updates == int(updates.sum()) == 4 * (4 * 1 + 2 * 1 + 7)


def test_all_diverged_is_an_error_with_what_there_is():
    grid = {"l2": [0.0, 0.1, 0.2], "learning_rate": DIVERGES}
    with pytest.raises(ValueError, match="no trial has a finite val_loss") as caught:
        halving(TRAIN, grid, sine(), min_epochs=3, **OPTIONS, **ONE_BY_ONE)
    partial = caught.value.partial_result
    assert not partial.metrics.finished.any()
    assert (partial.metrics.diverged_at >= 0).all()


def test_of_equal_trials_the_first_goes_on():
    grid = {"trial": rr.zipped(l2=[0.1, 0.1, 0.1], learning_rate=[1e-2] * 3)}
    halved = halving(TRAIN, grid, sine(), min_epochs=3, **OPTIONS, **ONE_BY_ONE)
    assert halved.choice.labels == {"trial": 0}
    assert halved.scores.survived.sel(epoch=3).values.tolist() == [True, False, False]


def test_of_equal_trials_the_most_penalised_goes_on_as_in_a_choice():
    """Rates of 0 train nothing, and all trials are equal."""
    grid = {"l2": [0.0, 1e-6, 1e-4, 1e-5], "learning_rate": 0.0}
    halved = halving(TRAIN, grid, sine(), min_epochs=3, **OPTIONS, **ONE_BY_ONE)
    swept = rr.sweep(TRAIN, grid, sine(), **OPTIONS, **ONE_BY_ONE)
    assert halved.choice.lam == choose(swept).lam == 1e-4


def test_an_interruption_leaves_what_was_recorded(monkeypatch):
    advance = rr.sweeps.Stages.advance

    def stopped(stages, trials, num_epochs):
        if num_epochs == 9:
            raise KeyboardInterrupt
        advance(stages, trials, num_epochs)

    monkeypatch.setattr(rr.sweeps.Stages, "advance", stopped)
    with pytest.raises(KeyboardInterrupt) as caught:
        halving(TRAIN, {"l2": LAMS, **RATE}, sine(), **OPTIONS, **ONE_BY_ONE)
    partial = caught.value.partial_result
    assert np.isfinite(partial.metrics.history_val_loss.sel(epoch=3)).all()
    assert partial.metrics.history_val_loss.sel(epoch=4).isnull().all()
    assert (partial.metrics.num_updates == 3).all()
    assert "what others have recorded" in caught.value.__notes__[0]


def test_ctrl_c_while_trials_are_ranked_waits_for_the_next_stage(monkeypatch, ctrl_c):
    result = rr.sweeps.Stages.result

    def signalled(stages, **options):
        found = result(stages, **options)
        if (found.metrics.num_updates == 3).all():
            signal.raise_signal(signal.SIGINT)
        return found

    monkeypatch.setattr(rr.sweeps.Stages, "result", signalled)
    with pytest.raises(KeyboardInterrupt) as caught:
        halving(TRAIN, {"l2": LAMS, **RATE}, sine(), **OPTIONS, **ONE_BY_ONE)
    assert np.isfinite(caught.value.partial_result.metrics.history_val_loss.sel(epoch=3)).all()


@pytest.mark.parametrize("when", [2, 3])
def test_an_interruption_inside_a_stage_leaves_the_last_block(monkeypatch, when):
    """Blocks of one epoch, of lanes in two calls: the one that is under way, and the one that is over, are there."""
    compute = sys.modules["rnnreg.sweeps._compute"]
    run_blocks = compute.run_blocks

    def few(program, lanes, shared, start, pace, resume):
        pace.end_of = lambda first: first + 1
        for count, block in enumerate(run_blocks(program, lanes, shared, start, pace, resume)):
            if count == when:
                raise KeyboardInterrupt
            yield block

    monkeypatch.setattr(compute, "run_blocks", few)
    with pytest.raises(KeyboardInterrupt) as caught:
        halving(
            TRAIN,
            {"l2": LAMS[:4], **RATE},
            sine(),
            min_epochs=2,
            **OPTIONS,
            plan="one_by_one",
            width=8,
        )
    updates = caught.value.partial_result.metrics.num_updates
    assert sorted(np.unique(updates)) == {2: [-1, 2], 3: [1, 2]}[when]
    monkeypatch.undo()


@pytest.mark.slow
def test_a_stage_that_is_out_of_memory_begins_again_with_fewer_lanes(monkeypatch, swept):
    compute = sys.modules["rnnreg.sweeps._compute"]

    class Tight(compute.Program):
        def __call__(self, chunk, shared):
            if shared[1] >= 3 and self.plan.chunk > 4:  # epochs that are done
                raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte.")
            return super().__call__(chunk, shared)

    monkeypatch.setattr(compute, "Program", Tight)
    with pytest.warns(RuntimeWarning, match="out of memory with 8 lanes"):
        halved = halving(
            TRAIN, {"l2": LAMS, **RATE}, sine(), **OPTIONS, plan="vmap", width=8, min_epochs=3
        )
    finished = halved.result.metrics.finished
    one, other = (
        each.metrics.val_loss.where(finished, drop=True) for each in (swept, halved.result)
    )
    np.testing.assert_allclose(one, other, **tolerance("float32"))
    assert halved.num_updates == 120


@pytest.mark.parametrize(
    ("plan", "num_lanes", "width", "calls"),
    [
        ("one_by_one", 10, 10, 1),
        ("one_by_one", 20, 10, 2),  # not 12 and 12, with four copies
        ("one_by_one", 1, 1, 1),
        ("chunks", 20, 12, 2),
        ("chunks", 3, 3, 1),
        ("vmap", 20, 10, 2),
        ("vmap", 3, 4, 1),
    ],
)
def test_what_is_left_is_dealt_evenly(plan, num_lanes, width, calls):
    devices = (jax.devices()[0],) * 2
    chunk = 3 if plan == "chunks" else None
    whole = make_plan(96, plan=plan, width=12, chunk=chunk, devices=devices[:1])
    whole = dataclasses.replace(whole, devices=devices)
    whole = dataclasses.replace(whole, chunk=6) if plan == "vmap" else whole
    few = repacked(whole, num_lanes)
    assert (few.num_lanes, few.width, few.num_calls) == (num_lanes, width, calls)
    assert few.width % few.streams == 0
    assert few.num_calls == -(-num_lanes // whole.width)


# ---- Hyperband ------------------------------------------------------------------------------------


def test_brackets_have_the_published_sizes_and_one_choice():
    space = {"l2": LogUniform(1e-4, 1, zero=0.2), "learning_rate": 2e-2}
    split = held_out(sine(), 24)
    found = hyperband(TRAIN, space, split, key=KEY, min_epochs=1, progress=False, **ONE_BY_ONE)
    table = [(rung.bracket, rung.num_epochs, rung.num_trials) for rung in found.rungs]
    assert table == [(0, 1, 9), (0, 3, 3), (0, 9, 1), (1, 3, 5), (1, 9, 1), (2, 9, 3)]
    assert found.full_updates == 17 * 9
    assert found.num_updates == (9 + 3 * 2 + 6) + (5 * 3 + 6) + 3 * 9
    assert found.scores.bracket.values.tolist() == [0] * 9 + [1] * 5 + [2] * 3
    ended = found.result.metrics.val_loss.isel(seed=0)
    assert int(np.isfinite(ended).sum()) == 5
    assert found.choice.lam == np.nanargmin(ended.values)
    assert found.values["learning_rate"] == 2e-2
    assert "bracket" in repr(found)
    again = hyperband(TRAIN, space, split, key=KEY, min_epochs=1, progress=False, **ONE_BY_ONE)
    np.testing.assert_array_equal(again.scores.score, found.scores.score)


def test_a_bracket_that_diverged_leaves_the_choice_to_the_others():
    space = {"l2": 0.0, "learning_rate": OneOf([DIVERGES, 1e-2])}
    with pytest.warns(RuntimeWarning, match="lanes diverged"):
        found = hyperband(
            TRAIN, space, held_out(sine(), 24), key=KEY, min_epochs=3, progress=False, **ONE_BY_ONE
        )
    assert found.values == {"learning_rate": 1e-2, "l2": 0.0}
    assert sum(rung.num_diverged for rung in found.rungs) >= 1


# ---- scores at a rung ------------------------------------------------------------------------------


def recorded(**history):
    """A result of two trials with such histories at epochs 2, 4 and 6, the second of which diverged."""
    variables = {
        f"history_{name}": (("l2", "seed", "epoch"), np.array(values))
        for name, values in history.items()
    }
    variables["diverged_at"] = (("l2", "seed"), np.array([[-1], [5]]))
    coords = {"l2": [0.0, 0.1], "seed": [0], "epoch": [2, 4, 6]}
    return rr.SweepResult(xr.Dataset(variables, coords), (), {}, "")


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, 3.0), ({"keep_best": True}, 2.0), ({"keep_best": True, "monitor": "hits"}, 4.0)],
)
def test_a_rung_scores_the_last_record_or_the_best_so_far(options, expected):
    hits = rr.metrics.Score(lambda outputs, ys: jnp.mean(outputs), maximise=True)
    settings = make(num_epochs=8, metrics={"hits": hits}, **options).settings
    loss = [[[2.0, 4.0, 3.0]], [[1.0, 1.0, 1.0]]]
    result = recorded(val_loss=loss, val_hits=[[[0.1, 0.9, 0.2]], [[1.0, 1.0, 1.0]]])
    scores = score_at(result, "val_loss", settings, 6).isel(seed=0).values
    assert scores[0] == expected
    assert np.isnan(scores[1])
    assert score_at(result, "val_loss", settings, 2).isel(seed=0, l2=0) == 2.0


@pytest.mark.slow
def test_best_epochs_of_the_chosen_runs_are_refitted():
    train = make(num_epochs=6, keep_best=True)
    halved = halving(train, {"l2": LAMS, **RATE}, sine(), min_epochs=2, **OPTIONS, **ONE_BY_ONE)
    assert any("its own best epoch" in text for text in halved.choice.warnings)
    final = refit(train, halved.result, halved.choice, sine(), key=KEY, progress=False)
    assert 1 <= final.config["chosen"]["num_epochs"] <= 6


# ---- bad arguments --------------------------------------------------------------------------------


def refuse(*args, **options):
    raise AssertionError("nothing may compile")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 1}, "factor must be at least 2, a whole number; got 1"),
        ({"min_epochs": 0}, "min_epochs must be at least 1, a whole number; got 0"),
        ({"min_epochs": 9}, "min_epochs must be below the 9 epochs of the runs"),
        ({"metric": "val_mae"}, "'val_mae' needs the variable 'history_val_mae'"),
        (
            {"maximise": True},
            "of 'val_loss' less is better, as it states itself; got maximise=True",
        ),
        ({"folds": None}, "need folds or a validation set"),
        ({"plan": "all"}, "plan must be a ready"),
    ],
)
def test_bad_arguments_are_named_before_anything_compiles(monkeypatch, options, message):
    monkeypatch.setattr("rnnreg.sweeps._compute.Program", refuse)
    with pytest.raises(ValueError, match=message):
        halving(TRAIN, {"l2": LAMS, **RATE}, sine(), **OPTIONS | options)
    space = {"l2": LogUniform(1e-4, 1), **RATE}
    with pytest.raises(ValueError, match=message):
        hyperband(TRAIN, space, sine(), **OPTIONS | options)


def test_too_little_to_compare_is_named(monkeypatch):
    monkeypatch.setattr("rnnreg.sweeps._compute.Program", refuse)
    with pytest.raises(ValueError, match="halving compares trials, and this grid has one"):
        halving(TRAIN, {"l2": 0.1, **RATE}, sine(), **OPTIONS)
    with pytest.raises(
        ValueError, match=r"num_epochs=9, record_every=9. Give make_train a smaller"
    ):
        halving(make(num_epochs=9, record_every=9), {"l2": LAMS, **RATE}, sine(), **OPTIONS)
    with pytest.raises(ValueError, match=r"of at least factor=3.*got 9 / 4"):
        hyperband(TRAIN, {"l2": LogUniform(1e-4, 1), **RATE}, sine(), min_epochs=4, **OPTIONS)
    with pytest.raises(ValueError, match="'trial' is the axis of the trials"):
        hyperband(TRAIN, {"l2": LogUniform(1e-4, 1), "trial": 1.0}, sine(), **OPTIONS)
    with pytest.raises(ValueError, match="hyperband has no static axes"):
        hyperband(lambda static: TRAIN, {"l2": LogUniform(1e-4, 1)}, sine(), **OPTIONS)
    with pytest.raises(ValueError, match=r"num_epochs is \[4, 5\] for the static values"):
        halving(
            lambda static: make(num_epochs=static["n"]),
            {"l2": LAMS, **RATE},
            sine(),
            **OPTIONS,
            static={"n": [4, 5]},
        )
