"""The task of `lanes`, and each peer's best way of doing it: PyTorch twice, Keras, Flax, Equinox.

A peer is built from our parameters, so that all contenders compute the same losses and gradients. What it
may choose (threads, entry point) it chooses before the clock starts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rnnreg as rr
from experiments.benchmarks._measure import faster
from experiments.keras_gru.peer import keras_at
from rnnreg import convert

GATES = {"elman": 1, "gru": 3, "lstm": 4}
LEARNING_RATE = 1e-3


class Task(NamedTuple):
    """Loss and gradients of M networks on one batch.

    Attributes:
      cell: "elman", "gru" or "lstm".
      hidden: H.
      lanes: M, networks with weights of their own.
      batch: B, rows that all lanes share.
      time: T.
      inputs: D.
      outputs: O.
    """

    cell: str
    hidden: int
    lanes: int
    batch: int = 32
    time: int = 100
    inputs: int = 2
    outputs: int = 1

    @property
    def flops(self) -> float:
        """2 · 3 · M · T · B · H · (G·H + G·D + O): every product once forwards and twice backwards.

        >>> Task("gru", hidden=10, lanes=2, batch=3, time=5).flops
        66600.0
        """
        gates = GATES[self.cell]
        width = gates * self.hidden + gates * self.inputs + self.outputs
        return 6.0 * self.lanes * self.time * self.batch * self.hidden * width


class Problem(NamedTuple):
    """A task with its numbers.

    Attributes:
      task: the sizes.
      params: our parameters as NumPy arrays, each with a leading axis of M lanes.
      xs: `[B, T, D]`.
      ys: `[B, T, O]`.
      device: "cpu" or "gpu".
    """

    task: Task
    params: dict[str, Any]
    xs: np.ndarray
    ys: np.ndarray
    device: str

    def lane(self, number: int) -> dict[str, Any]:
        """The parameters of one lane."""
        return jax.tree.map(lambda leaf: leaf[number], self.params)


class Contender(NamedTuple):
    """Something to time.

    Attributes:
      who: "rnnreg", "torch_loop", …
      what: "gradient" (losses and gradients) or "step" (those and an update by SGD).
      plan: how it does it, in a few words.
      call: does it once; returns when the work is done.
    """

    who: str
    what: str
    plan: str
    call: Callable[[], Any]


class Entry(NamedTuple):
    """What a tool brings to a task.

    Attributes:
      contenders: to time.
      losses: `[M]` at the given parameters.
      recurrent: `[M, …]`, gradients of the weights that multiply h, in the tool's own layout; None where it
        does not give gradients away.
    """

    contenders: list[Contender]
    losses: np.ndarray
    recurrent: np.ndarray | None


def network(task: Task, **options: Any) -> rr.Network:
    """The network of a task, as rnnreg has it."""
    cell = getattr(rr.cells, task.cell)(task.hidden)
    return rr.network([cell], task.outputs, **options)


def make_problem(task: Task, *, device: str = "cpu", seed: int = 0) -> Problem:
    """Normal inputs and targets, and each lane's weights: normal of variance 1 / rows, zero biases."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    def draw(leaf):
        shape = (task.lanes, *leaf.shape)
        if leaf.ndim == 1:
            return np.zeros(shape, np.float32)
        return normal(*shape) / np.float32(np.sqrt(leaf.shape[0]))

    shapes = jax.eval_shape(lambda: network(task).init(jax.random.key(0), task.inputs))
    xs = normal(task.batch, task.time, task.inputs)
    ys = normal(task.batch, task.time, task.outputs)
    return Problem(task, jax.tree.map(draw, shapes), xs, ys, device)


# ---- PyTorch ------------------------------------------------------------------------------------


class _Part(NamedTuple):
    """Some of the lanes in PyTorch.

    Attributes:
      parameters: leaves.
      recurrent: those of them that multiply h, lanes first.
      backward: adds the gradients of all to `.grad`; returns the losses.
    """

    parameters: list[Any]
    recurrent: list[Any]
    backward: Callable[[], list[Any]]


