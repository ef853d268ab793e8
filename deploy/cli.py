"""The `dppm` command: all that can be typed, with examples."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from deploy.kit.arguments import add_server, add_site
from deploy.verbs import PAGE_ADDRESS, add_verb

_OVERRIDES = "hydra overrides such as privacy.epsilon=1; all keys: dppm_model/conf/"


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    root = argparse.ArgumentParser(
        prog="dppm",
        description="Differentially private federated image generation.",
        epilog="`dppm COMMAND --help` shows examples. Refusals exit with their own code (10-52).",
    )
    verbs = root.add_subparsers(dest="command", required=True, metavar="COMMAND")

    verb = partial(add_verb, verbs, "dppm")

    data = verb(
        "data",
        "fetch, import or list data sets",
        "data fetch mnist\ndata fetch glyphs    (A-Z from fonts, 256x256; glyphs-aj: A-J)\n"
        "data import ~/scans --name scans --size 64\ndata list",
    )
    data.add_argument("action", choices=("fetch", "import", "list"))
    data.add_argument("what", nargs="?", help="data set name (fetch), folder or file (import)")
    data.add_argument("--name", help="import: name of the new data set")
    data.add_argument("--size", type=int, help="import: resize to this many pixels a side")
    data.add_argument("--test-fraction", type=float, default=0.1, help="import: held-out share")

    plan = verb(
        "plan",
        "print what a run would cost, before anything is spent",
        "plan\nplan data=mnist sites=50 privacy.epsilon=1 --json\n"
        "plan --measure    (time a round of each phase on this machine)\n"
        "plan --scale    (up to 100,000 sites and 10^9 parameters; takes minutes)\n"
        "plan --scale --at-sites 10,500 --at-parameters 1e6,3e7 privacy.epsilon=1",
    )
    plan.add_argument("--scale", action="store_true", help="a gradient round at larger scales")
    plan.add_argument(
        "--measure", action="store_true", help="time a round of each phase here, on the data"
    )
    plan.add_argument("--at-sites", metavar="N,N,…", help="with --scale")
    plan.add_argument("--at-parameters", metavar="D,D,…", help="with --scale")
    plan.add_argument("overrides", nargs="*", help=_OVERRIDES)

    ledger = verb(
        "ledger",
        "show what was spent, or verify that nothing was changed",
        "ledger show runs/demo\nledger show runs/demo/sites/0003 --delta 1e-6\n"
        "ledger verify runs/demo",
    )
    ledger.add_argument("action", choices=("show", "verify"))
    ledger.add_argument("path", type=Path, help="run folder, site folder, or ledger.jsonl")
    ledger.add_argument("--delta", type=float, default=1e-5, help="delta of the epsilon shown")

    audit = verb(
        "audit",
        "attack what a run released, and set the epsilon found beside the claim",
        "audit runs/demo\naudit runs/demo --canaries 20000 --trials 200000\n"
        "audit runs/demo --without-randomization    (the auditor's own test: it must find much)",
    )
    audit.add_argument("run", type=Path, help="run folder with a trained model")
    audit.add_argument("--canaries", type=int, default=5000, help="worst-case vectors (one run)")
    audit.add_argument("--images", type=int, default=400, help="images of noise (one run)")
    audit.add_argument("--trials", type=int, default=100_000, help="rounds in each of two worlds")
    audit.add_argument("--members", type=int, default=2000, help="records of the image attacks")
    audit.add_argument(
        "--without-randomization",
        action="store_true",
        help="attack expected answers instead of random ones; nothing private is read",
    )

    runs = verb(
        "compare",
        "set finished runs side by side in a Markdown table",
        "compare runs/demo runs/eps1\ncompare runs/* > table.md\ncompare runs/demo --json",
    )
    runs.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="evaluated run folders")

    told = verb(
        "report",
        "write one HTML file that tells a run: privacy, images, worth, cost, how to repeat it",
        "report runs/demo\nreport runs/demo --public    (only what ε covers)",
    )
    told.add_argument("run", type=Path, help="run folder with finished rounds")
    told.add_argument(
        "--public", action="store_true", help="leave out what was measured on real data"
    )

    page = verb(
        "watch",
        "show a run in the browser while it trains; it only reads the run's folder",
        "watch runs/demo\nwatch runs/demo --address 0.0.0.0:8600 --tls-cert cert.pem "
        "--tls-key key.pem --token-file tokens.txt",
    )
    page.add_argument("run", type=Path, help="run folder, of a simulation or of a server")
    page.add_argument("--address", default=PAGE_ADDRESS, help=f"host:port ({PAGE_ADDRESS})")
    page.add_argument("--tls-cert", type=Path, help="PEM file; with --tls-key")
    page.add_argument("--tls-key", type=Path, help="PEM file")
    page.add_argument("--token-file", type=Path, help="who may look, one a line: NAME TOKEN")

    _serve_options(
        verb(
            "serve",
            "serve images of a trained run over gRPC, until Ctrl-C",
            "serve runs/demo\nserve runs/demo --address 127.0.0.1:6000 --workers 4\n"
            "serve runs/demo --address 0.0.0.0:50051 --tls-cert cert.pem --tls-key key.pem "
            "--token-file tokens.txt\nserve runs/demo sampler=heun",
        )
    )

    for add, name, text in (
        (add_server, "server", "a federation's server: init, enrol, announce, run, status"),
        (add_site, "site", "a data-holding site: init, approve, preflight, run, status, ledger"),
    ):
        add(verb(name, text, f"{name} init --help"))

    for name, text, examples in (
        (
            "simulate",
            "train with virtual sites on this machine",
            "simulate\nsimulate runs/small sites=20 privacy.epsilon=1\nsimulate runs/small"
            "    (continues it)\nsimulate runs/small --watch    (with a live page in the browser)",
        ),
        (
            "sample",
            "draw images from a trained run by Hamiltonian Monte Carlo on Ray",
            "sample runs/demo\nsample runs/demo sampler.per_class=5000 pool.workers=8",
        ),
        (
            "diagnose",
            "look at the sampler: acceptance, energy errors, mixing, a film strip",
            "diagnose runs/demo\n"
            "diagnose runs/demo sampler.step_size=auto sampler.num_integration_steps=4",
        ),
        (
            "evaluate",
            "train classifiers on the synthetic images and test them on real ones",
            "evaluate runs/demo\nevaluate runs/demo evaluation=thorough    (larger, three seeds)\n"
            "evaluate runs/demo evaluation.seeds=[0,1,2] --json",
        ),
        (
            "demo",
            "fetch, plan, simulate, sample and evaluate in one go",
            "demo\ndemo runs/demo-eps1 privacy.epsilon=1",
        ),
    ):
        sub = verb(name, text, examples)
        sub.add_argument("arguments", nargs="*", metavar="[RUN] [OVERRIDE ...]", help=_OVERRIDES)
        if name == "simulate":
            sub.add_argument("--watch", action="store_true", help="show a live page meanwhile")
    return root


def _serve_options(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("arguments", nargs="*", metavar="[RUN] [OVERRIDE ...]", help=_OVERRIDES)
    add("--address", default="127.0.0.1:50051", help="host:port; port 0 takes a free one")
    add("--workers", type=int, default=0, help="Ray actors; 0: this process, without Ray")
    add("--tls-cert", type=Path, help="PEM file; with --tls-key")
    add("--tls-key", type=Path, help="PEM file")
    add("--token-file", type=Path, help="a client a line: NAME TOKEN")
    add("--images-per-hour", type=int, default=100_000, help="of each client, in whole shards")
    add("--jobs-per-client", type=int, default=8, help="at a time")
    add("--insecure", action="store_true", help="to the network also without TLS and tokens")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = parser().parse_args(argv)
    from deploy.act import act  # takes seconds, which help and mistyped commands can do without

    return act(arguments)


if __name__ == "__main__":
    sys.exit(main())
