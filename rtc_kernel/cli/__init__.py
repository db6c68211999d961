"""What does ``jupyter rtc …`` do? The hallway of the command line: one module per group of commands.

* ``grammar``   every command with its arguments
* ``running``   run a notebook headless
* ``kernels``   list, status, share, unshare: the kernels that live on this machine
* ``attaching`` attach, detach: follow a kernel that somebody else has started
* ``watching``  watch: follow a kernel in the terminal
* ``executing`` exec: run code on a kernel that lives
* ``acting``    interrupt, restart, queue: act on a kernel through its document
* ``offering``  mcp: offer kernels to an agent program
* ``histories`` history, show, export: of kernels that live or are dead
* ``replaying`` replay: show recorded runs again, as they went
* ``rerunning`` rerun: run a history on a fresh kernel, and compare
* ``pruning``   prune: take the oldest executions out of histories
* ``specs``     install, uninstall: kernelspecs

stdout is for what was asked for, stderr for everything else, so that ``--json`` and ``-o -`` can be piped.
Whatever the user can mend ends as one line on stderr and an exit code, never as a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from .. import config, rooms
from ..errors import RTCError, SetupError
from .grammar import load, parser

USAGE_EXIT_CODE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # outputs have characters that a locale may not have
            stream.reconfigure(errors="replace")
    settings, argv = config.split_argv(argv)
    if "--help-all" in argv:
        sys.stdout.write(parser().format_help() + "\n" + config.help_all() + "\n")
        return 0
    args = parser().parse_args(argv)
    if args.command is None:
        parser().print_help()
        return USAGE_EXIT_CODE
    try:
        known = config.load(settings)
        if rooms.is_link(getattr(args, "target", None) or ""):
            args.token = args.token or rooms.parse_link(args.target).token or known.relay_token
        code = load(args.command)(args, known)
        sys.stdout.flush()
        return code
    except SetupError as exc:
        sys.stderr.write(f"jupyter rtc: {exc}\n")
        return exc.exit_code
    except RTCError as exc:
        sys.stderr.write(f"jupyter rtc: {exc}; this should not happen, please report it\n")
        return exc.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
