"""The worked plans of docs/plans.md: what they say is what the committed tables of brute force allow."""

import re
from pathlib import Path

import pytest

from kvplan.validate.checks import plans

DOCS = " ".join((Path(__file__).parents[1] / "docs" / "plans.md").read_text(encoding="utf-8").split())


@pytest.mark.parametrize("name", plans.WORKED)
def test_nothing_in_the_table_surely_meets_the_target_for_less(name):
    worked, table = plans.WORKED[name], plans.read_table(name)
    own = next(row for row in table if (row["store"], int(row["replicas"])) == worked.answer)
    assert own["within"] == "True"
    for row in plans.cheaper(worked, table):
        assert row["meets"] == "unclear" and int(row["seeds"]) == plans.SETTLED, row


@pytest.mark.parametrize("name", plans.WORKED)
def test_a_table_has_sizes_between_and_replicas_on_both_sides(name):
    worked, table = plans.WORKED[name], plans.read_table(name)
    counts = {int(row["replicas"]) for row in table}
    assert counts == set(worked.replicas) and min(counts) < worked.answer[1] < max(counts)
    assert len(table) == len(counts) * (2 + len(worked.drams) * len(worked.ssds))
    assert {"recompute", "prefix cache in HBM"} < {row["store"] for row in table}


@pytest.mark.parametrize("name", plans.WORKED)
def test_the_docs_print_the_answer_of_that_question(name):
    """Command, replicas, and dollars as in the table."""
    worked = plans.WORKED[name]
    assert f"``` {worked.command} ```" in DOCS
    said = DOCS.partition(f"``` {worked.command} ```")[2]
    replicas, usd = re.search(r"Cheapest: .*?, (\d+)(?: \([^)]*\))? replicas, .*?\$([\d,]+) a month", said).groups()
    assert int(replicas) == worked.answer[1]
    assert usd in {f"{float(row['usd_per_month']):,.0f}" for row in plans.read_table(name) if row["replicas"] == replicas}
