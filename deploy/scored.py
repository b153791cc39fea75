"""Checks by digest, site by site, that written tensors are the ones that were scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from paredown.compressors.bank.encoding import norm_names
from paredown.compressors.original.checkpoint import shards
from paredown.compressors.tensor_files.mapped_safetensors import read_tensors
from paredown.compressors.tensor_files.tensor_file import joint_sha256, tensor_line
from paredown.deploy.formats import Format
from paredown.space.choice import KEEP, Choice
from paredown.space.errors import VerificationError
from paredown.space.layouts import site_layout
from paredown.space.plan import Plan
from paredown.space.plan_file import DIGITS, Records
from paredown.space.site import Inventory, Site, modules_of

SHOWN = 3
"""Upper bound on the sites that a message names."""


class Written:
    """Digests of compressed sites, collected while their tensors are written.

    Args:
        scored: Digests of the tensors that the plan was scored with; None if its file does not have them.
    """

    def __init__(self, scored: Records | None) -> None:
        self.scored = scored
        self._lines: dict[str, list[str]] = {}
        self._calibrated: set[str] = set()
        self._owner = {module: name for name in (scored.sha256 if scored else {}) for module in modules_of(name)}

    def add(self, site: Site, choice: Choice, tensors: Mapping[str, Tensor]) -> None:
        """Adds the tensors of a site; ``keep`` and dropped blocks have none of their own."""
        if choice == KEEP or site.kind == "block":
            return
        # A site of several modules when it was scored may be several sites here: they share its digest.
        name = self._owner.get(site.name) or self._owner.get(site.members[0].module, site.name)
        self._lines.setdefault(name, []).extend(tensor_line(key, tensor) for key, tensor in tensors.items())
        if choice.needs:
            self._calibrated.add(name)

    @property
    def sha256(self) -> dict[str, str]:
        """Digests by site."""
        return {name: joint_sha256(lines)[:DIGITS] for name, lines in self._lines.items()}

    def compare(self, now: Records, *, other_texts: bool) -> list[str]:
        """Reasons why tensors differ from those that were scored, one line each; empty if they are equal.

        Args:
            now: Weights, configuration, versions and machine behind what is written, with its digests.
            other_texts: True if the calibration texts differ from the plan's.

        Raises:
            VerificationError: If they differ without a reason.
        """
        if self.scored is None:
            return []
        known = self.scored.sha256
        wrong = sorted(name for name, digest in self.sha256.items() if known.get(name, digest) != digest)
        reasons: dict[str, None] = {}
        for name in wrong:
            found = _reasons(self.scored, now, calibrated=name in self._calibrated, other_texts=other_texts)
            if not found:
                raise VerificationError(
                    f"the compressed {name} is not what was scored: its tensors have digest {self.sha256[name]}, "
                    f"the plan says {known[name]}; remove its record from the bank or name another bank, "
                    "and if that does not help, search again"
                )
            reasons |= dict.fromkeys(found)
        return [f"{reason}: {len(wrong)} of {len(self.sha256)} sites differ from what was scored" for reason in reasons]


def _reasons(scored: Records, now: Records, *, calibrated: bool, other_texts: bool) -> list[str]:
    """Reasons why the tensors of a site may differ: all that they depend on and that has changed."""
    found = ["the model has other weights (for example a fine-tune)"] if scored.weights != now.weights else []
    if calibrated and scored.config != now.config:
        found.append("the model has another configuration")
    if calibrated and other_texts:
        found.append("other calibration texts (other files, another Python)")
    names = [
        name for name in {**scored.versions, **now.versions} if scored.versions.get(name) != now.versions.get(name)
    ]
    found += [f"{name} {scored.versions.get(name)} -> {now.versions.get(name)}" for name in names]
    if scored.machine != now.machine:
        found.append(f"another machine ({scored.machine} -> {now.machine})")
    return found


def check_digests(folder: Path, inventory: Inventory, plan: Plan, files: Format, records: Records) -> None:
    """Checks that a folder's compressed tensors are the ones that were written.

    Args:
        folder: Folder that ``apply`` wrote.
        inventory: Inventory of the original.
        plan: Plan of the folder.
        files: Format of the folder.
        records: Digests in the folder's plan file.

    Raises:
        VerificationError: If one differs.
    """
    stored = {name: tensor for path in shards(folder, files.stem) for name, tensor in read_tensors(path).items()}
    rename, turned = files.renaming(inventory, plan), files.turned(inventory)

    def line(name: str) -> str:
        tensor = stored[rename(name)]
        return tensor_line(name, tensor.T if name in turned else tensor)

    wrong = []
    for site, choice in plan.decided(inventory):
        expected = records.sha256.get(site.name)
        if expected is None or choice == KEEP:
            continue
        lines = [line(name) for name in site_layout(site, choice)]
        norms = [line(name) for name in norm_names(site) if rename(name) in stored]
        if expected not in (joint_sha256(lines)[:DIGITS], joint_sha256([*lines, *norms])[:DIGITS]):
            wrong.append(site.name)
    if wrong:
        raise VerificationError(
            f"{folder}: the tensors of {_shown(wrong)} are not those that were written; apply the plan again"
        )


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more sites" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
