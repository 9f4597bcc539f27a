"""Whatever is typed, and in whatever order: no two subjects of a project come to share a token.

A machine of Hypothesis types subjects, words, names and runs at random through the real workflows and holds what lies
on disk against a memory of its own, which cuts words into tokens with the tokenizer of another library. Training ends
before its first step, as after Ctrl-C, and a finished run gets the weights of one that was really trained: what is
looked for is decided before, and after.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dbcli.errors import Collision, DreamboothError, Interrupted, SubjectError
from dbcli.project.files.layout import Layout
from dbcli.project.runs.run_store import RunRecord, list_runs, load_run, save_run
from dbcli.project.subjects.subject_store import list_subjects, load_subject
from dbcli.workflows.generation.lora_mix import RunSelection, compose
from dbcli.workflows.progress import Silence
from dbcli.workflows.runs.manage import remove as remove_run
from dbcli.workflows.setup.open import init_project
from dbcli.workflows.sharing.import_lora import import_lora
from dbcli.workflows.sharing.imported_runs import ImportRequest
from dbcli.workflows.subjects.manage import add_subject
from dbcli.workflows.subjects.manage import remove as remove_subject
from dbcli.workflows.subjects.manage import rename as rename_subject
from dbcli.workflows.training.plan import plan_training
from dbcli.workflows.training.request import TrainRequest
from dbcli.workflows.training.resuming import plan_resume
from dbcli.workflows.training.run import train_run
from tests.cli.made_projects import command, trained_project
from tests.diffusion import tiny_models
from tests.project import photo_makers

MEMORY = Path("/dev/shm")
# On the trained base of XL's kind a short search: its words, encoders and LoRAs are two.
EXAMPLES, STEPS = {"small": 80, "tiny-xl": 12}, 40
# How often each thing has to be done; and it has to be refused too.
LEAST = 5
PIECES = ["sks", "zwx", "xqz", "q", "k", "1", "5", "-", "'", "dog", "犬", "é", "\u0301", "🐶", "\u200b", "\u200d", "S"]
WORDS = [
    *(
        "sks",
        "SKS",
        "sks1",
        "sksa",
        "asks",
        "zwx",
        "zwx1",
        "Zwx",
        "ohwx",
        "ohwx-zwx",
        "xqz",
        "xqz1",
        "q1",
        "k1",
        "42",
        "5",
    ),
    *("dog", "Dog", "dogs", "hot-dog", "cat", "lamp", "photo", "mountain", "red-house", "a", "ktn", "kpn"),
    *("犬", "犬犬", "猫", "собака", "кот", "ñandú", "ézq", "e\u0301zq", "ſks", "ＳＫＳ", "İsk", "ß"),
    *("🐶", "a🐶", "🐶sks", "👩\u200d🚀", "!!!", "{dog}", "<|endoftext|>", "sks<|endoftext|>", "<|ENDOFTEXT|>"),
    *("", "  ", " sks ", "two words", "x" * 40, "abcdefghij" * 4, "q" * 64, "q" * 65, "sks\u200b", "\ud800"),
]
NAMES = ["dog", "cat", "rex", "tom"]
NOUNS = ["dog", "cat", "hot dog", "toy robot", "sks", "zwx lamp", "犬", "class 1"]

GOOD = ["sks", "zwx", "ohwx", "ktn", "kpn", "vbf"]
words = st.one_of(
    st.sampled_from(GOOD),
    st.sampled_from(WORDS),
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map("".join),
    st.text(max_size=5),
)
names, nouns = st.sampled_from(NAMES), st.sampled_from(NOUNS)
allowed = st.sampled_from([False, False, False, True])


@cache
def tokenizer() -> Any:
    return tiny_models.tokenizer()


@cache
def ids(word: str) -> frozenset[int]:
    """The numbers of a word's tokens as transformers cuts it."""
    return frozenset(tokenizer()(word).input_ids[1:-1])


class StopsAtOnce(Silence):
    """Ctrl-C before the base is loaded: the run is on record by then."""

    def stage(self, title: str, total: int, parts: int = 1) -> Any:
        raise Interrupted("Stopped.")


