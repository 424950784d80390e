"""Produces a batch by `produce` of a module that is imported: tasks are known by their module, so it must not be `__main__`.

`… queue_produce MODULE JSON`.
"""

from __future__ import annotations

import importlib
import json
import sys

from ..queue_load import Batch

importlib.import_module(f"benchmarks.peers.{sys.argv[1]}").produce(Batch(**json.loads(sys.argv[2])))
