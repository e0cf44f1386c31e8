"""Files that appear whole or not at all, and what is said where they cannot."""

import errno
import os
from pathlib import Path

import pytest

from stages.core.files import PARTIAL, WriteError, write_text, written


def test_a_file_appears_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "first")

    def broken() -> None:
        with written(path) as temporary:
            temporary.write_text("sec", encoding="utf-8")
            assert temporary.suffix == ".txt"
            raise ValueError("in the midst")

    with pytest.raises(ValueError, match="in the midst"):
        broken()
    assert path.read_text(encoding="utf-8") == "first"
    assert os.listdir(path.parent) == ["a.txt"]


def test_what_looks_like_a_long_suffix_makes_no_name_too_long(tmp_path: Path) -> None:
    path = tmp_path / f"a.{'x' * 240}"
    write_text(path, "whole")
    assert path.read_text(encoding="utf-8") == "whole"


def test_a_place_that_cannot_be_written_is_named_and_not_the_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, *_: object) -> int:
        assert Path(path).name.startswith(PARTIAL)
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(WriteError, match=r"a\.txt cannot be written \(Read-only file system\): name another place\.$"):
        write_text(tmp_path / "a.txt", "whole")
