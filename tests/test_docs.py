"""What the documents name is there: files, classes and their methods, tests, links."""
from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = {path: path.read_text() for folder in ("s3cfs", "backends", "tests", "contrib") for path in (ROOT / folder).rglob("*.py")}
PATHS = {str(path.relative_to(ROOT)) for path in SOURCES}
FILE = re.compile(r"(?<![\w/.<-])((?:[a-z_0-9]+/)*[a-z_0-9]+\.py)\b")
MEMBER = re.compile(r"`([A-Z][A-Za-z]+)\.([a-z_][a-z_0-9]*)(?:\([^`]*\))?`")
TEST = re.compile(r"\b(test_[a-z_0-9]+)\b(?!\.py)")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#([^)]*))?\)")


def defined(name: str, member: str) -> bool:
    """Whether a class of that name has that attribute, in any of our sources, by its text."""
    for text in SOURCES.values():
        if (found := re.search(rf"^class {name}\b.*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)) and \
                re.search(rf"\bdef {member}\b|\bself\.{member}\b|^\s+{member}\b\s*[:=]|\"{member}\"", found[0], re.MULTILINE):
            return True
    return False


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_names_is_there(document: Path):
    text = document.read_text()
    missing = [name for name in FILE.findall(text) if not any(path == name or path.endswith(f"/{name}") for path in PATHS)]
    missing += [f"{name}.{member}" for name, member in MEMBER.findall(text)
                if any(re.search(rf"^class {name}\b", source, re.MULTILINE) for source in SOURCES.values()) and not defined(name, member)]
    every = "\n".join(SOURCES.values())
    missing += [name for name in TEST.findall(text) if not re.search(rf"\bdef {name}\b", every) and f"{name}.py" not in
                {Path(path).name for path in PATHS}]
    for target, _ in LINK.findall(text):
        if not (document.parent / target).exists():
            missing.append(target)
    assert not missing
