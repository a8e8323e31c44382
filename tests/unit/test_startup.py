"""Imports without garbage collection, torch's libraries loaded ahead, and a process that need not wait for them."""

import subprocess
import sys
import time

import pytest

from tests.unit.test_cli import ROOT

TELL = "import gc, sys, threading; from llmtune import startup"


def said(code: str, *, within: float = 60) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=within)


def test_imports_collect_nothing_and_are_set_aside():
    code = f"""{TELL}
started = []
gc.callbacks.append(lambda phase, facts: started.append(phase))
with startup.importing():
    import transformers
    assert not gc.isenabled() and not started, started
assert gc.isenabled() and gc.get_freeze_count() > 10_000
frozen = gc.get_freeze_count()
with startup.importing():
    assert gc.isenabled()
    kept = [[] for _ in range(1000)]
assert gc.get_freeze_count() == frozen
"""
    done = said(code)
    assert done.returncode == 0, done.stderr


def test_collection_goes_on_after_a_failure_and_stays_off_where_it_was():
    code = f"""{TELL}
try:
    with startup.importing():
        raise ImportError
except ImportError:
    pass
assert gc.isenabled() and not gc.get_freeze_count()
gc.disable()
with startup.importing():
    import transformers
assert not gc.isenabled() and not gc.get_freeze_count()
"""
    done = said(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only there")
def test_libraries_are_loaded_ahead_and_torch_finds_them():
    code = f"""{TELL}
import os
os.sched_getaffinity = lambda number: {{0, 1}}
startup.load_torch_ahead()
[thread] = [t for t in threading.enumerate() if t.name == "load torch"]
thread.join()
assert "libtorch_python.so" in open("/proc/self/maps").read() and "torch" not in sys.modules
import torch
assert torch.ones(3).sum() == 3
startup.load_torch_ahead()
startup.end_now_if_in_vain(9)
"""
    done = said(code)
    assert done.returncode == 0, done.stderr


def test_a_torch_that_cannot_be_loaded_ahead_is_not_told_of_here():
    code = f"""{TELL}
import os, importlib.util
os.sched_getaffinity = lambda number: {{0, 1}}
importlib.util.find_spec = lambda name: None
startup.load_torch_ahead()
[t.join() for t in threading.enumerate() if t.name == "load torch"]
"""
    done = said(code)
    assert done.returncode == 0 and done.stderr == ""


def test_nobody_waits_for_what_is_loaded_in_vain():
    code = f"""{TELL}
import os, time
os.sched_getaffinity = lambda number: {{0, 1}}
startup._load_torch = lambda: time.sleep(100)
startup.load_torch_ahead()
sys.stdout.write("told")
startup.end_now_if_in_vain(2)
"""
    started = time.monotonic()
    done = said(code)
    assert done.returncode == (2 if sys.platform == "linux" else 0)
    assert done.stdout == "told" and time.monotonic() - started < 20


def test_a_config_mistake_ends_with_its_code_and_its_words():
    words = ["train", "+recipe=bert_cls", "optimizer.lrr=1"]
    done = subprocess.run([sys.executable, "-m", "llmtune", *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "optimizer.lr" in done.stderr and "Traceback" not in done.stderr
