"""The record of a subject, `subject.yaml`: its words, its photos, and the names by which runs know it."""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from dbcli.errors import UsageError
from dbcli.project.files.names import without_control_characters
from dbcli.project.files.records import Record
from dbcli.project.prompts.identifiers import Words, check_class_noun, check_identifier


class PhotoEntry(BaseModel):
    """One stored photo: `file` lies in `photos/`, `sha256` is over the file's bytes."""

    model_config = ConfigDict(extra="forbid")

    file: str = Field(pattern=r"^[0-9]{4,6}\.png$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    caption: str | None = None

    @field_validator("caption")
    @classmethod
    def _on_one_line(cls, caption: str | None) -> str | None:
        return without_control_characters(caption) or None if caption else None


class Subject(Record):
    """The contents of `subject.yaml`."""

    name: str
    class_noun: str
    identifier: str | None = None
    photos: list[PhotoEntry] = Field(default_factory=list)
    formerly: list[str] = Field(default_factory=list, description="names by which runs know it")

    @field_validator("class_noun", "identifier")
    @classmethod
    def _usable_words(cls, word: str | None, info: ValidationInfo) -> str | None:
        # The record may be edited by hand or come from a stranger: the same rules as for an option.
        if word is None:
            return None
        try:
            return check_class_noun(word) if info.field_name == "class_noun" else check_identifier(word)
        except UsageError as error:
            raise ValueError(error.message) from error

    @property
    def names(self) -> frozenset[str]:
        """Its name, and those it had before."""
        return frozenset({self.name, *self.formerly})

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Width and height of its photos, in px."""
        return [(photo.width, photo.height) for photo in self.photos]

    @property
    def words(self) -> Words:
        """The words of the subject in a prompt; without an identifier only the class noun is left."""
        return Words(self.identifier or "", self.class_noun)


def current_names(subjects: Iterable[Subject]) -> dict[str, str]:
    """Former name -> the name that a subject has now."""
    return {former: one.name for one in subjects for former in one.formerly}
