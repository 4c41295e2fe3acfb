"""Fetching from a server on this machine: whole, cut and taken up again, wrong, refused, and not there at all."""

import hashlib
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from llmcourse.errors import UserError
from llmcourse.workload import original_path
from llmcourse.workload.fetch import fetch
from llmcourse.workload.originals import ORIGINALS, Original, original

CONTENT = bytes(range(256)) * 1000


class Handler(BaseHTTPRequestHandler):
    """Serves the server's `content`, each answer cut after `cut` bytes; notes what was asked for."""

    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if self.path != "/trace":
            return self.send_error(404)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
        if start > len(server.content):
            return self.send_error(416)
        body = server.content[start:]
        self.send_response(206 if asked and server.ranges else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:server.cut])
        return None

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.content, made.cut, made.ranges, made.asked = CONTENT, None, True, []
    threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def trace(server):
    return Original("trace.csv", "a test", "somebody", "CC0", f"http://127.0.0.1:{server.server_port}/trace",
                    hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))


def part(tmp_path):
    return tmp_path / "trace.csv.part"


def test_a_file_comes_whole_and_only_once(server, trace, tmp_path):
    seen = []
    path = fetch(trace, tmp_path / "new" / "folder", lambda done, size: seen.append((done, size)))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)
    assert list(path.parent.iterdir()) == [path]
    assert fetch(trace, tmp_path / "new" / "folder") == path
    assert server.asked == [None]


def test_a_cut_connection_is_taken_up_where_it_broke(server, trace, tmp_path):
    server.cut = 100_000
    assert fetch(trace, tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=200000-"]


def test_what_came_in_an_earlier_run_is_kept(server, trace, tmp_path):
    part(tmp_path).write_bytes(CONTENT[:1234])
    assert fetch(trace, tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=1234-"]
    assert not part(tmp_path).exists()


def test_a_server_without_ranges_sends_it_all_again(server, trace, tmp_path):
    server.ranges = False
    part(tmp_path).write_bytes(b"x" * 1234)
    assert fetch(trace, tmp_path).read_bytes() == CONTENT


def test_a_server_that_always_cuts_is_given_up_and_the_part_stays(server, trace, tmp_path):
    part(tmp_path).write_bytes(CONTENT[:10])
    server.cut = 0
    with pytest.raises(UserError, match=r"ends after 10 of 256000 bytes.*run this again"):
        fetch(trace, tmp_path)
    assert part(tmp_path).read_bytes() == CONTENT[:10]
    assert len(server.asked) == 3


def test_the_wrong_file_is_thrown_away(server, trace, tmp_path):
    server.content = CONTENT[::-1]
    with pytest.raises(UserError, match=r"sha256 \w{16}\.\.\., expected \w{16}\.\.\.; it was thrown away"):
        fetch(trace, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_something_else_does_not_survive(server, trace, tmp_path):
    part(tmp_path).write_bytes(b"x" * 1234)
    with pytest.raises(UserError, match="thrown away"):
        fetch(trace, tmp_path)
    assert fetch(trace, tmp_path).read_bytes() == CONTENT


def test_a_longer_file_is_not_read_to_its_end(server, trace, tmp_path):
    with pytest.raises(UserError, match="thrown away"):
        fetch(replace(trace, size=1000), tmp_path)


def test_a_shorter_file_ends_in_a_plain_no(server, trace, tmp_path):
    server.content = CONTENT[:500]
    part(tmp_path).write_bytes(CONTENT[:1000])
    with pytest.raises(UserError, match="answers 416"):
        fetch(trace, tmp_path)
    assert not part(tmp_path).exists()


def test_a_damaged_file_is_replaced(server, trace, tmp_path):
    (tmp_path / "trace.csv").write_bytes(b"damaged")
    assert fetch(trace, tmp_path).read_bytes() == CONTENT


def test_a_url_that_is_gone_is_named(server, trace, tmp_path):
    with pytest.raises(UserError, match=r"/gone answers 404 .*put it at .*trace.csv and run `llmcourse data verify`"):
        fetch(replace(trace, url=trace.url.replace("/trace", "/gone")), tmp_path)


def test_without_a_network_it_says_what_to_do(server, trace, tmp_path):
    port = server.server_port
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError) as caught:
        fetch(trace, tmp_path)
    says = str(caught.value)
    assert f"http://127.0.0.1:{port}/trace cannot be fetched" in says
    assert "Offline? nothing in the course needs this file" in says
    assert str(tmp_path / "trace.csv") in says
    assert "\n" not in says


def test_a_folder_that_cannot_be_written_is_named(trace, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be fetched into .*file"):
        fetch(trace, tmp_path / "file")


def test_what_has_no_url_cannot_be_fetched(tmp_path):
    with pytest.raises(UserError, match="its profile ships"):
        fetch(original("arena"), tmp_path)


def test_originals_are_named_found_and_told_apart(tmp_path):
    with pytest.raises(UserError, match="no trace 'mooncake'; there is mooncake-conversation"):
        original("mooncake")
    with pytest.raises(UserError, match="llmcourse data fetch arena"):
        original_path("arena", tmp_path)
    (tmp_path / ORIGINALS["arena"].file).write_text("")
    assert original_path("arena", tmp_path).is_file()
    assert all(len(trace.sha256) == 64 and trace.size > 0 for trace in ORIGINALS.values())
    assert all(trace.url.startswith("https://") for trace in ORIGINALS.values() if trace.url)
