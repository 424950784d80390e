"""A disk whose flush takes longer than this machine's, for all processes that are started meanwhile."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .processes import ROOT, Skipped

_SOURCE = ROOT / "benchmarks" / "slow_flush.c"


@contextmanager
def slower_flushes(milliseconds: float) -> Iterator[None]:
    """Each flush takes so much longer. Raises Skipped where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise Skipped("there is no C compiler (cc) to make a slow disk with")
    with tempfile.TemporaryDirectory() as directory:
        library = Path(directory) / "slow_flush.so"
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, _SOURCE, "-ldl"], check=True)
        before = dict(os.environ)
        os.environ |= {"LD_PRELOAD": str(library), "FLUSH_US": str(round(milliseconds * 1000))}
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
