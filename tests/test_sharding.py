"""One large network over a mesh: equal to the unsharded one up to rounding, and its weights stay in parts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

SHARDED = """
import json, re, sys
import jax, numpy as np, optax
jax.config.update("jax_default_matmul_precision", "highest")
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from small import make, sine
import rnnreg as rr

shape, backend = json.loads(sys.argv[1]), sys.argv[2]
mesh = Mesh(np.array(jax.devices()).reshape(shape), ("rows", "hidden"))
net = rr.network([rr.cells.gru(4), rr.cells.elman(4)], 1, readout="last", backend=backend)
train = make(net, optimizer=lambda hyper: optax.adam(hyper["learning_rate"]))
batch, hyper = sine().train, {"l2": 1e-2, "learning_rate": 1e-2}


def columns(leaf):
    wide = leaf.ndim == 2 and leaf.shape[-1] % mesh.shape["hidden"] == 0
    return NamedSharding(mesh, PartitionSpec(None, "hidden") if wide else PartitionSpec())


start = jax.jit(train.init)(hyper, batch, key=jax.random.key(0))
update, apply = jax.jit(train.update), jax.jit(net.apply)


def trained(state, batch):
    for _ in range(2):
        state, info = update(state, hyper, batch)
    return state, apply(state.params, batch.xs).outputs


parts = jax.device_put(start, jax.tree.map(columns, start))
rows = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("rows")))
alone, outputs = trained(start, batch)
state, outputs_of_parts = trained(parts, rows)
apart = jax.tree.map(lambda a, b: float(abs(np.asarray(a) - np.asarray(b)).max()),
                     (alone.params, outputs), (state.params, outputs_of_parts))
W, moment = (tree["layer_0"]["W_hh"] for tree in (state.params, state.opt_state[0].mu))
text = update.lower(state, hyper, rows).compile().as_text()
whole = re.findall(r"f32\\[4,12\\]\\S* all-gather", text)
print(json.dumps({
    "apart": max(jax.tree.leaves(apart)),
    "shards": [sorted({each.data.shape for each in one.addressable_shards}) for one in (W, moment)],
    "gathered": len(whole),
    "rows": sorted({each.data.shape for each in rows.xs.addressable_shards}),
}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "backend"),
    [((1, 4), "fused"), ((2, 2), "fused"), ((4, 1), "fused"), ((2, 2), "auto")],
)
def test_a_network_over_a_mesh_is_the_network_alone(shape, backend):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
        "JAX_NUM_CPU_DEVICES": "4",
    }
    done = subprocess.run(
        [sys.executable, "-c", SHARDED, json.dumps(shape), backend],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    rows, hidden = shape
    assert seen["apart"] < 1e-6
    assert seen["shards"] == [[[4, 12 // hidden]]] * 2  # of the optimiser too
    assert seen["rows"] == [[36 // rows, 4, 1]]
    if backend == "fused":  # nor is W_hh put together while it computes
        assert seen["gathered"] == 0
