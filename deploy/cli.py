"""The `dppm` command line, with an example for every command.

A command's function is imported when it runs, so that help, completion and usage errors are fast.
Usage errors exit with 2, refusals with 10 to 33 (`dppm_model.errors`), failed checks of
`dppm site preflight` with 40 to 53.
"""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from deploy.interrupts import leaving_at_once
from dppm_model.errors import ConfigError, DppmError

_KEYS = "hydra overrides such as privacy.epsilon=1; `dppm config` lists all keys"
PAGE_ADDRESS = "127.0.0.1:8600"  # of the live page


class Command(click.Command):
    """A command (``path`` is its words), whose function is imported when it runs.

    ``function`` is ``module:name``. It gets all parameters by name: ``[RUN] [OVERRIDE ...]`` as
    ``folder`` and ``overrides``, ``--json`` as ``as_json``. Each example is the rest of a line.
    """

    def __init__(
        self, path: str, function: str, text: str, *params: click.Parameter, examples: Sequence[str]
    ) -> None:
        shown = [f"  dppm {path} {example}".rstrip() for example in examples]
        super().__init__(
            path.split()[-1],
            params=[*params, flag("--json", "print JSON on standard output", name="as_json")],
            help=text,
            short_help=text,
            epilog="\n".join(["\b", "examples:", *shown]),
        )
        self.path, self._function = path, function

    @property
    def function(self) -> Callable[..., int | None]:
        """The command's function, imported on access."""
        module, _, name = self._function.partition(":")
        with leaving_at_once():
            found: Callable[..., int | None] = getattr(import_module(module), name)
        return found

    def invoke(self, ctx: click.Context) -> int | None:
        """Run it, and return its exit code."""
        given = dict(ctx.params)
        if "arguments" in given:
            given["folder"], given["overrides"] = split_arguments(given.pop("arguments"))
        return self.function(**given)


