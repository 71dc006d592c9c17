"""Going on from files that no run of ours left."""

from __future__ import annotations

import pickle

import pytest
import torch

from alpamayo_r1.train.loop import go_on


class Wicked:
    """What runs when a pickle is trusted."""

    def __reduce__(self):
        return open, ("executed", "w")


class Head(torch.nn.Module):
    """Stands for the losses: a few weights on a device."""

    def __init__(self):
        super().__init__()
        self.head, self.model = torch.nn.Linear(2, 2), type("Model", (), {"device": torch.device("cpu")})()


@pytest.mark.parametrize(
    "content",
    [b"", b"text", pickle.dumps(Wicked()), pickle.dumps({"step": 1}), "list", "other", "nothing"],
)
def test_a_foreign_state_is_refused_and_never_executed(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "state.pt"
    states = {"list": [1], "nothing": {}, "other": {"losses": {"x": torch.ones(1)}, "step": 1, "next_seed": 2}}
    torch.save(states[content], file) if isinstance(content, str) else file.write_bytes(content)
    with pytest.raises(ValueError, match="is no state that `train` left"):
        go_on(Head(), file, 0)  # pyright: ignore[reportArgumentType]
    assert not (tmp_path / "executed").exists()


def test_a_state_of_ours_goes_on(tmp_path):
    head = Head()
    torch.save({"losses": head.state_dict(), "step": 7, "next_seed": 99}, tmp_path / "state.pt")
    assert go_on(head, tmp_path / "state.pt", 0) == (7, 99)  # pyright: ignore[reportArgumentType]
