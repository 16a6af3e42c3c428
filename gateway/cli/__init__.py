"""The command line `ecg-gateway`: arguments come in; listings go to standard output, errors to standard error.

One module holds one group of commands; `commands` puts them together.  Patient data is printed only where `--patient`
asks for it; `merges` prints the patient IDs that it is about.
"""

from __future__ import annotations

import os
import signal
import sys

_INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main() -> None:
    """Run the command line and end the process.

    The exit status is 0 where all is done, 1 where something failed, 2 for a wrong command line or wrong settings, and
    130 after Ctrl-C.  An error of the gateway is one line on standard error.
    """
    if sys.argv[1:2] in (["serve"], ["worker"]):  # it asks them to reload, and ends neither, even before they are up
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        from gateway.cli.commands import run  # here, so that Ctrl-C ends without a traceback while it loads, too

        status = run()
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = _INTERRUPTED
    except BrokenPipeError:  # the reader of our output has ended, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)
