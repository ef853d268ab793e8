"""What a document tells people to type, read without running it: is all of it there?

Every command must be of a program that is known here, parse as that program parses it, and name
only files that are in the project, that an earlier command makes, or that its readers bring.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import re
import shlex
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from deploy.act import split_arguments
from deploy.cli import parser
from dppm_model.config import compose_config
from dppm_model.errors import DppmError
from dppm_model.records.sources import DATASETS
from sampler.service import sampling_pb2 as pb
from tests.support.documents import ROOT, commands, fences, spans

# What readers have of their own, or are sent by others.
BROUGHT = {
    "~/scans": "a folder of images, one sub-folder per class",
    "cert.pem": "a certificate for TLS",
    "key.pem": "its key",
    "tokens.txt": "a token per client",
    "invitation.json": "from the server's operator",
    "announcement.zip": "from the server's operator",
    "from-st-mary/enrolment.json": "from a site's operator",
    "from-charite/enrolment.json": "from a site's operator",
}
# Verbs of a trained run take overrides of some groups only.
_GROUPS = {
    "sample": ("sampler", "pool", "device"),
    "diagnose": ("sampler", "device"),
    "serve": ("sampler", "pool", "device"),
    "evaluate": ("evaluation", "device"),
}
_MODELS = [[], ["model=pyramid"], ["model=residual"], ["mechanism=directions"]]
_OVERRIDE = re.compile(r"[a-z_]+(\.[a-z_-]+)*=\S+")
_DRAWN = re.compile("[┌└▶◀]")  # boxes and arrows: a drawing, which may name commands
_SUFFIXES = (".json", ".zip", ".npz", ".pem", ".txt", ".md", ".csv", ".py", ".html", ".png")


class Wrong(Exception):
    """A command that would not do what the document says."""


@cache
def _composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Compose a configuration; the facts of an announcement are none of its keys."""
    facts = [o for o in overrides if o.startswith("facts.")]
    for fact in facts:
        if fact.split("=")[0] not in ("facts.shape", "facts.classes", "facts.records"):
            raise Wrong(f"{fact}: there is no such fact")
    return compose_config([o for o in overrides if o not in facts])


class Typed:
    """Follows a document from its first command to its last, and remembers what these make.

    Parameters
    ----------
    mentioned
        Commands in running text name files freely, RUN say; only those of our folders must exist.
    """

    def __init__(self, *, mentioned: bool = False) -> None:
        self._mentioned = mentioned
        self._made: set[Path] = set()
        self._imported: set[str] = set()
        self._programs: dict[str, Callable[[list[str]], None]] = {
            "dppm": self.dppm,
            "make": self._make,
            "pytest": self._pytest,
            "python": self._python,
            "grpcurl": _grpcurl,
            "ls": self._exist,
        }

    def command(self, line: str) -> None:
        """Check one command.

        Raises
        ------
        Wrong
            Saying why it would fail.
        """
        words = shlex.split(line, comments=True)
        if loose := [w for w in words if w in ("|", "||", "&&", "&", ";", "<<", "<")]:
            raise Wrong(f"{loose[0]}: write one plain command a line")
        if ">" in words:
            self._made.add(Path(words[-1]))
            words = words[: words.index(">")]
        program = words[0].removeprefix(".venv/bin/")
        if program not in self._programs:
            raise Wrong(f"nobody here knows what {program} is")
        self._programs[program](words[1:])

    def python(self, text: str) -> None:
        """Check a Python block, and take the folders that it names as made."""
        compile(text, "<fence>", "exec")
        for found in re.findall(r'"([\w./-]+)"', text):
            self._made |= {Path(found), Path("~") / found}

    def overrides(self, words: list[str]) -> None:
        """Check overrides that are only mentioned, of whatever model has such keys."""
        for model in _MODELS:
            with contextlib.suppress(DppmError):
                _composed((*model, *words))
                return
        raise Wrong(f"{' '.join(words)} cannot be composed")

    def dppm(self, words: list[str]) -> None:
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                arguments = parser().parse_args(words)
        except SystemExit:
            raise Wrong(said.getvalue().strip().splitlines()[-1]) from None
        try:
            self._dppm(arguments)
        except DppmError as error:
            raise Wrong(f"{error.message} {error.hint}") from None

    def _dppm(self, a: argparse.Namespace) -> None:
        folder, overrides = split_arguments(getattr(a, "arguments", []))
        overrides += getattr(a, "overrides", [])
        tree = _composed(tuple(overrides))
        if groups := _GROUPS.get(a.command):
            if other := [o for o in overrides if re.split("[.=]", o)[0] not in groups]:
                raise Wrong(f"{other[0]} cannot be changed after training")
        elif overrides and a.command not in ("server", "demo"):
            for name in {tree["data"], tree["public"]} - {None, *DATASETS, *self._imported}:
                if not self._mentioned:
                    raise Wrong(f"nothing has imported the data set {name}")
        named = [
            v for value in vars(a).values() for v in (value if isinstance(value, list) else [value])
        ]
        paths = [v for v in named if isinstance(v, Path)] + ([folder] if folder else [])
        if a.command == "data" and a.action == "import" and a.what:
            paths.append(Path(a.what))
            self._imported.add(a.name or Path(a.what).stem)
        if a.command in ("simulate", "demo") and folder:
            self._made.add(folder)
        if a.command in ("server", "site") and a.action == "init":
            self._made.add(a.folder)
        self._exist([str(path) for path in paths])

    def _exist(self, words: list[str]) -> None:
        for word in words:
            path = Path(word.split("::")[0])
            if self._mentioned and not (ROOT / path.parts[0]).is_dir():
                continue
            made = any(parent in self._made for parent in (path, *path.parents))
            if not made and word not in BROUGHT and not (ROOT / path).exists():
                raise Wrong(f"{word} is not there, and nothing has made it")

    def _make(self, words: list[str]) -> None:
        makefile = (ROOT / "Makefile").read_text()
        options = [word for word in words if "=" in word]
        for target in words:
            if target in options:
                continue
            if not (rule := re.search(rf"^{re.escape(target)}:.*\n((?:\t.*\n)*)", makefile, re.M)):
                raise Wrong(f"make has no target {target}")
            for recipe in re.findall(r"^\t\$\(BIN\)/dppm (.*)$", rule[1], re.MULTILINE):
                given = [o.removeprefix("ARGS=") for o in options if o.startswith("ARGS=")]
                words = shlex.split(recipe.replace("$(ARGS)", " ".join(given)))
                self.dppm(words)
                self._made.add(Path("runs/demo"))  # where `dppm demo` puts what has no name

    def _pytest(self, words: list[str]) -> None:
        skipped = {i + 1 for i, word in enumerate(words) if word in ("-m", "-k", "-p", "-n")}
        self._exist([w for i, w in enumerate(words) if i not in skipped and not w.startswith("-")])

    def _python(self, words: list[str]) -> None:
        if words[:1] == ["-m"]:
            try:
                there = importlib.util.find_spec(words[1]) is not None
            except ModuleNotFoundError:
                there = False
            if not there:
                raise Wrong(f"there is no module {words[1]}")
            words = [w for w in words[2:] if w.endswith(_SUFFIXES)] if words[1] == "pytest" else []
        self._exist(words)


