"""The same faults in the same harness, for the transformers Trainer and for llmtune.

    python scripts/bench/kills_beside_trainer.py RESULTS.jsonl [--trials 20] [--faults random save ...]

Trials are appended to RESULTS.jsonl, and those that stand there already are not repeated. A trial puts a run through a fault
and starts it once more, which both tools take as: go on. It is identical if the weights and the loss of every step equal to
the last bit those of the run that nothing happened to. Prints a Markdown table.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from compared_runs import PLAIN, Bench, Result, fork, load_modules, step_of
from kills import LONGEST_RUN, kill, wait, write_rows
from two_trainers import SAVE_EVERY, STEPS, HuggingFace, Job, Llmtune

BETWEEN_SAVES = (17, 22, 28)  # steps after which a run is killed before its checkpoint is damaged
MASKED_ONCE = Job(masks_once=True)


def at_random(bench: Bench, place: Path, rng: random.Random) -> Result:
    """Anywhere from the first save to the end of the process."""
    child = bench.begin(place, PLAIN)
    if wait(child, rng.uniform(bench.first_save, bench.seconds)) is not None:
        return missed(place)
    kill(child)
    return {"torn": bench.tool.is_torn(place), **bench.resume(place)}


def in_a_save(bench: Bench, place: Path, rng: random.Random) -> Result:
    """Within the time of one save from the moment at which its folder appears."""
    first, delay = rng.randrange(SAVE_EVERY, STEPS, SAVE_EVERY), rng.uniform(0.0, bench.save_seconds)
    child, deadline = bench.begin(place, PLAIN), time.monotonic() + LONGEST_RUN
    while not any(step >= first for step in bench.tool.begun_saves(place)):
        if os.waitpid(child, os.WNOHANG)[0]:
            return missed(place)
        if time.monotonic() > deadline:
            kill(child)
            return {"result": "hangs"}
        time.sleep(0.0002)
    time.sleep(delay)
    kill(child)
    return {"torn": bench.tool.is_torn(place), **bench.resume(place)}


def missed(place: Path) -> Result:
    """The run had ended before the signal came."""
    return {"result": "missed", "log": (place / "log").read_text(encoding="utf-8", errors="replace")[-400:]}


def terminated(bench: Bench, place: Path, rng: random.Random, job: Job = PLAIN) -> Result:
    step = rng.choice([s for s in range(7, 30) if s % SAVE_EVERY])
    code, newest = bench.interrupt(place, replace(job, signal_after=step, signal_number=signal.SIGTERM))
    lost = max(step - step_of(newest), 0)
    return {**bench.resume(place), "note": f"SIGTERM gives exit {code}", "lost": lost}


def terminated_slowly(bench: Bench, place: Path, rng: random.Random) -> Result:
    """With the Trainer's own answer to SIGTERM switched on. It waits for three seconds, so the steps are long."""
    return terminated(bench, place, rng, Job(pause=0.4, just_in_time=True))


def killed_between_saves(bench: Bench, place: Path, rng: random.Random, job: Job = MASKED_ONCE) -> Path:
    """The newest checkpoint of a run that was killed when no save was under way."""
    return bench.interrupt(place, replace(job, signal_after=rng.choice(BETWEEN_SAVES)))[1]


def between_saves(bench: Bench, place: Path, rng: random.Random) -> Result:
    killed_between_saves(bench, place, rng, PLAIN)
    return bench.resume(place)


def masked_once(bench: Bench, place: Path, rng: random.Random) -> Result:
    """llmtune always draws its masks, as a function of seed, epoch and row."""
    killed_between_saves(bench, place, rng)
    return bench.resume(place, MASKED_ONCE)


def nothing(bench: Bench, place: Path, rng: random.Random) -> Result:
    return bench.resume(place)


def without_optimizer(bench: Bench, place: Path, rng: random.Random) -> Result:
    (killed_between_saves(bench, place, rng) / bench.tool.optimizer).unlink()
    told = r"(?i)optimizer\S* is missing|no optimizer|optimizer\S* not found|passing over"
    return bench.resume(place, MASKED_ONCE, told=told)


def without_random_state(bench: Bench, place: Path, rng: random.Random) -> Result:
    (killed_between_saves(bench, place, rng) / bench.tool.random_state).unlink()
    return bench.resume(place, MASKED_ONCE, told=r"(?i)rng|random|reproducib|passing over")


