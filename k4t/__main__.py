"""The program: `k4t`, and `python -m k4t`. Ctrl-C while the rest of it is imported ends it as it does later."""

from __future__ import annotations

import os
import sys


def main() -> None:
    try:
        from k4t.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("k4t: interrupted\n")
        os._exit(130)
    run()


if __name__ == "__main__":
    main()
