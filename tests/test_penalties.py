"""Penalties: their values, the leaves they cover, and what they may ask the objective for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tolerance

import rnnreg as rr
from rnnreg._tree import leaf_paths
from rnnreg.penalties import Penalty, covered, elastic_net, elementwise, l1, l2
from rnnreg.penalties._table import ENTRIES

pytestmark = pytest.mark.numerics

PARAMS = {
    "layer_0": {
        "W_xh": jnp.array([[1.0, -2.0]]),
        "W_hh": jnp.array([[3.0, 0.0], [-1.0, 0.5]]),
        "b_h": jnp.array([2.0, -4.0]),
    },
    "layer_1": {"W_hh": jnp.array([[-5.0]]), "initial": {"h": jnp.array([7.0])}},
    "readout": {"W_hy": jnp.array([[0.25], [-1.0]]), "b_y": jnp.array([10.0])},
}

# Patterns, whether biases count, and the leaves that must be covered.
PATHS = {
    "everything": ("*", False, ["layer_0/W_hh", "layer_0/W_xh", "layer_1/W_hh", "readout/W_hy"]),
    "with_biases": (
        "*",
        True,
        [
            "layer_0/W_hh",
            "layer_0/W_xh",
            "layer_0/b_h",
            "layer_1/W_hh",
            "readout/W_hy",
            "readout/b_y",
        ],
    ),
    "last_name": ("W_hh", False, ["layer_0/W_hh", "layer_1/W_hh"]),
    "one_layer": ("layer_0/*", False, ["layer_0/W_hh", "layer_0/W_xh"]),
    "whole_path": ("layer_1/W_hh", False, ["layer_1/W_hh"]),
    "wildcard": ("W_?h", False, ["layer_0/W_hh", "layer_0/W_xh", "layer_1/W_hh"]),
    "two_that_overlap": (
        ("W_hh", "layer_0/*"),
        False,
        ["layer_0/W_hh", "layer_0/W_xh", "layer_1/W_hh"],
    ),
    "only_biases": ("b_*", True, ["layer_0/b_h", "readout/b_y"]),
    "initial_state": ("layer_1/initial/*", False, ["layer_1/initial/h"]),
}

PENALTIES = {
    "l2": (l2, lambda w: w**2),
    "l1": (l1, np.abs),
    "elastic_net": (
        lambda **kw: elastic_net(0.3, **kw),
        lambda w: 0.3 * np.abs(w) + 0.7 * w**2,
    ),
    "elementwise": (
        lambda **kw: elementwise(lambda w: w**4, **kw),
        lambda w: w**4,
    ),
}

every_penalty = pytest.mark.parametrize("name", PENALTIES)


def _value(penalty, params=PARAMS):
    return penalty.value(params, None, penalty.init(params))[0]


# ---- values and leaves ----------------------------------------------------------------------------


@pytest.mark.parametrize("case", PATHS)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@every_penalty
def test_value_is_a_sum_over_the_elements_of_the_named_leaves(name, reduction, case):
    paths, include_biases, expected_paths = PATHS[case]
    factory, function = PENALTIES[name]
    penalty = factory(paths=paths, reduction=reduction, include_biases=include_biases)
    assert covered(penalty, PARAMS) == expected_paths
    leaves = leaf_paths(PARAMS)
    elements = np.concatenate([np.ravel(leaves[path]) for path in expected_paths])
    expected = getattr(np, reduction)(function(elements))
    np.testing.assert_allclose(_value(penalty), expected, **tolerance())


def test_the_textbook_sum_is_over_all_weights_and_biases():
    """λ Σ_i w_i², no ½: 3² + 4² = 25, and with the bias 2 it is 29."""
    params = {"W": jnp.array([[3.0, 4.0]]), "b_h": jnp.array([2.0])}
    assert float(_value(l2(), params)) == 25.0
    assert float(_value(l2(include_biases=True), params)) == 29.0


def test_a_pattern_of_biases_says_how_to_cover_them():
    with pytest.raises(
        ValueError, match=r"'b_h' matches only leaves .* \(.*b_h\): biases.*include_biases=True"
    ):
        covered(l2("b_h"), PARAMS)


def test_elastic_net_lies_between_l1_and_l2():
    assert float(_value(elastic_net(1.0))) == float(_value(l1()))
    assert float(_value(elastic_net(0.0))) == float(_value(l2()))
    halfway = (float(_value(l1())) + float(_value(l2()))) / 2
    np.testing.assert_allclose(_value(elastic_net(0.5)), halfway, rtol=1e-6)
    traced = jax.jit(lambda ratio: _value(elastic_net(ratio)))(0.5)
    np.testing.assert_allclose(traced, halfway, rtol=1e-6)


@pytest.mark.parametrize("paths", ["W_hx", "layer_2/*", ("W_hh", "W_out")])
def test_a_renamed_leaf_never_escapes(paths):
    """A path that matches nothing raises with the pattern and the leaves there are."""
    penalty = l2(paths)
    missing = paths[-1] if isinstance(paths, tuple) else paths
    message = rf"penalty path '{missing.replace('*', '.')}' matches no leaf.*layer_0/W_hh"
    for function in (penalty.init, penalty.covers, lambda p: penalty.value(p, None, ())):
        with pytest.raises(ValueError, match=message):
            function(PARAMS)
    renamed = {"layer_0": {"weight": PARAMS["layer_0"]["W_hh"]}}
    with pytest.raises(ValueError, match=r"leaves are \['layer_0/weight'\]"):
        l2("W_hh").init(renamed)


def test_a_layer_applied_twice_is_penalised_once():
    once = rr.network([rr.layer(rr.cells.elman(3))], output_size=1)
    twice = rr.network([rr.layer(rr.cells.elman(3), repeat=2)], output_size=1)
    params, again = _drawn(once, 3), _drawn(twice, 3)
    assert covered(l2(), params) == covered(l2(), again)
    np.testing.assert_array_equal(_value(l2(), params), _value(l2(), again))


def test_jit_equals_eager_when_two_leaves_hold_the_same_array():
    """Counting goes by path: which arrays are the same object is unknown inside a trace."""
    shared = jnp.array([[3.0]])
    params = {"layer_0": {"W_hh": shared}, "layer_1": {"W_hh": shared}}
    assert float(_value(l2(), params)) == float(jax.jit(lambda p: _value(l2(), p))(params)) == 18.0


def test_unknown_settings_are_named():
    with pytest.raises(ValueError, match="'sum' or 'mean'; got 'max'"):
        l2(reduction="max")
    for ratio in (-0.1, 1.5):
        with pytest.raises(ValueError, match=r"l1_ratio must lie in \[0, 1\]"):
            elastic_net(ratio)


# ---- a record that is a function ------------------------------------------------------------------

ON_WEIGHTS = [entry for entry in ENTRIES if not entry.factory(*entry.required).needs]
ON_A_BATCH = [entry for entry in ENTRIES if entry.factory(*entry.required).needs]


@pytest.mark.parametrize("entry", ON_WEIGHTS, ids=lambda entry: entry.factory.__name__)
def test_a_bare_penalty_goes_through_jit_grad_and_vmap(entry):
    """`jax.jit` keeps weak references and reads its function's hash: a record of another kind crashes it."""
    penalty, params = entry.factory(*entry.required), _drawn(NET, 2)
    several = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), params)
    with jax.numpy_dtype_promotion("strict"):
        value = penalty(params)
        np.testing.assert_allclose(jax.jit(penalty)(params), value, **tolerance(loosen=10))
        given_net = jax.jit(penalty, static_argnames="net")(params, net=NET)
        np.testing.assert_allclose(given_net, penalty(params, net=NET), **tolerance(loosen=10))
        together = jax.jit(jax.vmap(penalty))(several)
        alone = [value, penalty(jax.tree.map(lambda leaf: 2 * leaf, params))]
        np.testing.assert_allclose(together, alone, **tolerance(loosen=10))
        gradient = jax.jit(jax.grad(penalty))(params)
        expected = jax.grad(lambda p: penalty(p))(params)
    close = lambda a, b: np.testing.assert_allclose(a, b, **tolerance(loosen=100))  # noqa: E731
    jax.tree.map(close, gradient, expected)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("entry", ON_A_BATCH, ids=lambda entry: entry.factory.__name__)
