"""A small GPT on the characters of Shakespeare: llmtune, and a plain loop of the shape of nanoGPT.

    python scripts/bench/peers/gpt_shakespeare.py INPUT.txt [--rounds 3] [--steps 2000]

4 layers, 4 heads, width 128, context 64, batch 12, no dropout; AdamW with betas 0.9 and 0.99, a cosine from 1e-3 to 1e-4 after
100 steps. On a CPU nanoGPT computes in float32 and leaves AdamW unfused; the loop runs so, and, faster than nanoGPT can be set,
with the fused optimizer and in bf16; each as it is and compiled. The last tenth of the text is held out. Prints a Markdown
table: tokens a second after the first steps, in which the compiler works, and the loss for each character of the last tenth
in blocks of 64.
"""

import itertools
import math
from pathlib import Path
from typing import Any

import common

LAYERS, HEADS, WIDTH, CONTEXT, BATCH = 4, 4, 128, 64, 12
LR, MIN_LR, WARMUP, DECAY, BETAS = 1e-3, 1e-4, 100, 0.1, (0.9, 0.99)
SKIP = 20  # steps


def overrides(train: Path, test: Path, steps: int, seed: int) -> list[str]:
    return [
        "+recipe=gpt_lm",
        "data.where={}",
        f"data.train_file={train}",
        f"data.test_file={test}",
        "split=contiguous",
        "split.validation_fraction=0",
        "tokenizer=char",
        f"tokenizer.max_length={CONTEXT}",
        f"model.num_layers={LAYERS}",
        f"model.num_heads={HEADS}",
        f"model.hidden_size={WIDTH}",
        "model.dropout=0",
        f"optimizer.lr={LR}",
        f"optimizer.weight_decay={DECAY}",
        f"optimizer.beta2={BETAS[1]}",
        f"schedule.min_lr_ratio={MIN_LR / LR}",
        f"schedule.warmup_steps={min(WARMUP, steps)}",
        "training.epochs=null",
        f"training.max_steps={steps}",
        f"training.batch_size={BATCH}",
        "training.group_by_length=false",
        "hardware.device=cpu",
        f"seed={seed}",
    ]


def gpt(vocab_size: int) -> Any:
    """nanoGPT's model without biases: pre-norm blocks, fused attention, the head tied to the embedding."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(WIDTH))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.layer_norm(x, self.weight.shape, self.weight, None, 1e-5)

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.c_attn(x).split(WIDTH, -1))
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.c_proj(mixed.transpose(1, 2).flatten(2))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln_1, self.attn, self.ln_2 = Norm(), Attention(), Norm()
            self.c_fc, self.c_proj = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.attn(self.ln_1(x))
            return x + self.c_proj(F.gelu(self.c_fc(self.ln_2(x))))

    class Gpt(nn.Module):
        def __init__(self):
            super().__init__()
            self.wte, self.wpe = nn.Embedding(vocab_size, WIDTH), nn.Embedding(CONTEXT, WIDTH)
            self.blocks, self.ln_f = nn.ModuleList(Block() for _ in range(LAYERS)), Norm()
            for name, p in self.named_parameters():
                if p.dim() > 1:
                    nn.init.normal_(p, std=0.02 / math.sqrt(2 * LAYERS) if name.endswith("c_proj.weight") else 0.02)

        def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
            for block in self.blocks:
                x = block(x)
            return F.cross_entropy((self.ln_f(x) @ self.wte.weight.T).flatten(0, 1), targets.flatten())

    return Gpt()


def loop(train: str, test: str, steps: int, is_compiled: bool, is_bf16: bool, is_fused: bool, seed: int) -> common.Result:
    """To be called: nanoGPT's loop on the CPU."""
    import torch

    torch.manual_seed(seed)
    texts = {name: Path(file).read_text(encoding="utf-8") for name, file in (("train", train), ("test", test))}
    chars = {char: i for i, char in enumerate(sorted(set("".join(texts.values()))))}
    data = {name: torch.tensor([chars[c] for c in text]) for name, text in texts.items()}
    net = gpt(len(chars))
    groups = [
        {"params": [p for p in net.parameters() if p.dim() > 1], "weight_decay": DECAY},
        {"params": [p for p in net.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, fused=is_fused)
    warmup = min(WARMUP, steps)
    called, clock = torch.compile(net) if is_compiled else net, common.Clock()
    for step in range(steps):
        progress = (step - warmup) / max(1, steps - warmup)
        lr = LR * (step + 1) / warmup if progress < 0 else MIN_LR + (LR - MIN_LR) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = lr
        starts = torch.randint(len(data["train"]) - CONTEXT, (BATCH,)).tolist()
        ids, targets = (torch.stack([data["train"][i + by : i + by + CONTEXT] for i in starts]) for by in (0, 1))
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
            loss = called(ids, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.tick(tokens=ids.numel())
    return {"steps": clock.steps, "loss": held_out_loss(net, data["test"])}


def held_out_loss(net: Any, ids: Any) -> float:
    """Every character but the first, each predicted once, in float32."""
    import torch

    total = 0.0
    with torch.inference_mode():
        for block, targets in zip(ids[:-1].split(64 * CONTEXT), ids[1:].split(64 * CONTEXT), strict=True):
            whole = len(block) // CONTEXT * CONTEXT
            if whole:
                total += float(net(block[:whole].view(-1, CONTEXT), targets[:whole].view(-1, CONTEXT))) * whole
            if whole < len(block):
                total += float(net(block[None, whole:], targets[None, whole:])) * (len(block) - whole)
    return total / (len(ids) - 1)


def finished(result: common.Result) -> common.Result:
    loss = result["metrics"]["loss"] if "metrics" in result else result["loss"]
    return {"tokens_per_second": common.rate(result["steps"], "tokens", skip=SKIP), "loss": loss}


def main() -> None:
    parser = common.parser(__doc__, overrides=True)
    parser.add_argument("text", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--characters", type=int, help="at most so many; else the whole text")
    arguments = parser.parse_args()
    steps = arguments.steps
    lines = arguments.text.read_text(encoding="utf-8")[: arguments.characters].splitlines(keepends=True)
    with common.work_folder(arguments.threads) as folder:
        files = {"train": folder / "train.txt", "test": folder / "test.txt"}
        for file, part in zip(files.values(), (lines[: len(lines) * 9 // 10], lines[len(lines) * 9 // 10 :]), strict=True):
            file.write_text("".join(part), encoding="utf-8")

        def ours(number: int) -> common.Result:
            words = [*overrides(**files, steps=steps, seed=number), *arguments.overrides]
            return finished(common.call(common.llmtune, words=words, folder=folder))

        def theirs(number: int, how: common.Result) -> common.Result:
            return finished(common.call(loop, **files, steps=steps, seed=number, **how))

        sides = {"llmtune": ours}
        kinds = {"as nanoGPT sets it": (False, False), "float32, fused AdamW": (False, True), "bf16, fused AdamW": (True, True)}
        for (kind, (is_bf16, is_fused)), is_compiled in itertools.product(kinds.items(), (False, True)):
            how = {"is_compiled": is_compiled, "is_bf16": is_bf16, "is_fused": is_fused}
            name = f"loop, {kind}{', compiled' if is_compiled else ''}"
            sides[name] = lambda number, how=how: theirs(number, how)
        results = common.in_turns(sides, arguments.rounds)
    columns = {"tokens/s": ("tokens_per_second", ",.0f"), "held-out loss": ("loss", ".4f")}
    common.compare(results, columns, by="tokens_per_second")


if __name__ == "__main__":
    main()
