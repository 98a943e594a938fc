"""The families of published models."""

from __future__ import annotations

import subprocess
import sys

import pytest

import equipoise
from equipoise.errors import UserError


def test_an_unknown_family_is_answered_with_the_known() -> None:
    for error in (ValueError, UserError):
        with pytest.raises(error, match="no family 'mdec' of published models: mdeq"):
            equipoise.interop.from_reference("mdec", {}, {})


def test_a_part_of_a_network_makes_no_checkpoint() -> None:
    with pytest.raises(UserError, match="'kernel_attention' is a part of a network"):
        equipoise.interop.network_family_module("kernel_attention")


@pytest.mark.parametrize("family", equipoise.interop.NETWORKS)
def test_a_family_of_networks_offers_everything(family: str) -> None:
    module = equipoise.interop.network_family_module(family)
    assert family in equipoise.interop.FAMILIES
    for function in ("from_reference", "reference_forward", "overrides"):
        assert callable(getattr(module, function))


@pytest.mark.parametrize("family", equipoise.interop.FAMILIES)
def test_what_is_no_configuration_or_no_state_dict_is_refused(family: str) -> None:
    with pytest.raises(UserError):
        equipoise.interop.from_reference(family, [], {})  # type: ignore[arg-type]
    with pytest.raises(UserError):
        equipoise.interop.from_reference(family, {}, {})


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, equipoise; equipoise.interop; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
