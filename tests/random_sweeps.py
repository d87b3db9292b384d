"""Random small sweeps: a shape from one number, the numbers in it from another, so that many sweeps share a program."""

from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import rnnreg as rr
from rnnreg._tree import leaf_paths

CELLS = {
    "elman": rr.cells.elman,
    "relu": lambda size: rr.cells.elman(size, activation="relu"),
    "irnn": rr.cells.irnn,
    "gru": rr.cells.gru,
    "gru, reset before": lambda size: rr.cells.gru(size, reset="before"),
    "lstm": rr.cells.lstm,
    "layer_norm": lambda size: rr.cells.layer_norm(rr.cells.gru(size)),
    "orthogonal": lambda size: rr.parametrizations.orthogonal(rr.cells.elman(size)),
}
OPTIMIZERS = {
    "sgd": optax.sgd,
    "momentum": lambda rate: optax.sgd(rate, 0.9),
    "adam": optax.adam,
    "clipped": lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(rate)),
}
PENALTIES = {
    "l2": rr.penalties.l2,
    "l1": lambda: rr.penalties.l1("W_*"),
    "activation": rr.penalties.activation,
    "soft_orthogonality": rr.penalties.soft_orthogonality,
}
PLANS = {
    "one_by_one": {"plan": "one_by_one"},
    "chunks": {"plan": "chunks", "chunk": 2, "width": 2},
    "vmap": {"plan": "vmap", "width": 3},
}
DIVERGES = 1e30  # a learning rate


class Shape(NamedTuple):
    """What sets shapes and picks code: one program.

    Attributes:
      train: the run.
      sizes: rows, steps, features.
      readout: "last" or "all".
      masked: whether there is a mask.
      weighted: None, "rows" or "steps".
      folds: pairs of rows; None without.
      validates: whether there is a validation set.
      zipped: whether λ and dropout change together.
      plan: its name.
      words: what was drawn, for messages.
    """

    train: Any
    sizes: tuple[int, int, int]
    readout: str
    masked: bool
    weighted: str | None
    folds: Any
    validates: bool
    zipped: bool
    plan: str
    words: str


