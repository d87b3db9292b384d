"""A result afterwards: printed, saved whatever its names, and used in a process that trained nothing."""

import gc
import io
import os
import re
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SEED, tolerance
from sklearn.model_selection import KFold
from small import held_out, make, sine
from test_runtime import python

import rnnreg as rr
from rnnreg.sweeps._files import tree_of

KEY = jax.random.key(SEED)
NET = rr.network([rr.cells.gru(3)], 1, readout="last", dropout=0.0)
GRID = {"l2": [0.0, 1e-2], "learning_rate": 1e-2}
SPLIT = rr.data.standardize(sine().replace(train=sine().train._replace(ys=5 + 3 * sine().train.ys)))


@pytest.fixture(scope="module")
def result():
    options = {"folds": KFold(3), "refit": True, "key": KEY, "progress": False}
    return rr.sweep(make(NET, num_epochs=2), GRID, SPLIT, **options)


# ---- predictions ----------------------------------------------------------------------------------


def test_a_lane_predicts_as_it_was_scored_in_its_own_scaling(result):
    for number, (_, rows) in enumerate(KFold(3).split(np.zeros(36))):
        batch = rr.data.take_rows(SPLIT.train, rows)
        predicted = result.predict(batch, l2=1e-2, fold=number)
        stored = result.groups[0].predictions[1, 0, number][: len(rows)]
        np.testing.assert_allclose(predicted, stored, **tolerance())
        loss = np.mean((predicted - batch.ys) ** 2)
        scored = result.metrics.val_loss.sel(l2=1e-2, seed=0, fold=str(number))
        np.testing.assert_allclose(loss, scored, **tolerance())
        part = result.select(l2=1e-2).select(fold=str(number))
        np.testing.assert_array_equal(part.predict(batch.xs), predicted)
        params = result.params_at(l2=1e-2, fold=number)
        assert np.abs(NET.apply(params, batch.xs).outputs - predicted).max() > 1e-3


def test_all_lanes_of_a_dimension_left_out_predict(result):
    every = result.predict(SPLIT.train)  # of the lanes "all", as params_at takes them
    assert every.dims == ("l2", "row", "output")
    np.testing.assert_array_equal(every.l2, result.metrics.l2)
    np.testing.assert_array_equal(every.sel(l2=1e-2), result.predict(SPLIT.train, l2=1e-2))
    folds = result.select(fold="all").predict(SPLIT.train, l2=0)
    np.testing.assert_array_equal(every.sel(l2=0), folds)


def test_original_units_go_in_and_come_out(result):
    units, raw = SPLIT.units, sine().train.xs
    own = result.predict(raw, l2=0, inputs="original", outputs="original").values
    scaled = result.predict(SPLIT.train, l2=0, network=NET).values
    np.testing.assert_allclose(own, scaled * units.y_scale + units.y_shift, **tolerance(loosen=10))
    with pytest.raises(ValueError, match="outputs must be 'scaled' or 'original'; got 'own'"):
        result.predict(raw, l2=0, outputs="own")


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("inputs", ["scaled", "original"])
def test_rows_with_other_features_than_in_training_are_refused(known, inputs, size):
    xs, future = np.ones((2, 5, size)), np.ones((2, 3, 1))
    result, labels = known[0], {"l2": 0, "seed": 0, "fold": 0, "inputs": inputs}
    message = rf"parameters .* inputs of shape \(2, 5, {size}\)"
    with pytest.raises(ValueError, match=message):
        result.predict(xs, **labels)
    with pytest.raises(ValueError, match=message):
        result.forecast(xs, 3, future=future, **labels)
    with pytest.raises(ValueError, match=r"future must be .* = \(2, 3, 1\)|as many features"):
        result.forecast(np.ones((2, 5, 2)), 3, future=np.ones((2, 3, size + 1)), **labels)


# ---- forecasts ------------------------------------------------------------------------------------

KNOWN = rr.network([rr.cells.elman(3)], 1, readout="last")
STEPS = np.arange(48.0)
SERIES = np.stack([300 + np.sin(STEPS) + STEPS / 8, 5 * (STEPS % 7)], axis=1)


@pytest.fixture(scope="module")
def known():
    """A trend whose folds have scalings of their own, next to a known weekday."""
    batch, times = rr.data.windows(SERIES, window=4)
    split = rr.data.standardize(rr.Split(batch._replace(ys=batch.ys[:, :1]), target_times=times))
    options = {"folds": KFold(3), "seeds": 2, "key": KEY, "progress": False}
    return rr.sweep(make(KNOWN, num_epochs=2), GRID, split, **options), split


