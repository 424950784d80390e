"""Run a module of these benchmarks with the package of another checkout: `run_with.py CHECKOUT MODULE [ARGUMENT …]`."""

from __future__ import annotations

import importlib
import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    checkout, module = sys.argv[1:3]
    # The other checkout may have benchmarks of its own. Only its package is wanted, so the package is imported first.
    sys.path[0] = checkout
    importlib.import_module("iii_trio")
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    sys.argv[1:3] = []
    runpy.run_module(module, run_name="__main__", alter_sys=True)
