"""Where the exporter writes: the operating system's errors as ours."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from c2gm.runtime.errors import DiskFullError, OutputError

PARITY_NAME = "parity.json"
SUFFIX = ".c2gm"


@contextmanager
def writing(output: Path) -> Iterator[None]:
    """Within this context an OSError becomes OutputError, or DiskFullError, about `output`.

    For what is made beside its place and moved there at the end, so that nothing was written.
    """
    try:
        yield
    except OSError as error:
        kind = DiskFullError if error.errno == errno.ENOSPC else OutputError
        raise kind(
            f"{output} cannot be written ({error.strerror or error}); nothing was"
        ) from error