def test_a_lane_is_evaluated_as_it_was_scored_with_its_own_scaling(known):
    result, split = known
    lane = {"l2": 0, "seed": 0, "fold": "1"}
    rows = np.array_split(np.arange(len(split.train.xs)), 3)[1]  # KFold deals blocks
    batch = jax.tree.map(lambda leaf: leaf[rows], split.train)
    own = {"loss": rr.losses.squared_error(), "scaling": result.scaling_at(**lane)}
    found = rr.evaluate(KNOWN, result.params_at(**lane), batch, **own)
    expected = float(result.metrics["val_loss"].sel(lane))
    np.testing.assert_allclose(found["loss"], expected, **tolerance(loosen=10))


def test_rows_that_no_network_of_the_result_has_seen_the_like_of(known):
    result, split = known
    lane = {"l2": 0, "seed": 0, "fold": "1"}
    bad = np.array(split.train.xs[:2])
    bad[1, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"1 values that are NaN or infinite.*mask="):
        result.predict(bad, **lane)
    mask = np.ones(bad.shape[:2])
    mask[1, 0] = 0
    result.predict(rr.Batch(bad, None, mask), **lane)
    with pytest.warns(RuntimeWarning, match='want inputs="original"'):
        result.predict(split.train.xs[:2] + 40, **lane)


@pytest.mark.parametrize("window", [None, 4])
def test_a_lane_forecasts_as_a_loop_of_predictions_by_hand(known, window):
    result, split = known
    past, future = SERIES[None, -8:], np.array([[[30.0], [0.0], [5.0]]])
    labels = {"l2": 1e-2, "seed": 1, "fold": "2"}
    options = {"window": window, "inputs": "original", "outputs": "original"}
    found = result.forecast(past, 3, future=future, **options, **labels)
    assert found.dims == ("row", "step", "output")
    units, fold = split.units, result.scaling_at(**labels)
    whole = rr.Scaling(
        fold.x_shift * units.x_scale + units.x_shift,
        fold.x_scale * units.x_scale,
        fold.y_shift * units.y_scale + units.y_shift,
        fold.y_scale * units.y_scale,
    )
    seen = (past - whole.x_shift) / whole.x_scale
    ahead = (future - whole.x_shift[1:]) / whole.x_scale[1:]
    own = result.params_at(**labels)
    back = {"scaling": whole, "outputs": "original"}
    expected = rr.forecast(KNOWN, own, seen, 3, window=window, future=ahead, **back)
    np.testing.assert_allclose(found, expected, **tolerance(loosen=10))
    # in the units of the split's arrays
    scaled = result.forecast(
        (past - units.x_shift) / units.x_scale,
        3,
        window=window,
        future=(future - units.x_shift[1:]) / units.x_scale[1:],
        **labels,
    )
    np.testing.assert_allclose(
        scaled * units.y_scale + units.y_shift, found, **tolerance(loosen=10)
    )
    if window:  # each step is a prediction of the last rows, its value written behind them
        for step in range(3):
            value = result.predict(
                past[:, -4:], inputs="original", outputs="original", **labels
            ).values
            np.testing.assert_allclose(found[:, step], value, **tolerance(loosen=10))
            new = np.concatenate([value, future[:, step]], axis=1)[:, None]
            past = np.concatenate([past, new], axis=1)


def test_all_lanes_left_out_forecast_and_so_they_do_from_a_file(known, tmp_path):
    result, split = known
    batch = rr.data.take_rows(split.train, np.arange(2))
    batch = batch._replace(mask=np.array([[1, 1, 1, 1], [1, 1, 0, 0.0]]))
    options = {"future": np.zeros((2, 3, 1)), "window": 3}
    every = result.forecast(batch, 3, **options, fold=0)
    assert every.dims == ("l2", "seed", "row", "step", "output")
    assert every.name == "forecast"
    one = result.forecast(
        batch.xs, 3, mask=batch.mask, network=KNOWN, **options, l2=0, seed=1, fold=0
    )
    np.testing.assert_array_equal(every.sel(l2=0, seed=1), one)
    loaded = rr.load_result(result.save(tmp_path / "result.nc"))
    np.testing.assert_array_equal(loaded.forecast(batch, 3, **options, fold=0), every)
    part = loaded.select(fold="0", l2=0).forecast(batch, 3, **options)
    np.testing.assert_array_equal(part, every.sel(l2=0))


