"""What an exception of Python or a library means to a user."""

import errno
import os
import re

from llmtune.errors import LlmtuneError, ResourceError

# module -> the extra that brings it
EXTRAS = {"peft": "lora", "onnx": "onnx", "onnxruntime": "onnx", "matplotlib": "plots"}


def as_llmtune_error(error: BaseException) -> LlmtuneError | None:
    """The error to show, or None for a bug of ours."""
    if isinstance(error, LlmtuneError):
        return error
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error):
        remedy = "a smaller training.batch_size or tokenizer.max_length, or a smaller model"
        return ResourceError("The memory is used up.", remedy=remedy)
    if isinstance(error, ModuleNotFoundError) and error.name and (package := error.name.partition(".")[0]) in EXTRAS:
        return ResourceError(f"The package {package} is not installed.", remedy=f"pip install 'llmtune[{EXTRAS[package]}]'")
    if type(error).__name__ == "SafetensorError" and (number := re.search(r"\(os error (\d+)\)", str(error))):
        error = OSError(int(number[1]), os.strerror(int(number[1])))
    if isinstance(error, OSError) and (told := _os_error(error)):
        return told
    return None


def _os_error(error: OSError) -> ResourceError | None:
    remedies = {
        errno.ENOSPC: "make room on the disk, or choose another one with output_dir=...",
        errno.EDQUOT: "make room below your quota, or choose another disk with output_dir=...",
        errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
        errno.EACCES: "check the permissions, or choose another folder",
        errno.EPERM: "check the permissions, or choose another folder",
        errno.EROFS: "choose a folder that can be written to, such as output_dir=...",
        errno.EMFILE: "raise the limit on open files (ulimit -n)",
        errno.ENFILE: "too many files are open on this machine",
        errno.ENOMEM: "free memory, or use a smaller training.batch_size",
        errno.EIO: "the disk or network drive may be failing: check the system's log",
    }
    if "No usable temporary directory" in str(error):
        return ResourceError("There is no temporary folder that can be written to.", remedy="set TMPDIR")
    if error.errno not in remedies:
        return None
    where = str(error.filename) if error.filename is not None else None
    return ResourceError(f"The system refused: {os.strerror(error.errno)}.", where=where, remedy=remedies[error.errno])
