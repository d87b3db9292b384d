"""A run: the loop that it stands for, what it draws, what it keeps, and how it fails."""

import functools
import gc
import weakref

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import SEED, tolerance
from small import HYPER, Counted, assert_same, held_out, make, sine

import rnnreg as rr
from rnnreg.networks import NetworkOutput

KEY = jax.random.key(SEED)
NET = rr.network([rr.cells.elman(4)], 1, readout="last")
OWN = {"adam": "b1", "momentum": "momentum", "adamw": "weight_decay", "rmsprop": "decay"}
MORE = HYPER | {"momentum": 0.7, "b1": 0.8, "weight_decay": 0.1, "decay": 0.8, "max_norm": 0.3}


def _cosine(hyper):
    shape = optax.cosine_decay_schedule(1.0, decay_steps=6)  # static shape with peak 1
    return optax.chain(
        optax.scale_by_adam(),
        optax.scale_by_schedule(shape),
        optax.scale_by_learning_rate(hyper["learning_rate"]),
    )


OPTIMIZERS = {
    "sgd": lambda hyper: optax.sgd(hyper["learning_rate"]),
    "momentum": lambda hyper: optax.sgd(hyper["learning_rate"], momentum=hyper["momentum"]),
    "adam": lambda hyper: optax.adam(hyper["learning_rate"], b1=hyper["b1"]),
    "adamw": lambda hyper: optax.adamw(hyper["learning_rate"], weight_decay=hyper["weight_decay"]),
    "rmsprop": lambda hyper: optax.rmsprop(hyper["learning_rate"], decay=hyper["decay"]),
    "clipped": lambda hyper: optax.chain(
        optax.clip_by_global_norm(hyper["max_norm"]), optax.sgd(hyper["learning_rate"])
    ),
    "cosine": _cosine,
}


def hyper_of(name):
    """What a run with that optimiser reads, and nothing else."""
    return HYPER | {own: MORE[own] for own in [OWN.get(name)] if own}


@functools.cache
def whole(name="sgd"):
    """The run of the sine with that optimiser; shared, since compiling is what takes time here."""
    return make(NET, optimizer=OPTIMIZERS[name])(hyper_of(name), sine().train, key=KEY)


