"""One file by URL, as it should be: what came before is kept, and nothing is believed without its checksum.

Bytes go into a `.part` file, and a connection that breaks is taken up where it broke (HTTP Range, RFC 9110), in this
run or in the next. Only a file whose sha256 is the expected one gets its real name. Week 4.
"""

import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

from llmcourse.errors import UserError
from llmcourse.workload.originals import Original, checksum

ATTEMPTS = 3  # broken in a row without a byte more, before we give up
TIMEOUT = 20.0  # seconds without a byte before a connection counts as broken
_PIECE = 1 << 16

Progress = Callable[[int, int], None]


def fetch(original: Original, folder: Path, progress: Progress = lambda done, size: None) -> Path:
    """Bring the file of `original` into `folder`, if it is not there yet, and return its path.

    `progress` is called with bytes so far and bytes in all. Raises UserError when it cannot be had (no URL, no network,
    refused, no room) or is not what it should be; then nothing is left but a `.part` to go on with.
    """
    path = folder / original.file
    if path.is_file() and checksum(path) == original.sha256:
        return path
    if original.url is None:
        raise UserError(f"{original.file} cannot be fetched: {original.source} has no such file; its profile ships")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        _download(original, original.url, part, progress)
        _believe(original, part)
        return part.replace(path)
    except urllib.error.HTTPError as error:
        raise UserError(f"{original.url} answers {error.code} {error.reason}; {_by_hand(original, path)}") from None
    except OSError as error:
        raise UserError(f"{original.url} cannot be fetched into {folder} ({_reason(error)}). Offline? "
                        f"{_by_hand(original, path)}") from None


def _download(original: Original, url: str, part: Path, progress: Progress) -> None:
    """Ask for what is still missing until nothing is; raises the last OSError when no more comes."""
    failures, before = 0, _size(part)
    while _size(part) < original.size:
        trouble: OSError = ConnectionError(f"the connection ends after {_size(part)} of {original.size} bytes")
        try:
            _attempt(original, url, part, progress)
        except urllib.error.URLError as error:  # nobody there, or a no: asking again at once is of no use
            if getattr(error, "code", None) == 416:  # what we hold is longer than what they have
                part.unlink(missing_ok=True)
            raise
        except (OSError, HTTPException) as error:
            trouble = error if isinstance(error, OSError) else trouble
        failures = 0 if _size(part) > before else failures + 1
        before = _size(part)
        if failures == ATTEMPTS:
            raise trouble


def _attempt(original: Original, url: str, part: Path, progress: Progress) -> None:
    """One request for the rest of the file, read as far as it goes."""
    have = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        # Only 206 is the rest; a server that does not know Range sends 200 and the whole file again.
        with part.open("ab" if answer.status == 206 else "wb") as file:
            _copy(answer, file.write, original.size - file.tell(), file.tell, progress)


def _copy(answer: HTTPResponse, write: Callable[[bytes], int], wanted: int, done: Callable[[], int],
          progress: Progress) -> None:
    """Write up to `wanted` bytes as they come."""
    size = done() + wanted
    while wanted > 0 and (piece := answer.read(min(_PIECE, wanted))):
        write(piece)
        wanted -= len(piece)
        progress(size - wanted, size)


def _believe(original: Original, part: Path) -> None:
    """Throw the bytes away and raise UserError unless they have the expected checksum."""
    found = checksum(part)
    if found != original.sha256:
        part.unlink()
        raise UserError(f"{original.url} gave a file with sha256 {found[:16]}..., expected {original.sha256[:16]}...; "
                        "it was thrown away. Try again; if it stays so, its owners have changed it")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _reason(error: OSError) -> str:
    return str(getattr(error, "reason", "") or error)


def _by_hand(original: Original, path: Path) -> str:
    host = urlsplit(original.url or "").netloc
    return (f"nothing in the course needs this file (its profile ships); to have it, run this again when {host} can be "
            f"reached, or save it elsewhere, put it at {path} and run `llmcourse data verify`")
