"""``python -m tests.bench.overhead``"""

from __future__ import annotations

import sys

from tests.bench.overhead.run import main

if __name__ == "__main__":
    sys.exit(main())
