"""The Datasets of the static combinations as one."""

from __future__ import annotations

from typing import Any

import numpy as np


def join(datasets: list[Any], static: dict[str, list[Any]]) -> Any:
    """The static combinations as one Dataset; what one of them lacks (a second layer, an epoch) is NaN."""
    import xarray as xr

    sizes: dict[Any, set[int]] = {}
    for dataset in datasets:
        for dim, size in dataset.sizes.items():
            sizes.setdefault(dim, set()).add(size)
    bare = [dim for dim in sizes if len(sizes[dim]) > 1 and dim not in datasets[0].coords]
    datasets = [  # an axis without labels, of several lengths, gets its numbers as labels, to be filled up by them
        each.assign_coords({dim: np.arange(each.sizes[dim]) for dim in bare if dim in each.sizes})
        for each in datasets
    ]
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
