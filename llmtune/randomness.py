"""Randomness as a function of what is drawn, not as a state that is carried along.

Every draw comes from a generator keyed by (seed, purpose, epoch or step, example index ...). A resumed run then needs
its step counter alone, on any number of workers.
"""

import hashlib

import numpy as np


def draw_key(seed: int, purpose: str, *counters: int) -> int:
    """A 63-bit key, equal on every machine: the first 8 bytes of BLAKE2b over the words, top bit cleared."""
    text = "/".join([str(seed), purpose, *map(str, counters)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """A NumPy generator for one purpose. `counters`: epoch, step, example index, whatever makes the draw its own."""
    return np.random.Generator(np.random.Philox(key=draw_key(seed, purpose, *counters)))
