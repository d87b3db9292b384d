"""Every penalty on weights: its value, its gradient where that is delicate, λ, dtypes and leaves, in one table."""

import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import tolerance

import rnnreg as rr
from rnnreg._tree import leaf_paths, with_leaves
from rnnreg.penalties import Context, covered

pytestmark = pytest.mark.numerics

H = 4


# ---- the oracles: NumPy, float64, one matrix after the other ----------------------------------------


def blocks(W):
    """The square blocks of a recurrent matrix, one a gate."""
    return np.split(W, W.shape[1] // W.shape[0], axis=1)


def per_block(function):
    """R as a sum over the blocks of W_hh."""

    def value(leaves):
        return sum(
            function(block)
            for path, leaf in leaves.items()
            if path.endswith("W_hh")
            for block in blocks(leaf)
        )

    return value


def of_sigma(function):
    return per_block(lambda W: function(np.linalg.svd(W, compute_uv=False)))


def elements(function):
    def value(leaves):
        return sum(np.sum(function(leaf)) for path, leaf in leaves.items() if leaf.ndim == 2)

    return value


def lengths(axis):
    def value(leaves):
        return sum(
            np.linalg.norm(leaf, axis=axis).sum() for leaf in leaves.values() if leaf.ndim == 2
        )

    return value


def units(leaves):
    """All that a unit receives, gate after gate and leaf after leaf."""
    total = 0.0
    for layer in {path.rpartition("/")[0] for path in leaves if path.endswith("W_hh")}:
        size = leaves[f"{layer}/W_hh"].shape[0]
        for unit in range(size):
            own = [leaves[f"{layer}/{name}"][:, unit::size].ravel() for name in ("W_xh", "W_hh")]
            total += np.linalg.norm(np.concatenate(own))
    return total


def departure(W):
    return np.sum((W.T @ W - W @ W.T) ** 2)


def all_paths(leaves):
    """The product of squared weights of every path, by a loop over time and over starting steps."""
    total = 0.0
    for lag in range(3):
        for late in range(lag + 1):  # steps that are spent in the second layer
            a = np.ones(2) @ leaves["layer_0/W_xh"] ** 2
            a = a @ np.linalg.matrix_power(leaves["layer_0/W_hh"] ** 2, lag - late)
            a = a @ leaves["layer_1/W_xh"] ** 2
            a = a @ np.linalg.matrix_power(leaves["layer_1/W_hh"] ** 2, late)
            total += np.sum(a @ leaves["readout/W_hy"] ** 2)
    return total


def manifold(leaves):
    """Schmidt et al. 2021 on the first half of the units, as their code divides."""
    total = 0.0
    for layer in ("layer_0", "layer_1"):
        W, b = leaves[f"{layer}/W_hh"], leaves[f"{layer}/b_h"]
        half = W.shape[0] // 2
        A, rest = np.diag(W)[:half], (W - np.diag(np.diag(W)))[:, :half]
        total += np.mean((A - 1) ** 2) + np.mean(rest**2) + np.mean(b[:half] ** 2)
    return total


def margin(sigma):
    return np.sum(np.maximum(np.abs(sigma - 1) - 0.1, 0) ** 2)


P = rr.penalties
# Factory, oracle, cells that it is for, and whether R is convex.
CASES = {
    "l2": (P.l2, elements(np.square), "both", True),
    "l1": (P.l1, elements(np.abs), "both", True),
    "elastic_net": (P.elastic_net, elements(lambda w: (np.abs(w) + w**2) / 2), "both", True),
    "elementwise": (lambda: P.elementwise(lambda w: w**4), elements(lambda w: w**4), "both", True),
    "group_lasso": (P.group_lasso, lengths(0), "both", True),
    "group_lasso_rows": (lambda: P.group_lasso("rows"), lengths(1), "both", True),
    "group_lasso_units": (lambda: P.group_lasso("units"), units, "both", True),
    "nuclear": (P.nuclear, of_sigma(np.sum), "both", True),
    "spectral_norm": (P.spectral_norm, of_sigma(lambda s: s[0] ** 2), "both", True),
    "soft_orthogonality": (
        P.soft_orthogonality,
        of_sigma(lambda s: np.sum((s**2 - 1) ** 2)),
        "both",
        False,
    ),
    "soft_orthogonality_spectral": (
        lambda: P.soft_orthogonality(norm="spectral"),
        of_sigma(lambda s: np.max(np.abs(s**2 - 1))),
        "both",
        False,
    ),
    "singular_value_margin": (P.singular_value_margin, of_sigma(margin), "both", False),
    "to_identity": (
        P.to_identity,
        per_block(lambda W: np.sum((W - np.eye(H)) ** 2)),
        "elman",
        True,
    ),
    "manifold": (
        lambda: P.to_identity(units=0.5, reduction="mean", bias="b_h"),
        manifold,
        "elman",
        True,
    ),
    "non_normal": (P.non_normal, per_block(departure), "both", False),
    "path_norm": (lambda: P.path_norm(3), all_paths, "elman", False),
    "scheduled": (
        lambda: P.scheduled(P.l2(), optax.constant_schedule(0.5)),
        elements(np.square),
        "both",
        True,
    ),
}
GATED = [
    (name, cell) for name in CASES for cell in ("elman", "gru") if CASES[name][2] in ("both", cell)
]
every_penalty = pytest.mark.parametrize("name", CASES)
every_case = pytest.mark.parametrize(("name", "cell"), GATED)

NETS = {
    name: rr.network([cell(H), cell(H)], 1)
    for name, cell in (("elman", rr.cells.elman), ("gru", rr.cells.gru))
}


def rotated(sigma, rng):
    """U diag(σ) Vᵀ with random orthogonal U and V."""
    U, V = (np.linalg.qr(rng.normal(size=(H, H)))[0] for _ in range(2))
    return U * sigma @ V.T


POINTS = {
    "somewhere": lambda shape, rng: rng.normal(size=shape),
    "zero": lambda shape, rng: np.zeros(shape),
    "orthogonal": lambda shape, rng: rotated(np.ones(H), rng),
    "repeated": lambda shape, rng: rotated(np.array([1.5, 1.5, 0.5, 0.5]), rng),
    "rank_one": lambda shape, rng: rotated(np.array([1.5, 0, 0, 0]), rng),
    "identity": lambda shape, rng: np.eye(H),
}


def params_at(point, cell="elman"):
    """Parameters whose recurrent blocks are of a kind; the other leaves are random, or 0 at "zero"."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda key: NETS[cell].init(key, 2), jax.random.key(0))
    leaves = {}
    for path, leaf in leaf_paths(shapes).items():
        if path.endswith("W_hh"):
            drawn = [POINTS[point]((H, H), rng) for _ in range(leaf.shape[1] // H)]
            leaves[path] = np.concatenate(drawn, axis=1)
        else:
            leaves[path] = rng.normal(size=leaf.shape) * (point != "zero")
    return with_leaves(shapes, {path: jnp.asarray(leaf) for path, leaf in leaves.items()})


def plain(penalty):
    """R as a plain function: `jax.jit` keeps weak references, and a tuple cannot have one."""
    return lambda params: penalty(params)


def function(name):
    return plain(CASES[name][0]())


def oracle(name, params):
    return CASES[name][1](
        {path: np.asarray(leaf, float) for path, leaf in leaf_paths(params).items()}
    )


def moved(params, by, seed=1):
    """The parameters, and a step of some size in a random direction."""
    rng = np.random.default_rng(seed)
    step = jax.tree.map(lambda leaf: by * rng.normal(size=leaf.shape), params)
    return jax.tree.map(lambda leaf, add: leaf + add.astype(leaf.dtype), params, step), step


def inner(tree, other):
    return sum(
        jax.tree.leaves(jax.tree.map(lambda a, b: np.sum(np.asarray(a, float) * b), tree, other))
    )


# ---- values -----------------------------------------------------------------------------------------


@every_case
def test_value_is_the_formula(name, cell):
    R = jax.jit(function(name))
    for point in ("somewhere", "zero", "repeated"):
        params = params_at(point, cell)
        # singular values near 0 are exact to a rounding of the largest only
        expected = oracle(name, params)
        np.testing.assert_allclose(R(params), expected, **tolerance(loosen=10), err_msg=point)


def test_the_table_has_every_factory():
    factories = {
        name
        for name in P.__all__
        if inspect.isfunction(getattr(P, name))
        and inspect.signature(getattr(P, name)).return_annotation == "Penalty"
    }
    assert factories == {row.name for row in P.table()}
    on_weights = {row.name for row in P.table() if not row.needs}
    assert on_weights == {CASES[name][0]().name for name in CASES}


def test_the_table_prints_and_has_every_field_in_a_notebook():
    table = P.table()
    text = repr(table)
    assert text.isascii()
    assert max(map(len, text.splitlines())) <= 120
    assert all(row.name in text and row.formula in text for row in table)
    shown = table._repr_html_()
    assert shown.count("<tr>") == len(table) + 1
    assert "Hoerl &amp; Kennard 1970" in shown
    costs = {row.name: row.cost for row in table}
    for factory in (P.nuclear, P.singular_value_margin):
        every = inspect.signature(factory).parameters["every"].default
        assert costs[factory.__name__] == f"2 products, every {every}th an SVD"
    assert "include_biases=False" in shown


# ---- gradients --------------------------------------------------------------------------------------

# Where R has a kink its gradient is one of many; if R is convex, the inequality of subgradients holds there.
KINKS = {
    "zero": {"l1", "elastic_net", "group_lasso", "nuclear", "singular_value_margin"},
    "orthogonal": {"spectral_norm", "soft_orthogonality_spectral"},
    "identity": {"l1", "elastic_net", "spectral_norm", "soft_orthogonality_spectral"},
    "repeated": {"spectral_norm", "soft_orthogonality_spectral"},
    "rank_one": {"group_lasso", "nuclear", "soft_orthogonality_spectral", "singular_value_margin"},
}


def is_smooth(name, point):
    return not any(name.startswith(kinked) for kinked in KINKS.get(point, ()))


@pytest.mark.float64_only
@every_case
def test_gradient_is_that_of_the_formula(name, cell):
    gradient_of = jax.jit(jax.grad(function(name)))
    for point, seed in itertools.product(POINTS, range(2)):
        params = params_at(point, cell)
        gradient, R = gradient_of(params), oracle(name, params)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient)), point
        if is_smooth(name, point):
            (ahead, step), (back, _) = moved(params, 1e-5, seed), moved(params, -1e-5, seed)
            slope = (oracle(name, ahead) - oracle(name, back)) / 2
            # a step has a length of about 1e-4, and the difference an error of third order
            found = inner(gradient, step)
            np.testing.assert_allclose(found, slope, rtol=1e-6, atol=1e-11, err_msg=point)
        elif CASES[name][3]:
            ahead, step = moved(params, 0.3, seed)
            assert oracle(name, ahead) >= R + inner(gradient, step) - 1e-12, point


@every_penalty
def test_gradient_at_zero_is_finite_and_pushes_no_weight_off_zero(name):
    """But for those whose aim is not zero."""
    gradient = jax.jit(jax.grad(function(name)))(params_at("zero"))
    found = {path for path, leaf in leaf_paths(gradient).items() if np.asarray(leaf).any()}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    aims = name in ("to_identity", "manifold", "singular_value_margin")
    spectral = {"soft_orthogonality_spectral"}
    assert found == ({"layer_0/W_hh", "layer_1/W_hh"} if aims else set()) or name in spectral


def test_a_margin_leaves_zero_downhill():
    R, params = plain(P.singular_value_margin(0.1)), params_at("zero")

    @jax.jit
    def both(params):
        before, gradient = jax.value_and_grad(R)(params)
        return before, R(jax.tree.map(lambda leaf, slope: leaf - 0.1 * slope, params, gradient))

    before, after = both(params)
    assert float(after) < float(before)


@pytest.mark.parametrize("W", [np.eye(H), rotated(np.ones(H), np.random.default_rng(2))])
def test_an_orthogonal_matrix_has_no_force_on_it(W):
    params = {"W_hh": jnp.asarray(W)}
    for penalty in (P.soft_orthogonality(), P.singular_value_margin(0.0), P.non_normal()):
        force = jax.jit(jax.grad(plain(penalty)))(params)["W_hh"]
        np.testing.assert_allclose(force, 0, **tolerance())
    polar = jax.jit(jax.grad(plain(P.nuclear())))(params)["W_hh"]
    np.testing.assert_allclose(polar, W, **tolerance())


def test_the_nuclear_gradient_of_a_rank_one_matrix_is_its_singular_vectors():
    u, v = np.array([0.6, 0.8, 0, 0]), np.array([0, 1.0, 0, 0])
    params = {"W_hh": jnp.asarray(3 * np.outer(u, v))}
    gradient = jax.jit(jax.grad(plain(P.nuclear())))(params)["W_hh"]
    np.testing.assert_allclose(gradient, np.outer(u, v), **tolerance())


def test_soft_orthogonality_moves_singular_values_as_its_flow_does():
    """Under W' = −λ ∇R: σ(t)^−2 = 1 + (σ(0)^−2 − 1) exp(−8λt); Euler steps have an error of first order."""
    rng, lam, dt, steps = np.random.default_rng(0), 0.1, 1e-3, 500
    start = np.array([1.4, 1.1, 0.7, 0.3])
    gradient = jax.grad(plain(P.soft_orthogonality()))

    def step(params, _):
        return jax.tree.map(lambda w, g: w - dt * lam * g, params, gradient(params)), None

    end, _ = jax.jit(lambda p: jax.lax.scan(step, p, length=steps))(
        {"W_hh": jnp.asarray(rotated(start, rng))}
    )
    expected = 1 / np.sqrt(1 + (start**-2 - 1) * np.exp(-8 * lam * dt * steps))
    np.testing.assert_allclose(np.linalg.svd(end["W_hh"], compute_uv=False), expected, rtol=1e-3)


def test_the_commutator_bounds_henricis_departure_on_both_sides():
    commutator = jax.jit(plain(P.non_normal()))
    for seed in range(5):
        W = np.random.default_rng(seed).normal(size=(H, H))
        R = float(commutator({"W_hh": jnp.asarray(W)}))
        squared = np.sum(W**2) - np.sum(np.abs(np.linalg.eigvals(W)) ** 2)
        assert R / (6 * np.sum(W**2)) <= squared <= np.sqrt((H**3 - H) / 12 * R)


def test_the_path_norm_does_not_see_a_rescaling_of_units():
    """Which changes no output of a relu network, and does change ‖W‖²."""
    params, scale = params_at("somewhere"), jnp.array([0.5, 2.0, 3.0, 1.0])
    layer, above = params["layer_0"], params["layer_1"]
    scaled = {
        "W_xh": layer["W_xh"] * scale,
        "W_hh": layer["W_hh"] * scale / scale[:, None],
        "b_h": layer["b_h"] * scale,
    }
    other = params | {
        "layer_0": scaled,
        "layer_1": above | {"W_xh": above["W_xh"] / scale[:, None]},
    }
    norm = jax.jit(plain(P.path_norm(4)))
    np.testing.assert_allclose(norm(other), norm(params), **tolerance())
    assert not np.isclose(P.l2()(other), P.l2()(params))


# ---- λ, dtypes, leaves --------------------------------------------------------------------------------


@every_penalty
def test_lambda_is_traced_under_jit_vmap_and_grad(name):
    penalty, params = CASES[name][0](), params_at("somewhere")

    def total(lam):
        return lam * penalty(params)

    R = oracle(name, params)
    lams = jnp.array([0.0, 0.5, 2.0])
    together = jax.jit(jax.vmap(jax.value_and_grad(total)))(lams)
    np.testing.assert_allclose(together[0], lams * R, **tolerance(loosen=10))
    np.testing.assert_allclose(together[1], np.full(3, R), **tolerance(loosen=10))


@every_penalty
@pytest.mark.parametrize("train", [False, True])
def test_dtypes_are_kept_under_strict_promotion(name, train):
    penalty = CASES[name][0]()
    widest = jnp.zeros(0).dtype
    for dtype, wide in ((jnp.bfloat16, jnp.float32), (widest, widest)):
        params = jax.eval_shape(
            lambda p, d=dtype: jax.tree.map(lambda leaf: leaf.astype(d), p), params_at("somewhere")
        )

        def value(params):
            context = Context(outputs=None, train=train)
            return penalty.value(params, context, penalty.init(params))

        with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
            (R, after), gradient = jax.eval_shape(jax.value_and_grad(value, has_aux=True), params)
        state = jax.eval_shape(penalty.init, params)
        assert R.dtype == wide
        assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
            lambda leaf: (leaf.shape, leaf.dtype), state
        )
        jax.tree.map(
            lambda leaf, own: leaf.dtype == own.dtype or pytest.fail(name), gradient, params
        )


