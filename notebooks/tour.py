# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A tour of rnnreg
#
# An Elman network on the yearly sunspot numbers, from a hand-written training loop to a cross-validated λ, and then
# a look at what the penalty did to the weights and to the gradients that flow back through time.
#
# Settings are small, so that the tour takes less than a minute on two cores. The experiment at full size is
# `python -m experiments.lambda_sweep`.

# %%
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import rnnreg as rr

print("lanes can run on", rr.use_all_cores(), "core(s)")  # before the first array
key = jax.random.key(0)

# %% [markdown]
# ## 1. Data
#
# A `Split` holds training rows and named test sets. A row is a window of twelve years, and its target is the year
# that follows. The arrays are standardised on the training rows alone; `units` leads back to sunspot numbers.
# `target_times` says which years a row aims at: that is what a fold may not leak.

# %%
data = rr.datasets.sunspots(window=12, transform="sqrt")
print("training rows", data.train.xs.shape, "targets", data.train.ys.shape)
print("test sets", {name: len(batch.ys) for name, batch in data.test.items()})
print("first row aims at", data.target_times[0, 1], "and the last at", data.target_times[-1, 1])

# %% [markdown]
# ## 2. A network is two pure functions
#
# `init` gives a nested dict of arrays, and `apply` takes it. Nothing is hidden, so `jax.jit`, `jax.grad` and `jax.vmap`
# work on either. `readout="last"` reads the state after the last year of the window.

# %%
net = rr.network([rr.cells.elman(hidden_size=16)], output_size=1, readout="last")
params = net.init(key, input_size=1)
print(jax.tree.map(jnp.shape, params))
out = net.apply(params, data.train.xs)
print("outputs", out.outputs.shape, "states", out.states["layer_0"].h.shape)

# %% [markdown]
# ## 3. A training loop by hand
#
# `make_train` returns a record of functions. `train.update` is one step of gradient descent on
#
# $$L + \lambda \lVert W \rVert^2,$$
#
# the data loss plus the penalty. You jit it and call it, so the loop is yours to change. λ goes by the name of its
# penalty; all numbers that do not set a shape sit in one mapping, `hyper`. What `update` reports (`data_loss`, each
# penalty without its λ, the gradient's norm) was measured before the step.

# %%
loss = rr.losses.squared_error("mean")


def fit(optimizer, hyper, num_updates=200):
    train = rr.make_train(
        net, loss=loss, penalties={"l2": rr.penalties.l2()}, optimizer=optimizer, num_epochs=1
    )
    update = jax.jit(train.update)
    state = train.init(hyper, data.train, key=key)
    losses = []
    for _ in range(num_updates):
        state, info = update(state, data.train, hyper)
        losses.append(float(info.data_loss))
    print(f"data loss {info.data_loss:.3f}, ‖W‖² {info.penalties['l2']:.2f}")
    return state.params, losses


_, sgd_losses = fit(optax.sgd(0.05), {"l2": 1e-3})
_, adam_losses = fit(optax.adam(0.01), {"l2": 1e-3})

# %%
ax = rr.plotting.loss_curves(
    {
        "SGD, rate 0.05": (np.arange(0, 200, 20), sgd_losses[::20]),
        "Adam, rate 0.01": (np.arange(0, 200, 20), adam_losses[::20]),
    },
    xlabel="update",
    ylabel="data loss",
)
plt.show()

# %% [markdown]
# The same gradient step without the library, to see that nothing else happens: w ← w − α ∂(L + λ‖W‖²)/∂w, biases
# left out of the penalty.

# %%
step_train = rr.make_train(
    net, loss=loss, penalties={"l2": rr.penalties.l2()}, optimizer=optax.sgd(0.05), num_epochs=1
)
state = step_train.init({"l2": 1e-3}, data.train, key=key)
after, _ = jax.jit(step_train.update)(state, data.train, {"l2": 1e-3})


def objective(params):
    outputs = net.apply(params, data.train.xs).outputs
    matrices = (params["layer_0"]["W_xh"], params["layer_0"]["W_hh"], params["readout"]["W_hy"])
    return jnp.mean((outputs - data.train.ys) ** 2) + 1e-3 * sum(jnp.sum(W**2) for W in matrices)


gradient = jax.jit(jax.grad(objective))(state.params)
by_hand = jax.tree.map(lambda w, g: w - 0.05 * g, state.params, gradient)
gap = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), after.params, by_hand)
print("largest difference", max(jax.tree.leaves(gap)))
assert max(jax.tree.leaves(gap)) < 1e-6

# %% [markdown]
# ## 4. The whole run as one function
#
# The record itself is the run: every epoch in one scan, with a history. It is a pure function of `hyper`, data and
# key, so one compilation serves every λ and every learning rate. `optimizer` is a function of `hyper`, because the
# learning rate is a number of the run like any other.

