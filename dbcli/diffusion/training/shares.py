"""The rows of a batch that one of several processes takes, and what becomes of its loss and its dropout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from dbcli.diffusion.conditioning import PromptTable
from dbcli.diffusion.training.losses import LossParts, dreambooth_loss, share_of_dreambooth_loss


class Alone:
    """One process: it takes every row, and its gradients are the batch's."""

    rank, size = 0, 1

    def share(self, micro_step: int, rows: int) -> list[int]:
        """The places of a micro-batch of `rows` rows that this process takes, rising."""
        return list(range(rows))

    def conditioning(self, prompts: PromptTable, indices: Sequence[int], places: Sequence[int]) -> torch.Tensor:
        """`[len(places), L, D]` for the rows at `places` of a micro-batch whose prompts are `indices`."""
        return prompts.rows([indices[place] for place in places])

    def loss(
        self,
        errors: torch.Tensor,
        weights: torch.Tensor,
        own_subject_rows: int,
        rows: tuple[int, int],
        prior_weight: float,
    ) -> LossParts:
        """This process's part of a micro-batch's loss.

        errors and weights are `[B]` of its own rows, subject rows first; `rows` counts the whole batch's subject and
        class rows.
        """
        return dreambooth_loss(errors, weights, own_subject_rows, prior_weight)

    def share_dropout(self, network: torch.nn.Module) -> None:
        """Makes dropout in a network that of the whole batch."""

    @contextmanager
    def step(self, rate_scale: float, parameters: Sequence[torch.nn.Parameter]) -> Iterator[None]:
        """The block makes this process's gradients; after it they are those of the whole batch."""
        yield

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """An error in the block of any process is raised in all of them."""
        yield

    def summed(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over all processes."""
        return list(values)


class Share(Alone):
    """What process `rank` of `size` takes; how they meet is its heir's matter (parallel.py)."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._places: list[int] = []
        self._rows = 0
        self._has_dropout = False

    def share(self, micro_step: int, rows: int) -> list[int]:
        # Dealt on from one micro-batch to the next, so that batches of two rows keep four processes busy.
        first = micro_step * rows
        self._places = [row for row in range(rows) if (first + row) % self.size == self.rank]
        self._rows = rows
        return self._places

    def conditioning(self, prompts: PromptTable, indices: Sequence[int], places: Sequence[int]) -> torch.Tensor:
        if not self._has_dropout:
            return super().conditioning(prompts, indices, places)
        # Dropout in a text encoder that learns draws for the prompts of the whole batch.
        return prompts.rows(indices)[list(places)]

    def loss(
        self,
        errors: torch.Tensor,
        weights: torch.Tensor,
        own_subject_rows: int,
        rows: tuple[int, int],
        prior_weight: float,
    ) -> LossParts:
        return share_of_dreambooth_loss(
            errors,
            weights,
            subject_rows=own_subject_rows,
            of_subject_rows=rows[0],
            of_prior_rows=rows[1],
            prior_weight=prior_weight,
        )

    def share_dropout(self, network: torch.nn.Module) -> None:
        for module in network.modules():
            if isinstance(module, torch.nn.Dropout) and module.p > 0:
                module.forward = self._dropout(module)  # type: ignore[method-assign]
                self._has_dropout = True

    def _dropout(self, module: torch.nn.Dropout) -> Any:
        def forward(values: torch.Tensor) -> torch.Tensor:
            if not module.training or len(values) != len(self._places):
                return torch.nn.functional.dropout(values, module.p, module.training)
            # What one process would have drawn for all rows; of it, the rows that are here.
            whole = torch.ones(self._rows, *values.shape[1:], dtype=values.dtype, device=values.device)
            return values * torch.nn.functional.dropout(whole, module.p)[self._places]

        return forward
