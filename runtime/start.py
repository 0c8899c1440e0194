"""Where `c2gm-infer` begins: Ctrl-C is answered at once, while libraries are still being loaded."""

import os
import signal
from types import FrameType

STOPPED = "stopped before anything was made; run the same command again"


def main() -> None:
    """Load the command and run it; see `cli.main`."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    from c2gm.runtime.cli import main as command

    signal.signal(signal.SIGINT, signal.default_int_handler)
    command()


def _leave(number: int, frame: FrameType | None) -> None:
    """End the process here: nothing is open yet, and an import cannot be interrupted cleanly."""
    os.write(2, f"c2gm-infer: error: {STOPPED}\n".encode())
    os._exit(130)
