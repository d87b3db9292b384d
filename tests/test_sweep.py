"""A sweep: every combination once, in one program, labelled, and nothing changed by its neighbours."""

import json
import signal
import sys
import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr
from conftest import SEED, tolerance
from sklearn.model_selection import KFold, TimeSeriesSplit
from small import Counted, assert_same, fold_of, held_out, make, sine

import rnnreg as rr
from rnnreg.lanes import _program
from rnnreg.sweeps import _bar, _job

KEY = jax.random.key(SEED)
COMPUTE = sys.modules["rnnreg.sweeps._compute"]
FOLDS = KFold(3)


def absolute_error(outputs, ys, mask=None, weights=None):
    rows = jnp.ones(len(ys)) if weights is None else weights
    return jnp.sum(rows * jnp.abs(outputs - ys)[:, 0]) / jnp.sum(rows)


NET = rr.network([rr.cells.elman(4)], 1, readout="last")
COUNTED = Counted(NET)
TRAIN = make(COUNTED.net, metrics={"mae": absolute_error})


def _sweep(grid, seeds, **options):
    before = COUNTED.count
    options = {"folds": FOLDS, "refit": True, "width": 1} | options
    result = rr.sweep(TRAIN, grid, sine(), seeds=seeds, key=KEY, progress=False, **options)
    return result, COUNTED.count - before


def _part(grid, seeds, **options):
    """What is finished when Ctrl-C ends a sweep."""
    with pytest.raises(KeyboardInterrupt) as caught:
        _sweep(grid, seeds, **options)
    return caught.value.partial_result


@pytest.fixture(scope="module")
def base():
    return _sweep({"l2": [0.0, 1e-2], "learning_rate": np.array([1e-2, 3e-2])}, 2)


@pytest.fixture(scope="module")
def grown():
    """The same with more λs and seeds, and a learning rate that drives lanes to NaN."""
    with pytest.warns(RuntimeWarning, match=r"48 of 144 lanes diverged.*scores are NaN"):
        return _sweep({"l2": [1.0, 0.0, 1e-3, 1e-2], "learning_rate": [3e-2, 1e6, 1e-2]}, 3)


class FakeProgram:
    """Stands for a compiled program: every number of a lane's output is the lane's number."""

    calls_left: int | None = None  # raises KeyboardInterrupt after so many calls
    made = 0

    def __init__(self, function, plan, lanes, shared, *, owner):
        type(self).made += 1
        first = jax.tree.map(lambda leaf: leaf[0], lanes)
        self.shapes = jax.eval_shape(lambda *given: function(owner, *given), first, shared)
        self.plan, self.fingerprint, self.compile_seconds = plan, "none", 0.0
        self.compiled_now = True

    def calls(self):
        for call, start in enumerate(range(0, self.plan.num_lanes, self.plan.width)):
            if call == self.calls_left:
                raise KeyboardInterrupt
            self.numbers = np.arange(start, start + self.plan.width)
            yield self.numbers, np.minimum(self.numbers, self.plan.num_lanes - 1)

    def __call__(self, chunk, shared):
        def filled(leaf):
            numbers = self.numbers.reshape(-1, *[1] * leaf.ndim)
            return np.broadcast_to(numbers, (len(numbers), *leaf.shape)).astype(leaf.dtype)

        progress = jax.tree.map(filled, self.shapes)
        run = progress.run._replace(diverged_at=self.diverged_at(self.numbers))
        return progress._replace(run=run)

    def diverged_at(self, numbers):
        return np.full(len(numbers), -1)


@pytest.fixture
def fake(monkeypatch):
    program = type("Fake", (FakeProgram,), {})
    monkeypatch.setattr(COMPUTE, "Program", program)
    return program


# ---- one program for every value ------------------------------------------------------------------


def test_values_compile_nothing_anew(base, grown):
    (one, traced), (two, traced_again) = base, grown
    # whichever came first compiled, and the other took its program
    assert sorted([one.config["compilations"], two.config["compilations"]]) == [0, 1]
    assert min(traced, traced_again) == 0 < max(traced, traced_again)
    # the same program, to the letter: no value is written into it
    assert one.config["program_sha256"] == two.config["program_sha256"]


