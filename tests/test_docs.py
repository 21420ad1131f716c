"""Documents cannot lie: what they name exists, and what exists is explained."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from athena import cli_records
from athena.cli import app
from athena.refine.recipe import load_recipe
from athena.settings import MinerSettings, TrainerSettings, ValidatorSettings
from task_server.settings import ImportSettings, TaskServerSettings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
NODES = {"miner": MinerSettings, "validator": ValidatorSettings, "trainer": TrainerSettings}
COMMANDS = {command.callback.__name__ for command in app.registered_commands}
GROUPS = {group.typer_instance.info.name: group.typer_instance for group in app.registered_groups}
LONG_NAMES = {"score": "score dataset"}
QUERIES = [query.__name__ for query in cli_records.COMMANDS]


@pytest.mark.parametrize("settings", [*NODES.values(), ImportSettings, TaskServerSettings])
def test_every_setting_is_explained(settings):
    assert settings.__doc__
    assert [name for name, field in settings.model_fields.items() if not field.description] == []


def test_every_command_is_explained_and_in_the_readme():
    for command in app.registered_commands:
        assert command.callback.__doc__, command.callback.__name__
        name = command.callback.__name__.replace("_", "-")
        assert re.search(rf"athena {name}\b|make {name}\b", README)
    for name, group in GROUPS.items():
        for command in group.registered_commands:
            assert command.callback.__doc__, command.callback.__name__
            full_name = f"athena {name} {command.name or command.callback.__name__.replace('_', '-')}"
            assert re.search(rf"{full_name}\b", README), full_name


def test_the_readme_uses_options_that_exist():
    for command in re.findall(r"^ {4}athena (\w+) .*", README, re.MULTILINE):
        assert command in COMMANDS | GROUPS.keys(), command
    for role, settings in NODES.items():
        known = {f"--{name.replace('_', '-')}" for name in settings.model_fields}
        for line in re.findall(rf"^ +athena {role} (.*)$", README, re.MULTILINE):
            assert set(re.findall(r"--[\w-]+", line)) <= known, line
    for option in set(re.findall(r"--[\w-]+", " ".join(re.findall(r"athena server .*", README)))):
        assert option[2:].replace("-", "_") in ImportSettings.model_fields, option
    for name in (
        "refine",
        "score",
        "score verify",
        "crawl-site",
        "download",
        "devchain",
        "demo",
        "recipe list",
        "recipe show",
        "recipe train-classifier",
        *QUERIES,
        "audit log",
        "audit draw",
    ):
        text = (
            CliRunner()
            .invoke(
                app,
                [*LONG_NAMES.get(name, name).split(), "--help"],
                env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"},
            )
            .output
        )
        for line in re.findall(rf"athena {name} (?!verify ).*", README):
            assert all(option in text for option in re.findall(r"--[\w-]+", line)), line


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_recipe_of_the_guide_is_a_recipe(tmp_path):
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "recipes.md").read_text("utf-8"), re.DOTALL)
    file = tmp_path / "my_recipe.py"
    file.write_text(code.group(1))
    recipe = load_recipe(str(file))
    assert recipe.name == "my-recipe" and len(recipe.hash) == 64


def test_help_imports_nothing_heavy():
    code = (
        "import sys, athena.cli; sys.exit(bool({'torch', 'bittensor', 'pyarrow', 'numpy', 'httpx'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("module", ["neurons.miner", "task_server.__main__", "athena.judge.assess", "athena.release"])
def test_starts_without_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0
