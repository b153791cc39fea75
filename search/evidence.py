"""What estimators learn a model by: losses of single choices, output errors, one backward sweep."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import cached_property, partial
from pathlib import Path

from torch import Tensor

from paredown.compressors.bank import Bank
from paredown.compressors.planned import PlannedModel
from paredown.compressors.prefix import Prefix
from paredown.compressors.traces import Loss, Trace, traces
from paredown.evaluators.quality import Teacher
from paredown.evaluators.sequences import Sequences
from paredown.search.facts import Facts
from paredown.space.choice import KEEP, Choice
from paredown.space.errors import EvaluationError
from paredown.space.interruption import stop_if_asked
from paredown.space.plan import Plan
from paredown.space.site import Member, Site
from paredown.space.space import Space

SEQUENCE_TOKENS = 128
SEQUENCES = 4
"""What a choice alone is measured on: the first of the texts. On the demo model the solver's plans from one sequence
lose 2 % more than those from eight, at worst 10 %; from two 1.2 %; from four 0.6 %; from sixteen as much."""

UNUSABLE = 1e3
"""Loss of a choice that makes the model's predictions not finite [nats/token]: no plan that has another takes it."""

TRACE_BYTES = 256 << 20
"""Inputs and gradients that a sweep holds at a time, at most, if one sequence's are not more."""

SAME = 1e-6
"""Most loss of the original against itself when it starts from the states of a block."""

ORIGINAL = Plan()

Pair = tuple[Site, Choice]

Sensitivity = dict[tuple[str, Choice], float]
"""Predicted loss of every (site, choice) of a space."""

Score = Callable[[Trace, Tensor], float]
"""Of a change of a weight, ``(out_features, in_features)``, from the trace of its layer."""


class Evidence:
    """A model under single choices; each fact is measured once, and kept where other searches find it.

    Args:
        space: Sites and options.
        planned: The model in which plans are scored.
        bank: Compressed sites, and the statistics of their inputs.
        texts: Sequences that the bank's statistics do not come from: on those, calibrated choices look better than they are.
        facts: File of facts of these weights and texts; None to keep none.
        progress: Called with how many of how many measurements are done.

    Attributes:
        forward_tokens: That the facts asked for stand for, in passes of the whole model; whoever made them.
        backward_tokens: Likewise.
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
        """The loss of the model with one site compressed and everything else kept, on the beginnings of so many sequences."""
        if choice == KEEP:
            return 0.0
        if sequences not in self._short:
            self._short[sequences] = _Short(self.planned, self.texts.head(sequences, SEQUENCE_TOKENS), self.space)
        short = self._short[sequences]
        self.forward_tokens += passes(site, self.space) * short.tokens
        return self.facts.get(f"alone {short.key} {self._key(site, choice)}", lambda: short.loss(site, choice))

    def losses_alone(self, pairs: Sequence[Pair], sequences: int = SEQUENCES) -> Sensitivity:
        """`alone` of many pairs, in the order of the blocks, so that each block's states are made once."""
        ordered = sorted(pairs, key=lambda pair: -1 if pair[0].block is None else pair[0].block)
        losses: Sensitivity = {}
        for done, (site, choice) in enumerate(ordered):
            stop_if_asked()
            self.progress(done, len(ordered))
            losses[site.name, choice] = self.alone(site, choice, sequences)
        return losses

    def output_error(self, site: Site, choice: Choice) -> float:
        """Expected squared error of a linear site's outputs: trace(dW H dW') summed over its members.

        Source:
            The output error of a layer, with H the second moment of its inputs: Hassibi & Stork, 1992, "Second order
            derivatives for network pruning: Optimal Brain Surgeon"; Frantar et al., 2022, "GPTQ", arXiv 2210.17323.
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
        """A score of each pair from the traces of one backward sweep; no sweep where all are known.

        Args:
            name: Of the score, for the file of facts.
            pairs: Linear sites inside blocks, with choices that are not kept.
            loss: Whose gradients are asked for.
            score: Of the change of a layer; summed over the members, and over the parts of the texts that are swept at a time.
            plan: Of the model that is swept; the original by default.
            texts: That are swept; all by default.
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
        """What a choice adds to each matrix of a linear site, ``(out_features, in_features)``."""
        decoded = self.bank.decoded(site, choice)
        names = [f"{member.module}.weight" for member in site.members]
        changes = [decoded[name] - self.bank.parameters[name].float() for name in names]
        return [
            (member, change.T if member.transposed else change)
            for member, change in zip(site.members, changes, strict=True)
        ]

    def finish(self) -> None:
        """Leaves everything kept, and the facts on disk."""
        self.planned.swap(Plan())
        self.facts.write()

    def _key(self, site: Site, choice: Choice) -> str:
        record = self.bank.path(site, choice) if site.members else None
        return f"{site.name} {choice} {record.parent.name + record.stem if record else ''}"

    def _plan_key(self, plan: Plan) -> str:
        """What tells plans apart, with the records that they are made of; nothing for the original."""
        pairs = [self._key(site, choice) for site, choice in plan.decided(self.space.inventory) if choice != KEEP]
        return hashlib.sha256("\n".join(pairs).encode()).hexdigest()[:16] if pairs else ""

    def _output_error(self, site: Site, choice: Choice) -> float:
        statistics = self.bank.statistics
        moments = [
            (change, statistics[member.module]["second_moment"]) for member, change in self.changes(site, choice)
        ]
        return sum(float(((change @ moment) * change).sum()) for change, moment in moments)

    def _parts(self, texts: Sequences, sites: Sequence[Site]) -> Iterator[Sequences]:
        """The texts, so many at a time that the traces of these sites fit into memory; none where there are no sites."""
        members = {member.module: member for site in sites for member in site.members}
        numbers = texts.tokens.shape[1] * sum(sum(member.shape) for member in members.values())
        if numbers:
            yield from texts.batches(max(1, TRACE_BYTES // (4 * numbers)))

    def _traces(self, part: Sequences, sites: Sequence[Site], loss: Loss, plan: Plan) -> dict[str, Trace]:
        self.planned.swap(plan)
        modules = {member.module: self.planned.module(member.module) for site in sites for member in site.members}
        return traces(self.planned.model, modules, part.tokens, part.mask, loss, causal=self.space.inventory.causal)


class _Short:
    """The model under one choice on short texts, from the states of the block where it differs from the original."""

    def __init__(self, planned: PlannedModel, texts: Sequences, space: Space) -> None:
        self._planned, self._texts, self._space = planned, texts, space
        self.tokens, self.key = int(texts.mask.sum()), texts.sha256()[:16]

    @cached_property
    def _teacher(self) -> Teacher:
        self._planned.swap(Plan())
        return Teacher(self._planned.model, self._texts, causal=self._space.inventory.causal)

    @cached_property
    def _prefix(self) -> Prefix | None:
        """None where a model's blocks read more of each other than the states: it runs as a whole."""
        prefix = Prefix(self._planned, lambda: self._teacher.measure(self._planned.model))
        prefix.walk_to(prefix.blocks - 1)
        with prefix.skipping():
            starts_late = self._teacher.measure(self._planned.model).mean <= SAME
        prefix.walk_to(0)
        return prefix if starts_late else None

    def loss(self, site: Site, choice: Choice) -> float:
        """With one site compressed and everything else kept."""
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
    """What measuring a change at a site costs, in passes of the whole model: blocks before it are not run."""
    blocks = sum(other.kind == "block" for other in space.inventory.parents)
    return 1.0 if site.block is None else (blocks - site.block) / blocks
