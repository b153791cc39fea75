"""Output folders: the old one or the new one, whole, whatever happens while one takes the other's place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from paredown.deploy.folder import MANIFEST, check_folder, exchanged, put_back, replaced
from paredown.space.errors import OutputError

KILLED = '''
import fcntl, json, os, shutil, signal, sys
from pathlib import Path
from paredown.deploy import folder
from paredown.deploy.folder import put_back, replaced

place, exchange = Path(sys.argv[1]), sys.argv[2] == "exchange"
swap = folder.exchanged if exchange else lambda first, second: False
folder.exchanged = lambda first, second: counted("exchange", swap)(first, second)
left = None

def counted(name, call):
    def instead(*arguments, **named):
        global left
        if left is not None:
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
        return call(*arguments, **named)
    return instead

for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync", "chmod", "write", "open", "listdir"):
    setattr(os, name, counted(name, getattr(os, name)))
fcntl.flock = counted("flock", fcntl.flock)

def write(out, text):
    with replaced(out) as new:
        for name in ("plan.yaml", "weights", "metrics.json"):
            files = ["plan.yaml", "weights", "metrics.json"]
            content = json.dumps({"files": files, "text": text}) if "json" in name else text
            handle = os.open(new / name, os.O_CREAT | os.O_WRONLY)
            for part in (content[:4], content[4:]):
                os.write(handle, part.encode())
            os.close(handle)

def whole(out):
    """What a complete folder holds; None where there is none."""
    if not out.exists():
        return None
    assert sorted(path.name for path in out.iterdir()) == ["metrics.json", "plan.yaml", "weights"], list(out.iterdir())
    texts = {(out / name).read_text() for name in ("plan.yaml", "weights")}
    texts.add(json.loads((out / "metrics.json").read_text())["text"])
    assert len(texts) == 1, texts
    return texts.pop()

def killed(out, after):
    """Whether a process died that wrote a folder, before the operation of that number."""
    global left
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        return os.WIFSIGNALED(status)
    code = 1
    try:
        left = after
        write(out, "new folder")
        code = 0
    finally:
        os._exit(code)

seen = set()
for before in (None, "old folder"):
    for after in range(1000):
        out = place / f"{before} {after}" / "model"
        if before:
            write(out, before)
        died = killed(out, after)
        there = whole(out)
        if before and not exchange and there is None:
            seen.add("missing")
            there = whole(put_back(out))
        assert there in (before, "new folder"), (before, after, there)
        seen.add(there)
        if after % 2 and there:  # whoever removes the folder finds no pieces of an older one in its place
            shutil.rmtree(out)
            assert whole(put_back(out)) in (None, before, "new folder")
        write(out, "newest folder")
        assert whole(out) == "newest folder"
        assert os.listdir(out.parent) == ["model"], os.listdir(out.parent)
        if not died:
            break
    assert after > 20, after
assert seen == {None, "old folder", "new folder", *(() if exchange else ("missing",))}, seen
'''


@pytest.mark.parametrize("how", ["exchange", "fallback"])
def test_a_kill_leaves_the_old_folder_or_the_new_one(tmp_path: Path, how: str) -> None:
    """Before any operation of the system; and the next one that writes there leaves nothing but its own."""
    run = subprocess.run([sys.executable, "-c", KILLED, tmp_path, how], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def written(out: Path, text: str) -> Path:
    with replaced(out) as new:
        (new / MANIFEST).write_text('{"files": ["metrics.json", "plan.yaml"]}')
        (new / "plan.yaml").write_text(text)
    return out


def test_two_folders_change_places(tmp_path: Path) -> None:
    first, second = written(tmp_path / "a", "first"), written(tmp_path / "b", "second")
    assert exchanged(first, second)
    assert [(path / "plan.yaml").read_text() for path in (first, second)] == ["second", "first"]
    with pytest.raises(FileNotFoundError):
        exchanged(first, tmp_path / "missing")


def test_what_fails_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    out = written(tmp_path / "model", "old")
    with pytest.raises(ZeroDivisionError), replaced(out) as new:
        (new / "plan.yaml").write_text("half")
        raise ZeroDivisionError
    assert (out / "plan.yaml").read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_only_a_whole_folder_is_put_back(tmp_path: Path) -> None:
    """Not the half of one; and nothing takes the place of a folder that is there."""
    out = tmp_path / "model"
    (tmp_path / ".model.unfinished-x" / "new").mkdir(parents=True)
    assert not put_back(out).exists()
    (tmp_path / ".model.unfinished-x" / "old").mkdir()
    written(tmp_path / "other", "other")
    assert put_back(out).is_dir()
    (tmp_path / ".model.unfinished-y" / "old" / "deep").mkdir(parents=True)
    assert not any(put_back(out).iterdir())
    with pytest.raises(OutputError, match="exists and was not written by paredown"):
        check_folder(tmp_path)
