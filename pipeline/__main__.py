"""`ecg-digitize`, or `python -m pipeline`."""

from __future__ import annotations

import os
import sys

PROGRAM = "ecg-digitize"
_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main() -> None:
    """Run the command line and end the process.

    The exit status is 0 where every page was read, 1 where one was not, 2 for a wrong command line or a wrong file of
    layouts, and 130 after Ctrl-C.
    """
    try:
        from pipeline.command_line import app  # here, so that Ctrl-C ends without a traceback while torch loads, too

        app(prog_name=PROGRAM)
    except SystemExit as ended:
        status = ended.code
    except KeyboardInterrupt:
        status = _INTERRUPTED
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has ended, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)


if __name__ == "__main__":
    main()
