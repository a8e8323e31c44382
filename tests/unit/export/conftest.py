"""Small models with a tokenizer and all that an export is made of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llmtune.config.sections.training import HuggingFaceExport, OnnxExport
from llmtune.data import tokenizer as tokenizers
from llmtune.export import Bundle
from llmtune.models import registry
from llmtune.models.spec import ModelSpec
from llmtune.tasks.base import Batch
from tests import tiny

TEXTS = ["a fine film", "a dull film", "fine and dull", "so so", "not a film at all, but fine"]
FAMILY_OF = {"lstm": ("word", "lstm"), "bert": ("wordpiece", "bert"), "gpt": ("bpe", "gpt")}
HUGGINGFACE, ONNX = HuggingFaceExport(type="huggingface"), OnnxExport(type="onnx", opset=18)


@pytest.fixture
def bundle(section, tmp_path) -> Callable[..., Bundle]:
    """`bundle("bert", "classification")`: a random model of llmtune with the tokenizer that it gets."""

    def make(kind: str, task: str, directory: Path = tmp_path) -> Bundle:
        torch.manual_seed(0)
        if kind == "mlp":
            scales = {
                "num_features": 2,
                "feature_mean": (1.0, -1.0),
                "feature_std": (2.0, 1.0),
                "target_mean": 50.0,
                "target_std": 9.0,
            }
            names = tiny.LABELS if task == "classification" else ()
            built = registry.build(section("model/mlp", hidden_sizes=[4]), ModelSpec(task=task, label_names=names, **scales))
            return Bundle(built.eval(), None, described({"type": task, "feature_names": ["x", "y"]}), {"task": task})
        how, family = FAMILY_OF[kind]
        made = tokenizers.train(how, family=family, vocab_size=300, min_frequency=1, lowercase=True, texts=TEXTS)
        made.save_pretrained(directory / "tokenizer")
        spec = tiny.spec(task, vocab_size=len(made), pad_token_id=made.pad_token_id, eos_token_id=made.eos_token_id)
        more = {"max_ngram": 3, "ngram_buckets": 60} if kind == "lstm" else {"num_heads": 2}
        model = registry.build(section(f"model/{kind}", hidden_size=16, **more), spec).eval()
        for parameter in model.parameters():
            parameter.data.add_(0.2 * torch.randn_like(parameter))
        facts = {"type": task, "max_length": tiny.MAX_LENGTH, "pad_token_id": made.pad_token_id, "token_types": False}
        card = {"task": task, "seed": 7, "data": "reviews.csv", "validation": {"accuracy": 0.912345, "rows": 20}}
        return Bundle(model, directory / "tokenizer", described(facts), card)

    return make


def described(task: dict[str, Any]) -> dict[str, Any]:
    return {
        "llmtune": "0.1",
        "task": task,
        "tokenizer": {},
        "tuning": {"type": "full"},
        "model": {"pretrained": "/home/someone/private"},
    }


def batches(made: Bundle) -> list[Batch]:
    """Of one row and of several, of one token and of as many as the model reads."""
    if made.tokenizer_dir is None:
        return [Batch({"features": torch.randn(n, 2)}, {}, torch.arange(n), torch.ones(n), float(n)) for n in (1, 7)]
    shapes = [(1, 1), (7, tiny.MAX_LENGTH), (2, 5), (7, 1), (1, tiny.MAX_LENGTH)]
    drawn = [tiny.batch(*shape, seed=i) for i, shape in enumerate(shapes)]
    pad = made.description["task"]["pad_token_id"]
    for inputs in drawn:
        ids_BL = inputs["input_ids"] % made.model.config.vocab_size
        inputs["input_ids"] = ids_BL.where(inputs["attention_mask"] == 1, torch.tensor(pad))
    return [
        Batch(x, {}, torch.arange(len(x["input_ids"])), x["attention_mask"].sum(-1), float(len(x["input_ids"]))) for x in drawn
    ]


NUM_ROWS = 18  # of `batches` of texts


def files_of(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}