def test_a_program_of_a_forecast_lives_no_longer_than_its_network(known):
    result, split = known
    net = rr.network([rr.cells.elman(3)], 1, readout="last")
    options = {"future": np.zeros((1, 2, 1)), "l2": 0, "seed": 0, "fold": 0}
    result.forecast(split.train.xs[:1], 2, network=net, **options)
    alive = weakref.ref(net.apply)
    del net
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize(("options", "message"), [
    ({"num_steps": 0}, "num_steps must be at least 1"),
    ({"window": 9}, r"window must lie in 1 … 4"),
    ({"window": [4]}, r"window must be a whole number or None; got"),
    ({"future": None}, "known beforehand go last in xs"),
    ({"inputs": "own"}, "inputs must be 'scaled' or 'original'; got 'own'"),
    ({"mask": np.ones((1, 2))}, r"mask must be \[B, T\] = \(1, 4\)"),
])  # fmt: skip
def test_forecasts_of_a_lane_whose_parts_do_not_fit_are_named(known, options, message):
    given = {"num_steps": 2, "future": np.zeros((1, 2, 1)), "l2": 0, "seed": 0, "fold": 0}
    with pytest.raises(ValueError, match=message):
        known[0].forecast(np.ones((1, 4, 2)), **given | options)


def test_a_saved_result_predicts_in_a_new_process(result, tmp_path):
    path = result.save(tmp_path / "result.nc")
    np.save(tmp_path / "xs.npy", SPLIT.train.xs)
    out, _ = python(
        "import numpy as np, rnnreg as rr\n"
        f"result = rr.load_result({str(path)!r})\n"
        f"predicted = result.predict(np.load({str(tmp_path / 'xs.npy')!r}), l2=0.01, fold=1)\n"
        "print(float(predicted.astype(float).sum()))",
        JAX_ENABLE_X64=str(int(jax.config.jax_enable_x64)),
    )
    expected = float(result.predict(SPLIT.train, l2=0.01, fold=1).astype(float).sum())
    np.testing.assert_allclose(float(out), expected, **tolerance(loosen=10))


def same_outputs(net, rebuilt, xs, mask=None):
    size = None if xs.ndim == 2 else xs.shape[-1]
    params = jax.jit(net.init, static_argnums=1)(jax.random.key(1), size)
    one, two = (jax.jit(each.apply)(params, xs, mask=mask).outputs for each in (net, rebuilt))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    "net",
    [
        rr.network([rr.cells.elman(3, activation="relu"), rr.cells.lstm(2)], 2, dropout=0.3),
        rr.network([rr.layer(rr.cells.gru(2, reset="before"), bidirectional=True)], None),
        rr.network([rr.layer(rr.cells.irnn(2), repeat=2)], 1, readout="last", remat=2, truncate=2),
        rr.network(
            [rr.cells.chrono(rr.cells.lstm(2), longest=5)],
            1,
            initial_state="learned",
            backend="scan",
        ),
        rr.network([rr.cells.gru(2, recurrent_bias=False)], 5, embedding=(5, 2)),
    ],
)
def test_a_network_is_made_again_from_its_description(net):
    rebuilt = rr.networks.rebuild(rr.networks.describe(net))
    tokens = net.apply.embedding is not None
    xs = jnp.ones((2, 4), int) if tokens else jnp.ones((2, 4, 2))
    same_outputs(net, rebuilt, xs)
    assert rebuilt.recurrence == net.recurrence
    assert not rebuilt.random


def tanh(z):
    return jnp.tanh(2 * z)


def leaky(params, state, x):
    return state._replace(h=0.5 * state.h + x @ params["W_xh"])


def leaky_init(key, input_size, dtype):
    return {"W_xh": jnp.ones((input_size, 3), dtype)}


@pytest.mark.parametrize(
    ("net", "why"),
    [
        (
            rr.network([rr.cells.from_step(leaky, init=leaky_init, hidden_size=3)], 1),
            "'custom' is not one of elman, gru, lstm",
        ),
        (
            rr.network([rr.cells.elman(3, activation=tanh)], 1),
            r"function of your own \(activation\)",
        ),
        (
            rr.network([rr.cells.elman(3)._replace(gate=lambda p, s, x, h: s._replace(h=x))], 1),
            "a part that was replaced",
        ),
        (NET._replace(apply=lambda *given, **options: NET.apply(*given, **options)), "a function"),
    ],
)
def test_what_cannot_be_made_again_is_said(net, why):
    with pytest.raises(ValueError, match=why):
        rr.networks.rebuild(rr.networks.describe(net))