def _by_hand(optimizer, batch, lam):
    """One turn of the textbook loop, with nothing of the library but the network."""

    def total(params):
        errors = NET.apply(params, batch.xs).outputs - batch.ys
        weights = [params["layer_0"]["W_xh"], params["layer_0"]["W_hh"], params["readout"]["W_hy"]]
        return jnp.mean(errors**2) + lam * sum(jnp.sum(w**2) for w in weights)

    @jax.jit
    def step(params, opt_state):
        updates, opt_state = optimizer.update(jax.grad(total)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return step


@pytest.mark.numerics
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_equal_the_loop_by_hand_and_are_traced_once(name):
    batch, net = sine().train, Counted(NET)
    train = make(net.net, optimizer=OPTIMIZERS[name])
    update = jax.jit(train.update)
    other = {k: 0.5 * v for k, v in MORE.items()}  # other values: the same program
    update(train.init(MORE, batch, key=KEY), MORE, batch)

    optimizer = OPTIMIZERS[name](other)  # from plain numbers
    state = train.init(other, batch, key=KEY)
    params, opt_state = state.params, optimizer.init(state.params)
    step = _by_hand(optimizer, batch, other["l2"])
    for _ in range(6):
        state, info = update(state, other, batch)
        parts = info.data_loss + other["l2"] * info.penalties["l2"]
        np.testing.assert_allclose(info.total, parts, **tolerance())
        assert bool(info.finite)
        params, opt_state = step(params, opt_state)
    chex.assert_trees_all_close(state.params, params, **tolerance())
    assert net.count == 1


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_the_notebook_loop_equals_the_run(name):
    data, run = sine().train, whole(name)
    train = make(NET, optimizer=OPTIMIZERS[name])
    update = jax.jit(train.update)
    state = train.init(MORE, data, key=KEY)
    norms = []
    for _ in range(6):
        state, info = update(state, MORE, data)
        norms.append(info.gradient_norm)
    chex.assert_trees_all_close(state.params, run.params, **tolerance())
    np.testing.assert_allclose(norms, run.history["gradient_norm"], **tolerance())
    assert int(state.step) == int(run.num_updates) == 6
    last = jax.jit(train.finish)(state, MORE, data)
    np.testing.assert_allclose(last.metrics["train_loss"], run.metrics["train_loss"], **tolerance())
    assert last.history == {}


def test_clipping_bounds_the_step():
    batch, hyper = sine().train, MORE | {"learning_rate": 1.0}
    train = make(NET, optimizer=OPTIMIZERS["clipped"])
    state = train.init(hyper, batch, key=KEY)
    new, info = jax.jit(train.update)(state, hyper, batch)
    step = optax.tree.norm(jax.tree.map(jnp.subtract, new.params, state.params))
    assert info.gradient_norm > 0.3
    np.testing.assert_allclose(step, 0.3, **tolerance())


# ---- minibatches ----------------------------------------------------------------------------------


@functools.cache
def _drawing(num_rows, batch_size, num_epochs=3):
    """`drawn(key, weights)`: row numbers in the order that they were drawn, `[epochs, rows]`.

    The outputs of this network are its inputs, which are row numbers, and a penalty of value 0 writes
    them down in its state.
    """
    net = rr.Network(
        init=lambda key, input_size, dtype: {"readout": {"W_hy": jnp.zeros((1, 1), dtype)}},
        apply=lambda params, xs, **_: NetworkOutput(
            xs[:, -1] + params["readout"]["W_hy"][0], {}, {}
        ),
        layers=(),
        readout="last",
        output_size=1,
    )
    size = num_epochs * -(-num_rows // batch_size) * batch_size

    def write(params, context, state):
        at, rows = state
        drawn = jax.lax.stop_gradient(context.outputs[:, 0]).astype(jnp.int32)
        places = at * batch_size + jnp.arange(len(drawn))
        return jnp.float32(0), (at + 1, rows.at[places].set(drawn))

    notes = rr.penalties.Penalty(lambda params: (jnp.int32(0), jnp.zeros(size, jnp.int32)), write)
    train = make(
        net,
        penalties={"notes": notes},
        optimizer=optax.sgd(0.0),
        num_epochs=num_epochs,
        batch_size=batch_size,
    )
    xs = jnp.arange(num_rows, dtype=jnp.float32)[:, None, None]

    @jax.jit
    def states(key, weights):
        data = rr.Split(rr.Batch(xs, xs[:, 0], weights=weights))
        state = train.init({"notes": 0.0}, data, key=key)
        return train.advance(state, {"notes": 0.0}, data, num_epochs)[0].penalty_state

    def drawn(key, weights=None):
        weights = jnp.ones(num_rows) if weights is None else weights
        return np.asarray(states(key, weights)["notes"][1]).reshape(num_epochs, -1)

    return drawn


def test_an_epoch_visits_each_row_once_in_a_fresh_order():
    drawn = _drawing(12, 4)
    epochs = drawn(KEY)
    for epoch in epochs:
        assert sorted(epoch) == list(range(12))
    assert len({tuple(epoch) for epoch in epochs}) == 3
    np.testing.assert_array_equal(epochs, drawn(KEY))
    assert (epochs != drawn(jax.random.fold_in(KEY, 1))).any()


def test_the_last_batch_is_filled_up_from_the_start_of_the_order():
    for epoch in _drawing(10, 4)(KEY):
        assert sorted(epoch[:10]) == list(range(10))
        np.testing.assert_array_equal(epoch[10:], epoch[:2])


def test_padding_rows_are_never_drawn():
    weights = jnp.array([1.0, 0, 1, 1, 0, 1, 1, 0, 0, 2, 1, 0])
    for epoch in _drawing(12, 4)(KEY, weights):
        assert set(epoch) == set(np.flatnonzero(weights))
        assert (
            sorted(epoch[:7]) == np.flatnonzero(weights).tolist()
        )  # each once, then from the start


# ---- what is recorded and kept --------------------------------------------------------------------


def test_history_is_recorded_at_its_stride():
    every = whole()
    third = jax.jit(make(NET, num_epochs=9, record_every=3).with_epochs(6))(
        HYPER, sine().train, key=KEY
    )
    assert set(third.history) == set(every.history)
    for name, values in third.history.items():
        assert values.shape == (2,)
        np.testing.assert_allclose(values, every.history[name][2::3], **tolerance())
    for name, values in every.metrics.items():  # the last record is the final value
        np.testing.assert_allclose(values, every.history[name][-1], **tolerance())
    assert make(NET, num_epochs=120).settings.record_every == 3  # at most 50 records
    assert make(NET, num_epochs=53).settings.record_every == 2  # nothing divides it
    assert make(NET, num_epochs=10**9 + 7).settings.record_every == 20000001
    assert make(NET, num_epochs=8, record_every=2).with_epochs(7).settings.record_every == 1


@pytest.fixture(scope="module")
def two_penalties():
    penalties = {"l2": rr.penalties.l2(), "l1": rr.penalties.l1("W_hh")}
    run = jax.jit(make(NET, penalties=penalties))
    return lambda **hyper: run({"learning_rate": 1e-2} | hyper, sine().train, key=KEY)


def test_penalties_are_reported_apart_and_without_their_lambda(two_penalties):
    run, batch = two_penalties(l2=0.1, l1=0.01), sine().train
    leaves = [v for k, v in rr.leaf_paths(run.params).items() if "/b_" not in k]
    np.testing.assert_allclose(
        run.metrics["penalty_l2"], sum(np.sum(np.square(w)) for w in leaves), **tolerance()
    )
    W_hh = np.asarray(run.params["layer_0"]["W_hh"])
    np.testing.assert_allclose(run.metrics["penalty_l1"], np.abs(W_hh).sum(), **tolerance())
    np.testing.assert_allclose(
        run.metrics["norm/layer_0/W_hh"], np.linalg.norm(W_hh), **tolerance()
    )
    # power iteration gives a lower bound, 2 % off where all singular values are nearly one
    measured, exact = run.metrics["sigma_max/layer_0/W_hh"], np.linalg.norm(W_hh, 2)
    assert 0.98 * exact <= measured <= exact * (1 + 1e-5)
    errors = NET.apply(run.params, batch.xs).outputs - batch.ys
    np.testing.assert_allclose(run.metrics["train_loss"], np.mean(errors**2), **tolerance())


def test_lambda_zero_equals_the_run_without_a_penalty_exactly(two_penalties):
    run = two_penalties(l2=0.0, l1=0.0)
    plain = jax.jit(make(NET, penalties={}))({"learning_rate": 1e-2}, sine().train, key=KEY)
    assert_same(run.params, plain.params)
    assert_same(run.history["train_loss"], plain.history["train_loss"])


@pytest.fixture(scope="module")
def over_rates():
    """Runs over learning rates together: to the end, and stopped with the best parameters kept."""
    data, rates = held_out(sine(), 12), jnp.array([1e-3, 0.3, 1.5])

    def runs(**options):
        train = make(NET, num_epochs=12, record_every=1, **options)
        lanes = jax.vmap(lambda rate: train({"l2": 0.0, "learning_rate": rate}, data, key=KEY))
        return jax.jit(lanes)(rates)

    return runs(), runs(keep_best=True, patience=2)


@pytest.mark.slow
def test_each_lane_stops_by_itself_and_keeps_its_best(over_rates):
    plain, kept = over_rates
    steps, bests = [], []
    for records in np.asarray(plain.history["val_loss"]):
        least, stalled, done = np.inf, 0, 0
        for value in records:
            if stalled == 2:
                break
            done += 1
            least, stalled = (value, 0) if value < least else (least, stalled + 1)
        steps.append(done)
        bests.append(least)
    assert min(steps) < max(steps)
    assert kept.num_updates.tolist() == steps
    assert plain.num_updates.tolist() == [12, 12, 12]
    np.testing.assert_allclose(kept.metrics["val_loss"], bests, **tolerance())
    assert (kept.metrics["val_loss"] < kept.history["val_loss"][:, -1]).any()
    for lane, done in enumerate(steps):  # a stopped lane stays where it is
        history = kept.history["val_loss"][lane]
        np.testing.assert_array_equal(history[done:], np.full(12 - done, history[done - 1]))
        assert np.isnan(kept.history["gradient_norm"][lane, done:]).all()


# ---- divergence -----------------------------------------------------------------------------------


def test_a_diverged_run_freezes_at_its_last_finite_state():
    batch = sine().train
    train = make(NET, optimizer=OPTIMIZERS["momentum"], num_epochs=60, record_every=20)
    hyper = hyper_of("momentum") | {"learning_rate": 1e6}
    run = jax.jit(train)(hyper, batch, key=KEY)
    at = int(run.diverged_at)
    assert 0 < at < 20
    assert int(run.num_updates) == at  # the update that failed was not applied
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.params))
    assert all(np.isnan(value) for value in run.metrics.values())
    assert np.isnan(run.history["gradient_norm"][1:]).all()  # it was skipped

    update = jax.jit(train.update)
    state = train.init(hyper, batch, key=KEY)
    for _ in range(at):
        state, info = update(state, hyper, batch)
        assert bool(info.finite)
        assert int(state.diverged_at) == -1
    frozen, info = update(state, hyper, batch)
    assert not bool(info.finite)
    assert int(frozen.diverged_at) == at
    # everything but the mark, the optimiser's state too, is as it was before the update
    assert_same(_plain(frozen._replace(diverged_at=state.diverged_at)), _plain(state))
    later, _ = update(frozen, hyper_of("momentum"), batch)  # a good rate does not wake it up
    assert_same(_plain(later), _plain(frozen))


