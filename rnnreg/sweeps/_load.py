"""A saved result, read back."""

from __future__ import annotations

from pathlib import Path

from rnnreg._signatures import typed
from rnnreg.sweeps._disk import read_path
from rnnreg.sweeps._files import read_tree
from rnnreg.sweeps._result import SweepResult


@typed
def load_result(path: str | Path) -> SweepResult:
    """The sweep that `result.save(path)` wrote.

    Args:
      path: the file.

    Returns:
      The result, equal to the one that was saved.

    Raises:
      FileNotFoundError: there is no such file.
      OSError: it cannot be read.
      ValueError: the file is not one of them, or is damaged: its bytes are compared with its check sum.

    >>> import tempfile, xarray as xr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "other.nc"
    ...     xr.Dataset({"x": 1}).to_netcdf(path, engine="h5netcdf")
    ...     load_result(path)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: ...other.nc was not written by rnnreg's SweepResult.save, or was cut off or changed afterwards.
    """
    metrics, groups, header = read_tree(read_path(path))
    return SweepResult(metrics, groups, header["config"], header["plan"])
