"""Laws of every estimator, and what each says by itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from scipy.stats import spearmanr

import paredown
from paredown.compressors.model.planned_model import PlannedModel
from paredown.compressors.original.checkpoint import config_of, load_original
from paredown.compressors.original.lazy_weights import open_original
from paredown.evaluators.sequences import Sequences
from paredown.search.sensitivity import measurements as evidence
from paredown.search.sensitivity.estimators import angular, estimators, fisher, inside, pairs_of, single_site
from paredown.search.sensitivity.measurements import UNUSABLE, Evidence, Sensitivity, passes
from paredown.search.sensitivity.sensitivity import estimated, estimated_tokens
from paredown.space.choice import KEEP, Choice
from paredown.space.errors import StudyError, UnknownNameError
from paredown.space.plan import Plan
from paredown.space.site import Site
from shared.estimated import SEQUENCES, evidence_of, prepared

Folder = Callable[[str], Path]
OF_TEXTS = ("gradient", "autoscheme")
"""Take the gradient of the texts' likelihood; scores that a few measurements give a unit."""


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where compressed sites lie, made once for all tests."""
    return tmp_path_factory.mktemp("records")


@pytest.mark.parametrize("model", ["llama", "bert"])
def test_every_estimator_predicts_every_choice(pico: Folder, tmp_path: Path, records: Path, model: str) -> None:
    """All of the space and nothing else, finite, nothing below zero, zero where a site is kept.

    The original is left in place; it measures alone exactly what it says; from what is on disk the same comes again
    without a pass; it ranks the choices of linear sites nearly as measuring each does.
    """
    space, planned = prepared(pico(model), tmp_path, records=records)
    linear = [(site.name, choice) for site, choice in pairs_of(space) if site.kind == "linear"]
    full = estimated("single-site-full", evidence_of(space, planned, tmp_path / "facts.json"))
    for name in estimators:
        if name in OF_TEXTS and not space.inventory.causal:
            continue
        seen = evidence_of(space, planned, tmp_path / f"{name}.json")
        asked: list[object] = []
        measure = seen.alone
        seen.alone = lambda *call, measure=measure, asked=asked: asked.append(call[:2]) or measure(*call)
        losses = estimated(name, seen)
        assert planned.plan == Plan()
        assert list(losses) == [
            (site.name, choice) for site in space.inventory.sites for choice in space.options[site.name]
        ]
        assert all(
            math.isfinite(loss) and loss >= 0 and (loss == 0) == (choice == KEEP)
            for (_, choice), loss in losses.items()
        ), name
        assert len(asked) == len(set(asked)) and set(asked) == set(estimators[name].alone(space)), name
        assert seen.backward_tokens == estimators[name].sweeps(space) * SEQUENCES.mask.sum()
        again = evidence_of(space, planned, tmp_path / f"{name}.json")
        assert estimated(name, again) == losses
        assert again.facts.made == 0
        assert (again.forward_tokens, again.backward_tokens) == (seen.forward_tokens, seen.backward_tokens)
        assert spearmanr([losses[pair] for pair in linear], [full[pair] for pair in linear]).statistic > 0.9, name
        for site, choice in estimators[name].alone(space):
            is_scored = estimators[name].sweeps(space) and (site, choice) in fisher.swept(space)
            assert losses[site.name, choice] == pytest.approx(full[site.name, choice], rel=1e-6) or is_scored


@pytest.mark.parametrize("model", ["llama", "bert"])
def test_fisher_predicts_small_losses_in_their_own_unit(
    pico: Folder, tmp_path: Path, records: Path, model: str
) -> None:
    """Choices that change little are together within a third of what is measured, with no measurement to scale them."""
    space, planned = prepared(pico(model), tmp_path, records=records)
    small = [(site, choice) for site, choice in fisher.swept(space) if getattr(choice, "bits", 0) == 6]
    losses = estimated("fisher", evidence_of(space, planned))
    measured = evidence_of(space, planned).losses_alone(small)
    ratio = sum(losses[pair] for pair in measured) / sum(measured.values())
    assert 0.67 < ratio < 1.5


@pytest.mark.parametrize("name", ["fisher", *OF_TEXTS])
def test_a_sweep_may_take_its_texts_in_parts(
    pico: Folder, tmp_path: Path, records: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many sequences are held in memory at a time, the predictions are the same."""
    space, planned = prepared(pico("llama"), tmp_path, records=records)
    whole = estimated(name, evidence_of(space, planned))
    monkeypatch.setattr(evidence, "TRACE_BYTES", 1)
    parts = estimated(name, evidence_of(space, planned))
    assert all(parts[pair] == pytest.approx(loss, rel=1e-4) for pair, loss in whole.items())


