"""When Python looks for garbage in cycles: rarely while libraries are imported, whose many objects all stay."""

import gc

USUAL = gc.get_threshold()
# Of new objects between two looks. Importing torch makes some hundred thousand that stay.
WHILE_IMPORTING = 500_000


def collect_rarely() -> None:
    """For a program's start, until `collect_as_usual`: looking through all modules again and again is a fifth of it."""
    gc.set_threshold(WHILE_IMPORTING, *USUAL[1:])


def collect_as_usual() -> None:
    """Once the libraries are there; what is in memory now, modules, is not looked through again."""
    gc.freeze()
    gc.set_threshold(*USUAL)