@every_penalty
def test_biases_gains_and_scales_are_left_alone(name):
    """But the bias that the manifold attractor names; and what is covered is what has a gradient."""
    params = params_at("somewhere")
    layers = {
        layer: params[layer] | {"gain": jnp.ones(H), "scale": jnp.ones(())}
        for layer in ("layer_0", "layer_1")
    }
    params = params | layers
    penalty = CASES[name][0]()
    gradient = leaf_paths(jax.jit(jax.grad(lambda p: penalty(p)))(params))
    found = sorted(path for path, leaf in gradient.items() if np.asarray(leaf).any())
    assert found == covered(penalty, params)
    vectors = {path for path in found if params_rank(params, path) < 2}
    assert vectors == ({"layer_0/b_h", "layer_1/b_h"} if name == "manifold" else set())


def params_rank(params, path):
    return leaf_paths(params)[path].ndim


@every_penalty
def test_masks_and_row_weights_change_nothing(name):
    penalty, params = CASES[name][0](), params_at("somewhere")
    masked = Context(outputs=None, mask=jnp.zeros((2, 3)), weights=jnp.zeros(2))
    value = jax.jit(lambda p: penalty.value(p, masked, penalty.init(p))[0])(params)
    np.testing.assert_allclose(value, oracle(name, params), **tolerance(loosen=10))


