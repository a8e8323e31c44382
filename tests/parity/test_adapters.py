"""Each kind of adapter gives the loss and the gradients of peft's own use of it, and merged weights the same answers."""

import copy
import json

import peft
import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import nn

from llmtune import tuning
from llmtune.config.sections.tuning import (
    DoraTuning,
    Ia3Tuning,
    PissaTuning,
    PrefixTuning,
    PromptTuning,
    RsLoraTuning,
    TuningConfig,
)
from llmtune.models import adapters as adapter_files
from llmtune.models import first_token
from llmtune.training import low_rank
from llmtune.training.lowered import Lowered
from llmtune.tuning import saved
from tests import tiny

LOW = {"rank": 3, "alpha": 6.0, "dropout": 0.0, "target_modules": None}
THEIR_LOW = {"r": 3, "lora_alpha": 6, "target_modules": "all-linear"}
OURS: dict[str, TuningConfig] = {
    "dora": DoraTuning(type="dora", **LOW),
    "rslora": RsLoraTuning(type="rslora", **LOW),
    "pissa": PissaTuning(type="pissa", **LOW),
    "ia3": Ia3Tuning(type="ia3", target_modules=None, feedforward_modules=None),
    "prefix": PrefixTuning(type="prefix", num_virtual_tokens=4, projection_size=None),
    "projected prefix": PrefixTuning(type="prefix", num_virtual_tokens=4, projection_size=8),
    "prompt": PromptTuning(type="prompt", num_virtual_tokens=4),
}
THEIRS = {
    "dora": lambda task: peft.LoraConfig(**THEIR_LOW, use_dora=True, task_type=task),
    "rslora": lambda task: peft.LoraConfig(**THEIR_LOW, use_rslora=True, task_type=task),
    "pissa": lambda task: peft.LoraConfig(**THEIR_LOW, init_lora_weights="pissa", task_type=task),
    "ia3": lambda task: peft.IA3Config(task_type=task),
    "prefix": lambda task: peft.PrefixTuningConfig(num_virtual_tokens=4, task_type=task),
    "projected prefix": lambda task: peft.PrefixTuningConfig(
        num_virtual_tokens=4, prefix_projection=True, encoder_hidden_size=8, task_type=task
    ),
    "prompt": lambda task: peft.PromptTuningConfig(num_virtual_tokens=4, task_type=task),
}
MODELS = [("bert", "classification"), ("roberta", "classification"), ("llama", "causal_lm"), ("gpt2", "causal_lm")]
CASES = [(kind, name, task) for kind in OURS for name, task in MODELS]


def learned(model: nn.Module) -> dict[str, nn.Parameter]:
    return {n.replace("modules_to_save.default.", ""): p for n, p in model.named_parameters() if p.requires_grad}


def moved(model: nn.Module, *, by: float = 0.1) -> nn.Module:
    """The weights that learn, each changed at random, the same for models of the same names."""
    for i, (_, parameter) in enumerate(sorted(learned(model).items())):
        parameter.data.add_(by * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
    return model


def loss_of(model: nn.Module, logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    if logits.ndim == 2:
        return F.cross_entropy(logits, torch.tensor([2, 0, 1]))
    return F.cross_entropy(logits[:, -batch["input_ids"].shape[1] :].flatten(0, 1), batch["input_ids"].flatten())


@pytest.mark.parametrize(("kind", "name", "task"), CASES)
def test_loss_and_gradients(kind, name, task):
    plain, batch = tiny.model(name, task), tiny.batch()
    theirs = get_peft_model(copy.deepcopy(plain), THEIRS[kind]("SEQ_CLS" if task == "classification" else "CAUSAL_LM"))
    first_token.install(plain)
    ours = tuning.apply(copy.deepcopy(plain), OURS[kind], max_length=7)
    expected, found = learned(theirs), learned(ours)
    assert expected.keys() == found.keys() and expected
    if kind == "pissa":  # the start is the same, too, but for the signs of singular vectors
        start = theirs.eval()(**batch).logits, ours.eval()(**batch).logits
        assert torch.allclose(*start, rtol=0, atol=1e-5)
    with torch.no_grad():
        for parameter_name, parameter in expected.items():
            found[parameter_name].copy_(parameter.add_(0.1 * torch.randn_like(parameter)))
    losses = [loss_of(model, model.eval()(**batch).logits, batch) for model in (theirs, ours)]
    for loss in losses:
        loss.backward()
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)
    for parameter_name, parameter in expected.items():
        assert parameter.grad.abs().sum() > 0
        assert torch.allclose(found[parameter_name].grad, parameter.grad, rtol=0, atol=1e-6), parameter_name


@pytest.mark.parametrize("kind", ["dora", "rslora", "pissa", "ia3"])
@pytest.mark.parametrize(("name", "task"), MODELS)
def test_merged_weights_give_what_the_adapter_gives(kind, name, task):
    batch = tiny.batch()
    model = moved(tuning.apply(tiny.model(name, task), OURS[kind])).eval()
    with torch.no_grad():
        logits = model(**batch).logits
        merged = tuning.merged(model)
        assert not any(saved.is_of_adapter(n) for n in merged.state_dict())
        assert torch.allclose(merged(**batch).logits, logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "name", "task"),
    [*CASES, ("prompt", "bert", "tagging"), ("prefix", "bert", "tagging"), ("prompt", "electra", "classification")],
)
def test_peft_loads_what_is_written(kind, name, task, tmp_path):
    plain, batch = tiny.model(name, task), tiny.batch()
    model = moved(tuning.apply(copy.deepcopy(plain), OURS[kind], max_length=7)).eval()
    config, tensors = saved.described(model)
    save_file(tensors, tmp_path / adapter_files.WEIGHTS)
    (tmp_path / adapter_files.CONFIG).write_text(json.dumps(config))
    theirs = PeftModel.from_pretrained(copy.deepcopy(plain), tmp_path).eval()
    again = saved.attach(copy.deepcopy(plain), adapter_files.read_config(tmp_path), saved.split(tensors)[0], where="x")
    assert saved.take_head(again.get_base_model(), saved.split(tensors)[1])
    with torch.no_grad():
        logits = model(**batch).logits
        length = batch["input_ids"].shape[1]
        assert torch.allclose(again.eval()(**batch).logits, logits, rtol=0, atol=1e-6)
        found = theirs(**batch).logits
        assert torch.allclose(found[:, -length:] if found.ndim == 3 else found, logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["dora", "ia3", "prefix", "prompt"])
def test_what_is_no_plain_low_rank_update_is_left_to_peft_on_the_cpu(kind):
    """Layers that hold bfloat16, and those that are one function, change nothing."""
    model = moved(tuning.apply(tiny.model("bert", "classification"), OURS[kind], max_length=7)).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    other, batch = copy.deepcopy(model), tiny.batch()
    low_rank.install(other)
    Lowered(other, keep_in=None)
    assert kind == "dora" or any(p.dtype == torch.bfloat16 for p in other.parameters())
    for one in (model, other):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            one(**batch).logits.float().square().sum().backward()
    expected, found = learned(model), learned(other)
    assert all(torch.equal(found[name].grad, parameter.grad) for name, parameter in expected.items())