def flipped_bit(bench: Bench, place: Path, rng: random.Random) -> Result:
    """Somewhere in the numbers of the weights."""
    weights = killed_between_saves(bench, place, rng) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    content[rng.randrange(start, len(content))] ^= 1 << rng.randrange(8)
    weights.write_bytes(content)
    return bench.resume(place, MASKED_ONCE, told=r"(?i)damaged|corrupt|checksum|sha256|passing over")


def not_a_number(bench: Bench, place: Path, rng: random.Random) -> Result:
    """The loss of step 10 is NaN. There is nothing to resume: what lies on the disk afterwards?"""
    import numpy as np
    from safetensors.numpy import load_file

    code, log = bench.start(place, Job(nan_at=10))
    last = bench.tool.checkpoints(place)[-1]
    tensors = load_file(last / "model.safetensors").values()
    spoilt = sum(bool(np.isnan(t).any()) for t in tensors)
    later = sorted({loss for step, loss in bench.tool.losses(place) if step > 10})
    note = f"exit {code}; {last.name}: {spoilt} of {len(tensors)} tensors NaN; losses logged after step 10: {later[:3]}"
    note += f"; the output has {'a' if re.search(r'(?i)[^a-z]nan[^a-z]', log) else 'no'} nan"
    told = re.search(r"(?i)finite|diverge", log) is not None
    return {"result": "stopped" if code else "went on", "told": told, "note": note, "log": log[-400:]}