def split_arguments(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Separate the run folder from the overrides: key=value, or ~key to take a phase away.

    No key has a slash: ``runs/eps=1`` is a folder.
    """
    overrides = [
        a
        for a in arguments
        if ("=" in a and "/" not in a.partition("=")[0]) or (a.startswith("~") and "/" not in a)
    ]
    folders = [a for a in arguments if a not in overrides]
    if len(folders) > 1:
        raise ConfigError(
            f"More than one run folder: {' and '.join(folders)}.",
            "Name one; overrides are key=value or ~key.",
        )
    return (Path(folders[0]) if folders else None), overrides


def option(flags: str, text: str, **rest: Any) -> click.Option:
    """Return an option with a value; ``least`` is the minimum of a number."""
    if (least := rest.pop("least", None)) is not None:
        rest["type"] = click.IntRange(least)
    return click.Option([flags], help=text, show_default=rest.get("default") is not None, **rest)


def flag(flags: str, text: str, name: str | None = None) -> click.Option:
    """Return an option without a value."""
    return click.Option([flags, *([name] if name else [])], is_flag=True, help=text)


def argument(name: str, text: str, **rest: Any) -> click.Argument:
    """Return a positional argument."""
    return click.Argument([name], help=text, **rest)


PATH = click.Path(path_type=Path)
file = partial(option, type=PATH)
OVERRIDES = argument("overrides", _KEYS, nargs=-1, metavar="[OVERRIDE ...]")
ARGUMENTS = argument("arguments", _KEYS, nargs=-1, metavar="[RUN] [OVERRIDE ...]")
RUN = argument("run", "run folder", type=PATH)
RUN_NAME = argument("run", "name of the run")
FOLDER = argument("folder", "the server's or site's folder", type=PATH)
LEDGER = argument("path", "run folder, site folder, or ledger.jsonl", type=PATH)
TLS = (
    file("--tls-cert", "PEM file; requires --tls-key"),
    file("--tls-key", "PEM file; requires --tls-cert"),
    file("--token-file", "file with one client per line: NAME TOKEN"),
)
YES = flag("--yes", "confirm that fingerprints were compared; do not ask")
EPSILON_DELTA = option("--delta", "delta at which epsilon is shown", default=1e-5)

GROUPS = {
    "data": "fetch, import, list and show data sets",
    "ledger": "show the privacy spent, or verify the ledger's integrity",
    "override": "waive conditions of a release, signed",
    "server": "run a federation's server: init, enrol, announce, run, status",
    "site": "run a data-holding site: init, approve, preflight, run, status, ledger",
}
COMMANDS = (
    Command(
        "data fetch",
        "deploy.commands:fetch",
        "fetch a public data set into the local store",
        argument("name", "name of the data set"),
        click.Option(
            ["--from", "source"],
            type=PATH,
            help="your own copy: MedMNIST's npz file, or the folder of idx files or fonts",
        ),
        examples=[
            "mnist",
            "glyphs    (A-Z from fonts, 256x256; glyphs-aj: A-J)",
            "medmnist/bloodmnist@224    (28, 64, 128 or 224 pixels a side)",
            "medmnist/bloodmnist --from bloodmnist.npz    (without network)",
        ],
    ),
    Command(
        "data import",
        "deploy.commands:import_data",
        "import your own images into the local store",
        argument("source", "folder, DICOMDIR, or CSV, npz, parquet or tar file", type=PATH),
        option("--name", "name of the new data set"),
        option("--size", "side in pixels to resize to", type=int),
        file("--labels", "CSV with the labels of the images in SOURCE, by file or SOPInstanceUID"),
        file("--test", "images to hold out, in any of these formats"),
        option(
            "--test-fraction",
            "held-out share of each class (default: 0.1, unless the source has a test split)",
            type=float,
        ),
        option("--label", "column that says an image's class, if there are several such"),
        option("--person", "column that says whose an image is"),
        flag("--no-person", "protect records, although the CSV or DICOM names persons"),
        flag("--pages", "make each page of a file a record"),
        option(
            "--axis",
            "plane of the slices of NIfTI volumes",
            default="axial",
            type=click.Choice(["sagittal", "coronal", "axial"]),
        ),
        option("--slices", "range of them, such as 30%:70% or 40:60", metavar="LOW:HIGH"),
        option(
            "--window",
            "grey values of DICOM to show: file, percentile, CENTER,WIDTH, or auto (the file's "
            "window; else all of 8 bits; else percentiles 0.5 to 99.5 of each image)",
            default="auto",
        ),
        flag("--refuse-text", "refuse images that may show writing in a corner"),
        flag("--drop-duplicates", "leave out exact copies"),
        flag("--as-written", "take values that look like two spellings of one for different"),
        examples=[
            "~/scans --name scans --size 64",
            "scans/train.csv --test scans/test.csv --name scans --person patient_id",
            "volumes --name brains --size 64 --axis axial --slices 40%:60%    (NIfTI)",
            "~/dicom --labels findings.csv --name chest --size 128 --window=-600,1500",
            "repository --name scans    (parquet of Hugging Face, or tar of WebDataset)",
        ],
    ),
    Command(
        "pretrain",
        "deploy.pretrain:pretrain",
        "train the public network of model=pretrained on public images",
        argument("name", "name of the weights"),
        click.Option(["--data"], multiple=True, help="public data set; may be repeated"),
        option("--size", "small or base", default="small", type=click.Choice(["small", "base"])),
        option("--steps", "training steps", default=12_000, least=1),
        option("--seed", "seed", default=0, least=0),
        examples=["mine --data flowers --data scenes    (hours; goes on where it was stopped)"],
    ),
    Command(
        "data list",
        "deploy.commands:list_data",
        "list the data sets in the local store",
        examples=["", "--json"],
    ),
    Command(
        "data show",
        "deploy.data_show:show",
        "show what a data set holds: counts, copies, warnings, pictures; keep them at the site",
        argument("name", "name of the data set"),
        file("--out", "folder for the two pictures (default: show/ beside the records)"),
        examples=["scans", "scans --json --out ~/scans-seen"],
    ),
    Command(
        "config",
        "deploy.configuration:show",
        "list all configuration keys with value, type and meaning",
        OVERRIDES,
        flag("--yaml", "print the configuration as YAML on standard output", name="as_yaml"),
        examples=["", "model=residual privacy.epsilon=1    (marks changed keys)", "--yaml"],
    ),
    Command(
        "plan",
        "deploy.commands:plan",
        "show the privacy, bytes and time a run would cost; spends nothing",
        OVERRIDES,
        flag("--measure", "time a round of each phase on this machine"),
        flag("--scale", "show costs of a gradient round at larger scales"),
        option("--at-sites", "with --scale", metavar="N,N,…"),
        option("--at-parameters", "with --scale", metavar="D,D,…"),
        examples=[
            "",
            "data=mnist sites=50 privacy.epsilon=1 --json",
            "--measure",
            "--scale    (up to 100,000 sites and 10^9 parameters; takes minutes)",
            "--scale --at-sites 10,500 --at-parameters 1e6,3e7 privacy.epsilon=1",
        ],
    ),
    Command(
        "simulate",
        "deploy.commands:simulate",
        "train a model with virtual sites on this machine",
        ARGUMENTS,
        flag("--watch", "serve a live page during training"),
        examples=[
            "",
            "runs/small sites=20 privacy.epsilon=1",
            "runs/small    (resumes it)",
            "runs/small --watch    (with a live page in the browser)",
        ],
    ),
    Command(
        "sample",
        "deploy.sampling:sample",
        "draw images from a trained run, by Hamiltonian Monte Carlo on Ray",
        ARGUMENTS,
        examples=["runs/demo", "runs/demo sampler.per_class=5000 pool.workers=8"],
    ),
    Command(
        "diagnose",
        "deploy.sampling:diagnose",
        "diagnose the sampler: acceptance, energy errors, mixing, film strip",
        ARGUMENTS,
        examples=["runs/demo", "runs/demo sampler.step_size=auto sampler.num_integration_steps=4"],
    ),
    Command(
        "evaluate",
        "deploy.commands:evaluate",
        "train classifiers on synthetic images and test them on real ones",
        ARGUMENTS,
        examples=[
            "runs/demo",
            "runs/demo evaluation=thorough    (larger, three seeds)",
            "runs/demo evaluation.seeds=[0,1,2] --json",
        ],
    ),
    Command(
        "demo",
        "deploy.commands:demo",
        "fetch, plan, simulate, sample and evaluate in one go",
        ARGUMENTS,
        examples=["", "runs/demo-eps1 privacy.epsilon=1"],
    ),
    Command(
        "ledger show",
        "deploy.ledger:show",
        "show the privacy spent, by run and phase",
        LEDGER,
        EPSILON_DELTA,
        examples=["runs/demo", "runs/demo/sites/0003 --delta 1e-6"],
    ),
    Command(
        "ledger verify",
        "deploy.ledger:verify",
        "verify that a ledger was not edited, cut or replaced",
        LEDGER,
        EPSILON_DELTA,
        examples=["runs/demo"],
    ),
    Command(
        "audit",
        "deploy.audit:audit_run",
        "attack a run's releases: lower bounds on epsilon beside the claims",
        RUN,
        option("--canaries", "worst-case vectors (attack on one run)", default=5000, least=10),
        option("--images", "images of noise (attack on one run)", default=400, least=10),
        option(
            "--trials", "simulated rounds with and without the unit", default=100_000, least=1000
        ),
        option("--members", "records for the attacks on images", default=2000, least=100),
        flag(
            "--without-randomization", "attack answers without randomization; reads nothing private"
        ),
        examples=[
            "runs/demo",
            "runs/demo --canaries 20000 --trials 200000",
            "runs/demo --without-randomization    (tests the auditor: it must refute the claim)",
        ],
    ),
    Command(
        "compare",
        "deploy.compare:compare",
        "compare finished runs in a Markdown table",
        argument("runs", "evaluated run folders", type=PATH, nargs=-1, required=True),
        examples=["runs/demo runs/eps1", "runs/* > table.md", "runs/demo --json"],
    ),
    Command(
        "report",
        "deploy.pages.report:report",
        "write an HTML report: privacy, samples, evaluation, costs",
        RUN,
        flag("--public", "leave out figures measured on real data"),
        examples=["runs/demo", "runs/demo --public    (only figures that ε covers)"],
    ),
    Command(
        "export",
        "deploy.export.command:export",
        "export the synthetic images, marked as such, with a datasheet",
        RUN,
        click.Option(
            ["--format", "form"],
            type=click.Choice(["folder", "csv", "parquet", "webdataset", "npz", "dicom"]),
            required=True,
            help="format of the images",
        ),
        file("--out", "new or empty folder (default: RUN/export/FORMAT)"),
        examples=[
            "runs/demo --format folder",
            "runs/demo --format dicom --out ~/synthetic    (needs the extra dicom)",
        ],
    ),
    Command(
        "release",
        "deploy.release.command:release",
        "check a run against a release policy, and write the page to sign",
        argument("run", "run folder", type=PATH, required=False),
        file("--policy", "YAML file with limits (default: those of --print-policy)"),
        file("--override", "signed file that waives conditions"),
        flag("--print-policy", "print the default policy, explained, and check nothing"),
        examples=[
            "runs/demo",
            "--print-policy > policy.yaml    (to be edited)",
            "runs/demo --policy policy.yaml --override override.json",
        ],
    ),
    Command(
        "override key",
        "deploy.release.command:make_key",
        "make a key that may sign overrides, and print the line for the policy",
        argument("path", "new file for the private key", type=PATH),
        examples=["officer.key"],
    ),
    Command(
        "override sign",
        "deploy.release.command:sign",
        "waive conditions of a release that a run does not meet",
        RUN,
        file("--key", "private key", required=True),
        option("--by", "name of the key in the policy (default: that of its file)"),
        click.Option(
            ["--waive"],
            multiple=True,
            required=True,
            metavar="CONDITION=REASON",
            help="may be repeated",
        ),
        file("--policy", "YAML file with limits (default: those of `dppm release`)"),
        file("--out", "file to write", default="override.json"),
        examples=[
            "runs/demo --policy policy.yaml --key officer.key "
            "--waive 'min_class_size=all 31 patients agreed in writing'"
        ],
    ),
    Command(
        "watch",
        "deploy.pages.watch:watch",
        "show a run in the browser while it trains",
        RUN,
        option("--address", "host:port", default=PAGE_ADDRESS),
        *TLS,
        examples=[
            "runs/demo",
            "runs/demo --address 0.0.0.0:8600 --tls-cert cert.pem --tls-key key.pem "
            "--token-file tokens.txt",
        ],
    ),
    Command(
        "serve",
        "deploy.serve:serve",
        "serve images of a trained run over gRPC",
        ARGUMENTS,
        option("--address", "host:port; port 0 picks a free one", default="127.0.0.1:50051"),
        option("--workers", "number of Ray actors; 0: this process, without Ray", default=0),
        *TLS,
        option("--images-per-hour", "limit per client, counted in whole shards", default=100_000),
        option("--jobs-per-client", "limit of concurrent jobs per client", default=8),
        flag("--insecure", "allow network access without TLS and tokens"),
        examples=[
            "runs/demo",
            "runs/demo --address 127.0.0.1:6000 --workers 4",
            "runs/demo --address 0.0.0.0:50051 --tls-cert cert.pem --tls-key key.pem "
            "--token-file tokens.txt",
            "runs/demo sampler=heun",
        ],
    ),
    Command(
        "server init",
        "deploy.kit.commands:server_init",
        "create a federation: certificates, proxy, and an invitation for the sites",
        FOLDER,
        option("--name", "name of the federation", required=True),
        option("--address", "public host:port that sites connect to", required=True),
        option("--listen", "address:port the proxy listens on (default: all addresses, same port)"),
        option("--superlink-port", "loopback port of the SuperLink", default=9091),
        file("--cert", "your certificate chain for the address"),
        file("--key", "its key"),
        file("--ca", "certificate authority that sites will trust"),
        examples=[
            "fed --name chest --address fed.example.org:8443",
            "fed --name chest --address fed.example.org:443 --listen 10.0.0.5:8443",
        ],
    ),
    Command(
        "server enrol",
        "deploy.kit.commands:server_enrol",
        "enrol sites by the files they sent",
        FOLDER,
        argument("enrolments", "enrolments", type=PATH, nargs=-1, required=True),
        YES,
        examples=["fed st-mary.json charite.json"],
    ),
    Command(
        "server announce",
        "deploy.kit.commands:server_announce",
        "plan a run over all enrolled sites, and write the announcement to approve",
        FOLDER,
        RUN_NAME,
        OVERRIDES,
        examples=[
            "fed first data=mnist privacy.epsilon=8",
            "fed scans data=scans facts.shape=[1,64,64] facts.classes=[ill,well] "
            "facts.records=40000 privacy.unit=record",
        ],
    ),
    Command(
        "server run",
        "deploy.kit.commands:server_run",
        "start the server, and train a run to its end; resumes",
        FOLDER,
        RUN_NAME,
        option(
            "--page",
            "host:port of the live page, or off; an address that other machines can reach needs "
            "--page-tokens and uses the server's certificate",
            default=PAGE_ADDRESS,
        ),
        file("--page-tokens", "file with one viewer per line: NAME TOKEN"),
        examples=[
            "fed first",
            "fed first --page 0.0.0.0:8600 --page-tokens tokens.txt    (visible to others)",
            "fed first --page off",
        ],
    ),
    Command(
        "server status",
        "deploy.kit.commands:show_server",
        "show sites, rounds, privacy spent and left, and the last error",
        FOLDER,
        examples=["fed"],
    ),
    Command(
        "site init",
        "deploy.kit.commands:site_init",
        "create a site: keys, policy, and the enrolment for the server",
        FOLDER,
        file("--invitation", "file from the server's operator", required=True),
        option("--name", "name of the site", required=True),
        option("--records", "name of an imported data set, or a shard folder", required=True),
        option(
            "--max-epsilon-secure-sum",
            "limit over all runs against anyone who sees the sums",
            type=float,
        ),
        option(
            "--max-epsilon-site",
            "limit over all runs against anyone who sees this site's reports; inf: no limit",
            type=float,
        ),
        option("--delta", "delta of both limits; below one over the number of records", type=float),
        YES,
        examples=[
            "st-mary --invitation invitation.json --name st-mary --records scans "
            "--max-epsilon-secure-sum 12 --max-epsilon-site 40 --delta 1e-6"
        ],
    ),
    Command(
        "site approve",
        "deploy.kit.commands:site_approve",
        "review an announced run, its code and its cost, and approve it",
        FOLDER,
        argument("announcement", "file from the server's operator", type=PATH),
        YES,
        examples=["st-mary announcement.zip"],
    ),
    Command(
        "site preflight",
        "deploy.kit.commands:site_preflight",
        "check everything a run needs, with a fix for each failure",
        FOLDER,
        examples=["st-mary"],
    ),
    Command(
        "site run",
        "deploy.kit.commands:site_run",
        "answer the server's questions until Ctrl-C",
        FOLDER,
        examples=["st-mary"],
    ),
    Command(
        "site status",
        "deploy.kit.commands:show_site",
        "show rounds, privacy spent and left, and the last error",
        FOLDER,
        examples=["st-mary"],
    ),
    Command(
        "site ledger",
        "deploy.kit.commands:site_ledger",
        "show the privacy spent, or verify the ledger's integrity",
        FOLDER,
        argument("what", "to do", type=click.Choice(["show", "verify"])),
        option("--delta", "delta at which epsilon is shown; default: the site's", type=float),
        examples=["st-mary verify"],
    ),
)


class _InOrder(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def program() -> click.Group:
    """Build the command line."""
    root = _InOrder(
        "dppm",
        help="Differentially private federated image generation.",
        epilog="`dppm COMMAND --help` shows examples. A refusal exits with 10 to 33, a failed "
        "check of `dppm site preflight` with 40 to 53. "
        'Completion: eval "$(_DPPM_COMPLETE=bash_source dppm)"; or zsh_source or fish_source',
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    homes = {name: _InOrder(name, help=text, short_help=text) for name, text in GROUPS.items()}
    for command in COMMANDS:
        if home := homes.get(command.path.partition(" ")[0]):
            root.add_command(home)
        (home or root).add_command(command)
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not every terminal or file has every letter
            stream.reconfigure(errors="backslashreplace")
    # A batch system's SIGTERM works like Ctrl-C: Flower's and Ray's processes are stopped first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code: int | None = program().main(argv, "dppm", standalone_mode=False)
        return code or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        click.echo("Interrupted. Run the same command again to resume.", err=True)
        return 130
    except (DppmError, OSError) as error:  # OSError: the machine refused, and no caller handled it
        from deploy.show import show_refusal

        return show_refusal(error)


if __name__ == "__main__":
    sys.exit(main())