def _plain(state):
    return state._replace(key=jax.random.key_data(state.key))


@pytest.mark.float32_only
def test_a_target_that_overflows_is_caught_before_the_update():
    batch = sine().train
    train = make(NET)
    state = train.init(HYPER, batch, key=KEY)
    update = jax.jit(train.update)
    bad = batch._replace(ys=batch.ys.at[3].set(1e30))  # its square is infinite in float32
    frozen, info = update(state, HYPER, bad)
    assert not np.isfinite(info.data_loss)
    assert int(frozen.diverged_at) == int(frozen.step) == 0
    assert_same(frozen.params, state.params)


@pytest.mark.float32_only
def test_a_run_whose_last_update_ends_at_an_infinite_loss_diverged():
    """No further update would see it: the weights are finite, and the loss there is not."""
    net = rr.network([rr.cells.elman(2)], 1)
    train = rr.make_train(
        net, loss=rr.losses.squared_error(), optimizer=lambda h: optax.sgd(h["rate"]), num_epochs=1
    )
    data = rr.Batch(jnp.ones((2, 3, 1)), 3 * jnp.ones((2, 3, 1)))
    run = train({"rate": jnp.float32(1e25)}, data, key=jax.random.key(0))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.params))
    assert int(run.diverged_at) == int(run.num_updates) == 1
    assert np.isnan(run.metrics["train_loss"])
    fine = train({"rate": jnp.float32(1e-2)}, data, key=jax.random.key(0))
    assert int(fine.diverged_at) == -1