def shape_of(number: int, plan: str | None = None) -> Shape:
    """The shape with a number."""
    rng = np.random.default_rng([20240229, number])

    def pick(options):
        options = list(options)
        return options[rng.integers(len(options))]

    folds = pick([None, None, 2, 3])
    rows, steps = int(rng.integers(1 if folds is None else 2 * folds, 10)), int(rng.integers(1, 6))
    features, readout = int(rng.integers(1, 3)), pick(["last", "all"])
    names = [pick(CELLS) for _ in range(pick([1, 1, 2]))]
    sizes = [int(rng.integers(1, 5)) for _ in names]
    cells = [CELLS[name](size) for name, size in zip(names, sizes, strict=True)]
    stochastic = pick(["nothing", "nothing", "dropout", "recurrent dropout", "noise"])
    if stochastic == "recurrent dropout" and any(cell.gate is None for cell in cells):
        stochastic = "dropout"
    options = {
        "nothing": {},
        "dropout": {"output_dropout": 0.3, "variational": pick([False, True])},
        "recurrent dropout": {"recurrent_dropout": 0.3},
        "noise": {"noise": rr.Noise(zoneout=0.2, recurrent_noise=0.1)},
    }[stochastic]
    zipped = stochastic == "dropout" and pick([False, True])
    if zipped:
        options.pop("output_dropout")

        def net(hyper):
            dropout = {"output_dropout": hyper["dropout"]}
            return rr.network(cells, 1, readout=readout, **options, **dropout)

    else:
        net = rr.network(cells, 1, readout=readout, **options)
    optimizer, penalty = pick(OPTIMIZERS), pick(PENALTIES)
    least = rows if folds is None else rows - -(-rows // folds)
    batch_size = pick([None, int(rng.integers(1, least + 1))])
    validates = folds is None and pick([False, True])
    scored = validates or folds is not None
    train = rr.make_train(
        net,
        loss=rr.losses.squared_error("mean"),
        penalties={"lam": PENALTIES[penalty]()},
        optimizer=lambda hyper: OPTIMIZERS[optimizer](hyper["learning_rate"]),
        num_epochs=2,
        batch_size=batch_size,
        keep_best=scored and pick([False, True]),
        proximal=penalty in ("l1", "l2") and pick([False, True]),
    )
    pairs = None
    if folds is not None:
        parts = np.array_split(rng.permutation(rows), folds)
        pairs = [(np.setdiff1d(np.arange(rows), part), np.sort(part)) for part in parts]
    masked, weighted = pick([False, True]), pick([None, "rows"] + ["steps"] * (readout == "all"))
    plan = plan or pick(PLANS)
    words = f"{names} of {sizes}, {readout}, {rows}×{steps}×{features}, {stochastic}, {optimizer}, {penalty}, "
    words += f"batches of {batch_size}, {folds} folds, mask {masked}, weights {weighted}, {plan}"
    size = (rows, steps, features)
    return Shape(train, size, readout, masked, weighted, pairs, validates, zipped, plan, words)


class Numbers(NamedTuple):
    """What is in a sweep of a shape.

    Attributes:
      data: the rows.
      grid: its axes.
      seeds: its seeds.
      key: its key.
    """

    data: rr.Split
    grid: dict[str, Any]
    seeds: list[int]
    key: Any


def numbers_of(shape: Shape, seed: int) -> Numbers:
    """The numbers in a sweep that a seed draws."""
    rng = np.random.default_rng(seed)
    lams = [0.0, *np.round(10 ** rng.uniform(-4, -0.5, rng.integers(1, 3)), 6)]
    rates = float(np.round(10 ** rng.uniform(-3, -1), 6))
    if shape.zipped:
        dropout = np.round(rng.uniform(0, 0.5, len(lams)), 3)
        grid = {"pair": rr.zipped(lam=lams, dropout=dropout), "learning_rate": [rates]}
    else:
        grid = {"lam": lams, "learning_rate": [rates]}
    seeds = rng.choice(100, rng.integers(1, 3), replace=False).tolist()
    validation = _batch(shape, rng) if shape.validates else None
    split = rr.Split(_batch(shape, rng), validation=validation)
    return Numbers(split, grid, seeds, jax.random.key(int(rng.integers(2**31))))


def _batch(shape: Shape, rng) -> rr.Batch:
    rows, steps, features = shape.sizes
    xs = rng.normal(size=(rows, steps, features)).astype(np.float32)
    ys = rng.normal(size=(rows, steps, 1) if shape.readout == "all" else (rows, 1))
    mask = weights = None
    if shape.masked:
        mask = rng.random((rows, steps)) < 0.7
        mask[np.arange(rows), rng.integers(steps, size=rows)] = True
        mask = mask.astype(np.float32)
    if shape.weighted is not None:
        size = (rows, steps) if shape.weighted == "steps" else rows
        weights = rng.uniform(0.5, 2.0, size).astype(np.float32)
    return rr.Batch(xs, ys.astype(np.float32), mask, weights)


def larger(numbers: Numbers, seed: int) -> tuple[Numbers, dict[str, list[int]]]:
    """The sweep among more lanes, one of which diverges; and where the old labels of each dimension are in it."""
    rng, grid, where = np.random.default_rng(seed), {}, {}
    for name, axis in numbers.grid.items():
        if name == "learning_rate":
            grid[name], where[name] = _mixed(axis, [DIVERGES], rng)
        elif name == "pair":
            more = {"lam": [10.0, 1e-5], "dropout": [0.1, 0.9]}
            both = list(zip(*axis.values.values(), strict=True))
            mixed, where[name] = _mixed(both, list(zip(*more.values(), strict=True)), rng)
            grid[name] = rr.zipped(**dict(zip(axis.values, zip(*mixed, strict=True), strict=True)))
        else:
            grid[name], where[name] = _mixed(axis, [10.0], rng)
    seeds, where["seed"] = _mixed(numbers.seeds, [100 + int(rng.integers(2**31))], rng)
    return numbers._replace(grid=grid, seeds=seeds), where


def _mixed(old, new, rng) -> tuple[list[Any], list[int]]:
    """Both lists in a random order, and the places of the old ones."""
    both = [*old, *new]
    order = rng.permutation(len(both)).tolist()
    return [both[place] for place in order], [order.index(place) for place in range(len(old))]


def garbled(shape: Shape, numbers: Numbers, seed: int) -> Numbers:
    """The sweep with other numbers at the steps that are masked."""
    rng = np.random.default_rng(seed)

    def other(batch):
        if batch is None or batch.mask is None:
            return batch
        masked = batch.mask[..., None] == 0
        noise = [rng.normal(scale=1e3, size=each.shape) for each in (batch.xs, batch.ys)]
        xs = np.where(masked, noise[0], batch.xs).astype(np.float32)
        all_steps = shape.readout == "all"
        ys = np.where(masked, noise[1], batch.ys).astype(np.float32) if all_steps else batch.ys
        return batch._replace(xs=xs, ys=ys)

    data = numbers.data
    changed = data.replace(train=other(data.train), validation=other(data.validation))
    return numbers._replace(data=changed)


def run(shape: Shape, numbers: Numbers) -> rr.SweepResult:
    """The sweep."""
    return rr.sweep(
        shape.train,
        numbers.grid,
        numbers.data,
        seeds=numbers.seeds,
        key=numbers.key,
        folds=shape.folds,
        progress=False,
        **PLANS[shape.plan],
    )


def lanes(result: rr.SweepResult, where: dict[str, list[int]] | None = None) -> dict[str, Any]:
    """Every number of a result by name, its dimensions in front; of the given places along them."""
    metrics = result.metrics.isel(where or {})
    dims = [dim for dim in result.dims if dim in metrics["finished"].dims]
    found = {
        name: one.transpose(*dims, ...).values
        for name, one in metrics.items()
        if set(dims) <= set(one.dims)
    }
    group = result.groups[0]
    kept = {"params": group.params} | (
        {} if group.predictions is None else {"predictions": group.predictions}
    )
    for path, leaf in leaf_paths(kept).items():
        leaf = np.asarray(leaf)
        for axis, dim in enumerate(dims):
            leaf = leaf if where is None or dim not in where else leaf.take(where[dim], axis)
        found[path] = leaf
    return found
