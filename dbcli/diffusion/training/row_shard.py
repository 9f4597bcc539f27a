"""The rows of a batch that one of several processes takes, and what becomes of its dropout."""

from collections.abc import Sequence
from functools import partial

import torch

from dbcli.diffusion.conditioning import PromptTable
from dbcli.diffusion.families.conditioning import Conditioning


def drops(module: torch.nn.Module) -> bool:
    """Whether a part of a network draws at random in training: dropout, or an attention of transformers with some.

    Such an attention has no layer for it, but the share as a number.
    """
    share = module.p if isinstance(module, torch.nn.Dropout) else vars(module).get("dropout", 0.0)
    return isinstance(share, int | float) and share > 0


class RowShard:
    """What rank `rank` of `size` takes of every micro-batch; all of it where there is one."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self._rows: list[int] = []
        self._of_rows, self._has_dropout = 0, False

    def take(self, micro_step: int, rows: int) -> list[int]:
        """The places of a micro-batch of `rows` rows that this rank takes, rising."""
        # Dealt on from one micro-batch to the next, so that batches of two rows keep four processes busy.
        self._rows = [row for row in range(rows) if (micro_step * rows + row) % self.size == self.rank]
        self._of_rows = rows
        return self._rows

    def conditioning(self, prompts: PromptTable, indices: Sequence[int]) -> Conditioning:
        """That of the rows taken of a micro-batch whose prompts are `indices`."""
        if self._has_dropout:  # in a text encoder that learns it draws for the prompts of the whole batch
            return prompts.rows(indices).rows(self._rows)
        return prompts.rows([indices[row] for row in self._rows])

    def share_dropout(self, network: torch.nn.Module, *, in_prompts: bool = False) -> None:
        """Makes dropout in a network that of the whole batch; there may be some in what reads prompts, too."""
        self._has_dropout = in_prompts and self.size > 1
        for module in network.modules() if self.size > 1 else ():
            if isinstance(module, torch.nn.Dropout) and module.p > 0:
                module.forward = partial(self._dropout, module)  # type: ignore[method-assign]  # of this instance alone
                self._has_dropout = True

    def _dropout(self, module: torch.nn.Dropout, values: torch.Tensor) -> torch.Tensor:
        if not module.training or len(values) != len(self._rows):
            return torch.nn.functional.dropout(values, module.p, module.training)
        # What one process would have drawn for all rows; of it, the rows that are here.
        whole = torch.ones(self._of_rows, *values.shape[1:], dtype=values.dtype, device=values.device)
        return values * torch.nn.functional.dropout(whole, module.p)[self._rows]
