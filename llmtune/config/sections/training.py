"""How long, on what machine, and what comes out."""

from typing import Annotated, Literal

from pydantic import Field

from llmtune.config.sections.base import Count, Fraction, Name, Positive, Precision, Section

Drift = Literal[
    "data",
    "batch_size",
    "max_tokens_per_batch",
    "gradient_accumulation_steps",
    "group_by_length",
    "threads",
    "ranks",
    "device",
    "cpu",
    "precision",
    "compile",
    "torch",
    "transformers",
    "augment",
]


class TrainingConfig(Section):
    """How long, in what batches, and what is kept."""

    epochs: Annotated[float, Field(gt=0, le=1_000_000)] | None
    """Passes over the train rows; null: max_steps decides."""
    max_steps: Count | None
    """Optimizer steps; if epochs is set too, the run ends at whichever comes first. null: epochs decides."""
    batch_size: Count
    """Examples of one optimizer step, over all devices and micro-batches."""
    max_tokens_per_batch: Count | None
    """Token budget of one optimizer step, padding included, instead of batch_size."""
    gradient_accumulation_steps: Count
    """Micro-batches that one optimizer step is cut into, to save memory."""
    activation_checkpointing: bool
    """Whether each layer's forward pass is computed again in the backward pass, to save memory; results stay the same."""
    layer_drop: Fraction
    """Share of a transformers model's layers that a pass in training goes without, at random. Fan et al. 2020 (LayerDrop)."""
    max_grad_norm: Positive | None
    """Gradients are scaled down to this norm; null: never."""
    group_by_length: bool
    """Whether examples of similar length share a batch: less padding."""
    log_every: Count
    """Steps between two lines of the log."""
    eval_every: Count | None
    """Steps between two evaluations; null: after each epoch."""
    save_every: Count | None
    """Steps between two checkpoints besides those at evaluations; null: none."""
    keep_checkpoints: Count
    """Newest checkpoints to keep; the best one is always kept."""
    early_stopping_patience: Count | None
    """Evaluations without improvement after which training stops; null: never."""
    best_metric: Name | None
    """Validation metric that decides which checkpoint is the best; null: the task's own."""
    resume: Name
    """auto: go on with the newest unfinished run of the same config; never; must; or a run directory."""
    allow_drift: list[Drift]
    """What may differ from the run's beginning when it is resumed; it then no longer equals the uninterrupted run."""
    profile: bool
    """Whether 20 steps are watched and a table tells where their time goes."""
    exact: bool
    """Whether a repeated or resumed run equals the first bit for bit (deterministic algorithms)."""


class HardwareConfig(Section):
    """Where and how the numbers are computed."""

    device: Literal["auto", "cuda", "cpu"]
    """auto: the GPU if there is one."""
    precision: Precision
    """Precision of training; auto: bf16 where the device is fast at it, else fp32."""
    num_threads: Annotated[int, Field(ge=1, le=1024)] | None
    """CPU threads of torch; null: one a core."""
    num_workers: Annotated[int, Field(ge=0, le=256)]
    """Processes that prepare batches beside the training; 0: none."""
    compile: bool
    """Whether torch.compile is used."""


class EvaluationConfig(Section):
    """How predictions are made and scored. The result does not depend on the batch size."""

    batch_size: Count
    """Examples predicted at once."""
    precision: Precision
    """Precision of evaluation."""
    generate_rows: Annotated[int, Field(ge=0, lt=2**31)]
    """For models that write text: rows for which answers are written, compared with the reference and shown; 0: none."""
    max_new_tokens: Count
    """Tokens of such an answer at most."""


class HuggingFaceExport(Section):
    """A transformers directory: safetensors, tokenizer, label names, model card."""

    type: Literal["huggingface"]


class OnnxExport(Section):
    """An ONNX graph with dynamic batch and length, and its tokenizer."""

    type: Literal["onnx"]
    opset: Annotated[int, Field(ge=17, le=23)]
    """Version of the ONNX operator set."""


class AdapterExport(Section):
    """What an adapter has learned, alone: a directory of peft's, for the weights that it was trained on."""

    type: Literal["adapter"]


class GgufExport(Section):
    """A GGUF file for llama.cpp and ollama: a causal language model, its tokenizer and chat template in one."""

    type: Literal["gguf"]
    outtype: Literal["f32", "f16", "q8_0"]
    """How the matrices are stored: as they are, in half precision, or in 8 bits, 32 at a time."""


ExportConfig = Annotated[HuggingFaceExport | AdapterExport | OnnxExport | GgufExport, Field(discriminator="type")]
