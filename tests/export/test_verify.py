"""The comparison before a bundle is written finds what it is there to find."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from export import verify
from export.build import make_program
from export.methods import Method
from export.score import score_methods
from export.step import Step, step_methods
from sparserec.errors import SparseRecError

L2 = 0.1


@pytest.fixture(scope="module")
def methods() -> dict[str, Method]:
    return step_methods(4, 6, L2, 256)


def test_a_right_program_passes(methods: dict[str, Method]) -> None:
    program = make_program("step.pte", methods, verify.step_references(Step(4, 6, L2, 256)))
    assert set(program.max_abs_errors) == {"gradients", "update"}
    assert all(0 <= error < 1e-5 for error in program.max_abs_errors.values())


def test_a_wrong_penalty_is_found(methods: dict[str, Method]) -> None:
    with pytest.raises(SparseRecError, match="gradients: the exported program differs"):
        make_program("step.pte", methods, verify.step_references(Step(4, 6, L2 + 0.01, 256)))


def test_a_small_difference_is_found(methods: dict[str, Method]) -> None:
    update = methods["update"]

    def function(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (update.function(*inputs)[0] + 2e-5,)

    wrong = {"update": replace(update, function=function)}
    with pytest.raises(SparseRecError, match="update: the exported program differs"):
        make_program("step.pte", wrong, verify.step_references(Step(4, 6, L2, 256)))


def test_what_is_not_finite_is_found_beside_what_is_right(methods: dict[str, Method]) -> None:
    gradients = methods["gradients"]

    def function(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        loss, grads = gradients.function(*inputs)
        return loss, grads * torch.inf * 0

    wrong = {"gradients": replace(gradients, function=function)}
    with pytest.raises(SparseRecError, match=r"gradients: .* differs from PyTorch by nan"):
        make_program("step.pte", wrong, verify.step_references(Step(4, 6, L2, 256)))


def test_a_gradient_outside_the_mask_is_found(methods: dict[str, Method]) -> None:
    leaky = methods["gradients"]

    def function(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rows, mask, sampled, weight = inputs
        return leaky.function(rows, mask, torch.ones_like(sampled), weight)

    wrong = methods | {"gradients": replace(leaky, function=function)}
    with pytest.raises(SparseRecError, match="gradients: the exported program differs"):
        make_program("step.pte", wrong, verify.step_references(Step(4, 6, L2, 256)))


@pytest.mark.parametrize(("numerator", "error"), [(0, "nan"), (1, "inf")])
def test_what_is_not_finite_is_found(
    methods: dict[str, Method], numerator: float, error: str
) -> None:
    def function(v: torch.Tensor, g: torch.Tensor, lr: torch.Tensor) -> tuple[torch.Tensor]:
        return (torch.full_like(v, numerator) / (lr - lr),)

    update = replace(methods["update"], function=function)
    message = f"update: the exported program differs from PyTorch by {error}"
    with pytest.raises(SparseRecError, match=message):
        make_program("step.pte", {"update": update}, verify.step_references(Step(4, 6, L2, 256)))


def test_a_penalty_that_no_program_can_be_compared_at_is_the_users() -> None:
    rounded = 1e12 * (1 + 2**-20)  # as d = 64 rounds, and d = 6 does not
    methods, references = (
        step_methods(4, 6, 1e12, 256),
        verify.step_references(Step(4, 6, rounded, 256)),
    )
    with pytest.raises(SparseRecError, match=r"gradients: PyTorch's own results") as error:
        make_program("step.pte", methods, references)
    assert error.value.fix == "lower --l2"


def test_wrong_indices_are_found() -> None:
    right = score_methods(64, 4)["score"]

    def function(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values, indices = right.function(*inputs)
        return values, 63 - indices

    methods = {"score": replace(right, function=function)}
    with pytest.raises(SparseRecError, match="score: the exported program differs"):
        make_program("score.pte", methods, verify.score_references())
