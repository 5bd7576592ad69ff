"""The documentation is true: every Python block runs, every command exists with the options shown, every link leads
somewhere, and the generated page is what the generator writes."""

import importlib.util
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from endwise.cli import app

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
SHELL = ("bash", "sh", "console")
UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # public by its subclass only: typer brings its own click
REASON_WORDS = 3  # of a block that is not run: 'no-run' alone says nothing


@dataclass(frozen=True)
class Block:
    """One fenced block: what stands behind the backticks, its text, and the line of the page it begins on."""

    language: str
    rest: str
    text: str
    line: int

    @property
    def skipped(self) -> bool:
        return self.rest.startswith("no-run")


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        language, _, rest = match[1].strip().partition(" ")
        found.append(Block(language, rest.strip(), match[2], text.count("\n", 0, match.start(2)) + 1))
    return found


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


PYTHON = [page for page in PAGES if any(block.language == "python" and not block.skipped for block in blocks(page))]


@pytest.mark.parametrize("page", PYTHON, ids=name_of)
def test_its_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, in one namespace, in a folder with nothing but the repository's recipes; line numbers in a traceback
    are those of the page."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    module = ModuleType("page")  # a real module: dataclasses and pickling of workers look their names up in it
    monkeypatch.setitem(sys.modules, "page", module)
    for block in blocks(page):
        if block.language == "python" and not block.skipped:
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), module.__dict__)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_block_that_is_not_run_says_why(page: Path) -> None:
    for block in blocks(page):
        if block.skipped:
            reason = block.rest.removeprefix("no-run").strip(" :")
            assert len(reason.split()) >= REASON_WORDS, f"{name_of(page)}:{block.line}: no-run without a reason"


def commands(page: Path) -> list[tuple[int, list[str]]]:
    """(line, words behind `endwise`) of every call in a shell block; a pipe or && begins another command."""
    found = []
    for block in blocks(page):
        if block.language not in SHELL:
            continue
        for number, line in enumerate(block.text.replace("\\\n", "  ").splitlines()):
            lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="|&;<>")
            lexer.whitespace_split, words = True, [[]]  # type: ignore[var-annotated]
            for word in lexer:
                if set(word) <= set("|&;<>"):
                    words.append([])
                else:
                    words[-1].append(word)
            found += [(block.line + number, call[1:]) for call in words if call[:1] == ["endwise"]]
    return found


CALLS = [(page, line, words) for page in PAGES for line, words in commands(page)]


@pytest.mark.parametrize(("page", "line", "words"), CALLS, ids=[f"{name_of(page)}:{line}" for page, line, _ in CALLS])
def test_its_commands_exist_with_their_options(page: Path, line: int, words: list[str]) -> None:
    """Parsed by the real parser, options, their values and the number of arguments; nothing is run."""
    group: Any = typer.main.get_command(app)
    words = [word for word in words if word != "--debug"]
    try:
        if words and words[0].startswith("-"):
            known = {option for parameter in group.params for option in parameter.opts}
            assert words[0] in known | {"--help", "-h"}, f"there is no option {words[0]}"
            return
        name, command, rest = group.resolve_command(typer.Context(group), list(words))
        assert command is not None
        if {"--help", "-h"} & set(rest):
            return
        command.make_context(name, list(rest), parent=typer.Context(group))
    except UsageError as wrong:
        pytest.fail(f"{name_of(page)}:{line}: endwise {' '.join(words)}: {wrong}")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_its_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    missing = [link for link in LINK.findall(text) if "://" not in link and not (page.parent / link).exists()]
    assert not missing, f"{name_of(page)} links to {missing}"


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link).resolve() for link in LINK.findall(index.read_text(encoding="utf-8"))}
    left_out = [name_of(page) for page in PAGES if page.parent != ROOT and page != index and page not in linked]
    assert not left_out, f"docs/README.md does not name {left_out}"


def test_the_page_of_the_recipe_is_what_the_generator_writes() -> None:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert generate.PAGE.read_text(encoding="utf-8") == generate.page(), "stale: run python docs/generate.py"