def test_an_own_cell_predicts_with_the_network_that_was_trained():
    cell = rr.cells.from_step(leaky, init=leaky_init, hidden_size=3)
    net = rr.network([cell], 1, readout="last")
    split = sine()
    result = rr.sweep(
        make(net, num_epochs=1), {"l2": 0.0, "learning_rate": 1e-2}, split, key=KEY, progress=False
    )
    with pytest.raises(
        ValueError, match=r"cannot be made again.*result.predict\(batch, network=net\)"
    ):
        result.predict(split.train)
    expected = net.apply(result.params_at(), split.train.xs).outputs
    np.testing.assert_allclose(result.predict(split.train, network=net), expected, **tolerance())
    with pytest.raises(ValueError, match="the lane has the parameters"):
        result.predict(split.train, network=NET)
    with pytest.raises(ValueError, match=r"network must be a Network .*got a dict"):
        result.predict(split.train, network={})


# ---- print ----------------------------------------------------------------------------------------


def test_a_result_says_in_a_few_lines_what_is_in_it(result):
    text = str(result)
    for words in (
        "SweepResult: 8 lanes, l2 (2) x seed (1) x fold (4)",
        "0, 1, 2, all",
        "gru(3) -> 1, readout last",
        "36 rows, sha256",
        f"rnnreg {result.config['environment']['rnnreg']}",
    ):
        assert words in text
    assert len(text.splitlines()) < 15
    assert "diverged" not in text
    assert "<pre>SweepResult" in result._repr_html_()
    metrics = result.metrics.copy()
    metrics["diverged_at"] = metrics.diverged_at.copy()
    metrics.diverged_at[{"l2": 1, "seed": 0, "fold": slice(0, 2)}] = 3
    frozen = rr.SweepResult(metrics, result.groups, result.config | {"chosen": {"l2": 0.01}}, "")
    assert "2 of 8: l2=0.01 seed=0 fold=0; l2=0.01 seed=0 fold=1" in repr(frozen)
    assert re.search(r"chosen +l2=0.01", repr(frozen))


def test_a_result_of_anything_can_be_printed(result):
    import xarray as xr

    assert repr(rr.SweepResult(xr.Dataset(), (), {}, "")) == "SweepResult: 1 lane, no axes"
    one = result.select(l2=0, seed=0, fold="all")
    assert re.search(
        r"1 lane, no axes\n.*network.*\n.*\n.*\n +selected +l2=0, seed=0, fold=all", repr(one)
    )


def test_whatever_is_printed_can_be_printed_anywhere(result):
    choice = rr.selection.choose(result)
    dry = rr.dry_run(make(NET), GRID, SPLIT, key=KEY)
    assert "λ" in " ".join(choice.warnings)
    for encoding in ("cp1252", "ascii"):
        out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        for one in (choice, result, dry, dry.plans[0], result.plan):
            print(one, repr(one), file=out)
    assert repr(dry) == str(dry)


# ---- files ----------------------------------------------------------------------------------------


def of_tree(build, read):
    """A network whose cell keeps its two arrays in a tree of its own."""

    def step(params, state, x):
        w, u = read(params)
        return state._replace(h=jnp.tanh(state.h * u + x @ w))

    def init(key, input_size, dtype):
        return build(jnp.ones((input_size, 3), dtype), jnp.arange(3, dtype=dtype))

    cell = rr.cells.from_step(step, init=init, hidden_size=3, recurrent=())
    return rr.network([cell], 1, readout="last")


TREES = {
    "dots": (lambda w, u: {"a.weight": w, "a.weight.0": u}, lambda p: p.values()),
    "slash": (lambda w, u: {"a/w": w, "..": u}, lambda p: (p["a/w"], p[".."])),
    "empty and strange": (lambda w, u: {"": w, "%2f λ:": u}, lambda p: (p[""], p["%2f λ:"])),
    "list": (lambda w, u: {"ws": [w, u]}, lambda p: p["ws"]),
    "nested": (
        lambda w, u: {"ws": ({"a": w}, [u, None])},
        lambda p: (p["ws"][0]["a"], p["ws"][1][0]),
    ),
    "numbers": (lambda w, u: {0: w, 1: u}, lambda p: (p[0], p[1])),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TREES)
