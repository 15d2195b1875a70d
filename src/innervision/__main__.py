"""python -m innervision: the command line."""

from __future__ import annotations

from innervision.cli import main

if __name__ == "__main__":
    main()