def grpc_request(words: list[str]) -> tuple[str, str, Any]:
    """Read a line of grpcurl: address, method, and the request that it sends."""
    data, address, method = words[words.index("-d") + 1], words[-2], words[-1]
    service, _, name = method.rpartition("/")
    found = pb.DESCRIPTOR.services_by_name.get(service.rpartition(".")[2])
    if found is None or found.full_name != service or name not in found.methods_by_name:
        raise Wrong(f"{method} is not in sampling.proto")
    request = getattr(pb, found.methods_by_name[name].input_type.name)
    try:
        return address, method, json_format.ParseDict(json.loads(data), request())
    except (ValueError, json_format.ParseError) as error:
        raise Wrong(str(error)) from None


def _grpcurl(words: list[str]) -> None:
    grpc_request(words)


def wrong_commands(name: str, text: str) -> list[str]:
    """Return every command of a document that would fail, with its line and the reason."""
    wrong, typed = [], Typed()

    def check(act: Callable[[Any], None], what: Any, where: str) -> None:
        try:
            act(what)
        except (Wrong, SyntaxError) as error:
            wrong.append(f"{name}:{where}: {error}")

    if len(re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE)) != 2 * len(fences(text)):
        wrong.append(f"{name}: a fence is not at the beginning of its lines, or never ends")
    for fence in fences(text):
        if fence.language == "bash":
            for line in commands(fence):
                check(typed.command, line, f"{fence.line}: {line}")
        elif fence.language == "python":
            check(typed.python, fence.text, f"{fence.line}: Python")
        elif fence.language == "":
            wrong += [
                f"{name}:{fence.line}: {line}: call the fence bash, so that it is run"
                for line in commands(fence)
                if _looks_typed(line) and not _DRAWN.search(fence.text)
            ]
        elif fence.language != "mermaid":
            wrong.append(f"{name}:{fence.line}: no test runs a fence of {fence.language}")
    for span in spans(text):
        words = span.split()
        if all(_OVERRIDE.fullmatch(word) for word in words):
            check(typed.overrides, words, f" `{span}`")
        elif _looks_typed(span) and "…" not in span:
            for line in _alternatives(span):
                check(_check_mention, line, f" `{span}`")
    return wrong


def _looks_typed(line: str) -> bool:
    program = line.removeprefix("$ ").split()[0].removeprefix(".venv/bin/")
    return program in ("dppm", "make", "pytest", "python", "grpcurl", "pip")


def _alternatives(span: str) -> list[str]:
    """Write `dppm ledger show|verify` out: a line for each."""
    words = [word.split("|") for word in span.replace(" | ", "|").split()]
    return [" ".join(line) for line in product(*words)]


def _check_mention(line: str) -> None:
    """Check a command in running text, which may be its bare name."""
    words = line.removeprefix(".venv/bin/").split()
    if words[0] != "dppm" or not _is_verb(parser(), words[1:]):
        Typed(mentioned=True).command(line)


def _is_verb(root: argparse.ArgumentParser, words: list[str]) -> bool:
    if not words:
        return True
    inner = [a.choices for a in root._actions if isinstance(a, argparse._SubParsersAction)]
    return bool(inner) and words[0] in inner[0] and _is_verb(inner[0][words[0]], words[1:])
