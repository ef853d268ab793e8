"""`dppm server …` and `dppm site …`: what operators see and type."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from rich.markup import escape

from client.policy import Policy
from deploy.commands import show_plan
from deploy.kit import federation, site
from deploy.kit.announcement import Announcement
from deploy.kit.enrolment import Invitation
from deploy.kit.preflight import preflight
from deploy.kit.server_supervisor import ServerSupervisor
from deploy.kit.site_supervisor import SiteSupervisor
from deploy.kit.status import online, server_status, site_status
from deploy.ledger import show_ledger
from deploy.pages.watch import beside
from deploy.show import console, epsilon_text, model_text, plain, print_json, progress
from dppm_model.config import read_config
from dppm_model.errors import ConfigError, DataError, NotApproved, RunFolderError
from dppm_model.files import sweep
from dppm_model.records.sources import data_root
from dppm_model.run import Run
from sampler.service.access import is_loopback, split_address


def _say(text: str) -> None:
    console.print(escape(plain(text)), soft_wrap=True)


def _confirm(question: str, arguments: argparse.Namespace) -> None:
    """Ask an operator who is there; a script says --yes."""
    if arguments.yes:
        return
    if not sys.stdin.isatty():
        raise NotApproved(f"{question} Nobody is there to ask.", "Say --yes if you have checked.")
    console.print(f"{escape(question)} [bold]yes[/] or no: ", end="")
    if sys.stdin.readline().strip() != "yes":
        raise NotApproved("it was not confirmed.", "Nothing has been changed.")


def _server_init(a: argparse.Namespace) -> None:
    own = [path for path in (a.cert, a.key, a.ca) if path]
    if len(own) not in (0, 3):
        raise ConfigError("--cert, --key and --ca belong together.", "Give all three, or none.")
    port = a.address.rpartition(":")[2]
    paper = federation.init_server(
        a.folder, a.name, a.address, a.listen or f"0.0.0.0:{port}", a.superlink_port, own
    )
    _say(f"Made {a.folder}. Send {a.folder / 'invitation.json'} to every site.")
    _say(f"Its fingerprint, to be read to them over the telephone: {paper.fingerprint}")
    _say(f"Next: dppm server enrol {a.folder} ENROLMENT.json, for what the sites send back.")


def _server_enrol(a: argparse.Namespace) -> None:
    for path in a.papers:
        paper = federation.check_enrolment(a.folder, path)
        _say(f"{paper.site}: {paper.fingerprint}")
        _confirm(f"Has {paper.site}'s operator read you this fingerprint?", a)
        federation.enrol(a.folder, paper)
    names = sorted(federation.enrolled(a.folder))
    _say(f"{len(names)} sites are enrolled: {', '.join(names)}.")
    if a.json:
        print_json(names)


def _server_announce(a: argparse.Namespace) -> None:
    with console.status("planning"):
        run, announcement = federation.announce(a.folder, a.run, a.overrides)
    privacy = run.read_json(run.privacy)
    show_plan(announcement.plan, read_config(run.config), privacy)
    _say(f"Send {federation.announcement_file(run)} to every site.")
    _say(f"Its fingerprint, the same for all of them: {announcement.fingerprint}")
    _say(f"Next: dppm server run {a.folder} {a.run}, while the sites approve and run.")
    if a.json:
        print_json({**privacy, "fingerprint": announcement.fingerprint})


def _server_run(a: argparse.Namespace) -> None:
    run = Run(a.folder / "runs" / a.run)
    if not (run.folder / "plan.json").is_file():
        raise RunFolderError(
            f"{run.folder} is no announced run.", f"dppm server announce {a.folder} {a.run} …"
        )
    plan = run.plan()
    sweep(run.folder)
    if run.model.exists():
        _say(f"{run.folder} is trained; nothing to do.")
        return
    with _page(a, run), ServerSupervisor(a.folder, _say).up() as link:
        _say(f"{link.settings.address} is open to {len(federation.enrolled(a.folder))} sites.")
        with progress(f"training {a.run} over {plan.sites} sites") as bar:
            link.train(run, lambda: bar.count(len(run.rounds()), plan.rounds))
            bar.count(plan.rounds, plan.rounds)
    _say(f"{run.folder} is trained. Next: dppm sample {run.folder}")
    if a.json:
        print_json(run.read_json(run.privacy))


def _page(a: argparse.Namespace, run: Run) -> AbstractContextManager[None]:
    """Show the run; where other machines can look, under the server's own certificate."""
    if a.page == "off":
        return beside(run, None)
    own = (a.folder / "tls" / "server.crt", a.folder / "tls" / "server.key")
    return beside(
        *(run, a.page),
        token_file=a.page_tokens,
        tls=None if is_loopback(split_address(a.page)[0]) else own,
        count_online=lambda: online(a.folder),
    )


