"""Course pages are saved clean: reading a lecture leaves nothing to commit.

JupyterLab saves by itself every two minutes. For a lab that is right, the work is the student's. For a lecture, a demo
or the home page it would put outputs (megabytes, with widgets) into files that the course owns, and stale widgets into
the next reading. The server calls `keep_clean` before each save. Every week.
"""

import re
from typing import Any

PAGES = re.compile(r"/?(index|week\d\d/[^/]+)\.ipynb")


def keep_clean(model: dict[str, Any], path: str, **_: Any) -> None:
    """Drop outputs, execution counts and widget state in place, when `path` is a course page.

    `model` is the contents model of Jupyter Server; this is its `pre_save_hook`.
    """
    if model["type"] != "notebook" or not PAGES.fullmatch(path):
        return
    notebook = model["content"]
    for name in ("widgets", "language_info"):
        notebook["metadata"].pop(name, None)
    for cell in notebook["cells"]:
        for name in ("execution", "trusted"):
            cell["metadata"].pop(name, None)
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
