"""Course pages are saved clean: reading a lecture leaves nothing to commit.

JupyterLab saves by itself every two minutes. For a lab that is right, the work is the student's. For a lecture, a demo
or the home page it would put outputs (megabytes, with widgets) into files that the course owns, and stale widgets into
the next reading. The server calls `keep_clean` before each save. Every week.
"""

import re
from typing import Any

PAGES = re.compile(r"/?(index|week\d\d/[^/]+)\.ipynb")


def keep_clean(model: dict[str, Any], path: str, **_: Any) -> None:
    """Drop what running leaves behind (outputs, counts, widget state), in place, when `path` is a course page.

    What remains is what the notebook builder wrote, byte for byte, if nobody edited a cell.
    `model` is the contents model of Jupyter Server; this is its `pre_save_hook`.
    """
    if model["type"] != "notebook" or not PAGES.fullmatch(path):
        return
    notebook = model["content"]
    notebook["metadata"].pop("widgets", None)
    notebook["metadata"]["language_info"] = {"name": "python"}
    for cell in notebook["cells"]:
        for name in ("execution", "trusted"):
            cell["metadata"].pop(name, None)
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
