"""A function over every lane of a sweep: labelled, compiled once, and equal to a loop over `params_at`."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import SEED, tolerance
from sklearn.model_selection import KFold
from small import make, sine

import rnnreg as rr

KEY = jax.random.key(SEED)
NET = rr.network([rr.cells.elman(4)], 1, readout="last")
LOSS = rr.losses.squared_error("mean")
GRID = {"l2": [0.0, 1e-2, 1.0], "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def result():
    options = {"seeds": 2, "folds": KFold(2), "key": KEY, "progress": False}
    return rr.sweep(make(NET, num_epochs=2), GRID, sine(), **options)


@pytest.fixture
def programs(monkeypatch):
    """The programs that are compiled from now on."""
    made, module = [], importlib.import_module("rnnreg.sweeps._map")

    class Program(module.Program):
        def __init__(self, *arguments, **options):
            made.append(self)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(module, "Program", Program)
    return made


def flow_of(params):
    return rr.diagnostics.gradient_flow(NET, LOSS, params, sine().train)


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["auto", "one_by_one", "vmap"])
def test_the_flow_of_a_whole_sweep_is_that_of_each_lane(result, plan, programs):
    dims = {"log_ratio": ["lag"], "log_norms": ["row", "lag"], "lags": ["lag"]}
    mapped = result.map(flow_of, dims=dims, plan=plan)
    assert len(programs) == 1
    assert mapped["log_ratio.layer_0"].dims == ("l2", "seed", "fold", "lag")
    assert mapped["log_norms.layer_0"].dims == ("l2", "seed", "fold", "row", "lag")
    assert mapped["vanished.layer_0"].dims[-1] == "vanished.layer_0.0"
    assert mapped.l2.values.tolist() == GRID["l2"]
    assert mapped.fold.values.tolist() == ["0", "1"]
    alone = jax.jit(flow_of)
    for lam in GRID["l2"]:
        for seed in (0, 1):
            for fold in ("0", "1"):
                where = {"l2": lam, "seed": seed, "fold": fold}
                one = alone(result.params_at(**where))
                for name in ("log_ratio", "log_norms", "ratio", "vanished"):
                    found = mapped[f"{name}.layer_0"].sel(where)
                    np.testing.assert_allclose(
                        found, getattr(one, name)["layer_0"], **tolerance(loosen=10)
                    )
    assert bool(mapped.finished.all())


def test_a_lone_array_is_the_value(result):
    mapped = result.map(lambda params: jnp.sum(jnp.square(params["layer_0"]["W_hh"])))
    expected = result.metrics["norm.layer_0.W_hh"] ** 2
    np.testing.assert_allclose(mapped["value"], expected, **tolerance(loosen=10))
    one = result.select(seed=1, fold="0")
    part = one.map(lambda params: params["layer_0"]["W_hh"], dims={"value": ["from", "to"]})
    assert part.value.dims == ("l2", "from", "to")
    where = {"l2": 1e-2}
    np.testing.assert_array_equal(part.value.sel(where), one.params_at(**where)["layer_0"]["W_hh"])
    last = one.select(l2=1e-2).map(lambda params: params["layer_0"]["W_hh"][0, 0])
    assert last.value.shape == ()
    assert float(last.value) == float(part.value.sel(where)[0, 0])


@pytest.mark.slow
def test_static_axes_compile_once_each(programs):
    def net_of(static):
        return rr.network([rr.cells.elman(static["size"])] * static["depth"], 1, readout="last")

    result = rr.sweep(
        lambda static: make(net_of(static), num_epochs=1),
        GRID,
        sine(),
        static={"depth": [1, 2], "size": [2, 3]},
        key=KEY,
        progress=False,
    )

    def flow_of(static):
        net, batch = net_of(static), sine().train
        return lambda params: rr.diagnostics.gradient_flow(net, LOSS, params, batch).log_ratio

    mapped = result.map(flow_of, dims={"layer_0": ["lag"], "layer_1": ["lag"]})
    assert len(programs) == 4
    assert mapped.layer_0.dims == ("depth", "size", "l2", "seed", "lag")
    assert np.isnan(mapped.layer_1.sel(depth=1)).all()
    static = {"depth": 2, "size": 3}
    one = flow_of(static)(result.params_at(**static, l2=1e-2))
    found = mapped.layer_1.sel(static).sel(l2=1e-2, seed=0)
    np.testing.assert_allclose(found, one["layer_1"], **tolerance(loosen=10))
    with pytest.raises(ValueError, match="give a function of them that returns"):
        result.map(lambda params: jnp.zeros(3))


def test_unfinished_lanes_are_nan_and_diverged_ones_are_marked():
    train = make(NET, num_epochs=2, optimizer=lambda hyper: optax.sgd(hyper["learning_rate"]))
    with pytest.warns(RuntimeWarning, match="1 of 2 lanes diverged"):
        result = rr.sweep(
            train, {"l2": 0.0, "learning_rate": [1e-2, 1e30]}, sine(), key=KEY, progress=False
        )
    metrics = result.metrics.copy()
    metrics["finished"] = (("learning_rate", "seed"), np.array([[False], [True]]))
    cut = type(result)(metrics, result.groups, result.config, result.plan)
    mapped = cut.map(lambda params: {"norm": jnp.max(jnp.abs(params["layer_0"]["W_hh"]))})
    assert np.isnan(mapped.norm[0, 0])
    assert np.isfinite(mapped.norm[1, 0])
    assert (mapped.diverged_at[1] >= 0).all()


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ({"b": ["l2"]}, "b has shape .4,. and so needs 1 names that the sweep does not have"),
        ({"b": ["lag", "other"]}, "so needs 1 names"),
        ({"b": ["lag"], "c": ["lag"]}, "c has 5 along 'lag', and another array has 4"),
        ({"d": ["lag"]}, "dims names 'd', and the function returns"),
    ],
)
def test_names_that_do_not_fit_are_refused(result, dims, message):
    with pytest.raises(ValueError, match=message):
        result.map(lambda params: {"b": params["layer_0"]["b_h"], "c": jnp.zeros(5)}, dims=dims)
