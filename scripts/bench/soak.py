"""A long run seen from outside: does its memory, its disk use or its number of open files grow?

    python scripts/bench/soak.py [--steps 2000] [--models lstm bert]

A small LSTM with augmented rows and a small BERT masked-LM save every 20 steps and evaluate every 100. What /proc and the
folder of checkpoints tell about the process is noted beside it. Prints a Markdown table.
"""

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from kills import MODELS

EVERY_MEMORY = 1.0  # seconds between two readings
EVERY_DISK = 0.02  # a save of a small model takes not much longer
WARM = 200  # steps, after which memory is not to grow
GROWTH_GOAL = 0.02
KEEP = 2
DISK_GOAL = KEEP + 2  # checkpoints: those that are kept, the best where it is none of them, and one being written
PAGE = os.sysconf("SC_PAGE_SIZE")
OVERRIDES = [
    "data.train_file=rows.csv",
    "seed=7",
    "tokenizer.vocab_size=300",
    "tokenizer.max_length=64",
    "training.epochs=null",
    "training.batch_size=32",
    "training.save_every=20",
    "training.eval_every=100",
    f"training.keep_checkpoints={KEEP}",
    "hardware.device=cpu",
    "hardware.num_threads=1",
]
SIZES = {
    "lstm": ["model.embedding_size=64", "model.hidden_size=96"],
    "bert": ["model.num_layers=2", "model.num_heads=2", "model.hidden_size=64"],
}


@dataclass(frozen=True)
class Reading:
    """Of one moment. Bytes, but for the number of open files."""

    step: int
    resident: int
    anonymous: int
    open_files: int


@dataclass
class Watched:
    readings: list[Reading]
    largest_disk: int
    most_steps: int  # step directories at one moment, the hidden ones of a save or a removal included
    seconds: float
    run: Path


