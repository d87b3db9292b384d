"""The compiled recurrence in programs: several devices, other platforms, exported ones, threads and interrupts."""

import concurrent.futures
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from recurrent_cases import (
    COMPILED,
    assert_close,
    draw,
    forget_programs,  # noqa: F401 - it works by being here
    kernel,  # noqa: F401 - as this does
    split,
    wave,
)
from recurrent_cases import EVERY as CASES

import rnnreg as rr
from rnnreg.recurrence import unroll

pytestmark = pytest.mark.numerics
every_kernel = pytest.mark.parametrize("name", COMPILED)


@functools.partial(jax.jit, static_argnums=0, static_argnames="backend")
def gradient(cell, given, mask, backend="native"):
    return jax.value_and_grad(wave)(given, cell, mask=mask, backend=backend)


# ---- several devices ------------------------------------------------------------------------------

DEVICES = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
sys.path.insert(0, "tests")
import jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from recurrent_cases import COMPILED, EVERY as CASES, HIDDEN, LONG, assert_close, draw, split, wave
equal = {}
for name in ("elman_tanh", "gru_reset_before", "lstm"):
    cases = [draw(CASES[name], seed=seed, radius=0.9, but=("mask",)) for seed in range(2)]
    tables = jax.tree.map(lambda *leaves: jnp.stack(leaves), *cases)
    each = jax.grad(lambda given: wave(given, CASES[name].cell, backend="native"))
    mesh = Mesh(np.array(jax.devices()), ("lanes",))
    lanes = lambda given: jax.vmap(each)(given)
    apart = jax.jit(jax.shard_map(lanes, mesh=mesh, in_specs=P("lanes"), out_specs=P("lanes"), check_vma=False))
    two, one = apart(tables), [jax.jit(each)(case) for case in cases]
    one = jax.tree.map(lambda *leaves: jnp.stack(leaves), *one)
    equal[name] = all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), two, one)))
    # with its check, shard_map knows that the gradient of what the devices share is a sum over them
    params = cases[0]["params"]
    rest = {one: value for one, value in tables.items() if one != "params"}
    def total(params, rest):
        given = jax.tree.map(lambda leaf: leaf[0], rest) | {"params": params}
        return jax.lax.psum(wave(given, CASES[name].cell, backend="native"), "lanes")
    specs = (P(), P("lanes"))
    shared = jax.shard_map(jax.grad(total), mesh=mesh, in_specs=specs, out_specs=P(), check_vma=True)
    each = lambda params, rest: wave(rest | {"params": params}, CASES[name].cell, backend="scan")
    sums = jax.grad(lambda params: jax.vmap(each, in_axes=(None, 0))(params, rest).sum())(params)
    for got, expected in zip(*map(jax.tree.leaves, (jax.jit(shared)(params, rest), sums))):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)

# rows divided over the devices, as the arguments of `jit` are
mesh = Mesh(np.array(jax.devices()), ("rows",))
axes = {"xs": 1, "perturbations": 1, "mask": 1, "state": 0, "recurrent_mask": 0}
def program_of(name, given, backend):
    def value(given, mask):
        return wave(given, CASES[name].cell, mask=mask, backend=backend)
    return jax.jit(jax.value_and_grad(value)).lower(*split(given)).compile()
whole = []
for name in COMPILED:
    given = draw(CASES[name], radius=0.9, batch=6)
    divided = {
        one: jax.device_put(value, NamedSharding(mesh, P(*[None] * axes[one], "rows") if one in axes else P()))
        for one, value in given.items()
    }
    program, alone = (program_of(name, each, "native") for each in (divided, given))
    assert_close(program(*split(divided)), alone(*split(given)))
    lines = [line for line in program.as_text().splitlines() if "rnnreg_recurrence" in line]
    whole += [f"[{LONG},6,{HIDDEN}]" in line for line in lines]