def test_a_tree_of_any_names_comes_back(name, tmp_path):
    train = make(of_tree(*TREES[name]), num_epochs=1)
    grid = {"l2": 0.0, "learning_rate": 1e-2}
    result = rr.sweep(train, grid, sine(8), key=KEY, progress=False)
    loaded = rr.load_result(result.save(tmp_path / "tree.nc"))
    one, two = result.params_at(), loaded.params_at()
    assert jax.tree.structure(one) == jax.tree.structure(two)
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_a_tree_that_no_file_holds_is_refused_before_it_is_trained():
    class Own(dict):
        pass

    jax.tree_util.register_pytree_node(
        Own,
        lambda d: (tuple(d.values()), tuple(d)),
        lambda keys, values: Own(zip(keys, values, strict=True)),
    )
    net = of_tree(lambda w, u: {"own": Own(w=w, u=u)}, lambda p: p["own"].values())
    with pytest.raises(ValueError, match=r"nested dicts, lists and tuples of arrays.*got Own"):
        rr.dry_run(make(net), GRID, sine(8), key=KEY)
    with pytest.raises(ValueError, match="two parameters have one path"):
        tree_of({"a/b": jnp.ones(1), "a": {"b": jnp.ones(1)}})


def test_a_path_may_begin_at_the_home_folder(result, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    path = result.save("~/runs/sine.nc")
    assert path == tmp_path / "runs" / "sine.nc"
    assert os.listdir(tmp_path / "runs") == ["sine.nc"]
    assert rr.load_result("~/runs/sine.nc").dims == result.dims


# ---- refused, or right, before anything is trained ------------------------------------------------


def dry(grid=GRID, **options):
    return rr.dry_run(make(NET, num_epochs=1), grid, sine(), key=KEY, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dry(seeds=[1, 2**32 + 1]), r"below 2\*\*32.*got 4294967297"),
        (lambda: dry(seeds=2**40), r"seeds must be at most 2\*\*32"),
        (
            lambda: dry(seeds=True),
            "seeds must be a whole number or a list of whole numbers; got True",
        ),
        (lambda: dry(static={"window": ["all", 3]}), "different kinds"),
        (lambda: dry(static={"deep": [True, 2]}), "different kinds"),
        (lambda: dry(static={"size": [2.0, float("nan")]}), "not finite"),
        (lambda: dry(static={"size": [2, 2**70]}), "beyond 64 bits"),
        (lambda: dry({"network": [0, 1]}), "'network' is a reserved axis name"),
    ],
)
def test_what_could_not_be_stored_is_refused_before(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.float32_only
@pytest.mark.parametrize("lams", [[1.0, 1e-50], [1e39], [1.0, 1.0 + 1e-12]])
def test_values_that_the_run_could_not_tell_apart_are_refused(lams):
    with pytest.raises(ValueError, match=r"of 'l2' are .* in float32, in which the run computes"):
        dry({"l2": lams, "learning_rate": 1e-2})


@pytest.mark.slow
@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_keys_of_every_generator_pair_the_lanes_of_every_plan(impl):
    net = rr.network([rr.cells.elman(3)], 1, readout="last", dropout=0.2, input_dropout=0.2)
    train = make(net, num_epochs=2, batch_size=8)
    grid = {"l2": [0.0, 1e-9], "learning_rate": 1e-2}
    key = jax.random.key(3, impl=impl)
    options = {"seeds": 2, "key": key, "progress": False}
    losses = [
        rr.sweep(train, grid, sine(12), plan=plan, **options).metrics.train_loss.values
        for plan in ("one_by_one", "vmap")
    ]
    np.testing.assert_allclose(losses[0], losses[1], **tolerance())
    np.testing.assert_allclose(losses[0][0], losses[0][1], **tolerance())
    assert losses[0][0, 0] != losses[0][0, 1]
    if impl == "rbg":  # its `fold_in` is that of its threefry halves
        alone = jax.jit(train)(
            {"l2": 0.0, "learning_rate": 1e-2}, sine(12), key=jax.random.fold_in(key, 1)
        )
        np.testing.assert_allclose(alone.metrics["train_loss"], losses[0][0, 1], **tolerance())


def test_outputs_that_are_no_array_are_refused_before():
    def apply(params, xs, **options):
        return NET.apply(params, xs, **options)._replace(
            outputs=(xs[:, -1] * params["readout"]["b_y"],)
        )

    def loss(outputs, ys, mask=None, weights=None):
        return jnp.mean((outputs[0] - ys) ** 2)

    train = make(NET._replace(apply=apply), loss=loss, num_epochs=1)
    with pytest.raises(
        ValueError, match=r"outputs of a network in a sweep must be one array.*got tuple"
    ):
        rr.dry_run(train, GRID, sine(8), folds=KFold(2), key=KEY)


@pytest.mark.slow
def test_a_score_that_does_not_batch_is_no_reason_to_lose_a_sweep():
    def on_host(outputs, ys, mask=None, weights=None):
        shape = jax.ShapeDtypeStruct((), outputs.dtype)
        return jax.pure_callback(lambda o, y: np.abs(o - y).mean(dtype=o.dtype), shape, outputs, ys)

    train = make(num_epochs=1, metrics={"mae": on_host})
    options = {"folds": KFold(2), "seeds": 2, "key": KEY, "progress": False, "plan": "one_by_one"}
    metrics = rr.sweep(train, GRID, sine(8), **options).metrics
    assert metrics.ensemble_val_mae.shape == (2, 2)
    assert (metrics.ensemble_val_mae <= metrics.val_mae.mean("seed") + 1e-6).all()


def by_output(outputs, ys, mask=None, weights=None):
    return jnp.mean((outputs - ys) ** 2, axis=0)


@pytest.mark.slow
def test_a_score_of_each_output_has_an_axis_of_its_own(tmp_path):
    def train(static):
        net = rr.network([rr.cells.elman(3)], static["size"], readout="last")
        return make(net, num_epochs=2, metrics={"by_output": by_output})

    def data(static):
        split = sine()
        ys = jnp.tile(split.train.ys, (1, static["size"]))
        return split.replace(train=split.train._replace(ys=ys))

    result = rr.sweep(
        train,
        GRID,
        data,
        static={"size": [2, 3]},
        seeds=2,
        folds=KFold(2),
        key=KEY,
        progress=False,
    )
    metrics = result.metrics
    dims = ("size", "l2", "seed", "fold")
    assert metrics.val_by_output.dims == (*dims, "by_output.0")
    assert metrics.history_train_by_output.dims == (*dims, "epoch", "by_output.0")
    assert metrics.ensemble_val_by_output.dims == ("size", "l2", "fold", "by_output.0")
    scores = metrics.val_by_output
    assert np.isnan(scores.sel(size=2)).sum("by_output.0").values.max() == 1  # it has two
    for values, loss in [
        (scores, metrics.val_loss),
        (metrics.ensemble_val_by_output, metrics.ensemble_val_loss),
    ]:
        np.testing.assert_allclose(values.mean("by_output.0"), loss, **tolerance(loosen=10))
    with pytest.raises(
        ValueError, match=r"an array for each lane, with the axes \['by_output.0'\]"
    ):
        rr.selection.choose(result, metric="val_by_output")
    rr.load_result(result.save(tmp_path / "scores.nc"))


@pytest.mark.slow
@pytest.mark.parametrize(("num_epochs", "stride"), [(101, 3), (53, 2), (7, 1), (100, 2)])
def test_any_number_of_epochs_is_recorded_and_stopped(num_epochs, stride):
    train = make(num_epochs=num_epochs)
    assert train.settings.record_every == stride
    if num_epochs != 53:
        return
    split = held_out(sine(), 24)
    hyper = {"l2": 0.0, "learning_rate": 1e-2}
    run = jax.jit(train)(hyper, split, key=KEY)
    every = jax.jit(make(num_epochs=53, record_every=1))(hyper, split, key=KEY)
    assert int(run.num_updates) == 53
    np.testing.assert_allclose(
        run.history["val_loss"],
        every.history["val_loss"][np.array([*range(1, 53, 2), 52])],
        **tolerance(),
    )
    np.testing.assert_allclose(
        run.history["gradient_norm"][-1], every.history["gradient_norm"][-1], **tolerance()
    )
    epochs = rr.sweep(
        train, {"l2": [0.0], "learning_rate": 1e-2}, split, key=KEY, progress=False
    ).metrics.epoch
    assert epochs.values[[0, -2, -1]].tolist() == [2, 52, 53]


@pytest.mark.slow
def test_nothing_leaks_from_a_trace():
    net = lambda hyper: rr.network([rr.cells.elman(2)], 1, readout="last", dropout=hyper["rate"])  # noqa: E731
    grid = {"l2": [0.0, 1e-2], "learning_rate": 1e-2, "rate": 0.1}
    with jax.checking_leaks():
        result = rr.sweep(make(net, num_epochs=1), grid, sine(8), key=KEY, progress=False)
        result.map(lambda params: jnp.sum(params["layer_0"]["W_hh"]))
        assert result.predict(sine(8).train, l2=0).shape == (4, 1)
