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
# # Vanishing and exploding gradients
#
# What a loss at step τ says about a step ℓ earlier is the vector ∂L_τ/∂h_{τ−ℓ}. It gets there through a product of ℓ
# Jacobians, and products shrink or grow exponentially. Here you watch it: first in networks whose answer is known on
# paper, then at initialisation, then in training, and last as a function of λ.
#
# The functions are pure, so `jax.jit` and `jax.vmap` are yours to apply. All of it takes less than a minute on two
# cores.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import rnnreg as rr
from rnnreg.diagnostics import decay_rate, gradient_flow, horizon, path_lengths

rr.use_all_cores()  # before the first array
key = jax.random.key(0)
loss = rr.losses.squared_error("mean")

# %% [markdown]
# ## 1. A product that is known on paper
#
# A linear network h ← h W with W = g Q, Q orthogonal, turns every gradient and scales it by g a step:
#
# $$r(\ell) = \frac{\lVert \partial L_\tau / \partial h_{\tau-\ell} \rVert}{\lVert \partial L_\tau / \partial h_\tau
# \rVert} = g^\ell.$$
#
# `gradient_flow` measures r. The gain is a number like any other, so one compiled function serves every g under `vmap`.

# %%
num_steps = 200
linear = rr.network([rr.cells.elman(8, activation=jax.nn.identity)], 1, readout="last")
linear_params = linear.init(key, input_size=1)  # orthogonal by default
batch = rr.Batch(
    jax.random.normal(key, (4, num_steps, 1)), jax.random.normal(jax.random.key(1), (4, 1))
)


def flow_of_gain(gain):
    layer = linear_params["layer_0"] | {"W_hh": gain * linear_params["layer_0"]["W_hh"]}
    return gradient_flow(linear, loss, linear_params | {"layer_0": layer}, batch)


gains = jnp.array([0.5, 0.9, 1.0, 1.1])
flows = jax.jit(jax.vmap(flow_of_gain))(gains)  # every leaf has the gains in front
for gain, log_ratio in zip(gains, flows.log_ratio["layer_0"], strict=True):
    print(
        f"g = {gain:.1f}: log10 r(199) = {log_ratio[199] / np.log(10):8.3f}, on paper {199 * np.log10(gain):8.3f}"
    )

# %% [markdown]
# At g = 0.5 only 10⁻⁶⁰ of the gradient is left. float32 ends at 10⁻³⁸, and plain autodiff would print 0. The
# gradient goes back one step at a time here, and its length is kept as a logarithm, so `log_ratio` has no end.

# %%
one_by_one = [jax.tree.map(lambda leaf, i=i: leaf[i], flows) for i in range(len(gains))]
ax = rr.plotting.gradient_flow(
    one_by_one, labels=[f"g = {gain:.1f}" for gain in gains], floor=1e-61
)
plt.show()

# %% [markdown]
# ## 2. The same by hand
#
# Nothing is hidden: h_{t+1} as a function of h_t is `cell_step`, its Jacobian is `jax.jacobian`, and the chain rule is
# a product. Here for a tanh network, whose Jacobians depend on where the states are.

# %%
net = rr.network([rr.cells.elman(8)], 1, readout="last")
params = net.init(jax.random.key(2), input_size=1)
step = rr.recurrence.cell_step(rr.cells.elman(8))
states = net.apply(params, batch.xs).states["layer_0"].h  # [B, T, H]


@jax.jit
def jacobian_at(h, x):  # ∂h_t/∂h_{t−1} of one example
    def advance(h):
        return step(params["layer_0"], rr.cells.HiddenState(h=h[None]), x[None]).h[0]

    return jax.jacobian(advance)(h)


flow = jax.jit(lambda params: gradient_flow(net, loss, params, batch))(params)
error = 2 * (net.apply(params, batch.xs).outputs[0] - batch.ys[0])
gradient = params["readout"]["W_hy"] @ error  # ∂L/∂h_τ of the first example
by_hand = [float(jnp.linalg.norm(gradient))]
for lag in range(20):
    t = num_steps - 1 - lag
    gradient = gradient @ jacobian_at(states[0, t - 1], batch.xs[0, t])
    by_hand.append(float(jnp.linalg.norm(gradient)))
np.testing.assert_allclose(flow.norms["layer_0"][0, :21], by_hand, rtol=1e-3)
print("twenty steps back, by hand and by gradient_flow:", by_hand[-1], flow.norms["layer_0"][0, 20])

# %% [markdown]
# ## 3. How fast, and how far
#
# `decay_rate` is the slope of ln r, with an error; `horizon` is the lag from which on r stays below a threshold.
# Several seeds are one more `vmap`: the error is then that between networks, not between sequences of one network.

# %%


def log_norms_of(params, scale):
    layer = params["layer_0"] | {"W_hh": scale * params["layer_0"]["W_hh"]}
    flow = gradient_flow(net, loss, params | {"layer_0": layer}, batch)
    return flow.log_norms["layer_0"]  # [B, T]


def networks(net, number=10):  # a tree of parameters with the seeds in front
    return jax.vmap(lambda seed: net.init(jax.random.fold_in(key, seed), 1))(jnp.arange(number))


