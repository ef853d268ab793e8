"""Papers between operators: what is read is what was written, or nothing."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from deploy.kit.announcement import Announcement, Facts
from deploy.kit.bundle import build_bundle, differences, digest_of, files_of
from deploy.kit.enrolment import Enrolment, Invitation, _statement, fingerprint, split_address
from deploy.kit.keys import make_node_key
from deploy.show import plain
from deploy.simulate import plan_of, resolve
from dppm_model.errors import ConfigError, EnrolmentError
from dppm_model.plan import Plan
from dppm_model.securesum.keys import Identity
from dppm_model.securesum.peers import peers_text
from tests.conftest import TINY
from tests.support.mutations import twin


@pytest.fixture
def plan(tiny: Path) -> Plan:
    return plan_of(resolve(TINY), "run-a")


@pytest.fixture(scope="module")
def bundle() -> bytes:
    return build_bundle()


@pytest.fixture
def enrolment(tmp_path: Path) -> Enrolment:
    make_node_key(tmp_path / "node.key")
    return Enrolment.make("demo", "st-mary", Identity.generate(), tmp_path / "node.key")


def announced(plan: Plan, bundle: bytes) -> Announcement:
    peers = {f"site-{i}": Identity.generate().public for i in range(3)}
    return Announcement("demo", plan, Facts((1, 8, 8), 2, ("a", "b")), peers, bundle)


def test_enrolments_survive_their_files(
    tmp_path: Path, enrolment: Enrolment, plan: Plan, bundle: bytes
) -> None:
    invitation = Invitation("demo", "fed.example.org:8443", "PEM")
    for paper in (invitation, enrolment, announced(plan, bundle)):
        paper.write(tmp_path / "paper")
        again = type(paper).read(tmp_path / "paper")
        assert again == paper and again.fingerprint == paper.fingerprint


def test_a_changed_enrolment_is_refused(tmp_path: Path, enrolment: Enrolment) -> None:
    path = tmp_path / "enrolment.json"
    make_node_key(tmp_path / "other.key")
    other = Enrolment.make("demo", "st-mary", Identity.generate(), tmp_path / "other.key")
    for changed in (
        replace(enrolment, site="st-john"),
        replace(enrolment, federation="other"),
        replace(enrolment, identity=other.identity),
        replace(enrolment, node_key=other.node_key),
        # each key must have signed: here the identity has, and the node key of another has not
        replace(enrolment, identity=other.identity, identity_signature=other.identity_signature),
        replace(enrolment, node_key=other.node_key, node_signature=other.node_signature),
        replace(enrolment, identity="nonsense"),
        replace(enrolment, node_key=enrolment.node_key + " again"),
        replace(enrolment, node_key="ssh-nonsense AAAA"),
    ):
        changed.write(path)
        with pytest.raises(EnrolmentError, match="not signed"):
            Enrolment.read(path)
        assert changed.fingerprint != enrolment.fingerprint


@twin(
    "an enrolment is taken from someone without its identity key",
    "dppm_model.securesum.keys:verify",
    lambda _: lambda *args: True,
)
def test_nobody_enrols_with_anothers_identity(tmp_path: Path, enrolment: Enrolment) -> None:
    """The thief has a node key, and signs with it all that is the victim's."""
    make_node_key(tmp_path / "thief.key")
    thief = Enrolment.make("demo", "st-mary", Identity.generate(), tmp_path / "thief.key")
    key = load_ssh_private_key((tmp_path / "thief.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    statement = _statement("demo", "st-mary", thief.node_key, enrolment.identity)
    signature = key.sign(statement, ec.ECDSA(SHA256())).hex()
    for signed in (thief.identity_signature, enrolment.identity_signature):
        stolen = replace(thief, identity=enrolment.identity, node_signature=signature)
        replace(stolen, identity_signature=signed).write(tmp_path / "paper")
        with pytest.raises(EnrolmentError, match="not signed"):
            Enrolment.read(tmp_path / "paper")


def test_every_part_of_an_announcement_is_in_its_fingerprint(plan: Plan, bundle: bytes) -> None:
    paper = announced(plan, bundle)
    fingerprints = {
        a.fingerprint
        for a in (
            paper,
            replace(paper, federation="other"),
            replace(paper, plan=replace(plan, seed="ff")),
            replace(paper, facts=replace(paper.facts, names=("b", "a"))),
            replace(paper, peers={**paper.peers, "site-0": Identity.generate().public}),
            replace(paper, bundle=bundle + b"x"),
        )
    }
    assert len(fingerprints) == 6


def test_an_announcement_with_other_sites_than_its_plan_counts_is_refused(
    tmp_path: Path, plan: Plan, bundle: bytes
) -> None:
    paper = announced(plan, bundle)
    few = dict(list(paper.peers.items())[:2])
    replace(paper, peers=few).write(tmp_path / "paper")
    with pytest.raises(EnrolmentError, match="has 3 sites"):
        Announcement.read(tmp_path / "paper")


@twin(
    "a site's name in an announcement may close its own quotes",
    "dppm_model.securesum.group:check_peers",
    lambda _: lambda keys, path: dict(keys),
)
@pytest.mark.parametrize("name", ['st2" = "11" #', "a\nb", "\x1b[2K", "", "../x", "x" * 65])
def test_names_of_sites_stay_names(tmp_path: Path, plan: Plan, bundle: bytes, name: str) -> None:
    """A name that closes its own quotes would pin another key than the one that is shown."""
    peers = {name: Identity.generate().public, "b": Identity.generate().public}
    with pytest.raises(ConfigError, match="not a valid site name"):
        peers_text(peers)
    good = announced(plan, bundle)
    good.write(tmp_path / "paper")
    evil = peers_text(good.peers).replace('"site-0"', json.dumps(name))
    with zipfile.ZipFile(tmp_path / "paper") as old, zipfile.ZipFile(tmp_path / "evil", "w") as new:
        for part in old.namelist():
            new.writestr(part, evil if part == "peers.toml" else old.read(part))
    with pytest.raises(EnrolmentError):
        Announcement.read(tmp_path / "evil")


def test_what_others_write_cannot_steer_a_terminal() -> None:
    assert plain("a\x1b[1A\x9bb\r\x07\u202ec\n") == "a\ufffd[1A\ufffdb\ufffd\ufffd\ufffdc\n"


@pytest.mark.parametrize(
    "address", ["h", "h:", "h:0", "h:99999", "h:²", "a b:1", "h;{:1", "[::1:1"]
)
def test_an_address_is_one(tmp_path: Path, address: str) -> None:
    Invitation("demo", address, "PEM").write(tmp_path / "paper")
    with pytest.raises(ConfigError, match="host:port"):
        Invitation.read(tmp_path / "paper")
    assert split_address("x", "[::1]:8443") == ("::1", 8443)


def test_fingerprints_are_for_the_telephone() -> None:
    text = fingerprint(b"a", b"b")
    assert len(text.split("-")) == 8 and all(len(group) == 4 for group in text.split("-"))
    assert text != fingerprint(b"ab", b"")  # parts do not run into one another


def test_a_changed_bundle_shows_where(tmp_path: Path, bundle: bytes) -> None:
    files = files_of(bundle)
    path = tmp_path / "other.fab"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            if name == "client/reports.py":
                continue
            archive.writestr(name, content + (b"\n# more" if name == "client/site.py" else b""))
        archive.writestr("client/extra.py", "import os")
    assert list(differences(path.read_bytes())) == [
        (".info/CONTENT", "changed"),  # it is not of these files
        ("client/extra.py", "new"),
        ("client/reports.py", "missing"),
        ("client/site.py", "changed"),
    ]
    assert digest_of(path.read_bytes()) != digest_of(bundle)


HIDES = "server/zz\x1b[1A\x1b[2KCode: the same as installed here..py"


OUTSIDE = "../evil.py /evil.py deploy/cli.py client/../../x.py client/./app.py . client/"
ODD = "client/app.py/x.py client/x.pyc client/x.so sitecustomize.py"


@pytest.mark.parametrize("name", [*OUTSIDE.split(), *ODD.split(), HIDES])
def test_a_bundle_cannot_write_elsewhere(tmp_path: Path, bundle: bytes, name: str) -> None:
    path = tmp_path / "evil.fab"
    path.write_bytes(bundle)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "import os")
    with pytest.raises(EnrolmentError, match="it holds"):
        files_of(path.read_bytes())


def test_a_bundle_that_is_not_whole_is_refused(tmp_path: Path, bundle: bytes) -> None:
    whole = files_of(bundle)
    for needed in ("client/app.py", "dppm_model/__init__.py", "pyproject.toml"):
        few = tmp_path / "few.fab"
        with zipfile.ZipFile(few, "w") as archive:
            for entry, content in whole.items():
                if entry != needed:
                    archive.writestr(entry, content)
        with pytest.raises(EnrolmentError, match="is missing"):
            files_of(few.read_bytes())
    broken = bytearray(bundle)
    broken[bundle.index(whole["client/app.py"])] ^= 0xFF  # in its content, not in a header
    with pytest.raises(EnrolmentError):
        files_of(bytes(broken))
    for nonsense in (b"", b"PK nonsense", json.dumps({}).encode()):
        with pytest.raises(EnrolmentError):
            files_of(nonsense)
