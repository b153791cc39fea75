"""Writes the generated documentation: Markdown tables between markers, and JSON Schemas for editors.

    python -m docs.generate            writes
    python -m docs.generate --check    writes nothing; exits 1 and lists what is out of date

A block of a Markdown file begins with ``<!-- NAME -->`` and ends with ``<!-- end -->``; the text between them is
replaced.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from docs.generate.schema import keys, plan_schema, study_schema
from docs.generate.what_runs_where import descriptions, table
from paredown.space.study_file import StudyFile
from paredown.space.system.files import write_atomically

ROOT = Path(__file__).resolve().parents[2]


def study_keys() -> str:
    """The table of a study file's keys, in Markdown."""
    lines = ["| key | default | meaning |", "| --- | --- | --- |"]
    return "\n".join(lines + [f"| `{key}` | {default} | {text} |" for key, default, text in keys(StudyFile)])


BLOCKS: dict[str, Callable[[], str]] = {"what-runs-where": table, "methods": descriptions, "study-keys": study_keys}
WANTED = {
    "README.md": ("what-runs-where",),
    "docs/methods.md": ("what-runs-where", "methods"),
    "docs/study.md": ("study-keys",),
}


def filled(text: str, name: str) -> str | None:
    """The text with a block's content replaced; None if the block is missing."""
    pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    content = BLOCKS[name]()
    new, count = pattern.subn(lambda match: f"{match[1]}\n{content}\n\n{match[2]}", text)
    return new if count else None


def wanted(root: Path = ROOT) -> tuple[dict[Path, str], list[str]]:
    """The text that each file should have, and the faults of files that lack a block."""
    texts: dict[Path, str] = {}
    faults = []
    for file, names in WANTED.items():
        text = (root / file).read_text(encoding="utf-8") if (root / file).is_file() else ""
        for name in names:
            new = filled(text, name)
            if new is None:
                faults.append(
                    f"{file} has no block {name}; put '<!-- {name} -->' and '<!-- end -->' where it belongs, "
                    "on a line each"
                )
            else:
                text = new
        texts[root / file] = text
    for kind, schema in (("plan", plan_schema()), ("study", study_schema())):
        texts[root / "studies" / "schema" / f"{kind}.schema.json"] = json.dumps(schema, indent=2) + "\n"
    return texts, faults


def check(root: Path = ROOT) -> list[str]:
    """One sentence per file that is out of date."""
    texts, faults = wanted(root)
    stale = [
        path for path, text in texts.items() if (path.read_text(encoding="utf-8") if path.is_file() else "") != text
    ]
    return faults + [f"{path.relative_to(root)} is out of date; run python -m docs.generate" for path in stale]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if something is out of date")
    if parser.parse_args().check:
        faults = check()
    else:
        texts, faults = wanted()
        for path, text in texts.items():
            if text and (not path.is_file() or path.read_text(encoding="utf-8") != text):
                write_atomically(path, text)
                print(f"wrote {path.relative_to(ROOT)}")
    for fault in faults:
        print(fault, file=sys.stderr)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
