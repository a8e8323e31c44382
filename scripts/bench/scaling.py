"""What training costs on several GPUs and machines, on paper: nothing here is measured.

    python scripts/bench/scaling.py [--peak 989] [--share 0.4] [--launch 6]

llmtune trains data-parallel: each GPU holds the whole model and a share of the batch, and the gradients are added up by a ring
once a step, while the backward pass goes on. A step of n GPUs takes

    max(compute, compute / 3 + exchange)

compute: the larger one of tokens of one GPU x FLOP of a token / (peak x share), and the launch of 100 kernels a layer;
exchange: 2 (n - 1) / n x bytes of the gradients / bandwidth of the slowest link.

The first third of the compute is the forward pass, beside which there is nothing to send. Prints Markdown tables: the share of
n times the speed of one GPU that is left, and the memory of a GPU without activations.
"""

import argparse
from dataclasses import dataclass

GIB = 2**30
LINKS = {"NVLink, 450 GB/s": 450e9, "InfiniBand, 50 GB/s": 50e9, "100 GbE, 12.5 GB/s": 12.5e9, "10 GbE, 1.25 GB/s": 1.25e9}
GPUS = (2, 8, 64)
KERNELS = 100  # of a layer in a step


@dataclass(frozen=True)
class Job:
    """A training.

    Attributes:
        name: of model and tuning.
        total: weights.
        learned: those of them that have gradients.
        multiplied: those that a token is multiplied with: no word vectors, unless they are the output layer, too.
        layers, width, length: for the scores of attention.
        tokens: of one GPU in a step.
    """

    name: str
    total: float
    learned: float
    multiplied: float
    layers: int
    width: int
    length: int
    tokens: int

    @property
    def flop(self) -> float:
        """Of a token: 2 for each multiplication, 2 for the gradient of its input, 2 for that of a weight that learns."""
        is_full = self.learned == self.total
        return (6 if is_full else 4) * self.multiplied + 12 * self.layers * self.width * self.length

    @property
    def gradient_bytes(self) -> float:
        return 4 * self.learned

    @property
    def memory(self) -> float:
        """Bytes of weights, gradients and AdamW's two moments in float32, of frozen weights, and of bf16 copies."""
        return 16 * self.learned + 4 * (self.total - self.learned) + 2 * self.multiplied


JOBS = [
    Job("MiniLM (22.7 M), classification", 22.7e6, 22.7e6, 10.7e6, 6, 384, 64, 32 * 64),
    Job("BERT-base (110 M), classification", 110e6, 110e6, 85e6, 12, 768, 128, 32 * 128),
    Job("Llama 135 M, full", 135e6, 135e6, 135e6, 30, 576, 1024, 8 * 1024),
    Job("Llama 135 M, LoRA of rank 16", 135e6, 4.9e6, 135e6, 30, 576, 1024, 8 * 1024),
    Job("Llama 1.2 B, full", 1.24e9, 1.24e9, 1.24e9, 16, 2048, 2048, 4 * 2048),
    Job("Llama 8 B, full", 8.0e9, 8.0e9, 7.5e9, 32, 4096, 2048, 2 * 2048),
    Job("Llama 8 B, LoRA of rank 16", 8.0e9, 42e6, 7.5e9, 32, 4096, 2048, 2 * 2048),
]


def compute_seconds(job: Job, rate: float, launch: float) -> float:
    return max(job.tokens * job.flop / rate, KERNELS * job.layers * launch)


def efficiency(job: Job, gpus: int, bandwidth: float, compute: float) -> float:
    """The share of `gpus` times the speed of one that is left."""
    exchange = 2 * (gpus - 1) / gpus * job.gradient_bytes / bandwidth
    return compute / max(compute, compute / 3 + exchange)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peak", type=float, default=989, help="bf16 TFLOP/s of a GPU on paper; 989: H100, H200")
    parser.add_argument("--share", type=float, default=0.4, help="of it that a training reaches")
    parser.add_argument("--launch", type=float, default=6, help="microseconds that a kernel takes at least")
    arguments = parser.parse_args()
    rate = arguments.peak * 1e12 * arguments.share
    heads = ["job", "tokens/s of one GPU", *(f"{link}: {', '.join(map(str, GPUS))} GPUs" for link in LINKS)]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for job in JOBS:
        seconds = compute_seconds(job, rate, arguments.launch * 1e-6)
        cells = [", ".join(f"{efficiency(job, gpus, bandwidth, seconds):.0%}" for gpus in GPUS) for bandwidth in LINKS.values()]
        print(f"| {job.name} | {job.tokens / seconds:,.0f} | {' | '.join(cells)} |")
    print("\n| job | memory of a GPU before activations, GiB | a checkpoint, GiB |\n|---|---|---|")
    for job in JOBS:
        saved = 12 * job.learned  # weights and two moments
        print(f"| {job.name} | {job.memory / GIB:.1f} | {saved / GIB:.2f} |")


if __name__ == "__main__":
    main()
