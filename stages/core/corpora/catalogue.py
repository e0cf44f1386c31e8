"""The corpora that others publish, by name."""

from collections.abc import Sequence

from stages.core.corpora import catalogue_demand, catalogue_librispeech, catalogue_others, catalogue_voicebank
from stages.core.corpora.entries import Archive, PublishedCorpus, size_text

__all__ = ["PUBLISHED", "Archive", "PublishedCorpus", "table"]

_MODULES = (catalogue_librispeech, catalogue_demand, catalogue_others, catalogue_voicebank)
PUBLISHED: dict[str, PublishedCorpus] = {corpus.name: corpus for module in _MODULES for corpus in module.CORPORA}


def table() -> str:
    """The catalogue for people: name, role, size, licence and title of each corpus, one a line."""
    head = ("name", "role", "size", "licence", "title")
    rows = [head, *(_row(corpus) for corpus in PUBLISHED.values())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _row(corpus: PublishedCorpus) -> tuple[str, str, str, str, str]:
    return corpus.name, corpus.role, _size(corpus.archives), corpus.licence, corpus.title


def _size(archives: Sequence[Archive]) -> str:
    known = [archive.size for archive in archives if archive.size is not None]
    if not known:
        return "not published"
    text = size_text(sum(known))
    if len(known) < len(archives):
        text += f" and {len(archives) - len(known)} unknown"
    return f"parts of {text}" if any(archive.members for archive in archives) else text
