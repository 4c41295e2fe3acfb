"""JupyterLab for the course: local, quiet, quick to start.

Server extensions that the course does not use are left out: they take a second of the start. Course pages are saved
without outputs (`llmcourse/cli/pages.py`); labs are saved as they are. `custom/custom.css` is added to its pages.
"""

from pathlib import Path

c = get_config()  # type: ignore[name-defined]  # noqa: F821
c.ServerApp.jpserver_extensions = {
    "jupyterlab": True,
    "jupyter_server_terminals": True,
    "jupyter_lsp": False,
    "jupyterlab_jupytext": False,
    "notebook_shim": False,
    "voila.server_extension": False,
}
c.FileContentsManager.pre_save_hook = "llmcourse.cli.pages.keep_clean"
c.ServerApp.tornado_settings = {"static_custom_path": [str(Path(__file__).parent / "custom")]}
c.LabApp.custom_css = True
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"
