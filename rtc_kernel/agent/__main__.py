"""What the relay starts beside the kernel: the agent. ``python -m rtc_kernel.agent --link FD [--RTCKernel.…]``."""

import sys

from .app import main

if __name__ == "__main__":
    main(sys.argv[1:])
