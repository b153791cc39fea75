"""Unstructured and semi-structured pruning."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given

from paredown.compressors.bank.encoding import decode_matrix, encode_matrix, encode_site
from paredown.compressors.numerics.hessian import BLOCK, DAMPING
from paredown.compressors.pruning.pattern import Pattern, criteria
from paredown.space.choice import PlanError, parse_choice
from paredown.space.layouts import matrix_fault, matrix_layout
from paredown.space.site import Member, Site
from paredown.space.statistics import Statistics
from paredown.space.tensors import total_bytes
from shared import strategies
from shared.correlated import statistics_of

PATTERNS = ["row", "1:4", "2:4", "4:8"]
ALGORITHMS = ["magnitude", "wanda", "sparsegpt"]


def text(algorithm: str = "magnitude", pattern: str = "row") -> str:
    return f"prune sparsity={0.75 if pattern == '1:4' else 0.5} pattern={pattern} algorithm={algorithm}"


def pruned(choice: str, weight: torch.Tensor, statistics: Statistics) -> torch.Tensor:
    made = parse_choice(choice)
    shape = (weight.shape[0], weight.shape[1])
    return decode_matrix(made, encode_matrix(made, weight, "float32", statistics), shape)


def normal(shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def output_error(before: torch.Tensor, after: torch.Tensor, statistics: Statistics) -> float:
    difference = (before - after).double()
    return float((difference @ statistics["second_moment"].double() @ difference.T).trace())


@given(strategies.matrices())
def test_the_largest_of_each_row_stay(weight: torch.Tensor) -> None:
    """What stays is unchanged and in its place; nothing that went is larger than anything that stayed."""
    choice = parse_choice("prune sparsity=0.6")
    shape = (weight.shape[0], weight.shape[1])
    stored = encode_matrix(choice, weight, "float32")
    decoded = decode_matrix(choice, stored, shape)
    kept = max(1, round(shape[1] * 0.4))
    assert stored["values"].shape == (shape[0], kept)
    expected = torch.zeros(shape)
    for row in range(shape[0]):
        magnitudes = sorted(weight[row].abs().tolist(), reverse=True)
        assert sorted(decoded[row].abs().tolist(), reverse=True)[:kept] == magnitudes[:kept]
        expected[row] = torch.where(decoded[row] != 0, weight[row], 0)
    assert torch.equal(decoded, expected)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_wanda_keeps_what_a_loop_over_rows_keeps(pattern: str) -> None:
    """The largest products of magnitude and the norm of the input's column, group by group; values unchanged."""
    weight, statistics = normal((5, 24)), statistics_of((5, 24))
    norms = [float(statistics["second_moment"][i, i]) ** 0.5 for i in range(24)]
    kept, group = {"row": (12, 24), "1:4": (1, 4), "2:4": (2, 4), "4:8": (4, 8)}[pattern]
    expected = torch.zeros(5, 24)
    for row in range(5):
        for start in range(0, 24, group):
            places = sorted(range(start, start + group), key=lambda i: -abs(float(weight[row, i])) * norms[i])
            for i in places[:kept]:
                expected[row, i] = weight[row, i]
    assert torch.equal(pruned(text("wanda", pattern), weight, statistics), expected)


