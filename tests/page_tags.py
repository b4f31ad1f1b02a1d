"""Read pages that are written: their tags, and whether they need nothing from anywhere."""

from html.parser import HTMLParser


class Tags(HTMLParser):
    """Collects start tags with their attributes, and checks that tags close in order."""

    VOID = {"meta", "img", "col", "link", "br", "wbr"}

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check_stands_alone(page: str) -> None:
    """Fail where anything is fetched or run, a tag does not close, or a picture has no name."""
    tags = Tags(page)
    assert tags.open == []
    names = {tag for tag, _ in tags.tags}
    assert not names & {"script", "link", "iframe", "object", "base"}
    for tag, attributes in tags.tags:
        target = attributes.get("src") or attributes.get("href") or ""
        assert not target or target.startswith(("#", "data:image/"))
        assert tag != "img" or attributes["alt"]
        hidden = attributes.get("aria-hidden") == "true"
        assert tag != "svg" or hidden or attributes["aria-label"]
    assert "@import" not in page and "url(" not in page
    ids = [attributes["id"] for _, attributes in tags.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = {a["href"][1:] for tag, a in tags.tags if tag == "a"}
    assert anchors <= set(ids)