def test_a_bare_penalty_on_a_batch_says_what_it_needs_under_jit_too(entry):
    penalty = entry.factory(*entry.required)
    for function in (penalty, jax.jit(penalty), jax.grad(penalty)):
        with pytest.raises(ValueError, match=r"needs \['st.*rr.make_objective"):
            function(_drawn(NET, 2))


def test_a_penalty_is_a_frozen_record_with_equality_and_a_hash():
    penalty = l2("W_hh")
    assert [field.name for field in dataclasses.fields(Penalty)] == [
        *(
            "init",
            "value",
            "needs",
            "covers",
            "name",
            "arguments",
            "isotropic",
            "prox",
            "decays",
            "strength",
        )
    ]
    same, other = dataclasses.replace(penalty), dataclasses.replace(penalty, decays=False)
    assert penalty == same
    assert hash(penalty) == hash(same)
    assert penalty != other
    assert penalty != l2("W_hh")  # made of other functions
    assert repr(penalty).startswith("Penalty(init=<")
    assert "name='l2', arguments=(('paths', 'W_hh')" in repr(penalty)
    with pytest.raises(dataclasses.FrozenInstanceError):
        penalty.name = "l3"  # pyright: ignore
    assert jax.tree.leaves(penalty) == [penalty]  # no container of what it holds
    holds_an_array = dataclasses.replace(penalty, arguments=(("target", np.ones(2)),))
    assert isinstance(hash(holds_an_array), int)
    np.testing.assert_array_equal(jax.jit(holds_an_array)(PARAMS), penalty(PARAMS))