def test_dimensions_are_the_users_axes(base):
    metrics = base[0].metrics
    assert metrics.val_loss.dims == ("l2", "learning_rate", "seed", "fold")
    assert metrics.val_loss.shape == (2, 2, 2, 4)
    assert metrics.history_val_loss.dims == (*metrics.val_loss.dims, "epoch")
    assert metrics.ensemble_val_loss.dims == ("l2", "learning_rate", "fold")
    assert metrics.l2.dtype == metrics.learning_rate.dtype == np.float64
    assert metrics.val_loss.dtype == np.float64
    assert metrics.fold.values.tolist() == ["0", "1", "2", "all"]
    assert metrics.epoch.values.tolist() == [1, 2, 3, 4, 5, 6]
    assert metrics.fold_size.values.tolist() == [12, 12, 12, 0]
    assert metrics.fold_train_size.values.tolist() == [24, 24, 24, 36]
    assert bool(metrics.finished.all())
    assert (metrics.num_updates == 6).all()
    assert np.isnan(metrics.val_loss.sel(fold="all")).all()
    assert np.isfinite(metrics.val_loss.sel(fold=["0", "1", "2"])).all()
    nearest = metrics.val_loss.sel(l2=0.012, method="nearest")
    assert float(nearest.l2) == pytest.approx(1e-2)


def test_more_lambdas_and_seeds_leave_old_lanes_as_they_were(base, grown):
    one, two = base[0], grown[0]
    labels = [(lam, rate) for lam in (0.0, 1e-2) for rate in (1e-2, 3e-2)]
    for lam, rate in labels:
        for seed in (0, 1):
            for fold in ("0", "2", "all"):
                where = {"l2": lam, "learning_rate": rate, "seed": seed, "fold": fold}
                assert_same(one.params_at(**where), two.params_at(**where))
                for name in ("train_loss", "val_loss", "val_mae", "penalty_l2"):
                    old, new = (result.metrics[name].sel(where) for result in (one, two))
                    np.testing.assert_array_equal(old, new)


def test_diverged_lanes_are_marked_and_never_scored(grown):
    metrics = grown[0].metrics
    diverged = metrics.diverged_at >= 0
    assert (diverged == (metrics.learning_rate == 1e6)).all()
    assert np.isnan(metrics.train_loss.where(diverged, drop=True)).all()
    assert np.isnan(metrics.ensemble_val_loss.sel(learning_rate=1e6)).all()
    assert np.isfinite(metrics.train_loss.where(~diverged, drop=True)).all()
    params = grown[0].params_at(l2=0, learning_rate=1e6, seed=0, fold="0")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_a_lane_equals_the_run_alone(base):
    result = base[0]
    pairs = list(FOLDS.split(np.zeros(36)))
    run = jax.jit(TRAIN)(
        {"l2": 1e-2, "learning_rate": 3e-2},
        fold_of(pairs, sine(), 1, include_all=True),
        key=jax.random.fold_in(KEY, 1),
    )
    labels = {"l2": 1e-2, "learning_rate": 3e-2, "seed": 1, "fold": "1"}
    assert_same(result.params_at(**labels), run.params)
    np.testing.assert_array_equal(result.groups[0].predictions[1, 1, 1, 1], run.predictions)
    assert float(result.metrics.val_mae.sel(labels)) == float(run.metrics["val_mae"])


def test_ensemble_scores_equal_a_mean_prediction_by_hand(base):
    result, ys = base[0], np.asarray(sine().train.ys)
    for number, (_, rows) in enumerate(FOLDS.split(ys)):
        for at in ({"l2": 0, "learning_rate": 1}, {"l2": 1, "learning_rate": 0}):
            predictions = []
            for seed in (0, 1):
                params = result.params_at(
                    l2=[0.0, 1e-2][at["l2"]],
                    learning_rate=[1e-2, 3e-2][at["learning_rate"]],
                    seed=seed,
                    fold=str(number),
                )
                predictions.append(COUNTED.net.apply(params, sine().train.xs[rows]).outputs)
            errors = np.mean(predictions, axis=0) - ys[rows]
            measured = result.metrics.isel(at).sel(fold=str(number))
            np.testing.assert_allclose(
                measured.ensemble_val_loss, np.mean(errors**2), **tolerance(jnp.float32)
            )
            np.testing.assert_allclose(
                measured.ensemble_val_mae, np.abs(errors).mean(), **tolerance(jnp.float32)
            )
            # one network alone is worse than the mean of several (squared error is convex)
            assert measured.ensemble_val_loss <= measured.val_loss.mean("seed") + 1e-7


# ---- parameters by label --------------------------------------------------------------------------


