"""PyTorch's best ways: its own modules lane by lane, and products of all lanes written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

import rnnreg as rr
from experiments.benchmarks._measure import faster
from experiments.benchmarks.lanes.problem import LEARNING_RATE, Contender, Entry, Problem
from rnnreg import convert


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
    torch = load(problem.device)
    task, place = problem.task, _place(problem.device)
    kind = {"elman": "RNN", "gru": "GRU", "lstm": "LSTM"}[task.cell]
    xs, ys = _data(torch, problem)

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

    return _entry(torch, "torch_loop", problem, part, "one by one")


def torch_bmm(problem: Problem) -> Entry:
    """Written by hand: at each step one `baddbmm` over all lanes, the input projection hoisted out of the loop."""
    torch = load(problem.device)
    task, place = problem.task, _place(problem.device)
    xs, ys = _data(torch, problem)
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

    def part(numbers):
        def leaf(array):
            return torch.tensor(array[numbers], device=place, requires_grad=True)

        layer, readout = problem.params["layer_0"], problem.params["readout"]
        biases = [layer["b_h"], readout["b_y"], *([layer["b_hh"]] if "b_hh" in layer else [])]
        b_h, b_y, *b_hh = [leaf(bias[:, None]) for bias in biases]
        W_xh, W_hh, W_hy = leaf(layer["W_xh"]), leaf(layer["W_hh"]), leaf(readout["W_hy"])
        leaves = [W_xh, W_hh, b_h, W_hy, b_y, *b_hh]

        def backward():
            losses = forward(*leaves)
            losses.sum().backward()
            return list(losses.detach())

        return _Part(leaves, [W_hh], backward)

    return _entry(torch, "torch_bmm", problem, part, "all at once")


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


def load(device: str) -> Any:
    """PyTorch, in true float32."""
    import torch

    if device == "gpu" and not torch.cuda.is_available():
        raise ImportError("this PyTorch sees no CUDA device")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False  # on by default
    return torch


def _place(device: str) -> str:
    return "cuda" if device == "gpu" else "cpu"


def _data(torch: Any, problem: Problem) -> Iterator[Any]:
    """Inputs and targets, time first: what the modules work in."""
    for array in (problem.xs, problem.ys):
        time_first = np.ascontiguousarray(np.swapaxes(array, 0, 1))
        yield torch.from_numpy(time_first).to(_place(problem.device))


def _entry(torch: Any, who: str, problem: Problem, part: Callable[[Any], _Part], words: str) -> Entry:
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
        elif cores > 1 and len(numbers) > 1:
            calls[f"{words} in each of {cores} threads"] = make(cores, what)[1]
        plan = faster(calls)
        contenders.append(Contender(who, what, plan, calls[plan]))
    return Entry(contenders, losses, recurrent)