BY_PATH = ["group_lasso", "nuclear", "spectral_norm", "soft_orthogonality", "singular_value_margin"]
BY_PATH += ["to_identity", "non_normal"]


@pytest.mark.parametrize("name", BY_PATH)
def test_paths_choose_layers(name):
    params = params_at("somewhere")
    penalty = getattr(P, name)(paths="layer_1/W_hh")
    assert covered(penalty, params) == ["layer_1/W_hh"]
    alone = {"layer_1": {"W_hh": params["layer_1"]["W_hh"]}}
    leaves = {path: np.asarray(leaf, float) for path, leaf in leaf_paths(alone).items()}
    np.testing.assert_allclose(
        jax.jit(plain(penalty))(params), CASES[name][1](leaves), **tolerance(loosen=10)
    )
    with pytest.raises(ValueError, match="penalty path 'W_rec' matches no leaf"):
        getattr(P, name)(paths="W_rec").init(params)


def test_a_matrix_that_is_not_recurrent_is_taken_whole():
    """W_xh of one input is no row of 1×1 blocks."""
    params = {"W_xh": jnp.array([[3.0, 4.0]]), "W_hh": jnp.eye(2)}
    np.testing.assert_allclose(jax.jit(plain(P.spectral_norm("*")))(params), 25 + 1, **tolerance())
    np.testing.assert_allclose(
        jax.jit(plain(P.soft_orthogonality("W_xh")))(params), 24**2, **tolerance()
    )
    nuclear = jax.jit(plain(P.nuclear("W_hh", recurrent=None)))
    whole = nuclear({"W_hh": jnp.array([[3.0, 4.0]])})
    np.testing.assert_allclose(whole, 5, **tolerance())


