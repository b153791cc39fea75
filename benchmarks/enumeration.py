"""Exhaustive enumeration: the loss of every plan of a small space, the ground truth for benchmarks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from paredown.compressors.model.block_prefix import Given, blocks_replaced
from paredown.compressors.original.find_sites import blocks_of
from paredown.search.workbench.workbench import Workbench
from paredown.space.choice import KEEP, Choice
from paredown.space.errors import StudyError
from paredown.space.plan import Plan
from paredown.space.site import Site

VARIANTS = 64
"""Most prefixes of plans that a block runs in one batch."""

MOST_PLANS = 1 << 20
"""Most plans that are enumerated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enumeration:
    """Every plan of a space with its size and loss.

    Attributes:
        sites: Names of the sites with more than one choice, ``(s,)``, ordered by block.
        options: Choices of each site, in the order of the codes.
        codes: Index of the choice of each site, ``(plans, s)``.
        sizes: Size of each plan [bytes], ``(plans,)``.
        losses: KL divergence to the original on the search set [nats/token], ``(plans,)``.
    """

    sites: tuple[str, ...]
    options: tuple[tuple[Choice, ...], ...]
    codes: NDArray[np.int8]
    sizes: NDArray[np.int64]
    losses: NDArray[np.float64]


class Enumerator:
    """Measures every plan, block by block; plans that agree up to a block share its input states.

    Args:
        bench: Workbench of a small causal model; its bank is filled.
        told: Progress callback: plans done, total plans.

    Raises:
        StudyError: If the model is not causal, or a site outside the blocks has more than one choice.
    """

    def __init__(self, bench: Workbench, told: Callable[[int, int], None] = lambda done, of: None) -> None:
        self.bench, self.told = bench, told
        space = bench.space
        if not space.inventory.causal:
            raise StudyError("only the plans of causal models can be enumerated")
        self.fixed = {
            s.name: space.options[s.name][0] for s in space.inventory.leaves if len(space.options[s.name]) == 1
        }
        self.searched = sorted(space.searched, key=lambda site: -1 if site.block is None else site.block)
        if any(site.block is None for site in self.searched):
            raise StudyError("only sites within blocks can be enumerated; pin the others")
        self.options = {
            site.name: (*(() if site.is_leaf else (KEEP,)), *space.options[site.name]) for site in self.searched
        }
        self._name, blocks = blocks_of(bench.planned.model)
        self.blocks = list(blocks)
        self.weight = bench.texts.sequences["search"].mask[:, 1:].float()
        self.combinations = [self._combinations(index) for index in range(len(self.blocks))]

    def run(self) -> Enumeration:
        """Measures all plans that drop no more sites than the space allows.

        Raises:
            StudyError: If there are more than `MOST_PLANS` plans.
        """
        plans = int(np.prod([len(each) for each in self.combinations]))
        if plans > MOST_PLANS:
            raise StudyError(f"the space has {plans:,} plans; pin sites until there are {MOST_PLANS:,} at most")
        self._losses: dict[tuple[int, ...], float] = {}
        states, self._arguments = self._first_states()
        with torch.inference_mode():
            self.logits = self._teacher_logits()
            self._extend(0, states.unsqueeze(0), [()], plans)
        inventory = self.bench.space.inventory
        made = [self.plan(codes) for codes in self._losses]
        return Enumeration(
            sites=tuple(site.name for site in self.searched),
            options=tuple(self.options[site.name] for site in self.searched),
            codes=np.array(list(self._losses), dtype=np.int8),
            sizes=np.array([plan.size_bytes(inventory) for plan in made]),
            losses=np.array(list(self._losses.values())),
        )

    def plan(self, codes: Sequence[int]) -> Plan:
        """The plan of codes, one for each searched site."""
        return self._plan_of(self.searched, codes)

    def _combinations(self, block: int) -> list[tuple[int, ...]]:
        """Codes of the searched sites of a block; only the first of those that yield the same plan."""
        sites = [site for site in self.searched if site.block == block]
        found: dict[Plan, tuple[int, ...]] = {}
        for codes in itertools.product(*(range(len(self.options[site.name])) for site in sites)):
            found.setdefault(self._plan_of(sites, codes), codes)
        return list(found.values())

    def _plan_of(self, sites: Sequence[Site], codes: Sequence[int]) -> Plan:
        chosen: Mapping[str, Choice] = {
            site.name: self.options[site.name][code] for site, code in zip(sites, codes, strict=True)
        }
        return Plan.of(self.bench.space.inventory, {**self.fixed, **chosen})

    def _extend(self, block: int, states: Tensor, codes: list[tuple[int, ...]], plans: int) -> None:
        """Runs every continuation of the plan prefixes ``codes`` from a block on.

        Args:
            block: Index of the next block.
            states: Inputs of that block, ``(variants, sequences, length, hidden)``.
            codes: Codes of each variant before that block.
            plans: Number of all plans, for the progress callback.
        """
        if block == len(self.blocks):
            self._measure(states, codes)
            self.told(len(self._losses), plans)
            return
        made, named = [], []
        sites = [site for site in self.searched if site.block == block]
        drops = [
            self._plan_of(self.searched[: len(before)], before).drops(self.bench.space.inventory) for before in codes
        ]
        for combination in self.combinations[block]:
            plan = self._plan_of(sites, combination)
            left = self.bench.space.max_drops - plan.drops(self.bench.space.inventory)
            rows = [row for row, dropped in enumerate(drops) if dropped <= left]
            if not rows:
                continue
            self.bench.planned.swap(plan)
            flat = states[rows].flatten(0, 1)
            if block not in plan.dropped(self.bench.space.inventory):
                output = self.blocks[block](flat, **self._arguments[block])
                flat = output[0] if isinstance(output, tuple) else output
            made.append(flat.view(len(rows), *states.shape[1:]))
            named += [(*codes[row], *combination) for row in rows]
        together = torch.cat(made)
        for start in range(0, len(together), VARIANTS):
            self._extend(block + 1, together[start : start + VARIANTS], named[start : start + VARIANTS], plans)

    def _measure(self, states: Tensor, codes: list[tuple[int, ...]]) -> None:
        for state, code in zip(states, codes, strict=True):
            with blocks_replaced(self.bench.planned.model, self._name, [Given([state], self.blocks[0])]):
                logits = self._logits()
            student = logits[:, :-1] - logits[:, :-1].logsumexp(-1, keepdim=True)
            divergence = (self.logits.exp() * (self.logits - student)).sum(-1).clamp(min=0)
            self._losses[code] = float((divergence * self.weight).sum() / self.weight.sum())

    def _logits(self) -> Tensor:
        """Logits of the search set."""
        logits: Tensor = self.bench.planned.model(
            input_ids=self.bench.texts.sequences["search"].tokens, use_cache=False
        ).logits
        return logits

    def _teacher_logits(self) -> Tensor:
        """The original's log-probabilities of the next token at every position."""
        self.bench.planned.swap(Plan())
        logits = self._logits()[:, :-1]
        return logits - logits.logsumexp(-1, keepdim=True)

    def _first_states(self) -> tuple[Tensor, list[dict[str, Any]]]:
        """Input states of the first block and keyword arguments of every block; these must not depend on the plan."""
        arguments: list[dict[str, Any]] = [{} for _ in self.blocks]
        states: list[Tensor] = []

        def first(module: nn.Module, inputs: Any, named: dict[str, Any]) -> None:
            states.append(inputs[0])

        def record(index: int) -> Callable[[nn.Module, Any, dict[str, Any]], None]:
            def keep(module: nn.Module, inputs: Any, named: dict[str, Any]) -> None:
                arguments[index] = named

            return keep

        self.bench.planned.swap(self._plan_of((), ()))  # applies the pinned choices outside the blocks
        hooks = [block.register_forward_pre_hook(record(i), with_kwargs=True) for i, block in enumerate(self.blocks)]
        with torch.inference_mode():
            self.bench.planned.model(input_ids=self.bench.texts.sequences["search"].tokens[:1], use_cache=False)
        hooks += [self.blocks[0].register_forward_pre_hook(first, with_kwargs=True)]
        with torch.inference_mode():
            kept = list(arguments)
            self.bench.planned.model(input_ids=self.bench.texts.sequences["search"].tokens, use_cache=False)
        for hook in hooks:
            hook.remove()
        return states[0], kept
