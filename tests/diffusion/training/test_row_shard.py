"""How a batch is shared between processes, worked out in one; that the processes agree is tested with real ones."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from dbcli.diffusion.families.conditioning import Conditioning
from dbcli.diffusion.training.row_shard import RowShard


def shards(size: int) -> list[RowShard]:
    return [RowShard(rank, size) for rank in range(size)]


@pytest.mark.parametrize(("size", "rows"), [(1, 3), (2, 2), (2, 5), (3, 2), (4, 1), (5, 3)])
def test_every_row_is_taken_once(size: int, rows: int) -> None:
    for micro_step in range(7):
        taken = [row for one in shards(size) for row in one.take(micro_step, rows)]
        assert sorted(taken) == list(range(rows))


def test_two_micro_batches_of_two_rows_keep_four_processes_busy() -> None:
    assert [[len(one.take(step, 2)) for step in (0, 1)] for one in shards(4)] == [[1, 0], [1, 0], [0, 1], [0, 1]]


class Prompts:
    """A table that notes which rows it is asked for."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def rows(self, indices: Sequence[int]) -> Conditioning:
        self.asked.append(list(indices))
        return Conditioning(torch.tensor(indices, dtype=torch.float32).view(-1, 1, 1))


@pytest.mark.parametrize("in_prompts", [False, True])
def test_where_a_text_encoder_drops_it_reads_the_prompts_of_the_whole_batch(in_prompts: bool) -> None:
    shard, prompts = RowShard(1, 2), Prompts()
    shard.share_dropout(torch.nn.Sequential(torch.nn.Linear(2, 2)), in_prompts=in_prompts)
    shard.take(0, 4)
    found = shard.conditioning(prompts, [7, 8, 9, 6])
    assert found.states.flatten().tolist() == [8.0, 6.0]
    assert prompts.asked == [[7, 8, 9, 6] if in_prompts else [8, 6]]


def test_dropout_of_a_shard_is_that_of_its_rows_in_the_whole_batch() -> None:
    layer, values = torch.nn.Dropout(0.4), torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(11)
    whole = layer(values)
    for shard in shards(2):
        network = torch.nn.Sequential(torch.nn.Dropout(0.4))
        shard.share_dropout(network)
        rows = shard.take(0, 5)
        torch.manual_seed(11)
        assert torch.equal(network(values[rows]), whole[rows])
        assert torch.equal(network.eval()(values[rows]), values[rows])
