"""Install the SDKs that the tests talk to as real processes, beside the one that is in the project's `test` extra.

    python tests/sdk/install.py

Each is a step of its own. A step whose tool or registry is missing is reported and left out, and its tests are skipped.
Everything is installed in this directory and ignored by git. A second run is quick.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
OLD_PYTHON = HERE / ".iii-sdk-0.22" / "bin" / "python"
NODE_SDK = HERE / "node_modules" / "iii-sdk"
RUST_WORKER = HERE / "rust_worker" / "target" / "debug" / "rust_worker"
NEXT_RUST_WORKER = HERE / "rust_worker_next" / "target" / "debug" / "rust_worker"
BUILD_SECONDS = 1200

SDK_VERSIONS = {
    "python": "0.25.0",
    "old_python": "0.22.1",
    "node": "0.22.1",
    "rust": "0.25.0",
    "next_rust": "0.26.0-rc.4",
}
"""The version of the SDK of each kind of worker, which the tests assert at every start of one."""

LEFT_OUT = {
    "Go": "the Go module proxy does not serve github.com/iii-hq/iii/sdk/packages/go/iii (403)",
    "browser": "the npm registry does not serve iii-browser-sdk (404); test_browser.py has a page of its own instead",
}
"""SDKs that are not tested, and why."""


def install_node_sdk() -> None:
    """Install `iii-sdk` of package-lock.json, from npm."""
    run("npm", "ci", "--prefix", str(HERE), "--no-audit", "--no-fund", "--loglevel=error")


def install_old_python_sdk() -> None:
    """Install the old `iii-sdk` from PyPI, in an environment of its own, which can hold only one version."""
    home = OLD_PYTHON.parent.parent
    if not OLD_PYTHON.exists():
        run(sys.executable, "-m", "venv", str(home))
    pip = (str(OLD_PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, f"iii-sdk=={SDK_VERSIONS['old_python']}")


def build_rust_worker() -> None:
    """Build a worker on the crate `iii-sdk` of rust_worker/Cargo.lock, from crates.io."""
    run("cargo", "build", "--quiet", "--locked", "--manifest-path", str(HERE / "rust_worker" / "Cargo.toml"))


def build_next_rust_worker() -> None:
    """Build the same worker on the newest crate, of rust_worker_next/Cargo.lock."""
    run("cargo", "build", "--quiet", "--locked", "--manifest-path", str(HERE / "rust_worker_next" / "Cargo.toml"))


def install_chromium() -> None:
    """Install Debian's Chromium, where it is missing and this process may do so."""
    if find_chromium() is not None:
        return
    if os.geteuid() != 0:
        raise OSError("chromium is missing, and only root may install it")
    run("apt-get", "update", "-qq")
    run("apt-get", "install", "-qq", "-y", "--no-install-recommends", "chromium")


def run(*command: str) -> None:
    """Run a command. Raises CalledProcessError, TimeoutExpired, FileNotFoundError."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(command, check=True, timeout=BUILD_SECONDS, stdin=subprocess.DEVNULL, env=environment)


def find_chromium() -> str | None:
    """Return the path of a Chromium, or None."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def why_not_old_python() -> str | None:
    """Return the reason why there are no workers on the old Python SDK, or None."""
    if not OLD_PYTHON.exists() or not any(OLD_PYTHON.parent.parent.glob("lib/*/site-packages/iii/__init__.py")):
        return f"the Python SDK {SDK_VERSIONS['old_python']} is not installed: run `python tests/sdk/install.py`"
    return None


def why_no_node() -> str | None:
    """Return the reason why there are no workers on the Node SDK, or None."""
    if shutil.which("node") is None:
        return "there is no node on this machine"
    if not NODE_SDK.is_dir():
        return "the Node SDK is not installed: run `python tests/sdk/install.py`"
    return None


def why_no_rust(worker: Path) -> str | None:
    """Return the reason why there are no workers on this Rust SDK, or None."""
    if not worker.exists():
        return f"{worker.relative_to(HERE)} is not built: run `python tests/sdk/install.py` where there is cargo"
    return None


def why_no_chromium() -> str | None:
    """Return the reason why there is no browser, or None."""
    if find_chromium() is None:
        return "there is no chromium on this machine: run `python tests/sdk/install.py` as root where there is apt-get"
    return None


STEPS: dict[str, tuple[str, Callable[[], None]]] = {
    f"the Node SDK {SDK_VERSIONS['node']}": ("npm", install_node_sdk),
    f"the Python SDK {SDK_VERSIONS['old_python']}": (sys.executable, install_old_python_sdk),
    f"the worker on the Rust SDK {SDK_VERSIONS['rust']}": ("cargo", build_rust_worker),
    f"the worker on the Rust SDK {SDK_VERSIONS['next_rust']}": ("cargo", build_next_rust_worker),
    "Chromium": ("apt-get", install_chromium),
}


def main() -> None:
    """Do all steps."""
    for step, (tool, install) in STEPS.items():
        if shutil.which(tool) is None:
            print(f"{step} is left out: there is no {tool} here")
            continue
        try:
            install()
        except (subprocess.SubprocessError, OSError) as problem:
            print(f"{step} is left out: {problem}")
        else:
            print(f"{step} is there")
    for sdk, reason in LEFT_OUT.items():
        print(f"the {sdk} SDK is left out: {reason}")


if __name__ == "__main__":
    main()
