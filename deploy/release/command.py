"""`dppm release RUN` and `dppm override`: check a run against a policy; write the page to sign."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploy.export.synthetic import SOFTWARE, SyntheticSet
from deploy.pages.pictures import sheets
from deploy.pages.render import render
from deploy.release.conditions import Condition, Figures, conditions
from deploy.release.override import Override, waivers
from deploy.release.policy import DEFAULTS, Policy, read_policy
from deploy.sampling import subject, trained
from deploy.show import console, empty_table, plain, print_json
from dppm_model.errors import ConfigError, NotReleased
from dppm_model.files import write_bytes
from dppm_model.folders import there
from dppm_model.run import Run
from dppm_model.securesum.keys import Identity
from sampler.images import load_images


def release(
    run: Path | None,
    policy: Path | None,
    override: Path | None,
    *,
    print_policy: bool,
    as_json: bool,
) -> None:
    """Check all conditions, and write ``release.html`` if they are met or waived.

    Raises NotReleased if a condition is neither.
    """
    if print_policy:
        print(DEFAULTS.read_text(), end="")
        return
    opened = trained(run, "release")
    with opened.alone():
        limits = read_policy(policy)
        images = SyntheticSet.of(opened)
        signed = None if override is None else Override.read(override)
        if signed is not None:
            signed.check(limits.override_keys, subject(opened))
        found = conditions(limits, Figures.of(opened))
        waived = {c.name for c in found if not c.met and signed is not None and signed.waives(c)}
        failed = [c for c in found if not c.met and c.name not in waived]
        _show(found, waived)
        if not failed:
            page = _page(images, limits, policy, found, signed if waived else None)
            write_bytes(opened.release_page, page.encode())
    if as_json:
        print_json(_to_json(opened, found, waived, released=not failed))
    if failed:
        raise _refusal(opened, found, failed)
    console.print(f"{opened.release_page}: fill in and sign it", markup=False, soft_wrap=True)


def make_key(path: Path, *, as_json: bool) -> None:
    """Make a key that may sign overrides, and print the line for the policy."""
    if there(path):
        raise ConfigError(f"{path} exists.", "Name a new file: a key is never replaced.")
    key = Identity.generate()
    key.write(path)
    console.print(
        f"{path} is the private key: its owner alone keeps it. In the policy:", markup=False
    )
    if as_json:
        print_json({"key": str(path), "public": key.public.hex()})
    else:
        print(f"override_keys: {{{path.stem}: {key.public.hex()}}}")


def sign(
    run: Path,
    key: Path,
    by: str | None,
    waive: Sequence[str],
    policy: Path | None,
    out: Path,
    *,
    as_json: bool,
) -> None:
    """Sign an override of conditions that are not met.

    Raises NotReleased if one is met or unknown, or has no reason.
    """
    opened = trained(run, "override sign")
    found = conditions(read_policy(policy), Figures.of(opened))
    made = waivers(found, waive)
    signed = Override.sign(Identity.read(key), by or key.stem, subject(opened), made)
    signed.write(out)
    for name, waiver in made.items():
        text = f"{name}: {waiver.measured}, {waiver.limit}; waived: {waiver.reason}"
        console.print(plain(text), markup=False, soft_wrap=True)
    console.print(f"signed by {signed.by} in {out}", markup=False, soft_wrap=True)
    if as_json:
        print_json(asdict(signed))


def _show(found: Sequence[Condition], waived: set[str]) -> None:
    table = empty_table("Conditions of the release", ["condition", "measured", "limit", ""], [])
    for c in found:
        state = "met" if c.met else "waived" if c.name in waived else "[bold red]not met[/]"
        table.add_row(c.name, plain(c.measured), c.limit, state)
    console.print(table)


def _refusal(run: Run, found: Sequence[Condition], failed: Sequence[Condition]) -> NotReleased:
    for c in failed:
        text = f"- {c.name}: {c.title}: {c.measured}, {c.limit}. {c.cure}"
        console.print(plain(text), markup=False, soft_wrap=True, highlight=False)
    if there(run.release_page):
        console.print(
            f"{run.release_page} is of an earlier check, and no longer holds.", markup=False
        )
    short = ", ".join(f"{c.name} ({c.measured}; {c.limit})" for c in failed)
    return NotReleased(
        f"{len(failed)} of {len(found)} conditions of the release are not met: {short}.",
        "Do what is said above for each, or have it waived: `dppm override sign`.",
    )


def _to_json(
    run: Run, found: Sequence[Condition], waived: set[str], *, released: bool
) -> dict[str, Any]:
    return {
        "released": released,
        "page": str(run.release_page) if released else None,
        **subject(run),
        "conditions": [{**asdict(c), "waived": c.name in waived} for c in found],
    }


def _page(
    images: SyntheticSet,
    limits: Policy,
    policy: Path | None,
    found: Sequence[Condition],
    signed: Override | None,
) -> str:
    source = DEFAULTS if policy is None else policy
    return render(
        "release.html",
        images=images,
        subject=subject(images.run),
        found=found,
        signed=signed,
        key=limits.override_keys[signed.by] if signed else None,
        policy="the defaults of dppm" if policy is None else policy.name,
        policy_digest=hashlib.sha256(source.read_bytes()).hexdigest(),
        sheets=sheets(*load_images(images.run.samples), images.config.class_names),
        software=SOFTWARE,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
