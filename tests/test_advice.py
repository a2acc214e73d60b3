"""Advice in messages names commands, options and settings that exist."""

import ast
import re
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

from boneseg.cli import cli
from boneseg.settings.schema import RunSettings

PACKAGE = Path(__file__).parents[1] / "boneseg"


def texts() -> dict[str, list[str]]:
    """Return all texts of the package's modules by file, the parts of f-strings put together."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
                found.setdefault(path.name, []).append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
                found.setdefault(path.name, []).append(node.value)
    return found


def commands() -> list[tuple[str, str]]:
    quoted = re.compile(rf"['`]((?:boneseg|{'|'.join(cli.commands)}) (?!\.)[^'`]*)['`]")
    found = [(file, match) for file, some in texts().items() for text in some for match in quoted.findall(text)]
    return [(file, command) for file, command in found if command.startswith("boneseg ") or " --" in command]


def settings() -> list[tuple[str, str]]:
    sections = "|".join(name for name, field in RunSettings.model_fields.items() if section(field.annotation))
    named = re.compile(rf"(?<![\w./`])(?:{sections})(?:\.[a-z_0-9]+)+(?![\w(/])")
    endings = (".py", ".json", ".html", ".csv", ".png", ".db", ".yaml", ".safetensors", ".log", ".key", ".pem")
    return [
        (file, match)
        for file, some in texts().items()
        for text in some
        if not text.startswith(("boneseg.", "state/", "ray."))  # modules of Ray are no settings
        for match in named.findall(text)
        if not match.endswith(endings)
    ]


def section(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def test_there_is_advice_to_check() -> None:
    assert len(commands()) > 20
    assert len(settings()) > 15


@pytest.mark.parametrize(("file", "command"), sorted(set(commands())))
def test_advised_commands_exist(file: str, command: str) -> None:
    words = command.removeprefix("boneseg ").split()
    where: click.Command = cli
    while words:
        options = {option for parameter in where.params for option in parameter.opts}
        word = words.pop(0)
        if word.startswith("-"):
            assert word.partition("=")[0] in options, f"{file}: {command}: {word}"
            if "--debug" not in word and words:
                words.pop(0)
        elif isinstance(where, click.Group):
            assert word in where.commands, f"{file}: {command}: {word}"
            where = where.commands[word]
        else:
            assert any(isinstance(parameter, click.Argument) for parameter in where.params), f"{file}: {command}"


@pytest.mark.parametrize(("file", "setting"), sorted(set(settings())))
def test_advised_settings_exist(file: str, setting: str) -> None:
    model: object = RunSettings
    for name in setting.split("."):
        assert section(model), f"{file}: {setting}"
        fields = model.model_fields  # type: ignore[attr-defined]
        assert name in fields, f"{file}: {setting}: there is no {name}"
        model = fields[name].annotation


def test_advised_options_exist() -> None:
    there = {"--help"} | {
        option for command in commands_below(cli) for parameter in command.params for option in parameter.opts
    }
    named = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
    others = {"embedded.py"}  # options of the store's own program
    rays = re.compile(r"'?ray start[^';]*")
    advised = {
        (file, option)
        for file, some in texts().items()
        for text in some
        for option in named.findall(rays.sub("", text))
        if file not in others
    }
    assert not {(file, option) for file, option in advised if option not in there}


def commands_below(command: click.Command) -> list[click.Command]:
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return [command, *(deeper for one in below for deeper in commands_below(one))]
