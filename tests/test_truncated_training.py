"""An update a segment: the loop that it stands for, what is carried and what is cut, masks, and bad arguments."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import SEED, tolerance
from small import HYPER, Counted, assert_same, held_out, make, sine

import rnnreg as rr

KEY = jax.random.key(SEED)
NET = rr.network([rr.cells.elman(4)], 1)
NETS = {
    "elman": NET,
    "lstm": rr.network([rr.cells.lstm(3)], 1),
    "scan": rr.network([rr.cells.gru(3, reset="before")], 1),
    "learned": rr.network([rr.cells.gru(3), rr.cells.elman(2)], 1, initial_state="learned"),
    "repeat": rr.network([rr.layer(rr.cells.elman(1), repeat=2)], 1),
}
LEARNED = rr.network([rr.cells.gru(2)], 1, initial_state="learned")
ADAM = {"optimizer": lambda hyper: optax.adam(hyper["learning_rate"])}


def rows(num_steps=10, **options):
    return sine(24, window=num_steps, targets="all", **options).train


def ragged(lengths, num_steps=10):
    batch = rows(num_steps)
    first = rr.data.take_rows(batch, np.arange(len(lengths)))
    return first._replace(mask=rr.data.lengths_to_mask(lengths, num_steps))


def by_hand(net, batch, params, *, length, epochs, rate=1e-2, lam=1e-2, carry=True):
    """The textbook loop over pieces of a batch, with nothing of the library but network, and slices of true length."""
    optimizer = optax.adam(rate)
    opt_state = optimizer.init(params)

    def mean_error(outputs, ys, mask):
        true = mask.sum(axis=1)
        errors = (jnp.square(outputs - ys)[..., 0] * mask).sum(axis=1) / jnp.maximum(true, 1)
        return errors.sum() / (true > 0).sum()

    @jax.jit
    def step(params, opt_state, xs, ys, mask, state):
        def total(params):
            out = net.apply(params, xs, mask=mask, state=state)
            leaves = rr.leaf_paths(params).items()
            weights = [w for path, w in leaves if path.split("/")[-1].startswith("W_")]
            penalty = sum(jnp.sum(w**2) for w in weights)
            return mean_error(out.outputs, ys, mask) + lam * penalty, out.final_state

        gradients, final = jax.grad(total, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, final

    mask = jnp.ones(batch.xs.shape[:2]) if batch.mask is None else batch.mask
    done = 0
    for _ in range(epochs):
        state = None
        for begin in range(0, batch.xs.shape[1], length):
            piece = slice(begin, begin + length)
            if not np.any(mask[:, piece]):
                continue
            arrays = (batch.xs[:, piece], batch.ys[:, piece], mask[:, piece].astype(batch.xs.dtype))
            params, opt_state, final = step(params, opt_state, *arrays, state)
            state = final if carry else None
            done += 1
    return params, done


def segmented(net, batch, *, length, epochs=3, **options):
    train = make(net, segment_steps=length, num_epochs=epochs, **(ADAM | options))
    start = train.init(HYPER, batch, key=KEY).params
    return jax.jit(train)(HYPER, batch, key=KEY), start


@pytest.mark.slow
@pytest.mark.numerics
@pytest.mark.parametrize(  # of ten steps: the last segment is short, or whole
    ("name", "length"), [*((name, 3) for name in NETS), ("elman", 5)]
)
def test_segments_equal_the_loop_by_hand(name, length):
    batch = rows()
    run, start = segmented(NETS[name], batch, length=length)
    params, done = by_hand(NETS[name], batch, start, length=length, epochs=3)
    chex.assert_trees_all_close(run.params, params, **tolerance())
    assert int(run.num_updates) == done == 3 * -(-10 // length)


@pytest.mark.slow
@pytest.mark.optimised  # a padded sequence and a short one are two programs
@pytest.mark.numerics
def test_masked_steps_count_for_nothing_and_empty_segments_make_no_update():
    batch = ragged(
        [5, 2, 6, 1]
    )  # the last of the four segments of 3 is empty, and rows end before it
    run, start = segmented(LEARNED, batch, length=3)
    params, done = by_hand(LEARNED, batch, start, length=3, epochs=3)
    chex.assert_trees_all_close(run.params, params, **tolerance())
    assert int(run.num_updates) == done == 3 * 2
    assert np.isfinite(run.history["gradient_norm"]).all()  # of the last update that was made
    shorter, _ = segmented(LEARNED, batch._replace(**_first(batch, 6)), length=3)
    assert_same(run.params, shorter.params)


def _first(batch, num_steps):
    return {name: getattr(batch, name)[:, :num_steps] for name in ("xs", "ys", "mask")}


@functools.cache
def plain():
    return jax.jit(make(NET, batch_size=5, num_epochs=3, **ADAM))(HYPER, rows(), key=KEY)


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize("length", [np.int64(10), 64])
def test_one_segment_is_the_plain_run(length):
    run, _ = segmented(NET, rows(), length=length, batch_size=5)
    assert_same(run, plain())


@pytest.mark.slow
@pytest.mark.numerics
def test_the_state_is_carried_and_starts_anew_with_each_minibatch():
    batch = rows()
    run, start = segmented(NET, batch, length=5)
    independent, _ = by_hand(NET, batch, start, length=5, epochs=3, carry=False)
    difference = optax.tree.norm(jax.tree.map(jnp.subtract, run.params, independent))
    assert difference > 1e-3

    # minibatches: the same loop over the rows of each, in the order of the plain run
    train = make(NET, segment_steps=5, num_epochs=1, batch_size=7, **ADAM)
    two = rr.data.take_rows(batch, np.arange(14))
    run = jax.jit(train)(HYPER, two, key=KEY)
    state = train.init(HYPER, two, key=KEY)
    draws = jax.random.uniform(jax.random.fold_in(jax.random.fold_in(state.key, 0), 0), (14,))
    update = jax.jit(train.update)
    for number in jnp.argsort(draws).reshape(2, 7):
        carried = None
        for piece in (slice(0, 5), slice(5, 10)):
            some = rr.data.take_rows(two, number)
            segment = rr.Batch(some.xs[:, piece], some.ys[:, piece])
            state, info = update(state, HYPER, segment, network_state=carried)
            carried = info.network_state
    chex.assert_trees_all_close(state.params, run.params, **tolerance())
    assert int(run.num_updates) == int(state.step) == 4


@pytest.mark.numerics
def test_no_gradient_reaches_the_segment_before():
    # A delay of one segment: only the carried state knows the target, and only W_hh within a segment learns.
    xs = jnp.zeros((4, 6, 1)).at[:, :3].set(jax.random.normal(KEY, (4, 3, 1)))
    ys = jnp.zeros((4, 6, 1)).at[:, 3:].set(xs[:, :3])
    mask = jnp.ones((4, 6))
    net = rr.network([rr.cells.elman(3)], 1)
    train = make(net, penalties={}, segment_steps=3)
    hyper = {"learning_rate": 1e-2}
    state = train.init(hyper, rr.Batch(xs, ys), key=KEY)
    update = jax.jit(train.update)
    _, info = update(state, hyper, rr.Batch(xs[:, :3], ys[:, :3], mask[:, :3]))
    later = rr.Batch(xs[:, 3:], ys[:, 3:], mask[:, 3:])
    new, _ = update(state, hyper, later, network_state=info.network_state)
    # the inputs of the second segment are zero: W_xh could only learn through the first
    assert_same(new.params["layer_0"]["W_xh"], state.params["layer_0"]["W_xh"])
    changed = new.params["layer_0"]["W_hh"] - state.params["layer_0"]["W_hh"]
    assert np.abs(changed).max() > 1e-6
    anew, _ = update(state, hyper, later)
    assert not np.allclose(anew.params["readout"]["W_hy"], new.params["readout"]["W_hy"], atol=1e-8)


def test_memory_across_segments_comes_from_the_carried_state_alone():
    # y_t = x_{t−1}, segments of one step: the gradient never sees x_{t−1}, but the state does.
    xs = jnp.sign(jax.random.normal(KEY, (32, 12, 1)))
    batch = rr.Batch(xs, jnp.concatenate([jnp.zeros((32, 1, 1)), xs[:, :-1]], axis=1))
    hyper = {"learning_rate": 1e-2}
    net = rr.network([rr.cells.elman(8)], 1)
    options = {"penalties": {}, "num_epochs": 60} | ADAM
    run = jax.jit(make(net, segment_steps=1, **options))(hyper, batch, key=KEY)
    # without a memory the best loss is the variance of the target, 11/12
    assert run.metrics["train_loss"] < 0.5 * 11 / 12


@pytest.mark.numerics
@pytest.mark.float64_only
def test_the_gradient_through_a_run_in_segments_equals_a_finite_difference():
    batch = rows()
    data = held_out(rr.Split(batch, target_times=np.zeros((len(batch.xs), 2))), 8)
    train = make(LEARNED, segment_steps=4, num_epochs=2, batch_size=4, **ADAM)

    @jax.jit
    @jax.value_and_grad
    def val_loss(lam):
        return train({"l2": lam, "learning_rate": 2e-2}, data, key=KEY).metrics["val_loss"]

    lam, eps = 1e-2, 1e-6
    difference = (val_loss(lam + eps)[0] - val_loss(lam - eps)[0]) / (2 * eps)
    # a central difference is good to eps² and to rounding / eps
    np.testing.assert_allclose(val_loss(lam)[1], difference, rtol=1e-6, atol=1e-8)


# ---- with everything else that a run can do -------------------------------------------------------


@pytest.mark.slow
def test_penalties_see_the_segment():
    seen = []

    def value(params, context, state):
        seen.append((context.states["layer_0"].h.shape, context.state_gradients["layer_0"].shape))
        gradients = context.state_gradients["layer_0"]
        return jnp.sum(gradients**2) + jnp.mean(context.states["layer_0"].h ** 2), state + 1

    flow = rr.penalties.Penalty(
        lambda params: jnp.int32(0), value, needs=frozenset({"states", "state_gradients"})
    )
    train = make(NET, penalties={"flow": flow}, segment_steps=4, num_epochs=2)
    batch = ragged([8, 7, 3, 8])
    hyper = {"flow": 1e-2, "learning_rate": 1e-2}
    state = train.init(hyper, batch, key=KEY)
    state, _ = jax.jit(lambda state: train.advance(state, hyper, batch, 2))(state)
    assert ((4, 4, 4), (4, 4, 4)) in seen
    assert int(state.penalty_state["flow"]) == int(state.step) == 4  # two of three segments, twice


@pytest.mark.slow
def test_dropout_masks_differ_between_segments():
    net = rr.network([rr.cells.elman(4)], 1, output_dropout=0.5, variational=True)
    batch = rr.Batch(jnp.ones((3, 4, 1)), jnp.zeros((3, 4, 1)))
    train = make(net, segment_steps=2)
    hyper = HYPER | {"learning_rate": 0.0}
    state = train.init(hyper, batch, key=KEY)
    half = rr.Batch(batch.xs[:, :2], batch.ys[:, :2])
    update = jax.jit(train.update)
    middle, first = update(state, hyper, half)
    _, second = update(middle, hyper, half)
    assert abs(float(first.data_loss) - float(second.data_loss)) > 1e-6
    run = jax.jit(train)(HYPER, batch, key=KEY)
    assert np.isfinite(run.metrics["train_loss"])


@pytest.mark.slow
def test_a_diverged_run_freezes_inside_a_minibatch():
    batch = rows()
    train = make(NET, segment_steps=3, num_epochs=40, record_every=20)
    lanes = jax.jit(
        jax.vmap(lambda rate: train({"l2": 0.0, "learning_rate": rate}, batch, key=KEY))
    )
    run = lanes(jnp.array([1e-2, 1e6]))
    assert run.diverged_at[0] == -1
    assert run.num_updates[0] == 160
    assert run.num_updates[1] == run.diverged_at[1] < 20
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.params))
    assert np.isnan(run.metrics["train_loss"][1])
    alone = jax.jit(train)({"l2": 0.0, "learning_rate": 1e-2}, batch, key=KEY)
    first = jax.tree.map(lambda leaf: leaf[0], run.params)
    chex.assert_trees_all_close(first, alone.params, **tolerance())


@pytest.mark.slow
def test_tokens_weights_and_bfloat16_train_in_segments():
    xs = jax.random.randint(KEY, (6, 7), 0, 3)
    net = rr.network([rr.cells.gru(3)], 3, embedding=(3, 2))
    options = {"loss": rr.losses.softmax_cross_entropy(), "segment_steps": 3, **ADAM}
    weights = jnp.array([1.0, 1, 0, 1, 2, 1])
    run = jax.jit(make(net, **options))(HYPER, rr.Batch(xs, xs, weights=weights), key=KEY)
    assert int(run.num_updates) == 18
    assert run.metrics["train_loss"] < run.history["train_loss"][0]
    run, _ = segmented(NET, rows(dtype=jnp.bfloat16), length=4)
    assert np.isfinite(run.metrics["train_loss"])


@pytest.mark.slow
def test_weights_of_steps_are_cut_with_the_steps():
    batch = rows()
    steps = jnp.asarray(np.arange(batch.xs.shape[1]) % 4 > 0, jnp.float32)
    weights = jnp.broadcast_to(steps, batch.xs.shape[:2])
    weighed, _ = segmented(NET, batch._replace(weights=weights), length=5)
    junk = batch.ys + 100 * (1 - weights)[..., None]
    again, _ = segmented(NET, batch._replace(weights=weights, ys=junk), length=5)
    assert_same(weighed.params, again.params)
    plain, _ = segmented(NET, batch, length=5)
    assert not np.allclose(plain.params["readout"]["W_hy"], weighed.params["readout"]["W_hy"])


@pytest.mark.slow
def test_a_segment_is_traced_once_and_epochs_are_recorded():
    net = Counted(NET)
    train = make(net.net, segment_steps=1, num_epochs=4, record_every=2)
    run = jax.jit(train)(HYPER, rows(), key=KEY)
    ten = net.count
    assert run.history["train_loss"].shape == (2,)
    assert int(run.num_updates) == 40
    net.count = 0
    jax.jit(make(net.net, segment_steps=1, num_epochs=4, record_every=2))(HYPER, rows(5), key=KEY)
    assert net.count == ten  # however many segments there are


@pytest.mark.slow
def test_a_line_search_sees_the_carried_state():
    run = jax.jit(make(NET, segment_steps=5, optimizer=optax.lbfgs()))(
        {"l2": 1e-3}, rows(), key=KEY
    )
    assert int(run.diverged_at) == -1
    assert run.metrics["train_loss"] < run.history["train_loss"][0]


@pytest.mark.slow
def test_rows_split_over_devices_carry_their_state():
    batch = rr.data.take_rows(ragged([10, 4, 7, 2, 9]), np.arange(5))
    train = make(LEARNED, segment_steps=4, num_epochs=3, **ADAM)
    whole = jax.jit(train)(HYPER, batch, key=KEY)
    devices = tuple(jax.devices()[:2])  # one, unless XLA_FLAGS makes more
    split = jax.jit(train.split_rows(devices))(HYPER, batch, key=KEY)
    chex.assert_trees_all_close(split.params, whole.params, **tolerance())
    assert int(split.num_updates) == int(whole.num_updates)


@pytest.mark.slow
def test_a_sweep_says_that_it_trained_in_segments():
    batch = rows()
    results = {}
    for length in (None, 4):
        results[length] = rr.sweep(
            make(NET, segment_steps=length, num_epochs=2),
            HYPER | {"l2": [0.0, 1e-2]},
            rr.Split(batch),
            key=KEY,
        )
        assert results[length].config["segment_steps"] == [length]
    assert results[4].config["updates"] == [6]
    assert (results[4].metrics.num_updates == 6).all()
    assert results[4].config["program_sha256"] != results[None].config["program_sha256"]


# ---- bad arguments --------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, -3, 2.0, True, "3", np.float64(2)])
def test_segments_are_a_positive_number_of_steps(length):
    with pytest.raises(
        ValueError,
        match=r"segment_steps must be a (positive int, the number of time|whole number or None)",
    ):
        make(NET, segment_steps=length)


REFUSED = {
    "readout": (rr.network([rr.cells.elman(2)], 1, readout="last"), "readout='last' has one loss"),
    "bidirectional": (
        rr.network([rr.cells.elman(2), rr.layer(rr.cells.elman(2), bidirectional=True)], 1),
        "layer 1 reads backwards",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_networks_without_a_loss_or_a_state_inside_are_refused(name):
    net, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        make(net, segment_steps=3)
    train = make(lambda hyper: net, segment_steps=3)  # known only where hyper is
    with pytest.raises(ValueError, match=message):
        train.init(HYPER, rows(), key=KEY)


def test_targets_have_to_be_one_a_step():
    batch = rows()
    with pytest.raises(
        ValueError, match=r"data.train.ys must have a target at each step: \[N, T, …\]"
    ):
        make(NET, segment_steps=3).init(HYPER, batch._replace(ys=batch.ys[:, -1]), key=KEY)