class Identifiers(RuleBasedStateMachine):
    """What a person may do to subjects and runs, and who holds which word after it."""

    base: ClassVar[Path]
    photo: ClassVar[Path]
    trained: ClassVar[Path]
    lora_file: ClassVar[Path]
    steps: ClassVar[int] = 0
    done: ClassVar[dict[str, int]] = {}

    @initialize()
    def init(self) -> None:
        # In memory where there is such a place: thousands of records are written, and each waits for the disk.
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None, prefix="identifiers"))
        self.imported = 0
        init_project(self.folder / "p", str(self.base), None, offline=True)
        self.layout = Layout((self.folder / "p").resolve())
        # A thing is a number: names change, things do not. Claims are (thing, word, class noun).
        self.things: dict[str, int] = {}
        self.words: dict[str, str | None] = {}
        self.nouns: dict[str, str] = {}
        self.runs: dict[str, dict[str, tuple[int, str, str]]] = {}
        self.finished: set[str] = set()
        self.excused: set[tuple[int, str]] = set()
        self.excused_nouns: set[str] = set()
        self.count = 0

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    # what is done

    @rule(name=names, noun=nouns, word=st.none() | words, allow=allowed)
    def add(self, name: str, noun: str, word: str | None, allow: bool) -> None:
        with self.tried("add") as accepted:
            add_subject(self.layout, name, noun, [self.photo], word, allow_collision=allow)
            accepted()
        if self.accepted:
            self.things[name] = self.remembered(name)
            self.words[name], self.nouns[name] = (word.strip() if word is not None else None), noun
            self.excuse(name, allow)

    @rule(data=st.data(), new=names)
    @precondition(lambda self: self.things)
    def rename(self, data: st.DataObject, new: str) -> None:
        old = data.draw(st.sampled_from(self.known()))
        before = self.called(old)
        with self.tried("rename") as accepted:
            renamed = rename_subject(self.layout, old, new)
            accepted()
        if self.accepted:
            assert renamed.name == new
            for table in (self.things, self.words, self.nouns):
                table[new] = table.pop(before)  # type: ignore[attr-defined]

    @rule(data=st.data())
    @precondition(lambda self: self.things)
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.known()))
        before = self.called(name)
        with self.tried("remove") as accepted:
            remove_subject(self.layout, name)
            accepted()
        if self.accepted:
            for table in (self.things, self.words, self.nouns):
                table.pop(before)  # type: ignore[attr-defined]

    @rule(data=st.data(), word=st.none() | words, allow=allowed, finish=st.booleans())
    @precondition(lambda self: self.things)
    def train(self, data: st.DataObject, word: str | None, allow: bool, finish: bool) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.known()), min_size=1, max_size=2, unique=True))
        word = word if len(chosen) == 1 else None
        self.make_run("train", chosen, word, allow, finish)

    @rule(data=st.data(), word=st.none() | words, allow=allowed, rehearse=st.booleans())
    @precondition(lambda self: self.finished and self.things)
    def go_on(self, data: st.DataObject, word: str | None, allow: bool, rehearse: bool) -> None:
        parent = data.draw(st.sampled_from(sorted(self.finished)))
        chosen = data.draw(st.lists(st.sampled_from(self.known()), max_size=1))
        sets = [] if rehearse else ["train.rehearsal_share=0"]
        self.make_run("continue", chosen, word, allow, True, parent=parent, sets=sets)

    @rule(data=st.data(), allow=allowed)
    @precondition(lambda self: self.finished and any(self.words.values()))
    def go_on_with_words_that_are_known(self, data: st.DataObject, allow: bool) -> None:
        parent = data.draw(st.sampled_from(sorted(self.finished)))
        chosen = data.draw(st.sampled_from(sorted(name for name, word in self.words.items() if word)))
        self.make_run("continue", [chosen], None, allow, True, parent=parent, sets=["train.rehearsal_share=0"])

    @rule()
    @precondition(lambda self: set(self.runs) - self.finished)
    def resume(self) -> None:
        with self.tried("resume") as accepted:
            try:
                train_run(self.layout, plan_resume(self.layout, None), StopsAtOnce(), offline=True)
            except Interrupted:
                accepted()

    @rule(token=words, noun=nouns, allow=allowed)
    @precondition(lambda self: self.imported < 3)
    def bring_a_lora(self, token: str, noun: str, allow: bool) -> None:
        self.imported += 1
        with self.tried("import") as accepted:
            record = import_lora(
                self.layout,
                ImportRequest(self.lora_file, tokens=[token], class_nouns=[noun], allow_collision=allow),
                Silence(),
                offline=True,
            )
            accepted()
        if self.accepted:
            (subject,) = record.subjects
            same = self.same_words(token.strip(), noun)
            thing = self.remembered(subject.name) if same is None else same
            self.runs[record.name] = {subject.name: (thing, token.strip(), noun)}
            self.finished.add(record.name)
            if allow:
                self.excused.add((thing, token.strip()))
                self.excused_nouns.add(noun)
            elif same is None:
                assert not self.clashes(thing, token.strip())

    @rule(data=st.data(), allow=allowed)
    @precondition(lambda self: len(self.runs) > 1)
    def compose(self, data: st.DataObject, allow: bool) -> None:
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.runs)), min_size=2, max_size=3, unique=True))
        with self.tried("compose") as accepted:
            compose(self.layout, RunSelection(chosen, allow_collision=allow))
            accepted()
        if self.accepted and not allow:
            learnt = {entry for name in chosen for entry in self.runs[name].values()}
            for one, other in combinations(sorted(learnt), 2):
                assert one[0] == other[0] or not ids(one[1]) & ids(other[1]), (one, other)

    @rule(data=st.data())
    @precondition(lambda self: self.runs)
    def remove_a_run(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.runs)))
        remove_run(self.layout, name)
        del self.runs[name]
        self.finished.discard(name)

    # what holds, whatever was done

    @invariant()
    def the_disk_says_what_was_accepted(self) -> None:
        type(self).steps += 1
        if not hasattr(self, "layout"):
            return
        assert {one.name: one.identifier for one in list_subjects(self.layout)} == self.words
        recorded = {
            run.name: {one.name: (one.identifier, one.class_noun) for one in run.subjects}
            for run in list_runs(self.layout)
        }
        assert recorded == {
            name: {subject: (word, noun) for subject, (_, word, noun) in learnt.items()}
            for name, learnt in self.runs.items()
        }

    @invariant()
    def no_two_things_share_a_token(self) -> None:
        if not hasattr(self, "layout"):
            return
        claims = self.claims()
        for one, other in combinations(sorted(claims), 2):
            if one[0] != other[0] and not {one, other} & self.excused:
                assert not ids(one[1]) & ids(other[1]), (one, other)
        for thing, word in claims - self.excused:
            for noun in set(self.all_nouns()) - self.excused_nouns:
                assert not ids(word) & ids(noun), (thing, word, noun)

    # how it is done

    def make_run(
        self,
        what: str,
        chosen: list[str],
        word: str | None,
        allow: bool,
        finish: bool,
        parent: str | None = None,
        sets: Sequence[str] = (),
    ) -> None:
        with self.tried(what) as accepted:
            tokens = [] if word is None else [word]
            request = TrainRequest(chosen, tokens, sets=sets, method="lora", start_from=parent, allow_collision=allow)
            plan = plan_training(self.layout, request)
            with pytest.raises(Interrupted):
                train_run(self.layout, plan, StopsAtOnce(), offline=True)
            accepted()
        if self.accepted:
            if word is not None and len(chosen) == 1:
                self.take_word(chosen[0], word, allow)
            self.record_run(list_runs(self.layout)[-1], parent, {self.called(name) for name in chosen}, allow)
            if finish:
                self.finish(list_runs(self.layout)[-1])

    def record_run(self, run: RunRecord, parent: str | None, current: set[str], allow: bool) -> None:
        inherited = {one[1:]: one[0] for one in self.runs[parent].values()} if parent else {}
        learnt = {}
        for subject in run.subjects:
            words = (subject.identifier or "", subject.class_noun)
            # Nothing but what was requested, and what the run gone on from knew.
            thing = self.things[subject.name] if subject.name in current else inherited[words]
            learnt[subject.name] = (thing, *words)
            # What an earlier run was allowed is passed on; what is taught now has to be allowed now.
            assert allow or subject.learnt_in is not None or not self.clashes(thing, words[0]), (thing, words)
        self.runs[run.name] = learnt
        if allow:
            self.excused |= {(thing, word) for thing, word, _ in learnt.values()}
            self.excused_nouns |= {noun for _, _, noun in learnt.values()}

    def finish(self, run: RunRecord) -> None:
        shutil.copytree(self.trained / "weights", self.layout.weights_dir(run.name))
        run.state, run.base = "finished", load_run(Layout(self.trained.parent.parent), self.trained.name).base
        save_run(self.layout, run)
        self.finished.add(run.name)

    def take_word(self, name: str, word: str, allow: bool) -> None:
        on_disk = {one.name: one.identifier for one in list_subjects(self.layout)}
        name = self.called(name)
        if name in on_disk and on_disk[name] != self.words[name]:
            assert on_disk[name] == word.strip()
            self.words[name] = on_disk[name]
            self.excuse(name, allow)

    def excuse(self, name: str, allow: bool) -> None:
        if allow and self.words[name]:
            self.excused.add((self.things[name], self.words[name] or ""))
        if allow:
            self.excused_nouns.add(self.nouns[name])

    def known(self) -> list[str]:
        """Names that somebody may type: mostly of subjects that are here, and others."""
        return [*sorted(self.things), *sorted(self.things), *NAMES]

    def called(self, name: str) -> str:
        """What a subject is called now that somebody names by its name, or by one it had before."""
        try:
            return load_subject(self.layout, name).name
        except SubjectError:
            return name

    def remembered(self, name: str) -> int:
        """The thing that runs know by this name, or a new one."""
        known = [learnt[name][0] for learnt in self.runs.values() if name in learnt]
        self.count += 1
        return known[0] if known else self.things.get(name, self.count)

    def same_words(self, word: str, noun: str) -> int | None:
        here = [self.things[name] for name in self.things if (self.words[name], self.nouns[name]) == (word, noun)]
        learnt = [one[0] for run in self.runs.values() for one in run.values() if one[1:] == (word, noun)]
        return next(iter(here + learnt), None)

    def claims(self) -> set[tuple[int, str]]:
        here = {(self.things[name], word) for name, word in self.words.items() if word}
        return here | {(thing, word) for learnt in self.runs.values() for thing, word, _ in learnt.values()}

    def all_nouns(self) -> list[str]:
        return [*self.nouns.values(), *(noun for learnt in self.runs.values() for _, _, noun in learnt.values())]

    def clashes(self, thing: int, word: str) -> list[Any]:
        others = [claim for claim in self.claims() if claim[0] != thing and ids(claim[1]) & ids(word)]
        return others + [noun for noun in self.all_nouns() if ids(noun) & ids(word)]

    def tried(self, what: str) -> Any:
        """Counts what was accepted and what was refused, and holds every refusal against what one has to be."""
        from contextlib import contextmanager

        @contextmanager
        def trial() -> Iterator[Any]:
            self.accepted = False
            try:
                yield lambda: setattr(self, "accepted", True)
            except DreamboothError as error:
                self.check_refusal(error)
            key = f"{what} {'accepted' if self.accepted else 'refused'}"
            type(self).done[key] = type(self).done.get(key, 0) + 1

        return trial()

    def check_refusal(self, error: DreamboothError) -> None:
        assert error.exit_code in (2, 3, 4, 6), error.message
        assert error.message
        assert "\n" not in error.message
        if isinstance(error, Collision):
            assert error.hint
        if isinstance(error, Collision) and "take one of " in (error.hint or ""):
            proposed = (error.hint or "").split("take one of ")[1].split(";")[0].split(", ")
            assert len(proposed) == 3
            for word in proposed:
                assert not {claim for claim in self.claims() if ids(claim[1]) & ids(word)}, word