# ---- numerics -------------------------------------------------------------------------------------


@every_penalty
@pytest.mark.parametrize("where", ["zero", "somewhere"])
def test_gradients_are_finite(name, where):
    factory, _ = PENALTIES[name]
    penalty = factory(include_biases=True)
    params = jax.tree.map(jnp.zeros_like, PARAMS) if where == "zero" else PARAMS
    gradient = jax.grad(lambda p: _value(penalty, p))(params)
    for path, leaf in leaf_paths(gradient).items():
        assert np.isfinite(leaf).all()
        expected = where == "somewhere" and "initial" not in path
        assert np.asarray(leaf).any() == expected


def test_l2_and_l1_gradients_are_2w_and_the_sign():
    for penalty, expected in ((l2("W_hh"), lambda w: 2 * w), (l1("W_hh"), np.sign)):
        gradient = jax.grad(lambda p, penalty=penalty: _value(penalty, p))(PARAMS)["layer_0"]
        np.testing.assert_allclose(gradient["W_hh"], expected(PARAMS["layer_0"]["W_hh"]))
        assert not np.asarray(gradient["W_xh"]).any()  # the penalty covers W_hh alone


@every_penalty
def test_bfloat16_accumulates_in_float32_and_types_are_strict(name):
    """5000 ones: in bfloat16 a running sum sticks at 256."""
    factory, function = PENALTIES[name]
    params = {"W_hh": jnp.ones((50, 100), jnp.bfloat16)}
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        value, gradient = jax.value_and_grad(lambda p: _value(factory(), p))(params)
    assert value.dtype == jnp.float32
    assert gradient["W_hh"].dtype == jnp.bfloat16
    np.testing.assert_allclose(value, 5000 * function(1.0), rtol=1e-6)


# ---- λ --------------------------------------------------------------------------------------------

NET = rr.network([rr.cells.elman(3)], output_size=1, readout="last")
LOSS = rr.losses.squared_error("mean")
_apply = jax.jit(NET.apply)