def test_params_at_takes_labels(base):
    result = base[0]
    stacked = result.groups[0].params["layer_0"]["W_hh"]
    assert stacked.shape == (2, 2, 2, 4, 4, 4)
    at = result.params_at(l2=1e-2, learning_rate=1e-2, seed=1, fold=2)
    np.testing.assert_array_equal(at["layer_0"]["W_hh"], stacked[1, 0, 1, 2])
    on_all = result.params_at(l2=1e-2, learning_rate=1e-2, seed=1)  # "all" where there is one
    np.testing.assert_array_equal(on_all["layer_0"]["W_hh"], stacked[1, 0, 1, 3])
    near = result.params_at(l2=0.3, learning_rate=0.0, seed=0, fold=0, method="nearest")
    np.testing.assert_array_equal(near["layer_0"]["W_hh"], stacked[1, 0, 0, 0])
    outputs = COUNTED.net.apply(at, sine().train.xs).outputs
    assert outputs.shape == (36, 1)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"lam": 0}, "unknown dimension 'lam'; the sweep has"),
        ({"l2": 0, "learning_rate": 1e-2}, r"give a label for 'seed'; it has \[0, 1\]"),
        ({"l2": 5, "learning_rate": 1e-2, "seed": 0}, "l2=5 is not on the axis.*nearest"),
        ({"l2": 0, "learning_rate": 1e-2, "seed": 0, "fold": "9"}, "fold='9' is not on the axis"),
    ],
)
def test_labels_that_are_not_there_are_named(base, labels, message):
    with pytest.raises(ValueError, match=message):
        base[0].params_at(**labels)


def test_a_saved_result_comes_back_equal(base, tmp_path):
    result = base[0]
    path = result.save(tmp_path / "deep" / "sweep.nc")
    assert [p.name for p in path.parent.iterdir()] == ["sweep.nc"]
    back = rr.load_result(path)
    xr.testing.assert_equal(back.metrics, result.metrics)
    assert back.metrics.finished.dtype == bool
    assert back.config == result.config
    assert (back.plan, back.dims) == (result.plan, result.dims)
    assert_same(back.groups[0].params, result.groups[0].params)
    assert_same(back.groups[0].predictions, result.groups[0].predictions)
    labels = {"l2": 1e-2, "learning_rate": 3e-2, "seed": 1, "fold": "1"}
    assert_same(back.params_at(**labels), result.params_at(**labels))
    for name in ("environment", "program_sha256", "seconds_compute", "grid", "seeds", "updates"):
        assert name in back.config
    other = tmp_path / "other.nc"
    xr.Dataset({"a": 1}).to_netcdf(other, engine="h5netcdf")
    with pytest.raises(ValueError, match="not written by rnnreg"):
        rr.load_result(other)


def test_a_saved_result_is_one_tree_of_datasets(base, tmp_path):
    tree = xr.open_datatree(base[0].save(tmp_path / "sweep.nc"), engine="h5netcdf")
    assert set(tree.children) == {"params", "predictions"}
    group = base[0].groups[0]
    np.testing.assert_array_equal(
        tree["params/0/layer_0/W_hh"].values, group.params["layer_0"]["W_hh"]
    )
    np.testing.assert_array_equal(tree["predictions/0/targets"].values, group.targets)
    assert tree["val_loss"].dims == base[0].metrics.val_loss.dims
    tree.close()


@pytest.mark.slow
@pytest.mark.parametrize("record", [False, True])
def test_numbers_that_an_optimizer_shows_are_recorded(record):
    sgd = optax.inject_hyperparams(optax.sgd)(0.25) if record else optax.sgd(0.25)
    optimizer = optax.chain(optax.clip(1.0), sgd)
    result = rr.sweep(
        make(optimizer=optimizer, num_epochs=1), {"l2": [0.0]}, sine(), key=KEY, progress=False
    )
    (described,) = json.loads(json.dumps(result.config))["optimizer"]
    assert not described["function_of_hyper"]
    assert described["hyperparams"] == ([{"learning_rate": 0.25}] if record else [])


def test_a_result_says_what_its_runs_were(base):
    config = json.loads(json.dumps(base[0].config))
    (network,), (optimizer,), (penalties,) = (
        config[name] for name in ("network", "optimizer", "penalties")
    )
    cell = network["layers"][0]["cell"]
    assert (cell["factory"], cell["hidden_size"]) == ("elman", 4)
    assert (network["readout"], network["output_size"]) == ("last", 1)
    assert (network["function_of_hyper"], network["reads"]) == (False, [])
    assert (optimizer["function_of_hyper"], optimizer["reads"]) == (True, ["learning_rate"])
    assert penalties["l2"]["name"] == "l2"
    assert penalties["l2"]["covers"] == ["layer_0/W_hh", "layer_0/W_xh", "readout/W_hy"]
    assert config["loss"] == [
        {"name": "squared_error", "reduction": "mean", "mean_over_rows": True, "maximise": False}
    ]
    assert config["metrics"][0]["mae"]["name"] == "absolute_error"
    assert (config["data"][0]["train_rows"], config["data"][0]["scaling"]["all"]) == (36, None)
    assert config["start"] == [None]
    key = jax.random.wrap_key_data(
        jnp.asarray(config["key"]["data"], jnp.uint32), impl=config["key"]["impl"]
    )
    assert key == KEY


