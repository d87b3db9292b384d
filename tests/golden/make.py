"""Stores what the peers return: `python tests/golden/make.py` (needs the `peers` extra).

One `.npz` a peer, float64: for each case its `Record` as one vector with a layout, and the peer's
version.
"""

import importlib.metadata
import sys
from pathlib import Path

import jax
import numpy as np

HERE = Path(__file__).parent


def main():
    sys.path.insert(0, str(HERE.parent))
    jax.config.update("jax_enable_x64", True)
    from peer_cells import GOLDEN_CASES, pack

    for peer in ("torch", "keras", "flax"):
        arrays = {"version": np.array(importlib.metadata.version(peer))}
        for case in (case for case in GOLDEN_CASES if case.peer == peer):
            values, layout = pack(case.run(np.dtype("float64")))
            arrays |= {f"{case.name}/values": values, f"{case.name}/layout": layout}
        np.savez_compressed(HERE / f"{peer}.npz", **arrays)
        print(f"{peer} {arrays['version']}: {(HERE / f'{peer}.npz').stat().st_size} bytes")


if __name__ == "__main__":
    main()
