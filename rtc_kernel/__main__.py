"""What the kernelspec starts: ``python -m rtc_kernel [--kernel NAME] -f CONNECTION_FILE [arguments of the child]``."""

import sys

from .errors import SetupError
from .relay.launch import Launch, parse_argv


def main(argv: list[str]) -> None:
    """Start the child, and only then load what relays for it. A :class:`SetupError` is one line and an exit code."""
    options = parse_argv(argv)
    if options.help_all:
        from .config import help_all

        sys.stdout.write(help_all() + "\n")
        return
    try:
        launch = Launch(options)
        launch.start()
    except SetupError as exc:
        sys.stderr.write(f"rtc_kernel: {exc}\n")
        sys.exit(exc.exit_code)
    from .relay.app import run

    run(launch)


if __name__ == "__main__":
    main(sys.argv[1:])