def test_a_recurrent_matrix_may_have_its_gates_on_the_first_axis():
    rng = np.random.default_rng(0)
    W = rng.normal(size=(H, 3 * H))
    for name in ("nuclear", "spectral_norm", "non_normal"):
        R = jax.jit(plain(getattr(P, name)()))
        there, here = (R({"W_hh": jnp.asarray(each)}) for each in (W.T, W))
        np.testing.assert_allclose(there, here, **tolerance(loosen=10))


def test_groups_may_be_weighted_by_the_root_of_their_size():
    params = {"layer_0": {"W_xh": jnp.ones((3, 2)), "W_hh": jnp.ones((2, 2))}}
    np.testing.assert_allclose(P.group_lasso(by_size=True)(params), 2 * 3 + 2 * 2, **tolerance())
    np.testing.assert_allclose(P.group_lasso("units", by_size=True)(params), 2 * 5, **tolerance())


# ---- estimates in training, exact in reports ------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["spectral_norm", "soft_orthogonality_spectral", "nuclear", "singular_value_margin"]
)
def test_estimates_follow_weights_that_move(name):
    """Forty small steps: within 2 % of R at each of the last ten, from the state of the step before."""
    penalty, params = CASES[name][0](), params_at("somewhere", "gru")
    direction = moved(params, 1e-3)[1]

    @jax.jit
    def estimates(params):
        def step(carry, _):
            params, state = carry
            R, state = penalty.value(params, Context(outputs=None, train=True), state)
            exact = penalty.value(params, None, state)[0]
            return (jax.tree.map(jnp.add, params, direction), state), (R, exact)

        return jax.lax.scan(step, (params, penalty.init(params)), length=40)[1]

    R, exact = estimates(params)
    np.testing.assert_allclose(R[-10:], exact[-10:], rtol=0.02)


