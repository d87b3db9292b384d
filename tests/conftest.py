"""What every test shares: tolerances by dtype, a seed, the precision in force, optional peers.

Import the plain functions where they are needed: `from conftest import require, tolerance`.
"""

import atexit
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings

# Nearly all of a test's time is compiling: programs that run once cost more to optimise than they gain.
os.environ.setdefault(
    "JAX_DISABLE_MOST_OPTIMIZATIONS", str(int("RNNREG_OPTIMISED" not in os.environ))
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # the suite is about numbers, not about devices
os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("MPLBACKEND", "Agg")
# Many tests make the same program anew: it is compiled once for all processes of this run, and kept no longer.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="rnnreg-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import jax
import jax.numpy as jnp
import pytest

jax.config.update("jax_default_matmul_precision", "highest")  # accelerators default to TF32

SEED = 20240229
OPTIMISED = "RNNREG_OPTIMISED" in os.environ

# Relative and absolute; about 100 rounding errors of the dtype, which a few dozen steps accumulate.
TOLERANCES = {
    "bfloat16": 3e-2,
    "float16": 5e-3,
    "float32": 1e-5,
    "float64": 1e-10,
}


def tolerance(dtype=None, *, loosen=1.0):
    """{"rtol", "atol"} for `np.testing.assert_allclose` at a dtype; by default the one in force.

    Give `loosen` where the usual tolerance is too tight, with a comment that says why it is.
    """
    name = jnp.dtype(jnp.zeros(0).dtype if dtype is None else dtype).name
    return {"rtol": TOLERANCES[name] * loosen, "atol": TOLERANCES[name] * loosen}


def require(module):
    """Import an optional peer; without it skip, or fail where RNNREG_REQUIRE_PEERS is set (CI)."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        reason = f"{module} is not installed (pip install -e '.[peers]'): {error}"
        if os.environ.get("RNNREG_REQUIRE_PEERS"):
            pytest.fail(f"RNNREG_REQUIRE_PEERS is set, but {reason}")
        pytest.skip(reason, allow_module_level=True)


@pytest.fixture
def key():
    """The seed of the suite, as a key."""
    return jax.random.key(SEED)


def pytest_configure(config):
    """Leaves out XLA's emitters of fused loops too, where XLA knows the flag; the worker processes inherit it."""
    plain = "--xla_cpu_use_fusion_emitters=false"
    if OPTIMISED or "XLA_FLAGS" in os.environ or hasattr(config, "workerinput"):
        return
    probe = [sys.executable, "-c", "import jax; jax.devices()"]
    if (
        subprocess.run(
            probe, env={**os.environ, "XLA_FLAGS": plain}, capture_output=True
        ).returncode
        == 0
    ):
        os.environ["XLA_FLAGS"] = plain


def pytest_report_header():
    return (
        f"rnnreg: seed {SEED}, jax {jax.__version__}, x64 {jax.config.jax_enable_x64}, "
        f"peers {'required' if os.environ.get('RNNREG_REQUIRE_PEERS') else 'optional'}"
    )


def pytest_collection_modifyitems(items):
    x64 = jax.config.jax_enable_x64
    for item in items:
        if x64 and item.get_closest_marker("float32_only"):
            item.add_marker(pytest.mark.skip(reason="about float32; float64 is on"))
        if not x64 and item.get_closest_marker("float64_only"):
            item.add_marker(pytest.mark.skip(reason="needs JAX_ENABLE_X64=1"))
        if not OPTIMISED and item.get_closest_marker("optimised"):
            item.add_marker(pytest.mark.skip(reason="needs RNNREG_OPTIMISED=1"))


@pytest.fixture
def no_figures_left():
    """Every test of figures starts without one and leaves none."""
    import matplotlib.pyplot as plt

    plt.close("all")
    yield
    plt.close("all")


@pytest.fixture
def silent():
    """Any warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def ctrl_c():
    """Ctrl-C raises, as in a process that was started at a terminal; one in the background ignores it."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)
