"""What an interrupted sweep has finished for every value of its axes, so that a comparison is fair."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnreg.sweeps import SweepResult


def finished_part(
    result: SweepResult, *, every_seed: bool = False
) -> tuple[dict[str, list[Any]], str]:
    """The seeds and folds that are finished for every value of all other axes, without the fold "all".

    Args:
      result: the sweep.
      every_seed: whether a fold counts only if all seeds are finished in it, as an ensemble needs.

    Returns:
      Labels by dimension; and how many of them there are, in words, or "" if they all are.

    Raises:
      ValueError: there is no such fold, or a search has dropped what is not finished.
    """
    finished = result.metrics["finished"].astype(bool)
    if "fold" in finished.dims:
        finished = finished.sel(fold=[label for label in finished.fold.values if label != "all"])
    own = [dim for dim in ("seed", "fold") if dim in finished.dims]
    others = [dim for dim in finished.dims if dim not in own]
    complete = finished.all(others).transpose(*own)
    table = complete.values.reshape([complete.sizes.get(dim, 1) for dim in ("seed", "fold")])
    if every_seed:
        table = np.broadcast_to(table.all(axis=0), table.shape)
    if "search" in result.config and not table.all():
        raise ValueError(
            "this is the result of a search that dropped trials on their way, and those that ended are no fair part of "
            "all. What it chose is the `choice` of what rr.selection.halving or hyperband returned."
        )
    folds = table[np.argmax(table.sum(axis=1))]  # those of the first seed that has most of them
    if not folds.any():
        what = "fold of a seed" if len(own) == 2 else (own or ["lane"])[0]
        raise ValueError(
            _nothing(result, f"{int(finished.sum())} of {finished.size}", what, every_seed)
        )
    kept = {"seed": table[:, folds].all(axis=1), "fold": folds}
    labels = {dim: complete[dim].values[kept[dim]].tolist() for dim in own}
    if table.all():
        return labels, ""
    counts = (f"{len(labels[dim])} of {complete.sizes[dim]} {dim}s" for dim in own)
    return labels, " and ".join(counts)


def _nothing(result: SweepResult, num_finished: str, what: str, every_seed: bool) -> str:
    text = (
        f"the sweep was interrupted after {num_finished} lanes, and no {what} is finished for every value of the other "
        f"axes{' and every seed' * every_seed}, so no comparison is fair. Run the sweep again"
    )
    if static := list(result.groups[0].static):
        text += f", or choose from a part that is finished, result.select({static[0]}=…)"
    if every_seed:
        text += ", or take combine='mean', which does not need every seed"
    return text + "."