def write_rows(folder: Path) -> None:
    """4,000 rows of two classes, of 5 to 60 words."""
    rng = random.Random(0)
    words = [a + b + c for a in ("ba", "do", "ki", "lu") for b in ("ra", "si", "tu", "vo") for c in ("", "n", "st")]
    lines = ["text,label"]
    for i in range(4000):
        lines.append(f"{' '.join(rng.choices(words, k=rng.randint(5, 60)))},{'yes' if i % 2 else 'not'}")
    (folder / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def memory(pid: int) -> tuple[int, int]:
    """Resident bytes, and those of them that no file backs."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    resident, anonymous = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "RssAnon"))
    return resident, anonymous


def disk(folder: Path) -> tuple[int, int]:
    """Bytes of the files below, and the number of folders; what goes away meanwhile counts as far as it was seen."""
    num_bytes = num_folders = 0
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if entry.is_symlink():
                continue
            if not entry.is_dir():
                num_bytes += entry.stat().st_size
                continue
            num_folders += 1
            with contextlib.suppress(OSError):
                num_bytes += sum(file.stat().st_size for file in os.scandir(entry))
    return num_bytes, num_folders


def last_step(log: Path) -> int:
    """The step of the last whole line of metrics.jsonl."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            return json.loads(file.read().rpartition(b"\n")[0].rpartition(b"\n")[2])["step"]
    except (OSError, ValueError, KeyError):
        return 0


def watch(model: str, folder: Path, *, steps: int) -> Watched:
    folder.mkdir()
    write_rows(folder)
    words = [*OVERRIDES, *MODELS[model], *SIZES[model], f"training.max_steps={steps}"]
    command = [sys.executable, "-m", "llmtune", "train", *words]
    readings: list[Reading] = []
    largest, most = 0, 0
    started = next_reading = time.monotonic()
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        run = None
        while process.poll() is None:
            run = run or next((path for path in folder.glob("runs/*/2*") if path.is_dir()), None)
            if run is not None:
                num_bytes, num_folders = disk(run / "checkpoints")
                largest, most = max(largest, num_bytes), max(most, num_folders)
            if run is not None and time.monotonic() >= next_reading:
                with contextlib.suppress(OSError, KeyError):  # it has ended meanwhile
                    open_files = len(os.listdir(f"/proc/{process.pid}/fd"))
                    readings.append(Reading(last_step(run / "metrics.jsonl"), *memory(process.pid), open_files))
                next_reading += EVERY_MEMORY
            time.sleep(EVERY_DISK)
    if process.returncode or run is None:
        sys.exit(f"{model} ends with {process.returncode}:\n{(folder / 'output').read_text()[-3000:]}")
    return Watched(readings, largest, most, time.monotonic() - started, run)


def leftovers(run: Path) -> list[str]:
    """What lies in a finished run beyond what belongs there."""
    checkpoints = run / "checkpoints"
    known = {"checkpoints", "config.yaml", "metrics.jsonl", "result.json", ".lock"}
    odd = [path.name for path in run.iterdir() if path.name not in known]
    kept = {path.resolve() for path in checkpoints.iterdir() if path.is_symlink()}
    kept |= set(sorted(path for path in checkpoints.iterdir() if path.name.startswith("step-"))[-KEEP:])
    odd += [path.name for path in checkpoints.iterdir() if not path.is_symlink() and path not in kept]
    odd += [path.name for path in checkpoints.iterdir() if path.is_symlink() and path.name not in ("best", "latest")]
    return odd


def growth(readings: list[Reading], name: str, *, steps: int) -> tuple[float, float]:
    """Medians in MiB over a tenth of the steps: once warm, and at the end."""
    span = max(steps // 10, 1)
    early = [getattr(r, name) for r in readings if WARM <= r.step < WARM + span]
    late = [getattr(r, name) for r in readings if r.step >= steps - span]
    if not early or not late:
        sys.exit(f"too few readings ({len(readings)}): more --steps, or a slower machine")
    return statistics.median(early), statistics.median(late)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--models", nargs="*", default=list(SIZES), choices=list(SIZES))
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    rows: dict[str, list[str]] = {}
    is_met = True
    with tempfile.TemporaryDirectory() as name:
        os.environ["LLMTUNE_CACHE"] = str(Path(name) / "cache")
        for model in arguments.models:
            seen = watch(model, Path(name) / model, steps=arguments.steps)
            size = sum(file.stat().st_size for file in (seen.run / "checkpoints" / "latest").iterdir())
            odd = leftovers(seen.run)
            facts = {"seconds": f"{seen.seconds:.0f}", "readings of memory": str(len(seen.readings))}
            for what, field in (("resident memory", "resident"), ("of it anonymous", "anonymous")):
                early, late = growth(seen.readings, field, steps=arguments.steps)
                grown = late / early - 1
                facts[f"{what}, warm and at the end (goal ≤ +{GROWTH_GOAL:.0%})"] = (
                    f"{early / 2**20:.1f} MiB, {late / 2**20:.1f} MiB: {grown:+.2%}"
                )
                is_met &= grown <= GROWTH_GOAL
            files = [r.open_files for r in seen.readings if r.step >= WARM]
            facts["open files once warm: fewest, most, at the end"] = f"{min(files)}, {max(files)}, {files[-1]}"
            facts["a checkpoint"] = f"{size / 1e6:.2f} MB"
            facts[f"largest use of disk, in checkpoints (goal ≤ {DISK_GOAL}, + 1 for the best)"] = (
                f"{seen.largest_disk / size:.2f}"
            )
            facts["most step folders at one moment"] = str(seen.most_steps)
            facts["left over at the end"] = ", ".join(odd) or "nothing"
            is_met &= not odd and seen.largest_disk <= (DISK_GOAL + 0.05) * size  # counters of more digits
            for what, value in facts.items():
                rows.setdefault(what, []).append(value)
    print(f"| {arguments.steps} steps | {' | '.join(arguments.models)} |\n|---|{'---|' * len(arguments.models)}")
    for what, values in rows.items():
        print(f"| {what} | {' | '.join(values)} |")
    return int(not is_met)


if __name__ == "__main__":
    sys.exit(main())