def _server_status(a: argparse.Namespace) -> None:
    found = server_status(a.folder)
    if a.json:
        print_json(found)
        return
    up = "running" if found["running"] else "stopped"
    _say(
        f"{found['federation']} at {found['address']}: {up}; "
        f"{'?' if found['online'] is None else found['online']} of {len(found['enrolled'])} "
        "sites connected"
    )
    for r in found["runs"]:
        _say(
            f"  {r['run']}: {r['state']}{', ' * bool(r['stage'])}{r['stage']}; "
            f"round {r['round']} of {r['rounds']}, "
            f"{r['sites_in_last_sum'] or 0} of {r['sites']} sites in the last sum"
        )
        for view in ("epsilon_secure_sum", "epsilon_site"):
            spent, planned = r[view]["spent"], r[view]["planned"]
            _say(f"    {view}: {epsilon_text(spent)} of {epsilon_text(planned)} spent")
        if r["last_error"]:
            _say(f"    last error: {r['last_error']}")


def _site_init(a: argparse.Namespace) -> None:
    limits = {
        key: value
        for key in ("max_epsilon_secure_sum", "max_epsilon_site", "delta")
        if (value := getattr(a, key)) is not None
    }
    invitation = Invitation.read(a.invitation)
    _say(f"Invitation to {invitation.federation} at {invitation.address}")
    _say(f"  fingerprint {invitation.fingerprint}")
    _confirm("Has the server's operator read you this fingerprint?", a)
    paper = site.init_site(a.folder, a.invitation, a.name, _shards(a.records), limits)
    _say(f"Made {a.folder}. Send {a.folder / 'enrolment.json'} to the server's operator.")
    _say(f"Its fingerprint, to be read to them over the telephone: {paper.fingerprint}")
    if missing := {"max_epsilon_secure_sum", "max_epsilon_site", "delta"} - limits.keys():
        _say(f"Decide {', '.join(sorted(missing))} in {a.folder / 'site.toml'}; until then this")
        _say("site refuses everything.")
    _say(f"Next: dppm site approve {a.folder} ANNOUNCEMENT.zip, for what the server sends.")
    if a.json:
        print_json({"site": paper.site, "fingerprint": paper.fingerprint})


def _shards(what: str) -> Path:
    """Find a shard folder, or the training half of a data set of this machine's store."""
    path = Path(what)
    stored = data_root() / what / "train"
    for candidate in (path, path / "train", stored):
        if (candidate / "manifest.json").is_file():
            return candidate
    raise DataError(
        f"--records: {what} is no shard folder and no data set.",
        "Import the images first: dppm data import FOLDER --name NAME.",
    )


def _site_approve(a: argparse.Namespace) -> None:
    site.require_site(a.folder)
    announcement = Announcement.read(a.announcement)
    proposal = site.Proposal(a.folder, announcement)
    _show_proposal(proposal)
    proposal.check()
    _confirm(
        "Has the server's operator read you this fingerprint, and do you approve this plan, these "
        "peers, and that this code runs here?",
        a,
    )
    proposal.approve()
    _say(f"Approved. Next: dppm site preflight {a.folder}, then dppm site run {a.folder}.")
    if a.json:
        print_json({"plan": announcement.plan.digest, "fingerprint": announcement.fingerprint})


