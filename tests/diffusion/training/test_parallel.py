"""How a batch is shared between processes, worked out in one; that the processes agree is tested with real ones."""

from __future__ import annotations

import pytest
import torch

from dbcli.diffusion.training.losses import share_of_dreambooth_loss
from dbcli.diffusion.training.parallel import retold, told
from dbcli.diffusion.training.shares import Share
from dbcli.errors import DiskFull, Interrupted


def shares(size: int) -> list[Share]:
    return [Share(rank, size) for rank in range(size)]


@pytest.mark.parametrize(("size", "rows"), [(2, 2), (2, 5), (3, 2), (4, 1), (5, 3)])
def test_every_row_is_taken_once(size: int, rows: int) -> None:
    for micro_step in range(7):
        taken = [row for one in shares(size) for row in one.share(micro_step, rows)]
        assert sorted(taken) == list(range(rows))


def test_two_micro_batches_of_two_rows_keep_four_processes_busy() -> None:
    assert [[len(one.share(step, 2)) for step in (0, 1)] for one in shares(4)] == [[1, 0], [1, 0], [0, 1], [0, 1]]


def test_shares_of_a_loss_sum_to_the_means_of_the_whole_batch() -> None:
    # Subject errors 1 and 3, class error 4 with weight 2, prior weight 0.5: (1 + 3) / 2 + 0.5 * 8 / 1
    of = {"of_subject_rows": 2, "of_prior_rows": 1, "prior_weight": 0.5}
    parts = [
        share_of_dreambooth_loss(torch.tensor([1.0, 4.0]), torch.tensor([1.0, 2.0]), subject_rows=1, **of),
        share_of_dreambooth_loss(torch.tensor([3.0]), torch.tensor([1.0]), subject_rows=1, **of),
        share_of_dreambooth_loss(torch.zeros(0), torch.zeros(0), subject_rows=0, **of),
    ]
    assert sum(float(one.total) for one in parts) == 6.0
    assert sum(float(one.subject) for one in parts) == 2.0
    assert sum(float(one.prior) for one in parts if one.prior is not None) == 8.0


def test_without_class_rows_a_share_has_no_prior_term() -> None:
    share = share_of_dreambooth_loss(
        torch.tensor([3.0]), torch.tensor([1.0]), subject_rows=1, of_subject_rows=2, of_prior_rows=0, prior_weight=1.0
    )
    assert float(share.total) == 1.5
    assert share.prior is None


def test_dropout_of_a_share_is_that_of_its_rows_in_the_whole_batch() -> None:
    layer, values = torch.nn.Dropout(0.4), torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(11)
    whole = layer(values)
    for company in shares(2):
        network = torch.nn.Sequential(torch.nn.Dropout(0.4))
        company.share_dropout(network)
        places = company.share(0, 5)
        torch.manual_seed(11)
        assert torch.equal(network(values[places]), whole[places])
        assert torch.equal(network.eval()(values[places]), values[places])


def test_a_fault_of_another_process_is_of_its_kind() -> None:
    full = retold(told(DiskFull("The disk is full.", hint="free some")), 2)
    assert isinstance(full, DiskFull)
    assert (full.message, full.hint, full.exit_code) == ("The disk is full. (in process 2)", "free some", 5)
    stopped = retold(told(Interrupted("Stopped.", exit_code=143)), 1)
    assert isinstance(stopped, Interrupted)
    assert stopped.exit_code == 143
    assert isinstance(retold(told(torch.OutOfMemoryError("CUDA out of memory")), 1), MemoryError)
    bug = retold(told(ValueError("odd")), 3)
    assert str(bug) == "ValueError: odd (in process 3)"
    assert "ValueError: odd" in bug.__notes__[0]
