"""Who may use a bank's folder at the same time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from paredown.compressors.bank.contents import Count, clean, holdings
from paredown.compressors.bank.folder import bank_alone, bank_in_use
from paredown.space.errors import OutputError, StudyError

USER = """
import sys
from pathlib import Path
from paredown.compressors.bank.folder import bank_in_use
from paredown.space.system.temporary import temporary_folder
with bank_in_use(Path(sys.argv[1])) as bank, temporary_folder(bank) as folder:
    (folder / "inputs").write_text("large")
    print(folder, flush=True)
    sys.stdin.read()
"""


def filled(bank: Path) -> Path:
    """A bank with statistics that no study needs."""
    (bank / "statistics" / ("a" * 64)).mkdir(parents=True)
    (bank / "statistics" / ("a" * 64) / "index.json").write_text("{}")
    return bank


def test_nobody_cleans_what_a_search_uses(tmp_path: Path) -> None:
    """In whatever process it runs.

    When it is killed, what it was writing goes at once, with the next search or clean-up.
    """
    bank = filled(tmp_path / "bank")
    users = [
        subprocess.Popen([sys.executable, "-c", USER, bank], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    left = [Path(user.stdout.readline().strip()) for user in users if user.stdout]
    for user in users:  # two at a time are fine, and one is enough to refuse
        assert (
            clean(bank).bytes == holdings(bank).unfinished.bytes == sum(not folder.parent.is_dir() for folder in left)
        )
        with pytest.raises(
            StudyError, match=f"a search or an apply uses the bank {bank}; wait for it or stop it, then clean"
        ):
            clean(bank, dry_run=False)
        with bank_in_use(bank):
            assert left[-1].is_dir()
        user.kill()
        user.communicate()
        if user is users[0]:
            with bank_in_use(bank):
                assert not left[0].exists()
    assert holdings(bank).unfinished == clean(bank).unfinished == Count(records=1, bytes=5)
    assert clean(bank, dry_run=False).unfinished == Count(records=1, bytes=5)
    assert not left[1].exists()
    assert (bank / "statistics" / ("a" * 64) / "index.json").is_file()


def test_nobody_uses_what_is_cleaned(tmp_path: Path) -> None:
    bank = filled(tmp_path / "bank")
    with (
        bank_alone(bank),
        pytest.raises(
            StudyError, match=f"the bank {bank} is being cleaned; run the same command again when that is done"
        ),
        bank_in_use(bank),
    ):
        pass
    with bank_in_use(bank) as folder:
        assert folder == bank


def test_a_temporary_bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is gone afterwards, with those that killed processes left."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "paredown-bank.unfinished-left").mkdir()
    with bank_in_use(None) as folder:
        assert list(tmp_path.iterdir()) == [folder]
    assert not any(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"), bank_in_use(tmp_path / "file"):
        pass
