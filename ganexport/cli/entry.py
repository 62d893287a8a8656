"""Where `gan` begins: Ctrl-C while all else is imported ends it as it does later, in a line."""

import sys


def main() -> None:
    """The `gan` command, see `ganexport.cli.gan`."""
    try:
        from ganexport.cli.gan import main as run
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)  # Ending.INTERRUPTED, which may not be there yet
    run()
