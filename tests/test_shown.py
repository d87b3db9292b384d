"""Every diagnostic and every figure answers a question somewhere: in an experiment, a notebook or the README."""

import ast
import inspect
import json
import re
from pathlib import Path

import pytest

import rnnreg as rr

ROOT = Path(__file__).parent.parent


def functions_of(room):
    return {
        name: value for name in room.__all__ if inspect.isfunction(value := getattr(room, name))
    }


def figures():
    """What draws: it takes the axes as an option, which helpers of axes do not."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [
        name
        for name, function in functions_of(rr.plotting).items()
        if any(
            parameter.kind == keyword and parameter.name in ("ax", "axes")
            for parameter in inspect.signature(function).parameters.values()
        )
    ]


PUBLIC = {
    *(f"diagnostics.{name}" for name in functions_of(rr.diagnostics)),
    *(f"plotting.{name}" for name in figures()),
}


def programs():
    """The code that readers see. Benchmarks say how fast a function is, not what it is for."""
    for path in (ROOT / "experiments").rglob("*.py"):
        if "benchmarks" not in path.parts:
            yield path.read_text(encoding="utf-8")
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = "".join(
            "".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "code"
        )
        yield re.sub(r"(?m)^%.*$", "", code)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    yield from re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)


def used_in(program):
    """`room.name` of what a program uses of diagnostics and plotting; an import alone is no use."""
    nodes = list(ast.walk(ast.parse(program)))
    imported = {
        alias.asname or alias.name: f"{node.module}.{alias.name}".removeprefix("rnnreg.")
        for node in nodes
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rnnreg")
        for alias in node.names
    }
    rooms = imported | {f"rr.{room}": room for room in ("diagnostics", "plotting")}
    for node in nodes:  # plot = rr.plotting
        if isinstance(node, ast.Assign) and ast.unparse(node.value) in rooms:
            rooms[ast.unparse(node.targets[0])] = rooms[ast.unparse(node.value)]
    names = {imported.get(node.id) for node in nodes if isinstance(node, ast.Name)}
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    dotted = {f"{rooms.get(ast.unparse(node.value))}.{node.attr}" for node in attributes}
    return (names | dotted) & PUBLIC


SHOWN = {name for program in programs() for name in used_in(program)}


def test_uses_are_told_apart_by_room():
    program = """
import rnnreg as rr
from rnnreg import diagnostics
from rnnreg.diagnostics import horizon, lyapunov
plot = rr.plotting
plot.horizons([0], horizon(logs)), diagnostics.spectra(params).lyapunov_trace
"""
    assert used_in(program) == {"plotting.horizons", "diagnostics.horizon", "diagnostics.spectra"}


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_it_answers_a_question_somewhere(name):
    assert name in SHOWN, f"rr.{name} is shown nowhere: show what it answers, or take it out."
