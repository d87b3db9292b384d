"""What there is: every penalty in one table, for a terminal and for a notebook."""

from __future__ import annotations

import html
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from rnnreg._checks import printable
from rnnreg.penalties._activations import (
    activation,
    activity_l1,
    firing_rate,
    norm_stabilizer,
    temporal_activation,
)
from rnnreg.penalties._base import Penalty
from rnnreg.penalties._gradients import omega
from rnnreg.penalties._groups import group_lasso
from rnnreg.penalties._identity import to_identity
from rnnreg.penalties._jacobians import gradient_flossing, jacobian_norm
from rnnreg.penalties._orthogonality import non_normal, soft_orthogonality
from rnnreg.penalties._path_norm import path_norm
from rnnreg.penalties._schedules import scheduled
from rnnreg.penalties._singular import nuclear, singular_value_margin, spectral_norm
from rnnreg.penalties._weights import elastic_net, elementwise, l1, l2


class TableRow(NamedTuple):
    """One penalty.

    Attributes:
      name: of its factory in `rr.penalties`.
      formula: R, without λ.
      arguments: of the factory, with their defaults.
      covers: which leaves by default.
      needs: what it asks of a batch besides the parameters, in words; "" for nothing.
      prox: whether it states a proximal step.
      cost: of an update, in words; `python -m experiments.benchmarks.regularisers` measures it.
      source: who proposed it.
    """

    name: str
    formula: str
    arguments: str
    covers: str
    needs: str
    prox: bool
    cost: str
    source: str


class Table(tuple[TableRow, ...]):
    """The rows; it prints as text, and as a table in a notebook."""

    def __repr__(self) -> str:
        columns = ("name", "formula", "covers", "prox", "cost of an update")
        cells = [
            columns,
            *((r.name, r.formula, r.covers, _word(r.prox), r.cost) for r in self),
        ]
        widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in cells
        ]
        return printable("\n".join(lines))

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in TableRow._fields)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_word(cell))}</td>" for cell in row) + "</tr>"
            for row in self
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def table() -> Table:
    """Every penalty: formula, arguments, what it covers and needs, whether it has a proximal step, cost and source.

    Formulas are in ASCII, so that they print everywhere: W' is the transpose, sigma_i are singular values, sums run
    over what is covered. Products are of square blocks, H³ multiplications each, backward pass included. Arguments,
    needs and proximal steps are read off the factories themselves.

    Returns:
      A tuple of `TableRow`s that prints as a table; the notebook's has every field.

    >>> for row in table()[:2]:
    ...     print(f"{row.name}: {row.formula} over {row.covers} ({row.source})")
    l2: sum w^2 over weights (Tikhonov 1943; Hoerl & Kennard 1970)
    l1: sum |w| over weights (Tibshirani 1996)
    """
    return Table(map(_row, ENTRIES))


class Entry(NamedTuple):
    """What the code of a factory does not say: see `TableRow`."""

    factory: Callable[..., Penalty]
    formula: str
    covers: str
    cost: str
    source: str
    required: tuple[Any, ...] = ()


SUM, SVD = "a pass over the weights", "2 products, every {every}th an SVD"
BLOCKS = "W_hh by gate block"
STATES, LAST = "a pass over the states", "h of the last layer"

ENTRIES = (
    Entry(l2, "sum w^2", "weights", SUM, "Tikhonov 1943; Hoerl & Kennard 1970"),
    Entry(l1, "sum |w|", "weights", SUM, "Tibshirani 1996"),
    Entry(elastic_net, "r sum |w| + (1 - r) sum w^2", "weights", SUM, "Zou & Hastie 2005"),
    Entry(elementwise, "sum f(w)", "weights", "f of every weight", "-", (jnp.square,)),
    Entry(
        group_lasso,
        "sum_g ||w_g||_2",
        "weights",
        SUM,
        "Yuan & Lin 2006; Scardapane et al. 2017",
    ),
    Entry(nuclear, "sum sigma_i", BLOCKS, SVD, "Fazel, Hindi & Boyd 2001"),
    Entry(
        spectral_norm,
        "sigma_max^2",
        BLOCKS,
        "2 products with a vector",
        "Yoshida & Miyato 2017; Miyato et al. 2018",
    ),
    Entry(
        soft_orthogonality,
        "||W'W - I||_F^2 or _2",
        BLOCKS,
        "3 products",
        "Vorontsov et al. 2017; Bansal, Chen & Wang 2018",
    ),
    Entry(
        singular_value_margin,
        "sum max(|sigma_i - 1| - m, 0)^2",
        BLOCKS,
        SVD,
        "Vorontsov et al. 2017",
    ),
    Entry(
        to_identity,
        "||W - I||_F^2 of some units",
        "W_hh, square",
        SUM,
        "Schmidt et al. 2021",
    ),
    Entry(
        non_normal,
        "||W'W - WW'||_F^2",
        BLOCKS,
        "6 products",
        "Henrici 1962; Elsner & Paardekooper 1987",
    ),
    Entry(
        path_norm,
        "sum over paths of prod w^2",
        "all of an Elman net",
        "num_steps steps of one row",
        "Neyshabur et al. 2015, 2016",
    ),
    Entry(activation, "mean h^2", LAST, STATES, "Merity, McCann & Socher 2017"),
    Entry(
        temporal_activation, "mean (h_t+1 - h_t)^2", LAST, STATES, "Merity, McCann & Socher 2017"
    ),
    Entry(
        norm_stabilizer,
        "mean (||h_t+1|| - ||h_t||)^2",
        "h of every layer",
        STATES,
        "Krueger & Memisevic 2016",
    ),
    Entry(
        firing_rate,
        "mean r^2 or (mean r - r*)^2",
        "h of every layer",
        STATES,
        "Song et al. 2016; Bellec et al. 2018",
    ),
    Entry(activity_l1, "mean |h|", "h of every layer", STATES, "Glorot, Bordes & Bengio 2011"),
    Entry(
        omega,
        "mean (||d_t J_t||^2 / ||d_t||^2 - 1)^2",
        "W_hh; all if 'full'",
        "3 training steps; 6 if 'full'",
        "Pascanu, Mikolov & Bengio 2013",
    ),
    Entry(
        jacobian_norm,
        "mean ||J_t||_F^2 / n, or of J_t r",
        "every layer",
        "4 training steps a direction",
        "Hoffman et al. 2019; Bai et al. 2021",
    ),
    Entry(
        gradient_flossing,
        "mean_k (lambda_k - lambda*)^2",
        "every layer",
        "a QR a step and row",
        "Engelken 2023",
        (1,),
    ),
    Entry(scheduled, "s(n) R at update n", "as R", "that of R", "-", (l2(), lambda count: 1.0)),
)


def _row(entry: Entry) -> TableRow:
    penalty = entry.factory(*entry.required)
    signature = inspect.signature(entry.factory)
    arguments = ", ".join(
        name if value.default is value.empty else f"{name}={value.default!r}"
        for name, value in signature.parameters.items()
    )
    return TableRow(
        entry.factory.__name__,
        entry.formula,
        arguments,
        entry.covers,
        ", ".join(sorted(penalty.needs)),
        penalty.prox is not None,
        entry.cost.format(every=dict(penalty.arguments).get("every")),
        entry.source,
    )


def _word(value: Any) -> str:
    return value if isinstance(value, str) else "yes" if value else "no"
