import hashlib

import pytest

from athena.durable import finish, sha256_of, write_file


def test_a_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path):
    file = tmp_path / "folder" / "file"
    for content in (b"first", b"second"):
        write_file(file, content)
        assert file.read_bytes() == content and [file] == list(file.parent.iterdir())
        assert sha256_of(file) == hashlib.sha256(content).hexdigest()


def test_a_folder_takes_no_name_that_another_one_fills(tmp_path):
    whole, part = tmp_path / "whole", tmp_path / ".part"
    for folder in (whole, part):
        write_file(folder / "file", folder.name.encode())
    with pytest.raises(OSError, match="not empty"):
        finish(part, whole)
    finish(part, tmp_path / "other")
    assert (tmp_path / "other" / "file").read_bytes() == b".part" and (whole / "file").read_bytes() == b"whole"
