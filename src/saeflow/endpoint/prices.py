"""What calls cost: one table with its date."""

from __future__ import annotations

import re
from typing import NamedTuple

from saeflow.config.sections import Price

DATE = "2026-06"
"""When the table was taken from the providers' public lists."""

PRICES = {
    "gpt-4o": Price(input=2.50, output=10.00),
    "gpt-4o-mini": Price(input=0.15, output=0.60),
    "gpt-4.1": Price(input=2.00, output=8.00),
    "gpt-4.1-mini": Price(input=0.40, output=1.60),
    "gpt-4.1-nano": Price(input=0.10, output=0.40),
    "gpt-5": Price(input=1.25, output=10.00),
    "gpt-5-mini": Price(input=0.25, output=2.00),
    "gpt-5-nano": Price(input=0.05, output=0.40),
}
"""US dollars per million tokens."""

BATCH_DISCOUNT = 0.5
_DATED = re.compile(r"-\d{4}(-\d{2}){0,2}$")  # gpt-4o-mini-2024-07-18


class Cost(NamedTuple):
    """What tokens of one model cost; nothing is known where the prices are None."""

    price: Price | None
    discount: float = 1.0

    def usd(self, prompt_tokens: float, completion_tokens: float) -> float | None:
        """The price of a call, US dollars."""
        if self.price is None:
            return None
        return (
            self.discount
            * (prompt_tokens * self.price.input + completion_tokens * self.price.output)
            / 1e6
        )


def cost_of(model: str, override: Price | None, batch: bool) -> Cost:
    """The cost of a model's tokens: what the config says, else what the table says of the model.

    Args:
        model: its name; the provider before a slash and a date at the end are overlooked.
        override: from the config.
        batch: whether calls go through the Batch API, at half the price.
    """
    name = _DATED.sub("", model.rpartition("/")[2])
    return Cost(override or PRICES.get(name), BATCH_DISCOUNT if batch else 1.0)
