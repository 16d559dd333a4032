"""Which Ray: the caller's before all, embedded for "local" and for nothing, else a cluster."""

import pytest

from distdqn.machine.joined import RayChoice, which_ray


@pytest.mark.parametrize(
    ("address", "in_shell", "choice"),
    [
        (None, None, RayChoice("embedded")),
        (None, "", RayChoice("embedded")),
        ("", None, RayChoice("embedded")),
        ("local", None, RayChoice("embedded")),
        ("local", "head:6379", RayChoice("embedded")),
        (None, "local", RayChoice("embedded")),
        ("auto", "local", RayChoice("embedded")),
        ("auto", None, RayChoice("cluster", "auto")),
        ("auto", "head:6379", RayChoice("cluster", "head:6379", from_shell=True)),
        (None, "head:6379", RayChoice("cluster", "head:6379", from_shell=True)),
        ("other:1", "head:6379", RayChoice("cluster", "other:1")),
    ],
)
def test_where_no_ray_is_joined_yet(apart, monkeypatch, address, in_shell, choice):
    if in_shell is not None:
        monkeypatch.setenv("RAY_ADDRESS", in_shell)

    assert which_ray(address) == choice
    assert ("joining" in choice.doing) == (choice.kind == "cluster")


@pytest.mark.parametrize("address", [None, "local", "nonsense"])
def test_the_callers_ray_comes_before_all(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setattr("distdqn.machine.joined.has_joined_ray", lambda: True)

    assert which_ray(address) == RayChoice("caller's")
