"""The same bits on any number of devices, for lanes that run one by one; up to rounding for the others."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
COUNTS = [1, 2, 4, 8]

WITHIN = """
import jax
from device_cases import case, digest
import rnnreg as rr

(train, grid, split), options = case(3)
options.pop("plan")
lanes = rr.dry_run(train, grid, split, **{n: v for n, v in options.items() if n != "progress"}).lanes
for devices, width in [(1, None), (1, 1), (2, 2), (3, None), (8, None), (8, 64)]:
    plan = rr.lanes.make_plan(lanes, plan="one_by_one", devices=jax.devices()[:devices], width=width)
    result = rr.sweep(train, grid, split, plan=plan, **options)
    print(lanes, len(plan.devices), plan.num_calls, result.config["compilations"], digest(result))

(train, grid, split), options = case(3)
more = grid | {"learning_rate": [1e-2, 2e-2, 3e-2]}  # of other lanes
print(rr.sweep(train, more, split, **options).config["compilations"])
"""


def _python(*arguments, devices):
    """The lines that a process with so many CPU devices prints."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
        "JAX_NUM_CPU_DEVICES": str(devices),
    }
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.numerics
def test_one_program_serves_any_number_of_devices_and_lanes():
    *swept, more = _python("-W", "ignore", "-c", WITHIN, devices=8)
    lanes, devices, calls, compiled, digests = zip(*map(str.split, swept), strict=True)
    assert len(set(lanes)) == 1
    assert int(lanes[0]) >= 6
    assert len(set(devices)) >= 4
    assert int(calls[1]) == int(lanes[0])
    assert [int(each) for each in compiled] == [1, 0, 0, 0, 0, 0]
    assert len(set(digests)) == 1
    assert more == "0"


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.parametrize("first", [12, 21])
def test_the_number_of_devices_changes_no_bit_of_lanes_one_by_one(first):
    script = [str(HERE / "device_cases.py"), str(first), str(first + 3)]
    found = {count: list(map(json.loads, _python(*script, devices=count))) for count in COUNTS}
    alone, *others = found.values()
    for other in others:
        assert other[0]["digest"] == alone[0]["digest"]
        assert other[0]["program"] == alone[0]["program"]
        for one, two in zip(alone, other, strict=True):  # in chunks and under vmap: up to rounding
            np.testing.assert_allclose(one["loss"], two["loss"], rtol=1e-4, atol=1e-6)
    assert len({each[0]["plan"]["devices"] for each in found.values()}) > 1
