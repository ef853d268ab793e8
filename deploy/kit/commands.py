"""The `dppm server` and `dppm site` commands."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import groupby
from pathlib import Path

from rich.markup import escape

from client.policy import Policy
from deploy import ledger
from deploy.commands import show_plan
from deploy.import_closure import APPS, digest, lines
from deploy.kit import federation, site
from deploy.kit.announcement import Announcement
from deploy.kit.bundle import differences, part_of
from deploy.kit.enrolment import Invitation
from deploy.kit.preflight import preflight
from deploy.kit.server_supervisor import ServerSupervisor
from deploy.kit.site_supervisor import SiteSupervisor
from deploy.kit.status import online, server_status, site_status
from deploy.pages.watch import beside
from deploy.show import console, epsilon_text, model_text, plain, print_json, progress
from deploy.simulate import show_rounds
from dppm_model.config import read_config
from dppm_model.errors import ConfigError, DataError, NotApproved, RunFolderError
from dppm_model.files import sweep
from dppm_model.mechanism.base import VIEWS
from dppm_model.records.sources import data_root
from dppm_model.run import Run
from sampler.service.access import is_loopback, split_address


def _say(text: str) -> None:
    console.print(escape(plain(text)), soft_wrap=True)


def _confirm(question: str, *, yes: bool) -> None:
    """Ask for confirmation at a terminal; scripts pass --yes."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise NotApproved(f"{question} Standard input is not a terminal.", "Pass --yes to confirm.")
    console.print(f"{escape(question)} [bold]yes[/] or no: ", end="")
    if sys.stdin.readline().strip() != "yes":
        raise NotApproved("it was not confirmed.", "Nothing was changed.")


def server_init(
    folder: Path,
    name: str,
    address: str,
    listen: str | None,
    superlink_port: int,
    cert: Path | None,
    key: Path | None,
    ca: Path | None,
    *,
    as_json: bool,
) -> None:
    """Create a federation's folder, and print its invitation's fingerprint."""
    own = [path for path in (cert, key, ca) if path]
    if len(own) not in (0, 3):
        raise ConfigError("--cert, --key and --ca belong together.", "Give all three, or none.")
    listen = listen or f"0.0.0.0:{address.rpartition(':')[2]}"
    invitation = federation.init_server(folder, name, address, listen, superlink_port, own)
    _say(f"Made {folder}. Send {folder / 'invitation.json'} to every site.")
    _say(f"Fingerprint, to read to them over the telephone: {invitation.fingerprint}")
    _say(f"Next: dppm server enrol {folder} ENROLMENT.json, with the files that sites send back.")
    if as_json:
        print_json({"fingerprint": invitation.fingerprint})


def server_enrol(folder: Path, enrolments: Sequence[Path], *, yes: bool, as_json: bool) -> None:
    """Enrol sites, each after its fingerprint was confirmed."""
    for path in enrolments:
        enrolment = federation.check_enrolment(folder, path)
        _say(f"{enrolment.site}: {enrolment.fingerprint}")
        _confirm(f"Has {enrolment.site}'s operator read you this fingerprint?", yes=yes)
        federation.enrol(folder, enrolment)
    names = sorted(federation.enrolled(folder))
    _say(f"{len(names)} sites are enrolled: {', '.join(names)}.")
    if as_json:
        print_json(names)


def server_announce(folder: Path, run: str, overrides: Sequence[str], *, as_json: bool) -> None:
    """Plan a run, and print its cost and its announcement's fingerprint."""
    with console.status("planning"):
        announced, announcement = federation.announce(folder, run, overrides)
    privacy = announced.read_json(announced.privacy)
    show_plan(announcement.plan, read_config(announced.config), privacy)
    _say(f"Send {federation.announcement_file(announced)} to every site.")
    _say(f"Fingerprint, the same for every site: {announcement.fingerprint}")
    _say(f"Next: dppm server run {folder} {run}, while the sites approve and run.")
    if as_json:
        print_json({**privacy, "fingerprint": announcement.fingerprint})