def test_a_digest_tells_data_apart(fake):
    def digest(split, **options):
        grid = {"l2": [0], "learning_rate": 1e-2}
        result = rr.sweep(make(), grid, split, key=KEY, progress=False, **options)
        return result.config["data"][0]

    split = sine()
    one = digest(split)
    assert one == digest(sine())
    assert (
        one["sha256"]
        != digest(split.replace(train=split.train._replace(ys=-split.train.ys)))["sha256"]
    )
    scaled = digest(rr.data.standardize(split), folds=KFold(2))
    assert len(scaled["units"]["y_scale"]) == 1
    shifts = [scaled["scaling"][fold]["y_shift"][0] for fold in ("0", "1")]
    assert shifts[0] != shifts[1]


@pytest.mark.slow
def test_every_lane_starts_from_given_parameters():
    params = NET.init(jax.random.key(1), 1)
    grid = {"l2": [0.0, 1e-2], "learning_rate": 1e-2}
    options = {"key": KEY, "params": params, "progress": False}
    result = rr.sweep(make(NET, num_epochs=1), grid, sine(), folds=FOLDS, refit=True, **options)
    fold = fold_of(list(FOLDS.split(np.zeros(36))), sine(), 1, include_all=True)
    hyper = {"l2": 1e-2, "learning_rate": 1e-2}
    key = jax.random.fold_in(KEY, 0)
    alone = jax.jit(make(NET, num_epochs=1))(hyper, fold, key=key, params=params)
    assert_same(result.params_at(l2=1e-2, fold="1"), alone.params)
    assert len(result.config["start"][0]) == 64
    choice = rr.selection.choose(result)
    with pytest.raises(ValueError, match="the sweep started from given parameters"):
        rr.selection.refit(make(NET), result, choice, sine(), key=KEY, rescale=True)
    final = rr.selection.refit(
        make(NET, num_epochs=1), result, choice, sine(), rescale=True, **options
    )
    assert final.config["start"] == result.config["start"]


