"""The module for external functions, whose calls go out to a URL. Its names are loaded when they are first used."""

from typing import TYPE_CHECKING

from ...lazy import loader

if TYPE_CHECKING:
    from .module import External, open_external
    from .settings import ExternalConfig

__all__ = ["External", "ExternalConfig", "open_external"]
__getattr__ = loader(__name__, {"External": "module", "ExternalConfig": "settings", "open_external": "module"})
