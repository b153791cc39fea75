"""Measurements for sensitivity estimators: losses of single choices, output errors, gradient scores."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import cached_property, partial
from pathlib import Path

from torch import Tensor

from paredown.compressors.bank.bank import Bank
from paredown.compressors.calibration.backward_sweep import Loss, Trace, traces
from paredown.compressors.model.block_prefix import Prefix
from paredown.compressors.model.planned_model import PlannedModel
from paredown.evaluators.quality import Teacher
from paredown.evaluators.sequences import Sequences
from paredown.search.sensitivity.measurement_cache import Facts
from paredown.space.choice import KEEP, Choice
from paredown.space.errors import EvaluationError
from paredown.space.plan import Plan
from paredown.space.site import Member, Site
from paredown.space.space import Space
from paredown.space.system.interruption import stop_if_asked

SEQUENCE_TOKENS = 128
"""Most tokens of each sequence that a single choice is measured on."""

SEQUENCES = 4
"""Sequences that a single choice is measured on: the first ones of the texts.

On the demo model, the solver's plans lose this much more than those from eight sequences: from one sequence 2 % (at
worst 10 %), from two 1.2 %, from four 0.6 %, from sixteen the same.
"""

UNUSABLE = 1e3
"""Loss of a choice whose predictions are not finite [nats/token]: no plan takes it if the site has another choice."""

TRACE_BYTES = 256 << 20
"""Most memory for the inputs and gradients of a backward sweep [bytes]; one sequence may exceed it."""

SAME = 1e-6
"""Largest loss of the original against itself at which starting from a block's stored states counts as exact."""

ORIGINAL = Plan()

Pair = tuple[Site, Choice]

Sensitivity = dict[tuple[str, Choice], float]
"""Predicted loss of every (site, choice) of a space."""

Score = Callable[[Trace, Tensor], float]
"""Score of a weight change, ``(out_features, in_features)``, given the trace of its layer."""