# ---- static and zipped axes -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def static():
    """Two cells' sizes and depths, with λ and learning rate that change together."""

    def train(static):
        cells = [rr.cells.elman(static["hidden_size"])] * static["num_layers"]
        return make(rr.network(cells, 1, readout="last"), num_epochs=2 * static["num_layers"])

    grid = {"pair": rr.zipped(l2=[1e-2, 0.0, 1e-3], learning_rate=[1e-2, 2e-2, 2e-2])}
    axes = {"hidden_size": [3], "num_layers": [2, 1]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return train, rr.sweep(
            train, grid, held_out(sine(), 24), static=axes, key=KEY, seeds=[5], progress=False
        )


def test_static_axes_are_grouped_and_joined(static):
    result = static[1]
    assert result.config["compilations"] == 2
    assert [group.static["num_layers"] for group in result.groups] == [2, 1]
    metrics = result.metrics
    assert metrics.val_loss.dims == ("hidden_size", "num_layers", "pair", "seed")
    assert metrics.num_layers.values.tolist() == [2, 1]  # in the order given
    assert metrics.finished.dtype == bool
    assert np.isfinite(metrics.val_loss).all()
    # what one combination lacks is NaN: a second layer, later epochs
    depth = metrics["norm.layer_1.W_hh"]
    assert np.isnan(depth.sel(num_layers=1)).all()
    assert np.isfinite(depth.sel(num_layers=2)).all()
    assert metrics.epoch.values.tolist() == [1, 2, 3, 4]
    assert np.isnan(metrics.history_val_loss.sel(num_layers=1, epoch=3)).all()
    assert "layer_1" in result.params_at(num_layers=2, pair=0)


def test_what_is_selected_is_described_alone(static):
    result = static[1]
    assert result.config["num_epochs"] == [4, 2]
    for number, depth in enumerate([2, 1]):
        config = result.select(num_layers=depth).config
        assert len(config["network"][0]["layers"]) == depth
        for name in config["by_group"]:
            assert config[name] == [result.config[name][number]]
    assert "layer_1" not in result.params_at(num_layers=1, pair=0)
    with pytest.raises(ValueError, match="one value of each static axis"):
        result.params_at(pair=0)


def test_zipped_hyperparameters_change_together(static):
    train, result = static
    assert result.metrics.l2.dims == result.metrics.learning_rate.dims == ("pair",)
    assert result.metrics.l2.values.tolist() == [1e-2, 0.0, 1e-3]
    run = jax.jit(train({"hidden_size": 3, "num_layers": 1}))(
        {"l2": 1e-3, "learning_rate": 2e-2}, held_out(sine(), 24), key=jax.random.fold_in(KEY, 5)
    )
    assert_same(result.params_at(num_layers=1, pair=2), run.params)
    lane = result.metrics.isel(pair=2).sel(num_layers=1)
    assert float(lane.val_loss[0, 0]) == float(run.metrics["val_loss"])


def test_a_static_result_is_saved_too(static, tmp_path):
    result = static[1]
    back = rr.load_result(result.save(tmp_path / "static.nc"))
    xr.testing.assert_equal(back.metrics, result.metrics)
    assert back.config == result.config
    for one, two in zip(back.groups, result.groups, strict=True):
        assert one.static == two.static
        assert_same(one.params, two.params)


# ---- unequal folds, rates out of range -------------------------------------------------------------


@pytest.mark.slow
def test_every_fold_and_all_make_the_same_number_of_updates():
    folds = [(range(8), range(20, 30)), (range(12), range(20, 30))]
    train = make(num_epochs=2, batch_size=4)
    grid = {"l2": [0.0], "learning_rate": 1e-2}
    result = rr.sweep(train, grid, sine(), folds=folds, refit=True, key=KEY, progress=False)
    assert result.metrics.fold_train_size.values.tolist() == [8, 12, 36]
    # the longest fold sets the epoch: twelve rows in batches of four
    assert result.metrics.num_updates.values.reshape(-1).tolist() == [6, 6, 6]
    assert result.config["updates"] == [6]
    assert result.config["epoch_rows"] == [12]


def test_a_dropout_rate_out_of_range_diverges_at_once():
    def net(hyper):
        return rr.network([rr.cells.elman(4)], 1, readout="last", output_dropout=hyper["dropout"])

    grid = {"dropout": [-0.5, 0.0, 0.5, 1.0, 1.5], "l2": 0.0, "learning_rate": 1e-2}
    with pytest.warns(RuntimeWarning, match="3 of 5 lanes diverged"):
        result = rr.sweep(make(net, num_epochs=2), grid, sine(), key=KEY, progress=False)
    assert result.metrics.diverged_at.values[:, 0].tolist() == [0, -1, -1, 0, 0]
    assert np.isfinite(result.metrics.train_loss.values[:, 0]).tolist() == [0, 1, 1, 0, 0]


# ---- around the program (none is compiled below) --------------------------------------------------


def test_dry_run_says_what_would_be_done_and_compiles_nothing(monkeypatch):
    monkeypatch.setattr(COMPUTE, "Program", None)
    plan = rr.dry_run(
        lambda static: make(rr.network([rr.cells.gru(static["hidden_size"])], 1, readout="last")),
        {"l2": [0, 1e-3, 1e-2], "learning_rate": 1e-2},
        sine(),
        seeds=4,
        folds=rr.selection.blocked_folds(3),
        refit=True,
        static={"hidden_size": [2, 3]},
        key=KEY,
    )
    assert plan.lanes == 2 * 3 * 4 * 4
    assert plan.compilations == 2
    assert plan.updates == (6,)
    assert plan.bytes > 0
    assert plan.seconds > 0
    text = str(plan)
    assert plan.seconds > plan.seconds_compile > 0
    for words in ("96 lanes", "6 updates each", "2 compilation(s)", "MiB", "s of compiling and"):
        assert words in text
    assert text.count("48 lanes, one by one on") == 2


def test_a_dry_run_knows_which_lanes_run_in_turn():
    """On one device lanes in chunks, or with split rows, take no less than one after another."""

    def seconds(plan):
        options = {"plan": plan, "chunk": 2 if plan == "chunks" else None}
        grid = {"l2": [0, 1e-3, 1e-2, 1e-1], "learning_rate": 1e-2}
        return rr.dry_run(make(), grid, sine(), key=KEY, **options).seconds

    alone = seconds("one_by_one")
    assert seconds("chunks") == seconds("split_rows") == alone > seconds("vmap")


def test_rows_of_an_embedding_that_no_token_picks_cost_no_time():
    tokens = rr.Split(rr.Batch(jnp.zeros((4, 5), int), jnp.zeros((4, 5, 1))))

    def seconds(num_tokens):
        net = rr.network([rr.cells.elman(3)], 1, embedding=(num_tokens, 2))
        return rr.dry_run(make(net), {"l2": 0.0, "learning_rate": 1e-2}, tokens, key=KEY).seconds

    assert seconds(2) == seconds(10_000)


def test_ctrl_c_ends_a_script(fake):
    fake.calls_left = 2
    with pytest.raises(KeyboardInterrupt) as caught:
        _sweep({"l2": [0, 1e-3, 1e-2], "learning_rate": 1e-2}, 2)
    said = "2 of 24 lanes are finished: error.partial_result has them."
    assert caught.value.__notes__ == [said]
    assert int(caught.value.partial_result.metrics.finished.sum()) == 2
    with pytest.raises(ValueError, match="on_interrupt must be 'raise' or 'return'"):
        _sweep({"l2": [0], "learning_rate": 1e-2}, 1, on_interrupt="ignore")


def test_ctrl_c_returns_what_is_finished_if_asked(fake):
    fake.calls_left = 2
    grid = {"l2": [0, 1e-3, 1e-2], "learning_rate": 1e-2}
    options = {"folds": KFold(3), "refit": False, "width": 2}
    with pytest.warns(RuntimeWarning, match="interrupted: 4 of 18 lanes are finished") as caught:
        result, _ = _sweep(grid, 2, on_interrupt="return", **options)
    assert "test_sweep" in caught[0].filename
    # a whole path of λ of the first seed and fold, its ends first, and a part of the next
    losses = result.metrics.train_loss.transpose("seed", "fold", "l2").values.reshape(-1)
    np.testing.assert_array_equal(losses[:4], [0, 2, 1, 3])
    assert np.isnan(losses[4:]).all()
    finished = result.metrics.finished
    np.testing.assert_array_equal(finished, np.isfinite(result.metrics.train_loss))
    assert result.config["interrupted"]
    result.params_at(l2=1e-2, seed=0, fold="0")
    with pytest.raises(ValueError, match="did not finish"):
        result.params_at(l2=1e-2, seed=0, fold="1")
    assert np.isnan(result.metrics.ensemble_val_loss).all()  # one seed of two
    assert "SweepResult: 18 lanes, 4 finished, l2 (3)" in repr(result)
    predicted = result.predict(sine().train, network=NET, seed=0)
    np.testing.assert_array_equal(np.isnan(predicted).all(["row", "output"]), ~finished.sel(seed=0))
    assert np.isfinite(predicted.sel(l2=1e-2, fold="0")).all()
    assert result.forecast(sine().train, 2, network=NET, l2=0, seed=1, fold=0).isnull().all()


@pytest.mark.parametrize(
    ("calls", "seeds", "folds"), [(3, [0], ["0", "1", "2"]), (2, [0], ["0", "1"])]
)
def test_a_sweep_that_was_interrupted_serves_a_choice(fake, calls, seeds, folds):
    fake.calls_left = calls
    grid = {"l2": [1e-3, 0, 1e-2], "learning_rate": 1e-2}
    result = _part(grid, 2, refit=False, width=4)
    with pytest.raises(
        ValueError, match=r"only . of 2 seeds and . of 3 folds are.*unfinished=True"
    ):
        rr.selection.choose(result)
    said = rf"{len(seeds)} of 2 seeds and {len(folds)} of 3 folds are compared"
    with pytest.warns(RuntimeWarning, match=said) as caught:
        choice = rr.selection.choose(result, unfinished=True)
    assert "test_sweep" in caught[0].filename
    # the loss of a lane says when it ran: 0 and 1e-2, the ends of the path, came first
    in_turn = 3 * np.arange(len(folds)) + np.array([[2], [0], [1]])
    np.testing.assert_array_equal(choice.curve.folds, in_turn)
    assert (choice.lam, choice.curve.fold_sizes.size) == (0.0, len(folds))
    assert said in choice.warnings[0]
    if calls == 3:  # both seeds have the first fold
        with pytest.warns(RuntimeWarning, match="2 of 2 seeds and 1 of 3 folds"):
            choice = rr.selection.choose(result, combine="ensemble", unfinished=True)
        assert choice.curve.fold_sizes.size == 1
    else:
        with pytest.raises(ValueError, match=r"and every seed, so .* combine='mean', which"):
            rr.selection.choose(result, combine="ensemble")


def test_a_sweep_that_was_interrupted_too_early_compares_nothing(fake):
    fake.calls_left = 2
    result = _part({"l2": [0, 1e-3, 1e-2], "learning_rate": 1e-2}, 2, refit=False)
    with pytest.raises(ValueError, match="after 2 of 18 lanes, and no fold of a seed is finished"):
        rr.selection.choose(result)


def test_lanes_all_that_did_not_finish_are_trained_by_the_refit(fake):
    fake.calls_left = 9
    grid = {"l2": [0, 1e-3, 1e-2], "learning_rate": 1e-2}
    result = _part(grid, 1)
    choice = rr.selection.choose(result)  # all folds are finished, and "all" is none of them
    fake.calls_left = None
    final = rr.selection.refit(TRAIN, result, choice, sine(), key=KEY, progress=False)
    assert final.metrics.finished.all()


def test_a_grid_may_be_empty(fake):
    result = rr.sweep(
        make(penalties={}, optimizer=optax.sgd(0.1)),
        {},
        sine(),
        seeds=2,
        folds=FOLDS,
        key=KEY,
        progress=False,
    )
    assert result.dims == ("seed", "fold")
    assert result.metrics.finished.all()
    with pytest.raises(ValueError, match="no axis of numbers to choose over"):
        rr.selection.choose(result)


def test_ctrl_c_does_not_wait_for_a_compilation():
    release = threading.Event()
    interrupt = threading.Timer(0.1, signal.raise_signal, [signal.SIGINT])
    # a shell starts what runs in its background with SIGINT ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupt.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            _program._interruptible(lambda: release.wait(60))
    finally:
        release.set()
        signal.signal(signal.SIGINT, before)
    assert _program._interruptible(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        _program._interruptible(lambda: 1 / 0)


def test_ctrl_c_also_ends_the_other_static_combinations(fake):
    fake.calls_left = 0
    with pytest.warns(RuntimeWarning, match="0 of 2 lanes"):
        result = rr.sweep(
            lambda static: make(rr.network([rr.cells.elman(static["size"])], 1, readout="last")),
            {"l2": [0], "learning_rate": 1e-2},
            sine(),
            static={"size": [2, 3]},
            key=KEY,
            progress=False,
            on_interrupt="return",
        )
    assert fake.made == 1
    assert not result.metrics.finished.any()


def test_lanes_are_labelled_in_order(fake):
    result, _ = _sweep(
        {"l2": [0, 1e-3], "learning_rate": [1e-2, 2e-2, 3e-2]}, [4, 2], width=5, refit=False
    )
    # by seed and fold; then l2 × learning_rate, whose middle runs last
    in_turn = 6 * np.arange(6).reshape(2, 3, 1, 1) + np.array([[0, 4, 1], [2, 5, 3]])
    expected = in_turn.transpose(2, 3, 0, 1)
    np.testing.assert_array_equal(result.metrics.train_loss, expected)
    assert result.metrics.seed.values.tolist() == [4, 2]
    W_hh = result.params_at(l2=1e-3, learning_rate=2e-2, seed=2, fold="1")["layer_0"]["W_hh"]
    np.testing.assert_array_equal(W_hh, np.full((4, 4), expected[1, 1, 1, 1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folds", "sizes", "train_sizes"),
    [
        (TimeSeriesSplit(3), [9, 9, 9], [9, 18, 27]),
        (KFold(5, shuffle=True, random_state=0), [8, 7, 7, 7, 7], [28, 29, 29, 29, 29]),
        ([(range(10), [11, 12])], [2], [10]),
        (iter([(range(10), [11, 12])]), [2], [10]),
        (lambda split: [(np.arange(len(split.train.ys) - 1), [35])], [1], [35]),
    ],
)
def test_folds_may_be_anything_that_yields_rows(fake, folds, sizes, train_sizes):
    result, _ = _sweep({"l2": [0], "learning_rate": [1e-2]}, 1, folds=folds, refit=False)
    assert result.metrics.fold_size.values.tolist() == sizes
    assert result.metrics.fold_train_size.values.tolist() == train_sizes


def test_folds_that_leak_are_warned_about_at_the_callers_line(fake):
    with pytest.warns(RuntimeWarning, match="share target times") as caught:
        rr.sweep(
            make(rr.network([rr.cells.elman(2)], 1)),
            {"l2": [0], "learning_rate": 1e-2},
            sine(targets="all"),
            folds=KFold(2),
            key=KEY,
            progress=False,
        )
    assert "test_sweep" in caught[0].filename


def test_bfloat16_results_are_stored_in_float32(fake, tmp_path):
    result = rr.sweep(
        make(),
        {"l2": [0], "learning_rate": 1e-2},
        held_out(sine(dtype=jnp.bfloat16), 24),
        key=KEY,
        progress=False,
    )
    assert result.groups[0].predictions.dtype == np.float32
    rr.load_result(result.save(tmp_path / "bfloat16.nc"))


def test_a_hyperparameter_read_with_a_default_counts_as_read(fake):
    train = make(optimizer=lambda hyper: optax.sgd(hyper.get("learning_rate", 0.1)))
    rr.sweep(train, {"l2": [0], "learning_rate": [1e-2]}, sine(), key=KEY, progress=False)
    rr.sweep(train, {"l2": [0]}, sine(), key=KEY, progress=False)


def test_a_closing_bar_is_silent_when_short(fake, capsys):
    rr.sweep(make(), {"l2": [0], "learning_rate": 1e-2}, sine(), key=KEY)
    assert "lane" not in capsys.readouterr().err


def test_a_bar_shows_that_it_compiles():
    class Bar:
        delay, disable, shown = 0.01, False, 0

        def refresh(self):
            self.shown += 1
            seen.set()

    bar, seen = Bar(), threading.Event()
    with _bar._shown(bar):
        assert seen.wait(60)
    assert (bar.shown, bar.delay) == (1, 0)  # and a bar that was shown is closed as one
    hidden = Bar()
    hidden.disable = True
    with _bar._shown(hidden):
        pass
    assert hidden.shown == 0


def test_an_ensemble_with_a_diverged_seed_scores_nothing(fake, monkeypatch):
    def hits(outputs, ys, mask=None, weights=None):
        """Finite on NaN, as argmax is."""
        return jnp.mean((outputs > 0) == (ys > 0), dtype=jnp.float32)

    def diverged_at(self, numbers):
        return np.where(numbers == 5, 3, -1)

    monkeypatch.setattr(fake, "diverged_at", diverged_at)
    grid = {"l2": [0, 1e-3, 1e-2], "learning_rate": 1e-2}
    with pytest.warns(RuntimeWarning, match="1 of 12 lanes diverged"):
        result = rr.sweep(
            make(metrics={"hits": hits}),
            grid,
            sine(),
            seeds=2,
            folds=KFold(2),
            width=3,
            key=KEY,
            progress=False,
        )
    for name in (
        "ensemble_val_loss",
        "ensemble_val_hits",
    ):  # the last of a path: second λ, first seed, second fold
        alive = np.isfinite(result.metrics[name].values).tolist()
        assert alive == [[True, True], [True, False], [True, True]], name


@pytest.mark.parametrize("fields", [{"mask": (36, 4)}, {"weights": (36,)}])
def test_a_fold_of_padding_alone_is_refused(fields):
    ((name, shape),) = fields.items()
    split = sine()
    batch = split.train._replace(**{name: jnp.ones(shape).at[:6].set(0)})
    grid = {"l2": [0], "learning_rate": 1e-2}

    def dry(pairs):
        rr.dry_run(make(), grid, split.replace(train=batch), folds=pairs, key=KEY)

    whole = (range(12, 36), range(6, 12))
    with pytest.raises(ValueError, match="fold 1 leaves nothing to validate on: all its rows"):
        dry([whole, (range(6, 36), range(6))])
    with pytest.raises(ValueError, match="fold 0 leaves nothing to train on: all its rows"):
        dry([(range(6), range(6, 36)), whole])
    dry([whole, (range(6, 30), [0, 35])])  # one true row is enough


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"l2": rr.zipped(l2=[0, 1], learning_rate=[1, 2])}, "'l2' has the name of one of its"),
        ({"l2/W_hh": [0, 1]}, "'l2/W_hh' cannot name an axis"),
        ({"train_loss": [0, 1]}, "'train_loss' is a reserved axis name"),
        ({"finished": [0, 1]}, "'finished' is a reserved axis name"),
        ({"pair": rr.zipped(l2=[0, 1], val_loss=[1, 2])}, "'val_loss' is a reserved axis name"),
    ],
)
def test_names_that_would_hide_something_are_refused(grid, message):
    with pytest.raises(ValueError, match=message):
        rr.dry_run(make(), grid, sine(), key=KEY)


