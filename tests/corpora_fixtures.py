"""A server with archives in official layouts, and entries for them in the catalogue."""

from collections.abc import Callable, Mapping

import pytest
from misbehaving_server import Server
from official_layouts import archive, entry, packed

from stages.core.corpora.catalogue import PUBLISHED
from stages.core.corpora.entries import PublishedCorpus, Role

Publish = Callable[..., PublishedCorpus]


@pytest.fixture
def publish(web: Server, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Serves archives, given by name as members or as bytes, and enters them in the catalogue as a corpus."""

    def published(
        name: str, role: Role, layout: str, archives: Mapping[str, Mapping[str, bytes] | bytes], members: str | None = None
    ) -> PublishedCorpus:
        bodies = {key: value if isinstance(value, bytes) else packed(key, value) for key, value in archives.items()}
        found = tuple(archive(key, body, web.serve(key, body), members) for key, body in bodies.items())
        corpus = entry(name, role, layout, found)
        monkeypatch.setitem(PUBLISHED, name, corpus)
        return corpus

    return published
