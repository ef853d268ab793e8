"""Commands in documents, read without running them: does each one parse?

Every command must be of a program that is known here, and be one that this program takes; that it
also does what is said is shown by `integration/test_readme.py`, which types it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import shlex
from collections.abc import Callable
from itertools import product
from typing import Any

import click
from google.protobuf import json_format

from deploy.cli import program, split_arguments
from dppm_model.config import check_config, compose_config
from dppm_model.errors import DppmError
from sampler.service import sampling_pb2 as pb
from tests.support.documents import ROOT, commands, fences, spans

# Commands of a trained run take overrides of some groups only.
_GROUPS = {
    "sample": ("sampler", "pool", "device"),
    "diagnose": ("sampler",),
    "serve": ("sampler", "pool", "device"),
    "evaluate": ("evaluation", "device"),
}
_MODELS = [
    [],
    ["model=pyramid"],
    ["model=pyramid_details"],
    ["model=residual"],
    ["mechanism=directions"],
]
_OVERRIDE = re.compile(r"[a-z_]+(\.[a-z_-]+)*=\S+")
_DRAWN = re.compile("[┌└▶◀]")  # boxes and arrows: a drawing, which may name commands
_REFUSALS = (DppmError, click.UsageError, json_format.Error, ValueError, SyntaxError)


def _compose(overrides: list[str]) -> None:
    check_config(compose_config(overrides))


def check_dppm(words: list[str]) -> None:
    """Parse a command, and compose its overrides; the bare name of a group is fine as well."""
    command: click.Command | None = program()
    while isinstance(command, click.Group) and words:
        _, command, words = command.resolve_command(click.Context(command), words)
    if command is None or isinstance(command, click.Group):
        return
    with contextlib.suppress(click.exceptions.Exit):  # --help
        given = command.make_context(command.name, words).params
        _, overrides = split_arguments(given.get("arguments", ()))
        overrides += given.get("overrides", ())
        _compose(overrides)
        allowed = _GROUPS.get(command.name or "", ("",))
        if other := [o for o in overrides if not o.startswith(allowed)]:
            raise ValueError(f"{other[0]} cannot be changed after training")


def _make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    given = dict(re.findall(r"^([A-Z]+) \?= ?(.*)$", makefile, re.MULTILINE))
    given |= dict(word.split("=", 1) for word in words if "=" in word)
    for target in (word for word in words if "=" not in word):
        if not (rule := re.search(rf"^{re.escape(target)}:.*\n((?:\t.*\n)*)", makefile, re.M)):
            raise ValueError(f"make has no target {target}")
        for recipe in re.findall(r"^\t\$\(BIN\)/dppm (.*)$", rule[1], re.MULTILINE):
            check_dppm(shlex.split(re.sub(r"\$\((\w+)\)", lambda m: given[m[1]], recipe)))


def _exist(words: list[str]) -> None:
    """Find the files that are named; an option may have a value."""
    for option, word in zip(["", *words], words, strict=False):
        is_file = not word.startswith("-") and option not in ("-m", "-k", "-p", "-n")
        if is_file and not (ROOT / word.split("::")[0]).exists():
            raise ValueError(f"{word} is not there")


def _python(words: list[str]) -> None:
    if words[:1] != ["-m"]:
        _exist(words[:1])
    elif importlib.util.find_spec(words[1]) is None:
        raise ValueError(f"there is no module {words[1]}")


def grpc_request(words: list[str]) -> tuple[str, str, Any]:
    """Read a line of grpcurl: address, method, and the request that it sends."""
    data, address, method = words[words.index("-d") + 1], words[-2], words[-1]
    service, _, name = method.rpartition("/")
    found = pb.DESCRIPTOR.services_by_name.get(service.rpartition(".")[2])
    if found is None or found.full_name != service or name not in found.methods_by_name:
        raise ValueError(f"{method} is not in sampling.proto")
    request = getattr(pb, found.methods_by_name[name].input_type.name)
    return address, method, json_format.ParseDict(json.loads(data), request())


PROGRAMS: dict[str, Callable[[list[str]], Any]] = {
    "dppm": check_dppm,
    "make": _make,
    "pytest": _exist,
    "python": _python,
    "grpcurl": grpc_request,
    "ls": lambda _: None,
}


def check(line: str) -> None:
    """Check one command; one that would fail raises an error that says why."""
    words = shlex.split(line, comments=True)
    if loose := [w for w in words if w in ("|", "||", "&&", "&", ";", "<<", "<")]:
        raise ValueError(f"{loose[0]}: write one plain command a line")
    name = words[0].removeprefix(".venv/bin/")
    if name not in PROGRAMS:
        raise ValueError(f"nobody here knows what {name} is")
    PROGRAMS[name](words[1 : words.index(">") if ">" in words else None])


def check_mention(line: str) -> None:
    """Check a command in running text, which may leave out what must be given."""
    with contextlib.suppress(click.MissingParameter):
        check(line)


def check_overrides(words: list[str]) -> None:
    """Check overrides that are only mentioned, of whatever model has such keys."""
    for model in _MODELS[:-1]:
        with contextlib.suppress(DppmError):
            _compose([*model, *words])
            return
    _compose([*_MODELS[-1], *words])


def wrong_commands(name: str, text: str) -> list[str]:
    """Return every command of a document that would fail, with its line and the reason."""
    wrong = []

    def read(act: Callable[[Any], object], what: Any, where: str) -> None:
        try:
            act(what)
        except _REFUSALS as error:
            wrong.append(f"{name}:{where}: {error}")

    if len(re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE)) != 2 * len(fences(text)):
        wrong.append(f"{name}: a fence is not at the beginning of its lines, or never ends")
    for fence in fences(text):
        lines = commands(fence)
        if fence.language == "bash":
            for line in lines:
                read(check, line, f"{fence.line}: {line}")
        elif fence.language == "python":
            read(lambda t: compile(t, "<fence>", "exec"), fence.text, f"{fence.line}: Python")
        elif fence.language not in ("", "mermaid") or (
            any(map(_looks_typed, lines)) and not _DRAWN.search(fence.text)
        ):
            wrong.append(f"{name}:{fence.line}: no test runs it: call the fence bash")
    for span in spans(text):
        if all(_OVERRIDE.fullmatch(word) for word in span.split()):
            read(check_overrides, span.split(), f" `{span}`")
        elif _looks_typed(span) and "…" not in span:
            # `dppm ledger show|verify` stands for two commands
            for line in product(*(w.split("|") for w in span.replace(" | ", "|").split())):
                read(check_mention, " ".join(line), f" `{span}`")
    return wrong


def _looks_typed(line: str) -> bool:
    program = line.removeprefix("$ ").split()[0].removeprefix(".venv/bin/")
    return program in ("dppm", "make", "pytest", "python", "grpcurl", "pip")
