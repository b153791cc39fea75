"""Whether what is written is what was scored: digests of tensors, site by site, against those that a plan file holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from paredown.compressors.assemble import renumbering
from paredown.compressors.checkpoint import shards
from paredown.compressors.mapped import read_tensors
from paredown.compressors.storage import norm_names
from paredown.compressors.tensor_file import joint_sha256, tensor_line
from paredown.deploy.formats.paredown import STEM
from paredown.deploy.formats.transformers import turned_names
from paredown.space.choice import KEEP, Choice
from paredown.space.errors import VerificationError
from paredown.space.layouts import site_layout
from paredown.space.plan import Plan
from paredown.space.plan_file import DIGITS, Records
from paredown.space.site import Inventory, Site, modules_of

SHOWN = 3
"""Sites that a message names, at most."""


class Written:
    """The tensors of compressed sites, as they go by on their way to a file.

    Args:
        scored: What the plan was scored with; None where its file does not say.
    """

    def __init__(self, scored: Records | None) -> None:
        self.scored = scored
        self._lines: dict[str, list[str]] = {}
        self._calibrated: set[str] = set()
        self._owner = {module: name for name in (scored.sha256 if scored else {}) for module in modules_of(name)}

    def add(self, site: Site, choice: Choice, tensors: Mapping[str, Tensor]) -> None:
        """Takes note of a site; what is kept, and a block that is left out, have no tensors of their own."""
        if choice == KEEP or site.kind == "block":
            return
        name = self._owner.get(site.name) or self._owner.get(
            site.members[0].module, site.name
        )  # one of several that were one site
        self._lines.setdefault(name, []).extend(tensor_line(key, tensor) for key, tensor in tensors.items())
        if choice.needs:
            self._calibrated.add(name)

    @property
    def sha256(self) -> dict[str, str]:
        """Digests by site."""
        return {name: joint_sha256(lines)[:DIGITS] for name, lines in self._lines.items()}

    def compare(self, now: Records, *, other_texts: bool) -> list[str]:
        """Why tensors differ from those that were scored, one line for each reason; nothing where they do not.

        Args:
            now: What is written, and what it follows from.
            other_texts: Whether the calibration texts are others than the plan's.

        Raises:
            VerificationError: If they differ, and nothing that they follow from does.
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
                    f"what would be written for {name} is not what was scored: tensors have digest {self.sha256[name]}, the plan says "
                    f"{known[name]}; remove the bank's record or name another bank, and search again if that does not help"
                )
            reasons |= dict.fromkeys(found)
        return [f"{reason}: {len(wrong)} of {len(self.sha256)} sites differ from what was scored" for reason in reasons]


def _reasons(scored: Records, now: Records, *, calibrated: bool, other_texts: bool) -> list[str]:
    """What the tensors of a site follow from that is not as it was."""
    found = ["the model has other weights (a fine-tune, say)"] if scored.weights != now.weights else []
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


def check_digests(folder: Path, inventory: Inventory, plan: Plan, target: str, records: Records) -> None:
    """Makes sure that a folder's compressed tensors are those that were written there.

    Args:
        folder: That ``apply`` wrote.
        inventory: Of the original.
        plan: The folder's.
        target: The folder's.
        records: Of the folder's plan file.

    Raises:
        VerificationError: If one is not.
    """
    own = target == "paredown"
    stored = {
        name: tensor for path in shards(folder, STEM if own else "model") for name, tensor in read_tensors(path).items()
    }
    rename, turned = renumbering(inventory, plan.dropped(inventory)), set() if own else turned_names(inventory)

    def line(name: str) -> str:
        tensor = stored[name if own else rename(name)]
        return tensor_line(name, tensor.T if name in turned else tensor)

    wrong = []
    for site, choice in plan.decided(inventory):
        expected = records.sha256.get(site.name)
        if expected is None or choice == KEEP:
            continue
        lines = [line(name) for name in site_layout(site, choice)]
        norms = [line(name) for name in norm_names(site) if (name if own else rename(name)) in stored]
        if expected not in (joint_sha256(lines)[:DIGITS], joint_sha256([*lines, *norms])[:DIGITS]):
            wrong.append(site.name)
    if wrong:
        raise VerificationError(
            f"{folder}: the tensors of {_shown(wrong)} are not those that were written; apply the plan again"
        )


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more sites" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
