"""The Python blocks of README and CONTRIBUTING run as they stand, in order, as if pasted into one session.

A ```text block directly after one is what it prints; numbers agree to a tenth, since they differ between machines.
"""

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
SHOWN = re.compile(
    r"^```python[ \t]*\n(?P<code>[^`]*)^```\n\n```text\n(?P<out>.*?)^```$", re.M | re.S
)
NUMBER = re.compile(r"-?\d+\.?\d*(?:e-?\d+)?")
START = "--- line"


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
    for line, code in blocks:  # the line of the fence says which block prints
        program += "\n" * (line - 2 - program.count("\n")) + f"print('{START}', {line})\n" + code
    return program


def shown(text):
    """By the line number of a block, what the page says that it prints."""
    return {
        text.count("\n", 0, found.start("code")) + 1: found["out"] for found in SHOWN.finditer(text)
    }


def printed(out):
    """By the line number of a block, what it printed."""
    parts = (part.partition("\n") for part in out.split(START)[1:])
    return {int(line): text for line, _, text in parts}


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
    found = printed(done.stdout)
    for line, expected in shown((ROOT / page).read_text(encoding="utf-8")).items():
        words = [NUMBER.sub("#", text).split() for text in (found[line], expected)]
        assert words[0] == words[1], f"{page}, line {line}, prints {found[line]!r}"
        numbers = [[float(x) for x in NUMBER.findall(text)] for text in (found[line], expected)]
        assert numbers[0] == pytest.approx(numbers[1], rel=0.1, abs=0.1), f"{page}, line {line}"