def test_autoscheme_takes_the_gradient_at_the_compressed_weights(pico: Folder, tmp_path: Path, records: Path) -> None:
    """All linear sites under one option at once: gradient of each sequence's mean likelihood times the change."""
    space, planned = prepared(pico("llama"), tmp_path, records=records)
    losses = estimated("autoscheme", evidence_of(space, planned))
    pairs = [(site, choice) for site, choice in fisher.swept(space) if getattr(choice, "bits", 0) in (2, 4)]
    products: dict[tuple[str, Choice], float] = {}
    for choice in dict.fromkeys(choice for _, choice in pairs):
        model = load_original(pico("llama")).requires_grad_(True)
        weights = {
            member.module: model.get_parameter(f"{member.module}.weight")
            for site, _ in pairs
            for member in site.members
        }
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        for site, other in pairs:
            if other == choice:
                for name, value in planned.bank.decoded(site, choice).items():
                    model.get_parameter(name).data = value.clone()
        sums = dict.fromkeys(weights, 0.0)
        for sequence in SEQUENCES.tokens:
            gradients = torch.autograd.grad(
                model(input_ids=sequence[None], labels=sequence[None]).loss, list(weights.values())
            )
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                sums[name] += float((gradient * (weight.detach() - before[name])).abs().sum())
        products |= {
            (site.name, choice): sum(sums[m.module] for m in site.members) for site, other in pairs if other == choice
        }
    units = [losses[pair] / value for pair, value in products.items()]
    assert units == pytest.approx([units[0]] * len(units), rel=1e-3)


def test_angular_carries_one_drop_to_the_others(pico: Folder, tmp_path: Path, records: Path) -> None:
    """One block is measured, the other loses as the squares of their angles say; all else is as single-site has it."""
    space, planned = prepared(pico("llama"), tmp_path, records=records)
    seen = evidence_of(space, planned)
    losses, others = estimated("angular", seen), estimated("single-site", evidence_of(space, planned))
    (first, drop), (second, _) = angular.drops(space)
    one, two = seen.distances
    assert losses[second.name, drop] == others[second.name, drop]
    assert losses[first.name, drop] == pytest.approx(losses[second.name, drop] * (one / two) ** 2)
    left = {(first.name, drop)}
    assert {pair: loss for pair, loss in losses.items() if pair not in left} == {
        p: loss for p, loss in others.items() if p not in left
    }
    assert len(angular.measured(space)) == len(single_site.measured(space)) - 1


def test_what_makes_the_model_unusable_is_priced_out(pico: Folder, tmp_path: Path, records: Path) -> None:
    """A choice under which predictions are not finite has a loss that no plan takes; the next measurement is sound."""
    space, planned = prepared(pico("llama"), tmp_path, records=records)
    site = space.inventory["model.layers.1.mlp.down_proj"]
    two, eight = space.options[site.name][1], space.options[site.name][-1]
    sound = evidence_of(space, planned).alone(site, eight)
    broken = planned.bank.decoded(site, two)
    planned.bank.decoded(site, two)[f"{site.name}.weight"] = torch.full_like(broken[f"{site.name}.weight"], torch.inf)
    seen = evidence_of(space, planned)
    assert seen.alone(site, two) == UNUSABLE
    assert seen.alone(site, eight) == pytest.approx(sound, rel=1e-6)


