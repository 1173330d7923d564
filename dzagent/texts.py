"""The rendered texts between two passes: the old ones, what they mean, and their place on disk."""

from __future__ import annotations

from dataclasses import replace

from dzagent.desired import DesiredStore
from dzagent.doubt import textless
from dzagent.errors import InputError, StateError
from dzagent.model import Desired, Problem, ServiceName
from dzagent.ownership import Ownership
from dzagent.render import parse_texts
from dzagent.wishes import Text, Texts, Wishes


class RenderedTexts:
    """Used once a pass, in this order: `old`, `parse`, `write`; then `problem` says what went wrong, None if nothing."""

    def __init__(self, store: DesiredStore, owner: Ownership) -> None:
        self._store = store
        self._owner = owner
        self._texts: Texts | None = None
        self._old: Texts = {}
        self._parsed: tuple[Texts, Desired] = ({}, Desired())
        self._unreadable: str | None = None
        self.problem: str | None = None

    def old(self) -> Texts:
        """Return the texts that are rendered now: from memory, at first from disk."""
        self.problem = self._unreadable = None
        if self._texts is None:
            try:
                self._texts = self._store.read()
            except StateError as error:
                self._unreadable = str(error)
        self._old = self._texts or {}
        return self._old

    def parse(self, wishes: Wishes) -> tuple[Desired, Wishes]:
        """Parse the wished text; a service whose text is not in the grammar keeps its old text."""
        if wishes.texts == self._parsed[0]:
            return self._parsed[1], wishes
        texts: dict[ServiceName, Text] = {}
        trouble: list[Problem] = []
        for name, text in wishes.texts.items():
            problem = self._outside_grammar(name, text)
            if problem is None:
                texts[name] = text
                continue
            trouble.append(problem)
            if name in self._old and self._outside_grammar(name, self._old[name]) is None:
                texts[name] = self._old[name]
        kept = {**wishes.kept, **{p.service: p for p in trouble if p.service}}
        self._parsed = (texts, parse_texts(texts, self._owner))
        self.problem = trouble[0].message if trouble else None
        return self._parsed[1], replace(wishes, texts=texts, kept=kept, problems=(*wishes.problems, *trouble))

    def _outside_grammar(self, name: ServiceName, text: Text) -> Problem | None:
        try:
            parse_texts({name: text}, self._owner)
        except InputError as error:
            return Problem("OutsideGrammar", str(error), name)
        return None

    def write(self, wishes: Wishes) -> int:
        """Write a new generation if the text changed; return the number of the current one.

        A full disk is a problem, and repairs go on from memory. What is not understood is not lost: files that cannot
        be read are not replaced while a service is kept for what they may say, and a text outside the grammar stays
        where a person can see it.
        """
        doubtful = textless(wishes)
        if self._unreadable is not None and doubtful:
            self.problem = self.problem or self._unreadable
            return self._store.generation
        self._texts = {**{name: self._old[name] for name in doubtful if name in self._old}, **wishes.texts}
        try:
            return self._store.write(self._texts)
        except StateError as error:
            self.problem = self.problem or str(error)
            return self._store.generation
