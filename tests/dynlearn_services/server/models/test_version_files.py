import os
from pathlib import Path

import pytest

from dynlearn.storage.checksums import CHECKSUMS_FILE, write_checksums
from dynlearn_services.server.models.version_files import VersionFiles


@pytest.mark.timeout(20)
def test_checksums_that_cannot_be_read_are_others(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    write_checksums(tmp_path)
    known = VersionFiles.look(tmp_path)
    assert not known.have_become_others(tmp_path)
    os.truncate(tmp_path / CHECKSUMS_FILE, 2**40)
    assert known.have_become_others(tmp_path)
    (tmp_path / CHECKSUMS_FILE).unlink()
    os.mkfifo(tmp_path / CHECKSUMS_FILE)
    assert known.have_become_others(tmp_path)
