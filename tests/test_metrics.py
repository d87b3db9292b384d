"""Scores against scikit-learn, their direction in every choice, and plain functions as losses and scores."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import sklearn.metrics
from conftest import SEED, require, tolerance
from small import HYPER, held_out, make, sine

import rnnreg as rr

KEY = jax.random.key(SEED)
B, T, O = 6, 5, 3
MASK = rr.data.lengths_to_mask([5, 2, 4, 1, 0, 3], T)
WEIGHTS = np.array([1.0, 0.5, 0.0, 2.0, 1.0, 0.25], np.float32)
RNG = np.random.default_rng(0)
OUTPUTS = RNG.normal(size=(B, T, O))
CLASSES = RNG.integers(0, O, (B, T))
CASES = {
    "plain": (None, None),
    "mask": (MASK, None),
    "weights": (None, WEIGHTS),
    "both": (MASK, WEIGHTS),
    "weights of steps": (MASK, WEIGHTS[:, None] * np.arange(T, dtype=np.float32)),
}

ACCURACY, R2, PERPLEXITY = rr.metrics.accuracy(), rr.metrics.r2(), rr.metrics.perplexity()


def arrays(*leaves):
    return [None if leaf is None else jnp.asarray(leaf) for leaf in leaves]


def flat(mask, weights):
    """How much each step counts in one long list of steps."""
    each = np.ones((B, T)) if mask is None else np.asarray(mask, float)
    return (each if weights is None else each * weights.reshape(B, -1)).ravel()


every_case = pytest.mark.parametrize("case", CASES)

# ---- scores ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("score", [ACCURACY, PERPLEXITY])
def test_scores_take_arrays_of_numpy_in_silence(score):
    np.testing.assert_allclose(
        score(OUTPUTS, CLASSES, MASK, WEIGHTS), score(*arrays(OUTPUTS, CLASSES, MASK, WEIGHTS))
    )


@pytest.mark.numerics
@every_case
def test_accuracy_is_that_of_scikit_learn(case):
    mask, weights = CASES[case]
    expected = sklearn.metrics.accuracy_score(
        CLASSES.ravel(), OUTPUTS.argmax(-1).ravel(), sample_weight=flat(mask, weights)
    )
    measured = ACCURACY(*arrays(OUTPUTS, CLASSES, mask, weights))
    np.testing.assert_allclose(measured, expected, **tolerance())
    binary = (OUTPUTS + RNG.normal(size=OUTPUTS.shape) > 0).astype(int)
    expected = sklearn.metrics.accuracy_score(
        binary.ravel(), OUTPUTS.ravel() > 0, sample_weight=np.repeat(flat(mask, weights), O)
    )
    measured = ACCURACY(*arrays(OUTPUTS, binary, mask, weights))
    np.testing.assert_allclose(measured, expected, **tolerance())


@pytest.mark.numerics
@every_case
def test_r2_is_that_of_scikit_learn(case):
    mask, weights = CASES[case]
    ys = OUTPUTS + RNG.normal(size=OUTPUTS.shape) + 100  # far from 0, where E y² − ȳ² would cancel
    expected = sklearn.metrics.r2_score(
        ys.reshape(-1, O), OUTPUTS.reshape(-1, O) + 100, sample_weight=flat(mask, weights)
    )
    measured = R2(*arrays(OUTPUTS + 100, ys, mask, weights))
    np.testing.assert_allclose(measured, expected, **tolerance(loosen=50))  # 100 in float32


@pytest.mark.numerics
@every_case
def test_perplexity_is_the_exponential_of_the_log_loss_of_scikit_learn(case):
    mask, weights = CASES[case]
    probabilities = scipy.special.softmax(OUTPUTS, axis=-1).reshape(-1, O)
    expected = np.exp(
        sklearn.metrics.log_loss(
            CLASSES.ravel(), probabilities, sample_weight=flat(mask, weights), labels=range(O)
        )
    )
    measured = PERPLEXITY(*arrays(OUTPUTS, CLASSES, mask, weights))
    np.testing.assert_allclose(measured, expected, **tolerance())


@pytest.mark.parametrize("score", [ACCURACY, R2, PERPLEXITY], ids=lambda score: score.name)
def test_what_does_not_count_may_hold_anything(score):
    ys = OUTPUTS + 1 if score is R2 else CLASSES
    clean = score(*arrays(OUTPUTS, ys, MASK, WEIGHTS))
    counts = (MASK * WEIGHTS[:, None]) > 0
    junk = np.nan if score is R2 else 10**6
    outputs = np.where(counts[..., None], OUTPUTS, np.nan)
    dirty = np.where(counts if ys.ndim == 2 else counts[..., None], ys, junk)
    np.testing.assert_array_equal(score(*arrays(outputs, dirty, MASK, WEIGHTS)), clean)


def test_r2_of_constant_targets_is_that_of_scikit_learn():
    constant = np.ones((4, 1))
    for outputs in (constant, constant + 1):
        expected = sklearn.metrics.r2_score(constant, outputs)
        assert float(R2(*arrays(outputs, constant))) == expected


def test_one_output_a_row_and_a_row_without_a_true_step():
    outputs, ys = OUTPUTS[:, 0], CLASSES[:, 0]
    expected = sklearn.metrics.accuracy_score(ys, outputs.argmax(-1), sample_weight=MASK.any(1))
    np.testing.assert_allclose(ACCURACY(*arrays(outputs, ys, MASK)), expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int64])
def test_labels_of_any_width_score_like_wide_ones(dtype):
    num_classes = min(256, np.iinfo(dtype).max + 1)
    ys = RNG.integers(0, num_classes, (2, 4))
    for classes in {num_classes, num_classes + 44}:
        outputs = jnp.asarray(RNG.normal(size=(2, 4, classes)))
        for score in (rr.losses.softmax_cross_entropy(), ACCURACY, PERPLEXITY):
            score = jax.jit(score)
            wide = score(outputs, ys.astype(np.int32))
            assert np.isfinite(wide)
            np.testing.assert_array_equal(score(outputs, ys.astype(dtype)), wide)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_tokens_of_any_width_embed_like_wide_ones(dtype):
    tokens = np.array([[0, 1, 100, 127]])
    net = rr.network([rr.cells.elman(2)], 1, embedding=(200 if dtype is np.int8 else 256, 2))
    params = net.init(KEY)
    apply = jax.jit(net.apply)
    wide = apply(params, jnp.asarray(tokens)).outputs
    np.testing.assert_array_equal(apply(params, tokens.astype(dtype)).outputs, wide)
    if dtype is np.int8:  # a negative token has no row, and must not count from the end
        assert np.isnan(apply(params, np.array([[-1]], dtype)).outputs).all()


@pytest.mark.numerics
@pytest.mark.parametrize("delta", [0.3, 1.0, 2.5])
def test_huber_is_that_of_scipy_optax_and_torch(delta):
    ys = OUTPUTS + 2 * RNG.normal(size=OUTPUTS.shape)
    measured = rr.losses.huber(delta=delta)(*arrays(OUTPUTS, ys))
    np.testing.assert_allclose(
        measured, scipy.special.huber(delta, OUTPUTS - ys).mean(), **tolerance()
    )
    np.testing.assert_allclose(
        measured, optax.huber_loss(*arrays(OUTPUTS, ys), delta=delta).mean(), **tolerance()
    )
    torch = require("torch")
    loss = torch.nn.HuberLoss(delta=delta)(torch.tensor(OUTPUTS), torch.tensor(ys))
    np.testing.assert_allclose(measured, loss.item(), **tolerance())
    summed = rr.losses.huber("sum", delta=delta)(*arrays(OUTPUTS, ys))
    np.testing.assert_allclose(summed, T * O * measured, **tolerance())


def test_huber_states_its_delta_and_refuses_one_below_zero():
    assert rr.losses.huber(delta=2) == rr.losses.huber(delta=2.0) != rr.losses.huber()
    with pytest.raises(ValueError, match="delta must be a positive number; got 0"):
        rr.losses.huber(delta=0)


# ---- direction ------------------------------------------------------------------------------------


def right(outputs, ys):
    """The share of rows whose sign is right."""
    return jnp.mean(jnp.sign(outputs) == jnp.sign(ys))


METRICS = {
    "r2": R2,
    "right": rr.metrics.Score(right, maximise=True),
    "mae": lambda outputs, ys: jnp.mean(jnp.abs(outputs - ys)),
    "huber": rr.losses.huber(),
}


@pytest.fixture(scope="module")
def swept():
    return rr.sweep(
        make(metrics=METRICS, num_epochs=20),
        {"l2": [0.0, 0.1, 3.0], "learning_rate": 0.05},
        sine(),
        folds=rr.selection.blocked_folds(3),
        key=KEY,
        progress=False,
    )


def test_a_score_of_which_more_is_better_is_maximised(swept, tmp_path):
    back = rr.load_result(swept.save(tmp_path / "result.nc"))
    for result in (swept, back):
        means = result.metrics["val_r2"].isel(seed=0) @ result.metrics["fold_size"]
        choice = rr.selection.choose(result, metric="val_r2")
        assert choice.maximise
        assert choice.lam == float(means.idxmax("l2")) != float(means.idxmin("l2"))
        ensemble = rr.selection.choose(result, metric="val_r2", combine="ensemble")
        assert ensemble.lam == choice.lam
        common = rr.selection.choose(result, metric="val_r2", num_epochs="common")
        history = result.metrics["history_val_r2"].isel(seed=0) @ result.metrics["fold_size"]
        assert common.values["num_epochs"] == int(history.max("l2").idxmax("epoch"))
        assert not rr.selection.choose(result, metric="val_huber").maximise


def test_a_printed_result_shows_the_scores_that_were_asked_for(swept):
    for name in (
        "val_loss",
        *(f"{rows}_{score}" for rows in ("train", "val") for score in METRICS),
    ):
        assert f"  {name} " in repr(swept)
    assert "history" not in repr(swept)
    with pytest.raises(ValueError, match="Did you mean 'val_r2'"):
        rr.selection.choose(swept, metric="r2")


def test_a_score_that_states_no_direction_must_be_told(swept):
    choose = rr.selection.choose
    message = (
        r"nobody stated whether more of 'val_mae' is better: give choose\(..., maximise=True\)"
    )
    with pytest.raises(ValueError, match=message):
        choose(swept, metric="val_mae")
    with pytest.raises(ValueError, match="nobody stated whether more of 'penalty_l2'"):
        choose(swept, metric="penalty_l2")
    least = choose(swept, metric="val_mae", maximise=False)
    most = choose(swept, metric="val_mae", maximise=True)
    assert least.curve.mean.min() == least.curve.mean[least.curve.lam.tolist().index(least.lam)]
    assert most.curve.mean.max() == most.curve.mean[most.curve.lam.tolist().index(most.lam)]
    with pytest.raises(ValueError, match="of 'val_r2' more is better, as it states itself"):
        choose(swept, metric="val_r2", maximise=False)
    with pytest.raises(ValueError, match="of 'val_loss' less is better"):
        choose(swept, maximise=True)


def test_the_rules_of_a_maximised_score_are_those_of_its_negative():
    rng = np.random.default_rng(3)
    lam, folds = np.logspace(-3, 0, 7), rng.normal(size=(7, 4))
    up, *places = rr.selection.one_standard_error(folds, [1, 2, 3, 4], lam, maximise=True)
    down, *same = rr.selection.one_standard_error(-folds, [1, 2, 3, 4], lam)
    assert places == same
    np.testing.assert_allclose(up.mean, -down.mean)
    np.testing.assert_allclose(up.se, down.se)


def test_direction_is_true_or_false():
    with pytest.raises(ValueError, match=r"maximise must be True .*; got 'yes'"):
        rr.metrics.Score(right, maximise="yes")


def test_the_best_record_goes_by_the_monitored_score_and_its_direction():
    split = held_out(sine(), 24)
    options = {"num_epochs": 12, "metrics": METRICS, "record_every": 1}
    hyper = HYPER | {"learning_rate": 0.5}
    free = jax.jit(make(**options))(hyper, split, key=KEY)
    for monitor, best in (("r2", np.argmax), ("loss", np.argmin), ("right", np.argmax)):
        run = jax.jit(make(keep_best=True, monitor=monitor, **options))(hyper, split, key=KEY)
        curve = free.history[f"val_{monitor}"]
        np.testing.assert_allclose(run.metrics[f"val_{monitor}"], curve[best(curve)], **tolerance())
    stopped = jax.jit(make(patience=2, monitor="right", **options))(hyper, split, key=KEY)
    curve = np.asarray(free.history["val_right"])
    since, top, records = 0, -np.inf, 0
    for value in curve:
        records += 1
        since, top = (0, value) if value > top else (since + 1, top)
        if since == 2:
            break
    assert int(stopped.num_updates) == records < len(curve)


# ---- plain functions ------------------------------------------------------------------------------


def squared(outputs, ys):
    return jnp.mean(jnp.square(outputs - ys))


def squared_of_four(outputs, ys, mask=None, weights=None):
    return rr.losses.squared_error()(outputs, ys, mask, weights)


@every_case
@pytest.mark.parametrize("score", [True, False])
def test_a_mean_of_two_arguments_counts_masks_and_weights(case, score):
    ys = OUTPUTS + RNG.normal(size=OUTPUTS.shape)
    given = arrays(OUTPUTS, ys, *CASES[case])
    if score:
        value = rr.metrics.Score(squared, maximise=False)(*given)
    else:
        value = rr.metrics._base.as_function(squared, "the loss", loss=True)(*given)
    np.testing.assert_allclose(value, rr.losses.squared_error()(*given), **tolerance())


def test_a_run_with_two_arguments_is_that_of_the_loss_of_the_library():
    batch = sine().train._replace(weights=jnp.arange(36.0) % 3)
    for given in (squared, squared_of_four):
        run = jax.jit(make(loss=given))(HYPER, batch, key=KEY)
        ours = jax.jit(make())(HYPER, batch, key=KEY)
        np.testing.assert_allclose(
            run.history["train_loss"], ours.history["train_loss"], **tolerance()
        )


@pytest.mark.parametrize(
    "function",
    [
        lambda o, y: jnp.sum(jnp.square(o - y)),
        lambda o, y: 1 - jnp.sum((o - y) ** 2) / jnp.sum((y - y.mean()) ** 2),
        lambda o, y: jnp.mean(jnp.square(o[:, -1:] - y[:, -1:])),
    ],
    ids=["sum", "r2", "last step"],
)
def test_two_arguments_that_would_ignore_a_mask_are_refused(function):
    score = rr.metrics.Score(function, maximise=False)
    ys = OUTPUTS + 1
    assert np.isfinite(score(*arrays(OUTPUTS, ys)))
    message = (
        "has a mask or weights, which the score .* does not take.*Write it with four arguments"
    )
    with pytest.raises(ValueError, match=message):
        jax.jit(score)(*arrays(OUTPUTS, ys, MASK))


@pytest.mark.slow
def test_a_third_argument_with_a_default_of_its_own_is_no_mask():
    def cross_entropy(logits, labels, axis=-1, where=None):
        assert axis == -1
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels, axis, where).mean()

    score = rr.metrics.Score(cross_entropy, maximise=False)
    given = arrays(OUTPUTS, CLASSES, None, WEIGHTS)
    np.testing.assert_allclose(
        score(*given), rr.losses.softmax_cross_entropy()(*given), **tolerance()
    )


def test_rows_that_the_user_takes_apart_are_not_refused():
    outputs, ys = jnp.asarray(OUTPUTS[:, 0, :1]), jnp.asarray(OUTPUTS[:, 1, 0])
    own = rr.metrics.Score(lambda o, y: jnp.mean((o[:, 0] - y) ** 2), maximise=False)
    np.testing.assert_allclose(own(outputs, ys), jnp.mean((outputs[:, 0] - ys) ** 2), rtol=1e-6)

    def pairs(outputs, ys):  # a loss over pairs of rows, of shapes that agree
        return jnp.mean((outputs - outputs.T - ys + ys.T) ** 2)

    assert np.isfinite(rr.metrics.Score(pairs, maximise=False)(outputs, ys[:, None]))


@pytest.mark.parametrize(
    "shapes", [((4, 1), (4,)), ((4,), (4, 1)), ((4, 4, 1), (4, 4)), ((4, 3, 1), (4, 3))]
)
def test_targets_never_broadcast_to_a_square(shapes):
    outputs, ys = (jnp.ones(shape) for shape in shapes)
    for function in (squared, lambda o, y, mask, weights: jnp.mean(jnp.abs(y - o))):
        score = rr.metrics.Score(function, maximise=False)
        if shapes[0] == (4, 3, 1):  # JAX itself refuses this one
            with pytest.raises((TypeError, ValueError)):
                score(outputs, ys)
            continue
        with pytest.raises(ValueError, match=r"compares every row with every other.*ys.reshape"):
            score(outputs, ys)


def test_an_attribute_of_a_function_declares_its_direction_too():
    def hits(outputs, ys):
        return jnp.mean(outputs == ys)

    hits.maximise = True
    assert make(metrics={"hits": hits}).settings.metrics["hits"].maximise is True
    assert make(metrics={"mae": squared}).settings.metrics["mae"].maximise is None


# ---- evaluate -------------------------------------------------------------------------------------


def test_evaluate_gives_the_scores_that_a_run_records():
    split = held_out(sine(), 24)
    split = split.replace(scaling=rr.data.fit_scaling(split.train), test={"late": split.validation})
    train = make(metrics={"r2": R2})
    run = train(HYPER, split, key=KEY)
    options = {"loss": rr.losses.squared_error(), "metrics": {"r2": R2}, "scaling": split.scaling}
    net = train.network(HYPER)
    found = jax.jit(lambda params: rr.evaluate(net, params, split.test, **options))(run.params)
    found = found["late"]
    for name in ("loss", "r2"):
        np.testing.assert_allclose(found[name], run.metrics[f"val_{name}"], **tolerance())
    parts = rr.evaluate(net, run.params, split.validation, batch_size=5, **options)
    for name in ("loss", "r2"):  # of all rows, not the mean over minibatches
        np.testing.assert_allclose(parts[name], found[name], **tolerance())
    jitted = jax.jit(lambda params: rr.evaluate(net, params, split.validation, **options))
    np.testing.assert_allclose(jitted(run.params)["r2"], found["r2"], **tolerance())


def test_evaluate_says_what_it_needs():
    split = sine()
    net = rr.network([rr.cells.elman(4)], 3, readout="last")
    params = net.init(KEY, 1)
    with pytest.raises(ValueError, match=r"needs loss=…, metrics="):
        rr.evaluate(net, params, split.train)
    with pytest.raises(ValueError, match=r"data must be a Batch .*got a Split"):
        rr.evaluate(net, params, split, metrics={"r2": R2})
    batch = rr.Batch(split.train.xs, jnp.arange(36) % 4)
    with pytest.raises(ValueError, match=r"data.ys must hold classes 0 … 2, .*; got 3 at"):
        rr.evaluate(net, params, batch, loss=rr.losses.softmax_cross_entropy())
