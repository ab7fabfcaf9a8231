"""The page stands alone, says what the tables say, and leaves out what a world does not have."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from f2a2_sim.errors import UsageError
from f2a2_sim.results.folder import RunFolder
from f2a2_sim.results.report import write_comparison, write_report
from f2a2_sim.results.tables import EPISODES, LINKS, METRICS, TIMELINE

_VOID = {"meta", "br", "hr", "img", "link", "input", "use", "path"}


class Page(HTMLParser):
    """Text by section, every attribute, and whether each tag is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.text: dict[str, str] = {}
        self.ids: list[str] = []
        self._open: list[tuple[str, str | None]] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.attributes += [(tag, name, value) for name, value in values.items()]
        if "id" in values:
            self.ids.append(values["id"])
        if tag not in _VOID or tag == "use":
            self._open.append((tag, values.get("id") if tag in ("section", "p") else None))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID or tag == "use":
            assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, identity in self._open:
            if identity:
                self.text[identity] = self.text.get(identity, "") + " " + data


def rows_of(page: Page, section: str) -> str:
    return re.sub(r"\s+", " ", page.text[section])


def test_the_page_stands_alone(reported_run: RunFolder) -> None:
    page = Page(reported_run.report_file)
    for tag, name, value in page.attributes:
        assert tag not in ("script", "link", "iframe", "img", "object")
        if name in ("href", "src", "xlink:href"):
            assert value.startswith(("#", "data:")), (tag, name, value[:80])
        elif not name.startswith("xmlns"):
            assert "://" not in value, (tag, name, value[:80])
    assert "@import" not in page.source and "url(http" not in page.source
    repeated = {identity for identity in page.ids if page.ids.count(identity) > 1}
    assert not repeated
    for _, name, value in page.attributes:
        for reference in re.findall(r"url\(#([^)]+)\)", value) + (
            [value[1:]] if name == "xlink:href" and value.startswith("#") else []
        ):
            assert reference in page.ids


def test_the_numbers_are_those_of_the_tables(reported_run: RunFolder) -> None:
    folder = reported_run
    page = Page(folder.report_file)
    messages = folder.read_summary().messages
    table = rows_of(page, "messages")
    lost = f"{messages.lost:,} {100 * messages.lost / (messages.sent + messages.duplicated):.2f} %"
    for text in (f"{messages.sent:,}", f"{messages.sent + messages.duplicated:,} 100.00 %", lost):
        assert text in table
    returns = folder.read_table(EPISODES)["return_mean_per_agent"]
    assert f"to {returns[-2:].mean():.3f} (last 2 episodes)" in rows_of(page, "verdict")
    assert "world.agents 12" in rows_of(page, "settings")
    assert "f2a2-sim run run/scenario.yaml" in rows_of(page, "reproduce")
    assert "raspberry_pi_5 3 " in rows_of(page, "devices")
    assert "banner" not in page.text
    assert "consensus.dual_decay" in page.text["consensus"]
    for word in ("staleness", "virtual time", "disagreement"):
        assert word in page.text["glossary"]


def test_the_same_folder_gives_the_same_page(reported_run: RunFolder) -> None:
    first = reported_run.report_file.read_bytes()
    assert write_report(reported_run.path).read_bytes() == first


def test_a_world_without_fights_has_no_such_section(make_run: Any) -> None:
    page = Page(write_report(make_run(battle=False, baseline=False).path))
    assert "fighting" not in page.text
    assert "random policy's" not in page.text["verdict"]
    assert "nan" not in page.text["messages"].lower()
    assert "dashed" not in page.text["learning"].lower()


@pytest.mark.parametrize("status", ["interrupted", "running"])
def test_an_unfinished_run_says_so(make_run: Any, status: str) -> None:
    page = Page(write_report(make_run(status=status).path))
    assert "f2a2-sim resume run" in page.text["banner"]


def test_a_killed_run_has_a_page_of_what_its_checkpoint_wrote(make_run: Any) -> None:
    folder = make_run()
    folder.summary_file.unlink()
    folder.table_file(LINKS).unlink()
    (folder.path / "tables" / "devices.parquet").unlink()
    page = Page(write_report(folder.path))
    assert "last checkpoint" in page.text["banner"]
    assert "graph" not in page.text and "devices" not in page.text
    assert f"{folder.read_table(METRICS)['sent'][-1]:,}" in page.text["messages"]