@pytest.mark.parametrize(("kept", "group"), [(20, 40), (1, 4), (2, 4), (70, 160), (4, 8)])
def test_sparsegpt_equals_optimal_brain_surgery_done_slowly(kept: int, group: int) -> None:
    """Row by row in float64, with the explicit inverse of the Hessian of the columns that are left."""
    columns = {4: 24, 8: 136}.get(group, group)
    weight, statistics = normal((3, columns), 1), statistics_of((3, columns), 2)
    hessian = statistics["second_moment"].double()
    hessian = hessian + DAMPING * hessian.diagonal().mean() * torch.eye(columns)
    expected = torch.zeros(3, columns, dtype=torch.float64)
    for row in range(3):
        left = weight[row].double().clone()
        chosen: set[int] = set()
        for j in range(columns):
            first = j - j % group
            if j % BLOCK == 0 or (group < BLOCK and j == first):
                here = {place for place in chosen if first <= place < j}
                costs = {
                    i: float(left[i] ** 2 / torch.linalg.inv(hessian[i:, i:])[0, 0]) for i in range(j, first + group)
                }
                best = sorted(costs, key=lambda i: -costs[i])[: kept - len(here)]
                until = min(j + BLOCK, first + group)
                chosen |= {i for i in best if i < until}
            if j in chosen:
                expected[row, j] = left[j]
                continue
            inverse = torch.linalg.inv(hessian[j:, j:])
            left[j:] -= left[j] / inverse[0, 0] * inverse[0]
    result = criteria["sparsegpt"].prune(weight, Pattern(kept=kept, group=group), statistics)
    found = torch.where(result.mask, result.weight, 0)
    assert torch.equal(found != 0, expected != 0)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("seed", range(3))
def test_what_knows_more_of_the_inputs_harms_the_output_less(pattern: str, seed: int) -> None:
    """On correlated inputs wanda's output error is below magnitude's, and sparsegpt's below both."""
    weight, statistics = normal((16, 200), seed), statistics_of((16, 200), seed)
    by_magnitude, by_wanda, by_sparsegpt = (
        output_error(weight, pruned(text(algorithm, pattern), weight, statistics), statistics)
        for algorithm in ALGORITHMS
    )
    assert by_sparsegpt < 0.7 * by_wanda < 0.7 * by_magnitude


@pytest.mark.parametrize("pattern", PATTERNS)
def test_without_correlation_all_keep_the_largest(pattern: str) -> None:
    """With the identity as second moment there is nothing to make up for, and every input counts the same."""
    weight, statistics = normal((6, 200)), Statistics(second_moment=torch.eye(200))
    of_magnitude, *others = (pruned(text(algorithm, pattern), weight, statistics) for algorithm in ALGORITHMS)
    assert all(torch.equal(of_magnitude, other) for other in others)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("pattern", "group", "kept"), [("row", 160, 80), ("1:4", 4, 1), ("2:4", 4, 2), ("4:8", 8, 4)])
def test_every_group_keeps_its_number(algorithm: str, pattern: str, group: int, kept: int) -> None:
    """As many as the pattern says in each group of neighbours of each row, whatever the algorithm."""
    decoded = pruned(text(algorithm, pattern), normal((7, 160)), statistics_of((7, 160)))
    assert ((decoded != 0).view(7, -1, group).sum(-1) == kept).all()


@pytest.mark.parametrize("algorithm", ["wanda", "sparsegpt"])
@pytest.mark.parametrize("seed", range(3))
def test_more_weights_never_hurt_the_output(algorithm: str, seed: int) -> None:
    """The output error does not grow with the share that stays."""
    weight, statistics = normal((12, 64), seed), statistics_of((12, 64), seed)
    errors = [
        output_error(weight, pruned(f"prune sparsity={sparsity} algorithm={algorithm}", weight, statistics), statistics)
        for sparsity in (0.9, 0.75, 0.5, 0.25, 0.05)
    ]
    assert all(finer < coarser for coarser, finer in pairwise(errors)), errors


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    """Dead inputs, and none at all, give finite values."""
    weight, moment = normal((4, 16)), torch.zeros(16, 16)
    for size in (0.0, 1.0):
        moment[3, 3] = size
        assert torch.isfinite(pruned(text("sparsegpt"), weight, Statistics(second_moment=moment))).all()


