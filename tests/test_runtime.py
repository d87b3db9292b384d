"""Cores as devices, the cache, and the facts stored with a result."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import rnnreg as rr
from rnnreg import runtime


def python(code, **environment):
    """What a fresh interpreter prints: device counts are fixed once for a process."""
    env = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**env, "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize("num", [1, 2, 3])
def test_use_all_cores_sets_the_number_of_devices(num):
    out, err = python(
        "import jax; from rnnreg import runtime\n"
        f"print(runtime.use_all_cores({num}), len(jax.devices('cpu')))\n"
        f"print(runtime.use_all_cores({num}))"  # again, and late, but nothing is missing
    )
    assert out.split() == [str(num)] * 3
    assert "RuntimeWarning" not in err


def test_use_all_cores_takes_every_available_core():
    out, _ = python("from rnnreg import runtime; print(runtime.use_all_cores())")
    assert int(out) == runtime.available_cores()


def test_a_late_call_warns_and_changes_nothing():
    out, err = python(
        "import jax.numpy as jnp; from rnnreg import runtime\n"
        "jnp.zeros(1)\n"
        "print(runtime.use_all_cores(3))"
    )
    assert out == "1"
    assert "RuntimeWarning: use_all_cores came too late" in err
    assert "1 CPU device, and 3 were wanted" in err


def test_use_all_cores_refuses_less_than_one():
    with pytest.raises(ValueError, match="at least one core, got num=0"):
        runtime.use_all_cores(0)


def cgroup(tmp_path, membership, files):
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return runtime._cgroup_quota(tmp_path / "membership", tmp_path / "mount")


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2.5),
        ("0::/job/step\n", {"job/cpu.max": "150000 100000", "job/step/cpu.max": "max 100000"}, 1.5),
        ("0::/outside\n", {"cpu.max": "100000 100000"}, 1.0),
        (
            "4:cpu,cpuacct:/job\n0::/\n",
            {
                "cpu,cpuacct/job/cpu.cfs_quota_us": "300000\n",
                "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
                "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        ("7:memory:/job\n", {"memory/job/cpu.max": "100000 100000"}, None),
    ],
    ids=["v2-unlimited", "v2", "v2-parent", "v2-container", "v1", "other-controller"],
)
def test_cgroup_quota(tmp_path, membership, files, quota):
    assert cgroup(tmp_path, membership, files) == quota


def test_no_cgroups_is_no_limit(tmp_path):
    assert runtime._cgroup_quota(tmp_path / "absent", tmp_path) is None


@pytest.mark.parametrize(("quota", "cores"), [(None, 4), (0.5, 1), (2.5, 3), (64.0, 4)])
def test_available_cores_is_the_smaller_limit(monkeypatch, quota, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(runtime, "_cgroup_quota", lambda: quota)
    assert runtime.available_cores() == cores


def test_compilation_cache_is_read_by_the_next_process(tmp_path):
    code = (
        "import jax, jax.numpy as jnp; from rnnreg import runtime\n"
        "hits = []\n"
        "jax.monitoring.register_event_listener(\n"
        "    lambda event, **_: hits.append(event) if event.endswith('cache_hits') else None)\n"
        f"folder = runtime.compilation_cache({str(tmp_path / 'xla')!r})\n"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)\n"  # a tiny program
        "jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((3, 3)))\n"
        "print(len(hits), len(list(folder.iterdir())))"
    )
    (first, _), (second, _) = python(code), python(code)
    assert int(first.split()[0]) == 0
    assert int(first.split()[1]) > 0
    assert int(second.split()[0]) > 0


def test_compilation_cache_default_folder(tmp_path):
    code = "from rnnreg import runtime; print(runtime.compilation_cache())"
    out, _ = python(code, XDG_CACHE_HOME=str(tmp_path), JAX_COMPILATION_CACHE_DIR="")
    assert out == str(tmp_path / "rnnreg")
    out, _ = python(code, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "told"))
    assert out == str(tmp_path / "told")


def test_environment_is_ready_for_json():
    facts = runtime.environment()
    assert json.loads(json.dumps(facts)) == facts
    assert set(runtime.PACKAGES) < facts.keys()
    assert facts["num_devices"] >= 1


def test_nothing_needs_a_home_folder(monkeypatch):
    def nowhere(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", nowhere)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        assert runtime.cache_folder() is None
        assert rr.lanes.load_calibration().source.startswith("shipped")
        with pytest.warns(RuntimeWarning, match="not kept on disk: there is no home folder"):
            assert runtime.compilation_cache() is None
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_a_cache_that_cannot_be_written_is_said_and_not_needed(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(RuntimeWarning, match="not kept on disk"):
        assert runtime.compilation_cache(tmp_path / "file" / "xla") is None
