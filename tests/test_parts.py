"""Parts that are used by themselves: sampling, penalties as calls, help(), and optimisers of every kind."""

import dataclasses
import functools
import pydoc

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import SEED, tolerance
from small import HYPER, held_out, make, sine

import rnnreg as rr

KEY = jax.random.key(SEED)

# ---- sampling -------------------------------------------------------------------------------------

V = 5
NET = rr.network([rr.cells.gru(6)], output_size=V, embedding=(V, 3))
PARAMS = jax.tree.map(lambda leaf: 3 * leaf, NET.init(KEY))
PROMPT = np.array([[0, 1, 2], [3, 4, 0]], np.uint8)


def test_the_likeliest_tokens_are_those_of_the_whole_sequence_read_again():
    drawn = rr.sample(NET, PARAMS, PROMPT, 6, key=KEY, temperature=0)
    read = jax.jit(lambda sequence: NET.apply(PARAMS, sequence).outputs)
    sequence = np.zeros((2, 9), np.int32)
    sequence[:, :3] = PROMPT
    for place in range(3, 9):  # what a later place holds reaches no earlier output
        sequence[:, place] = np.argmax(read(sequence.copy())[:, place - 1], axis=-1)
    np.testing.assert_array_equal(drawn, sequence[:, 3:])
    one = rr.sample(NET, PARAMS, [3, 4, 0], 6, key=KEY, temperature=0)
    np.testing.assert_array_equal(one, drawn[1])
    last = NET._replace(
        apply=rr.network([rr.cells.gru(6)], V, embedding=(V, 3), readout="last").apply,
        readout="last",
    )
    np.testing.assert_array_equal(rr.sample(last, PARAMS, PROMPT, 6, key=KEY, temperature=0), drawn)


@functools.cache
def _softmax_case(num):
    """One program for every temperature: tokens after a prompt of one, and the logits that they are drawn from."""

    @jax.jit
    def drawn(heat):
        prompt = jnp.zeros((num, 1), int)
        tokens = rr.sample(NET, PARAMS, prompt, 1, key=KEY, temperature=heat)
        return tokens, NET.apply(PARAMS, prompt[:1]).outputs[0, -1]

    return drawn


@pytest.mark.parametrize("temperature", [0.5, 2.0])  # 1 is no special case
def test_tokens_are_drawn_from_the_softmax_at_a_temperature(temperature):
    num = 4000
    drawn, logits = _softmax_case(num)(temperature)
    expected = np.exp(logits / temperature)
    expected /= expected.sum()
    found = np.bincount(np.asarray(drawn)[:, 0], minlength=V) / num
    assert (np.abs(found - expected) < 5 * np.sqrt(expected * (1 - expected) / num) + 1e-9).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": np.zeros((2, 3))}, r"prompt must be integer tokens \[B, T\] or \[T\].*float64"),
        ({"prompt": []}, "with at least one step"),
        ({"prompt": [0, V]}, "prompt must hold tokens from 0 to 4; got 0 to 5"),
        ({"temperature": -1.0}, "temperature must be a finite number of at least 0; got -1.0"),
        ({"num_steps": 0}, "num_steps must be at least 1"),
        ({"net": rr.network([rr.cells.gru(6)], 4, embedding=(V, 3))}, "4 outputs"),
    ],
)
def test_what_cannot_be_sampled_is_named(change, message):
    given = {"net": NET, "prompt": [0, 1], "num_steps": 2} | change
    net = given.pop("net")
    params = net.init(KEY)
    with pytest.raises(ValueError, match=message):
        rr.sample(net, params, given.pop("prompt"), given.pop("num_steps"), key=KEY, **given)


# ---- penalties ------------------------------------------------------------------------------------


def test_a_penalty_is_called_on_parameters():
    net = rr.network([rr.cells.lstm(3)], 1)
    params = net.init(KEY, 2)
    weights = [params["layer_0"]["W_hh"], params["layer_0"]["W_xh"], params["readout"]["W_hy"]]
    expected = sum(float(jnp.sum(jnp.square(W))) for W in weights)
    l2 = rr.penalties.l2()
    np.testing.assert_allclose(l2(params, net=net), expected, **tolerance())
    gradient = jax.jit(jax.grad(lambda params: l2(params)))(params)
    np.testing.assert_allclose(gradient["readout"]["W_hy"], 2 * weights[2], **tolerance())
    with pytest.raises(ValueError, match="'W' matches no leaf"):
        rr.penalties.l2("W")(params)
    on_states = dataclasses.replace(l2, needs=frozenset({"states"}))
    with pytest.raises(ValueError, match=r"needs \['states'\] of a batch.*rr.make_objective"):
        on_states(params)


