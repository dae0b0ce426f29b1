"""The documentation holds together: links lead somewhere, generated pages are fresh, the index is whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from joulescope.inject.pod import SCRAPE_LABEL, VERSION_ANNOTATION
from tools.generate_docs import PAGES, pages
from tools.generated import stale

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MARKDOWN = sorted(
    [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("grafana/*.md"), *ROOT.glob("deploy/**/*.md")]
)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def _anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _broken(page: Path) -> list[str]:
    broken = []
    for link in LINK.findall(page.read_text()):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page names a file that exists, and a heading that the file has."""
    assert _broken(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    """The check sees a missing file and a missing heading."""
    page = tmp_path / "page.md"
    page.write_text("# One, two\n[a](#one-two) [b](#three) [c](none.md) [d](page.md#one-two)")
    assert _broken(page) == ["#three", "none.md"]


def test_the_index_names_every_page() -> None:
    """docs/README.md links each page of docs/, and docs/decisions/README.md each decision."""
    for folder in (DOCS, DOCS / "decisions"):
        links = set(LINK.findall((folder / "README.md").read_text()))
        assert {page.name for page in folder.glob("*.md")} - {"README.md"} <= links


def test_generated_pages_are_fresh(tmp_path: Path) -> None:
    """What is committed is what `make docs` would write; a changed page is noticed."""
    assert stale(pages()) == []
    for name, render in PAGES.items():
        (tmp_path / name).write_text(render() + "more")
    assert stale(pages(tmp_path)) == [tmp_path / name for name in sorted(PAGES)]


def test_every_module_that_the_docs_name_exists() -> None:
    """Paths of the repository that a page mentions in backticks are there."""
    for page in MARKDOWN:
        for path in re.findall(r"`((?:joulescope|tests|tools|docs|benchmarks)/[\w./]+)`", page.read_text()):
            is_key = path in (SCRAPE_LABEL, VERSION_ANNOTATION)  # of Kubernetes, with a slash in them too
            assert is_key or (ROOT / path).exists(), f"{page.name} names {path}"
