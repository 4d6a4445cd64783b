"""Who is handed to a new engine process, and when."""

from __future__ import annotations

from server.engine.trial import Trial


def test_suspects_go_in_one_by_one_and_all_others_after_them() -> None:
    trial = Trial()
    assert trial.begin(["a", "b"], ["c", "d"]) == ["a"]
    assert trial.suspect == "a"
    assert trial.over("c") == []
    assert trial.over("a") == ["b"]
    assert trial.over("a") == []
    assert trial.over("b") == ["c", "d"]
    assert trial.suspect is None


def test_who_comes_meanwhile_comes_last() -> None:
    trial = Trial()
    trial.begin(["a"], ["b"])
    assert trial.holds_back("new")
    assert trial.over("a") == ["b", "new"]
    assert not trial.holds_back("newer")


def test_without_suspects_nobody_waits() -> None:
    trial = Trial()
    assert not trial.holds_back("early")
    assert trial.begin([], ["a", "b"]) == ["a", "b"]
    assert not trial.holds_back("new")


def test_the_next_process_begins_anew() -> None:
    trial = Trial()
    trial.begin(["a", "b"], ["c"])
    trial.holds_back("new")
    assert trial.begin(["b"], ["a", "c", "new"]) == ["b"]
    assert trial.over("b") == ["a", "c", "new"]