def server_run(
    folder: Path, run: str, page: str, page_tokens: Path | None, *, as_json: bool
) -> None:
    """Train an announced run to its end, with a live page."""
    opened = Run(folder / "runs" / run)
    if not (opened.folder / "plan.json").is_file():
        raise RunFolderError(
            f"{opened.folder} is not an announced run.", f"dppm server announce {folder} {run} …"
        )
    plan = opened.plan()
    sweep(opened.folder)
    if opened.model.exists():
        _say(f"{opened.folder} is trained; nothing to do.")
        return
    with _page(folder, opened, page, page_tokens), ServerSupervisor(folder, _say).up() as link:
        _say(f"{link.settings.address} is open to {len(federation.enrolled(folder))} sites.")
        with opened.alone(), progress(f"training {run} over {plan.sites} sites") as bar:
            link.train(opened, partial(show_rounds, opened, plan.rounds, bar))
    _say(f"{opened.folder} is trained. Next: dppm sample {opened.folder}")
    if as_json:
        print_json(opened.read_json(opened.privacy))


def _page(
    folder: Path, run: Run, page: str, page_tokens: Path | None
) -> AbstractContextManager[None]:
    """Serve the live page, with the server's certificate if other machines can reach it."""
    if page == "off":
        return beside(run, None)
    own = (folder / "tls" / "server.crt", folder / "tls" / "server.key")
    return beside(
        run,
        page,
        token_file=page_tokens,
        tls=None if is_loopback(split_address(page)[0]) else own,
        count_online=lambda: online(folder),
    )


def show_server(folder: Path, *, as_json: bool) -> None:
    """Print the status of a federation."""
    found = server_status(folder)
    if as_json:
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
        for view in (f"epsilon_{view}" for view in VIEWS):
            spent, planned = r[view]["spent"], r[view]["planned"]
            _say(f"    {view}: {epsilon_text(spent)} of {epsilon_text(planned)} spent")
        if r["last_error"]:
            _say(f"    last error: {r['last_error']}")


def site_init(
    folder: Path,
    invitation: Path,
    name: str,
    records: str,
    *,
    yes: bool,
    as_json: bool,
    **limits: float | None,
) -> None:
    """Create a site's folder; ``limits`` go into its policy, where None stays unset."""
    invited = Invitation.read(invitation)
    _say(f"Invitation to {invited.federation} at {invited.address}")
    _say(f"  fingerprint {invited.fingerprint}")
    _confirm("Has the server's operator read you this fingerprint?", yes=yes)
    decided = {key: value for key, value in limits.items() if value is not None}
    enrolment = site.init_site(folder, invitation, name, _shards(records), decided)
    _say(f"Made {folder}. Send {folder / 'enrolment.json'} to the server's operator.")
    _say(f"Fingerprint, to read to them over the telephone: {enrolment.fingerprint}")
    if missing := limits.keys() - decided.keys():
        unset = ", ".join(sorted(missing))
        _say(f"Set {unset} in {folder / 'site.toml'}; until then this site refuses everything.")
    _say(f"Next: dppm site approve {folder} ANNOUNCEMENT.zip, with the file that the server sends.")
    if as_json:
        print_json({"site": enrolment.site, "fingerprint": enrolment.fingerprint})


def _shards(what: str) -> Path:
    """Find a shard folder, or the training split of a data set in this machine's store."""
    path = Path(what)
    stored = data_root() / what / "train"
    for candidate in (path, path / "train", stored):
        if (candidate / "manifest.json").is_file():
            return candidate
    raise DataError(
        f"--records: {what} is neither a shard folder nor a data set.",
        "Import the images first: dppm data import FOLDER --name NAME.",
    )


def site_approve(folder: Path, announcement: Path, *, yes: bool, as_json: bool) -> None:
    """Show an announced run, and approve it after confirmation."""
    site.require_site(folder)
    announced = Announcement.read(announcement)
    proposal = site.Proposal(folder, announced)
    _show_proposal(proposal)
    proposal.check()
    _confirm(
        "Has the server's operator read you this fingerprint, and do you approve this plan, these "
        "peers, and that this code runs here?",
        yes=yes,
    )
    proposal.approve()
    _say(f"Approved. Next: dppm site preflight {folder}, then dppm site run {folder}.")
    if as_json:
        print_json({"plan": announced.plan.digest, "fingerprint": announced.fingerprint})


