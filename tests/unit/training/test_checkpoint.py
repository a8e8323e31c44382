"""Checkpoints: complete or absent, damage always noticed, the right ones kept."""

import json
import shutil
from functools import partial

import pytest
import torch
from torch import nn

from llmtune.errors import CheckpointError, ResourceError
from llmtune.training import checkpoint, manifest, optimizers
from llmtune.training.checkpoint import State


def state(*, learned=None) -> State:
    tensors = {"w": torch.arange(6.0).reshape(2, 3)}
    return State(
        save_model=None,
        learned=learned or tensors,
        newest={},
        description={"task": {"type": "classification"}},
        tokenizer_dir=None,
        optimizer={"w/exp_avg": torch.ones(2, 3), "w/step": torch.tensor(3.0)},
        trainer={"step": 3},
        fingerprint={"seed": 0},
        config_digest="ab" * 32,
    )


@pytest.fixture
def saved(tmp_path):
    return checkpoint.save(tmp_path / "checkpoints", state(), step=3)


def test_round_trip(saved):
    content = checkpoint.verify(saved)
    assert saved.name == "step-000003"
    assert content["step"] == 3 and content["fingerprint"] == {"seed": 0}
    assert torch.equal(checkpoint.read_tensors(saved / "learned.safetensors")["w"], torch.arange(6.0).reshape(2, 3))
    assert not list(saved.parent.glob(".*"))


def test_a_file_that_comes_later_is_part_of_it(saved):
    for content in ("[1]", "[2, 3]"):
        (saved / checkpoint.THRESHOLDS).write_text(content)
        manifest.add(saved, checkpoint.THRESHOLDS)
        assert checkpoint.verify(saved)["files"][checkpoint.THRESHOLDS]["size"] == len(content)
    assert checkpoint.verify(saved)["step"] == 3 and not list(saved.glob(".*"))
    (saved / checkpoint.THRESHOLDS).write_text("[2, 4]")
    with pytest.raises(CheckpointError, match="thresholds.json is damaged"):
        checkpoint.verify(saved)


@pytest.mark.parametrize("name", ["learned.safetensors", "optimizer.safetensors", "llmtune.json", "trainer.json"])
@pytest.mark.parametrize("harm", ["flip", "truncate", "remove", "link"])
def test_damage_is_noticed(saved, name, harm):
    file = saved / name
    content = bytearray(file.read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif harm == "truncate":
        file.write_bytes(content[:-1])
    else:
        file.unlink()
        if harm == "link":
            target = saved.parent / "elsewhere"
            target.write_bytes(content)
            file.symlink_to(target)
    with pytest.raises(CheckpointError, match=name):
        checkpoint.verify(saved)


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "damaged"), ("[]", "damaged"), ('{"format": 99, "sha256": ""}', "format 99"), (None, "no manifest")],
)
def test_a_bad_manifest_is_refused(saved, content, words):
    path = saved / manifest.NAME
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(CheckpointError, match=words):
        checkpoint.verify(saved)


def test_every_flipped_bit_of_a_manifest_is_noticed(saved):
    path = saved / manifest.NAME
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :])
        try:
            checkpoint.verify(saved)
        except CheckpointError:
            continue
        assert json.loads(path.read_bytes()) == json.loads(content), at  # blanks between tokens may change, nothing else


def test_a_renamed_step_is_refused(saved):
    other = saved.rename(saved.with_name("step-000004"))
    with pytest.raises(CheckpointError, match="that of step 3"):
        checkpoint.verify(other)


def test_the_newest_good_one_is_found_and_the_bad_one_is_told(tmp_path):
    folder = tmp_path / "checkpoints"
    for step in (9, 10, 100):
        checkpoint.save(folder, state(), step=step)
    (folder / "step-000100" / "trainer.json").write_text("{}")
    shutil.copytree(folder / "step-000009", folder / ".tmp-step-000200.x")
    told = []
    assert checkpoint.newest_good(folder, tell=told.append) == (10, folder / "step-000010")
    assert len(told) == 1 and "step-000100" in told[0] and "trainer.json" in told[0]


def test_rotation_keeps_the_newest_and_the_protected(tmp_path):
    folder = tmp_path / "checkpoints"
    for step in range(1, 6):
        checkpoint.save(folder, state(), step=step)
    checkpoint.point(folder / "best", folder / "step-000002")
    checkpoint.rotate(folder, keep=2, protected={folder / "best"})
    assert [step for step, _ in checkpoint.steps(folder)] == [2, 4, 5]
    assert json.loads((folder / "best" / "trainer.json").read_text()) == {"step": 3}


def test_a_failed_save_leaves_nothing_and_the_old_one_intact(tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoint.save(folder, state(), step=1)

    def disk_full(directory):
        (directory / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    broken = State(disk_full, {}, {}, {}, None, {}, {}, {}, "")
    with pytest.raises(ResourceError, match="step 2 .*No space left"):
        checkpoint.save(folder, broken, step=2)
    assert [p.name for p in folder.iterdir()] == ["step-000001"]
    checkpoint.verify(folder / "step-000001")


@pytest.mark.parametrize(
    "make", [partial(torch.optim.AdamW, lr=0.1, fused=True), partial(torch.optim.SGD, lr=0.1, momentum=0.9)]
)
def test_optimizer_state_round_trip(make):
    torch.manual_seed(0)
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    second.load_state_dict(first.state_dict())
    one, two = make(first.parameters()), make(second.parameters())
    inputs = torch.randn(4, 3)

    def step(model, optimizer):
        optimizer.zero_grad()
        model(inputs).square().sum().backward()
        optimizer.step()

    step(first, one)
    second.load_state_dict(first.state_dict())
    stored = {name: tensor.clone() for name, tensor in optimizers.state_tensors(first, one).items()}
    optimizers.load_state_tensors(second, two, stored)
    step(first, one)
    step(second, two)
    assert torch.equal(first.weight, second.weight)


def test_learned_weights_must_fit():
    model = nn.Linear(3, 2)
    with pytest.raises(CheckpointError, match="do not fit"):
        checkpoint.load_learned(model, {"weight": torch.zeros(2, 3)})
    with pytest.raises(CheckpointError, match=r"weight is \(3, 3\), but the model has \(2, 3\)"):
        checkpoint.load_learned(model, {"weight": torch.zeros(3, 3), "bias": torch.zeros(2)})
