"""Losses against a slow loop over rows, steps and outputs, and against scikit-learn and optax."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.metrics
from conftest import tolerance

import rnnreg as rr

pytestmark = pytest.mark.numerics

B, T, O = 4, 5, 3
LENGTHS = [5, 2, 0, 3]  # a whole row, ragged rows, and a row of padding alone

FACTORIES = {
    "squared_error": rr.losses.squared_error,
    "softmax_cross_entropy": rr.losses.softmax_cross_entropy,
    "sigmoid_cross_entropy": rr.losses.sigmoid_cross_entropy,
}

every_loss = pytest.mark.parametrize("name", FACTORIES)
both_reductions = pytest.mark.parametrize("reduction", ["sum", "mean"])


def _data(name, readout="all", seed=0):
    rng = np.random.default_rng(seed)
    shape = (B, T, O) if readout == "all" else (B, O)
    outputs = rng.normal(size=shape)
    if name == "softmax_cross_entropy":
        return outputs, rng.integers(0, O, shape[:-1])
    if name == "sigmoid_cross_entropy":
        return outputs, rng.uniform(size=shape)
    return outputs, rng.normal(size=shape)


def _one_step(name, output, target):
    """The loss of one step (summed over its outputs) and the number of terms in it, in NumPy."""
    if name == "squared_error":
        return sum((o - t) ** 2 for o, t in zip(output, target, strict=True)), len(output)
    if name == "softmax_cross_entropy":
        return np.log(np.sum(np.exp(output))) - output[target], 1
    probability = 1 / (1 + np.exp(-output))
    terms = target * np.log(probability) + (1 - target) * np.log(1 - probability)
    return -terms.sum(), len(output)


def _slow(name, reduction, outputs, ys, mask=None, weights=None):
    total = count = 0.0
    for row in range(len(outputs)):
        weight = 1.0 if weights is None else weights[row]
        every_step = np.ndim(outputs) == 3
        steps = [t for t in range(T) if mask is None or mask[row][t]]
        if not steps or weight == 0:
            continue
        pairs = (
            [(outputs[row][t], ys[row][t]) for t in steps]
            if every_step
            else [(outputs[row], ys[row])]
        )
        terms = [_one_step(name, output, target) for output, target in pairs]
        value = sum(term for term, _ in terms)
        if reduction == "mean":
            value /= sum(size for _, size in terms)
        total, count = total + weight * value, count + weight
    return total / count if count else 0.0


MASK = rr.data.lengths_to_mask(LENGTHS, T)
SCATTERED = MASK.copy()
SCATTERED[0, [0, 2]] = 0  # padding on the left and in the middle
WEIGHTS = np.array([1.0, 0.5, 2.0, 0.0], np.float32)

CASES = {
    "plain": (None, None),
    "lengths": (MASK, None),
    "left_and_middle": (SCATTERED, None),
    "bool_mask": (MASK.astype(bool), None),
    "weights": (None, WEIGHTS),
    "mask_and_weights": (SCATTERED, WEIGHTS),
}


@pytest.mark.parametrize("readout", ["all", "last"])
@pytest.mark.parametrize("case", CASES)
@both_reductions
@every_loss
def test_loss_equals_a_slow_loop(name, reduction, case, readout):
    mask, weights = CASES[case]
    outputs, ys = _data(name, readout)
    measured = FACTORIES[name](reduction)(jnp.asarray(outputs), jnp.asarray(ys), mask, weights)
    expected = _slow(name, reduction, outputs, ys, mask, weights)
    assert measured.shape == ()
    np.testing.assert_allclose(measured, expected, **tolerance())


def test_the_textbook_sum_of_squared_errors():
    """L = Σ_t (y_t − ŷ_t)² for one sequence of one output."""
    outputs, ys = jnp.array([[[1.0], [2.0], [4.0]]]), jnp.array([[[0.0], [4.0], [1.0]]])
    assert float(rr.losses.squared_error("sum")(outputs, ys)) == 1 + 4 + 9
    np.testing.assert_allclose(rr.losses.squared_error("mean")(outputs, ys), 14 / 3, rtol=1e-6)


@both_reductions
@every_loss
def test_values_at_padding_change_neither_loss_nor_gradient(name, reduction):
    outputs, ys = map(jnp.asarray, _data(name))
    loss = jax.value_and_grad(FACTORIES[name](reduction))
    padding = SCATTERED == 0
    junk_outputs = jnp.where(padding[..., None], -1e4, outputs)
    if ys.ndim == 2:
        junk_ys = jnp.where(padding, 10**6, ys)  # a padding token beyond the classes
    else:
        junk_ys = jnp.where(padding[..., None], 1e4, ys)
    value, gradient = loss(outputs, ys, SCATTERED, WEIGHTS)
    junk_value, junk_gradient = loss(junk_outputs, junk_ys, SCATTERED, WEIGHTS)
    np.testing.assert_array_equal(value, junk_value)
    np.testing.assert_array_equal(gradient, junk_gradient)
    assert not np.asarray(gradient)[padding].any()
    assert np.asarray(gradient)[0, 1].any()


@both_reductions
@pytest.mark.parametrize("name", ["squared_error", "sigmoid_cross_entropy"])
def test_nan_targets_at_padding_reach_neither_loss_nor_gradient(name, reduction):
    outputs, ys = map(jnp.asarray, _data(name))
    holes = jnp.where(SCATTERED[..., None] == 0, jnp.nan, ys)
    loss = jax.value_and_grad(FACTORIES[name](reduction))
    for arguments in ((SCATTERED, None), (SCATTERED, WEIGHTS)):
        whole, punched = loss(outputs, ys, *arguments), loss(outputs, holes, *arguments)
        assert np.isfinite(punched[1]).all()
        for one, two in zip(whole, punched, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("label", [-1, O])
@both_reductions
def test_a_class_that_is_none_is_nan_unless_masked(label, reduction):
    outputs, ys = map(jnp.asarray, _data("softmax_cross_entropy"))
    loss = FACTORIES["softmax_cross_entropy"](reduction)
    wrong = ys.at[0, 2].set(label)  # a step that SCATTERED masks
    assert np.isnan(loss(outputs, wrong))
    assert np.isnan(loss(outputs[:, 2], wrong[:, 2]))
    np.testing.assert_array_equal(loss(outputs, wrong, SCATTERED), loss(outputs, ys, SCATTERED))
    gradient = jax.grad(loss)(outputs, wrong, SCATTERED)
    assert np.isfinite(gradient).all()


@both_reductions
@every_loss
@pytest.mark.parametrize("nothing", ["mask", "weights"])
def test_nothing_that_counts_is_loss_zero_with_zero_gradient(name, reduction, nothing):
    outputs, ys = map(jnp.asarray, _data(name))
    arguments = {"mask": jnp.zeros((B, T))} if nothing == "mask" else {"weights": jnp.zeros(B)}
    loss = FACTORIES[name](reduction)
    value, gradient = jax.value_and_grad(lambda out: loss(out, ys, **arguments))(outputs)
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient, np.zeros_like(outputs))


@every_loss
def test_large_logits_and_errors_stay_finite(name):
    outputs, ys = map(jnp.asarray, _data(name))
    value, gradient = jax.value_and_grad(FACTORIES[name]("mean"))(1e4 * outputs, ys)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@both_reductions
@every_loss
def test_ragged_rows_equal_rows_alone(name, reduction):
    """Padding to a common length is bookkeeping: the mean over sequences is that of the rows alone."""
    outputs, ys = map(jnp.asarray, _data(name))
    loss = FACTORIES[name](reduction)
    alone = [
        loss(outputs[row : row + 1, :length], ys[row : row + 1, :length])
        for row, length in enumerate(LENGTHS)
        if length
    ]
    np.testing.assert_allclose(loss(outputs, ys, MASK), np.mean(alone), **tolerance())


def test_bfloat16_accumulates_in_float32():
    """5000 ones: in bfloat16 a running sum sticks at 256."""
    outputs = jnp.ones((1, 5000, 1), jnp.bfloat16)
    for reduction, expected in (("sum", 5000.0), ("mean", 1.0)):
        value = rr.losses.squared_error(reduction)(outputs, jnp.zeros_like(outputs))
        assert value.dtype == jnp.float32
        assert float(value) == expected


@pytest.mark.parametrize(
    "dtype",
    [jnp.bfloat16, jnp.float32, pytest.param(jnp.float64, marks=pytest.mark.float64_only)],
)
@every_loss
def test_dtypes_are_strict_and_ranks_explicit(name, dtype):
    outputs, ys = map(jnp.asarray, _data(name))
    ys = ys if ys.ndim == 2 else ys.astype(dtype)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for mask in (None, jnp.asarray(MASK), jnp.asarray(MASK, bool), jnp.asarray(MASK, int)):
            loss = jax.value_and_grad(FACTORIES[name]("mean"))
            value, gradient = jax.eval_shape(loss, outputs.astype(dtype), ys, mask, jnp.ones(B))
            assert value.dtype == (jnp.float64 if dtype == jnp.float64 else jnp.float32)
            assert gradient.dtype == dtype


# ---- outside tools --------------------------------------------------------------------------------


def test_squared_error_equals_scikit_learn():
    outputs, ys = _data("squared_error", "last")
    measured = rr.losses.squared_error("mean")(jnp.asarray(outputs), jnp.asarray(ys), None, WEIGHTS)
    expected = sklearn.metrics.mean_squared_error(ys, outputs, sample_weight=WEIGHTS)
    np.testing.assert_allclose(measured, expected, **tolerance())


def test_softmax_equals_scikit_learn_and_optax():
    outputs, ys = _data("softmax_cross_entropy", "last")
    measured = rr.losses.softmax_cross_entropy("mean")(
        jnp.asarray(outputs), jnp.asarray(ys), None, WEIGHTS
    )
    probabilities = np.exp(outputs) / np.exp(outputs).sum(axis=-1, keepdims=True)
    expected = sklearn.metrics.log_loss(ys, probabilities, sample_weight=WEIGHTS, labels=range(O))
    np.testing.assert_allclose(measured, expected, **tolerance())

    outputs, ys = _data("softmax_cross_entropy")
    mean = optax.softmax_cross_entropy(jnp.asarray(outputs), jax.nn.one_hot(ys, O)).mean()
    measured = rr.losses.softmax_cross_entropy("mean")(jnp.asarray(outputs), jnp.asarray(ys))
    np.testing.assert_allclose(measured, mean, **tolerance())


def test_sigmoid_equals_scikit_learn_and_optax():
    outputs, ys = _data("sigmoid_cross_entropy")
    mean = optax.sigmoid_binary_cross_entropy(jnp.asarray(outputs), jnp.asarray(ys)).mean()
    measured = rr.losses.sigmoid_cross_entropy("mean")(jnp.asarray(outputs), jnp.asarray(ys))
    np.testing.assert_allclose(measured, mean, **tolerance())
    hard = (ys > 0.5).astype(float)
    expected = sklearn.metrics.log_loss(hard.ravel(), 1 / (1 + np.exp(-outputs)).ravel())
    measured = rr.losses.sigmoid_cross_entropy("mean")(jnp.asarray(outputs), jnp.asarray(hard))
    np.testing.assert_allclose(measured, expected, **tolerance())


# ---- messages -------------------------------------------------------------------------------------


def test_wrong_shapes_and_reductions_are_named():
    outputs = jnp.zeros((B, T, O))
    with pytest.raises(
        ValueError, match=r"got outputs \(4, 5, 3\) and ys \(4, 3\).*readout='last'"
    ):
        rr.losses.squared_error()(outputs, jnp.zeros((B, O)))
    with pytest.raises(
        ValueError, match="same shape"
    ):  # [B] against [B, 1] would broadcast silently
        rr.losses.sigmoid_cross_entropy()(jnp.zeros((B, 1)), jnp.zeros(B))
    with pytest.raises(ValueError, match=r"integer classes of shape \(4, 5\); got float"):
        rr.losses.softmax_cross_entropy()(outputs, jnp.zeros((B, T)))
    with pytest.raises(ValueError, match=r"integer classes of shape \(4, 5\); got int.*\(4,\)"):
        rr.losses.softmax_cross_entropy()(outputs, jnp.zeros(B, int))
    for factory in FACTORIES.values():
        with pytest.raises(ValueError, match="'sum' or 'mean' over true steps; got 'average'"):
            factory("average")


def test_a_loss_has_a_name_for_records():
    loss = rr.losses.squared_error("sum")
    assert (loss.name, loss.reduction, loss.mean_over_rows) == ("squared_error", "sum", True)
    assert loss == rr.losses.squared_error("sum") != rr.losses.squared_error("mean")
    assert hash(loss) == hash(rr.losses.squared_error("sum"))


# ---- weights of steps ---------------------------------------------------------------------------------


@every_loss
@both_reductions
def test_a_step_of_weight_zero_counts_like_a_masked_one(name, reduction):
    outputs, ys = (jnp.asarray(part) for part in _data(name))
    loss, mask = FACTORIES[name](reduction), jnp.asarray(MASK)
    expected = jax.value_and_grad(loss)(outputs, ys, mask)
    for given in (mask, 3 * mask, mask.astype(bool)):
        found = jax.value_and_grad(loss)(outputs, ys, None, given)
        for one, two in zip(expected, found, strict=True):
            np.testing.assert_allclose(one, two, **tolerance(outputs.dtype))


@every_loss
@both_reductions
def test_equal_weights_of_steps_are_the_weight_of_their_row(name, reduction):
    outputs, ys = (jnp.asarray(part) for part in _data(name))
    loss, rows = FACTORIES[name](reduction), jnp.asarray([0.5, 2.0, 1.0, 0.0])
    for mask in (None, jnp.asarray(MASK)):
        found = loss(outputs, ys, mask, jnp.broadcast_to(rows[:, None], (B, T)))
        np.testing.assert_allclose(found, loss(outputs, ys, mask, rows), **tolerance(outputs.dtype))


@every_loss
def test_weights_of_steps_equal_a_slow_loop(name):
    outputs, ys = _data(name)
    weights = np.random.default_rng(1).uniform(0, 2, (B, T)) * (
        np.random.default_rng(2).random((B, T)) > 0.3
    )
    for reduction in ("sum", "mean"):
        total = count = 0.0
        for row in range(B):
            heaviest = (
                max(weights[row][t] for t in range(T) if MASK[row][t]) if MASK[row].any() else 0
            )
            if heaviest == 0:
                continue
            shares = [weights[row][t] / heaviest if MASK[row][t] else 0 for t in range(T)]
            terms = [_one_step(name, outputs[row][t], ys[row][t]) for t in range(T)]
            value = sum(share * term for share, (term, _) in zip(shares, terms, strict=True))
            if reduction == "mean":
                value /= sum(share * size for share, (_, size) in zip(shares, terms, strict=True))
            total, count = total + heaviest * value, count + heaviest
        found = FACTORIES[name](reduction)(
            jnp.asarray(outputs), jnp.asarray(ys), jnp.asarray(MASK), jnp.asarray(weights)
        )
        np.testing.assert_allclose(found, total / count, **tolerance(found.dtype, loosen=10))


def test_what_has_no_label_may_hold_any_class_and_any_number():
    outputs = jnp.zeros((1, 3, 2))
    labels = jnp.array([[7, -1, 1]])
    loss = rr.losses.softmax_cross_entropy()
    np.testing.assert_allclose(
        loss(outputs, labels, None, jnp.array([[0, 0, 1.0]])), np.log(2), rtol=1e-6
    )
    square, ys = rr.losses.squared_error(), jnp.array([[[jnp.nan], [jnp.inf], [2.0]]])
    value, slope = jax.value_and_grad(square)(outputs[..., :1], ys, None, jnp.array([[0, 0, 1.0]]))
    assert float(value) == 4
    assert np.isfinite(slope).all()


def test_weights_of_steps_need_outputs_at_steps():
    with pytest.raises(
        ValueError, match=r"one per step, and outputs .* are one per row.*readout='all'"
    ):
        rr.losses.squared_error()(jnp.ones((B, O)), jnp.ones((B, O)), None, jnp.ones((B, T)))


# ---- what counts for nothing ----------------------------------------------------------------------


@functools.cache
def _network(readout):
    """Parameters, and the network as one program that every loss of this file can share."""
    net = rr.network([rr.cells.elman(3), rr.cells.gru(2)], O, readout=readout)
    params = jax.jit(net.init, static_argnums=1)(jax.random.key(0), 1)
    return params, jax.jit(lambda params, xs, mask: net.apply(params, xs, mask=mask).outputs)


@pytest.mark.float32_only
@pytest.mark.parametrize("name", FACTORIES)
@pytest.mark.parametrize("readout", ["all", "last"])
@pytest.mark.parametrize("left_out", ["mask", "weights"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_count_for_nothing_may_hold_anything(name, readout, left_out, bad):
    """NaN in their inputs, outputs and targets moves neither the loss nor its gradient."""
    params, apply = _network(readout)
    outputs, ys = _data(name, readout)
    xs = np.random.default_rng(1).normal(size=(B, T, 1)).astype(outputs.dtype)
    given = {"mask": None, "weights": None}
    given[left_out] = np.ones((B, T)) if left_out == "mask" else np.ones(B)
    given[left_out][1] = 0
    mask, weights = (None if v is None else jnp.asarray(v) for v in given.values())

    @jax.value_and_grad
    def measured(params, xs, ys):
        loss = FACTORIES[name]("mean")
        return loss(apply(params, xs, mask), jnp.asarray(ys), mask, weights)

    expected = measured(params, xs, ys)
    xs = xs.copy()  # the program may still read the old one
    xs[1], ys = bad, ys.copy()
    ys[1] = -1 if ys.dtype.kind == "i" else bad
    found = measured(params, xs, ys)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


@pytest.mark.float32_only
def test_an_input_that_is_not_finite_and_counts_is_seen():
    """NaN from its step on in a network that reads forwards; everywhere in one that reads both ways."""
    xs = jnp.zeros((2, 4, 1)).at[0, 2, 0].set(jnp.inf)
    for bidirectional, first in ((False, 2), (True, 0)):
        net = rr.network([rr.layer(rr.cells.lstm(2), bidirectional=bidirectional)], 1)
        out = net.apply(net.init(jax.random.key(0), 1), xs)
        seen = np.isnan(out.outputs[0, :, 0])
        assert seen.tolist() == [step >= first for step in range(4)]
        assert all(np.isnan(leaf[0]).all() for leaf in jax.tree.leaves(out.final_state))
        assert all(np.isfinite(leaf[1]).all() for leaf in jax.tree.leaves(out))


@pytest.mark.slow
def test_unroll_and_a_run_leave_out_what_counts_for_nothing():
    cell = rr.cells.gru(2, reset="before")
    params = cell.init(jax.random.key(0), 1)
    xs = jnp.ones((3, 2, 1)).at[1:, 0].set(jnp.nan)
    mask = jnp.ones((3, 2)).at[1:, 0].set(0)

    def total(params):
        start = cell.initial_state(2, xs.dtype)
        return rr.recurrence.unroll(cell, params, xs, start, mask=mask)[1].h.sum()

    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.grad(total)(params)))

    def loss(
        outputs, ys, mask=None, weights=None
    ):  # a loss that multiplies by the weights, as users write it
        return jnp.sum(weights[:, None] * jnp.square(outputs - ys))

    net = rr.network([rr.cells.elman(2)], 1, readout="last")
    train = rr.make_train(net, loss=loss, optimizer=optax.sgd(0.1), num_epochs=2)
    bad = jnp.ones((3, 4, 1)).at[1].set(jnp.nan)
    rows = rr.Batch(bad, bad[:, 0], weights=jnp.array([1.0, 0.0, 1.0]))
    run = train({}, rr.Split(rows, validation=rows), key=jax.random.key(0))
    assert int(run.diverged_at) == -1
    assert np.isfinite(run.metrics["val_loss"])


def test_targets_of_as_many_outputs_as_steps_are_no_targets_of_steps():
    ys = jnp.arange(8.0).reshape(2, 4)
    batch = rr.Batch(jnp.ones((2, 4, 1)), ys, mask=jnp.array([[1, 1, 0, 0], [1, 1, 1, 1]]))
    net = rr.network([rr.cells.elman(2)], 4, readout="last")
    loss = rr.losses.squared_error()
    params = net.init(jax.random.key(0), 1)
    seen = rr.make_objective(net, loss, {})(params, {}, batch, {}, key=None, train=False)[1][
        0
    ].data_loss
    alone = loss(net.apply(params, batch.xs, mask=batch.mask).outputs, ys, batch.mask)
    np.testing.assert_allclose(seen, alone, **tolerance())