def _show_proposal(proposal: site.Proposal) -> None:
    announcement, plan = proposal.announcement, proposal.plan
    _say(f"Run {plan.run} of {announcement.federation}: {plan.rounds} rounds, {plan.sites} sites")
    for phase in plan.phases:
        _say(
            f"  {phase.name}: {phase.rounds} rounds, {phase.dimension} coordinates; each "
            f"{plan.unit} takes part with probability {phase.sampling_rate:g}, through "
            f"{phase.mechanism.name}"
        )
    _say(model_text(plan.model))
    if plan.unit == "person":
        _say(f"A person takes part with at most {plan.records_per_person} records per round.")
    _say(f"Protects one {plan.unit}; at least {plan.min_survivors} sites in a sum.")
    if plan.trusts_server:
        _say(
            "TRUSTS THE SERVER: it sees the sites' exact sums, and nothing protects your records "
            "from it; only what it releases is noisy."
        )
    _say(
        f"Cost at your delta {proposal.policy.delta:g} (the server announced it at {plan.delta:g}):"
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
    for app in APPS:
        files = part_of(announcement.bundle, app)
        _say(
            f"Code that runs at {'this site' if app == 'site' else 'the server only'}: "
            f"{len(files)} files, {lines(files)} lines, SHA-256 {digest(files)}"
        )
        for folder, own in groupby(files, key=lambda name: str(Path(name).parent)):
            part = {name: files[name] for name in own}
            _say(f"  {folder}: {len(part)} files, {lines(part)} lines")
    changes = list(differences(announcement.bundle))
    _say(
        "Code: the same as installed here."
        if not changes
        else "Code: DIFFERENT from the code installed here; review these files before you approve:"
    )
    for name, state in changes:
        _say(f"  {state:8}{name}")
    _say(f"Fingerprint (must be the same at every site): {announcement.fingerprint}")


def site_preflight(folder: Path, *, as_json: bool) -> int:
    """Print every check, and return the exit code of the first that failed."""
    site.require_site(folder)
    code, rows = 0, []
    for found in preflight(folder):
        name, good = found.check.name, not found.hint
        mark = "[green]ok  [/]" if good else "[bold red]FAIL[/]"
        console.print(f"{mark} {name:12} {escape(plain(found.text))}", soft_wrap=True)
        if not good:
            console.print(f"     [bold]Fix[/]: {escape(plain(found.hint))}", soft_wrap=True)
            code = code or found.check.exit_code
        rows.append({"check": name, "ok": good, "found": found.text, "fix": found.hint})
    if as_json:
        print_json(rows)
    return code


def site_run(folder: Path, *, as_json: bool) -> None:
    """Answer the server until Ctrl-C."""
    site.require_site(folder)
    node = SiteSupervisor(folder, _say)
    _say(f"{node.name} answers {node.address} until Ctrl-C; log: {node.log}")
    if as_json:
        print_json({"site": node.name, "server": node.address})
        sys.stdout.flush()
    node.run()


def show_site(folder: Path, *, as_json: bool) -> None:
    """Print the status of a site."""
    site.require_site(folder)
    found = site_status(folder)
    if as_json:
        print_json(found)
        return
    up = "running" if found["running"] else "stopped"
    _say(f"{found['site']} of {found['federation']} at {found['server']}: {up}")
    for r in found["runs"]:
        _say(f"  {r['run']}: {r['answered']} of {r['rounds']} rounds answered")
    for view in ("secure_sum", "site", *["release"] * bool(found["trusted_rounds"])):
        spent, limit = found[f"epsilon_{view}"].values()
        most = "no limit" if limit is None else f"of {limit:g}"
        _say(f"  epsilon_{view}: {epsilon_text(spent)} spent, {most}")
    if found["trusted_rounds"]:
        _say(
            f"  {found['trusted_rounds']} rounds trusted the server with exact sums: they count "
            "for its releases alone, and nothing protects from the server itself"
        )
    _say(f"  at delta {found['delta']:g}, which this site's policy sets")
    _say(f"  last answer: {found['last_answer'] or 'none'}")
    _say(f"  last error: {found['last_error'] or 'none'}")


def site_ledger(folder: Path, what: str, delta: float | None, *, as_json: bool) -> None:
    """Print or verify a site's ledger."""
    site.require_site(folder)
    delta = delta or Policy.read(folder / "site.toml").delta
    (ledger.verify if what == "verify" else ledger.show)(folder, delta, as_json=as_json)
