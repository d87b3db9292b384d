"""Many runs at once: which way they run is a choice apart from what they mean.

One large network over several devices needs no plan: place its arrays, and `jax.jit` splits the work. Every function of
a run is pure, so the state after an update lies where the state before it lay. With the columns of the weights dealt to
a mesh, no device holds a whole W_hh; with the rows of the batch dealt too, each device has its share of both:

>>> import jax, numpy as np, optax, rnnreg as rr
>>> from jax.sharding import Mesh, NamedSharding, PartitionSpec
>>> net = rr.network([rr.cells.gru(8)], 1, readout="last", backend="fused")
>>> train = rr.make_train(net, loss=rr.losses.squared_error("mean"), optimizer=optax.adam(1e-2), num_epochs=1)
>>> batch = rr.Batch(np.ones((8, 5, 2), np.float32), np.ones((8, 1), np.float32))
>>> mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("rows", "hidden"))  # such as (2, 4) of eight devices
>>> def columns(leaf):
...     wide = leaf.ndim == 2 and leaf.shape[-1] % mesh.shape["hidden"] == 0
...     return NamedSharding(mesh, PartitionSpec(None, "hidden") if wide else PartitionSpec())
>>> start = jax.jit(train.init)
>>> state = jax.eval_shape(start, {}, batch, key=jax.random.key(0))
>>> start = jax.jit(train.init, out_shardings=jax.tree.map(columns, state))  # drawn in its place
>>> state = start({}, batch, key=jax.random.key(0))
>>> batch = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("rows")))
>>> state, info = jax.jit(train.update)(state, {}, batch)
>>> state.params["layer_0"]["W_hh"].sharding.spec == PartitionSpec(None, "hidden")
True

`backend="fused"` keeps W_hh in parts while it computes as well; the compiled kernel of a CPU ("native") gathers it for
an update. Results are equal up to rounding. `Train.split_rows` is for a network that fits on each device.
"""

from rnnreg.lanes._blocks import Block as Block
from rnnreg.lanes._blocks import Pace as Pace
from rnnreg.lanes._blocks import run_blocks as run_blocks
from rnnreg.lanes._calibration import calibrate
from rnnreg.lanes._calls import first_call
from rnnreg.lanes._plan import Plan, make_plan
from rnnreg.lanes._plan import for_part as for_part
from rnnreg.lanes._plan import narrower as narrower
from rnnreg.lanes._plan import repacked as repacked
from rnnreg.lanes._program import Program, map_lanes, trace
from rnnreg.lanes._program import calls_python as calls_python
from rnnreg.lanes._rates import Calibration, load_calibration
from rnnreg.lanes._rates import calibration_path as calibration_path

__all__ = [
    "Calibration",
    "Plan",
    "Program",
    "calibrate",
    "first_call",
    "load_calibration",
    "make_plan",
    "map_lanes",
    "trace",
]
