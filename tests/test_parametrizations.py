"""Parametrised recurrent matrices: formulas in NumPy, derivatives, every cell and back end, what else sees them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg
from conftest import require, tolerance
from recurrent_cases import forget_programs  # noqa: F401 - it works by being here
from small import make, sine

import rnnreg as rr
from rnnreg.parametrizations import (
    Parametrization,
    antisymmetric,
    low_rank,
    orthogonal,
    parametrized,
    singular_margin,
    weight_norm,
)
from rnnreg.recurrence import choose_backend, unroll

pytestmark = pytest.mark.numerics

D, H, B, T = 3, 4, 2, 5
MARGIN, GAMMA = 0.3, 0.2


def _tril(S):
    lower = np.tril(S, -1)
    return lower - lower.swapaxes(-1, -2)


def _expm(S):
    return np.stack([scipy.linalg.expm(_tril(one)) for one in S])


def _cayley(S):
    one, A = np.eye(S.shape[-1]), _tril(S)
    return np.stack([np.linalg.inv(one - a / 2) @ (one + a / 2) for a in A])


def _margin(p):
    s = 2 * MARGIN * (1 / (1 + np.exp(-p["place"])) - 0.5) + 1
    return np.stack(
        [
            u @ np.diag(one) @ v.T
            for u, one, v in zip(_cayley(p["left"]), s, _cayley(p["right"]), strict=True)
        ]
    )


def _lengths(p):
    W = np.empty_like(p["direction"])
    for gate, v in enumerate(p["direction"]):
        for unit in range(v.shape[1]):
            W[gate, :, unit] = p["length"][gate, unit] * v[:, unit] / np.linalg.norm(v[:, unit])
    return W


# By name: the wrapper, and its matrices in NumPy, [G, H, H] from what is trained.
MAPS = {
    "expm": (orthogonal, lambda p: _expm(p["skew"])),
    "cayley": (lambda cell: orthogonal(cell, method="cayley"), lambda p: _cayley(p["skew"])),
    "margin": (lambda cell: singular_margin(cell, MARGIN, method="cayley"), _margin),
    "low_rank": (
        lambda cell: low_rank(cell, 2),
        lambda p: p["left"] @ p["right"].swapaxes(-1, -2),
    ),
    "antisymmetric": (
        lambda cell: antisymmetric(cell, gamma=GAMMA),
        lambda p: _tril(p["skew"]) - GAMMA * np.eye(H),
    ),
    "weight_norm": (weight_norm, _lengths),
}
CELLS = {
    "elman": rr.cells.elman(H),
    "gru": rr.cells.gru(H),
    "gru_before": rr.cells.gru(H, reset="before"),
    "lstm": rr.cells.lstm(H),
    "own_step": rr.cells.from_step(
        lambda params, state, x: rr.cells.HiddenState(
            h=jnp.tanh(x @ params["W_xh"] + (state.h / 2) @ params["W_hh"] + params["b_h"][None])
        ),
        init=rr.cells.elman(H).init,
        hidden_size=H,
    ),
}
every_map = pytest.mark.parametrize("name", MAPS)
both_methods = pytest.mark.parametrize("method", ["expm", "cayley"])


def _numbers(cell, seed=0, dtype=None):
    """Parameters in general position, no leaf at 0."""
    rng = np.random.default_rng(seed)
    dtype = jnp.result_type(float) if dtype is None else dtype
    shapes = jax.eval_shape(lambda key: cell.init(key, D), jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), dtype), shapes)


def _formed(cell, params):
    return np.asarray(jax.jit(cell.effective)(params)["W_hh"])


def _start(wrap, W, dtype=None):
    """The matrix that a parametrisation starts from when the cell draws W."""
    dtype = jnp.result_type(float) if dtype is None else dtype
    cell = wrap(rr.cells.elman(len(W), recurrent_init=lambda *_: jnp.asarray(W, dtype)))
    return _formed(cell, jax.jit(lambda key: cell.init(key, 1, dtype))(jax.random.key(0)))


def _rotation(W):
    U, _, Vh = np.linalg.svd(W)
    U[:, -1] *= np.linalg.det(U) * np.linalg.det(Vh)
    return U @ Vh


# ---- the maps -------------------------------------------------------------------------------------


@every_map
def test_the_matrix_equals_its_formula(name):
    wrap, formula = MAPS[name]
    for plain, gates in ((rr.cells.elman(H), 1), (rr.cells.lstm(H), 4)):
        cell = wrap(plain)
        params = _numbers(cell)
        blocks = formula(jax.tree.map(lambda leaf: np.asarray(leaf, float), params["W_hh"]))
        assert blocks.shape == (gates, H, H)
        np.testing.assert_allclose(
            _formed(cell, params), np.concatenate(list(blocks), axis=1), **tolerance(loosen=10)
        )  # matrices of norm 5 under expm


@pytest.mark.float64_only
@every_map
def test_the_gradient_equals_finite_differences(name):
    cell = MAPS[name][0](rr.cells.elman(H))
    params = _numbers(cell)["W_hh"]
    rng = np.random.default_rng(1)
    direction = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), params)
    weights = jnp.asarray(rng.normal(size=(H, H)))
    rest = {"W_xh": jnp.zeros((D, H)), "b_h": jnp.zeros(H)}

    @jax.jit
    def value(step):
        moved = jax.tree.map(lambda leaf, d: leaf + step * d, params, direction)
        return jnp.sum(weights * cell.effective({"W_hh": moved} | rest)["W_hh"])

    step = 1e-5
    numeric = (value(step) - value(-step)) / (2 * step)
    # wrong by step² f‴ / 6
    np.testing.assert_allclose(jax.jit(jax.grad(value))(0.0), numeric, rtol=1e-6, atol=1e-7)


@both_methods
def test_at_no_turn_and_at_equal_angles_the_gradient_is_finite_and_right(method):
    """Both maps have dW = dA at 0; at equal angles the eigenvectors are not unique, and the maps are still smooth."""
    cell = orthogonal(rr.cells.elman(H), method=method)
    params = jax.tree.map(jnp.zeros_like, _numbers(cell))
    weights = np.random.default_rng(0).normal(size=(H, H))

    @jax.jit
    def value(skew):
        return jnp.sum(weights * cell.effective(params | {"W_hh": {"skew": skew}})["W_hh"])

    gradient = np.asarray(jax.jit(jax.grad(value))(jnp.zeros((1, H, H))))[0]
    np.testing.assert_allclose(gradient, np.tril(weights - weights.T, -1), **tolerance())
    equal = np.zeros((1, H, H))
    equal[0, 1, 0] = equal[0, 3, 2] = 0.7
    gradient = np.asarray(jax.jit(jax.grad(value))(jnp.asarray(equal, gradient.dtype)))
    assert np.isfinite(gradient).all()
    step = 1e-5 if jax.config.jax_enable_x64 else 1e-2
    direction = np.tril(np.ones((H, H)), -1)[None]
    numeric = (value(equal + step * direction) - value(equal - step * direction)) / (2 * step)
    # step² f‴ / 6
    np.testing.assert_allclose(
        np.sum(gradient * direction), numeric, rtol=1e-6 if step < 1e-3 else 1e-2
    )


@pytest.mark.parametrize("size", [1, 5, 64, pytest.param(256, marks=pytest.mark.slow)])
@both_methods
def test_orthogonal_to_rounding_at_any_size(method, size):
    drawn = _drawn(size)
    drawn[:, -1] *= np.linalg.det(drawn)  # a rotation; of a reflection no nearest one is unique
    W = _start(lambda cell: orthogonal(cell, method=method), drawn)
    # Cayley solves with a condition number of tan(θ/2) near a half-turn, some thousands at 256
    limit = tolerance()["atol"] * (1 if method == "expm" else 10)
    np.testing.assert_allclose(W.T @ W, np.eye(size), atol=limit)
    np.testing.assert_allclose(W, drawn, atol=50 * limit)


def _drawn(size, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


def test_large_numbers_still_turn():
    """Far from the start exp(A) is squared several times; what comes out is orthogonal."""
    cell = orthogonal(rr.cells.elman(H))
    params = _numbers(cell)
    W = _formed(cell, params | {"W_hh": {"skew": 100 * params["W_hh"]["skew"]}})
    np.testing.assert_allclose(W.T @ W, np.eye(H), **tolerance(loosen=30))


# ---- where they start -----------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
@both_methods
def test_orthogonal_starts_at_the_nearest_rotation(method, sign):
    W = np.random.default_rng(3).normal(size=(H, H))
    W[:, 0] *= sign * np.sign(np.linalg.det(W))
    Q = _start(lambda cell: orthogonal(cell, method=method), W)
    np.testing.assert_allclose(Q, _rotation(W), **tolerance(loosen=10))
    for seed in range(50):  # no other rotation is nearer
        other = _rotation(_drawn(H, seed))
        assert np.linalg.norm(W - Q) <= np.linalg.norm(W - other) + 1e-3


@both_methods
def test_planes_that_turn_by_pi_are_at_rest(method):
    for W in (-np.eye(4), np.diag([1.0, 1, -1, -1]), np.eye(4)):
        found = _start(lambda cell: orthogonal(cell, method=method), W)
        np.testing.assert_allclose(found, np.eye(4), **tolerance())


@both_methods
def test_henaff_draws_angles_over_the_whole_circle(method):
    cell = orthogonal(rr.cells.gru(100), method=method, start="henaff")
    W = _formed(cell, cell.init(jax.random.key(0), D))
    for block in np.split(W, 3, axis=1):
        np.testing.assert_allclose(np.linalg.svd(block, compute_uv=False), 1, rtol=1e-4)
        angles = np.angle(np.linalg.eigvals(block))
        # 50 angles U(−π, π) and their negatives: a standard error of π/√(3·50)
        assert np.abs(angles).mean() == pytest.approx(np.pi / 2, abs=4 * np.pi / np.sqrt(12 * 50))
        assert np.abs(angles).max() > 2.8
    assert not np.allclose(*np.split(W, 3, axis=1)[:2])


def test_the_other_starts_are_the_nearest_points():
    W = np.random.default_rng(3).normal(size=(H, H))
    U, s, Vh = np.linalg.svd(W)
    near = tolerance(loosen=10)
    np.testing.assert_allclose(_start(weight_norm, W), W, **near)
    nearest = U[:, :2] * s[:2] @ Vh[:2]
    np.testing.assert_allclose(_start(lambda cell: low_rank(cell, 2), W), nearest, **near)
    skew = (W - W.T) / 2 - GAMMA * np.eye(H)
    np.testing.assert_allclose(
        _start(lambda cell: antisymmetric(cell, gamma=GAMMA), W), skew, **near
    )
    rotation = _rotation(W)
    inside = rotation @ scipy.linalg.sqrtm(rotation.T @ rotation + 0.21 * np.eye(H))  # s = 1.1
    found = _start(lambda cell: singular_margin(cell, MARGIN), inside)
    np.testing.assert_allclose(found, inside, **tolerance(loosen=30))
    clipped = _start(lambda cell: singular_margin(cell, 0.1), W)
    s = np.linalg.svd(clipped, compute_uv=False)
    assert s.max() < 1.1
    assert s.min() > 0.9
    np.testing.assert_allclose(_start(weight_norm, np.zeros((H, H))), 0)


@both_methods
def test_a_margin_of_zero_is_orthogonal_and_has_a_gradient(method):
    cell = singular_margin(rr.cells.elman(H, recurrent_init="gaussian"), 0.0, method=method)
    params = cell.init(jax.random.key(0), D, jnp.result_type(float))
    W = _formed(cell, params)
    np.testing.assert_allclose(W.T @ W, np.eye(H), **tolerance())
    gradient = jax.grad(lambda p: jnp.sum(jnp.sin(cell.effective(p)["W_hh"])))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_directions_of_zeros_have_a_finite_gradient():
    cell = weight_norm(rr.cells.elman(H))
    params = jax.tree.map(jnp.zeros_like, _numbers(cell))
    gradient = jax.grad(lambda p: jnp.sum(jnp.sin(cell.effective(p)["W_hh"])))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_the_other_weights_are_those_that_the_cell_draws():
    plain = rr.cells.lstm(H)
    wanted = plain.init(jax.random.key(1), D)
    got = orthogonal(plain).init(jax.random.key(1), D)
    for leaf in ("W_xh", "b_h"):
        np.testing.assert_array_equal(got[leaf], wanted[leaf])


# ---- in a recurrence ------------------------------------------------------------------------------


def _run(cell, backend):
    def value(params, xs):
        _, states = unroll(cell, params, xs, cell.initial_state(B, xs.dtype), backend=backend)
        return jnp.sum(jnp.sin(states.h)), states.h

    return jax.jit(jax.value_and_grad(value, has_aux=True))


def _backends(cell):
    able = ["scan"] if cell.gate is None else ["scan", "fused"]
    native = choose_backend(cell, input_size=D, dtype=jnp.result_type(float)).backend == "native"
    return able + ["native"] * native


@pytest.mark.parametrize(
    "kind",
    [
        kind if kind in ("elman", "gru") else pytest.param(kind, marks=pytest.mark.slow)
        for kind in CELLS
    ],
)
@every_map
def test_every_cell_and_back_end_runs_the_effective_weights(name, kind):
    """States are those of the plain cell with the formed matrix, and so are gradients, through the map."""
    plain = CELLS[kind]
    cell = MAPS[name][0](plain)
    params = jax.tree.map(lambda leaf: leaf / 2, _numbers(cell))
    xs = jnp.asarray(np.random.default_rng(2).normal(size=(T, B, D)), jnp.result_type(float))

    @jax.jit
    def expected(params, xs):
        formed, pull = jax.vjp(cell.effective, params)
        (_, states), gradient = _run(plain, "scan")(formed, xs)
        return states, pull(gradient)[0]

    states, gradient = expected(params, xs)
    for backend in _backends(cell):
        (_, got), of_params = _run(cell, backend)(params, xs)
        np.testing.assert_allclose(got, states, **tolerance())
        for path, leaf in rr.leaf_paths(of_params).items():
            wanted = rr.leaf_paths(gradient)[path]
            np.testing.assert_allclose(leaf, wanted, **tolerance(loosen=10))  # sums over 10 rows
            assert np.asarray(wanted).any(), path


@every_map
def test_dtype_is_kept_and_lanes_equal_a_loop(name):
    cell = MAPS[name][0](rr.cells.gru(H))
    for dtype in (jnp.bfloat16, jnp.float32):
        with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
            shapes = jax.eval_shape(
                lambda key, dtype=dtype: cell.effective(cell.init(key, D, dtype)),
                jax.random.key(0),
            )
        assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(dtype)}
    lanes = [_numbers(cell, seed) for seed in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *lanes)
    wanted = np.stack([_formed(cell, one) for one in lanes])
    np.testing.assert_allclose(
        jax.vmap(cell.effective)(stacked)["W_hh"], wanted, **tolerance(loosen=10)
    )
    np.testing.assert_allclose(_formed(cell, stacked), wanted, **tolerance(loosen=10))


def test_the_matrix_is_formed_once_a_sequence_and_not_once_a_segment():
    count = []

    def form(leaves):
        count.append(0)
        return leaves["W"]

    cell = parametrized(rr.cells.elman(H), Parametrization("seen", lambda _, W: {"W": W}, form))
    params = _numbers(cell)
    count.clear()
    jax.eval_shape(
        lambda xs: unroll(
            cell, params, xs, cell.initial_state(B, xs.dtype), remat=2, backend="scan"
        ),
        jnp.zeros((7, B, D)),
    )
    assert len(count) == 1


# ---- peers ----------------------------------------------------------------------------------------


@both_methods
def test_orthogonal_equals_pytorch(method):
    torch = require("torch")
    from torch.nn.utils import parametrizations as peers

    named = {"expm": "matrix_exp", "cayley": "cayley"}[method]
    S = np.random.default_rng(0).normal(size=(H, H))
    linear = torch.nn.Linear(H, H, bias=False, dtype=torch.float64)
    peers.orthogonal(linear, orthogonal_map=named, use_trivialization=False)
    with torch.no_grad():
        linear.parametrizations.weight.original.copy_(torch.tensor(S))
    weights = np.random.default_rng(1).normal(size=(H, H))
    (torch.tensor(weights) * linear.weight).sum().backward()
    cell = orthogonal(rr.cells.elman(H), method=method)
    rest = {"W_xh": jnp.zeros((D, H)), "b_h": jnp.zeros(H)}

    def value(skew):
        W = cell.effective({"W_hh": {"skew": skew}} | rest)["W_hh"]
        return jnp.sum(jnp.asarray(weights, W.dtype) * W), W

    skew = jnp.asarray(S[None], jnp.result_type(float))
    (_, W), gradient = jax.value_and_grad(value, has_aux=True)(skew)
    near = tolerance(loosen=10)
    np.testing.assert_allclose(W, linear.weight.detach().numpy(), **near)
    theirs = linear.parametrizations.weight.original.grad.numpy()
    np.testing.assert_allclose(gradient[0], np.tril(theirs, -1), **near)


def test_weight_norm_equals_pytorch():
    torch = require("torch")
    from torch.nn.utils import parametrizations as peers

    cell = weight_norm(rr.cells.lstm(H))
    params = _numbers(cell)
    own = params["W_hh"]
    peer = peers.weight_norm(torch.nn.LSTM(D, H, dtype=torch.float64), "weight_hh_l0")
    g, v = (
        peer.parametrizations.weight_hh_l0.original0,
        peer.parametrizations.weight_hh_l0.original1,
    )
    with torch.no_grad():
        g.copy_(torch.tensor(np.asarray(own["length"], float).reshape(-1, 1)))
        v.copy_(torch.tensor(np.asarray(own["direction"], float).swapaxes(-1, -2).reshape(-1, H)))
    np.testing.assert_allclose(
        _formed(cell, params), peer.weight_hh_l0.detach().numpy().T, **tolerance()
    )


# ---- what else sees the matrix --------------------------------------------------------------------


def _network(wrap, cell=None):
    net = rr.network(
        [wrap(cell or rr.cells.gru(H)), rr.layer(rr.cells.elman(H), bidirectional=True)], 1
    )
    return net, net.init(jax.random.key(0), D)


@every_map
def test_penalties_and_spectra_see_the_effective_matrix(name):
    net, params = _network(MAPS[name][0])
    formed = rr.networks.effective(net, params)
    W = np.asarray(formed["layer_0"]["W_hh"], float)
    penalty = rr.penalties.l2("layer_0/W_hh")
    assert rr.penalties.covered(rr.penalties.l2(), params, net=net)[:1] == ["layer_0/W_hh"]
    np.testing.assert_allclose(penalty(params, net=net), np.sum(W**2), rtol=1e-4)
    objective = rr.make_objective(net, rr.losses.squared_error("mean"), {"l2": penalty})
    batch = rr.Batch(jnp.ones((B, T, D)), jnp.ones((B, T, 1)))
    states = {"l2": penalty.init(formed)}

    def total(params):
        return objective(params, {"l2": 2.0}, batch, states, key=None, train=False)[0]

    def by_hand(params):
        out = net.apply(params, batch.xs).outputs
        W = net.layers[0].cell.effective(params["layer_0"])["W_hh"]
        return jnp.mean((out - 1) ** 2) + 2 * jnp.sum(W**2)

    for got, wanted in zip(
        *(jax.tree.leaves(jax.jit(jax.grad(f))(params)) for f in (total, by_hand)), strict=True
    ):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
    seen = rr.diagnostics.spectra(params, net=net)
    wanted = rr.diagnostics.spectra(formed)
    assert list(seen) == list(wanted)
    np.testing.assert_allclose(seen["layer_0/W_hh"].sigma_max, wanted["layer_0/W_hh"].sigma_max)
    with pytest.raises(ValueError, match="Give net= for the matrices of a parametrisation"):
        rr.diagnostics.spectra({"layer_0": params["layer_0"]})


def test_a_penalty_that_needs_the_step_is_given_one_of_the_effective_weights():
    net = rr.network([orthogonal(rr.cells.elman(H))], 1)
    params = net.init(jax.random.key(0), D)

    def value(params, context, state):
        new = context.step["layer_0"](
            params["layer_0"], context.states["layer_0"], jnp.ones((B, T, D))
        )
        return jnp.sum(new.h), state

    penalty = rr.penalties.Penalty(lambda params: (), value, needs=frozenset({"step"}))
    objective = rr.make_objective(net, rr.losses.squared_error("mean"), {"own": penalty})
    batch = rr.Batch(jnp.ones((B, T, D)), jnp.ones((B, T, 1)))
    _, (parts, _) = objective(params, {"own": 1.0}, batch, {"own": ()}, key=None, train=False)
    states = net.apply(params, batch.xs).states["layer_0"].h
    own = rr.networks.effective(net, params)["layer_0"]
    wanted = jnp.tanh(states @ own["W_hh"] + jnp.ones((B, T, D)) @ own["W_xh"])
    np.testing.assert_allclose(parts.penalties["own"], jnp.sum(wanted), rtol=1e-5)


def test_a_run_keeps_a_matrix_orthogonal_and_records_it():
    net = rr.network([orthogonal(rr.cells.elman(H))], 1, readout="last")
    train = make(net, penalties={}, optimizer=optax.adamw(0.1), num_epochs=20)
    run = train({}, sine(), key=jax.random.key(0))
    W = np.asarray(rr.networks.effective(net, run.params)["layer_0"]["W_hh"])
    np.testing.assert_allclose(W.T @ W, np.eye(H), **tolerance())
    start = np.asarray(
        rr.networks.effective(net, train.init({}, sine(), key=jax.random.key(0)).params)["layer_0"][
            "W_hh"
        ]
    )
    assert np.abs(W - start).max() > 0.1
    np.testing.assert_allclose(run.metrics["sigma_max/layer_0/W_hh"], 1, rtol=1e-4)
    np.testing.assert_allclose(run.history["norm/layer_0/W_hh"], np.sqrt(H), rtol=1e-4)


@pytest.mark.filterwarnings("ignore:penalties")
def test_l2_of_an_orthogonal_matrix_warns_and_has_no_gradient():
    net = rr.network([orthogonal(rr.cells.elman(H))], 1, readout="last")
    train = make(net, penalties={"l2": rr.penalties.l2("W_hh")})
    with pytest.warns(RuntimeWarning, match=r"'l2'\] does nothing to \['layer_0/W_hh'\]"):
        state = train.init({"l2": 1.0, "learning_rate": 0.1}, sine(), key=jax.random.key(0))
    batch = sine().train
    step = jax.jit(
        lambda lam: train.update(state, {"l2": lam, "learning_rate": 0.1}, batch)[0].params
    )
    for one, other in zip(*(jax.tree.leaves(step(lam)) for lam in (0.0, 1e2)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3 if one.dtype == jnp.float32 else 1e-10)


def test_a_scheduled_l2_of_an_orthogonal_matrix_warns_too():
    net = rr.network([orthogonal(rr.cells.elman(H))], 1, readout="last")
    late = rr.penalties.scheduled(rr.penalties.l2("W_hh"), lambda count: 0.5)
    train = make(net, penalties={"l2": late})
    hyper = {"l2": 1.0, "learning_rate": 0.1}
    with pytest.warns(RuntimeWarning, match=r"'l2'\] does nothing to \['layer_0/W_hh'\]"):
        jax.eval_shape(lambda: train.init(hyper, sine(), key=jax.random.key(0)))


@pytest.mark.filterwarnings("error")
def test_a_penalty_that_still_says_something_does_not_warn():
    for wrap, penalty in (
        (orthogonal, rr.penalties.l1("W_hh")),
        (orthogonal, rr.penalties.l2("W_xh")),
        (lambda cell: singular_margin(cell, 0.1), rr.penalties.l2("W_hh")),
    ):
        net = rr.network([wrap(rr.cells.elman(H))], 1, readout="last")
        train = make(net, penalties={"l2": penalty})
        jax.eval_shape(
            lambda train=train: train.init(
                {"l2": 1.0, "learning_rate": 0.1}, sine(), key=jax.random.key(0)
            )
        )


def test_a_prox_of_a_matrix_that_is_not_trained_itself_is_refused():
    net = rr.network([low_rank(rr.cells.elman(H), 2)], 1, readout="last")
    for paths, refused in (("*", True), ("W_xh", False)):
        train = make(net, penalties={"l1": rr.penalties.l1(paths)}, proximal=True)
        start = {"l1": 1e-3, "learning_rate": 0.1}, sine()
        if refused:
            with pytest.raises(ValueError, match=r"a parametrisation makes weights of .*W_hh/left"):
                train.init(*start, key=jax.random.key(0))
        else:
            train.init(*start, key=jax.random.key(0))


def test_a_margin_is_an_axis_with_one_compilation():
    traces = []

    def net(hyper):
        traces.append(0)
        cell = singular_margin(rr.cells.elman(H, recurrent_init="gaussian"), hyper["margin"])
        return rr.network([cell], 1, readout="last")

    train = make(net, penalties={})
    result = rr.sweep(
        train,
        {"margin": [0.0, 0.1, 1.0], "learning_rate": 0.1},
        sine(),
        seeds=1,
        key=jax.random.key(0),
    )
    first = len(traces)
    sigma = result.metrics["sigma_max.layer_0.W_hh"].values.ravel()
    assert sigma[0] == pytest.approx(1, abs=1e-4)
    assert 1.01 < sigma[1] < 1.1
    assert 1.1 < sigma[2] < 2
    rr.sweep(
        train,
        {"margin": [0.2, 0.3, 0.4], "learning_rate": 0.1},
        sine(),
        seeds=1,
        key=jax.random.key(0),
    )
    assert len(traces) - first < first  # checks only, no new program


def test_diagnostics_of_dynamics_go_through_the_map():
    cell = orthogonal(rr.cells.elman(H, activation=jax.nn.identity))
    net = rr.network([cell], None)
    params = net.init(jax.random.key(0), D)
    xs = jnp.zeros((1, 6, D))
    bounds = rr.diagnostics.jacobian_bounds(net, params)
    assert bounds.sigma_max == pytest.approx(1, abs=1e-4)
    exponents = rr.diagnostics.lyapunov(net, params, xs).exponents
    np.testing.assert_allclose(exponents, 0, atol=1e-4)


def test_a_description_makes_the_network_again():
    for wrap, _ in MAPS.values():
        net = rr.network([rr.cells.chrono(wrap(rr.cells.lstm(H)), 20)], 1)
        described = rr.networks.describe(net)
        assert not described["layers"][0]["cell"]["changed"]
        again = rr.networks.rebuild(described)
        params, xs = net.init(jax.random.key(0), D), jnp.ones((B, T, D))
        np.testing.assert_array_equal(
            again.apply(params, xs).outputs, net.apply(params, xs).outputs
        )


# ---- messages -------------------------------------------------------------------------------------


def test_bad_arguments_are_named():
    cell = rr.cells.gru(H)
    for call, words in (
        (lambda: orthogonal(cell, method="qr"), "method must be 'expm' or 'cayley'"),
        (lambda: orthogonal(cell, start="haar"), "start must be 'nearest' or 'henaff'"),
        (lambda: singular_margin(cell, 1.5), r"margin must lie in \[0, 1\].*1 − margin"),
        (lambda: singular_margin(cell, -0.1), r"margin must lie in \[0, 1\]"),
        (lambda: low_rank(cell, H + 1), "rank must lie in 1 … 4.*hidden size"),
        (lambda: low_rank(cell, 0), "rank must lie in 1 … 4"),
        (lambda: antisymmetric(cell, gamma=-1.0), "gamma must be a number of at least 0"),
        (lambda: orthogonal("gru"), "cell must be a Cell .*got 'gru'"),
        (lambda: weight_norm(orthogonal(cell)), "has a parametrisation already"),
        (lambda: weight_norm(cell._replace(recurrent=("W",))), r"square blocks.*states none"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    torch = require("torch")
    del torch
    net = rr.network([orthogonal(cell)], 1)
    params = net.init(jax.random.key(0), D)
    with pytest.raises(
        ValueError, match="has a parametrisation: give the cell that it was made from"
    ):
        rr.convert.to_torch(params["layer_0"], orthogonal(cell))
