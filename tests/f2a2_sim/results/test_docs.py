"""docs/run_folder.md says of every column what tables.py says."""

from __future__ import annotations

from pathlib import Path

from f2a2_sim.results.tables import ALL_TABLES, markdown

DOCUMENT = Path(__file__).parents[3] / "docs" / "run_folder.md"


def test_the_document_ends_with_the_tables_as_they_are() -> None:
    assert DOCUMENT.read_text(encoding="utf-8").endswith(markdown()), (
        "docs/run_folder.md is out of date: put f2a2_sim.results.tables.markdown() at its end"
    )


def test_every_column_has_a_sentence_and_no_two_share_a_name() -> None:
    for schema in ALL_TABLES:
        assert len(set(schema.names)) == len(schema.columns)
        for column in schema.columns:
            assert column.description.endswith(".") and len(column.description) > 10, column
            if column.name.endswith("_s") and not column.name.startswith("wall"):
                assert column.unit == "s", column
            assert column.wall_clock == column.name.startswith("wall_")