def test_combined_is_the_geometric_mean(pico: Folder, tmp_path: Path) -> None:
    """The mean of the losses on one sequence and on the first 1,024 tokens; everything else is measured."""
    tokens = torch.randint(2, 128, (30, 48), generator=torch.Generator().manual_seed(0))
    data = Sequences(tokens=tokens, mask=torch.ones_like(tokens), document=torch.arange(30))
    space, planned = prepared(pico("llama"), tmp_path, data)

    def losses(name: str, texts: Sequences) -> Sensitivity:
        return estimated(name, Evidence(space, planned, planned.bank, texts, tmp_path / "facts.json"))

    alone, swept = losses("single-site", data.head(1)), losses("fisher", data.head(21))
    whole, found = losses("fisher", data), losses("combined", data)
    scored = {(site.name, choice) for site, choice in fisher.swept(space)}
    for pair, loss in found.items():
        assert loss == pytest.approx(
            math.sqrt(alone[pair] * swept[pair]) if pair in scored else whole[pair], rel=1e-5
        ), pair
    linear, others = (sum(passes(s, space) for s, _ in pairs) for pairs in (inside(space), fisher.measured(space)))
    weights = sum(member.parameters for site, _ in fisher.swept(space) for member in site.members)
    swept_tokens = 1024 * (3 + weights / space.inventory.parameters)  # a sweep, and each change times the inputs
    assert estimated_tokens("combined", space, 10**6) == pytest.approx(128 * (linear + 4 * others) + swept_tokens)


@pytest.mark.parametrize("name", ["single-site", "combined", "fisher"])
def test_weights_that_are_not_finite_are_priced_out(
    pico: Folder, tmp_path: Path, records: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site whose reference decodes to infinity; losses of its other choices from a sweep are kept."""
    space, planned = prepared(pico("llama"), tmp_path, records=records)
    sound = estimated(name, evidence_of(space, planned))
    site, choice = single_site.references(space)[2]
    others = [(site.name, other) for other in space.options[site.name] if other not in (choice, KEEP)]
    decoded = planned.bank.decoded

    def broken(at: Site, taken: Choice) -> Mapping[str, torch.Tensor]:
        tensors = decoded(at, taken)
        return {key: tensor * math.inf for key, tensor in tensors.items()} if (at, taken) == (site, choice) else tensors

    monkeypatch.setattr(planned.bank, "decoded", broken)
    losses = estimated(name, evidence_of(space, planned))
    assert losses[site.name, choice] == UNUSABLE
    assert all(math.isfinite(loss) for loss in losses.values())
    assert {pair: loss for pair, loss in losses.items() if pair[0] != site.name} == {
        p: x for p, x in sound.items() if p[0] != site.name
    }
    if name == "combined":
        swept = estimated("fisher", evidence_of(space, planned))
        assert [losses[pair] for pair in others] == pytest.approx([swept[pair] for pair in others])


def test_what_cannot_be_estimated_is_refused(pico: Folder, tmp_path: Path, records: Path) -> None:
    space, planned = prepared(pico("bert"), tmp_path, records=records)
    with pytest.raises(StudyError, match="encoder has no next-token loss .*; say sensitivity: fisher, or single-site"):
        estimated("gradient", evidence_of(space, planned))
    with pytest.raises(UnknownNameError, match="unknown sensitivity 'single_site'; did you mean 'single-site'"):
        estimated("single_site", evidence_of(space, planned))
    space, planned = prepared(pico("llama"), tmp_path / "llama", records=records)
    model, _ = open_original(pico("llama"), config_of(pico("llama")), memory_bytes=1)
    streamed = PlannedModel(model, space.inventory, planned.bank)
    with pytest.raises(StudyError, match="whole model in memory; raise memory"):
        estimated("fisher", Evidence(space, streamed, planned.bank, evidence_of(space, planned).texts))


def test_an_unknown_estimator_is_refused_before_anything_is_read() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'gradient'"):
        paredown.find_plan({"model": "nowhere", "sensitivity": "gradiant"}, out="nowhere")
