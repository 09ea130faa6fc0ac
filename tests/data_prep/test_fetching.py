from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fetching import Source, fetch, verify

from seqba.errors import UserError

CONTENT = bytes(range(256)) * 40
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT at any path; may break off, deny resuming, and remembers the ranges it was asked for."""

    breaks_after: int | None = None
    resumes = True
    content = CONTENT

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/corpus.tgz"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.resumes else 0
        body = self.server.content[start:]
        if asked and self.server.resumes and not body:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.breaks_after])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_file_is_downloaded_once(server: Server, tmp_path: Path) -> None:
    source = Source(server.url, DIGEST)
    for _ in range(2):
        assert fetch(source, tmp_path / "archives").read_bytes() == CONTENT
    assert server.ranges == [None]
    assert [path.name for path in (tmp_path / "archives").iterdir()] == ["corpus.tgz"]


@pytest.mark.parametrize(("resumes", "asked"), [(True, "bytes=1000-"), (False, "bytes=1000-")])
def test_a_broken_download_goes_on(server: Server, tmp_path: Path, resumes: bool, asked: str) -> None:
    server.breaks_after = 1000
    with pytest.raises(UserError, match=r"1,000 of 10,240 bytes; run the same command again"):
        fetch(Source(server.url, DIGEST), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.tgz.part"]
    server.breaks_after, server.resumes = None, resumes
    assert fetch(Source(server.url, DIGEST), tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, asked]


def test_a_whole_part_is_taken_as_it_is(server: Server, tmp_path: Path) -> None:
    (tmp_path / "corpus.tgz.part").write_bytes(CONTENT)
    assert fetch(Source(server.url, DIGEST), tmp_path).read_bytes() == CONTENT


def test_another_file_than_the_published_one_is_refused_and_dropped(server: Server, tmp_path: Path) -> None:
    server.content = b"<html>moved</html>"
    with pytest.raises(UserError, match="not the published"):
        fetch(Source(server.url, DIGEST), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_on_this_machine_has_an_address_too(tmp_path: Path) -> None:
    (tmp_path / "corpus.tgz").write_bytes(CONTENT)
    source = Source((tmp_path / "corpus.tgz").as_uri(), DIGEST)
    assert fetch(source, tmp_path / "to").read_bytes() == CONTENT


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/corpus.tgz", "file:///no/such/corpus.tgz"])
def test_an_address_that_does_not_answer_is_one_clear_error(url: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot download .*--from"):
        fetch(Source(url, DIGEST), tmp_path)


def test_a_damaged_archive_that_was_there_before_is_refused(tmp_path: Path) -> None:
    (tmp_path / "corpus.tgz").write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match="remove it and try again"):
        verify(tmp_path / "corpus.tgz", DIGEST)
