"""A model, ready to write: on its device, with its weights in the precision that it computes in."""

from llmtune import console
from llmtune.config.sections.generation import Sampling
from llmtune.config.sections.training import HardwareConfig
from llmtune.generation.prompts import Prompts
from llmtune.generation.writer import Writer
from llmtune.training import precision
from llmtune.training.precision import DTYPES, Compute
from llmtune.training.restore import Restored


def writer_of(
    restored: Restored, prompts: Prompts, *, hardware: HardwareConfig, how: Sampling, slides: bool | None = None
) -> tuple[Writer, Compute]:
    """A writer for a restored model, whose weights are changed for it.

    Reading weights is most of the work for a new token: in bfloat16 they are half as large.

    Args:
        restored: a causal model.
        prompts: for it.
        hardware: device and precision; 'auto' is bf16 where the device is fast at it.
        how: sampling.
        slides: whether texts outgrow the window; None: plain texts do, conversations, which would lose their beginning, do not.
    """
    precision.set_up(hardware, exact=True)
    compute = precision.choose(hardware, precision=hardware.precision, is_transformer=True)
    model = restored.model.to(compute.device, DTYPES[compute.precision]).eval()
    slides = prompts.chat is None if slides is None else slides
    return Writer(model, prompts, how, slides=slides), compute


def tell_windows(writer: Writer, prompts: Prompts) -> None:
    """Say how many texts have outgrown the window."""
    if writer.num_slid:
        texts = "1 text was" if writer.num_slid == 1 else f"{writer.num_slid:,} texts were"
        console.notice(f"{texts} longer than the model's window of {prompts.window:,} tokens: it read the ends")
