"""The command lines of `dppm server` and `dppm site`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from deploy.verbs import PAGE_ADDRESS, add_verb

Add = Callable[[str, str, str], argparse.ArgumentParser]


def add_server(root: argparse.ArgumentParser) -> None:
    """Add `init`, `enrol`, `announce`, `run` and `status`."""
    add = _actions(root, "dppm server")
    init = add(
        "init",
        "make a federation's folder: certificates, proxy, and the invitation for the sites",
        "init fed --name chest --address fed.example.org:8443\n"
        "init fed --name chest --address fed.example.org:443 --listen 10.0.0.5:8443",
    )
    init.add_argument("--name", required=True, help="of the federation")
    init.add_argument("--address", required=True, help="host:port that sites connect to")
    init.add_argument("--listen", help="address:port the proxy listens on (all, the same port)")
    init.add_argument(
        "--superlink-port", type=int, default=9091, help="loopback port of the SuperLink"
    )
    init.add_argument("--cert", type=Path, help="your own certificate chain for the address")
    init.add_argument("--key", type=Path, help="its key")
    init.add_argument("--ca", type=Path, help="the authority that sites shall trust")

    enrol = add("enrol", "take in sites, by what they sent", "enrol fed st-mary.json charite.json")
    enrol.add_argument("papers", type=Path, nargs="+", metavar="ENROLMENT")
    _yes(enrol)

    announce = add(
        "announce",
        "plan a run over all enrolled sites, and write what they are asked to approve",
        "announce fed first data=mnist privacy.epsilon=8\n"
        "announce fed scans data=scans facts.shape=[1,64,64] facts.classes=[ill,well] "
        "facts.records=40000 privacy.unit=record",
    )
    announce.add_argument("run", help="name of the run")
    announce.add_argument("overrides", nargs="*", help="as for `dppm plan`, and facts.*")

    run = add(
        "run",
        "open the server and play a run to its end, from where it is",
        "run fed first\n"
        "run fed first --page 0.0.0.0:8600 --page-tokens tokens.txt    (seen by others)\n"
        "run fed first --page off",
    )
    run.add_argument("run", help="name of the run")
    run.add_argument(
        "--page",
        default=PAGE_ADDRESS,
        help=f"host:port of the live page, or off ({PAGE_ADDRESS}); where other machines can "
        "reach it, under the server's certificate and with --page-tokens",
    )
    run.add_argument("--page-tokens", type=Path, help="who may look, one a line: NAME TOKEN")
    add("status", "show sites, rounds, what is spent and left, and the last error", "status fed")


def add_site(root: argparse.ArgumentParser) -> None:
    """Add `init`, `approve`, `preflight`, `run`, `status` and `ledger`."""
    add = _actions(root, "dppm site")
    init = add(
        "init",
        "make a site's folder: keys, policy, and the enrolment for the server",
        "init st-mary --invitation invitation.json --name st-mary --records scans "
        "--max-epsilon-secure-sum 12 --max-epsilon-site 40 --delta 1e-6",
    )
    init.add_argument("--invitation", type=Path, required=True, help="from the server's operator")
    init.add_argument("--name", required=True, help="of the site")
    init.add_argument(
        "--records", required=True, help="--name of `dppm data import`, or a shard folder"
    )
    for key, text in (
        ("max-epsilon-secure-sum", "the most to spend over all runs, for who sees the sums"),
        ("max-epsilon-site", "the same for who sees this site's own reports; inf: no limit"),
        ("delta", "of both, below one over the number of records"),
    ):
        init.add_argument(f"--{key}", type=float, help=text)
    _yes(init)

    approve = add(
        "approve",
        "look at an announced run, its code and its cost, and allow it",
        "approve st-mary announcement.zip",
    )
    approve.add_argument("announcement", type=Path)
    _yes(approve)
    add("preflight", "check all that may be wrong, each with its hint", "preflight st-mary")
    add("run", "answer the server, until Ctrl-C", "run st-mary")
    add("status", "show rounds, what is spent and left, and the last error", "status st-mary")
    ledger = add(
        "ledger", "show what was spent, or verify that nothing was changed", "ledger st-mary verify"
    )
    ledger.add_argument("what", choices=("show", "verify"))
    ledger.add_argument("--delta", type=float, help="delta of the epsilon shown; the site's own")


def _actions(root: argparse.ArgumentParser, command: str) -> Add:
    actions = root.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, text: str, examples: str) -> argparse.ArgumentParser:
        sub = add_verb(actions, command, name, text, examples)
        sub.add_argument("folder", type=Path, help="the server's or the site's own folder")
        return sub

    return add


def _yes(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--yes", action="store_true", help="fingerprints were compared; do not ask")