class Evidence:
    """Measures single choices on a model. Each fact is measured once and stored in a file that searches share.

    Args:
        space: Sites and options.
        planned: The model in which plans are scored.
        bank: Compressed sites, and the statistics of their inputs.
        texts: Sequences disjoint from those of the bank's statistics; on those, calibrated choices would look too good.
        facts: File of facts about these weights and texts; None to store none.
        progress: Progress callback: measurements done, total measurements.

    Attributes:
        forward_tokens: Forward cost of all facts that were requested, in tokens through the whole model; includes
            facts that were read from the file.
        backward_tokens: The same for backward passes.
    """

    def __init__(
        self,
        space: Space,
        planned: PlannedModel,
        bank: Bank,
        texts: Sequences,
        facts: Path | None = None,
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> None:
        self.space, self.planned, self.bank, self.texts, self.progress = space, planned, bank, texts, progress
        self.facts = Facts(facts, bank.say)
        self.forward_tokens = self.backward_tokens = 0.0
        self._short: dict[int, _Short] = {}

    @property
    def distances(self) -> list[float]:
        """Angular distance between input and output of each block."""
        return list(getattr(self.bank.statistics, "distances", []))

    def alone(self, site: Site, choice: Choice, sequences: int = SEQUENCES) -> float:
        """Loss with one site compressed and all others kept, on the first `SEQUENCE_TOKENS` of each sequence.

        Args:
            site: The compressed site.
            choice: Its choice.
            sequences: Number of sequences.
        """
        if choice == KEEP:
            return 0.0
        if sequences not in self._short:
            self._short[sequences] = _Short(self.planned, self.texts.head(sequences, SEQUENCE_TOKENS), self.space)
        short = self._short[sequences]
        self.forward_tokens += passes(site, self.space) * short.tokens
        return self.facts.get(f"alone {short.key} {self._key(site, choice)}", lambda: short.loss(site, choice))

    def losses_alone(self, pairs: Sequence[Pair], sequences: int = SEQUENCES) -> Sensitivity:
        """`alone` for many pairs, measured in block order so that each block's input states are computed once."""
        ordered = sorted(pairs, key=lambda pair: -1 if pair[0].block is None else pair[0].block)
        losses: Sensitivity = {}
        for done, (site, choice) in enumerate(ordered):
            stop_if_asked()
            self.progress(done, len(ordered))
            losses[site.name, choice] = self.alone(site, choice, sequences)
        return losses

    def output_error(self, site: Site, choice: Choice) -> float:
        """Expected squared output error of a linear site: trace(dW H dW') summed over its members.

        H is the second moment of a member's inputs.

        Source:
            Hassibi & Stork, 1992, "Second order derivatives for network pruning: Optimal Brain Surgeon"; Frantar et
            al., 2022, "GPTQ", arXiv 2210.17323.
        """
        return self.facts.get(f"output-error {self._key(site, choice)}", lambda: self._output_error(site, choice))

    def scores(
        self,
        name: str,
        pairs: Sequence[Pair],
        loss: Loss,
        score: Score,
        plan: Plan = ORIGINAL,
        texts: Sequences | None = None,
    ) -> Sensitivity:
        """Gradient score of each pair from one backward sweep; no sweep if all scores are known.

        Args:
            name: Name of the score in the file of facts.
            pairs: Linear sites inside blocks, with choices other than ``keep``.
            loss: Loss that is differentiated.
            score: Score of one layer's weight change; summed over the site's members and over batches of the texts.
            plan: Plan of the model that is swept; the original by default.
            texts: Texts that are swept; all by default.
        """
        texts = self.texts if texts is None else texts
        tokens = int(texts.mask.sum())
        self.forward_tokens += tokens
        self.backward_tokens += tokens
        digest = texts.sha256()[:16] + self._plan_key(plan)
        keys = {(site.name, choice): f"{name} {digest} {self._key(site, choice)}" for site, choice in pairs}
        missing = [pair for pair in pairs if keys[pair[0].name, pair[1]] not in self.facts]
        totals = dict.fromkeys(missing, 0.0)
        for part in self._parts(texts, [site for site, _ in missing]):
            found = self._traces(part, [site for site, _ in missing], loss, plan)
            for done, (site, choice) in enumerate(missing):
                stop_if_asked()
                self.progress(done, len(missing))
                totals[site, choice] += sum(
                    score(found[member.module], change) for member, change in self.changes(site, choice)
                )
        return {(s.name, c): self.facts.get(keys[s.name, c], partial(totals.__getitem__, (s, c))) for s, c in pairs}

    def changes(self, site: Site, choice: Choice) -> list[tuple[Member, Tensor]]:
        """Weight change of each member of a linear site under a choice, ``(out_features, in_features)``."""
        decoded = self.bank.decoded(site, choice)
        names = [f"{member.module}.weight" for member in site.members]
        changes = [decoded[name] - self.bank.parameters[name].float() for name in names]
        return [
            (member, change.T if member.transposed else change)
            for member, change in zip(site.members, changes, strict=True)
        ]

    def finish(self) -> None:
        """Restores the original model and writes the facts to disk."""
        self.planned.swap(Plan())
        self.facts.write()

    def _key(self, site: Site, choice: Choice) -> str:
        record = self.bank.path(site, choice) if site.members else None
        return f"{site.name} {choice} {record.parent.name + record.stem if record else ''}"

    def _plan_key(self, plan: Plan) -> str:
        """Digest of a plan's choices and their bank records; empty for the original."""
        pairs = [self._key(site, choice) for site, choice in plan.decided(self.space.inventory) if choice != KEEP]
        return hashlib.sha256("\n".join(pairs).encode()).hexdigest()[:16] if pairs else ""

    def _output_error(self, site: Site, choice: Choice) -> float:
        statistics = self.bank.statistics
        moments = [
            (change, statistics[member.module]["second_moment"]) for member, change in self.changes(site, choice)
        ]
        return sum(float(((change @ moment) * change).sum()) for change, moment in moments)

    def _parts(self, texts: Sequences, sites: Sequence[Site]) -> Iterator[Sequences]:
        """Batches of the texts whose traces of the sites fit in `TRACE_BYTES`; none if there are no sites."""
        members = {member.module: member for site in sites for member in site.members}
        numbers = texts.tokens.shape[1] * sum(sum(member.shape) for member in members.values())
        if numbers:
            yield from texts.batches(max(1, TRACE_BYTES // (4 * numbers)))

    def _traces(self, part: Sequences, sites: Sequence[Site], loss: Loss, plan: Plan) -> dict[str, Trace]:
        self.planned.swap(plan)
        modules = {member.module: self.planned.modules[member.module] for site in sites for member in site.members}
        return traces(self.planned.model, modules, part.tokens, part.mask, loss, causal=self.space.inventory.causal)


class _Short:
    """Losses of single choices on short texts; runs the model from the first block that a choice changes."""

    def __init__(self, planned: PlannedModel, texts: Sequences, space: Space) -> None:
        self._planned, self._texts, self._space = planned, texts, space
        self.tokens, self.key = int(texts.mask.sum()), texts.sha256()[:16]

    @cached_property
    def _teacher(self) -> Teacher:
        self._planned.swap(Plan())
        return Teacher(self._planned.model, self._texts, causal=self._space.inventory.causal)

    @cached_property
    def _prefix(self) -> Prefix | None:
        """The original's states before a block; None if the blocks share more than states, so the whole model runs."""
        prefix = Prefix(self._planned, lambda: self._teacher.measure(self._planned.model))
        prefix.walk_to(prefix.blocks - 1)
        with prefix.skipping():
            starts_late = self._teacher.measure(self._planned.model).mean <= SAME
        prefix.walk_to(0)
        return prefix if starts_late else None

    def loss(self, site: Site, choice: Choice) -> float:
        """Loss with one site compressed and all others kept; `UNUSABLE` if predictions are not finite."""
        teacher, prefix = self._teacher, self._prefix
        if prefix:
            prefix.walk_to(site.block or 0)
        self._planned.swap(Plan.of(self._space.inventory, {site.name: choice}))
        try:
            with prefix.skipping() if prefix else nullcontext():
                return teacher.measure(self._planned.model).mean
        except EvaluationError:
            return UNUSABLE


def passes(site: Site, space: Space) -> float:
    """Cost of measuring a change at a site, in passes of the whole model; blocks before the site do not run."""
    blocks = sum(other.kind == "block" for other in space.inventory.parents)
    return 1.0 if site.block is None else (blocks - site.block) / blocks
