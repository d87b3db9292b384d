"""Keras on its JAX backend, in a chosen precision."""

from __future__ import annotations

import os
from types import ModuleType

import numpy as np


def keras_at(dtype: str) -> ModuleType:
    """Keras with the JAX backend, its layers and its results in `dtype`.

    On every backend but TensorFlow, Keras' promotion rules bring a float64 result down to float32
    (`BIT64_TO_BIT32_DTYPE`; keras-team/keras pull request 21604 leaves a switch as a to-do), so `set_floatx`
    alone gives float32 products of float64 weights. One entry of that table is set here; no formula of
    Keras is touched.

    Args:
      dtype: "float32" or "float64"; the latter needs JAX_ENABLE_X64=1.

    Raises:
      ImportError: Keras is not installed.
      RuntimeError: Keras runs on another backend, or this version promotes by another rule.

    """
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import keras

    if keras.backend.backend() != "jax":
        raise RuntimeError(
            f"Keras runs on {keras.backend.backend()!r}; set KERAS_BACKEND=jax before it is imported."
        )
    name = np.dtype(dtype).name
    keras.config.set_floatx(name)
    keras.config.set_dtype_policy(name)
    if name == "float64":
        from keras.src.backend.common import dtypes

        getattr(dtypes, "BIT64_TO_BIT32_DTYPE", {})["float64"] = "float64"
        if keras.backend.result_type("float64", "float64") != "float64":
            raise RuntimeError(
                f"Keras {keras.__version__} turns float64 into float32 by a rule that is not known here; "
                "compare in float32."
            )
    return keras
