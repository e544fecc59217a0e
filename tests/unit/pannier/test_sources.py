"""Finding files and reading them in parts."""

import os
from pathlib import Path

import pytest

from pannier.commands.sources import PART_BYTES, SameIdTwice, find_files, read_parts


def ids(*paths: Path) -> list[str]:
    return [each.document_id for each in find_files(paths)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.md", "a.TXT", "deep/er/c.py", "photo.png", ".hidden.md", ".git/d.md"):
        path = tmp_path / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "docs"


def test_documents_below_a_folder_are_named_by_their_path_in_it(folder: Path):
    assert ids(folder) == ["a.TXT", "b.md", "deep/er/c.py"]


def test_a_file_that_is_named_is_taken_whatever_its_suffix(folder: Path):
    assert ids(folder / "photo.png") == ["photo.png"]


def test_a_file_named_twice_is_one_document(folder: Path):
    assert ids(folder, folder, folder / "b.md") == ["a.TXT", "b.md", "deep/er/c.py"]


def test_links_to_folders_are_not_followed(folder: Path):
    (folder / "deep" / "loop").symlink_to(folder)
    assert ids(folder) == ["a.TXT", "b.md", "deep/er/c.py"]


def test_two_files_with_one_id_are_refused(folder: Path, tmp_path: Path):
    other = tmp_path / "other" / "b.md"
    other.parent.mkdir()
    other.write_text("other")
    with pytest.raises(SameIdTwice, match=r"would both be stored as b\.md"):
        find_files([folder, other.parent])


def test_a_path_that_does_not_exist_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        find_files([tmp_path / "nothing"])


@pytest.mark.parametrize(
    ("size", "parts"),
    [
        (0, [0]),
        (1, [1]),
        (PART_BYTES, [PART_BYTES]),
        (PART_BYTES + 1, [PART_BYTES, 1]),
        (2 * PART_BYTES, [PART_BYTES, PART_BYTES]),
    ],
)
def test_a_file_is_read_in_parts_and_only_the_last_is_marked(
    tmp_path: Path, size: int, parts: list[int]
):
    path = tmp_path / "file"
    content = bytes(index % 251 for index in range(size))
    path.write_bytes(content)
    read = list(read_parts(path))
    assert [len(data) for data, _ in read] == parts
    assert [last for _, last in read] == [False] * (len(parts) - 1) + [True]
    assert b"".join(data for data, _ in read) == content


def test_a_name_that_is_no_text_can_be_sent_all_the_same(tmp_path: Path):
    (tmp_path / "docs").mkdir()
    path = os.fsdecode(os.fsencode(tmp_path / "docs") + b"/caf\xe9.md")
    Path(path).write_text("text")
    [source] = find_files([tmp_path / "docs"])
    assert source.document_id == "caf\\xe9.md"
    assert source.path.read_text() == "text"
