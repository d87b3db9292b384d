"""What the diagnostics of dynamics refuse, and say how to mend, before anything is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SEED

import rnnreg as rr
from rnnreg.diagnostics import (
    fixed_points,
    jacobian_products,
    lyapunov,
    saturation,
    step_jacobians,
    step_spectra,
)

KEY = jax.random.key(SEED)
CELL = rr.cells.gru(3)
PARAMS = CELL.init(KEY, 2)
NET = rr.network([CELL], 1)
NET_PARAMS = NET.init(KEY, 2)
XS = jnp.ones((4, 6, 2))


def shrink(params, state, x):
    return jax.tree.map(lambda leaf: leaf * 1, state)


def _saturation(*arguments, **options):
    return saturation(*arguments, bounds=(-1, 1), **options)


ALL = {
    "jacobian_products": jacobian_products,
    "lyapunov": lyapunov,
    "step_jacobians": step_jacobians,
    "step_spectra": step_spectra,
    "saturation": _saturation,
}

# by what is wrong: the arguments, the options, and what is said
BAD = {
    "width for a cell": (CELL, PARAMS, jnp.ones((4, 6, 5)), {}, "made for 2 input features"),
    "width for a network": (NET, NET_PARAMS, jnp.ones((4, 6, 5)), {}, "made for 2 input features"),
    "tokens for a cell": (CELL, PARAMS, jnp.ones((4, 6, 2), int), {}, "real numbers"),
    "a network's params": (CELL, NET_PARAMS, XS, {}, r"give params\['layer_0'\], or the network"),
    "a cell's params": (NET, PARAMS, XS, {}, "have an entry for each layer, such as layer_0; got"),
    "a bare state": (
        NET,
        NET_PARAMS,
        XS,
        {"state": CELL.initial_state(4)},
        r"the state of a network is .* {'layer_0': HiddenState\(h=\(4, 3\)\)}",
    ),
    "an array for a cell": (
        CELL,
        PARAMS,
        XS,
        {"state": jnp.zeros((4, 3))},
        "state of the cell 'gru' is",
    ),
    "a state of other units": (
        CELL,
        PARAMS,
        XS,
        {"state": rr.cells.HiddenState(jnp.zeros((4, 2)))},
        "state of the cell 'gru' is",
    ),
    "a state of other rows, network": (
        NET,
        NET_PARAMS,
        XS,
        {"state": {"layer_0": CELL.initial_state(2)}},
        "a row for each of xs",
    ),
    "a state of other rows, step": (
        shrink,
        None,
        XS,
        {"state": jnp.ones((2, 3))},
        "row for each of the 4",
    ),
    "a state of one row, step": (
        shrink,
        None,
        XS,
        {"state": jnp.ones((1, 3))},
        "row for each of the 4",
    ),
    "a scalar state": (shrink, None, XS, {"state": 0.5}, r"state has shape \(\)"),
    "a count in the state": (
        shrink,
        None,
        XS,
        {"state": {"h": jnp.ones((4, 2)), "n": jnp.zeros((4, 1), int)}},
        "state/n is int.* Carry a count as a float",
    ),
    "no state": (shrink, None, XS, {"state": {}}, "the state is empty"),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_the_system_is_named(case, name):
    system, params, xs, options, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        ALL[name](system, params, xs, **options)


@pytest.mark.parametrize("name", sorted(set(ALL) - {"saturation"}))
def test_lists_of_numbers_are_no_inputs(name):
    with pytest.raises(ValueError, match=r"give jnp\.asarray\(xs\)"):
        ALL[name](CELL, PARAMS, XS.tolist())


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (lyapunov, {"every": 1.5}, "every must be a whole number; got 1.5"),
        (lyapunov, {"every": True}, "every must be a whole number"),
        (
            lyapunov,
            {"num_exponents": 1.5},
            "num_exponents must be a whole number or None; got 1.5",
        ),
        (lyapunov, {"num_batches": 2.0}, "num_batches must be a whole number"),
        (lyapunov, {"discard": 0.5}, "discard must be a whole number"),
        (lyapunov, {"discard": -1}, "discard must be at least 0"),
        (jacobian_products, {"every": 1.5}, "every must be a whole number"),
        (
            jacobian_products,
            {"num_singular": 2.0},
            "num_singular must be a whole number or None; got 2.0",
        ),
        (saturation, {"margin": -1}, r"margin must lie in \[0, 0.5\]; got -1"),
        (saturation, {"margin": float("nan")}, "margin must be a number; got nan"),
        (saturation, {"middle": 5.0}, r"middle must lie in \[0, 1\]; got 5.0"),
        (saturation, {"num_bins": 0}, "num_bins must be at least 1"),
        (saturation, {"num_bins": 2.5}, "num_bins must be a whole number"),
    ],
)
def test_counts_and_shares_out_of_range_are_named(function, options, message):
    with pytest.raises(ValueError, match=message):
        function(CELL, PARAMS, XS, **options)


@pytest.mark.parametrize("count", [-1, 2.5])
@pytest.mark.parametrize("name", ["num_newton", "num_descent"])
def test_a_search_takes_whole_numbers_of_steps(name, count):
    with pytest.raises(ValueError, match=rf"{name} must be .*whole number; got {count}"):
        fixed_points(CELL, PARAMS, jnp.ones(2), starts=jnp.ones((2, 3)), **{name: count})


@pytest.mark.parametrize("system", ["cell", "network"])
def test_a_search_at_an_input_of_other_width_is_refused(system):
    given = {"cell": (CELL, PARAMS), "network": (NET, NET_PARAMS)}[system]
    with pytest.raises(ValueError, match="made for 2 input features"):
        fixed_points(*given, jnp.ones(5), starts=jnp.ones((2, 3)))


def test_the_width_that_a_cell_was_made_for_is_that_of_its_weights_in_any_naming():
    renamed = CELL._replace(
        init=lambda key, size, dtype: {"own": CELL.init(key, size, dtype)},
        weights=lambda params: CELL.weights(params["own"]),
        gate=lambda params, state, x, h: CELL.gate(params["own"], state, x, h),
    )
    before = rr.cells.gru(3, reset="before")
    for cell in (renamed, before):
        params, net = cell.init(KEY, 2, jnp.float32), rr.network([cell], 1)
        with pytest.raises(ValueError, match="the cell was made for 2 input features"):
            lyapunov(cell, params, jnp.ones((4, 6, 5)))
        with pytest.raises(ValueError, match="the network was made for 2 input features; xs has 5"):
            net.apply({"layer_0": params}, jnp.ones((4, 6, 5)))
    step = rr.cells.from_step(lambda p, s, x: s, init=CELL.init, hidden_size=3)
    assert (
        rr.network([step], None).apply({"layer_0": PARAMS}, jnp.ones((4, 6, 5))).outputs.any() == 0
    )


def test_arrays_of_numpy_are_taken_without_a_warning():
    xs = np.ones((2, 4, 2))  # float64
    mask = [[1, 1, 1, 0], [1, 1, 0, 0]]

    @jax.jit
    def measured(params, own):
        """Of the same inputs as NumPy and as JAX holds them; the mask as a list and as an array."""
        exponents = [lyapunov(CELL, params, given).exponents for given in (xs, jnp.asarray(xs))]
        given = (saturation(NET, own, xs, mask=one)["layer_0"] for one in (mask, jnp.asarray(mask)))
        return exponents, [found.participation for found in given]

    exponents, (listed, array) = measured(PARAMS, NET_PARAMS)
    np.testing.assert_allclose(*exponents)
    assert float(listed) == float(array)


# ---- rows that are mixed ------------------------------------------------------------------------------


def normalised(z):
    """Statistics over the batch, as batch normalisation takes them in training."""
    return (z - z.mean(axis=0)) / (z.std(axis=0) + 1e-3)


def mixing_cell():
    plain = rr.cells.elman(3)

    def step(params, state, x):
        z = state.h @ params["W_hh"] + x @ params["W_xh"]
        return rr.cells.HiddenState(jnp.tanh(normalised(z)))

    return rr.cells.from_step(step, init=plain.init, hidden_size=3)


MIXING = mixing_cell()
MIXING_PARAMS = MIXING.init(KEY, 2)
MIXED = {
    "cell": (MIXING, MIXING_PARAMS, XS, {}),
    "network": (
        MIXING_NET := rr.network([rr.cells.elman(2), MIXING], 1),
        MIXING_NET.init(KEY, 2),
        XS,
        {},
    ),
    "step": (
        lambda params, state, x: jnp.tanh(normalised(state + x)),
        None,
        jnp.ones((4, 6, 1)),
        {"state": jnp.arange(8.0).reshape(4, 2)},
    ),
}


@pytest.mark.parametrize("kind", MIXED)
@pytest.mark.parametrize("name", ["jacobian_products", "lyapunov", "step_jacobians"])
def test_a_step_that_mixes_rows_is_refused(kind, name):
    *arguments, options = MIXED[kind]
    with pytest.raises(ValueError, match="mixes the rows of a batch"):
        ALL[name](*arguments, **options)


def test_gradient_flow_refuses_a_network_that_mixes_rows():
    layers = rr.network([MIXING], 1)
    of_layers = layers.init(KEY, 2)
    given = rr.from_functions(
        lambda key, input_size: {"W": jnp.ones((2, 1))},
        lambda params, xs: normalised(xs @ params["W"]),
    )
    batch = rr.Batch(jax.random.normal(KEY, (4, 6, 2)), jnp.ones((4, 6, 1)))
    for net, params in ((layers, of_layers), (given, {"W": jnp.ones((2, 1))})):
        with pytest.raises(ValueError, match="mixes the rows of a batch"):
            rr.diagnostics.gradient_flow(net, rr.losses.squared_error(), params, batch)


def test_constants_of_a_row_are_no_mixing_and_values_in_a_trace_are_not_looked_at():
    step = lambda params, state, x: jnp.tanh(state * params + x)  # noqa: E731
    per_row = jnp.arange(4.0)[:, None]
    assert step_jacobians(step, per_row, jnp.ones((4, 2, 1)), state=jnp.ones((4, 1))).shape == (
        (4, 2, 1, 1)
    )
    traced = jax.eval_shape(lambda xs: step_jacobians(MIXING, MIXING_PARAMS, xs), XS)
    assert traced.shape == (4, 6, 3, 3)
