"""A linear network of one step, whose penalised fit is ridge regression, with its closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnreg as rr


def linear_net(size):
    """y = W x at the last step."""
    return rr.from_functions(
        lambda key: {"W": 0.3 * jax.random.normal(key, (size, 1))},
        lambda params, xs: xs[:, -1] @ params["W"],
        readout="last",
        output_size=1,
    )


def linear_train(size, num_epochs=60, **options):
    """Full-batch gradient descent on the mean squared error and λ‖W‖², with a step that converges."""
    defaults = {
        "loss": rr.losses.squared_error("mean"),
        "penalties": {"l2": rr.penalties.l2()},
        "optimizer": optax.sgd(0.15),
        "num_epochs": num_epochs,
    }
    return rr.make_train(linear_net(size), **(defaults | options))


def regression(num_rows, size, *, noise=1.0, seed=0, slope=0.5):
    """Rows of independent inputs, one step long, with target times in order."""
    rng = np.random.default_rng(seed)
    xs = rng.normal(size=(num_rows, size))
    ys = xs @ np.full(size, slope) + noise * rng.normal(size=num_rows)
    times = np.repeat(np.arange(num_rows, dtype=float)[:, None], 2, axis=1)
    dtype = jnp.result_type(float)
    batch = rr.Batch(jnp.asarray(xs[:, None], dtype), jnp.asarray(ys[:, None], dtype))
    return rr.Split(batch, target_times=times)


def ridge(batch, lam):
    """The minimiser of the mean squared error + λ‖W‖²."""
    xs, ys = (np.asarray(one, np.float64) for one in (batch.xs[:, -1], batch.ys))
    num, size = xs.shape
    return np.linalg.solve(xs.T @ xs / num + lam * np.eye(size), xs.T @ ys / num)


def squared(batch, weights):
    """The mean squared error of a linear fit."""
    xs, ys = (np.asarray(one, np.float64) for one in (batch.xs[:, -1], batch.ys))
    return float(np.mean((ys - xs @ weights) ** 2))


KEY = jax.random.key(0)
