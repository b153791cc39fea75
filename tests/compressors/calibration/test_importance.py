"""The importance of weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from paredown.compressors.bank.encoding import decode_site, encode_site
from paredown.compressors.calibration.collect import collect
from paredown.compressors.calibration.importance import collect_importance
from paredown.compressors.calibration.statistics_folder import StatisticsFolder
from paredown.space.choice import parse_choice
from paredown.space.errors import StudyError
from paredown.space.site import Inventory
from shared import pico

LENGTHS = (9, 5, 7)


def texts() -> tuple[torch.Tensor, torch.Tensor]:
    """Three sequences of unequal length, padded on the right."""
    tokens = torch.randint(1, pico.VOCABULARY, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1] * length + [0] * (9 - length) for length in LENGTHS])
    return tokens * mask, mask


def gathered(name: str, inventory: Inventory, folder: Path) -> StatisticsFolder:
    model = pico.build(name)
    tokens, mask = texts()
    collect(model, inventory, tokens, mask, folder)
    return collect_importance(model, inventory, tokens, mask, folder)


@torch.no_grad()
def log_likelihoods(model: torch.nn.Module) -> torch.Tensor:
    """Log-likelihood of each sequence, summed over its tokens."""
    tokens, _ = texts()
    sums = []
    for sequence, length in zip(tokens, LENGTHS, strict=True):
        logits = model(input_ids=sequence[None, :length]).logits[0]
        sums.append(sum(logits[t].log_softmax(-1)[sequence[t + 1]] for t in range(length - 1)))
    return torch.stack(sums)


@pytest.mark.parametrize("name", ["opt", "gpt2"])
def test_importance_is_the_squared_slope_of_each_sequence(
    name: str, inventory: Callable[[str], Inventory], tmp_path: Path
) -> None:
    """Finite differences of single weights in float64: squared slopes, summed over sequences, per predicted token."""
    found = gathered(name, inventory(name), tmp_path)
    model = pico.build(name).double()
    members = [member for site in inventory(name).leaves if site.kind == "linear" for member in site.members]
    assert len(members) == {"opt": 12, "gpt2": 8}[name]
    for number, member in enumerate(members):
        row, column = number % member.shape[0], (7 * number + 1) % member.shape[1]
        weight = model.get_parameter(f"{member.module}.weight").data
        place = (column, row) if member.transposed else (row, column)
        before, slopes = weight[place].item(), torch.zeros(3, dtype=torch.float64)
        for sign in (1, -1):
            weight[place] = before + sign * 1e-5
            slopes += sign * log_likelihoods(model) / 2e-5
        weight[place] = before
        importance = found[member.module]["importance"]
        assert importance.shape == member.shape
        expected = slopes.square().sum() / (sum(LENGTHS) - 3)
        torch.testing.assert_close(importance[row, column].double(), expected, rtol=2e-3, atol=1e-8)


def test_the_model_and_the_other_statistics_stay_as_they_are(
    inventory: Callable[[str], Inventory], tmp_path: Path
) -> None:
    """No gradient is left behind, no weight asks for one that did not.

    What is derived from shared inputs stays shared.
    """
    model = pico.build("llama").requires_grad_(False)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    tokens, mask = texts()
    plain = collect(model, inventory("llama"), tokens, mask, tmp_path)
    merged = collect_importance(model, inventory("llama"), tokens, mask, tmp_path)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None
        assert not parameter.requires_grad
    assert list(merged) == list(plain)
    query, key = (f"model.layers.0.self_attn.{part}_proj" for part in "qk")
    assert plain[query].importance is None
    assert torch.equal(plain[query]["second_moment"], merged[query]["second_moment"])
    assert merged[query].derived is merged[key].derived
    assert not torch.equal(merged[query]["importance"][:16], merged[key]["importance"])


def test_it_is_found_again(inventory: Callable[[str], Inventory], tmp_path: Path) -> None:
    """The second time nothing runs: another model gets the first one's numbers; a reopened folder holds them too."""
    first = gathered("llama", inventory("llama"), tmp_path)
    tokens, mask = texts()
    again = collect_importance(pico.build("llama", seed=1), inventory("llama"), tokens, mask, tmp_path)
    opened = StatisticsFolder(tmp_path)
    assert all(
        torch.equal(first[module]["importance"], other[module]["importance"])
        for other in (again, opened)
        for module in first
    )


def test_choices_use_it_in_their_own_orientation(inventory: Callable[[str], Inventory], tmp_path: Path) -> None:
    """Codebooks for a transposed matrix: the error that the Fisher information counts is the least with it."""
    found = gathered("gpt2", inventory("gpt2"), tmp_path)
    parameters = {name: parameter.detach() for name, parameter in pico.build("gpt2").named_parameters()}
    site = inventory("gpt2")["transformer.h.1.mlp.c_fc"]
    errors = {}
    for weighting in ("none", "inputs", "fisher"):
        choice = parse_choice(f"cluster clusters=4 weighting={weighting}")
        decoded = decode_site(site, choice, encode_site(site, choice, parameters, found))[f"{site.name}.weight"]
        squared = (decoded - parameters[f"{site.name}.weight"]).square()
        errors[weighting] = float((squared.T * found[site.name]["importance"]).sum())
    assert min(errors, key=lambda weighting: errors[weighting]) == "fisher", errors


def test_encoders_are_refused(inventory: Callable[[str], Inventory], tmp_path: Path) -> None:
    """They have no next-token loss; the message says what to leave out."""
    tokens, mask = texts()
    with pytest.raises(
        StudyError, match="an encoder has no next-token loss .*; leave out the choices that need importance"
    ):
        collect_importance(pico.build("bert"), inventory("bert"), tokens, mask, tmp_path)