# %%
train = rr.make_train(
    net,
    loss=loss,
    penalties={"l2": rr.penalties.l2()},
    optimizer=lambda hyper: optax.adam(hyper["learning_rate"]),
    num_epochs=200,
    record_every=20,
)
run_once = jax.jit(train)
for lam in (0.0, 1e-2):
    run = run_once({"l2": lam, "learning_rate": 1e-2}, data, key=key)
    print(
        f"λ = {lam:<5g} training loss {run.metrics['train_loss']:.3f}  "
        f"‖W‖² {run.metrics['penalty_l2']:7.2f}  "
        f"σ_max(W_hh) {run.metrics['sigma_max/layer_0/W_hh']:.2f}"
    )

# %% [markdown]
# The targets have variance 1, so a training loss of 0.04 leaves 4 % of it unexplained. The penalty makes the fit worse
# and the weights smaller. Which of the two networks has learnt noise?
#
# ## 5. A sweep: every λ, seed and fold in one program
#
# An axis is a list under its name; `learning_rate` is a single number, so it is no axis. The folds are blocks of
# consecutive target years. `refit=True` adds the fold `"all"`, which trains on all of 1700–1920. Ask first what a sweep
# would do:

# %%
grid = {"l2": [0.0, *np.geomspace(1e-4, 1e-1, 7)], "learning_rate": 1e-2}
options = {"seeds": 2, "folds": rr.selection.blocked_folds(4), "refit": True, "key": key}
print(rr.sweep(train, grid, data, dry_run=True, **options))

# %%
result = rr.sweep(train, grid, data, progress=False, **options)
print(result.plan)
print("compilations:", result.config["compilations"])
result.metrics[["train_loss", "val_loss", "penalty_l2", "diverged_at"]]

# %% [markdown]
# The result has the names of the axes as its dimensions, and a lane that diverged would be marked and not averaged
# away. Seeds differ only in their key, so that every λ starts from the same weights: differences along the path are
# paired.
#
# ## 6. Choosing λ
#
# `choose` follows glmnet: λ_min has the least mean error over folds, λ_1se is the largest λ within one standard error
# of it. Here a forecast will be the mean of the seeds, so that mean is what is scored.

# %%
choice = rr.selection.choose(result, combine="ensemble")
print(f"λ_min {choice.lam_min:.2g}, λ_1se {choice.lam_1se:.2g}, paired {choice.lam_paired_1se:.2g}")
for warning in choice.warnings:
    print("note:", warning)
ax = rr.plotting.cv_curve(result, choice, ylabel="validation loss of the mean forecast")
plt.show()

# %% [markdown]
# The grey curves are single folds. They lie far apart, since some blocks of years are harder than others; their shapes
# are much alike, though, and the paired rule compares each λ with λ_min inside every fold.
#
# ## 7. The refit
#
# `refit` trains the chosen λ on all training rows, or takes the lanes that did so already. `params_at` gives what
# `net.apply` takes. With it the network runs on from 1920, its own forecasts fed back as inputs, here on the scale that
# it learned, √(1 + x), and brought back to sunspot numbers.
#
# The test years stay closed in this tour. One look at them belongs to an experiment whose configuration was fixed
# before; that is `experiments.lambda_sweep`.

# %%
final = rr.selection.refit(train, result, choice, data, key=key)
params = final.params_at(seed=0)
start = data.test["1921-1955"].xs[:1]  # the twelve years up to 1920
run_on = jax.jit(lambda params: rr.forecast(net, params, start, 40, window=12)[0, :, 0])


def sunspot_numbers(values):
    return rr.datasets.inverse_sqrt(values * data.units.y_scale[0] + data.units.y_shift[0])


free = {
    f"free-running, λ = {lam:.2g}": sunspot_numbers(
        run_on(result.params_at(l2=lam, seed=0, fold="all"))
    )
    for lam in (0.0, choice.lam)
}
years, numbers = rr.datasets.sunspot_series()
past = (years >= 1860) & (years <= 1920)
ax = rr.plotting.forecast(
    years[past],
    numbers[past],
    {name: (np.arange(1921, 1961), values) for name, values in free.items()},
    xlabel="year",
    ylabel="sunspot number",
)
plt.show()

# %% [markdown]
# ## 8. What λ did
#
# To the weights: the norm of the recurrent matrix, its largest singular value σ_max and its spectral radius ρ, along
# the path. `spectra` takes stacked parameters with any axes in front, here λ, seed and fold. Below the dotted line a
# linear recurrence forgets (ρ < 1), and the gradient of a tanh network must vanish (σ_max < 1).

# %%
spectrum = rr.diagnostics.spectra(result.groups[0].params)["layer_0/W_hh"]
everything = list(result.metrics.fold.values).index("all")
norms = {
    name: values[:, :, everything, 0]  # [λ, seed]; the last axis counts gates
    for name, values in (
        (r"$\|W_{hh}\|_F$", spectrum.frobenius),
        (r"$\sigma_\mathrm{max}(W_{hh})$", spectrum.sigma_max),
        (r"$\rho(W_{hh})$", spectrum.rho),
    )
}
ax = rr.plotting.weight_norms(result.metrics.l2.values, norms)
plt.show()

