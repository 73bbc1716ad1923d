"""A document is changed where it is to say something else, and nowhere else."""

from __future__ import annotations

import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcml.documents import parse, with_values
from hpcml.errors import ProfileError

NEW = {"sites": {"box": {"account": "climate", "workspace": "/scratch/me"}}}


def added(before: str, after: str) -> list[str]:
    """Lines that are new; none may be gone."""
    told = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    assert [line for line in told if line.startswith("- ")] == []
    return [line[2:] for line in told if line.startswith("+ ")]


@pytest.mark.parametrize("text", ["", "# mine\n", "# mine", "---\n", "{}\n"])
def test_where_nothing_is_said_all_is_added(text: str) -> None:
    after = with_values(text, "x", NEW)
    assert parse(after, "x")[0] == NEW
    assert "# mine" in after or "mine" not in text


def test_a_new_site_stands_behind_the_others_and_all_else_stays() -> None:
    before = """\
# What is mine.
records: postgresql://me@db/hpcml   # the team's

sites:
    far:
        account:   'climate'        # until May
        accounts: {dc-gh: exalab}

    # one that is not used any more
    near: {python: /opt/python}

# the end
mlflow: {uri: https://ml.example.org}
"""
    after = with_values(before, "x", NEW)
    assert added(before, after) == [
        *("    box:", "      account: climate", "      workspace: /scratch/me"),
    ]
    assert after.index("near:") < after.index("box:") < after.index("# the end")


def test_a_value_is_replaced_where_it_stands_with_its_comment_behind_it() -> None:
    before = "sites:\n  box:\n    account: weather  # old\n    python: /usr/bin/python3\n"
    after = with_values(before, "x", NEW)
    assert after == (
        "sites:\n  box:\n    account: climate  # old\n    python: /usr/bin/python3\n"
        "    workspace: /scratch/me\n"
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "sites: {box: {python: /p}, far: {}}  # short\n",
            "sites: {box: {python: /p, account: climate, workspace: /scratch/me}, far: {}}"
            "  # short\n",
        ),
        ("sites: {}\n", "sites: {box: {account: climate, workspace: /scratch/me}}\n"),
        (
            "sites:  # none yet\nrecords: r\n",
            "sites:  # none yet\n  box:\n    account: climate\n    workspace: /scratch/me\n"
            "records: r\n",
        ),
        ("sites: ~\n", "sites: {box: {account: climate, workspace: /scratch/me}}\n"),
        (
            "sites:\n  box:\n    account:\n    workspace: ''\n",
            "sites:\n  box:\n    account: climate\n    workspace: /scratch/me\n",
        ),
        (
            "sites:\r\n  box:\r\n    python: /ü\r\n",
            "sites:\r\n  box:\r\n    python: /ü\r\n    account: climate\r\n"
            "    workspace: /scratch/me\r\n",
        ),
        (
            "sites:\n  box:\n    python: |\n      /p\n\nrecords: r\n",
            "sites:\n  box:\n    python: |\n      /p\n    account: climate\n"
            "    workspace: /scratch/me\n\nrecords: r\n",
        ),
    ],
)
def test_however_it_is_laid_out_it_is_added_to(before: str, after: str) -> None:
    assert with_values(before, "x", NEW) == after


@pytest.mark.parametrize(
    "text",
    [
        "a: &mine {box: {}}\nsites: *mine\n",
        "sites:\n  far: &far {account: a}\n  box:\n    <<: *far\n    python: /p\n  old: &o [*far]\n"
        "  box2: {account: &b x}\n  box3: *far\nother: &sites {}\nmore:\n  <<: *sites\n",
    ],
)
def test_what_others_share_is_changed_for_nobody(text: str) -> None:
    try:
        after = with_values(text, "x", NEW)
    except ProfileError as error:
        assert "cannot add to" in error.problem
        assert "account: climate" in error.advice and "box:" in error.advice
    else:
        said, before = parse(after, "x")[0], parse(text, "x")[0]
        assert {**said["sites"], "box": 0} == {**before["sites"], "box": 0}


def test_a_text_that_is_wrong_is_told_as_ever() -> None:
    with pytest.raises(ProfileError, match="x, line 2, column 1"):
        with_values("sites: {}\nsites: {}\n", "x", NEW)


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=20))
def test_any_word_is_read_as_it_was_meant(word: str) -> None:
    for before in ("", "sites: {far: {}}\n", "sites:\n  box:\n    python: p\n"):
        after = with_values(before, "x", {"sites": {"box": {"account": word}}})
        assert parse(after, "x")[0]["sites"]["box"]["account"] == word
