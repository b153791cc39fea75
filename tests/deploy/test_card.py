"""The model card."""

from __future__ import annotations

import pytest
from huggingface_hub import ModelCard

from paredown.deploy.card import model_card
from paredown.space.choice import parse_choice
from paredown.space.plan import Plan
from paredown.space.plan_file import BaseModelReference, PlanFile, choices_of
from shared import strategies

TOY = strategies.toy_inventory()
METRICS = {"size": {"tensors": 400, "original": 1000, "header": 50, "share_of_original": 0.4, "bits_per_weight": 6.4}}


def card(choice: str, **measured: object) -> str:
    plan = Plan.of(TOY, {"layers.0.attention": parse_choice(choice)})
    base = BaseModelReference(name="off", architecture="Toy", config_sha256="12e34", shapes_sha256="0899")
    file = PlanFile(base_model=base, target="paredown", choices=choices_of(plan), size_bytes=400, **measured)
    return model_card(file, METRICS)


def test_the_hub_reads_what_the_model_is() -> None:
    """Its own class of a card gives back the model, the relation, the library and the tag, and nothing else."""
    assert ModelCard(card("quantize bits=4 group_size=16")).data.to_dict() == {
        "base_model": "off",
        "base_model_relation": "quantized",
        "library_name": "paredown",
        "tags": ["paredown"],
    }


@pytest.mark.parametrize(
    ("choice", "smaller_only"), [("quantize bits=4 group_size=16", False), ("cluster clusters=16", True)]
)
def test_what_is_smaller_on_disk_only_is_said_to_be(choice: str, smaller_only: bool) -> None:
    text = card(choice)
    assert ("smaller on disk only" in text) == smaller_only
    assert "The tensors take 40.00 % of the original's bytes: 6.400 bits per original parameter." in text


def test_only_what_was_measured_is_reported() -> None:
    """The values as YAML; a title without any says so."""
    text = card("quantize bits=4 group_size=16", quality={"mean": 1e-5, "data": "texte été"})
    assert "## Quality\n\n```yaml\nmean: 1.0e-05\ndata: texte été\n```\n" in text
    assert text.count("Not measured.") == 2
