"""Synthetic transactions: varied, plausible, each labelled as synthetic, the same for the same seed."""

from collections.abc import Callable, Collection, Iterator, Mapping
from random import Random
from typing import Final, NamedTuple

import msgspec

from app.core.activity import Details, Product, Status, TransactionType
from app.core.money import UNITS_PER_ONE
from app.core.transaction import Transaction

Metadata = dict[str, object]

_CURRENCIES: Final = ("EUR", "USD", "GBP", "CZK", "PLN", "TRY", "SEK", "JPY")
_CURRENCY_WEIGHTS: Final = (40, 20, 14, 8, 6, 4, 4, 4)
# What one of it is worth in euros, about, so that amounts look like those of people.
_PER_EURO: Final = {"CZK": 25, "PLN": 4, "TRY": 40, "SEK": 11, "JPY": 160}
_ASSETS: Final = ("BTC", "ETH", "USDT", "USDC")
_ASSET_EUROS: Final = {"BTC": 80_000, "ETH": 3_000}

_STATUSES: Final = (Status.COMPLETED, Status.PENDING, Status.FAILED)
_STATUS_WEIGHTS: Final = (93, 5, 2)

_MERCHANTS: Final = (
    ("Café Müller", "Restaurants"),
    ("Kavárna Žižkov", "Restaurants"),
    ("Çiçek Sepeti", "Flowers"),
    ("Bäckerei Größle", "Groceries"),
    ("Żabka", "Groceries"),
    ("Αρτοποιείο Αθηνά", "Groceries"),
    ("寿司の田中", "Restaurants"),
    ("Пекарня Мария", "Groceries"),
    ("Corner Books & Co.", "Books"),
    ("O'Leary's Hardware", "Home"),
    ("Fjällräven Outlet", "Clothing"),
    ("Señor Burrito", "Restaurants"),
    ("City Bikes *Ride", "Transport"),
    ("Metro Line 9", "Transport"),
    ("Streamly Premium", "Subscriptions"),
    ("Cloud Nine Hosting", "Subscriptions"),
)
_LOCATIONS: Final = (
    *("Zürich", "Kraków", "İzmir", "Plzeň", "Göteborg", "Ιωάννινα", "Київ", "東京"),
    *("Łódź", "São Paulo", "Reykjavík", "Dublin", "Lyon", "Bolzano", "Århus", "Porto"),
)
_PEERS: Final = (
    *("Jana Nováková", "Mehmet Yıldız", "Łukasz Wójcik"),  # noqa: RUF001 - as it is written
    *("Zoë O'Brien", "Søren Kjær", "Ana Peña"),
    *("Γιώργος Παππάς", "Олена Шевченко", "山田 太郎", "Chloé Lefèvre", "Jürgen Groß", "Amal Haddad"),
)
_NETWORKS: Final = ("bitcoin", "ethereum", "solana")
_BILLERS: Final = (
    ("Stadtwerke Nord", "Electricity"),
    ("Vodárna Střed", "Water"),
    ("Fiber & Phone", "Internet"),
    ("Città Rifiuti", "Waste"),
)
_EMPLOYERS: Final = ("Acme Works s.r.o.", "Müller & Söhne", "Delivery Riders", "Blue Café")


class _Kind(NamedTuple):
    """A kind of transaction: how often it comes, whose it is, for how much, and what it says."""

    weight: int
    product: Product
    euros_max: int
    metadata: Callable[[Random, int], Metadata]
    """Made for the user of that number."""


def _card_last_four(user: int) -> str:
    """Everybody has one card."""
    return f"{user * 7919 % 10_000:04d}"


def _card(random: Random, user: int) -> Metadata:
    name, category = random.choice(_MERCHANTS)
    return {
        "merchant_name": name,
        "merchant_category": category,
        "card_last_four": _card_last_four(user),
        "location": random.choice(_LOCATIONS),
    }


def _p2p(random: Random, _user: int) -> Metadata:
    number = random.randrange(len(_PEERS))
    return {
        "peer_name": _PEERS[number],
        "peer_email": f"peer-{number}@example.com",
        "direction": random.choice(("sent", "received")),
    }


