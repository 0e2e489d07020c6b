"""What a process finds of its machine."""

from __future__ import annotations

import logging

import pytest
import torch

from mmembed.training.distributed import check_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("precision", "found", "warned"),
    [
        ("bf16", {"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": False}, True),
        ("fp32", {"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": False}, False),
        ("bf16", {"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": False}, False),
        ("bf16", {"architecture": "aarch64"}, False),
    ],
)
def test_bf16_without_products_in_it_is_told(
    precision: str,
    found: dict[str, object],
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    with caplog.at_level(logging.WARNING):
        check_precision(precision, CPU)  # type: ignore[arg-type]
    assert ("no products in bf16" in caplog.text) == warned


def test_this_machine_can_be_asked() -> None:
    assert "architecture" in torch.cpu.get_capabilities()
