"""Networks that mix rows, next to rows that fill up folds; and seeds that start alike."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SEED
from flax import nnx
from sklearn.model_selection import KFold
from small import make, sine

import rnnreg as rr

KEY = jax.random.key(SEED)
GRID = {"l2": [0.0, 1e-2], "learning_rate": 1e-2}  # sine() has 36 rows


def drawn(key, input_size):
    return {"W": jax.random.normal(key, (input_size, 1)), "a": jnp.ones((4, 1))}


def normalised(z):
    return (z - z.mean(axis=0)) / (z.std(axis=0) + 1e-3)


def mixing(params, xs):
    return normalised(
        (xs * params["a"] @ params["W"]).sum(axis=1)
    )  # of four steps, no other number


def mixing_in_training(params, xs, train):
    return mixing(params, xs) if train else (xs @ params["W"])[:, -1]


def apart(params, xs):
    return (xs @ params["W"])[:, -1]


def recurrent():
    plain = rr.cells.elman(3)

    def step(params, state, x):
        z = state.h @ params["W_hh"] + x @ params["W_xh"]
        return rr.cells.HiddenState(jnp.tanh(normalised(z)))

    cell = rr.cells.from_step(step, init=plain.init, hidden_size=3)
    return rr.network([rr.cells.elman(2), cell], 1, readout="last")


def of(apply):
    return rr.from_functions(drawn, apply, readout="last", decayed=["W"])


def dry(net, *, batch_size=None, **options):
    train = make(net, batch_size=batch_size)
    return rr.dry_run(train, GRID, sine(), key=KEY, **options)


@pytest.mark.parametrize(
    ("net", "options", "who"),
    [
        (of(mixing), {"folds": KFold(5)}, "the network"),
        (of(mixing), {"folds": KFold(5), "batch_size": 4}, "the network"),
        (of(mixing), {"folds": KFold(3), "refit": True}, "the network"),
        (of(mixing_in_training), {"folds": KFold(5)}, "the network"),
        (recurrent(), {"folds": KFold(5)}, "the cell 'custom'"),
    ],
)
def test_a_network_that_mixes_rows_is_refused_where_rows_fill_up_folds(net, options, who):
    with pytest.raises(ValueError, match=f"^{who} mixes the rows .* folds of one size") as caught:
        dry(net, **options)
    # if only training mixes rows, minibatches are a way out, for they draw no rows of weight 0
    by_minibatches = ", or a batch_size;" in str(caught.value)
    assert by_minibatches == (getattr(net.apply, "function", None) is mixing_in_training)


def test_a_network_that_mixes_rows_is_refused_next_to_rows_that_count_for_nothing():
    data = sine()
    some = np.ones(len(data.train.xs))
    some[-3:] = 0
    data = data.replace(train=data.train._replace(weights=jnp.asarray(some)))
    for net in (of(mixing), of(mixing_in_training)):
        with pytest.raises(
            ValueError, match=r"the data have rows of weight 0.*Leave these rows out"
        ):
            rr.dry_run(make(net), GRID, data, key=KEY)
    for net in (of(mixing_in_training), of(apart)):
        assert rr.dry_run(make(net, batch_size=4), GRID, data, key=KEY).lanes > 0


def test_a_network_that_mixes_rows_is_not_dealt_to_devices():
    one = {"l2": 0.0, "learning_rate": 1e-2}
    with pytest.raises(ValueError, match=r"plan='split_rows'.*Use plan='one_by_one'"):
        rr.dry_run(make(of(mixing)), one, sine(), key=KEY, plan="split_rows")
    assert rr.dry_run(make(of(apart)), one, sine(), key=KEY, plan="split_rows").lanes == 1


@pytest.mark.parametrize(
    ("net", "options"),
    [
        (of(mixing), {"folds": KFold(3)}),
        (of(mixing), {}),
        (of(mixing_in_training), {"folds": KFold(5), "batch_size": 4}),
        (of(apart), {"folds": KFold(5), "refit": True}),
        (rr.network([rr.cells.gru(3)], 1, readout="last"), {"folds": KFold(5), "refit": True}),
    ],
)
def test_other_sweeps_are_planned(net, options):
    assert dry(net, **options).lanes > 0


# ---- seeds that start alike -----------------------------------------------------------------------


def starts(net, **options):
    """The warnings of a sweep of two seeds."""
    train = make(net, num_epochs=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rr.sweep(train, GRID, sine(), key=KEY, progress=False, **{"seeds": 2, **options})
    return [one for one in caught if "every seed starts from the same" in str(one.message)]


@pytest.mark.slow
def test_a_module_that_was_made_before_starts_all_seeds_alike():
    def make_cell(rngs):
        return nnx.GRUCell(1, 2, rngs=rngs)

    made = rr.from_flax(make_cell(nnx.Rngs(0)), output_size=1, readout="last")
    (said,) = starts(made)
    assert "parameters of layer_0, which do not depend on the key" in str(said.message)
    assert said.filename == __file__
    assert not starts(made, seeds=1)
    assert not starts(made, params=made.init(KEY, 1))
    assert not starts(rr.from_flax(make_cell, output_size=1, readout="last"))


def test_parts_that_do_not_depend_on_the_key_are_named():
    from rnnreg.sweeps._starts import alike_for_every_key

    constant = rr.from_functions(lambda key, input_size: {"W": np.ones((1, 1))}, apart)
    assert alike_for_every_key(constant, 1) == ["the network"]
    cells = [rr.cells.irnn(2), rr.cells.lstm(2)]
    assert alike_for_every_key(rr.network(cells, 1, readout="last"), 1) == []
    assert alike_for_every_key(of(apart), 1) == []
