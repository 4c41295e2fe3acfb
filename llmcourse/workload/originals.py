"""The traces behind the profiles: who owns them, under which licence, where they are, and how to know them again.

The course ships what it derived (`data/workloads`), not the traces; nothing in it needs them. Who wants to derive, plot
or replay the requests themselves fetches them with `llmcourse data fetch`. Week 4.
"""

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path

from llmcourse.errors import UserError
from llmcourse.paths import DATA

FOLDER = DATA / "traces"  # git ignores it
_GITHUB = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class Original:
    """A trace as its owners published it.

    ``file`` is its name here, ``about`` one sentence on it, ``size`` in bytes. ``url`` is None where the owners publish
    no such file; ``width`` (s) is how fine the rates of its profile are kept.
    """

    file: str
    about: str
    source: str
    licence: str
    url: str | None
    sha256: str
    size: int
    width: float = 10.0


ORIGINALS = {
    "azure-conversation": Original(
        "AzureLLMInferenceTrace_conv.csv", "An hour of a chat service: balanced lengths, slow drift of the rate.",
        "Azure/AzurePublicDataset, AzureLLMInferenceTrace_conv (Patel et al., Splitwise, ISCA 2024)", "CC-BY-4.0",
        f"{_GITHUB}/Azure/AzurePublicDataset/master/data/AzureLLMInferenceTrace_conv.csv",
        "2f1e5b666d4e3055fdbba98598ce2ec307767b9064e03e2fa46676dbcc7d0bf8", 719_188),
    "azure-code": Original(
        "AzureLLMInferenceTrace_code.csv", "An hour of code completion: long prompts, a line of output, on and off.",
        "Azure/AzurePublicDataset, AzureLLMInferenceTrace_code (Patel et al., Splitwise, ISCA 2024)", "CC-BY-4.0",
        f"{_GITHUB}/Azure/AzurePublicDataset/master/data/AzureLLMInferenceTrace_code.csv",
        "54e9a6d2a4bd06ba1e060304b900abbc74cbea53de96506e60fe5bb4f2277fb6", 320_117,
        width=2.0),  # its bursts start and stop within seconds
    "mooncake-conversation": Original(
        "mooncake_conversation.jsonl", "An hour of a chat service: very long prompts, and which of them share blocks.",
        "kvcache-ai/Mooncake, FAST25-release/traces (Qin et al., Mooncake, FAST 2025)", "Apache-2.0",
        f"{_GITHUB}/kvcache-ai/Mooncake/main/FAST25-release/traces/conversation_trace.jsonl",
        "b8cbb061a85206d729d91cdc2981f43c9e0d99209dce588d3af5f7934408b9df", 3_029_533),
    # Requests read out of the artifact's result files: there is no file of its own to fetch.
    "arena": Original(
        "arena_27clients_10min.csv", "Ten minutes of a chat arena: 27 clients, three of whom send half of it all.",
        "Ying1123/VTC-artifact, from LMSYS Chatbot Arena (Sheng et al., VTC, OSDI 2024)", "Apache-2.0", None,
        "c13e71da5bc39e8a89279d0dc74540044490c99ac4ead09ba7759cad09d7bea7", 31_339),
}


def original(name: str) -> Original:
    """The trace of that name; raises UserError naming those there are."""
    if name not in ORIGINALS:
        near = difflib.get_close_matches(name, ORIGINALS, cutoff=0.4) or list(ORIGINALS)
        raise UserError(f"no trace {name!r}; there is {', '.join(near)}")
    return ORIGINALS[name]


def original_path(name: str, folder: Path = FOLDER) -> Path:
    """Where the trace lies once it is fetched; raises UserError that says how to get it while it is not."""
    path = folder / original(name).file
    if not path.is_file():
        raise UserError(f"the original of {name} is not in {folder}; `llmcourse data fetch {name}` gets it "
                        "(its profile ships with the course and needs no fetching)")
    return path


def checksum(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