def _crypto(random: Random, _user: int) -> Metadata:
    return {
        "direction": random.choice(("buy", "sell")),
        "network": random.choice(_NETWORKS),
        "wallet_address": f"0x{random.getrandbits(160):040x}",
    }


def _top_up(random: Random, _user: int) -> Metadata:
    return {"source": random.choice(("bank transfer", "card", "cash")), "direction": "in"}


def _withdrawal(random: Random, user: int) -> Metadata:
    return {
        "location": random.choice(_LOCATIONS),
        "card_last_four": _card_last_four(user),
        "destination": "cash",
        "direction": "out",
    }


def _bill_payment(random: Random, _user: int) -> Metadata:
    name, category = random.choice(_BILLERS)
    reference = f"{random.randrange(10**10):010d}"
    return {"biller_name": name, "merchant_category": category, "reference": reference}


def _earnings(random: Random, _user: int) -> Metadata:
    return {"source": random.choice(_EMPLOYERS), "direction": "in", "month": random.randint(1, 12)}


KINDS: Final[Mapping[TransactionType, _Kind]] = {
    TransactionType.CARD: _Kind(50, Product.CARD, 120, _card),
    TransactionType.P2P: _Kind(18, Product.P2P, 200, _p2p),
    TransactionType.CRYPTO: _Kind(7, Product.CRYPTO, 2_000, _crypto),
    TransactionType.TOP_UP: _Kind(9, Product.CARD, 500, _top_up),
    TransactionType.WITHDRAWAL: _Kind(6, Product.CARD, 300, _withdrawal),
    TransactionType.BILL_PAYMENT: _Kind(6, Product.CARD, 250, _bill_payment),
    TransactionType.EARNINGS: _Kind(4, Product.EARNINGS, 4_000, _earnings),
}
"""One entry for each type of transaction: a new one is a line here."""


class Span(NamedTuple):
    """From when to when, in milliseconds since the epoch, the ends included."""

    from_ms: int
    to_ms: int


def synthetic_transactions(
    number: int, users: int, span: Span, seed: int, currencies: Collection[str]
) -> Iterator[Transaction]:
    """Make `number` transactions of `users` users, evenly over a span of time and in its order.

    Of the currencies beyond ISO 4217 they carry only those among `currencies`.
    """
    # The same again for the same seed, which no cryptographic one would be.
    random = Random(seed)  # noqa: S311 - keeps no secret
    assets = [code for code in _ASSETS if code in currencies]
    kinds, kind_weights = list(KINDS), [kind.weight for kind in KINDS.values()]
    encode = msgspec.json.Encoder(order="sorted").encode
    step = (span.to_ms - span.from_ms) / number
    for position in range(number):
        transaction_type = random.choices(kinds, kind_weights)[0]
        kind = KINDS[transaction_type]
        is_crypto = kind.product is Product.CRYPTO and assets
        currency = (
            random.choice(assets) if is_crypto else random.choices(_CURRENCIES, _CURRENCY_WEIGHTS)[0]
        )
        # Some have many transactions and most have few, as it is with people.
        user = int(random.random() ** 3 * users) + 1
        metadata = kind.metadata(random, user)
        metadata["synthetic"] = True
        status = random.choices(_STATUSES, _STATUS_WEIGHTS)[0]
        yield Transaction(
            _amount_units(random, kind.euros_max, currency),
            span.from_ms + int((position + random.random()) * step),
            currency,
            f"user-{user}",
            Details(transaction_type, kind.product, status, encode(metadata)),
        )


def _amount_units(random: Random, euros_max: int, currency: str) -> int:
    """Mostly small, now and then large, in the fractions that the currency has."""
    euros = euros_max * random.random() ** 3 + 0.5
    if currency in _ASSET_EUROS:
        return int(euros / _ASSET_EUROS[currency] * UNITS_PER_ONE)
    smallest = UNITS_PER_ONE if currency == "JPY" else UNITS_PER_ONE // 100
    return max(int(euros * _PER_EURO.get(currency, 1) * UNITS_PER_ONE) // smallest, 1) * smallest
