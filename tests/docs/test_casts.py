"""The recordings of the command line: what they show has run, and they ask nobody for anything."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from scripts.cast_picture import picture
from scripts.cast_recording import Frame, record
from scripts.casts import FOLDER, SCENES, recorded
from scripts.generated import ROOT

SVG = "{http://www.w3.org/2000/svg}"


def lines_of(svg: str) -> list[str]:
    """Return every line that is seen at some moment."""
    drawn = ElementTree.fromstring(svg).iter(f"{SVG}g")
    return ["".join(each.itertext()) for each in drawn if each.get("id")]


@pytest.mark.parametrize("name", SCENES)
def test_a_recording_shows_its_commands_and_asks_nobody_for_anything(name: str) -> None:
    svg = (FOLDER / f"{name}.svg").read_text()

    assert f"<title>{SCENES[name].title}</title>" in svg
    for command in SCENES[name].commands:
        assert f"$ {command}" in lines_of(svg)
    assert set(re.findall(r"https?://[^\"]*", svg)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<script|@import|url\(|<image", svg)


@pytest.mark.parametrize("name", SCENES)
def test_a_recording_is_shown_on_a_page_with_its_title(name: str) -> None:
    shown = f"![{SCENES[name].title}](casts/{name}.svg)"

    assert any(shown in page.read_text() for page in (ROOT / "docs").glob("*.md"))


def test_there_is_no_recording_of_no_scene() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(SCENES)


@pytest.mark.timeout(120)
def test_a_scene_still_shows_what_its_recording_shows() -> None:
    def lasting(svg: str) -> set[str]:
        lines = {line.strip() for line in lines_of(svg)}
        return {line for line in lines if not line.startswith("$") and not re.search(r"\d", line)}

    kept = lasting((FOLDER / "failure.svg").read_text())

    assert "Traceback (most recent call last):" in kept
    assert kept <= lasting(recorded("failure")), "record it anew: make casts"


def test_a_terminal_is_seen_as_programs_write_to_it(tmp_path: Path) -> None:
    first = "printf 'one\\n\\033[1;31mtwo\\033[0m <&>\\n'"
    write = f"{first}; sleep 0.3; printf '\\033[1A\\033[2Kthree\\n'"
    frames = record([("act", ["sh", "-c", write])], tmp_path, {}, columns=20, lines=4)

    between, last = frames[-2].screen, frames[-1].screen
    assert between[2][0] == ("two", "red", "default", True)
    assert ["".join(run[0] for run in line) for line in last if line] == ["$ act", "one", "three"]
    assert all(before.at < after.at for before, after in itertools.pairwise(frames))


def test_one_frame_is_seen_at_a_time() -> None:
    line = (("a <b>", "default", "default", False),)
    frames = [Frame(0.0, (line,)), Frame(1.0, (line, line))]
    svg = picture(frames, title="a & b", columns=9, lines=2)

    assert lines_of(svg) == ["a <b>"], "it is drawn once"
    first = "{ 0.000% { visibility: visible; } 20.000% { visibility: hidden; } }"
    assert f"@keyframes k0 {first}" in svg
    assert "@keyframes k1 { 0% { visibility: hidden; } 20.000% { visibility: visible; } }" in svg