def test_a_matrix_that_was_zero_is_estimated_when_it_grows():
    penalty = P.spectral_norm()
    zero = {"W_hh": jnp.zeros((H, H))}
    training = Context(outputs=None, train=True)
    R, state = penalty.value(zero, training, penalty.init(zero))
    assert float(R) == 0.0
    for _ in range(3):
        R, state = penalty.value({"W_hh": 2 * jnp.eye(H)}, training, state)
    np.testing.assert_allclose(R, 4.0, **tolerance())


def split():
    rng = np.random.default_rng(0)
    xs = rng.normal(size=(8, 5, 2)).astype("float32")
    ys = rng.normal(size=(8, 1)).astype("float32")
    return rr.Split(train=rr.Batch(xs, ys), validation=rr.Batch(xs[:3], ys[:3]))


ALL = {
    "group": "group_lasso_units",
    "nuclear": "nuclear",
    "spectral": "spectral_norm",
    "restricted": "soft_orthogonality_spectral",
    "margin": "singular_value_margin",
    "normal": "non_normal",
    "slow": "scheduled",
}


def trained(**options):
    return rr.make_train(
        rr.network([rr.cells.elman(H)], 1, readout="last"),
        loss=rr.losses.squared_error("mean"),
        optimizer=optax.sgd(0.05),
        **options,
    )


