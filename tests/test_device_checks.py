import pytest
import torch

from pmms.device_checks import host_may_look, require


def test_a_condition_that_the_host_sees() -> None:
    require(torch.tensor(True), "all is well")
    with pytest.raises(ValueError, match="what is wrong"):
        require(torch.tensor(False), "what is wrong")


def test_what_an_accelerator_is_to_assert_comes_with_the_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pmms.device_checks.host_may_look", lambda _: False)
    require(torch.tensor(True), "all is well")
    with pytest.raises(RuntimeError, match="what is wrong"):
        require(torch.tensor(False), "what is wrong")


def test_the_host_looks_on_the_cpu_alone_and_not_while_a_graph_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert host_may_look(torch.zeros(1))
    assert not host_may_look(torch.zeros(1, device="meta"))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not host_may_look(torch.zeros(1))
    assert not host_may_look(torch.zeros(1, device="meta"))
