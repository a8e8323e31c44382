"""What holds for every file: the floors, their size, and the things that are never done."""

import ast
from pathlib import Path

import pytest

from tests.conftest import LONGEST_FIRST

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "llmtune").rglob("*.py"))
NAMES = [str(file.relative_to(ROOT)) for file in FILES]

# Rooms on one floor do not import each other, but for those named below.
FLOORS = [
    {"__init__", "errors", "randomness", "console", "paths", "files", "failures", "interrupts", "startup", "demo"},
    {"config"},
    {"data", "models"},
    {"tasks", "tuning"},
    {"objectives"},
    {"training"},
    {"generation"},
    {"evaluation", "export", "serving"},
    {"inspection"},
    {"commands"},
    {"cli", "help", "completion", "__main__"},
]
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FRONT = {"cli", "help", "completion", "__main__", "__init__"}  # imported by the dispatcher when asked for
# The verbs take the dispatcher's Options and its table of verbs; the rooms at the bottom speak of errors.
KNOWN = {
    ("commands", "cli"),
    ("commands", "completion"),
    ("console", "errors"),
    ("paths", "errors"),
    ("files", "errors"),
    ("failures", "errors"),
}
HYDRA_CALLS = {"instantiate", "get_class", "get_method", "get_object"}
FORBIDDEN_CALLS = {"eval", "exec", "torch.load", "torch.save", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}


def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def imports_of(file: Path) -> list[tuple[str, int]]:
    """All modules that a file imports anywhere, with the line."""
    found = []
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            found.append((node.module, node.lineno))
            if node.module == "llmtune":
                found[-1:] = [(f"llmtune.{alias.name}", node.lineno) for alias in node.names if not alias.name.startswith("__")]
    return found


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def test_there_are_files():
    assert len(FILES) > 20


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_imports_go_downward(file: Path):
    here = room_of(".".join(file.relative_to(ROOT).with_suffix("").parts))
    assert here in FLOOR_OF, f"{here} has no floor: name it in FLOORS"
    for module, line in imports_of(file):
        if module.split(".")[0] != "llmtune":
            continue
        there = room_of(module)
        allowed = here == there or FLOOR_OF[there] < FLOOR_OF[here] or {here, there} <= FRONT or (here, there) in KNOWN
        assert allowed, f"{file.relative_to(ROOT)}:{line}: {here} imports {there}"


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_only_one_room_reads_config(file: Path):
    name = str(file.relative_to(ROOT / "llmtune"))
    allowed = {
        "hydra": name in ("config/compose.py", "config/store.py"),
        "omegaconf": name == "config/compose.py",
        "yaml": name.startswith("config/"),
    }
    for module, line in imports_of(file):
        assert allowed.get(module.split(".")[0], True), f"{name}:{line}: imports {module}"


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_no_file_is_long(file: Path):
    num_lines = len(file.read_text(encoding="utf-8").splitlines())
    assert num_lines <= 400, f"{num_lines} lines: the design asks for another room"


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_nothing_loads_code(file: Path):
    for module, line in imports_of(file):
        assert module.split(".")[0] not in FORBIDDEN_MODULES, f"{file}:{line}: imports {module}"
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            assert ast.unparse(node.value) == "False", f"{file}:{node.value.lineno}: trust_remote_code"
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in FORBIDDEN_CALLS and name.split(".")[-1] not in HYDRA_CALLS, f"{file}:{node.lineno}: {name}"


def test_the_longest_test_files_are_where_they_are_said_to_be():
    assert all((ROOT / "tests" / file).is_file() for file in LONGEST_FIRST)
