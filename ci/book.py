#!/usr/bin/env python3
"""Checks the book that `mdbook build docs` writes: every link and anchor between its pages resolves, and every page is in its table of
contents.

  ci/book.py target/book
"""

import glob
import os
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        with open(path, encoding="utf-8") as file:
            self.feed(file.read())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes.get("id"), attributes.get("name")}
        for name in ("href", "src"):
            if attributes.get(name):
                self.links.append(attributes[name])


def main():
    root = sys.argv[1]
    pages = {os.path.basename(path): Page(path) for path in glob.glob(os.path.join(root, "*.html"))}
    contents = {link.partition("#")[0] for link in pages.pop("toc.html").links}
    problems, links = [], 0
    for name, page in sorted(pages.items()):
        if name in ("print.html", "404.html"):
            continue
        if name != "index.html" and name not in contents:
            problems.append(f"{name} is not in docs/SUMMARY.md")
        for link in page.links:
            parts = urlsplit(link)
            target, anchor = unquote(parts.path), unquote(parts.fragment)
            if parts.scheme or link.startswith("//"):
                continue
            links += 1
            if target and not os.path.exists(os.path.join(root, target)):
                problems.append(f"{name}: {link} does not exist")
            elif anchor and (target or name) in pages and anchor not in pages[target or name].anchors:
                problems.append(f"{name}: {link} has no such heading")
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(pages)} pages, {links} links, {len(problems)} problems")
    return bool(problems) or links < 100


if __name__ == "__main__":
    sys.exit(main())