BOTH_TEXT_ENCODERS = ("--set=train.text_encoder=true", "--set=probe.judge=off", "--set=images.scene_cutouts=0")


@pytest.fixture(scope="module", params=["small", "tiny-xl"])
def examples(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How long to search on a base: a project with one run that was really trained, its LoRA as a file, and a photo."""
    folder = tmp_path_factory.mktemp("machine")
    is_small = request.param == "small"
    more = () if is_small else BOTH_TEXT_ENCODERS
    project = trained_project(folder, "--method", "lora", *more, base=None if is_small else request.param)
    photo_makers.save(folder / "photo.png", photo_makers.plain((90, 60, 30)))
    file = project / "runs" / "0001-dog" / "weights" / "pytorch_lora_weights.safetensors"
    command("-C", project, "export", 1, "--to", "kohya", "--out", folder / "lora.safetensors", "--quiet")
    Identifiers.base, Identifiers.photo = folder / "base" if is_small else Path("tiny-xl"), folder / "photo.png"
    Identifiers.trained, Identifiers.lora_file = file.parent.parent, folder / "lora.safetensors"
    return EXAMPLES[request.param]


def test_no_sequence_of_commands_makes_two_subjects_share_a_token(examples: int) -> None:
    Identifiers.steps, Identifiers.done = 0, {}
    how = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        # What went wrong is told as it was found: making it shorter could take longer than the whole search.
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )
    run_state_machine_as_test(Identifiers, settings=how)
    print(f"[identifiers] {Identifiers.steps} steps: {sorted(Identifiers.done.items())}")
    assert Identifiers.steps >= 25 * examples
    # Each kind of thing was done, and each was refused: a machine that is always refused looks for nothing.
    for what in ("add", "rename", "remove", "train", "continue", "compose", "import"):
        assert Identifiers.done.get(f"{what} accepted", 0) >= min(LEAST, examples // 6), what
        assert Identifiers.done.get(f"{what} refused", 0) >= 1, what