def _drawn(net, input_size):
    """Parameters from NumPy: no leaf is 0, and nothing has to be compiled."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda key: net.init(key, input_size), jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), shapes)


def _problem():
    rng = np.random.default_rng(0)
    batch = rr.Batch(jnp.asarray(rng.normal(size=(4, 5, 2))), jnp.asarray(rng.normal(size=(4, 1))))
    return _drawn(NET, 2), batch


def _total(penalties, net=NET, loss=LOSS):
    objective = rr.make_objective(net, loss, penalties)

    def total(params, batch, hyper):
        states = {name: penalty.init(params) for name, penalty in penalties.items()}
        value, (parts, _) = objective(params, hyper, batch, states, key=None, train=False)
        return value, parts

    return jax.jit(total)


def test_total_is_loss_plus_each_lambda_times_its_penalty():
    params, batch = _problem()
    total = _total({"l2": l2(), "sparse": l1("W_hh")})
    value, parts = total(params, batch, {"l2": 0.1, "sparse": 0.01, "learning_rate": 5.0})
    np.testing.assert_allclose(parts.penalties["l2"], _value(l2(), params), **tolerance())
    outputs = _apply(params, batch.xs).outputs
    np.testing.assert_allclose(parts.data_loss, LOSS(outputs, batch.ys), **tolerance())
    np.testing.assert_allclose(parts.outputs, outputs, **tolerance())
    expected = parts.data_loss + 0.1 * parts.penalties["l2"] + 0.01 * parts.penalties["sparse"]
    np.testing.assert_allclose(value, expected, **tolerance())


def test_lambda_zero_equals_no_penalty():
    params, batch = _problem()
    gradient = jax.grad(lambda p: _total({"l2": l2()})(p, batch, {"l2": 0.0})[0])(params)
    plain = jax.grad(lambda p: _total({})(p, batch, {})[0])(params)
    jax.tree.map(np.testing.assert_array_equal, gradient, plain)


def test_lambda_is_traced_and_differentiable():
    """One trace serves every λ, alone or under vmap; ∂total/∂λ is the penalty itself."""
    params, batch = _problem()
    total = _total({"l2": l2()})
    traces = []

    @jax.jit
    def value(lam):
        traces.append(None)
        return total(params, batch, {"l2": lam})[0]

    lams = jnp.array([0.0, 1e-3, 0.1, 10.0])
    alone = [value(lam) for lam in lams]
    assert len(traces) == 1
    together = jax.jit(jax.vmap(value))
    np.testing.assert_allclose(together(lams), alone, **tolerance())
    before = len(traces)
    together(2 * lams)
    assert len(traces) == before
    np.testing.assert_allclose(jax.grad(value)(0.3), _value(l2(), params), **tolerance())


def test_objective_is_strict_about_types_and_ranks():
    cell = rr.cells.gru(3)
    for readout, ys in (("all", jnp.zeros((4, 5, 1))), ("last", jnp.zeros((4, 1)))):
        net = rr.network(
            [cell, cell], 1, readout=readout, dropout=0.1, output_dropout=0.1, variational=True
        )
        params = net.init(jax.random.key(0), 2)
        batch = rr.Batch(jnp.ones((4, 5, 2)), ys, jnp.ones((4, 5)), jnp.ones(4))
        objective = rr.make_objective(net, LOSS, {"l2": l2(), "energy": ENERGY})

        def total(params, lam, objective=objective, batch=batch):
            hyper = {"l2": lam, "energy": lam}
            state = {"l2": (), "energy": ()}
            return objective(params, hyper, batch, state, key=jax.random.key(0), train=True)[0]

        with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
            jax.eval_shape(jax.grad(total), params, jnp.ones(()))


# ---- penalties that look at states, at gradients, at the step ---------------------------------------


def _masked_mean(values, context):
    """Mean over true steps of `values [B, T]`."""
    mask = jnp.ones(values.shape) if context.mask is None else context.mask
    return jnp.sum(mask * values) / jnp.sum(mask)


def _energy(params, context, state):
    return _masked_mean(jnp.sum(jnp.square(context.states["layer_0"].h), axis=-1), context), state


def _flow(params, context, state):
    return jnp.sum(jnp.square(context.state_gradients["layer_0"])), state


ENERGY = Penalty(init=lambda params: (), value=_energy, needs=frozenset({"states"}))
FLOW = Penalty(init=lambda params: (), value=_flow, needs=frozenset({"state_gradients"}))


def test_a_penalty_on_states_sees_them_and_is_differentiated():
    params, batch = _problem()
    mask = rr.data.lengths_to_mask([5, 2, 3, 1], 5)
    batch = batch._replace(mask=jnp.asarray(mask))

    @jax.jit
    @jax.value_and_grad
    def by_hand(params):
        h = NET.apply(params, batch.xs, mask=batch.mask).states["layer_0"].h
        return sum(jnp.sum(h[i, :n] ** 2) for i, n in enumerate([5, 2, 3, 1])) / 11

    @jax.jit
    @jax.value_and_grad
    def measured(params):
        parts = _total({"energy": ENERGY})(params, batch, {"energy": 1.0})[1]
        return parts.penalties["energy"]

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **tolerance()),
        measured(params),
        by_hand(params),
    )
    assert np.asarray(measured(params)[1]["layer_0"]["W_hh"]).any()


def test_a_penalty_on_state_gradients_equals_the_closed_form_of_a_linear_network():
    """h_t = w h_{t−1} + u x_t, ŷ = v h_T: ∂L/∂h_t = 2 (ŷ − y) v w^(T−t), for one unit and one row."""
    net = rr.network([rr.cells.elman(1, activation=lambda z: z)], output_size=1, readout="last")
    w, u, v = 0.8, 0.5, 1.5
    xs, y = jnp.array([1.0, -2.0, 0.5, 3.0]), 0.7
    params = {
        "layer_0": {"W_xh": jnp.array([[u]]), "W_hh": jnp.array([[w]]), "b_h": jnp.zeros(1)},
        "readout": {"W_hy": jnp.array([[v]]), "b_y": jnp.zeros(1)},
    }
    batch = rr.Batch(xs[None, :, None], jnp.array([[y]]))

    def closed_form(w):
        powers = w ** jnp.arange(3.0, -1.0, -1.0)
        error = v * u * jnp.sum(powers * xs) - y
        return jnp.sum(jnp.square(2 * error * v * powers))

    def measured(w):
        moved = {**params, "layer_0": {**params["layer_0"], "W_hh": jnp.reshape(w, (1, 1))}}
        total = _total({"flow": FLOW}, net)
        return total(moved, batch, {"flow": 1.0})[1].penalties["flow"]

    # its gradient is a second derivative of the loss: the penalty can be trained on
    pairs = [jax.jit(jax.value_and_grad(function))(w) for function in (measured, closed_form)]
    np.testing.assert_allclose(*pairs, **tolerance())


CELLS = {
    "elman": rr.cells.elman(3),
    "gru_before": rr.cells.gru(3, reset="before"),
    "lstm": rr.cells.lstm(3),
}


def _context(net, needs, params, batch):
    """What a penalty with these needs is shown, without the functions and the paths in it."""

    def value(params, context, state):
        return jnp.zeros(()), context._replace(step=None, weight_paths=None)

    spy = Penalty(lambda params: (), value, needs=frozenset(needs))
    objective = rr.make_objective(net, LOSS, {"spy": spy})

    @jax.jit
    def run(params):
        hyper, state = {"spy": 1.0}, {"spy": ()}
        return objective(params, hyper, batch, state, key=None, train=False)[1][1]["spy"]

    return run(params)


@pytest.mark.parametrize("name", CELLS)
def test_state_gradients_equal_autodiff_by_another_route(name):
    """Run the rest of the sequence from h_t on, and differentiate by h_t."""
    net = rr.network([CELLS[name]], output_size=1)
    params, rng = _drawn(net, 2), np.random.default_rng(1)
    xs, ys = jnp.asarray(rng.normal(size=(2, 3, 2))), jnp.asarray(rng.normal(size=(2, 3, 1)))
    mask = jnp.array([[1, 1, 1], [1, 1, 0]])
    measured = _context(net, {"state_gradients"}, params, rr.Batch(xs, ys, mask)).state_gradients

    def loss_from(h, t, states):
        """The loss of the steps from t on, as a function of the output h_t."""
        state = jax.tree.map(lambda leaf: leaf[:, t], states)._replace(h=h)
        outputs = (h @ params["readout"]["W_hy"] + params["readout"]["b_y"])[:, None]
        if t < 2:
            later = slice(t + 1, None)
            rest = net.apply(params, xs[:, later], mask=mask[:, later], state={"layer_0": state})
            outputs = jnp.concatenate([outputs, rest.outputs], axis=1)
        errors = jnp.square(outputs - ys[:, t:])[..., 0] * mask[:, t:]
        return jnp.mean(jnp.sum(errors, axis=1) / jnp.sum(mask, axis=1))

    @jax.jit
    def by_another_route():
        states = net.apply(params, xs, mask=mask).states["layer_0"]
        gradients = [jax.grad(loss_from)(states.h[:, t], t, states) for t in range(3)]
        return jnp.stack(gradients, axis=1) * mask[..., None]

    np.testing.assert_allclose(measured["layer_0"], by_another_route(), **tolerance())


@pytest.mark.parametrize("layer", ["plain", "repeated", "bidirectional"])
def test_state_gradients_have_the_shape_of_the_states(layer):
    entry = {
        "plain": rr.layer(rr.cells.lstm(4)),
        "repeated": rr.layer(rr.cells.lstm(4), repeat=2),
        "bidirectional": rr.layer(rr.cells.lstm(2), bidirectional=True),
    }[layer]
    net = rr.network([entry], output_size=1)
    batch = rr.Batch(jnp.ones((2, 3, 4)), jnp.ones((2, 3, 1)))
    context = _context(net, {"state_gradients", "states"}, _drawn(net, 4), batch)
    hs = jax.tree.map(lambda s: s.h, context.states, is_leaf=lambda s: hasattr(s, "h"))
    assert jax.tree.structure(hs) == jax.tree.structure(context.state_gradients)
    for h, gradient in zip(
        jax.tree.leaves(hs), jax.tree.leaves(context.state_gradients), strict=True
    ):
        assert h.shape == gradient.shape
        assert np.asarray(gradient).any()


@pytest.mark.parametrize("name", CELLS)
def test_a_penalty_can_take_the_step_apart(name):
    """The step that a penalty is given is the network's own, and can be differentiated twice."""
    net = rr.network([CELLS[name]], output_size=1, readout="last")
    params, batch = _drawn(net, 2), _problem()[1]

    def value(params, context, state):
        step, states = context.step["layer_0"], context.states["layer_0"]
        first = jax.tree.map(lambda leaf: leaf[0, :1], states)  # state of one row after one step

        def next_h(h):
            return step(params["layer_0"], first._replace(h=h[None]), batch.xs[:1, 1]).h[0]

        return jnp.sum(jnp.square(jax.jacfwd(next_h)(first.h[0]))), (next_h(first.h[0]), states.h)

    jacobian = Penalty(lambda params: (), value, needs=frozenset({"step"}))
    objective = rr.make_objective(net, LOSS, {"jacobian": jacobian})

    def penalty(params):
        hyper, state = {"jacobian": 1.0}, {"jacobian": ()}
        _, (parts, state) = objective(params, hyper, batch, state, key=None, train=False)
        return parts.penalties["jacobian"], state["jacobian"]

    (measured, (next_h, states)), gradient = jax.jit(jax.value_and_grad(penalty, has_aux=True))(
        params
    )
    assert measured > 0
    assert np.asarray(gradient["layer_0"]["W_hh"]).any()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    np.testing.assert_allclose(next_h, states[0, 1], **tolerance())