def torch_loop(problem: Problem) -> Entry:
    """`nn.RNN`, `GRU` or `LSTM` and `nn.Linear`, a pair a lane, one lane after another."""
    torch = _torch(problem.device)
    task, place = problem.task, _torch_place(problem.device)
    kind = {"elman": "RNN", "gru": "GRU", "lstm": "LSTM"}[task.cell]
    xs, ys = _torch_data(torch, problem)

    def one_lane(number):
        params = problem.lane(number)
        rnn = getattr(torch.nn, kind)(task.inputs, task.hidden)
        head = torch.nn.Linear(task.hidden, task.outputs)
        state = convert.to_torch(params, task.cell)
        rnn.load_state_dict({name: torch.tensor(leaf) for name, leaf in state.items()})
        readout = params["readout"]
        weights = {"weight": np.ascontiguousarray(readout["W_hy"].T), "bias": readout["b_y"]}
        head.load_state_dict({name: torch.tensor(leaf) for name, leaf in weights.items()})
        return rnn.to(place), head.to(place)

    def part(numbers):
        pairs = [one_lane(number) for number in numbers]

        def backward():
            losses = []
            for rnn, head in pairs:
                loss = torch.nn.functional.mse_loss(head(rnn(xs)[0]), ys)
                loss.backward()
                losses.append(loss.detach())
            return losses

        parameters = [leaf for pair in pairs for module in pair for leaf in module.parameters()]
        return _Part(parameters, [rnn.weight_hh_l0 for rnn, _ in pairs], backward)

    return _torch_entry(torch, "torch_loop", problem, part, "one by one")


def torch_bmm(problem: Problem) -> Entry:
    """Written by hand: at each step one `baddbmm` over all lanes, the input projection hoisted out of the loop."""
    return _bmm(problem, "torch_bmm", compiled=False)


def torch_compile(problem: Problem) -> Entry:
    """The same through `torch.compile`, which unrolls the steps: a minute or more of compiling for each size."""
    return _bmm(problem, "torch_compile", compiled=True)


def _bmm(problem: Problem, who: str, *, compiled: bool) -> Entry:
    torch = _torch(problem.device)
    task, place = problem.task, _torch_place(problem.device)
    xs, ys = _torch_data(torch, problem)
    flat_xs = xs.reshape(1, task.time * task.batch, task.inputs)
    flat_ys = ys.reshape(1, task.time * task.batch, task.outputs)
    step = _BMM_STEPS[task.cell]

    def forward(W_xh, W_hh, b_h, W_hy, b_y, *b_hh):
        count = len(W_hh)
        x_proj = torch.baddbmm(b_h, flat_xs.expand(count, -1, -1), W_xh)
        x_proj = x_proj.reshape(count, task.time, task.batch, -1)
        h = torch.zeros(count, task.batch, task.hidden, device=place)
        state, states = (h, h), []
        for x in x_proj.unbind(1):
            state = step(torch, x, state, W_hh, *b_hh)
            states.append(state[0])
        hidden = torch.stack(states, dim=1).reshape(count, -1, task.hidden)
        return (torch.baddbmm(b_y, hidden, W_hy) - flat_ys).square().mean(dim=(1, 2))

    run = torch.compile(forward) if compiled else forward

    def part(numbers):
        def leaf(array):
            return torch.tensor(array[numbers], device=place, requires_grad=True)

        layer, readout = problem.params["layer_0"], problem.params["readout"]
        biases = [layer["b_h"], readout["b_y"], *([layer["b_hh"]] if "b_hh" in layer else [])]
        b_h, b_y, *b_hh = [leaf(bias[:, None]) for bias in biases]
        W_xh, W_hh, W_hy = leaf(layer["W_xh"]), leaf(layer["W_hh"]), leaf(readout["W_hy"])
        leaves = [W_xh, W_hh, b_h, W_hy, b_y, *b_hh]

        def backward():
            losses = run(*leaves)
            losses.sum().backward()
            return list(losses.detach())

        return _Part(leaves, [W_hh], backward)

    words = "compiled, all at once" if compiled else "all at once"
    return _torch_entry(torch, who, problem, part, words, divide=not compiled)


def _bmm_elman(torch, x, state, W_hh):
    h = torch.tanh(torch.baddbmm(x, state[0], W_hh))
    return h, h


