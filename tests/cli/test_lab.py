"""`llmcourse lab`: the options it adds, the environment it sets, and pages that stay clean."""

import copy
import json
import os

import pytest

from llmcourse.cli import lab, pages, threads
from llmcourse.grading import builder
from llmcourse.paths import ROOT


def test_a_persons_options_win():
    assert f"--ServerApp.root_dir={ROOT}" in lab.arguments([])
    assert lab.arguments(["--port", "8899"])[-2:] == ["--port", "8899"]
    roots = [text for text in lab.arguments(["--ServerApp.root_dir=/elsewhere"]) if "root_dir" in text]
    assert roots == ["--ServerApp.root_dir=/elsewhere"]


def test_help_starts_no_server(capsys):
    assert lab.main(["--help"]) == 0
    assert "--no-browser" in capsys.readouterr().out


def test_the_environment_points_to_the_courses_settings_and_keeps_the_persons(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "/theirs")
    environment = lab.environment()
    assert environment["OMP_NUM_THREADS"] == "7"
    assert environment["JUPYTER_CONFIG_PATH"].split(os.pathsep) == [str(lab.CONFIG), "/theirs"]


@pytest.mark.parametrize(("cores", "wanted"), [(1, 1), (2, 1), (4, 2), (8, 4), (64, 4)])
def test_kernels_share_the_cores(monkeypatch, cores, wanted):
    monkeypatch.setattr(threads, "cores", lambda: cores)
    assert threads.threads() == wanted


def test_settings_are_valid_and_quiet():
    for name in ("default_setting_overrides", "page_config"):
        settings = json.loads((lab.CONFIG / "labconfig" / f"{name}.json").read_text())
        if name == "default_setting_overrides":
            assert settings["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"


def test_the_courses_style_is_found_and_added():
    """Printed lines must break between words, and JupyterLab serves the style only if both settings are there."""
    from traitlets.config import Config, PyFileConfigLoader

    settings: Config = PyFileConfigLoader("jupyter_server_config.py", path=str(lab.CONFIG)).load_config()
    (folder,) = settings.ServerApp.tornado_settings["static_custom_path"]
    assert settings.LabApp.custom_css
    assert "word-break: normal" in (lab.CONFIG / "custom" / "custom.css").read_text()
    assert folder == str(lab.CONFIG / "custom")


def saved(path, name):
    """What Jupyter would write to `name` after a student has run the notebook."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content["metadata"]["widgets"] = {"state": "large"}
    content["metadata"]["language_info"]["version"] = "3.11.7"
    for number, cell in enumerate(cell for cell in content["cells"] if cell["cell_type"] == "code"):
        cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "x"}]
        cell["execution_count"] = number + 1
        cell["metadata"]["execution"] = {"iopub.status.busy": "now"}
    model = {"type": "notebook", "content": content}
    pages.keep_clean(model, path=name, contents_manager=None)
    return model["content"]


def test_a_page_that_was_run_is_saved_as_it_was_built():
    page = ROOT / "index.ipynb"
    built = json.loads(page.read_text(encoding="utf-8"))
    assert saved(page, "index.ipynb") == built == builder.build_lecture(ROOT / "index.py")
    assert saved(page, "/week02/lecture.ipynb") == built


@pytest.mark.parametrize("name", ["labs/lab01_x.ipynb", "mine.ipynb", "notes/week02/x.ipynb"])
def test_a_students_own_notebooks_are_saved_as_they_are(name):
    assert saved(ROOT / "index.ipynb", name)["metadata"]["widgets"]


def test_folders_and_text_files_are_left_alone():
    model = {"type": "file", "content": "text"}
    before = copy.deepcopy(model)
    pages.keep_clean(model, path="index.ipynb")
    assert model == before
