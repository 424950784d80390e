"""Install the SDKs that the tests talk to as real processes, beside the one that is in the project's `test` extra.

    python tests/sdk/install.py

Each is a step of its own. One that this machine has no tool for, or whose registry is not reached, is said and left out:
its tests are then skipped. What is installed stays in this directory, ignored by git, and a second run is quick.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
OLD_PYTHON_SDK = "0.22.1"
OLD_PYTHON = HERE / ".iii-sdk-0.22" / "bin" / "python"
NODE_SDK = HERE / "node_modules" / "iii-sdk"
RUST_WORKER = HERE / "rust_worker" / "target" / "debug" / "rust_worker"
BUILD_SECONDS = 1200


def install_node_sdk() -> None:
    """`iii-sdk` of package-lock.json, from npm."""
    run("npm", "ci", "--prefix", str(HERE), "--no-audit", "--no-fund", "--loglevel=error")


def install_old_python_sdk() -> None:
    """`iii-sdk` of OLD_PYTHON_SDK, from PyPI: two versions cannot be in one environment."""
    home = OLD_PYTHON.parent.parent
    if not OLD_PYTHON.exists():
        run(sys.executable, "-m", "venv", str(home))
    pip = (str(OLD_PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, f"iii-sdk=={OLD_PYTHON_SDK}")


def build_rust_worker() -> None:
    """A worker on the crate `iii-sdk` of rust_worker/Cargo.lock, from crates.io."""
    run("cargo", "build", "--quiet", "--locked", "--manifest-path", str(HERE / "rust_worker" / "Cargo.toml"))


def run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=BUILD_SECONDS)


def why_not_old_python() -> str | None:
    """What is missing for workers on the old Python SDK, or None."""
    if not OLD_PYTHON.exists() or not any(OLD_PYTHON.parent.parent.glob("lib/*/site-packages/iii/__init__.py")):
        return f"the Python SDK {OLD_PYTHON_SDK} is not installed: run `python tests/sdk/install.py`"
    return None


def why_no_node() -> str | None:
    """What is missing for workers on the Node SDK, or None."""
    if shutil.which("node") is None:
        return "there is no node on this machine"
    if not NODE_SDK.is_dir():
        return "the Node SDK is not installed: run `python tests/sdk/install.py`"
    return None


def why_no_rust() -> str | None:
    """What is missing for workers on the Rust SDK, or None."""
    if not RUST_WORKER.exists():
        return "the worker on the Rust SDK is not built: run `python tests/sdk/install.py` where there is cargo"
    return None


STEPS = {
    "the Node SDK": ("npm", install_node_sdk),
    f"the Python SDK {OLD_PYTHON_SDK}": (sys.executable, install_old_python_sdk),
    "the worker on the Rust SDK": ("cargo", build_rust_worker),
}


def main() -> None:
    for what, (tool, install) in STEPS.items():
        if shutil.which(tool) is None:
            print(f"{what} is left out: there is no {tool} here")
            continue
        try:
            install()
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as problem:
            print(f"{what} is left out: {problem}")
        else:
            print(f"{what} is there")


if __name__ == "__main__":
    main()