@pytest.mark.parametrize(
    "space",
    [
        jnp.logspace(-4, -1, 4),
        jnp.geomspace(1e-4, 1e-1, 4),
    ],
)
def test_float32_grids_are_labelled_with_the_decimals_that_were_meant(fake, space):
    grid = {"l2": space.astype(jnp.float32), "learning_rate": 1e-2}
    result = rr.sweep(make(), grid, sine(), key=KEY, progress=False)
    assert result.metrics.l2.values.tolist() == [1e-4, 1e-3, 1e-2, 1e-1]
    assert float(result.metrics.train_loss.sel(l2=1e-3)[0]) == 2  # the third to run


def test_rows_are_split_unasked_only_where_sums_of_parts_are_equal(monkeypatch):
    """A mean over rows, without dropout and without a penalty on states."""
    seen = []
    make_plan = _job.make_plan

    def noted(*arguments, step_operations, **options):
        seen.append(step_operations > 0)
        return make_plan(*arguments, step_operations=0.0, **options)

    monkeypatch.setattr(_job, "make_plan", noted)
    cells = [rr.cells.elman(4)]
    plain, dropped = (rr.network(cells, 1, readout="last", dropout=rate) for rate in (0, 0.1))
    on_states = rr.penalties.Penalty(
        init=lambda params: (),
        value=lambda params, context, state: (jnp.sum(context.states["layer_0"].h ** 2), state),
        needs=frozenset({"states"}),
    )

    def squared(outputs, ys, mask=None, weights=None):
        return jnp.sum((outputs - ys) ** 2)

    mean = rr.losses.squared_error()
    cases = [(plain, mean, None), (dropped, mean, None), (plain, squared, None)]
    for net, loss, penalty in [*cases, (plain, mean, on_states)]:
        train = rr.make_train(
            net,
            loss=loss,
            penalties={"p": penalty or rr.penalties.l2()},
            optimizer=optax.sgd(0.1),
            num_epochs=1,
        )
        rr.dry_run(train, {"p": 1e-3}, sine(), key=KEY)
    assert seen == [True, False, False, False]
