"""Links lead to a file and to a heading of it; addresses elsewhere are well formed."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.documentation.pages import PAGES, anchors, links_of, name_of


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    assert [link for link in links_of(page) if not leads_somewhere(page, link)] == []


def test_most_pages_are_linked_and_the_check_sees_it() -> None:
    links = [link for page in PAGES for link in links_of(page)]
    assert sum("#" in link for link in links) > 30
    assert sum("://" not in link for link in links) > 200
    assert not leads_somewhere(PAGES[0], "docs/nowhere.md")
    assert not leads_somewhere(PAGES[0], "docs/privacy.md#nowhere")
    assert not leads_somewhere(PAGES[0], "https:/example.org")


def leads_somewhere(page: Path, link: str) -> bool:
    """Whether a link of a page has an end; an address elsewhere is not asked for."""
    address = urlsplit(link)
    if address.scheme:
        return address.scheme in ("http", "https", "file") and bool(address.netloc)
    target = page.parent / address.path if address.path else page
    if not target.exists():
        return False
    return not address.fragment or address.fragment in anchors(target.read_text())