@contextmanager
def small_disk(place: Path, num_bytes: int) -> Iterator[bool]:
    """Mount memory as a disk of that size, if this user may."""
    options = ["-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(place)]
    is_mounted = subprocess.run(["mount", *options], capture_output=True).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", str(place)], check=True)


def full_disk(bench: Bench, place: Path, rng: random.Random) -> Result:
    size = sum(-(-file.stat().st_size // 4096) * 4096 for file in bench.tool.checkpoints(bench.whole)[-1].iterdir())
    with small_disk(place, int(size * rng.uniform(2.1, 2.9))) as is_mounted:
        write_rows(place)
        how = "a full tmpfs" if is_mounted else "RLIMIT_FSIZE, for want of the right to mount"
        if not is_mounted:
            print("no tmpfs can be mounted: a limit on file sizes takes the place of a full disk", file=sys.stderr)
        code, log = bench.start(place, PLAIN if is_mounted else Job(limit_after=12, limit=size // 4))
        why = "told" if "Traceback" not in log else "traceback"
        is_torn = bench.tool.is_torn(place)
        if is_mounted:
            subprocess.run(["mount", "-o", "remount,size=256m", str(place)], check=True)
        return {**bench.resume(place), "torn": is_torn, "note": f"{how}: exit {code}, {why}"}


def evaluation_loss(bench: Bench, place: Path, rng: random.Random) -> Result:
    """Of the finished run, on all of its rows, at three batch sizes."""
    code, log = bench.ended(fork(lambda: bench.tool.evaluate([1, 16, 160]), bench.whole, bench.whole / "log"), bench.whole)
    if code != 0:
        return {"result": "crashed", "log": log[-1000:]}
    found = json.loads((bench.whole / "losses.json").read_text())
    notes = [f"{name}: {', '.join(f'{v:.7f}' for v in values)}" for name, values in found.items() if name != "exact"]
    notes += [f"exact: {found['exact']:.7f}"] if "exact" in found else []
    losses = found["masks of the rows"]
    same = max(losses) - min(losses) <= 1e-6 * min(losses)
    return {"result": "the same to 1e-6" if same else "depends on the batch size", "note": "; ".join(notes)}


def other_threads(bench: Bench, place: Path, rng: random.Random) -> Result:
    """The whole run with two threads instead of one."""
    return bench.resume(place, Job(threads=2), told="thread")


def resumed_with_other_threads(bench: Bench, place: Path, rng: random.Random) -> Result:
    killed_between_saves(bench, place, rng)
    return bench.resume(place, replace(MASKED_ONCE, threads=2), told="thread")


# name -> (what happens, most trials, how)
FAULTS: dict[str, tuple[str, int, Callable[[Bench, Path, random.Random], Result]]] = {
    "nothing": ("nothing: the same run again", 2, nothing),
    "random": ("SIGKILL at a random time after the first save began", 1000, at_random),
    "save": ("SIGKILL in a save", 1000, in_a_save),
    "term": ("SIGTERM between two saves", 1000, terminated),
    "term_slow": ("the same, enable_jit_checkpoint on, steps of 0.4 s", 3, terminated_slowly),
    "between": ("SIGKILL between two saves", 6, between_saves),
    "masked_once": ("the same, the Trainer's rows masked before the run (*)", 6, masked_once),
    "optimizer": ("(*) and the optimizer's file removed", 6, without_optimizer),
    "random_state": ("(*) and the file with the random state removed", 6, without_random_state),
    "bit": ("(*) and a bit flipped in model.safetensors", 1000, flipped_bit),
    "resumed_threads": ("(*) and 2 threads instead of 1 from there", 3, resumed_with_other_threads),
    "threads": ("2 threads instead of 1, whole run", 1, other_threads),
    "nan": ("NaN loss at step 10", 1, not_a_number),
    "disk": ("disk full in a save, then room again", 10, full_disk),
    "evaluation": ("evaluation loss at batch sizes 1, 16, 160", 1, evaluation_loss),
}


def cell(results: list[Result]) -> str:
    """What one tool did under one fault."""
    parts = []
    results = [r for r in results if r["result"] != "missed"]  # it had ended before the signal came
    for result, count in Counter(r["result"] for r in results).most_common():
        mine = [r for r in results if r["result"] == result]
        differences = [r["difference"] for r in mine if r.get("difference")]
        sizes = dict.fromkeys(f"{size(differences):.0e}" for size in (min, max)) if differences else ()
        inside = [f"weights differ by {' to '.join(sizes)}"] if sizes else []
        num_told = sum(r.get("told", False) for r in mine)
        if "told" in mine[0] and (num_told or result != "identical"):
            inside.append(f"{num_told} told")
        parts.append(f"{count} {result}" + (f" ({', '.join(inside)})" if inside else ""))
    if any("torn" in r for r in results):
        parts.append(f"{sum(r.get('torn', False) for r in results)} left an unfinished save behind")
    if lost := [r["lost"] for r in results if "lost" in r]:
        parts.append(f"{statistics.mean(lost):.1f} steps lost")
    notes = [note for note, _ in Counter(r["note"] for r in results if "note" in r).most_common(3)]
    return "; ".join([*parts, *notes])


def read(results: Path) -> list[Result]:
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.is_file() else []


def run_tool(bench: Bench, arguments: argparse.Namespace) -> None:
    """Append the trials of a tool that are not in the results yet."""
    done = {(r["fault"], r["tool"], r["trial"]) for r in read(arguments.results)}
    for fault in arguments.faults:
        _, most, inject = FAULTS[fault]
        for trial in range(min(arguments.trials, most)):
            key = {"fault": fault, "tool": bench.tool.name, "trial": trial}
            if tuple(key.values()) in done:
                continue
            place = bench.place(f"{fault}-{trial}")
            result = inject(bench, place, random.Random(f"{fault}/{trial}"))
            shutil.rmtree(place)
            with arguments.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**key, **result}) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--trials", type=int, default=20, help="of each fault and tool; some faults need fewer")
    parser.add_argument("--faults", nargs="*", default=list(FAULTS), choices=list(FAULTS))
    arguments = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")
    load_modules()
    with tempfile.TemporaryDirectory() as name:
        os.environ["LLMTUNE_CACHE"] = str(Path(name) / "cache")
        ours = Bench(Llmtune(), Path(name) / "llmtune")
        theirs = Bench(HuggingFace(ours.tool.checkpoints(ours.whole)[-1]), Path(name) / "trainer")
        for bench in (theirs, ours):
            run_tool(bench, arguments)
    found = read(arguments.results)
    print(f"| fault | {theirs.tool.name} | {ours.tool.name} |\n|---|---|---|")
    for fault in arguments.faults:
        cells = [cell([r for r in found if (r["fault"], r["tool"]) == (fault, b.tool.name)]) for b in (theirs, ours)]
        print(f"| {FAULTS[fault][0]} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
