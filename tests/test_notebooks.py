"""The committed notebooks hold outputs of a whole run: no error, nothing of the machine, and small."""

import base64
import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
REFRESH = "refresh it with the command in CONTRIBUTING.md, recipe “A notebook”"

ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])(?:/(?:home|root|tmp|usr|var|Users|private)/|[A-Z]:\\)")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.name)
def notebook(request):
    return json.loads(request.param.read_text(encoding="utf-8"))


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell["outputs"]]


def shown(notebook):
    """(type, text) of all that the outputs show; images in base64."""
    for output in outputs(notebook):
        data = output.get("data") or {"text/plain": output.get("text", "")}
        yield from ((kind, "".join(text)) for kind, text in data.items())


def test_it_was_executed_once_from_top_to_bottom(notebook):
    counts = [cell["execution_count"] for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1)), REFRESH


def test_it_shows_figures_and_text_and_no_trouble(notebook):
    kinds = {output["output_type"] for output in outputs(notebook)}
    assert kinds == {"stream", "display_data"}, REFRESH  # no error, no value left to its repr
    assert {output.get("name", "stdout") for output in outputs(notebook)} == {"stdout"}
    assert {kind for kind, _ in shown(notebook)} == {"text/plain", "image/png"}


def test_nothing_of_the_machine_is_in_it(notebook):
    assert set(notebook["metadata"]) == {"kernelspec"}, REFRESH
    assert not any(cell["metadata"] for cell in notebook["cells"]), REFRESH
    for kind, text in shown(notebook):
        assert kind != "text/plain" or not ABSOLUTE_PATH.search(text), text


def test_it_is_small(notebook):
    sizes = [len(base64.b64decode(text)) for kind, text in shown(notebook) if kind == "image/png"]
    assert max(sizes) < 40_000, sizes
    assert len(json.dumps(notebook)) < 400_000
