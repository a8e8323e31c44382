"""Imports without garbage collection."""

import subprocess
import sys

from tests.unit.test_cli import ROOT

TELL = "import gc, sys; from llmtune import startup"


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


def test_a_config_mistake_ends_with_its_code_and_its_words():
    words = ["train", "+recipe=bert_cls", "optimizer.lrr=1"]
    done = subprocess.run([sys.executable, "-m", "llmtune", *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "optimizer.lr" in done.stderr and "Traceback" not in done.stderr