def test_values_are_rounded_with_the_importance_of_their_inputs() -> None:
    """The step after a calibrated algorithm gets the mean squares of the remaining inputs, and nothing else."""
    weight, statistics = normal((5, 16)), statistics_of((5, 16)).only(frozenset({"second_moment"}))
    for algorithm in ("wanda", "sparsegpt"):
        for pattern in PATTERNS:
            choice = parse_choice(text(algorithm, pattern))
            own, parts = choice.encode(weight, statistics)
            inputs = decode_matrix(choice, {**own, "values": parts["values"].statistics["importance"]}, (5, 16))
            mask = decode_matrix(choice, {**own, "values": torch.ones_like(parts["values"].matrix)}, (5, 16))
            assert torch.equal(inputs, mask * statistics["second_moment"].diagonal())
    assert parse_choice(text()).encode(weight, statistics)[1]["values"].statistics.importance is None


def test_one_factor_serves_all_choices_of_a_matrix() -> None:
    """The factorisation is made once and kept; the statistics themselves stay as they are."""
    statistics = statistics_of((4, 32))
    before = statistics["second_moment"].clone()
    first = pruned(text("sparsegpt"), normal((4, 32)), statistics)
    kept = statistics.derived["sparsegpt"]
    assert torch.equal(first, pruned(text("sparsegpt"), normal((4, 32)), statistics))
    assert statistics.derived["sparsegpt"] is kept
    assert torch.equal(statistics["second_moment"], before)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("pattern", ["row", "2:4"])
def test_transposed_layers_are_pruned_along_their_inputs(algorithm: str, pattern: str) -> None:
    """GPT-2 stores its matrices the other way round: what is stored is the same."""
    weight, statistics = normal((8, 24)), statistics_of((8, 24))
    stored = []
    for transposed in (False, True):
        member = Member(module="m", shape=(8, 24), dtype="float32", transposed=transposed)
        site = Site(name="m", kind="linear", block=0, members=(member,))
        stored.append(
            encode_site(
                site,
                parse_choice(text(algorithm, pattern)),
                {"m.weight": weight.T if transposed else weight},
                {"m": statistics},
            )
        )
    assert all(torch.equal(stored[1][name], tensor) for name, tensor in stored[0].items())


@pytest.mark.parametrize(
    ("pattern", "size_bytes"),
    [("row", 24 * 20 + 2 * 24 * 80), ("1:4", 24 * 12 + 2 * 24 * 40), ("2:4", 24 * 16 + 2 * 24 * 80)],
)
def test_places_take_the_bytes_worked_out_by_hand(pattern: str, size_bytes: int) -> None:
    """A row of 160 weights has 20 bytes of bitmap.

    40 numbers of 2 bits (one of four) take 3 words; 40 of 3 bits (two of four) take 4.
    """
    assert total_bytes(matrix_layout(parse_choice(text("magnitude", pattern)), (24, 160), "bfloat16")) == size_bytes


@pytest.mark.parametrize("sparsity", ["0", "1", "-0.5", "nan"])
def test_a_sparsity_outside_the_open_interval_is_refused(sparsity: str) -> None:
    """Nothing and all are no pruning."""
    with pytest.raises(PlanError, match="prune: sparsity"):
        parse_choice(f"prune sparsity={sparsity}")


def test_what_contradicts_itself_is_refused() -> None:
    """A pattern has one sparsity, divides the row, and its values have no inputs of their own; each with the remedy."""
    with pytest.raises(PlanError, match=r"pattern 2:4 means sparsity 0\.5, got 0\.6; set that sparsity or pattern=row"):
        parse_choice("prune sparsity=0.6 pattern=2:4")
    with pytest.raises(PlanError, match="did you mean 'wanda'"):
        parse_choice("prune sparsity=0.5 algorithm=wnda")
    assert "does not divide in_features 43; use pattern=row" in str(
        matrix_fault(parse_choice("prune sparsity=0.5 pattern=2:4"), (8, 43))
    )
    followed = parse_choice("prune sparsity=0.5 then prune sparsity=0.5 algorithm=wanda")
    assert "needs the second_moment of its inputs, but the values of pruned rows have none" in str(
        matrix_fault(followed, (8, 16))
    )
