"""Sweeps of several processes of JAX on one machine, which share the lanes through a folder."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from small_keep import PLANS, assert_equal, loaded, sweep

import rnnreg as rr
from rnnreg.lanes import make_plan
from rnnreg.sweeps._parts import Part, own_lanes

pytestmark = pytest.mark.slow
HEARTBEAT = 10

CHILD = """
import sys
sys.path.insert(0, {tests!r})
import jax
jax.distributed.initialize({address!r}, {count}, {number}, heartbeat_timeout_seconds={heartbeat})
jax.config.update("jax_default_matmul_precision", "highest")
import os, signal
import small_keep as of

def write(path, shard, before=of.keep_room.write_shard):
    before(path, shard)
    if {dying}:
        os.kill(os.getpid(), signal.SIGKILL)

of.keep_room.write_shard = write
result = of.sweep({folder!r}, seeds=3)
result.save({folder!r} + "/{number}.nc")
"""


def start(folder, count, *, dying=None):
    """Processes that run a sweep together; one of them may kill itself after its first lane."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    codes = [
        CHILD.format(
            tests=str(Path(__file__).parent),
            folder=str(folder),
            address=address,
            count=count,
            number=number,
            heartbeat=HEARTBEAT if dying is not None else 100,
            dying=number == dying,
        )
        for number in range(count)
    ]
    return [
        subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
        for code in codes
    ]


def test_processes_share_the_lanes_and_all_return_the_whole(tmp_path):
    count = 4
    children = start(tmp_path, count)
    told = [child.communicate()[1] for child in children]
    assert [child.returncode for child in children] == [0] * count, told
    expected = sweep(seeds=3)
    results = [rr.load_result(tmp_path / f"{number}.nc") for number in range(count)]
    for number, result in enumerate(results):
        assert_equal(result, expected)
        assert result.config["shard"] == [number, count]
    # no lane was trained twice
    trained = [9 - loaded(result) for result in results]
    assert sum(trained) == 9
    assert max(trained) - min(trained) <= 1


def test_a_process_that_is_killed_ends_the_others_and_the_folder_goes_on(tmp_path):
    first, killed = start(tmp_path, 2, dying=1)
    _, told = first.communicate(timeout=300)
    assert killed.wait() == -signal.SIGKILL
    killed.stderr.close()
    assert first.returncode != 0
    assert "another task died" in told
    (mine,) = own_lanes([make_plan(9, **PLANS["one_by_one"])], Part(0, 2))
    again = sweep(tmp_path, seeds=3)
    assert loaded(again) == mine.sum() + 1
    assert_equal(again, sweep(seeds=3))
