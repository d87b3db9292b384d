"""The Datasets of the static combinations as one."""

from __future__ import annotations

from typing import Any

import numpy as np


def join(datasets: list[Any], static: dict[str, list[Any]]) -> Any:
    """The static combinations as one Dataset; what one of them lacks (a second layer, an epoch) is NaN."""
    import xarray as xr

    dims = {name: array.dims for dataset in datasets for name, array in dataset.data_vars.items()}

    def filled(dataset):
        missing = [name for name in dims if name not in dataset]
        shapes = {name: [dataset.sizes[dim] for dim in dims[name]] for name in missing}
        return dataset.assign(
            {name: (dims[name], np.full(shape, np.nan)) for name, shape in shapes.items()}
        )

    joined = [filled(dataset) for dataset in datasets]
    for name in reversed(static):  # the last axis varies fastest
        size = len(static[name])
        joined = [
            xr.concat(
                joined[start : start + size],
                name,
                data_vars="all",
                coords="minimal",
                compat="override",
                join="outer",
            )
            for start in range(0, len(joined), size)
        ]
    return joined[0].transpose(*static, ...)