# ---- help -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (NET.init, "input_size: D, the number of input features"),
        (NET.apply, "mask: `[B, T]`, 1 where a step counts"),
        (make().init, "The state before the first update"),
        (make().update, "the rows, as the network sees them"),
        (make().finish, "a state: its final scores"),
        (rr.penalties.l2(), "R at some parameters"),
        (rr.metrics.accuracy(), "whether more is better"),
    ],
)
def test_help_says_something(part, says):
    text = " ".join(pydoc.render_doc(part, renderer=pydoc.plaintext).replace("|", " ").split())
    assert says in text


# ---- optimisers -----------------------------------------------------------------------------------

SPLIT = held_out(sine(), 24)


@pytest.mark.slow
@pytest.mark.parametrize("wrapped", ["alone", "chain"])
def test_a_schedule_free_run_is_scored_at_its_averages(wrapped):
    def optimizer(hyper):
        free = optax.contrib.schedule_free_sgd(hyper["learning_rate"], b1=0.7)
        return free if wrapped == "alone" else optax.chain(optax.clip_by_global_norm(1e3), free)

    train = make(optimizer=optimizer, keep_best=True)
    hyper = HYPER | {"learning_rate": 0.1}
    state = train.init(hyper, SPLIT, key=KEY)
    state, history = train.advance(state, hyper, SPLIT, 6)
    inner = state.opt_state if wrapped == "alone" else state.opt_state[1]
    averages = optax.contrib.schedule_free_eval_params(inner, state.params)
    net, loss = train.network(hyper), rr.losses.squared_error()
    expected = rr.evaluate(net, averages, SPLIT.train, loss=loss)["loss"]
    other = rr.evaluate(net, state.params, SPLIT.train, loss=loss)["loss"]
    np.testing.assert_allclose(history["train_loss"][-1], expected, **tolerance())
    assert abs(float(expected) - float(other)) > 1e-3
    run = train.finish(state, hyper, SPLIT)
    np.testing.assert_allclose(run.metrics["val_loss"], history["val_loss"].min(), **tolerance())
    if int(history["val_loss"].argmin()) == 5:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, **tolerance()), run.params, averages
        )


def test_a_schedule_free_part_of_an_optimiser_is_refused():
    def label(params):
        return {name: "free" if name == "readout" else "sgd" for name in params}

    parts = {"free": optax.contrib.schedule_free_sgd(0.1), "sgd": optax.sgd(0.1)}
    train = make(optimizer=optax.multi_transform(parts, label))
    with pytest.raises(
        ValueError, match="scored at averaged parameters, and here it sees only some"
    ):
        jax.eval_shape(lambda: train(HYPER, SPLIT, key=KEY))


@pytest.mark.slow
def test_multi_steps_makes_one_update_of_several():
    """Two accumulated minibatches of all rows are one step on all rows."""
    twice = make(optimizer=optax.MultiSteps(optax.sgd(0.1), 2), num_epochs=6)
    once = make(optimizer=optax.sgd(0.1), num_epochs=3)
    hyper = {"l2": 1e-2}
    one, two = (train(hyper, SPLIT, key=KEY).params for train in (once, twice))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance()), one, two)
    with pytest.raises(ValueError, match="optimizer must be an optax transformation"):
        make(optimizer=3)


@pytest.mark.slow
def test_a_sweep_runs_with_jit_disabled_and_says_that_it_compiles():
    options = {"key": KEY, "progress": False}
    grid = {"l2": [1e-2], "learning_rate": 1e-2}
    expected = rr.sweep(make(num_epochs=1), grid, sine(), **options).metrics["train_loss"]
    with jax.disable_jit(), pytest.warns(RuntimeWarning, match="compiled all the same"):
        found = rr.sweep(make(num_epochs=1), grid, sine(), **options).metrics["train_loss"]
    np.testing.assert_array_equal(found, expected)
