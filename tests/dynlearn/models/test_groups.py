import torch

from dynlearn.models.groups import MemberGroups


def test_rows_stand_by_their_member_in_their_order_with_zeros_beside() -> None:
    groups = MemberGroups(torch.tensor([2, 0, 2, 2, 0]), 4)
    rows = torch.tensor([[1], [2], [3], [4], [5]])
    found = groups.gather(rows)
    assert found[..., 0].tolist() == [[2, 5, 0], [0, 0, 0], [1, 3, 4], [0, 0, 0]]
    assert torch.equal(groups.scatter(found), rows)


def test_no_rows() -> None:
    groups = MemberGroups(torch.zeros(0, dtype=torch.int64), 2)
    found = groups.gather(torch.zeros(0, 3))
    assert found.shape == (2, 0, 3)
    assert groups.scatter(found).shape == (0, 3)
