"""The report's page in a real browser, offline: nothing refused by its own policy, nothing wider than a phone."""

import html
import os
import re
import subprocess
from pathlib import Path

import pytest

from ehrmind_k8s.evaluation import page
from tests.conftest import needs_program
from tests.unit.evaluation import report_sample

PROBE = "<script>parent.document.title = innerWidth + ' ' + document.documentElement.scrollWidth</script></body>"
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=1000")


@pytest.fixture(scope="module")
def text() -> str:
    return page.render(report_sample.build())


def load(text: str, width: int, folder: Path) -> tuple[str, str]:
    """The DOM after loading, and what the browser's console said."""
    browser = needs_program("chromium", "apt-get install chromium fonts-dejavu-core")
    file = folder / "report.html"
    file.write_text(text, encoding="utf-8")
    command = [browser, *FLAGS, f"--window-size={width},900", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env={**os.environ, "HOME": str(folder)})
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if ":CONSOLE" in line)


def test_the_browser_has_nothing_to_complain_about(text: str, tmp_path: Path) -> None:
    dom, console = load(text, 1280, tmp_path)
    assert "Learning curves" in dom
    assert console == ""


def test_the_policy_of_the_page_refuses_scripts_and_requests(text: str, tmp_path: Path) -> None:
    """The check above can fail: what does not belong is refused, and the console says so."""
    dom, console = load(text.replace("</body>", "<img src='https://example.invalid/x.png'>" + PROBE), 1280, tmp_path)
    assert "<title>quickstart" in dom
    assert console.count("Content Security Policy") >= 2


@pytest.mark.parametrize("width", [1280, 500, 390])
def test_the_page_is_never_wider_than_the_screen(width: int, text: str, tmp_path: Path) -> None:
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text).replace("</body>", PROBE)
    opened = html.escape(free.replace("<details", "<details open"))
    # In a frame, since a window of this browser is at least 500 px wide.
    dom, _ = load(f'<!doctype html><title></title><iframe width="{width}" height="900" frameborder="0" srcdoc="{opened}"></iframe>', 1400, tmp_path)
    title = re.search(r"<title>(\d+) (\d+)</title>", dom)
    assert title is not None
    assert int(title[1]) == width
    assert int(title[2]) <= width
