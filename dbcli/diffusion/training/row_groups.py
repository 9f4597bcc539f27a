"""Rows of a run as micro-batches in which every image has the same size."""

from collections.abc import Callable, Sequence


class RowGroups:
    """The rows 0, 1, 2, ... of a run, in groups of `batch_size` of one size.

    A row waits until as many of its size have come, and then goes with them: rows of a size keep their order, none is
    left out or comes twice, and with one size alone group k is the k-th `batch_size` rows. Which rows a group has
    follows from the sizes of the rows up to its last one, so it is the same however often a run was interrupted.
    """

    def __init__(self, size_of: Callable[[int], int], batch_size: int, sizes: int) -> None:
        """`size_of` gives the number of a row's size, of `sizes` that there are."""
        self.batch_size, self.sizes = batch_size, sizes
        self._size_of = size_of
        self._groups: list[Sequence[int]] = []
        self._waiting: dict[int, list[int]] = {}
        self._next = 0

    @property
    def most_waiting(self) -> int:
        """How many rows wait at most while later ones go before them."""
        return (self.batch_size - 1) * (self.sizes - 1)

    def rows(self, step: int) -> Sequence[int]:
        """The rows of micro-batch `step`, rising."""
        if self.sizes == 1:
            return range(step * self.batch_size, (step + 1) * self.batch_size)
        while len(self._groups) <= step:
            waiting = self._waiting.setdefault(self._size_of(self._next), [])
            waiting.append(self._next)
            self._next += 1
            if len(waiting) == self.batch_size:
                self._groups.append(tuple(waiting))
                waiting.clear()
        return self._groups[step]
