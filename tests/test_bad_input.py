"""Bad input: what is wrong, what was expected and got, and what to do, before anything compiles."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import SEED
from small import HYPER, held_out, make, sine

import rnnreg as rr

KEY = jax.random.key(SEED)
GRID = {"l2": [0.0, 1e-3], "learning_rate": 1e-2}


@pytest.fixture(autouse=True)
def nothing_compiles(monkeypatch):
    """No program is compiled, by a sweep or by a jitted run, while input is bad."""

    def refuse(*args, **options):
        pytest.fail("something was compiled")

    monkeypatch.setattr(sys.modules["rnnreg.sweeps._compute"], "Program", refuse)
    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)


def _sweep(grid=GRID, data=None, *, train=None, **options):
    train = make() if train is None else train
    options = {"key": KEY, "progress": False} | options
    return rr.sweep(train, grid, sine() if data is None else data, **options)


def _started():
    """The state of a run before its first update, as shapes."""
    return jax.eval_shape(lambda: make().init(HYPER, SPLIT, key=KEY))


def _changed(**fields):
    split = sine()
    return split.replace(train=split.train._replace(**fields))


def _nan(array):
    return array.at[(2,) + (0,) * (array.ndim - 1)].set(jnp.nan)


SPLIT = sine()
XS, YS = SPLIT.train.xs, SPLIT.train.ys


def _mean_square(outputs, ys):
    return jnp.mean(jnp.square(outputs - ys))


CLASSIFY = make(
    rr.network([rr.cells.elman(4)], 3, readout="last"), loss=rr.losses.softmax_cross_entropy()
)

VECTOR = make(loss=lambda outputs, ys: jnp.abs(outputs - ys))

READ = make(rr.network([rr.cells.elman(2)], 1, embedding=(4, 2), readout="last"))


def _tokens(xs, *, rows="train", **fields):
    """One step of training, or a score, on tokens."""
    wrong = rr.Batch(np.asarray(xs), np.ones((len(xs), 1)), **fields)
    right = rr.Batch(np.zeros((2, 3), int), np.ones((2, 1)))
    return rr.Split(**({"train": right} | {rows: wrong}))


def _own_cell(step, *, hidden_size=5, size=5, **options):
    """The parameters of a network with a cell of one's own."""

    def init(key, input_size, dtype):
        return {"W_xh": jnp.ones((input_size, size), dtype), "W_hh": jnp.ones((size, size), dtype)}

    cell = rr.cells.from_step(step, init=init, hidden_size=hidden_size, name="own", **options)
    return rr.network([cell], 1).init(KEY, input_size=2)


def _next(params, state, x):
    return state._replace(h=jnp.tanh(x @ params["W_xh"] + state.h @ params["W_hh"]))


def _without(*path, net=READ.settings.net, xs=((0, 1),)):
    """What a network says without a part of its parameters."""
    params = net.init(KEY, input_size=1)
    part = params
    for name in path[:-1]:
        part = part[name]
    part.pop(path[-1])
    return net.apply(params, jnp.asarray(xs))