@pytest.mark.parametrize("plan", ["one_by_one", pytest.param("vmap", marks=pytest.mark.slow)])
def test_a_sweep_reports_each_penalty_as_it_is(plan):
    """Several penalties at once, λ an axis; what is recorded is R at the parameters of the lane, the best ones here."""
    train = trained(
        penalties={k: CASES[v][0]() for k, v in ALL.items()}, num_epochs=7, keep_best=True
    )
    grid = dict.fromkeys(ALL, 0.01) | {"nuclear": [0.0, 0.1]}
    result = rr.sweep(train, grid, split(), key=jax.random.key(0), plan=plan)
    for lam in (0.0, 0.1):
        params = result.params_at(nuclear=lam)
        for name, case in ALL.items():
            R = result.metrics[f"penalty_{name}"].sel(nuclear=lam).item()
            np.testing.assert_allclose(R, oracle(case, params), rtol=1e-4)
    smaller = result.metrics["penalty_nuclear"].values
    assert smaller[1] < smaller[0]
    described = result.config["penalties"][0]
    assert described["slow"]["arguments"]["penalty"]["name"] == "l2"


# ---- schedules ------------------------------------------------------------------------------------------


def test_a_schedule_is_the_strength_at_each_update():
    """Under SGD from W and with no data gradient, w_n = w_0 Π (1 − 2ηλ s(n))."""
    schedule = optax.linear_schedule(0.0, 1.0, 4)
    train = trained(penalties={"l2": P.scheduled(P.l2(), schedule)}, num_epochs=1)
    data = split().train
    batch = rr.Batch(jnp.asarray(data.xs), jnp.asarray(data.ys), weights=jnp.zeros(8))
    hyper = {"l2": jnp.asarray(0.5)}
    state = train.init(hyper, data, key=jax.random.key(0))
    first, update, shares = state.params, jax.jit(train.update), []
    for _ in range(6):
        R = float(P.l2()(state.params))
        state, info = update(state, hyper, batch)
        shares.append(float(info.penalties["l2"]) / R)
    np.testing.assert_allclose(shares, [0, 0.25, 0.5, 0.75, 1, 1], **tolerance("float32"))
    factor = np.prod(1 - 2 * 0.05 * 0.5 * np.array(shares))
    np.testing.assert_allclose(
        state.params["layer_0"]["W_hh"], factor * first["layer_0"]["W_hh"], **tolerance("float32")
    )


def test_lambda_of_a_schedule_is_an_axis_like_any_other():
    penalty, params = (
        P.scheduled(P.nuclear(), lambda n: jnp.minimum(n / 10, 1.0)),
        params_at("somewhere"),
    )
    state = penalty.init(params)._replace(count=jnp.int32(5))

    def total(lam):
        return lam * penalty.value(params, Context(outputs=None, train=True), state)[0]

    R = oracle("nuclear", params)
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(total)))(jnp.array([0.0, 2.0]))
    np.testing.assert_allclose(values, [0, R], **tolerance(loosen=10))
    np.testing.assert_allclose(slopes, [R / 2, R / 2], **tolerance(loosen=10))


