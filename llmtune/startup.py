"""What makes a command start soon: imports collect nothing."""

import contextlib
import gc
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """While modules are imported nothing is collected as garbage: an eighth of the time of importing torch and transformers.

    What they make comes to stay, and is set aside afterwards (`gc.freeze`): no later collection visits it. Where they are
    there already nothing is done, lest garbage is set aside too.
    """
    if "transformers" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if "transformers" in sys.modules:
            gc.freeze()
        gc.enable()
