"""What makes a command start soon: torch's libraries are loaded beside the config's check, and imports collect nothing."""

import contextlib
import gc
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

_loading: threading.Thread | None = None


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


def load_torch_ahead() -> None:
    """Begin to load the shared libraries of torch in a thread; Python imports nothing yet.

    On Linux with several cores, for a torch without GPU libraries.
    `import torch` finds them there, or waits for them. What goes wrong here goes wrong there again, and is told there.
    """
    global _loading
    if sys.platform == "linux" and _loading is None and "torch" not in sys.modules and len(os.sched_getaffinity(0)) > 1:
        _loading = threading.Thread(target=_load_torch, name="load torch")
        _loading.start()


def end_now_if_in_vain(code: int) -> None:
    """End the process if torch's libraries were loaded for nothing, as after a config mistake: it need not wait for them."""
    if _loading is not None and "torch" not in sys.modules:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _load_torch() -> None:
    import ctypes
    from importlib.util import find_spec

    with contextlib.suppress(Exception):
        folder = Path(find_spec("torch").origin).parent / "lib"
        if any((folder / f"libtorch_{kind}.so").exists() for kind in ("cuda", "hip", "xpu")):
            return  # torch looks for their companions itself, in an order of its own
        # As a foreign function it lets other threads run; ctypes.CDLL(library) would not.
        dlopen = ctypes.CDLL(None).dlopen
        dlopen(os.fsencode(folder / "libtorch_global_deps.so"), os.RTLD_NOW | os.RTLD_GLOBAL)  # first, as torch does
        dlopen(os.fsencode(folder / "libtorch_python.so"), os.RTLD_NOW | os.RTLD_LOCAL)
