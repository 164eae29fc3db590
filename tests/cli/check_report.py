"""Checks a report as a browser without a network would meet it: well-formed, self-contained, every
picture a sound PNG, every chart with its numbers, no markup that came from a name.

usage: check_report.py REPORT [WORD…]     WORD: id of a section that must be there; !id: must not
"""
import base64, json, re, struct, sys, zlib
from html.parser import HTMLParser

VOID = {"meta", "img", "input", "br", "link", "hr"}
LIMIT = 5 << 20


class Page(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.links, self.labelled = [], [], [], []
        self.pictures, self.charts, self.scripts, self.text = [], [], [], []
        self.tags, self.attributes = {}, set()

    def handle_starttag(self, tag, attributes):
        names = [k for k, _ in attributes]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        a = dict(attributes)
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.attributes.update(names)
        if "id" in a:
            self.ids.append(a["id"])
        if tag == "a":
            self.links.append(a["href"])
        if "aria-labelledby" in a:
            self.labelled.append(a["aria-labelledby"])
        if tag == "img":
            assert "alt" in a, "a picture without alt"
            self.pictures.append(a["src"])
        if tag == "figure" and a.get("class") == "chart":
            self.charts.append(a["id"])
        if tag == "input":
            assert a.get("aria-label"), "an input without a name"
        for name in ("src", "href", "action", "srcset", "data"):
            value = a.get(name) or ""
            assert value.startswith(("data:image/png;base64,", "#")) or not value, f"{tag} {name}={value[:80]}"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]} at {self.getpos()}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.text.append(data)


def check_png(uri):
    png = base64.b64decode(uri.split(",", 1)[1], validate=True)
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, data, kinds = 8, b"", []
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        body = png[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + body) == struct.unpack(">I", png[at + 8 + length : at + 12 + length])[0]
        kinds.append(kind)
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", body[:10])
        if kind == b"IDAT":
            data += body
        at += 12 + length
    assert kinds[0] == b"IHDR" and kinds[-1] == b"IEND"
    channels = {0: 1, 2: 3, 3: 1, 6: 4}[colour]
    assert len(zlib.decompress(data)) == height * ((width * channels * depth + 7) // 8 + 1)


def main():
    path, words = sys.argv[1], sys.argv[2:]
    raw = open(path, "rb").read()
    assert len(raw) < LIMIT, f"{len(raw)} bytes"
    text = raw.decode("utf-8")
    outside = [u for u in re.findall(r"https?://[^\"'\s<)]*", text) if u != "http://www.w3.org/2000/svg"]
    assert not outside, outside
    page = Page()
    page.feed(text)
    page.close()
    assert not page.open, page.open
    assert len(page.ids) == len(set(page.ids)), "an id is there twice"
    for link in page.links:
        assert link[1:] in page.ids, link
    for name in page.labelled:
        assert name in page.ids, name
    for picture in page.pictures:
        check_png(picture)
    handlers = [a for a in page.attributes if a.startswith("on")]
    assert not handlers, handlers
    data = json.loads(page.scripts[0])
    assert sorted(c["id"] for c in data["charts"]) == sorted(page.charts)
    assert len(page.scripts) == 2 and page.tags.get("script") == 2, "a script that is not ours"
    for chart in data["charts"]:
        for curve in chart.get("curves", []):
            assert len(curve["x"]) == len(curve["y"]) > 0
        for run in chart.get("runs", []):
            assert all(len(v) == len(run["cases"]) for v in run["values"])
    for word in words:
        there = word.lstrip("!") in page.ids
        assert there != word.startswith("!"), f"{word}: sections are {page.ids}"
    print(f"{len(raw)} bytes, {len(page.pictures)} pictures, {len(page.charts)} charts")
    print(" ".join(" ".join(page.text).split()))


main()
