"""What the relay starts beside the kernel: the agent. ``python -m rtc_kernel.agent --link FD [--RTCKernel.…]``."""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]  # the working directory: what lies there is not ours

from .app import main

if __name__ == "__main__":
    main(sys.argv[1:])
