"""Calls with arguments of another order, type or size: a ValueError says what was expected, got, and what to do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import pytest
from small import HYPER, make, sine

import rnnreg as rr

KEY = jax.random.key(0)
LOSS = rr.losses.squared_error()
TRAIN = make()
GRID = {"l2": [0.0, 0.1], "learning_rate": 0.1}
BATCH = sine().train
GRU = rr.cells.gru(4)
UNCOMPILED = GRU._replace(gate=GRU.gate._replace(facts=GRU.facts._replace(native=None)))
NET = rr.network([rr.cells.elman(4)], 1, readout="last")
PARAMS = NET.init(KEY, 1)
WIDE = rr.network([rr.cells.elman(8)], 1, readout="last").init(KEY, 1)
TOKENS = rr.network([rr.cells.elman(4)], 5, embedding=(5, 3))
OBJECTIVE = rr.make_objective(NET, LOSS, {"l2": rr.penalties.l2()})
DIAGNOSTICS = rr.diagnostics
NO_KEY = r"key must be one random key, such as jax.random.key\(0\); got 0"
OTHER_WIDTH = r"needs layer_0/W_hh of shape \(4, 4\).*have it of shape \(8, 8\).*another network"


def objective(*arguments):
    return OBJECTIVE(*arguments, key=None, train=False)


def biased(size):
    return PARAMS | {"readout": {"W_hy": PARAMS["readout"]["W_hy"], "b_y": jnp.zeros(size)}}


CASES = {
    "flow: params, loss": (
        lambda: DIAGNOSTICS.gradient_flow(NET, PARAMS, LOSS, BATCH),
        r"loss must be a function .*got a dict with \['layer_0'.*gradient_flow\(system, loss, params, batch\)",
    ),
    "flow: batch, params, loss": (
        lambda: DIAGNOSTICS.gradient_flow(NET, BATCH, PARAMS, LOSS),
        r"loss must be a function .*got (a )?Batch",
    ),
    "flow: loss for batch": (
        lambda: DIAGNOSTICS.gradient_flow(NET, LOSS, PARAMS, LOSS),
        "batch must be a Batch .*got a DataLoss",
    ),
    "flow: another H": (lambda: DIAGNOSTICS.gradient_flow(NET, LOSS, WIDE, BATCH), OTHER_WIDTH),
    "flow: another D": (
        lambda: DIAGNOSTICS.gradient_flow(NET, LOSS, NET.init(KEY, 3), BATCH),
        r"needs layer_0/W_xh of shape \(1, 4\).*\(3, 4\).*net.init\(key, input_size=1\)",
    ),
    "paths: another H": (lambda: DIAGNOSTICS.path_lengths(NET, LOSS, WIDE, BATCH), OTHER_WIDTH),
    "saturation: another H": (lambda: DIAGNOSTICS.saturation(NET, WIDE, BATCH.xs), OTHER_WIDTH),
    "saturation: xs, params": (
        lambda: DIAGNOSTICS.saturation(NET, BATCH.xs, PARAMS),
        r"xs must be an array of numbers; got a dict .*The call is saturation\(system, params, xs\)",
    ),
    "saturation: bounds": (
        lambda: DIAGNOSTICS.saturation(NET, PARAMS, BATCH.xs, bounds=3),
        "bounds must be a pair of numbers, a dict or None; got 3",
    ),
    "surface: loss, net": (
        lambda: DIAGNOSTICS.data_loss_of(LOSS, NET, BATCH),
        "net must be a Network .*; got a DataLoss",
    ),
    "surface: vector": (
        lambda: DIAGNOSTICS.hessian_directions(lambda p: p["layer_0"]["b_h"], PARAMS, key=KEY),
        r"must return one real number; got float32 of shape \(4,\)",
    ),
    "surface: number": (
        lambda: DIAGNOSTICS.hessian_directions(3.0, PARAMS, key=KEY),
        "loss_of must be a function of 1 argument; got 3.0",
    ),
    "direction: key": (lambda: DIAGNOSTICS.random_direction(PARAMS, key=0), NO_KEY),
    "lyapunov: key": (lambda: DIAGNOSTICS.lyapunov(NET, PARAMS, BATCH.xs, key=0), NO_KEY),
    "bounds: None": (
        lambda: DIAGNOSTICS.jacobian_bounds(NET, None),
        "params must be those of the network or cell; got None",
    ),
    "products: tolerance": (
        lambda: DIAGNOSTICS.jacobian_products(NET, PARAMS, BATCH.xs, tolerance="x"),
        "tolerance must be a number; got 'x'",
    ),
    "init: xs": (
        lambda: NET.init(KEY, BATCH.xs),
        r"input_size must be a whole number .*got an array of shape \(36, 4, 1\).*xs.shape\[-1\]",
    ),
    "init: key": (lambda: NET.init(0, 1), NO_KEY),
    "init: dtype": (lambda: NET.init(KEY, 1, dtype=jnp.int32), "dtype must be one of real numbers"),
    "network: a cell": (lambda: rr.network(rr.cells.elman(4), 1), r"into a list, \[cell\]"),
    "network: no outputs": (
        lambda: rr.network([rr.cells.elman(4)], 0),
        "output_size must be at least 1.*None returns the hidden states",
    ),
    "network: embedding": (
        lambda: rr.network([rr.cells.elman(4)], 1, embedding=10),
        r"embedding must be a pair of whole numbers or None; got 10. It is \(number of tokens, size\)",
    ),
    "network: no tokens": (
        lambda: rr.network([rr.cells.elman(4)], 1, embedding=(0, 4)),
        "embedding: the number of tokens must be at least 1",
    ),
    "layer: a text for a flag": (
        lambda: rr.layer(rr.cells.elman(4), bidirectional="no"),
        "bidirectional must be True or False; got 'no'",
    ),
    "l2: a text for a flag": (
        lambda: rr.penalties.l2(include_biases="no"),
        "include_biases must be True or False; got 'no'",
    ),
    "apply: another H": (lambda: NET.apply(WIDE, BATCH.xs), OTHER_WIDTH),
    "apply: another readout": (
        lambda: NET.apply(PARAMS | {"readout": WIDE["readout"]}, BATCH.xs),
        r"W_hy and b_y of shapes \(4, 1\) and \(1,\).*\(8, 1\)",
    ),
    "apply: a readout that would broadcast": (
        lambda: NET.apply(biased(3), BATCH.xs),
        r"the parameters have \(4, 1\) and \(3,\)",
    ),
    "apply: state of other rows": (
        lambda: NET.apply(PARAMS, BATCH.xs, state=NET.apply(PARAMS, BATCH.xs[:5]).final_state),
        "state must be like the final_state .* each of the 36",
    ),
    "apply: state of no layer": (
        lambda: NET.apply(PARAMS, BATCH.xs, state=jnp.zeros((36, 4))),
        "state must be a dict or None; got an array",
    ),
    "apply: dropout key": (
        lambda: rr.network([rr.cells.elman(4)], 1, input_dropout=0.5).apply(
            PARAMS, BATCH.xs, train=True, key=0
        ),
        NO_KEY,
    ),
    "forecast: tokens": (
        lambda: rr.forecast(TOKENS, TOKENS.init(KEY), np.ones((2, 4), int), 3),
        "goes on with rr.sample",
    ),
    "forecast: counts": (
        lambda: rr.forecast(NET, PARAMS, np.ones((2, 4, 1), int), 3),
        r"got shape \(2, 4, 1\) of int64.*xs.astype\(np.float32\)",
    ),
    "sample: real numbers": (
        lambda: rr.sample(NET, PARAMS, [0, 1], 3, key=KEY),
        "reads real numbers: it goes on with rr.forecast",
    ),
    "evaluate: params, net": (
        lambda: rr.evaluate(PARAMS, NET, BATCH, loss=LOSS),
        r"net must be a Network .*; got a dict.*evaluate\(net, params, data\)",
    ),
    "objective: batch, hyper": (
        lambda: objective(PARAMS, BATCH, HYPER, {"l2": ()}),
        r"objective\(params, hyper, batch, penalty_state.*hyper of type Batch and batch of type dict",
    ),
    "objective: no λ": (
        lambda: objective(PARAMS, {}, BATCH, {"l2": ()}),
        r"hyper must hold the λ of every penalty by name; \['l2'\] not in",
    ),
    "objective: no state": (
        lambda: objective(PARAMS, HYPER, BATCH, None),
        r"penalty_state must hold the penalty.init\(params\)",
    ),
    "loss: a mask that would broadcast": (
        lambda: LOSS(jnp.ones((3, 2, 1)), jnp.zeros((3, 2, 1)), jnp.ones((3, 1))),
        r"mask must be \[B, T\] = \(3, 2\); got \(3, 1\)",
    ),
    "loss: a mask of rows": (
        lambda: LOSS(jnp.ones((3, 1)), jnp.ones((3, 1)), jnp.ones(3)),
        r"mask must be \[B, T\] with B = 3; got \(3,\)",
    ),
    "loss: weights of other rows": (
        lambda: LOSS(jnp.ones((3, 1)), jnp.ones((3, 1)), None, jnp.ones(2)),
        r"weights must be \[B\] = \(3,\) or \[B, T\] with B = 3; got \(2,\)",
    ),
    "train: data, hyper": (
        lambda: TRAIN(BATCH, HYPER, key=KEY),
        r"hyper must be a dict; got (a )?Batch.* train\(hyper, data, key=key\)",
    ),
    "train: data, hyper, in a trace": (
        lambda: jax.jit(lambda batch: TRAIN(batch, HYPER, key=KEY))(BATCH),
        "hyper must be a dict; got",
    ),
    "train: a λ of text": (
        lambda: TRAIN(HYPER | {"l2": "0.1"}, BATCH, key=KEY),
        r"hyper\['l2'\] must be a number; got '0.1'",
    ),
    "train: a list of λ": (
        lambda: TRAIN(HYPER | {"l2": [0.0, 0.1]}, BATCH, key=KEY),
        r"hyper\['l2'\] must be a number; got \[0.0, 0.1\]. rr.sweep takes lists",
    ),
    "train: no targets": (
        lambda: TRAIN(HYPER, rr.Batch(BATCH.xs, None), key=KEY),
        r"data.train.ys must be an array; got None.*rr.Batch\(xs, ys\)",
    ),
    "train: key": (lambda: TRAIN(HYPER, BATCH, key=0), NO_KEY),
    "train.init: key": (lambda: TRAIN.init(HYPER, BATCH, key=0), NO_KEY),
    "train: time first": (
        lambda: TRAIN(HYPER, BATCH._replace(xs=BATCH.xs.swapaxes(0, 1)), key=KEY),
        r"as many rows as xs: 4; got 36.*Rows come first and time second: xs.swapaxes\(0, 1\)",
    ),
    "sweep: grid, train": (
        lambda: rr.sweep(GRID, TRAIN, BATCH, key=KEY),
        r"train must be a Train \(rr.make_train\) .*got a dict with \['l2'.*sweep\(train, grid, data, key=key\)",
    ),
    "sweep: key": (lambda: rr.sweep(TRAIN, GRID, BATCH, key=0), NO_KEY),
    "dry_run: key": (lambda: rr.dry_run(TRAIN, GRID, BATCH, key=0), NO_KEY),
    "refit: result, train": (
        lambda: rr.selection.refit(None, TRAIN, None, BATCH, key=KEY),
        r"train must be a Train .*; got None.*refit\(train, result, choice, data, key=key\)",
    ),
    "refit: no result": (
        lambda: rr.selection.refit(TRAIN, None, None, BATCH, key=KEY),
        r"result must be a SweepResult \(rr.sweep\); got None",
    ),
    "standardize: windows": (
        lambda: rr.data.standardize(rr.data.windows(np.arange(9.0), 3)),
        r"data must be a Split .*got a tuple.*windows returns \(batch, times\): give rr.Split\(",
    ),
    "fit_scaling: windows": (
        lambda: rr.data.fit_scaling(rr.data.windows(np.arange(9.0), 3)),
        r"batch must be a Batch .*windows returns \(batch, times\)",
    ),
    "split: times for validation": (
        lambda: rr.Split(*rr.data.windows(np.arange(9.0), 3)),
        r"data.validation must be .*got ndarray.*rr.Split\(batch, target_times=times\)",
    ),
    "windows: time last": (
        lambda: rr.data.windows(np.ones((2, 100)), 3),
        "a series of 2 values has no window.*Time is the first axis: series.T, if it is transposed",
    ),
    "windows: dates in a column": (
        lambda: rr.data.windows(pd.DataFrame({"date": ["2024-01-01"] * 9, "y": np.ones(9)}), 3),
        r"series must hold numbers; got .*Make dates the index: table.set_index\(",
    ),
    "windows: parsed dates in a column": (
        lambda: rr.data.windows(
            pd.DataFrame({"date": pd.date_range("2024-01-01", periods=9), "y": np.ones(9)}), 3
        ),
        r"series must hold numbers; got object. Columns are .*Make dates the index",
    ),
    "native: a gate without a kernel": (
        lambda: rr.network([UNCOMPILED], 1, backend="native"),
        r"backend='native' cannot run this cell: gru has no compiled kernel. Use backend='auto' or 'scan'\.$",
    ),
    "update: hyper, state": (
        lambda: make().update(HYPER, make().init(HYPER, sine(), key=KEY), BATCH),
        r"state must be a TrainState .*got a dict.*update\(state, hyper, batch\)",
    ),
    "folds: not called": (
        lambda: rr.sweep(make(), {"l2": [0.0]}, sine(), folds=rr.selection.blocked_folds, key=KEY),
        r"num_folds must be a whole number; got a Split.*folds=blocked_folds\(5\)",
    ),
    "sweep: a λ of text": (
        lambda: rr.sweep(make(), {"l2": "a", "learning_rate": 0.1}, sine(), key=KEY),
        "the axis 'l2' needs numbers; got",
    ),
    "take_rows: no such row": (
        lambda: rr.data.take_rows(BATCH, [0, 99]),
        "rows names row 99; the data has rows 0 to 35",
    ),
    "take_rows: half a row": (
        lambda: rr.data.take_rows(BATCH, [0.5]),
        "rows must name rows by whole numbers.*got float64",
    ),
    "fit_scaling: no such row": (
        lambda: rr.data.fit_scaling(BATCH, rows=[99]),
        "rows names row 99",
    ),
    "fit_scaling: no row": (lambda: rr.data.fit_scaling(BATCH, rows=[]), "no rows"),
    "lengths: NaN": (
        lambda: rr.data.lengths_to_mask([np.nan, 2], 3),
        "every length must be a whole number; got",
    ),
    "windows: complex": (
        lambda: rr.data.windows(np.arange(9) + 1j, 2),
        "series holds complex numbers",
    ),
    "batch: complex": (
        lambda: rr.data.check_batch(BATCH._replace(xs=BATCH.xs + 0j)),
        "xs must hold real numbers; got complex64",
    ),
    "batch: objects": (
        lambda: rr.data.check_batch(BATCH._replace(xs=np.asarray(BATCH.xs).astype(object))),
        "xs must hold real numbers; got object",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_call_is_named(case):
    wrong, message = CASES[case]
    with pytest.raises(ValueError, match=message):
        wrong()


def test_attributes_of_hyper_are_named():
    train = make(optimizer=lambda hyper: optax.sgd(hyper.learning_rate))
    with pytest.raises(AttributeError, match=r"hyper is a dict: read hyper\['learning_rate'\]"):
        train.init(HYPER, sine(), key=KEY)


def test_an_optimiser_of_two_sets_of_parameters_is_refused():
    train = make(optimizer=optax.lookahead(optax.sgd(0.1), 5, 0.5))
    with pytest.raises(ValueError, match=r"optax.lookahead.*fast and slow.*schedule_free"):
        train({"l2": 0.0}, sine(), key=KEY)


def test_lists_and_masks_of_booleans_are_taken():
    assert float(LOSS([[1.0]], [[3.0]])) == 4.0
    mask = [[1, 1, 1, 0]] * 36
    np.testing.assert_array_equal(
        NET.apply(PARAMS, BATCH.xs, mask=mask).outputs,
        NET.apply(PARAMS, BATCH.xs, mask=jnp.asarray(mask)).outputs,
    )
    rows = rr.data.take_rows(BATCH, np.arange(36) > 33)
    np.testing.assert_array_equal(rows.xs, BATCH.xs[34:])


def mean_square(outputs, ys):
    return jnp.mean(jnp.square(outputs - ys))


@pytest.mark.parametrize(
    "measure",
    [
        lambda loss, batch: DIAGNOSTICS.gradient_flow(NET, loss, PARAMS, batch).norms["layer_0"],
        lambda loss, batch: DIAGNOSTICS.path_lengths(NET, loss, PARAMS, batch).norms,
        lambda loss, batch: DIAGNOSTICS.data_loss_of(NET, loss, batch)(PARAMS),
    ],
    ids=["gradient_flow", "path_lengths", "data_loss_of"],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_diagnostics_take_losses_of_two_arguments(measure, weighted):
    batch = BATCH._replace(weights=jnp.arange(36.0)) if weighted else BATCH
    np.testing.assert_allclose(measure(mean_square, batch), measure(LOSS, batch), rtol=1e-5)