# what is done wrong: (how, what the message says)
CASES = {
    # the grid
    "empty grid": (lambda: _sweep({}), "reads the hyperparameter .*, which was not given"),
    "empty axis": (
        lambda: _sweep(GRID | {"l2": []}),
        r"axis 'l2' needs a non-empty list of numbers; got shape \(0,\)",
    ),
    "matrix as axis": (lambda: _sweep(GRID | {"l2": [[0, 1]]}), r"'l2' needs.*got shape \(1, 2\)"),
    "negative lambda": (
        lambda: _sweep(GRID | {"l2": [0, -3]}),
        r"λ must be finite and not negative; 'l2' has -3.0. Did you mean 10\*\*x",
    ),
    "negative constant lambda": (lambda: _sweep({"l2": -1.0, "learning_rate": [1]}), "has -1.0"),
    "negative zipped lambda": (
        lambda: _sweep({"pair": rr.zipped(l2=[0, -1], learning_rate=[1, 1])}),
        "λ must be finite and not negative; 'l2' has",
    ),
    "NaN lambda": (
        lambda: _sweep(GRID | {"l2": [0, np.nan]}),
        r"'l2' has a value that is not finite: \[0.0, nan\]",
    ),
    "infinite learning rate": (
        lambda: _sweep({"l2": 0, "learning_rate": [np.inf]}),
        "'learning_rate' has a value that is not finite",
    ),
    "repeated value": (lambda: _sweep(GRID | {"l2": [0, 1, 1]}), "'l2' has a repeated value"),
    "unknown hyperparameter": (
        lambda: _sweep(GRID | {"learning_rat": [1, 2]}),
        r"unknown hyperparameter 'learning_rat': nothing in the run reads it; the run reads "
        r"\['l2', 'learning_rate'\]",
    ),
    "missing hyperparameter": (
        lambda: _sweep({"l2": [0]}),
        r"reads the hyperparameter 'learning_rate', which was not given; got \['l2'\]",
    ),
    "missing lambda": (
        lambda: _sweep({"learning_rate": [1]}),
        "reads the hyperparameter 'l2', which was not given.*Every penalty reads the λ of its own",
    ),
    "reserved axis": (
        lambda: _sweep(GRID | {"seed": [0, 1]}),
        r"'seed' is a reserved axis name .*choose another \(seeds and folds have arguments",
    ),
    "reserved zipped axis": (
        lambda: _sweep({"fold": rr.zipped(l2=[0], learning_rate=[1])}),
        "'fold' is a reserved axis name",
    ),
    "name in two axes": (
        lambda: _sweep(GRID | {"pair": rr.zipped(l2=[0, 1])}),
        "the name 'l2' is given twice, in the grid, in zipped",
    ),
    "zipped lengths": (
        lambda: rr.zipped(l2=[0, 1], learning_rate=[1]),
        "need lists of one length; got lengths {'l2': 2, 'learning_rate': 1}",
    ),
    "no seeds": (lambda: _sweep(seeds=0), "seeds must be a positive int or a list.*got 0"),
    "negative seed": (lambda: _sweep(seeds=[-1]), r"ints from 0; got \[-1\]"),
    "repeated seed": (lambda: _sweep(seeds=[1, 1]), r"seeds are repeated: \[1, 1\]"),
    # static axes
    "static without function": (
        lambda: _sweep(static={"hidden_size": [2, 3]}),
        r"static axes \['hidden_size'\] need `train` as a function of them, such as",
    ),
    "static name taken": (
        lambda: _sweep(GRID, train=lambda static: make(), static={"l2": [1]}),
        "the name 'l2' is given twice",
    ),
    "static name reserved": (
        lambda: _sweep(train=lambda static: make(), static={"fold": [1]}),
        "'fold' is a reserved axis name.*choose another",
    ),
    "static axis empty": (
        lambda: _sweep(train=lambda static: make(), static={"hidden_size": []}),
        "static axis 'hidden_size' is empty; expected at least one value",
    ),
    "static value repeated": (
        lambda: _sweep(train=lambda static: make(), static={"hidden_size": [4, 4]}),
        r"'hidden_size' has a repeated value: \[4, 4\]",
    ),
    "static value without a name": (
        lambda: _sweep(train=lambda static: make(), static={"cell": [rr.cells.gru]}),
        r"they must be numbers or strings: name what you mean, and look it up in `train`",
    ),
    "train is no run": (lambda: _sweep(train=lambda static: None), "must come from rr.make_train"),
    # penalties
    "path of no leaf": (
        lambda: _sweep(train=make(penalties={"l2": rr.penalties.l2("W_hx")})),
        r"'W_hx' matches no leaf; the leaves are \['layer_0/W_hh'.*for example 'W_hh'",
    ),
    "penalty is a number": (
        lambda: make(penalties={"l2": 0.1}),
        r"penalties\['l2'\] must be a Penalty such as rr.penalties.l2\(\); got 0.1. Its λ comes",
    ),
    # tokens
    **{
        f"token: {what}": (wrong, rf"{where}.xs must hold tokens in 0 … 3; got {got}.*{cure}")
        for what, wrong, where, got, cure in (
            (
                "run",
                lambda: READ(HYPER, _tokens([[0, 1, 3], [0, 5, 4]]), key=KEY),
                "data.train",
                r"5 at \(1, 1\), and 2 such values in all",
                r"embedding=\(6, size\)",
            ),
            (
                "sweep",
                lambda: _sweep(data=_tokens([[-1, 1, 3]], rows="validation"), train=READ),
                "data.validation",
                r"-1 at \(0, 0\)",
                "mark padding in mask",
            ),
            (
                "score",
                lambda: rr.evaluate(
                    READ.settings.net,
                    READ.settings.net.init(KEY),
                    _tokens([[4, 1, 3]]).train,
                    loss=rr.losses.squared_error(),
                ),
                "data",
                "4 at",
                "",
            ),
        )
    },
    # cells of one's own, and parameters
    "step returns an array": (
        lambda: _own_cell(lambda params, state, x: _next(params, state, x).h),
        r"the step of the cell 'own' \(hidden_size=5\) must return a state like the one that it was given, "
        r"HiddenState\(h=\(3, 5\)\); got \(3, 5\)",
    ),
    "step returns nothing": (lambda: _own_cell(lambda params, state, x: None), "got None"),
    "step changes the shape": (
        lambda: _own_cell(lambda params, state, x: state._replace(h=x)),
        r"got HiddenState\(h=\(3, 2\)\)",
    ),
    "step of another size": (
        lambda: _own_cell(_next, size=6),
        r"the step of the cell 'own' \(hidden_size=5\) fails .*'W_hh': \(6, 6\)",
    ),
    "step reads what is not there": (
        lambda: _own_cell(lambda params, state, x: params["W"]),
        "fails on a batch.*'W'",
    ),
    "state without h": (
        lambda: _own_cell(_next, initial_state=lambda size, dtype: jnp.zeros((size, 5), dtype)),
        r"must be a NamedTuple with a field h \[B, H\] = \(3, 5\); got \(3, 5\)",
    ),
    "params without a readout": (
        lambda: _without("readout"),
        r"needs params\['readout'\] with \['W_hy', 'b_y'\]; got \['embedding', 'layer_0'\]",
    ),
    "params without a bias of the readout": (
        lambda: _without("readout", "b_y"),
        r"needs params\['readout'\] with \['W_hy', 'b_y'\]; got \['W_hy'\]",
    ),
    "params without a layer": (lambda: _without("layer_0"), r"needs params\['layer_0'\]; got"),
    "params without an embedding": (lambda: _without("embedding"), r"needs params\['embedding'\]"),
    "params without a weight": (
        lambda: _without("layer_0", "W_hh"),
        r"parameters of the cell 'elman' lack 'W_hh'; got \['W_xh', 'b_h'\]",
    ),
    "penalty is a function": (
        lambda: make(penalties={"l2": _mean_square}),
        r"must be a Penalty.*rr.penalties.elementwise\(f\), any other with rr.penalties.Penalty\(",
    ),
    **{
        f"penalty returns {what}": (
            lambda value=value: _sweep(
                train=make(penalties={"l2": rr.penalties.Penalty(lambda params: (), value)})
            ),
            r"the value function of penalties\['l2'\] must return .*" + got,
        )
        for what, value, got in (
            (
                "R alone",
                lambda p, c, s: jnp.float32(1),
                r"got float32 of shape \(\) alone. Write `return R, state`",
            ),
            (
                "a vector",
                lambda p, c, s: (p["readout"]["b_y"], s),
                r"R is float.* of shape \(1,\). Add up",
            ),
            ("a whole number", lambda p, c, s: (jnp.int32(1), s), "R is int32"),
            (
                "no state",
                lambda p, c, s: (jnp.float32(1), None),
                r"it was \(\) and became NoneType",
            ),
        )
    },
    "penalty called by itself": (
        lambda: rr.penalties.Penalty(lambda p: (), lambda p, c, s: 1.0)({}),
        r"of the penalty 'custom' must return a pair.*got float alone",
    ),
    "reduction": (lambda: rr.penalties.l2(reduction="max"), "'sum' or 'mean'.*got 'max'"),
    # data
    "mask of zeros": (
        lambda: _sweep(data=_changed(mask=jnp.zeros((36, 4)))),
        "data.train.mask masks every step; at least one step must count",
    ),
    "mask of another shape": (
        lambda: _sweep(data=_changed(mask=jnp.ones((36, 3)))),
        r"mask must be \[N, T\] = \(36, 4\); got \(36, 3\). Make one from lengths",
    ),
    "length beyond T": (
        lambda: rr.data.lengths_to_mask([2, 5], num_steps=4),
        "between 0 and num_steps=4; got 5. Cut the sequence, or pad",
    ),
    "wrong rank": (
        lambda: _sweep(data=_changed(xs=XS[..., 0])),
        r"xs must be \[N, T, D\] real numbers; got shape \(36, 4\)",
    ),
    "wrong number of rows": (lambda: _sweep(data=_changed(ys=YS[:5])), "as many rows.*36; got 5"),
    "wrong target shape": (
        lambda: _sweep(data=_changed(ys=XS)),
        r"same shape; got outputs \(36, 1\) and ys \(36, 4, 1\).*readout='last' wants",
    ),
    "validation features": (
        lambda: _sweep(
            data=SPLIT.replace(validation=rr.Batch(jnp.concatenate([XS, XS], axis=-1), YS))
        ),
        r"made for 1 input features; xs has 2 \(shape \(36, 4, 2\)",
    ),
    "no embedding": (
        lambda: _sweep(data=_changed(xs=jnp.zeros((36, 4), int))),
        "a network without an embedding needs input_size",
    ),
    "NaN in xs": (
        lambda: _sweep(data=_changed(xs=_nan(XS))),
        r"data.train.xs has 1 values that are NaN or infinite, the first at \(2, 0, 0\); remove them",
    ),
    "NaN in validation ys": (
        lambda: _sweep(data=SPLIT.replace(validation=rr.Batch(XS, _nan(YS)))),
        r"data.validation.ys has 1 values that are NaN or infinite, the first at \(2, 0\)",
    ),
    "features that are whole numbers": (
        lambda: _sweep(data=_changed(xs=np.zeros((36, 4, 2), int))),
        r"must be \[N, T\] integer tokens; got .*features become real: xs.astype\(np.float32\)",
    ),
    "target without an axis of outputs": (
        lambda: _sweep(
            data=_changed(ys=XS[..., 0]), train=make(rr.network([rr.cells.elman(4)], 1))
        ),
        r"got outputs \(36, 4, 1\) and ys \(36, 4\). Give ys\[..., None\], with an axis for the one",
    ),
    "target that would broadcast": (
        lambda: _sweep(data=_changed(ys=jnp.arange(36)), train=make(loss=_mean_square)),
        r"the loss compares every row with every other: .* \(36, 1\) and targets \(36,\)",
    ),
    "classes that the network lacks": (
        lambda: _sweep(data=_changed(ys=jnp.arange(36) % 4), train=CLASSIFY),
        r"data.train.ys must hold classes 0 … 2, since the network has 3 outputs; got 3 at \(3,\), and 9 such",
    ),
    "classes from 1, in a run": (
        lambda: CLASSIFY(HYPER, SPLIT.train._replace(ys=np.uint8(1 + np.arange(36) % 3)), key=KEY),
        "must hold classes 0 … 2, .*; got 3 at",
    ),
    "classes that are real": (
        lambda: _sweep(
            data=_changed(ys=XS[..., 0]),
            train=make(rr.network([rr.cells.elman(4)], 3), loss=rr.losses.softmax_cross_entropy()),
        ),
        r"ys must be integer classes .*; got float.* Cast them with ys.astype\(np.int32\)",
    ),
    "one-hot classes": (
        lambda: _sweep(data=_changed(ys=jnp.eye(36)[:, :3]), train=CLASSIFY),
        r"Of one-hot targets take ys.argmax\(axis=-1\)",
    ),
    "signs for a sigmoid": (
        lambda: _sweep(
            data=_changed(ys=jnp.sign(YS)), train=make(loss=rr.losses.sigmoid_cross_entropy())
        ),
        "must hold numbers from 0 to 1 for a sigmoid; got -1.0 at",
    ),
    "loss is a vector": (
        lambda: _sweep(train=make(loss=lambda o, y, mask, weights: jnp.mean(o - y, axis=0))),
        r"the loss must return one real number for a batch; got float.* of shape \(1,\). Average",
    ),
    "loss of a run is a vector": (
        lambda: make(loss=optax.squared_error)(HYPER, SPLIT, key=KEY),
        r"the loss must return one real number for a batch; got float.* of shape \(36, 1\)",
    ),
    "loss of three arguments": (
        lambda: make(loss=lambda outputs, ys, mask: 0.0),
        r"the loss must be a function of \(outputs, ys\) or of \(outputs, ys, mask, weights\)",
    ),
    "metric is a name": (
        lambda: make(metrics={"accuracy": "accuracy"}),
        r"metrics\['accuracy'\] must be a function of .*; got 'accuracy'",
    ),
    "accuracy of a regression": (
        lambda: _sweep(train=make(metrics={"accuracy": rr.metrics.accuracy()})),
        r"data.train.ys must hold labels for accuracy \(a regression has rr.metrics.r2\), 0 or 1; got",
    ),
    "accuracy of a regression on whole numbers": (
        lambda: make(metrics={"accuracy": rr.metrics.accuracy()})(
            HYPER, SPLIT.train._replace(ys=15 + np.arange(36)[:, None]), key=KEY
        ),
        "data.train.ys must hold classes 0 … 1.*; got 15 at",
    ),
    "accuracy of a regression, evaluated": (
        lambda: rr.evaluate(
            make().settings.net,
            make().init(HYPER, SPLIT, key=KEY).params,
            SPLIT.train,
            metrics={"accuracy": rr.metrics.accuracy()},
        ),
        "data.ys must hold labels for accuracy",
    ),
    "classes with an axis of one": (
        lambda: _sweep(data=_changed(ys=jnp.zeros((36, 1), int)), train=CLASSIFY),
        r"integer classes of shape \(36,\).*Drop the last axis: ys.squeeze\(-1\)",
    ),
    "monitor with val_": (
        lambda: make(monitor="val_loss"),
        "got 'val_loss'. Write 'loss', without val_",
    ),
    "monitor of no metric": (
        lambda: make(monitor="accuracy"),
        r"monitor must be 'loss' or one of metrics, \[\]; got 'accuracy'",
    ),
    "monitor without a direction": (
        lambda: make(monitor="mae", metrics={"mae": _mean_square}),
        "monitor='mae' has no direction.*rr.metrics.Score",
    ),
    "no batch": (lambda: _sweep(data=(XS, YS)), "data must be a Split .*a Batch .*got a tuple"),
    # batches, folds, epochs
    "batch larger than data": (
        lambda: _sweep(train=make(batch_size=37)),
        "batch_size=37 is larger than the 36 training rows; use a smaller one, or batch_size=None",
    ),
    "batch larger than a fold": (
        lambda: _sweep(train=make(batch_size=30), folds=rr.selection.blocked_folds(3)),
        "batch_size=30 is larger than the 24 training rows of the smallest fold",
    ),
    "nothing to train on": (
        lambda: _sweep(folds=rr.selection.blocked_folds(2, embargo=40)),
        "fold 0 leaves nothing to train on.*use fewer folds, a shorter window or a smaller embargo",
    ),
    "no folds": (lambda: _sweep(folds=[]), "folds is empty; expected at least one"),
    "one fold": (
        lambda: rr.selection.blocked_folds(1),
        "num_folds must be at least 2, a whole number; got 1",
    ),
    "more folds than rows": (
        lambda: _sweep(folds=rr.selection.blocked_folds(50)),
        "50 folds need at least as many rows; got 36",
    ),
    "folds without times": (
        lambda: _sweep(data=SPLIT.train, folds=rr.selection.blocked_folds(3)),
        "needs Split.target_times.*rr.data.windows returns them",
    ),
    "folds and validation": (
        lambda: _sweep(data=held_out(sine(), 24), folds=rr.selection.blocked_folds(2)),
        r"give folds or a validation set, not both.*Drop one \(data.replace\(validation=None\)",
    ),
    "refit without folds": (lambda: _sweep(refit=True), "refit=True adds the fold 'all' to folds"),
    "refit of what wants validation": (
        lambda: _sweep(train=make(keep_best=True), folds=rr.selection.blocked_folds(3), refit=True),
        r"nothing to validate on.*Drop it, and call rr.selection.refit\(.*best for all folds together",
    ),
    "patience without validation": (
        lambda: _sweep(train=make(patience=2)),
        r"the data has none; give Split\(validation=…\), or folds in a sweep",
    ),
    "zero epochs": (lambda: make(num_epochs=0), "num_epochs must be a positive int; got 0"),
    "half an epoch": (lambda: make(num_epochs=0.5), "num_epochs must be a whole number; got 0.5"),
    "zero rows a batch": (lambda: make(batch_size=0), "batch_size must be a positive int; got 0"),
    "stride": (
        lambda: make(record_every=4),
        "a positive int that divides num_epochs=6; got 4",
    ),
    "advance by nothing": (
        lambda: make(record_every=3).advance(_started(), HYPER, SPLIT, 0),
        "num_epochs must be at least 1, a whole number; got 0",
    ),
    "loss of two arguments is a vector": (
        lambda: _sweep(train=VECTOR),
        r"the loss must return one real number for a batch; got float.* of shape \(36, 1\). Average",
    ),
    "loss is a vector, with folds": (
        lambda: _sweep(train=VECTOR, folds=rr.selection.blocked_folds(3)),
        "the loss must return one real number for a batch",
    ),
    "loss is a pair, with folds": (
        lambda: _sweep(
            train=make(loss=lambda o, y: (_mean_square(o, y), 0)),
            folds=rr.selection.blocked_folds(3),
        ),
        "the loss must return one real number for a batch; got tuple",
    ),
    "loss is a sum, with folds": (
        lambda: _sweep(
            train=make(loss=lambda o, y: jnp.sum((o - y) ** 2)), folds=rr.selection.blocked_folds(3)
        ),
        r"Folds bring weights of their own.*Write it with four arguments",
    ),
    "loss is a name": (lambda: make(loss="mse"), "loss must be a function such as.*got 'mse'"),
    "optimizer is a name": (lambda: make(optimizer="adam"), "optax transformation.*got 'adam'"),
    "net is nothing": (
        lambda: make(lambda hyper: None).init(HYPER, SPLIT, key=KEY),
        "net must be an rnnreg Network or a function that returns one; got None",
    ),
    "plan": (lambda: _sweep(plan="fast"), "'one_by_one'.*'split_rows'.; got 'fast'"),
    "width": (lambda: _sweep(width=0), "width must be a positive multiple.*got 0"),
    # a run called by itself
    "run: negative lambda": (
        lambda: make()(HYPER | {"l2": -1.0}, SPLIT, key=KEY),
        "λ must be finite and not negative; 'l2' has -1.0",
    ),
    "run: NaN lambda": (
        lambda: make()(HYPER | {"l2": jnp.nan}, SPLIT, key=KEY),
        "λ must be finite and not negative; 'l2' has nan",
    ),
    "run: missing hyperparameter": (
        lambda: make()({"l2": 0.0}, SPLIT, key=KEY),
        "reads the hyperparameter 'learning_rate', which was not given",
    ),
    "update: arguments swapped": (
        lambda: make().update(_started(), SPLIT.train, HYPER),
        r"hyper must be a dict; got Batch.*update\(state, hyper, batch\)",
    ),
    "update: a split": (
        lambda: make().update(_started(), HYPER, SPLIT),
        "batch must be a Batch .*got a Split",
    ),
    "jitted run: shapes": (
        lambda: jax.jit(make(batch_size=40))(HYPER, SPLIT.train, key=KEY),
        "batch_size=40 is larger than the 36",
    ),
    "half a key": (lambda: _sweep(key=np.zeros(3, np.uint32)), "key must be one random key"),
    "params: a result": (lambda: _sweep(params=make()), "params must be a nested dict of arrays"),
    "folds: a dict": (
        lambda: _sweep(folds={"first": (range(8), range(8, 12))}),
        "folds must be a splitter, a function of the split, or pairs of rows; got {'first'",
    ),
    "times without folds": (
        lambda: _sweep(data=rr.Split(SPLIT.train, target_times=np.arange(3))),
        r"target_times must be \[N, 2\]",
    ),
    "run: a vector of λ": (
        lambda: make()(HYPER | {"l2": np.ones(2)}, SPLIT, key=KEY),
        r"hyper\['l2'\] must be one number, the λ of this run; got shape \(2,\)",
    ),
    "forecast: a mask of no step": (
        lambda: rr.forecast(
            make().network({}), {}, SPLIT.train.xs, 2, mask=np.zeros(SPLIT.train.xs.shape[:2])
        ),
        "a row has no true step to go on from",
    ),
    "keep: a path without a name": (lambda: _sweep(keep=""), "a path needs the name of a folder"),
    "jitted run: fixed lambda": (
        lambda: jax.jit(lambda: make()(HYPER | {"l2": -1.0}, SPLIT.train, key=KEY))(),
        "λ must be finite and not negative; 'l2' has -1.0",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_said_aloud_before_anything_compiles(case):
    wrong, message = CASES[case]
    with pytest.raises(ValueError, match=message):
        wrong()


def test_an_optimizer_from_optax_needs_no_function():
    assert make(optimizer=optax.adam(1e-3)).optimizer({}) is not None


def test_tokens_that_do_not_count_may_be_any():
    """No such token is refused; the network looks at none of them."""
    padded = {"mask": np.array([[1, 1, 0]]), "weights": None}
    READ.init(HYPER, _tokens([[0, 3, 9]], **padded), key=KEY)
    READ.init(HYPER, _tokens([[0, 3, 9], [1, 2, 3]], weights=np.array([0.0, 1.0])), key=KEY)


def test_good_input_passes_the_same_gate():
    options = {"folds": rr.selection.blocked_folds(3), "refit": True, "seeds": 2, "key": KEY}
    plan = rr.dry_run(make(), GRID, sine(), **options)
    assert plan.lanes == 2 * 2 * 4
