"""`python -m iii_trio` is `iii-trio`."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
