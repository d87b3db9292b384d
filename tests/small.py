"""Small runs that several test files share: a noisy sine in windows, and an Elman network of four units."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnreg as rr
from rnnreg.data import stack_folds, take_fold

HYPER = {"l2": 1e-2, "learning_rate": 1e-2}


def sine(num=40, *, window=4, targets="last", dtype=None):
    """A split of a noisy sine, without folds or test sets."""
    rng = np.random.default_rng(0)
    series = np.sin(0.7 * np.arange(num)) + 0.3 * rng.normal(size=num)
    batch, target_times = rr.data.windows(series, window=window, targets=targets)
    dtype = jnp.result_type(float) if dtype is None else dtype
    batch = rr.Batch(jnp.asarray(batch.xs, dtype), jnp.asarray(batch.ys, dtype))
    return rr.Split(batch, target_times=target_times)


def held_out(split, num_train):
    """The split with its last rows as validation rows."""
    first, rest = np.arange(num_train), np.arange(num_train, len(split.train.ys))
    return split.replace(
        train=rr.data.take_rows(split.train, first),
        validation=rr.data.take_rows(split.train, rest),
        target_times=split.target_times[:num_train],
    )


def make(net=None, **options):
    """A run of `net` with SGD at `hyper["learning_rate"]` and λ‖W‖², unless options say otherwise."""
    net = rr.network([rr.cells.elman(4)], 1, readout="last") if net is None else net
    defaults = {
        "loss": rr.losses.squared_error("mean"),
        "penalties": {"l2": rr.penalties.l2()},
        "optimizer": lambda hyper: optax.sgd(hyper["learning_rate"]),
        "num_epochs": 6,
    }
    return rr.make_train(net, **(defaults | options))


def fold_of(pairs, split, number, *, include_all=False):
    """The split that one fold trains on, as arrays."""
    folds, _ = stack_folds(pairs, split, include_all=include_all)
    fold = jax.tree.map(lambda leaf: jnp.asarray(leaf[number]), folds)
    return take_fold(split.replace(test={}, target_times=None), fold)


def assert_same(one, two):
    """Both trees are equal bit for bit."""
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


class Counted:
    """A network that counts how often its `apply` was traced."""

    def __init__(self, net):
        self.count = 0

        def apply(*args, **options):
            self.count += 1
            return net.apply(*args, **options)

        self.net = net._replace(apply=apply)