# %% [markdown]
# To the gradients: `gradient_flow` follows ∂L/∂h from the last step of the window back in time. A straight line on
# this axis is an exponential rate. The steeper it falls, the shorter the memory that training can reach. The penalty
# that helps the forecast also costs memory: the sunspots need little of it, and other tasks need more.

# %%
lams = result.metrics.l2.values[[0, 2, 4, 6]]
flow_of = jax.jit(lambda params: rr.diagnostics.gradient_flow(net, loss, params, data.train))
flows = [flow_of(result.params_at(l2=lam, seed=0, fold="all")) for lam in lams]
ax = rr.plotting.gradient_flow(flows, lams=lams)
plt.show()

# %% [markdown]
# ## 9. Keeping a result
#
# One netCDF file holds metrics, parameters, the configuration, versions and a hash of the program. It has no pickle in
# it, and any netCDF tool can read it.

# %%
with tempfile.TemporaryDirectory() as folder:
    path = result.save(Path(folder) / "sunspots.nc")
    print(f"{path.stat().st_size / 1024:.0f} KiB")
    again = rr.load_result(path)
print(again.metrics.val_loss.sel(l2=1e-3, method="nearest").mean("seed").values.round(3))

# %% [markdown]
# ## 10. A penalty of your own
#
# A penalty never sees its λ, so it is only R. One that is a sum over elements is one line, here the sum of
# log(1 + w²), which lets large weights stand. One that looks at the states says so in `needs`; here it is the norm
# stabiliser of Krueger and Memisevic (2015), the mean of (‖h_t‖ − ‖h_{t−1}‖)².


# %%
def stabilizer_value(params, context, state):
    h = context.states["layer_0"].h  # [B, T, H]
    norm = jnp.sqrt(jnp.sum(jnp.square(h), axis=-1) + 1e-12)  # a gradient at h = 0 too
    return jnp.mean(jnp.square(norm[:, 1:] - norm[:, :-1])), state


penalties = {
    "cauchy": rr.penalties.elementwise(lambda w: jnp.log1p(jnp.square(w))),
    "stabilizer": rr.penalties.Penalty(
        init=lambda params: (), value=stabilizer_value, needs=frozenset({"states"})
    ),
}
own = rr.make_train(net, loss=loss, penalties=penalties, optimizer=optax.adam(1e-2), num_epochs=1)
update = jax.jit(own.update)
for strength in (0.0, 1.0):
    hyper = {"cauchy": 1e-3, "stabilizer": strength}
    state = own.init(hyper, data.train, key=key)
    for _ in range(100):
        state, info = update(state, data.train, hyper)
    values = {name: round(float(value), 3) for name, value in info.penalties.items()}
    print(f"λ = {strength:g}: data loss {info.data_loss:.3f}, penalties {values}")

# %% [markdown]
# ## 11. A cell of your own
#
# Any `step(params, state, x) -> state` is a cell. Here is a leaky integrator, h ← h + a (tanh(h W + x U + b) − h),
# whose rate a is learnt for each unit. Its weights carry the usual names, so `l2()` covers them and `spectra` finds
# them; the rate begins with `b_`, so penalties leave it alone unless they are asked.


# %%
def leaky(hidden_size):
    def init(key, input_size, dtype):
        weights = rr.cells.elman(hidden_size).init(key, input_size, dtype)
        return weights | {"b_rate": jnp.zeros(hidden_size, dtype)}

    def initial_state(batch_size, dtype=jnp.float32):
        return rr.cells.HiddenState(h=jnp.zeros((batch_size, hidden_size), dtype))

    def step(params, state, x):
        target = jnp.tanh(state.h @ params["W_hh"] + x @ params["W_xh"] + params["b_h"])
        rate = jax.nn.sigmoid(params["b_rate"])
        return rr.cells.HiddenState(h=state.h + rate * (target - state.h))

    return rr.cells.from_step(
        step, init=init, initial_state=initial_state, hidden_size=hidden_size, name="leaky"
    )


leaky_net = rr.network([leaky(16)], output_size=1, readout="last")
leaky_train = rr.make_train(
    leaky_net,
    loss=loss,
    penalties={"l2": rr.penalties.l2()},
    optimizer=optax.adam(1e-2),
    num_epochs=100,
)
leaky_run = jax.jit(leaky_train)({"l2": 3e-3}, data, key=key)
rates = jax.nn.sigmoid(leaky_run.params["layer_0"]["b_rate"])
print("covered:", rr.penalties.covered(rr.penalties.l2(), leaky_run.params))
print(f"training loss {leaky_run.metrics['train_loss']:.3f}")
print(f"rates from {rates.min():.2f} to {rates.max():.2f}")

# %% [markdown]
# From here: `CONTRIBUTING.md` has the map of the code and the recipes for a cell, a penalty, a dataset and an
# experiment that should stay.
