"""The Python blocks of README and CONTRIBUTING run as they stand, in order, as if pasted into one session."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "CONTRIBUTING.md"]

SKIP = "<!-- no-test -->"  # on a line of its own, directly before a block that is not meant to run
BLOCK = re.compile(
    rf"^(?P<skip>{re.escape(SKIP)}[ \t]*\n(?:[ \t]*\n)*)?```python[ \t]*\n(?P<code>.*?)^```[ \t]*$",
    re.MULTILINE | re.DOTALL,
)


def python_blocks(text):
    """(line number of the first line of code, code) of every block that is meant to run."""
    return [
        (text.count("\n", 0, found.start("code")) + 1, found["code"])
        for found in BLOCK.finditer(text)
        if not found["skip"]
    ]


def script(blocks):
    """One program of all blocks, each on the lines that it has in the page: tracebacks point there."""
    program = ""
    for line, code in blocks:
        program += "\n" * (line - 1 - program.count("\n")) + code
    return program


def test_blocks_are_found_in_order_and_skipped_on_request():
    text = (
        "```python\na = 1\n```\ntext\n\n"
        f"{SKIP}\n```python\nboom\n```\n"
        "```sh\nls\n```\n"
        "```python\nb = a\n```\n"
    )
    assert [code for _, code in python_blocks(text)] == ["a = 1\n", "b = a\n"]
    lines = script(python_blocks(text)).splitlines()
    assert lines[text.splitlines().index("b = a")] == "b = a"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run(page, tmp_path):
    blocks = python_blocks((ROOT / page).read_text(encoding="utf-8"))
    assert blocks, f"{page} shows no ```python block"
    program = tmp_path / page.replace(".md", ".py")
    program.write_text(script(blocks), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error:::rnnreg", str(program)],
        cwd=tmp_path,  # what a page saves lands here
        env={**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{page} (line numbers are its own):\n{done.stderr[-4000:]}"
