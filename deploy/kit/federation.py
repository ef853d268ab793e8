"""The server's folder: `dppm server init`, `enrol` and `announce`.

server.toml  invitation.json  nginx.conf  tls/  sites/NAME.json  runs/NAME/  flower/ (state, logs)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tomli_w

from deploy.configuration import composed
from deploy.kit.announcement import Announcement, Facts
from deploy.kit.bundle import build_bundle
from deploy.kit.enrolment import Enrolment, Invitation, named, split_address
from deploy.kit.keys import check_pem, make_authority, make_certificate
from deploy.kit.locks import changing
from deploy.kit.site import making_new
from deploy.making import making_run
from deploy.simulate import fill_in, plan_of, run_name, write_public
from dppm_model.bounds import Between, check_settings
from dppm_model.config import FactsConfig
from dppm_model.errors import ConfigError, EnrolmentError, RunFolderError
from dppm_model.files import write_bytes
from dppm_model.reading import read_toml
from dppm_model.run import Run

_SETTINGS = "server.toml"
_PATIENCE = "server.max_retries=60"  # for sites that restart or are far away


@dataclass(frozen=True)
class ServerSettings:
    """``server.toml``.

    Attributes
    ----------
    federation
        Name.
    address
        ``host:port`` that the sites connect to.
    listen
        ``address:port`` that the reverse proxy listens on.
    superlink_port
        Port of the SuperLink, on this machine only.
    proxy
        Whether `dppm server run` starts nginx; false where another nginx serves nginx.conf.
    """

    federation: str
    address: str
    listen: str
    superlink_port: Annotated[int, Between(1, 65535)]
    proxy: bool

    def __post_init__(self) -> None:
        check_settings(self)
        split_address("address", self.address)
        split_address("listen", self.listen)

    @classmethod
    def read(cls, folder: Path) -> ServerSettings:
        """Read the settings of a server's folder; see `read_toml`."""
        return read_toml(cls, folder / _SETTINGS, "Name a folder that `dppm server init` made.")

    def write(self, folder: Path) -> None:
        """Write the file that `read` reads."""
        write_bytes(folder / _SETTINGS, tomli_w.dumps(asdict(self)).encode())


def init_server(
    folder: Path, name: str, address: str, listen: str, superlink_port: int, own: Sequence[Path]
) -> Invitation:
    """Make a server's folder.

    Raises `ConfigError` or `EnrolmentError` if the folder is not empty or an input is invalid, and
    leaves nothing behind; `InUse` if another command is making it.

    Parameters
    ----------
    own
        The operator's own certificate, key and authority for the public address; made if empty.
    """
    settings = ServerSettings(named("--name", name), address, listen, superlink_port, True)
    check_pem(own)
    with making_new(folder, _SETTINGS):
        return _make(folder, settings, own)


def _make(folder: Path, settings: ServerSettings, own: Sequence[Path]) -> Invitation:
    """Write the files of a server's folder."""
    tls = folder / "tls"
    tls.mkdir()
    folder.chmod(0o700)
    host, _ = split_address("address", settings.address)
    make_authority(settings.federation, tls / "ca.crt", tls / "ca.key")
    names = list(dict.fromkeys([host, "localhost", "127.0.0.1", "::1"]))
    make_certificate(names, tls / "ca.crt", tls / "ca.key", tls / "server.crt", tls / "server.key")
    public = tls / "server.crt", tls / "server.key", tls / "ca.crt"
    if own:
        public = tls / "public.crt", tls / "public.key", tls / "public-ca.crt"
        for source, target in zip(own, public, strict=True):
            write_bytes(target, source.read_bytes())
    template = Path(__file__).with_name("nginx.conf").read_text()
    for key, value in (
        ("LISTEN", settings.listen),
        ("CERTIFICATE", f"tls/{public[0].name}"),
        ("KEY", f"tls/{public[1].name}"),
        ("AUTHORITY", "tls/ca.crt"),
        ("SUPERLINK", str(settings.superlink_port)),
    ):
        template = template.replace(f"@{key}@", value)
    write_bytes(folder / "nginx.conf", template.encode())
    for name in ("logs", "temporary", "sites", "runs", "flower"):
        (folder / name).mkdir()
    invitation = Invitation(settings.federation, settings.address, public[2].read_text())
    invitation.write(folder / "invitation.json")
    settings.write(folder)
    return invitation