def _show_proposal(proposal: site.Proposal) -> None:
    announcement, plan = proposal.announcement, proposal.plan
    _say(f"Run {plan.run} of {announcement.federation}: {plan.rounds} rounds, {plan.sites} sites")
    for phase in plan.phases:
        _say(
            f"  {phase.name}: {phase.rounds} rounds, {phase.dimension} coordinates; each "
            f"{plan.unit} takes part with probability {phase.sampling_rate:g}, by {phase.mechanism}"
        )
    _say(model_text(plan.model))
    if plan.unit == "person":
        _say(f"A person takes part through at most {plan.records_per_person} records a round.")
    _say(f"Protects one {plan.unit}; at least {plan.min_survivors} sites in a sum.")
    _say(
        f"Costs at your delta {proposal.policy.delta:g} (the server announced them at "
        f"{plan.delta:g}):"
    )
    for view, (spent, planned, both, limit) in proposal.spending().items():
        most = "no limit" if math.isinf(limit) else f"limit {limit:g}"
        _say(
            f"  ε ({view.replace('_', ' ')}): spent {epsilon_text(spent)}, this run "
            f"{epsilon_text(planned)}, both {epsilon_text(both)}, {most}"
        )
    _say("Peers, whose identities will be pinned:")
    for name, key, state in proposal.peers():
        _say(f"  {name}  {key}  {state}")
    changes = list(proposal.code())
    _say(
        "Code: the same as is installed here."
        if not changes
        else "Code: DIFFERENT from what is installed here; read these files before you approve:"
    )
    for name, state in changes:
        _say(f"  {state:8}{name}")
    _say(
        f"Fingerprint, the same at all sites or somebody is told a lie: {announcement.fingerprint}"
    )


def _site_preflight(a: argparse.Namespace) -> int:
    site.require_site(a.folder)
    code, lines = 0, []
    for found in preflight(a.folder):
        good = not found.hint
        mark = "[green]ok  [/]" if good else "[bold red]FAIL[/]"
        console.print(f"{mark} {found.check.name:12} {escape(plain(found.text))}", soft_wrap=True)
        if not good:
            console.print(f"     [bold]Fix[/]: {escape(plain(found.hint))}", soft_wrap=True)
            code = code or found.check.exit_code
        lines.append(
            {"check": found.check.name, "ok": good, "found": found.text, "fix": found.hint}
        )
    if a.json:
        print_json(lines)
    return code


def _site_run(a: argparse.Namespace) -> None:
    site.require_site(a.folder)
    node = SiteSupervisor(a.folder, _say)
    _say(f"{node.name} answers {node.address} until Ctrl-C; log: {node.log}")
    node.run()


def _site_status(a: argparse.Namespace) -> None:
    site.require_site(a.folder)
    found = site_status(a.folder)
    if a.json:
        print_json(found)
        return
    up = "running" if found["running"] else "stopped"
    _say(f"{found['site']} of {found['federation']} at {found['server']}: {up}")
    for r in found["runs"]:
        _say(f"  {r['run']}: {r['answered']} of {r['rounds']} rounds answered")
    for view in ("epsilon_secure_sum", "epsilon_site"):
        limit = found[view]["limit"]
        most = "no limit" if limit is None else f"of {limit:g}"
        _say(f"  {view}: {epsilon_text(found[view]['spent'])} spent, {most}")
    _say(f"  at delta {found['delta']:g}, which is this site's own")
    _say(f"  last answer: {found['last_answer'] or 'none'}")
    _say(f"  last error: {found['last_error'] or 'none'}")


def _site_ledger(a: argparse.Namespace) -> None:
    site.require_site(a.folder)
    delta = a.delta or Policy.read(a.folder / "site.toml").delta
    show_ledger(argparse.Namespace(action=a.what, path=a.folder, delta=delta, json=a.json))


_ACTIONS: dict[tuple[str, str], Callable[[argparse.Namespace], int | None]] = {
    ("server", "init"): _server_init,
    ("server", "enrol"): _server_enrol,
    ("server", "announce"): _server_announce,
    ("server", "run"): _server_run,
    ("server", "status"): _server_status,
    ("site", "init"): _site_init,
    ("site", "approve"): _site_approve,
    ("site", "preflight"): _site_preflight,
    ("site", "run"): _site_run,
    ("site", "status"): _site_status,
    ("site", "ledger"): _site_ledger,
}


def act(arguments: argparse.Namespace) -> int:
    """Run `dppm server ACTION` or `dppm site ACTION`, and return its exit code."""
    return _ACTIONS[arguments.command, arguments.action](arguments) or 0
