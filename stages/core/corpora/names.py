"""The names that corpora go by in params.yaml: those that are made here, and those that others publish."""

import difflib
from functools import partial
from typing import Annotated

from pydantic import AfterValidator

from stages.core.corpora.catalogue import PUBLISHED


def _corpus(made: tuple[str, ...], roles: tuple[str, ...], value: str) -> str:
    """The name of a corpus that is made here or published for one of these roles."""
    known = [*made, *(name for name, corpus in PUBLISHED.items() if corpus.role in roles)]
    if value in known:
        return value
    near = difflib.get_close_matches(value, known, n=1)
    expected = " or ".join([*(f"'{name}'" for name in made), "a published corpus"])
    raise ValueError(
        f"expected {expected} ('python -m stages.download --list' shows them), found '{value}'"
        + (f"; did you mean '{near[0]}'?" if near else "")
    )


def _speech_corpus(value: str) -> str:
    # The clean side of pairs is speech like any other, but a test set is not to be trained on.
    if value.endswith("-test") and value in PUBLISHED and PUBLISHED[value].role == "pairs":
        raise ValueError(f"{value} is a test set of pairs and no speech to mix; name it in evaluate.pairs")
    return _corpus(("espeak", "folder"), ("speech", "pairs"), value)


SpeechName = Annotated[str, AfterValidator(_speech_corpus)]
NoiseName = Annotated[str, AfterValidator(partial(_corpus, ("generated", "folder"), ("noise",)))]
RoomsName = Annotated[str, AfterValidator(partial(_corpus, (), ("rooms",)))]