def enrolled(folder: Path) -> dict[str, Enrolment]:
    """Read the enrolled sites, by name."""
    found = (Enrolment.read(path) for path in sorted((folder / "sites").glob("*.json")))
    return {enrolment.site: enrolment for enrolment in found}


def check_enrolment(folder: Path, path: Path) -> Enrolment:
    """Read a site's enrolment, and check that it can be added.

    Raises `EnrolmentError` if it is for another federation, or an enrolled site has the same name
    or key.
    """
    enrolment, federation = Enrolment.read(path), ServerSettings.read(folder).federation
    if enrolment.federation != federation:
        raise EnrolmentError(
            f"{path} is for federation {enrolment.federation}, but this is {federation}.",
            "Send the site this server's invitation.",
        )
    _check_free(folder, enrolment)
    return enrolment


def _check_free(folder: Path, enrolment: Enrolment) -> None:
    site, identity, node_key = enrolment.site, enrolment.identity, enrolment.node_key
    for other in enrolled(folder).values():
        if (site == other.site) != (identity == other.identity or node_key == other.node_key):
            raise EnrolmentError(
                f"{site} has the same name or key as the enrolled site {other.site}.",
                "Choose another name, or delete the old site's file in sites/.",
            )


def enrol(folder: Path, enrolment: Enrolment) -> None:
    """Add a site; `dppm server run` registers its node key.

    Raises `EnrolmentError` if a site with the same name or key was enrolled since
    `check_enrolment`; `InUse` if another command is changing the folder.
    """
    with changing(folder):
        _check_free(folder, enrolment)
        enrolment.write(folder / "sites" / f"{enrolment.site}.json")


def announce(folder: Path, name: str, overrides: Sequence[str]) -> tuple[Run, Announcement]:
    """Plan a run over all enrolled sites, and write its announcement into ``runs/NAME``.

    Overrides of ``facts.shape``, ``facts.classes`` and ``facts.records`` (or persons, if they are
    the unit) give the public facts of the sites' data, unless the store has a data set of that
    name. Raises `ConfigError`, `PlanError` or `RunFolderError` if it cannot be planned, and leaves
    nothing behind; `InUse` if another command is changing the folder.
    """
    named("run", name)
    federation = ServerSettings.read(folder).federation
    run = Run(folder / "runs" / name)
    with changing(folder):
        sites = enrolled(folder)
        if not sites:
            raise ConfigError("no site is enrolled.", "Enrol the sites first: `dppm server enrol`.")
        with making_run(run) as new:
            if not new:
                raise RunFolderError(
                    f"{run.folder} exists.", "Choose another name, or remove the folder."
                )
            return run, _announce(run, federation, sites, overrides)


def _announce(
    run: Run, federation: str, sites: Mapping[str, Enrolment], overrides: Sequence[str]
) -> Announcement:
    n = len(sites)
    config = composed([_PATIENCE, *overrides, f"sites={n}"])
    given = config.facts
    if given == FactsConfig():
        config = fill_in(config)
    elif config.privacy.unit is None:
        raise ConfigError(
            "privacy.unit is not set.",
            "Set it to record or person, whichever facts.records counts.",
        )
    else:
        config = config.replace(privacy=config.privacy.of_unit(config.privacy.unit))
    if config.privacy.min_survivors is None:
        config = config.replace(privacy=config.privacy.replace(min_survivors=n - n // 5))
    plan = plan_of(config, run_name(run.folder.name))
    peers = {site: bytes.fromhex(enrolment.identity) for site, enrolment in sites.items()}
    names = config.class_names if isinstance(given.classes, tuple) else ()
    facts = Facts(config.shape, config.classes, names)
    announcement = Announcement(federation, plan, facts, peers, build_bundle())
    write_public(run, config, plan, overrides, peers)
    announcement.write(announcement_file(run))
    run.write_plan(plan)  # last: a folder with a plan is ready
    return announcement


def announcement_file(run: Run) -> Path:
    """Return the path of the announcement."""
    return run.folder / "announcement.zip"
