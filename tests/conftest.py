import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import install_import_hook
from misbehaving_server import Server, server

# Before anything imports stages.core: from here on each call is checked against its annotations, shapes included.
install_import_hook("stages.core", "annotation_check.checked")

# A shell without job control starts what runs in its background with Ctrl-C ignored, which every process that the tests
# start would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def test_audio() -> Path:
    """A folder of real recordings: speech/, noise/, pairs/ and zoo/."""
    name = os.environ.get("DENOISE_TEST_AUDIO")
    if not name:
        pytest.skip("DENOISE_TEST_AUDIO does not name a folder of real recordings")
    folder = Path(name)
    if not folder.is_dir():
        pytest.skip(f"DENOISE_TEST_AUDIO: {folder} is not a folder")
    return folder


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server on 127.0.0.1."""
    monkeypatch.delenv("DENOISE_ARCHIVES", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with server() as running:
        yield running
