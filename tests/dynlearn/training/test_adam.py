import pytest
import torch

from dynlearn.training.adam import Adam


@pytest.mark.parametrize("size", [3, 16])
def test_steps_are_those_of_torchs_adam(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(2, 1, size, generator=generator)
    ours, theirs = start.clone(), start.clone().requires_grad_()
    adam = Adam([ours])
    reference = torch.optim.Adam([theirs], lr=1.0)
    for learning_rate in (0.1, 0.03, 0.0, 0.2):
        gradient = torch.randn(start.shape, generator=generator)
        adam.step([gradient], learning_rate)
        theirs.grad = gradient
        reference.param_groups[0]["lr"] = learning_rate
        reference.step()
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 8, 13, 16, 50])
def test_a_members_bits_do_not_depend_on_the_others(size: int) -> None:
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(5, 7, size, generator=generator)
    gradients = [torch.randn(start.shape, generator=generator) for _ in range(4)]

    def stepped(members: slice) -> torch.Tensor:
        parameter = start[members].clone()
        adam = Adam([parameter])
        for gradient in gradients:
            adam.step([gradient[members]], 0.01)
        return parameter

    whole = stepped(slice(0, 5))
    for member in range(5):
        assert torch.equal(stepped(slice(member, member + 1))[0], whole[member])


def test_it_goes_on_from_a_state() -> None:
    gradient = torch.tensor([[1.0, -2.0]])
    whole, part = torch.zeros(1, 2), torch.zeros(1, 2)
    one, first = Adam([whole]), Adam([part])
    for _ in range(3):
        one.step([gradient], 0.1)
    first.step([gradient], 0.1)
    second = Adam([part])
    second.load(first.state(), 1)
    for _ in range(2):
        second.step([gradient], 0.1)
    assert torch.equal(whole, part)


def test_a_state_of_another_shape_is_refused() -> None:
    state = Adam([torch.zeros(1, 2)]).state()
    with pytest.raises(RuntimeError, match=r"0.exp_avg: expected shape \[1, 3\], got \[1, 2\]"):
        Adam([torch.zeros(1, 3)]).load(state, 1)