def _bmm_gru(torch, x, state, W_hh, b_hh):
    h = state[0]
    size = h.shape[-1]
    h_proj = torch.baddbmm(b_hh, h, W_hh)
    gates = torch.sigmoid(x[..., : 2 * size] + h_proj[..., : 2 * size])
    r, z = gates.chunk(2, dim=-1)
    n = torch.tanh(torch.addcmul(x[..., 2 * size :], r, h_proj[..., 2 * size :]))
    h = torch.lerp(n, h, z)
    return h, h


def _bmm_lstm(torch, x, state, W_hh):
    h, c = state
    i, f, g, o = torch.baddbmm(x, h, W_hh).chunk(4, dim=-1)
    c = torch.addcmul(torch.sigmoid(i) * torch.tanh(g), torch.sigmoid(f), c)
    return torch.sigmoid(o) * torch.tanh(c), c


_BMM_STEPS = {"elman": _bmm_elman, "gru": _bmm_gru, "lstm": _bmm_lstm}


def _torch(device: str) -> Any:
    """PyTorch, in true float32."""
    import torch

    if device == "gpu" and not torch.cuda.is_available():
        raise ImportError("this PyTorch sees no CUDA device")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False  # on by default
    return torch


def _torch_place(device: str) -> str:
    return "cuda" if device == "gpu" else "cpu"


def _torch_data(torch: Any, problem: Problem) -> Iterator[Any]:
    """Inputs and targets, time first: what the modules work in."""
    for array in (problem.xs, problem.ys):
        time_first = np.ascontiguousarray(np.swapaxes(array, 0, 1))
        yield torch.from_numpy(time_first).to(_torch_place(problem.device))