# ---- bad input ------------------------------------------------------------------------------------------

VECTOR = {"layer_0": {"u": jnp.ones(3), "W_hh": jnp.eye(3), "W_xh": jnp.ones((2, 3))}}


@pytest.mark.parametrize("name", BY_PATH)
def test_a_leaf_of_the_wrong_rank_is_named(name):
    penalty = getattr(P, name)(paths="u")
    with pytest.raises(
        ValueError, match=r"about (square )?matrices, and 'layer_0/u' has the shape \(3,\)"
    ):
        penalty.covers(VECTOR, ["layer_0/u"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: P.group_lasso("gates"),
            "groups must be 'rows', 'columns' or 'units'; got 'gates'",
        ),
        (lambda: P.group_lasso(by_size=1), "by_size must be True or False"),
        (lambda: P.nuclear(every=0), "every must be at least 1"),
        (lambda: P.spectral_norm(num_iterations=0), "num_iterations must be at least 1"),
        (lambda: P.soft_orthogonality(norm="nuclear"), "norm must be 'frobenius' or 'spectral'"),
        (lambda: P.singular_value_margin(-0.1), r"margin must lie in \[0, 1\]; got -0.1"),
        (
            lambda: P.singular_value_margin(1.5),
            r"margin must lie in \[0, 1\]; got 1.5. .*no lower end",
        ),
        (lambda: P.to_identity(units=0.0), r"units must lie in \(0, 1\]; got 0.0"),
        (lambda: P.to_identity(units=1.5), r"units must lie in \(0, 1\]; got 1.5"),
        (lambda: P.to_identity(units=0), "units must be at least 1"),
        (lambda: P.to_identity(reduction="max"), "reduction must be 'sum' or 'mean'"),
        (lambda: P.path_norm(0), "num_steps must be at least 1"),
        (lambda: P.scheduled("l2", lambda n: 1.0), "penalty must be a Penalty"),
        (lambda: P.scheduled(P.l2(), 0.5), "schedule must be a function"),
        (
            lambda: P.scheduled(P.l2(), lambda n: jnp.ones(3)),
            r"one number; schedule\(0\) has the shape \(3,\)",
        ),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("penalty", "cell", "message"),
    [
        (P.to_identity(), "gru", r"square matrices, and 'layer_0/W_hh' has the shape \(4, 12\)"),
        (P.to_identity(units=5), "elman", "units=5 is more than the 4 units of 'layer_0/W_hh'"),
        (P.to_identity(bias="b_hh"), "elman", r"bias='b_hh' must name a vector \[4\] beside"),
        (
            P.non_normal("W_xh"),
            "elman",
            r"square matrices, and 'layer_0/W_xh' has the shape \(2, 4\)",
        ),
        (P.nuclear("W_hy", recurrent="W_hy"), "elman", None),
        (P.nuclear("layer_0/W_xh", recurrent="W_xh"), "elman", None),
        (P.path_norm(), "gru", "path_norm is about plain networks"),
        (P.group_lasso("units", paths="W_hy"), "elman", "no 'W_hh' stands beside"),
        (P.group_lasso("units", recurrent="W_xh"), "elman", None),
    ],
)
def test_penalties_that_do_not_fit_a_network_are_errors_before_anything_compiles(
    penalty, cell, message
):
    net = NETS[cell]
    shapes = jax.eval_shape(lambda key: net.init(key, 2), jax.random.key(0))
    if message is None:  # a divisible leaf that is called recurrent is taken at its word
        assert penalty.covers(shapes)
        return
    with pytest.raises(ValueError, match=message):
        penalty.covers(shapes)


def test_a_recurrent_matrix_without_square_blocks_is_named():
    with pytest.raises(ValueError, match=r"must be \[H, G·H\].* shape \(2, 3\).*recurrent=None"):
        P.nuclear()({"W_hh": jnp.ones((2, 3))})
    with pytest.raises(ValueError, match="columns must be those of its units"):
        P.group_lasso("units")({"W_xh": jnp.ones((2, 3)), "W_hh": jnp.eye(2)})