log_norms_of_all = jax.jit(jax.vmap(log_norms_of, in_axes=(0, None)))
for scale in (0.8, 1.0, 1.5):
    log_norms = log_norms_of_all(networks(net), scale)  # [seed, B, T]
    rate, reach = decay_rate(log_norms, last=40), horizon(log_norms, threshold=1e-3)
    print(
        f"W = {scale} Q: ln r falls by {-rate.rate:.3f} ± {rate.se:.3f} a step; "
        f"r < 1e-3 from {np.nanmedian(reach.lag):.0f} steps on, {int(reach.censored.sum())} of 10 networks never"
    )

# %% [markdown]
# Noise enters at every step here, so a tanh unit is away from 0 where its slope is 1, and even W = 1.5 Q does not
# explode. Orthogonal weights keep a gradient only as long as the units are linear.
#
# ## 4. Cells at initialisation
#
# The same for the cells that people use. For the LSTM take `wrt="state"`: its memory c is not in h. A forget gate that
# starts at σ(0) = ½ halves it at each step; a bias of 1 makes that 0.73.

# %%
cells = {
    "tanh, Gaussian": rr.cells.elman(16, recurrent_init=rr.cells.gaussian(1.0)),
    "tanh, orthogonal": rr.cells.elman(16),
    "IRNN": rr.cells.irnn(16),
    "GRU": rr.cells.gru(16),
    "LSTM, b = 0": rr.cells.lstm(16, forget_bias=0.0),
    "LSTM, b = 1": rr.cells.lstm(16, forget_bias=1.0),
}
short = rr.Batch(batch.xs[:, :60], batch.ys)


def at_initialisation(cell):
    net = rr.network([cell], 1, readout="last")

    def flow_of(params):
        return gradient_flow(net, loss, params, short, wrt="state")

    return jax.jit(jax.vmap(flow_of))(networks(net))


ax = rr.plotting.gradient_flow(
    [at_initialisation(cell) for cell in cells.values()], labels=list(cells), floor=1e-20
)
plt.show()  # bands: one standard error over ten networks

# %% [markdown]
# ## 5. What reaches the weights
#
# Training does not see ∂L/∂h but ∂L/∂W, a sum over all lags. `path_lengths` takes it apart: G_ℓ is what comes from ℓ
# steps back, and the parts add up to the gradient that autodiff gives.

# %%
parts = jax.jit(lambda params: path_lengths(net, loss, params, short))(params)
gradient = jax.jit(jax.grad(lambda p: loss(net.apply(p, short.xs).outputs, short.ys)))(params)
gap = jnp.abs(parts.gradients.sum(axis=0) - gradient["layer_0"]["W_hh"]).max()
print(f"largest difference {gap:.1e}; shares of the first lags {parts.shares[:4].round(2)}")
assert gap < 1e-5
rr.plotting.path_lengths(parts)
plt.show()

# %% [markdown]
# ## 6. Training, and what λ does
#
# A task that needs memory: the first input is to be said again after twenty silent steps. `track` records ln r(ℓ) while
# the network learns; as part of a sweep it comes back with names on its axes.

# %%
lag = 20
values = jax.random.normal(jax.random.key(3), (32, 1))
recall = rr.Batch(jnp.zeros((32, lag + 1, 1)).at[:, 0].set(values), values)
small = rr.network([rr.cells.elman(16)], 1, readout="last")
train = rr.make_train(
    small,
    loss=loss,
    penalties={"l2": rr.penalties.l2()},
    optimizer=optax.adam(3e-3),
    num_epochs=400,
    record_every=10,
    track={"flow": rr.diagnostics.track_gradient_flow(loss)},
)
result = rr.sweep(train, {"l2": [0.0, 1e-2, 1e-1, 1.0]}, recall, seeds=2, key=key, progress=False)
for lam in result.metrics.l2.values:
    scores = result.metrics.train_loss.sel(l2=lam).values
    print(f"λ = {lam:<6g} loss {scores.round(4)}, variance of the target {values.var():.2f}")

# %%
rr.plotting.gradient_heat_map(result, floor=1e-6)
plt.show()

# %% [markdown]
# Blue is a gradient that vanishes, red one that explodes; white keeps it. A network that has learnt to recall keeps a
# gradient over all twenty steps. Where λ is too large there is nothing to recall with: the weights go to zero, and the
# gradient with them.
#
# The trained networks afterwards, all lanes in one call. `result.map` applies any function of the parameters to every
# lane, compiled once; the names of the sweep come first.

# %%
flow = result.map(
    lambda params: gradient_flow(small, loss, params, recall), dims={"log_ratio": ["lag"]}
)
last_lag = flow["log_ratio.layer_0"].isel(lag=lag)  # [l2, seed]
print((last_lag / np.log(10)).round(2).to_pandas())

# %% [markdown]
# From here: the flow of a loss at every step (`step=None` mixes all τ, and the plot says so), masks, stacked layers and
# cells of your own work the same way. `rr.diagnostics` has the rest.