# ---- derivatives, dropout, dtypes -----------------------------------------------------------------


@pytest.mark.numerics
@pytest.mark.float64_only
def test_the_gradient_through_a_run_equals_a_finite_difference():
    data = held_out(sine(24), 12)
    train = make(NET, optimizer=OPTIMIZERS["adam"], num_epochs=5, batch_size=6)

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def val_loss(lam, rate):
        hyper = {"l2": lam, "learning_rate": rate, "b1": 0.9}
        return train(hyper, data, key=KEY).metrics["val_loss"]

    lam, rate, eps = 1e-2, 2e-2, 1e-6
    _, gradients = val_loss(lam, rate)
    differences = (
        (val_loss(lam + eps, rate)[0] - val_loss(lam - eps, rate)[0]) / (2 * eps),
        (val_loss(lam, rate + eps)[0] - val_loss(lam, rate - eps)[0]) / (2 * eps),
    )
    # a central difference is good to eps² and to rounding / eps
    np.testing.assert_allclose(gradients, differences, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_dropout_rates_are_traced():
    batch, cells = sine().train, [rr.cells.elman(4)]
    counts = []

    def net(hyper):
        counts.append(1)
        rates = {"recurrent_dropout": hyper["dropout"], "output_dropout": hyper["dropout"]}
        return rr.network(cells, 1, readout="last", **rates)

    run = jax.jit(make(net))
    none = run(HYPER | {"dropout": 0.0}, batch, key=KEY)
    traced = len(counts)
    half, again = (run(HYPER | {"dropout": 0.5}, batch, key=KEY) for _ in range(2))
    assert len(counts) == traced
    chex.assert_trees_all_close(none.params, whole().params, **tolerance())
    assert_same(half, again)
    assert not np.allclose(half.params["layer_0"]["W_hh"], none.params["layer_0"]["W_hh"])
    # losses are recorded without dropout
    errors = NET.apply(half.params, batch.xs).outputs - batch.ys
    np.testing.assert_allclose(half.metrics["train_loss"], np.mean(errors**2), **tolerance())


@pytest.mark.float32_only
def test_bfloat16_rows_train_float32_parameters():
    run = jax.jit(make(NET))(HYPER, sine(dtype=jnp.bfloat16).train, key=KEY)
    assert {leaf.dtype for leaf in jax.tree.leaves(run.params)} == {jnp.dtype("float32")}
    assert {values.dtype for values in run.metrics.values()} == {jnp.dtype("float32")}
    chex.assert_trees_all_close(run.params, whole().params, **tolerance("bfloat16"))


@pytest.mark.numerics
@pytest.mark.filterwarnings("error")
def test_numpy_rows_train_in_the_precision_in_force():
    batch = sine().train
    rows = rr.Batch(np.asarray(batch.xs, np.float64), np.asarray(batch.ys, np.float64))
    train = make(NET)
    state = train.init(HYPER, rows, key=KEY)  # not jitted: arrays reach the run as NumPy's
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {jnp.result_type(float)}
    chex.assert_trees_all_close(state.params, train.init(HYPER, batch, key=KEY).params)
    new, info = jax.jit(train.update)(state, HYPER, rows)
    assert info.total.dtype == jnp.result_type(float)
    assert {leaf.dtype for leaf in jax.tree.leaves(new.params)} == {jnp.result_type(float)}


@pytest.mark.slow
def test_tokens_with_a_mask_train_in_minibatches():
    xs = jax.random.randint(KEY, (8, 5), 0, 3)
    net = rr.network([rr.cells.elman(3)], 3, embedding=(3, 2))
    train = make(net, loss=rr.losses.softmax_cross_entropy(), num_epochs=2, batch_size=4)
    mask = rr.data.lengths_to_mask([5, 4, 3, 5, 5, 5, 1, 2], 5)
    run = jax.jit(train)(HYPER, rr.Batch(xs, xs, mask=mask), key=KEY)
    assert np.isfinite(run.metrics["train_loss"])
    assert run.metrics["train_loss"] < run.history["train_loss"][0]
    assert run.predictions is None
    assert int(run.num_updates) == 4


def test_dropout_masks_change_between_updates():
    batch, hyper = sine().train, HYPER | {"learning_rate": 0.0}
    train = make(rr.network([rr.cells.elman(4)], 1, readout="last", output_dropout=0.5))
    update = jax.jit(train.update)
    start = train.init(hyper, batch, key=KEY)
    middle, first = update(start, hyper, batch)
    _, second = update(middle, hyper, batch)
    _, again = update(start, hyper, batch)
    assert_same(middle.params, start.params)  # nothing but the masks differs
    assert float(first.data_loss) == float(again.data_loss)
    assert abs(float(first.data_loss) - float(second.data_loss)) > 1e-4


@pytest.mark.slow
def test_a_line_search_sees_a_scalar_value():
    batch = sine().train
    train = make(NET, optimizer=optax.lbfgs())
    hyper = {"l2": 1e-3}
    update = jax.jit(train.update)
    state, losses = train.init(hyper, batch, key=KEY), []
    for _ in range(6):
        state, info = update(state, hyper, batch)
        losses.append(float(info.total))
    assert np.isfinite(losses).all()
    assert (np.diff(losses) < 0).all()
    assert (int(state.step), int(state.diverged_at)) == (6, -1)
    # the whole run, with its scans, accepts the optimiser's state too
    run = jax.eval_shape(lambda: train(hyper, batch, key=KEY))
    assert run.history["train_loss"].shape == (6,)


@pytest.mark.parametrize("name", ["loss", "norm/mine"])
def test_metrics_may_not_hide_the_loss(name):
    with pytest.raises(ValueError, match=f"metrics may not be named '{name}'"):
        make(NET, metrics={name: rr.losses.squared_error()})


@pytest.mark.numerics
def test_recurrent_dropout_leaves_the_carried_state_whole():
    net = rr.network([rr.cells.gru(4)], None, recurrent_dropout=0.5)
    params = net.init(KEY, 1)
    layer, given = params["layer_0"], jax.random.normal(KEY, (2, 4))
    held = {"layer_0": layer | {"b_h": layer["b_h"].at[4:8].set(1e3)}}  # z = 1: h is carried on
    xs = jnp.ones((2, 6, 1))

    @functools.partial(jax.jit, static_argnums=1)
    def states(params, train):
        state = {"layer_0": rr.cells.HiddenState(given)}
        return net.apply(params, xs, state=state, key=KEY, train=train).states["layer_0"].h

    carried = states(held, True)
    for t in range(6):
        np.testing.assert_allclose(carried[:, t], given, **tolerance())
    assert not np.allclose(states(params, True), states(params, False))  # the masks are at work


# ---- the seams of a run ---------------------------------------------------------------------------


def test_a_run_starts_from_given_parameters():
    data, first = sine().train, whole()
    train = make(NET, optimizer=OPTIMIZERS["sgd"])
    state = train.init(MORE, data, key=KEY, params=first.params)
    assert_same(state.params, first.params)
    assert_same(_plain(state).key, _plain(train.init(MORE, data, key=KEY)).key)
    on = train(HYPER, data, key=KEY, params=first.params)
    state = train.init(MORE, data, key=KEY)
    twice, _ = jax.jit(lambda state: train.advance(state, MORE, data, 12))(state)
    chex.assert_trees_all_close(on.params, twice.params, **tolerance())  # all rows: no order
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), first.params)
    state = train.init(MORE, data, key=KEY, params=wide)
    assert jax.tree.leaves(state.params)[0].dtype == data.xs.dtype


