"""The list of currencies, where it changed of late."""

import re

import pytest

from app.core.currency import ISO_4217


@pytest.mark.parametrize("code", ["HRK", "BGN", "ANG", "CUC", "ZWL", "SLL"])
def test_a_withdrawn_code_is_out(code: str) -> None:
    assert code not in ISO_4217


@pytest.mark.parametrize("code", ["XCG", "ZWG", "SLE", "VED", "XAD"])
def test_a_new_code_is_in(code: str) -> None:
    assert code in ISO_4217


@pytest.mark.parametrize("code", ["EUR", "USD", "GBP", "JPY", "CHF", "KWD", "CLF", "XAU", "XXX"])
def test_a_code_that_has_long_been_there_is_in(code: str) -> None:
    assert code in ISO_4217


def test_every_code_is_three_capital_letters() -> None:
    assert [code for code in ISO_4217 if not re.fullmatch(r"[A-Z]{3}", code)] == []


def test_no_crypto_asset_is_in_the_list_of_iso() -> None:
    assert ISO_4217.isdisjoint({"BTC", "ETH", "USDT", "USDC"})