def test_a_run_that_recorded_nothing_says_so(make_run: Any) -> None:
    folder = make_run()
    folder.summary_file.unlink()
    for schema in (METRICS, EPISODES, TIMELINE):
        folder.write_table(schema, {name: column[:0] for name, column in folder.read_table(schema).items()})
    with pytest.raises(UsageError, match="recorded nothing yet"):
        write_report(folder.path)


def test_a_run_cut_short_in_its_first_episode_has_a_page(make_run: Any) -> None:
    folder = make_run(status="interrupted")
    for schema, keep in ((METRICS, 1), (EPISODES, 0), (TIMELINE, 0)):
        folder.write_table(
            schema, {name: column[:keep] for name, column in folder.read_table(schema).items()}
        )
    folder.summary_file.unlink()
    page = Page(write_report(folder.path))
    assert "No episode has ended yet" in page.text["verdict"]
    assert {"learning", "fighting", "timeline", "messages"}.isdisjoint(page.text)


@pytest.mark.parametrize(
    ("settings", "pictures"),
    [
        (dict(agents=12), {"graph-": True, "matrix-": False}),
        (dict(agents=30, complete=True), {"graph-": True, "matrix-": True}),
        (dict(agents=100, complete=True, episodes=2), {"graph-": False, "matrix-": True}),
    ],
)
def test_dense_graphs_are_matrices(
    make_run: Any, settings: dict[str, Any], pictures: dict[str, bool]
) -> None:
    page = Page(write_report(make_run(**settings).path))
    for prefix, there in pictures.items():
        assert any(identity.startswith(prefix) for identity in page.ids) == there


def test_a_sparse_graph_that_is_no_ring_is_drawn(make_run: Any) -> None:
    folder = make_run(agents=40)
    links = folder.read_table(LINKS)
    ring = np.abs(links["sender"] - links["receiver"]) % 38 <= 1
    links["currently_connected"] = ~ring
    links["sent"][0] = 0
    folder.write_table(LINKS, links)
    page = Page(write_report(folder.path))
    assert f"40 agents and {int((~ring).sum()) // 2:,} connections" in page.text["graph"]


def test_names_are_escaped(make_run: Any) -> None:
    page = write_report(make_run(scenario="<b>&x").path).read_text()
    assert "<b>&x" not in page and "&lt;b&gt;&amp;x" in page


def test_what_is_no_run_is_refused_and_nothing_is_written(tmp_path: Path, make_run: Any) -> None:
    with pytest.raises(UsageError):
        write_report(tmp_path)
    folder = make_run()
    folder.table_file(METRICS).write_bytes(b"PAR1 broken")
    with pytest.raises(UsageError, match=r"metrics\.parquet"):
        write_report(folder.path)
    assert not folder.report_file.exists()


def test_comparison_sets_runs_side_by_side(tmp_path: Path, make_run: Any) -> None:
    first = make_run("one", episodes=6)
    second = make_run("two", episodes=8, agents=16, seed=4)
    out = write_comparison([first.path, second.path], tmp_path / "comparison.html")
    page = Page(out)
    assert "world.agents 12 16" in rows_of(page, "differing")
    assert "seed 0 4" in rows_of(page, "figures")
    ends = [run.read_table(EPISODES)["return_mean_per_agent"] for run in (first, second)]
    assert f"{ends[0][-1]:.3f}" in page.text["figures"]
    assert "Hits per episode" in page.text["curves"]
    assert not any(value.startswith("http") for _, name, value in page.attributes if "href" in name)


def test_comparison_of_one_run_or_the_same_twice_is_refused(tmp_path: Path, make_run: Any) -> None:
    folder: RunFolder = make_run()
    with pytest.raises(UsageError, match="two run folders"):
        write_comparison([folder.path], tmp_path / "c.html")
    with pytest.raises(UsageError, match="named twice"):
        write_comparison([folder.path, folder.path], tmp_path / "c.html")


def test_runs_of_one_name_are_told_apart_by_their_parents(tmp_path: Path, make_run: Any) -> None:
    runs = [make_run(f"{parent}/same", episodes=2).path for parent in ("a", "b")]
    page = write_comparison(runs, tmp_path / "c.html").read_text()
    assert "a/same" in page and "b/same" in page
