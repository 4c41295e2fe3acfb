"""Drives JupyterLab in a real browser: a server of its own, one page, and a record of what went wrong in it."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, Page, Request, sync_playwright

OPTIONS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
).split()
LOCAL = {"127.0.0.1", "localhost", "::1", None}
# What JupyterLab itself logs as an error and nobody can act on would stand here; so far it is nothing.
HARMLESS: tuple[str, ...] = ()

# Measured in the page: from the slider's change to the first change in the picture, in seconds.
STOPWATCH = """(input) => {
  const picture = input.closest(".llmcourse-widget").querySelector(".llmcourse-view");
  window.answered = null;
  input.addEventListener("change", () => {
    const start = performance.now();
    new MutationObserver((_, observer) => {
      observer.disconnect();
      window.answered = (performance.now() - start) / 1000;
    }).observe(picture, { childList: true, subtree: true });
  }, { once: true });
}"""


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Poll until `condition()` is true; otherwise say what never came."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:g} s")
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """`llmcourse lab` on a folder, with its settings and state in another."""

    def __init__(self, root: Path, state: Path) -> None:
        self.token, self.port = secrets.token_hex(16), free_port()
        self.log = state / "server.log"
        homes = {f"JUPYTER_{name}_DIR": str(state / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
        command = [sys.executable, "-m", "llmcourse", "lab", "--no-browser", f"--port={self.port}",
                   "--ip=127.0.0.1", "--ServerApp.port_retries=0", f"--IdentityProvider.token={self.token}",
                   f"--ServerApp.root_dir={root}"]
        environment = {**os.environ, **homes, "IPYTHONDIR": str(state / "ipython")}
        self.process = subprocess.Popen(command, env=environment, stdout=self.log.open("w"), stderr=subprocess.STDOUT)

    def api(self, path: str) -> object:
        """GET one of the server's own addresses, as JSON; None while it does not answer."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/{path}", headers={"Authorization": f"token {self.token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return json.load(reply)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None

    def ready(self) -> bool:
        assert self.process.poll() is None, f"the server ended:\n{self.log.read_text()}"
        return self.api("status") is not None

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Notebook:
    """An open notebook: run it, look at it, and know every error and every request that left the machine."""

    def __init__(self, page: Page, server: Server, path: str) -> None:
        self.page, self.server, self.path = page, server, path
        self.errors: list[str] = []
        self.outside: list[str] = []
        page.on("console", lambda message: self._note(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self._note(str(error)))
        page.on("request", self._watch)
        page.goto(f"http://127.0.0.1:{server.port}/lab/tree/{path}?token={server.token}&reset",
                  wait_until="commit", timeout=180_000)
        page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=180_000)
        wait_for(self.connected, 180, "a kernel that is connected and idle")

    def _note(self, text: str) -> None:
        if not any(known in text for known in HARMLESS):
            self.errors.append(text)

    def _watch(self, request: Request) -> None:
        if request.url.startswith(("http", "ws")) and urlsplit(request.url).hostname not in LOCAL:
            self.outside.append(request.url)

    def connected(self) -> bool:
        """The page shows an idle kernel before its socket is open; the server knows better."""
        kernels = [session["kernel"] for session in self.server.api("sessions") or () if session["path"] == self.path]
        return any(kernel["connections"] >= 1 and kernel["execution_state"] == "idle" for kernel in kernels)

    def prompts(self) -> list[str]:
        """The numbers of the code cells. As text content: what lies outside the window has no inner text."""
        return self.page.locator(".jp-CodeCell .jp-InputPrompt").all_text_contents()

    def run_all(self, seconds: float = 900) -> None:
        """Run > Run All Cells, to the end or to the first error; a click that the page lost is repeated."""
        before = self.prompts()
        for _ in range(3):
            self.page.click('.lm-MenuBar-itemLabel:text-is("Run")')
            self.page.click('.lm-Menu-itemLabel:text-is("Run All Cells")')
            try:
                wait_for(lambda: self.prompts() != before, 30, "the first prompt to change")
                break
            except AssertionError:
                continue
        wait_for(lambda: self.ran() or self.cell_errors(), seconds, f"the end of {self.path}")

    def ran(self) -> bool:
        """Every code cell has its number, none is still waiting, and the kernel rests."""
        texts = [text.strip("[]: ") for text in self.prompts()]
        return bool(texts) and all(text.isdecimal() for text in texts) and self.connected()

    def cell_errors(self) -> list[str]:
        """Tracebacks in outputs; the page shows them as stderr."""
        texts = self.page.locator('.jp-OutputArea-output[data-mime-type$="stderr"]').all_text_contents()
        return [text for text in texts if "Traceback" in text or "Cell In[" in text]

    def widgets(self) -> int:
        return self.page.locator(".llmcourse-widget").count()

    def move(self, slider: str, number: int = 0, key: str = "ArrowRight") -> float:
        """Press `key` on a slider of the `number`-th widget; seconds until its picture is another one."""
        widget = self.page.locator(".llmcourse-widget").nth(number)
        handle, picture = widget.locator(slider).first, widget.locator(".llmcourse-view").first
        handle.scroll_into_view_if_needed()
        handle.focus()
        before = picture.inner_html()
        handle.evaluate(STOPWATCH)
        handle.press(key)
        self.page.wait_for_function("window.answered !== null", timeout=180_000)
        assert picture.inner_html() != before, "the slider moved and the picture stayed the same"
        return self.page.evaluate("window.answered")


@contextmanager
def serving(root: Path, state: Path) -> Iterator[Server]:
    """A running server on `root`, stopped at the end."""
    state.mkdir(parents=True, exist_ok=True)
    server = Server(root, state)
    try:
        wait_for(server.ready, 180, "the server")
        yield server
    finally:
        server.stop()


@contextmanager
def browsing(executable: str) -> Iterator[Browser]:
    """A headless browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=OPTIONS)
        yield browser
        browser.close()
