"""The harness' intervals under their old name, until the memory study imports the new one."""

from experiments._harness import proportion as proportion