def _torch_entry(
    torch: Any,
    who: str,
    problem: Problem,
    part: Callable[[Any], _Part],
    words: str,
    *,
    divide: bool = True,
) -> Entry:
    """Time the lanes in one thread with all cores inside, or a share of them in a thread a core; keep the faster.

    PyTorch's setting of threads is that of the calling thread, so each sets its own.
    """
    cores = rr.runtime.available_cores() if problem.device == "cpu" else 1
    numbers = np.arange(problem.task.lanes)

    def make(threads, what):
        parts = [part(rows) for rows in np.array_split(numbers, threads) if len(rows)]
        leaves = [leaf for one in parts for leaf in one.parameters]
        optimizer = torch.optim.SGD(leaves, lr=LEARNING_RATE, foreach=True)
        pool = ThreadPoolExecutor(threads) if threads > 1 else None

        def run(one):
            torch.set_num_threads(cores // threads)
            return one.backward()

        def call():
            optimizer.zero_grad(set_to_none=True)
            losses = [run(one) for one in parts] if pool is None else list(pool.map(run, parts))
            if what == "step":
                optimizer.step()
            if problem.device == "gpu":
                torch.cuda.synchronize()
            return losses

        return parts, call

    parts, call = make(1, "gradient")
    losses = np.array([float(loss) for one in call() for loss in one])
    found = [leaf.grad.detach().cpu().numpy() for one in parts for leaf in one.recurrent]
    recurrent = np.concatenate(found).reshape(len(numbers), *found[0].shape[-2:])

    contenders = []
    for what in ("gradient", "step"):
        calls = {f"{words}, {cores} threads inside": make(1, what)[1]}
        if problem.device == "gpu":
            calls = {words: make(1, what)[1]}
        elif divide and cores > 1 and len(numbers) > 1:
            calls[f"{words} in each of {cores} threads"] = make(cores, what)[1]
        plan = faster(calls)
        contenders.append(Contender(who, what, plan, calls[plan]))
    return Entry(contenders, losses, recurrent)


# ---- Keras --------------------------------------------------------------------------------------


def keras_fit(problem: Problem) -> Entry:
    """One compiled model into which each lane's weights are put in turn; `fit` or `train_on_batch`, the faster.

    Only a whole step: Keras gives no gradients away. Lanes run one after another on JAX's first device. A
    model a lane would be the usual way, and would compile once a lane.
    """
    keras = keras_at(np.float32)
    task, layers = problem.task, keras_at(np.float32).layers
    kind = {"elman": "SimpleRNN", "gru": "GRU", "lstm": "LSTM"}[task.cell]
    entrance = keras.Input((task.time, task.inputs), batch_size=task.batch)
    states = getattr(layers, kind)(task.hidden, return_sequences=True)(entrance)
    exit_ = layers.TimeDistributed(layers.Dense(task.outputs))(states)
    model = keras.Model(entrance, exit_)
    model.compile(optimizer=keras.optimizers.SGD(LEARNING_RATE), loss="mse", jit_compile=True)
    xs, ys = jnp.asarray(problem.xs), jnp.asarray(problem.ys)

    def weights(number):
        params = problem.lane(number)
        layer = convert.to_keras(params["layer_0"], task.cell)
        readout = params["readout"]
        return [jnp.array(leaf) for leaf in (*layer, readout["W_hy"], readout["b_y"])]

    def make(train):
        lanes = [weights(number) for number in range(task.lanes)]

        def call():
            losses = []
            for number, values in enumerate(lanes):
                for variable, value in zip(model.trainable_variables, values, strict=True):
                    variable.assign(value)
                losses.append(train())
                lanes[number] = [variable.value for variable in model.trainable_variables]
            jax.block_until_ready(lanes)
            return losses

        return call

    def fit():
        history = model.fit(
            xs, ys, batch_size=task.batch, epochs=1, shuffle=False, verbose=0
        ).history
        return history["loss"][0]

    calls = {"train_on_batch": make(lambda: model.train_on_batch(xs, ys)), "fit": make(fit)}
    losses = np.array([float(loss) for loss in calls["train_on_batch"]()])
    plan = faster(calls, trials=1)
    return Entry([Contender("keras", "step", plan, calls[plan])], losses, None)


# ---- Flax and Equinox -----------------------------------------------------------------------------


def flax_vmap(problem: Problem) -> Entry:
    """`nnx.RNN` of `SimpleCell`, `GRUCell` or `OptimizedLSTMCell` and `nnx.Linear`, in `vmap` over the lanes."""
    from flax import nnx

    task = problem.task
    kind = {"elman": "SimpleCell", "gru": "GRUCell", "lstm": "OptimizedLSTMCell"}[task.cell]
    style = "nnx_optimized" if task.cell == "lstm" else "nnx"

    class Model(nnx.Module):
        def __init__(self, rngs):
            cell = getattr(nnx, kind)(task.inputs, task.hidden, rngs=rngs)
            self.rnn = nnx.RNN(cell, time_major=True)
            self.head = nnx.Linear(task.hidden, task.outputs, rngs=rngs)

        def __call__(self, xs):
            states: Any = self.rnn(xs, rngs=nnx.Rngs(0))  # its own may not count inside a trace
            return self.head(states)

    graph, _, rest = nnx.split(Model(nnx.Rngs(0)), nnx.Param, ...)

    def one_lane(number):
        params = problem.lane(number)
        readout = {"kernel": params["readout"]["W_hy"], "bias": params["readout"]["b_y"]}
        cell = convert.to_flax(params["layer_0"], task.cell, style=style)
        return {"rnn": {"cell": cell}, "head": readout}

    def loss(lane, xs, ys):
        model = nnx.merge(graph, nnx.State(jax.tree.map(nnx.Param, lane)), rest)
        return jnp.mean(jnp.square(model(xs) - ys))

    lanes = _stack([one_lane(number) for number in range(task.lanes)])

    def recurrent(gradients):
        return gradients["rnn"]["cell"]["dense_h"]["kernel"]

    return _vmap_entry("flax", problem, lanes, loss, recurrent)


def equinox_vmap(problem: Problem) -> Entry:
    """`eqx.nn.GRUCell` or `LSTMCell` (an Elman cell by hand) in `lax.scan`, in `vmap` over batch and lanes."""
    import equinox as eqx

    task = problem.task

    class ElmanCell(eqx.Module):
        weight_ih: Any
        weight_hh: Any
        bias: Any

        def __call__(self, x, h):
            return jnp.tanh(self.weight_ih @ x + self.weight_hh @ h + self.bias)

    class Model(eqx.Module):
        cell: Any
        head: Any

        def __call__(self, xs):
            zeros = jnp.zeros((task.batch, task.hidden), xs.dtype)

            def step(state, x):
                state = jax.vmap(self.cell)(x, state)
                return state, state[0] if task.cell == "lstm" else state

            start = (zeros, zeros) if task.cell == "lstm" else zeros
            _, states = jax.lax.scan(step, start, xs)
            return jax.vmap(jax.vmap(self.head))(states)

    def one_lane(number):
        params = problem.lane(number)
        layer, readout = params["layer_0"], params["readout"]
        leaves = {"weight_ih": layer["W_xh"].T, "weight_hh": layer["W_hh"].T, "bias": layer["b_h"]}
        if task.cell == "elman":
            cell = ElmanCell(**leaves)
        else:
            kind = {"gru": eqx.nn.GRUCell, "lstm": eqx.nn.LSTMCell}[task.cell]
            cell = kind(task.inputs, task.hidden, key=jax.random.key(0))
            if task.cell == "gru":
                leaves["bias_n"] = layer["b_hh"][2 * task.hidden :]
            cell = eqx.tree_at(
                lambda cell: [getattr(cell, name) for name in leaves], cell, list(leaves.values())
            )
        head = eqx.nn.Linear(task.hidden, task.outputs, key=jax.random.key(0))
        head = eqx.tree_at(
            lambda head: (head.weight, head.bias), head, (readout["W_hy"].T, readout["b_y"])
        )
        return Model(cell, head)

    model = _stack([one_lane(number) for number in range(task.lanes)])
    lanes, static = eqx.partition(model, eqx.is_array)

    def loss(lane, xs, ys):
        return jnp.mean(jnp.square(eqx.combine(lane, static)(xs) - ys))

    return _vmap_entry("equinox", problem, lanes, loss, lambda model: model.cell.weight_hh)


def _stack(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *trees)


def _vmap_entry(
    who: str, problem: Problem, lanes: Any, loss: Callable[..., Any], recurrent: Callable[..., Any]
) -> Entry:
    """The contenders of a loss of one lane: `vmap` over the lanes, jitted, the step's parameters donated."""
    xs, ys = (jnp.asarray(np.swapaxes(array, 0, 1)) for array in (problem.xs, problem.ys))
    together = jax.vmap(jax.value_and_grad(loss), in_axes=(0, None, None))
    sgd = optax.sgd(LEARNING_RATE)
    gradient = jax.jit(together)

    def update(lanes, state, xs, ys):
        losses, gradients = together(lanes, xs, ys)
        updates, state = sgd.update(gradients, state, lanes)
        return optax.apply_updates(lanes, updates), state, losses

    step = jax.jit(update, donate_argnums=(0, 1))
    held = [jax.tree.map(jnp.copy, lanes), sgd.init(lanes)]

    def call_step():
        *held[:], losses = step(*held, xs, ys)
        jax.block_until_ready((held, losses))

    losses, gradients = gradient(lanes, xs, ys)
    return Entry(
        [
            Contender(
                who, "gradient", "vmap", lambda: jax.block_until_ready(gradient(lanes, xs, ys))
            ),
            Contender(who, "step", "vmap", call_step),
        ],
        np.asarray(losses),
        np.asarray(recurrent(gradients)),
    )


# ---- which there are ------------------------------------------------------------------------------


PEERS: dict[str, tuple[Callable[[Problem], Entry], ...]] = {
    "torch": (torch_loop, torch_bmm),
    "keras": (keras_fit,),
    "flax": (flax_vmap,),
    "equinox": (equinox_vmap,),
}


def find_missing(names: tuple[str, ...], device: str) -> dict[str, str]:
    """{peer: why it cannot take part} of those that cannot."""
    os.environ.setdefault("KERAS_BACKEND", "jax")  # read when keras is imported
    missing = {}
    for name in names:
        try:
            _load(name, device)
        except (ImportError, RuntimeError) as error:
            missing[name] = str(error)
    return missing


def _load(name: str, device: str) -> ModuleType:
    if name == "torch":
        return _torch(device)
    if name == "keras":
        return keras_at(np.float32)
    if name == "flax":
        from flax import nnx

        return nnx
    import equinox

    return equinox