@pytest.mark.parametrize(
    "change",
    [
        lambda params: {"layer_0": params["layer_0"]},
        lambda params: params | {"readout": params["readout"] | {"b_y": jnp.zeros(2)}},
    ],
)
def test_parameters_of_another_network_are_refused(change):
    train, data = make(NET), sine().train
    with pytest.raises(ValueError, match="params must be a tree of this network's parameters"):
        train.init(HYPER, data, key=KEY, params=change(train.init(HYPER, data, key=KEY).params))


def test_a_run_shows_its_network_and_its_optimiser():
    def net(hyper):
        return rr.network([rr.cells.elman(4)], 1, readout="last", dropout=hyper["dropout"])

    train = make(net, optimizer=OPTIMIZERS["adam"])
    assert train.network({"dropout": 0.5}).random
    assert make(NET).network({}) is NET
    params = NET.init(KEY, 1)
    gradients = jax.tree.map(jnp.ones_like, params)
    ours, theirs = train.optimizer(MORE), OPTIMIZERS["adam"](MORE)
    moved = [one.update(gradients, one.init(params), params)[0] for one in (ours, theirs)]
    assert_same(*moved)
    with pytest.raises(ValueError, match="reads the hyperparameter 'dropout'"):
        train.network({})


def test_a_method_is_one_function_to_jit():
    """Looked up again, it is the same, and what was compiled for it is found; a run that is gone is forgotten."""
    net, batch = Counted(NET), sine().train
    train = make(net.net)
    state = train.init(HYPER, batch, key=KEY)
    for _ in range(3):
        state, _ = jax.jit(train.update)(state, HYPER, batch)
    assert net.count == 1
    alive = weakref.ref(train)
    del train
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize(
    ("epochs", "stride"), [(999_999_937, 19_999_999), (10**9, 2 * 10**7), (84, 2)]
)
def test_the_stride_of_any_number_of_epochs_is_found_at_once(epochs, stride):
    assert make(NET, num_epochs=epochs).settings.record_every == stride


def test_a_run_prints_what_it_is():
    train = make(NET, batch_size=8, metrics={"r2": rr.metrics.r2()}, monitor="r2", patience=2)
    assert repr(train).splitlines() == [
        "Train(",
        "  net: Network(elman(4) -> 1, readout 'last')",
        "  loss: squared_error",
        "  penalties: l2 (l2)",
        "  optimizer: a function of hyper",
        "  metrics: r2",
        "  num_epochs: 6",
        "  batch_size: 8",
        "  record_every: 1",
        "  patience: 2",
        "  monitor: r2",
        ")",
    ]
    assert repr(make(lambda hyper: NET)).splitlines()[1] == "  net: a function of hyper"


def test_masked_rows_may_be_constants_of_a_trace():
    batch = sine().train._replace(mask=jnp.ones((36, 4)).at[0, 2:].set(0))
    train = make(NET, num_epochs=1)
    loss = jax.jit(lambda lam: train(HYPER | {"l2": lam}, batch, key=KEY).metrics["train_loss"])
    alone = train(HYPER | {"l2": 0.1}, batch, key=KEY).metrics["train_loss"]
    np.testing.assert_allclose(loss(0.1), alone, **tolerance())