plain = program_of(name, divided, "scan").as_text()
whole += [f"[{LONG},6,{HIDDEN}]" in plain, f"[{LONG},3,{HIDDEN}]" in plain]
print(json.dumps([len(jax.devices()), equal, whole]))
"""


@pytest.mark.slow
def test_two_devices_give_what_one_gives():
    """Bit for bit and as a sum of what they share under `shard_map`; under `jit`, with its rows divided, as a whole.

    XLA cannot divide the call among the devices over which `jit` divides its arguments. It gathers all rows on each
    device, and each device computes them all: the values are right, and nothing is faster. backend="scan" is divided.
    """
    done = subprocess.run(
        [sys.executable, "-c", DEVICES],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    num_devices, equal, whole = json.loads(done.stdout)
    assert num_devices == 2
    assert equal == {"elman_tanh": True, "gru_reset_before": True, "lstm": True}
    assert whole == [True] * 2 * len(COMPILED) + [False, True]


# ---- other platforms, exported programs -----------------------------------------------------------


@every_kernel
def test_programs_for_accelerators_lower_without_the_kernel(name):
    given, mask = split(draw(CASES[name], radius=0.9))
    traced = gradient.trace(CASES[name].cell, given, mask)
    for platform, there in (("cuda", False), ("tpu", False), ("cpu", True)):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ("rnnreg_recurrence" in text) == there, platform


@pytest.mark.parametrize("platforms", [None, ("cuda",), ("cpu", "cuda", "tpu")])
def test_a_network_exports_without_the_kernel(platforms, key):
    """An exported program outlives this process and this machine, and so may hold no call of their library."""
    net = rr.network([rr.cells.elman(4), rr.cells.lstm(3)], 1, readout="last", backend="native")
    params, xs = net.init(key, 2), jax.random.normal(key, (3, 5, 2))

    @jax.jit
    def derivative(params, xs):
        outputs, pull = jax.vjp(lambda params: net.apply(params, xs).outputs, params)
        return outputs, pull(jnp.cos(outputs))

    exported = export.export(derivative, platforms=platforms)(params, xs)  # refuses unknown calls
    assert "rnnreg_recurrence" not in exported.mlir_module()
    assert "rnnreg_recurrence" in derivative.lower(params, xs).as_text()
    if "cpu" in exported.platforms:
        assert_close(jax.jit(exported.call)(params, xs), derivative(params, xs))


def test_a_network_exports_for_any_number_of_rows(key):
    net = rr.network([rr.cells.gru(4)], 1, readout="last", backend="native")
    params, xs = net.init(key, 2), jax.random.normal(key, (3, 5, 2))
    outputs = jax.jit(lambda params, xs: net.apply(params, xs).outputs)
    rows = jax.ShapeDtypeStruct(export.symbolic_shape("rows, 5, 2"), xs.dtype)
    exported = export.export(outputs)(params, rows)
    assert_close(jax.jit(exported.call)(params, xs), outputs(params, xs))


# ---- memory ---------------------------------------------------------------------------------------

LITTLE = """
import json, resource
from pathlib import Path
import jax, jax.numpy as jnp
import rnnreg as rr
from rnnreg.recurrence import unroll
cell = rr.cells.lstm(3000)
shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), 2))
params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
def last(params, xs):
    return unroll(cell, params, xs, cell.initial_state(2, xs.dtype), backend="native")[0].h
xs, told = jnp.ones((3, 1, 2, 2), params["W_hh"].dtype), []
lanes = jax.jit(jax.vmap(last, in_axes=(None, 0))).lower(params, xs).compile()
one = jax.jit(last).lower(params, xs[0]).compile()
jax.block_until_ready(params)
def size():
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
before = size()
for number in (before + 40 * 2**20, -1):
    resource.setrlimit(resource.RLIMIT_AS, (number, -1))
    for call, rows in ((lanes, xs), (one, xs[0])):
        try:
            told.append(float(call(params, rows).max()))
        except Exception as error:
            told.append(str(error))
print(json.dumps([*told, (size() - before) / 2**20]))
"""


@pytest.mark.float32_only
@pytest.mark.skipif(sys.platform != "linux", reason="counts the memory of a process as Linux does")
def test_without_memory_a_call_raises_and_the_process_goes_on():
    """On the threads of lanes and on that of the caller: neither may end the process."""
    environment = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}  # which would copy weights
    done = subprocess.run(
        [sys.executable, "-c", LITTLE], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr
    *failed, lanes, one, grown = json.loads(done.stdout)
    assert all("RESOURCE_EXHAUSTED: the compiled recurrence" in text for text in failed), failed
    assert [lanes, one] == [0.0, 0.0]
    assert grown < 100  # MiB: weights that were copied, 144 a thread, are given back


# ---- threads and interrupts -----------------------------------------------------------------------


def test_two_threads_at_once_get_what_each_gets_alone():
    """Of other cells and sizes, alone and in lanes, each with scratch memory of its own."""
    jobs = []
    for name, batch in (("gru", 50), ("lstm", 21)):
        given, mask = split(draw(CASES[name], batch=batch, steps=60, radius=0.9))
        given["params"] = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf / 2]), given["params"])
        axes = ({one: 0 if one == "params" else None for one in given}, None)
        each = functools.partial(gradient, CASES[name].cell)
        lanes = jax.jit(jax.vmap(each, in_axes=axes)).lower(given, mask).compile()
        jobs.append((lanes, given, mask, jax.device_get(lanes(given, mask))))
    start = threading.Barrier(2)

    def work(job):
        call, given, mask, alone = job
        start.wait(60)
        for _ in range(40):
            jax.tree.map(np.testing.assert_array_equal, jax.device_get(call(given, mask)), alone)

    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        list(threads.map(work, jobs, timeout=120))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to itself")
def test_an_interrupt_waits_for_the_call_and_breaks_nothing(key):
    cell, dtype = rr.cells.elman(128), jnp.result_type(float)
    xs, start = jnp.ones((1000, 100, 1), dtype), cell.initial_state(100, dtype)
    params = cell.init(key, 1, dtype)
    call = jax.jit(lambda xs: unroll(cell, params, xs, start, backend="native"))
    expected = jax.device_get(call(xs))
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - it may come a little later
            jax.block_until_ready(call(xs))
            time.sleep(60)
    finally:
        signal.signal(signal.SIGINT, usual)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(call(xs)), expected)
