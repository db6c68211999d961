"""``python -m rtc_kernel.cli``: the same as ``jupyter rtc``."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
