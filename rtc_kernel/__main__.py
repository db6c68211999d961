"""What the kernelspec starts: ``python -m rtc_kernel [--kernel NAME] -f CONNECTION_FILE [arguments of the child]``."""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # The working directory is the notebook's, and stands first: a json.py in it would be ours. The child gets it back.
    del sys.path[0]

from .errors import SetupError
from .relay.launch import STARTED, Handed, Launch, parse_argv, take_handed


def main(argv: list[str]) -> None:
    """Start the child, and only then load what relays for it. A :class:`SetupError` is one line and an exit code."""
    options = parse_argv(argv)
    if options.help_all:
        from .config import help_all

        sys.stdout.write(help_all() + "\n")
        return
    handed: Handed | None = None
    try:
        handed = take_handed()
        launch = Launch(options, handed)
        launch.start()
    except SetupError as exc:
        sys.stderr.write(f"rtc_kernel: {exc}\n")
        if handed:
            handed.tell(str(exc))
        sys.exit(exc.exit_code)
    if handed:
        handed.tell(STARTED)
    from .relay.app import run

    run(launch)


if __name__ == "__main__":
    main(sys.argv[1:])
