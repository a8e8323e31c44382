"""Sections of a config as the packaged YAML has them, without composing a whole one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from llmtune.config.sections.clean import CleanConfig
from llmtune.config.sections.data import DataConfig
from llmtune.config.sections.model import ModelConfig, TaskConfig
from llmtune.config.sections.split import SplitConfig
from llmtune.config.sections.tokenizer import TokenizerConfig

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
GROUPS = {"data": DataConfig, "split": SplitConfig, "tokenizer": TokenizerConfig, "task": TaskConfig, "model": ModelConfig}


@pytest.fixture(scope="session")
def section() -> Callable[..., Any]:
    """`section("data/files", train_file=...)`: that option of the group, some of its values changed."""

    def make(option: str, **changes: Any) -> Any:
        values = yaml.safe_load((CONFIGS / f"{option}.yaml").read_text(encoding="utf-8"))
        return TypeAdapter(GROUPS[option.partition("/")[0]]).validate_json(json.dumps({**values, **changes}))

    return make


@pytest.fixture(scope="session")
def cleaners() -> Callable[..., dict[str, CleanConfig]]:
    """`cleaners("html", length={"min": 3})`: those options of the group `clean`, in order, some of their values changed."""

    def make(*options: str, **changed: dict[str, Any]) -> dict[str, CleanConfig]:
        entries = {}
        for option in dict.fromkeys([*options, *changed]):
            for name, values in yaml.safe_load((CONFIGS / f"clean/{option}.yaml").read_text(encoding="utf-8")).items():
                entries[name] = {**values, **changed.get(option, {})}
        return TypeAdapter(dict[str, CleanConfig]).validate_python(entries)

    return make


@pytest.fixture
def files(section: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """`files({"a.csv": content}, train_file="a.csv", ...)`: writes texts or bytes below tmp_path; the data section for them."""

    def make(contents: dict[str, str | bytes], **changes: Any) -> Any:
        for name, content in contents.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        changes.setdefault("train_file", next(iter(contents), None))
        for key in ("train_file", "validation_file", "test_file"):
            given = changes.get(key)
            if isinstance(given, str):
                changes[key] = str(tmp_path / given)
            elif given is not None:
                changes[key] = [str(tmp_path / name) for name in given]
        return section("data/files", **changes)

    return make
