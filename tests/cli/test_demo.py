import socket

import pytest

from llmcourse.cli import demo
from llmcourse.errors import UserError


def test_a_week_without_a_demo_is_said_in_one_line():
    with pytest.raises(UserError, match="week 16 has no demo page"):
        demo.notebook(16)


def test_week_2_has_one():
    assert demo.notebook(2).name == "demo.ipynb"


def test_a_taken_port_is_refused_and_a_free_one_found():
    with socket.socket() as taken:
        taken.bind((demo.LOOPBACK, 0))
        taken.listen()
        with pytest.raises(UserError, match="--port"):
            demo.free_port(taken.getsockname()[1])
    assert demo.free_port(None) >= demo.FIRST_PORT


def test_the_page_is_for_this_machine_and_its_template_asks_no_network():
    options = demo.voila_options(demo.notebook(2), 9999, browser=False)
    assert f"--Voila.ip={demo.LOOPBACK}" in options and "--no-browser" in options
    template = demo.TEMPLATES / "voila" / "templates" / "course" / "index.html.j2"
    assert template.is_file() and "http" not in template.read_text(encoding="utf-8")


@pytest.mark.parametrize("argv", [[], ["0"], ["two"], ["2", "--port", "x"]])
def test_bad_arguments_exit_with_2(argv):
    with pytest.raises(SystemExit) as stopped:
        demo.main(argv)
    assert stopped.value.code == 2
