"""A file is there whole or not at all, and a harmed one is named."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from distdqn.errors import CheckpointError
from distdqn.files.durable import left_over, listing, read_file, sync_folder, write_file


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data in (b"first", b"", b"the second"):
        write_file(path, data)
        sync_folder(tmp_path)
        assert listing(data) == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        assert read_file(path, listing(data)) == data
    assert list(tmp_path.iterdir()) == [path]


def test_a_broken_off_write_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "file"
    write_file(path, b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_content_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch) -> None:
    events: list[str] = []

    def noted(name: str, real) -> None:
        def call(*arguments):
            events.append(name)
            return real(*arguments)

        monkeypatch.setattr(os, name, call)

    noted("fsync", os.fsync)
    noted("rename", os.rename)
    write_file(tmp_path / "file", b"data")
    sync_folder(tmp_path)
    assert events == ["fsync", "rename", "fsync"]


def test_a_killed_writer_leaves_what_can_be_found(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "rename", lambda *_: None)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    write_file(tmp_path / "file", b"data")
    (tmp_path / ".hidden").write_text("of somebody else")
    (found,) = left_over(tmp_path)
    assert found.name.startswith(".file.partial-")


def test_a_harmed_file_is_named(tmp_path: Path) -> None:
    path, listed = tmp_path / "file", listing(b"content")
    for data, what in ((b"conte", "truncated: 7 bytes were written, 5"), (b"cOntent", "altered")):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=f"{path} is {what}"):
            read_file(path, listed)
    path.unlink()
    with pytest.raises(CheckpointError, match=f"{path} is missing"):
        read_file(path, listed)
    path.mkdir()
    with pytest.raises(CheckpointError, match=f"{path} cannot be read: Is a directory"):
        read_file(path, listed)
