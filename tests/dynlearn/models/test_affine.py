import time

import pytest
import torch
from torch import Tensor

from dynlearn.models.affine import members_affine, onednn_is_faster


def _maps(members: int = 3, batch: int = 7, inputs: int = 4, outputs: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = (members, 1, outputs), (members, batch, inputs), (members, inputs, outputs)
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("with_onednn", [True, False])
def test_each_member_maps_its_own_rows(with_onednn: bool) -> None:
    bias, inputs, weight = torch.zeros(2, 1, 1), torch.ones(2, 3, 2), torch.ones(2, 2, 1)
    bias[1], weight[1] = 0.5, 10.0
    mapped = members_affine(bias, inputs, weight, with_onednn)
    assert mapped[..., 0].tolist() == [[2.0] * 3, [20.5] * 3]


@pytest.mark.parametrize("batch", [1, 7, 256])
def test_both_libraries_agree_on_values_and_gradients(batch: int) -> None:
    found = []
    for with_onednn in (True, False):
        maps = _maps(batch=batch)
        mapped = members_affine(*maps, with_onednn)
        gradients = torch.autograd.grad(mapped.sin().sum(), maps)
        found.append((mapped.detach(), *gradients))
        assert type(mapped.grad_fn).__name__.startswith("_OneDNN" if with_onednn else "Add")
    torch.testing.assert_close(*found)


def test_inputs_shared_by_all_members() -> None:
    bias, inputs, weight = _maps()
    shared = inputs[0].expand(3, -1, -1)
    torch.testing.assert_close(
        *(members_affine(bias, shared, weight, with_onednn) for with_onednn in (True, False))
    )


def test_what_onednn_does_not_do_is_left_to_the_other() -> None:
    maps = [tensor.double() for tensor in _maps()]
    assert torch.equal(members_affine(*maps, True), members_affine(*maps, False))
    with torch.autocast("cpu", torch.bfloat16):
        assert members_affine(*_maps(), True).dtype == torch.bfloat16


def test_inputs_take_the_weights_dtype() -> None:
    """Of 200 products with ones, each input rounded to bfloat16: 1 + 2⁻⁹ to 1."""
    bias, inputs = torch.zeros(1, 1, 1), torch.full((1, 2, 200), 1 + 2**-9)
    weight = torch.ones(1, 200, 1)
    for dtype, expected in ((torch.bfloat16, 200), (torch.float32, 200 * (1 + 2**-9))):
        mapped = members_affine(bias.to(dtype), inputs, weight.to(dtype), False)
        assert mapped.dtype == dtype
        assert mapped.tolist() == [[[expected]] * 2]


@pytest.mark.parametrize(("slower", "expected"), [(True, False), (False, True)])
def test_the_faster_is_found(slower: bool, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def waiting(bias: Tensor, inputs: Tensor, weight: Tensor, with_onednn: bool) -> Tensor:
        if with_onednn == slower:
            time.sleep(0.002)
        return bias

    monkeypatch.setattr("dynlearn.models.affine.members_affine", waiting)
    assert onednn_is_faster.__wrapped__() is expected
