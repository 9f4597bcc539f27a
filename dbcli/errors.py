"""Every error a person can meet, and the exit code each one ends with.

    DreamboothError
    ├── UsageError            2   an option is missing or wrong
    │   └── ConfigError       2   a settings file, a profile or a --set value
    ├── DataError             3   what a person brought
    │   ├── PhotoError        3   a photo that cannot be used
    │   ├── SubjectError      3   a subject's folder or record
    │   └── PromptError       3   a prompt or a file of prompts
    ├── MissingError          4   a model, a run or a file is not there
    │   ├── BaseMissing       4   a base model
    │   ├── JudgeMissing      4   an encoder that scores
    │   ├── RunMissing        4   a run or its weights
    │   └── Unreachable       4   the hub, or --offline forbids it
    ├── MachineError          5   the machine could not
    │   ├── OutOfMemory       5
    │   ├── DiskFull          5
    │   └── ImageNotFinite    5   weights or precision lead to NaN or infinity
    ├── Refused               6   could be done, must not be
    │   ├── UnsafeFile        6
    │   ├── UnsupportedFile   6   a model or LoRA file of another kind or for another family
    │   ├── Collision         6   an identifier that belongs to another subject
    │   └── LockHeld          6
    ├── TrainingDiverged      5   a loss that is not a finite number
    └── Interrupted     130/143   a signal; a checkpoint was written

Exit code 1 is kept for faults of the program itself, which are not DreamboothErrors.
"""


class DreamboothError(Exception):
    """An error with a sentence for a person, the next thing to type, and an exit code.

    `meant` is a name that was given and the one that was most likely meant: the command line with the second in place
    of the first becomes the hint.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        exit_code: int | None = None,
        *,
        meant: tuple[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.meant = meant
        if exit_code is not None:
            self.exit_code = exit_code


class UsageError(DreamboothError):
    exit_code = 2


class ConfigError(UsageError):
    pass


class DataError(DreamboothError):
    exit_code = 3


class PhotoError(DataError):
    pass


class SubjectError(DataError):
    pass


class PromptError(DataError):
    pass


class MissingError(DreamboothError):
    exit_code = 4


class BaseMissing(MissingError):
    pass


class JudgeMissing(MissingError):
    pass


class RunMissing(MissingError):
    pass


class Unreachable(MissingError):
    pass


class MachineError(DreamboothError):
    exit_code = 5


class OutOfMemory(MachineError):
    pass


class DiskFull(MachineError):
    pass


class TrainingDiverged(MachineError):
    pass


class ImageNotFinite(MachineError):
    pass


class Refused(DreamboothError):
    exit_code = 6


class UnsafeFile(Refused):
    pass


class UnsupportedFile(Refused):
    pass


class OtherBase(UnsupportedFile):
    """A sound file that was made on another base than the project's."""


class Collision(Refused):
    pass


class LockHeld(Refused):
    pass


class Interrupted(DreamboothError):
    """A signal ended the work at a safe point; `exit_code` is 128 + the signal's number."""

    exit_code = 130
