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


@pytest.mark.slow
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
def test_the_number_of_devices_changes_no_bit_of_lanes_one_by_one():
    def run(count, first, last):
        lines = _python(str(HERE / "device_cases.py"), str(first), str(last), devices=count)
        return list(map(json.loads, lines))

    first = 21  # one by one, and as two more cases in chunks and under vmap
    found = {count: run(count, first, first + (3 if count in (1, 8) else 1)) for count in COUNTS}
    for other in found.values():
        assert other[0]["digest"] == found[1][0]["digest"]
        assert other[0]["program"] == found[1][0]["program"]
    assert [each[0]["plan"]["devices"] for each in found.values()] == COUNTS
    for one, two in zip(found[1], found[8], strict=True):  # together: up to rounding
        np.testing.assert_allclose(one["loss"], two["loss"], rtol=1e-4, atol=1e-6)