NEEDS = [
    {"states"},
    {"state_gradients"},
    {"states", "state_gradients"},
    set(),
]


@pytest.mark.parametrize("needs", NEEDS, ids=lambda needs: "+".join(sorted(needs)) or "nothing")
def test_only_what_is_asked_for_is_computed(needs):
    params, batch = _problem()
    context = _context(NET, needs, params, batch)
    assert (context.state_gradients is not None) == ("state_gradients" in needs)
    assert (context.states is not None) == ("states" in needs)
    np.testing.assert_allclose(context.outputs, _apply(params, batch.xs).outputs, **tolerance())


def test_a_penalty_may_keep_a_state_of_its_own():
    counter = Penalty(
        init=lambda params: jnp.zeros((), int),
        value=lambda params, context, state: (jnp.ones(()), state + 1),
    )
    params, batch = _problem()
    objective = rr.make_objective(NET, LOSS, {"count": counter, "l2": l2()})
    state = {"count": counter.init(params), "l2": ()}
    for _ in range(3):
        _, (_, state) = objective(
            params, {"count": 0.0, "l2": 0.0}, batch, state, key=None, train=False
        )
    assert int(state["count"]) == 3


# ---- what is a weight -----------------------------------------------------------------------------


def _normalised_cell(**facts):
    """A layer-normalised cell with names of its own: a gain, a shift, a bias that is called offset."""
    plain = rr.cells.elman(3)

    def init(key, input_size, dtype=jnp.float32):
        own = {"gain": jnp.ones(3), "shift": jnp.zeros(3), "offset": jnp.zeros(3), "u": jnp.ones(3)}
        return plain.init(key, input_size, dtype) | own

    return plain._replace(name="own", init=init, **facts)


