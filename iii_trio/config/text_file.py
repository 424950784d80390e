"""Files of text that a user names: configurations and tokens."""

from __future__ import annotations

from typing import Final

_MAX_BYTES: Final = 16 * 1024 * 1024


class FileTooLarge(ValueError):
    """A file is larger than any that is meant. Some special files, such as /dev/zero, never end."""

    def __init__(self) -> None:
        super().__init__(f"it is larger than {_MAX_BYTES // (1024 * 1024)} MiB")


def read_text_file(path: str) -> str:
    """Return the text of a UTF-8 file of at most 16 MiB, without a byte order mark. Lines end with LF. Blocks.

    Raises OSError, UnicodeDecodeError and FileTooLarge, and another ValueError for a path that no file can have.
    """
    with open(path, "rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise FileTooLarge
    return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def why_unreadable(error: OSError | ValueError) -> str:
    """Name the cause of an error of `read_text_file`, in a few words."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
