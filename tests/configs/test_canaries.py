"""Nothing that a user's file or command line says can name code to run: a canary file must never appear."""

from pathlib import Path

import pytest

DATA = "data.train_file=x.csv"


def target(canary: Path, *, function: str = "pathlib.Path.write_text") -> str:
    """A mapping that hydra.utils.instantiate would turn into a file."""
    return f"{{_target_: {function}, self: {{_target_: pathlib.Path, _args_: ['{canary}']}}, data: sang}}"


def refused(outcome, canary: Path) -> None:
    assert outcome.code == 2, outcome.out + outcome.err
    assert "Traceback" not in outcome.err
    assert not canary.exists()


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


NODES = [
    "optimizer",
    "model",
    "augment.x",
    "extra",
    "hydra.callbacks.x",
    "hydra.launcher",
    "hydra.sweeper",
    "hydra.job_logging",
    "hydra.hydra_logging",
]


@pytest.mark.parametrize("multirun", [[], ["-m"]], ids=["alone", "sweep"])
@pytest.mark.parametrize("sign", ["", "+", "++"])
@pytest.mark.parametrize("node", NODES)
def test_overrides(cli, canary: Path, node: str, sign: str, multirun: list[str]):
    refused(cli("train", *multirun, DATA, f"{sign}{node}={target(canary)}"), canary)
    refused(cli("train", *multirun, DATA, f"{sign}{node}._target_=builtins.print"), canary)


@pytest.mark.parametrize("multirun", [[], ["-m"]], ids=["alone", "sweep"])
@pytest.mark.parametrize(
    "override",
    [
        "hydra/job_logging=default",
        "hydra/callbacks=x",
        "hydra/launcher=x",
        "hydra/sweeper=x",
        "+hydra/job_logging=default",
        "hydra.sweeper._target_=builtins.print",
        "hydra.sweeper.params={a: 1}",
        "hydra.searchpath=[file:///tmp]",
        "model@hydra.callbacks=lstm",
        "+recipe@hydra.callbacks=lstm_cls",
        "+model@hydra=lstm",
        "'hydra.callbacks'={}",
    ],
)
def test_hydra_nodes(cli, canary: Path, override: str, multirun: list[str]):
    refused(cli("train", *multirun, DATA, override), canary)


@pytest.mark.parametrize("multirun", [[], ["-m"]], ids=["alone", "sweep"])
@pytest.mark.parametrize(
    "text",
    [
        "optimizer: TARGET\n",
        "extra: TARGET\n",
        "augment: {x: TARGET}\n",
        "hydra: {callbacks: {x: TARGET}}\n",
        "hydra: {launcher: TARGET}\n",
        "hydra: {sweeper: TARGET}\n",
        "hydra: {job_logging: {version: 1, handlers: {x: {class: logging.FileHandler, filename: CANARY}}}}\n",
        "hydra.callbacks.x: TARGET\n",
        "defaults: [{override hydra/job_logging: default}]\n",
        "defaults: [{'model@hydra.callbacks': lstm}]\n",
        "defaults: [{override /model@_global_: lstm}]\n",
        "defaults: [{/hydra/callbacks: x}]\n",
        "# @package hydra\ncallbacks: {x: TARGET}\n",
        "# @package hydra.callbacks\nx: TARGET\n",
        "seed: !!python/object/apply:pathlib.Path.write_text [!!python/object/apply:pathlib.Path [CANARY], sang]\n",
        "output_dir: ${oc.create:TARGET}\n",
    ],
)
def test_recipes(cli, tmp_path: Path, canary: Path, text: str, multirun: list[str]):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "bad.yaml").write_text(text.replace("TARGET", target(canary)).replace("CANARY", str(canary)))
    refused(cli("train", *multirun, DATA, "+recipe=bad"), canary)


@pytest.mark.parametrize("multirun", [[], ["-m"]], ids=["alone", "sweep"])
@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("optimizer/bad.yaml", "TARGET\n"),
        ("optimizer/bad.yaml", "# @package hydra.callbacks\nx: TARGET\n"),
        ("optimizer/bad.yaml", "defaults: [{/hydra/callbacks: x}]\n"),
        ("optimizer/bad.yaml", "hydra: {callbacks: {x: TARGET}}\n"),
        ("recipes/bad.yaml", "hydra: {callbacks: {x: TARGET}}\n"),
        ("hydra/callbacks/bad.yaml", "x: TARGET\n"),
        ("hydra/bad.yaml", "callbacks: {x: TARGET}\n"),
        ("train.yaml", "hydra: {callbacks: {x: TARGET}}\n"),
    ],
)
def test_config_dir(cli, tmp_path: Path, canary: Path, file: str, text: str, multirun: list[str]):
    path = tmp_path / "mine" / file
    path.parent.mkdir(parents=True)
    path.write_text(text.replace("TARGET", target(canary)))
    choice = {"optimizer": "optimizer=bad", "recipes": "+recipe=bad"}.get(path.parent.name, "hydra/callbacks=bad")
    refused(cli("train", *multirun, "--config-dir", "mine", DATA, choice), canary)


def test_a_folder_of_that_name_in_the_users_place_is_not_read(cli, tmp_path: Path, canary: Path):
    """Neither conf/ nor configs/ nor a train.yaml beside the user is a source of config."""
    for folder in (tmp_path, tmp_path / "configs", tmp_path / "conf"):
        folder.mkdir(exist_ok=True)
        (folder / "train.yaml").write_text(f"hydra: {{callbacks: {{x: {target(canary)}}}}}\nseed: 5\n")
    outcome = cli("show", DATA)
    assert outcome.code == 0 and "seed: 0" in outcome.out and not canary.exists()


def test_a_plugin_folder_of_the_user_is_not_imported(command, tmp_path: Path, canary: Path):
    """Hydra imports everything below hydra_plugins; nothing of the working directory may get there."""
    (tmp_path / "hydra_plugins").mkdir()
    (tmp_path / "hydra_plugins" / "evil.py").write_text(f"open({str(canary)!r}, 'w').write('sang')\n")
    (tmp_path / "evaluate.py").write_text(f"open({str(canary)!r}, 'w').write('sang')\n")
    assert command("show", DATA).code == 0
    assert not canary.exists()