def test_gains_scales_and_biases_in_any_naming_are_left_alone():
    net = rr.network([_normalised_cell()], 1)
    params = net.init(jax.random.key(0), 2)
    expected = ["layer_0/W_hh", "layer_0/W_xh", "readout/W_hy"]
    assert covered(l2(), params, net=net) == covered(l2(), params) == expected
    assert rr.networks.weight_paths(net, params) == expected
    everything = covered(l2(include_biases=True), params, net=net)
    assert {"layer_0/gain", "layer_0/offset", "layer_0/b_h"} < set(everything)
    with pytest.raises(
        ValueError, match=r"'gain' matches only leaves .* \(.*gain\): biases, gains and scales"
    ):
        covered(l2("gain"), params, net=net)


def test_a_cell_says_which_of_its_leaves_are_weights():
    """An independent recurrent vector is a weight where the cell says so, and training penalises just that."""
    net = rr.network([rr.layer(_normalised_cell(decayed=("u", "W_x*")), bidirectional=True)], 1)
    params = net.init(jax.random.key(0), 2)
    sides = [f"layer_0/{side}/{name}" for side in ("backward", "forward") for name in ("W_xh", "u")]
    assert covered(l2(), params, net=net) == [*sides, "readout/W_hy"]
    batch = rr.Batch(jnp.ones((1, 2, 2)), jnp.zeros((1, 2, 1)))
    objective = rr.make_objective(net, rr.losses.squared_error(), {"l2": l2("u")})
    _, (parts, _) = objective(params, {"l2": 1.0}, batch, {"l2": ()}, key=None, train=False)
    assert float(parts.penalties["l2"]) == 6.0


def test_what_a_cell_calls_a_weight_has_to_be_there():
    net = rr.network([_normalised_cell(decayed=("V",))], 1)
    with pytest.raises(ValueError, match="decayed='V' matches none of the parameters of the cell"):
        covered(l2(), net.init(jax.random.key(0), 2), net=net)
    alone = rr.network([_normalised_cell(decayed="W_hh")], 1)
    params = alone.init(jax.random.key(0), 2)
    assert covered(l2(), params, net=alone) == ["layer_0/W_hh", "readout/W_hy"]


def test_only_a_learned_start_is_one_whatever_a_submodule_is_called():
    """A matrix below "initial" is a weight in a network that learns no start."""
    net = rr.from_functions(
        lambda key: {"initial": {"kernel": jnp.ones((2, 1))}, "b": jnp.zeros(1)},
        lambda params, xs: xs @ params["initial"]["kernel"] + params["b"],
        output_size=1,
    )
    params = net.init(jax.random.key(0), 2)
    assert covered(l2(), params, net=net) == ["initial/kernel"]
    learned = rr.network([rr.cells.elman(2)], 1, initial_state="learned")
    assert "layer_0/initial/h" not in covered(l2(), learned.init(jax.random.key(0), 2), net=learned)
