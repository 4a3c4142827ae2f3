"""Tokens that must be refused, each beside a twin that differs in one thing and is let in."""

import base64
import json
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.issuer import (
    AUDIENCE,
    ISSUER,
    Json,
    Mint,
    ec_key,
    ec_signer,
    encode,
    hmac_signer,
    pss_signer,
    rsa_key,
    rsa_member,
    rsa_signer,
)

# On a second, as tokens tell the time in those.
NOW_MS = 1_767_323_045_000
NOW = NOW_MS // 1000

secret_mint = Mint({"alg": "HS256"}, hmac_signer(), NOW_MS)
rsa_mint = Mint({"alg": "RS256", "kid": "r1"}, rsa_signer("r1"), NOW_MS)
ec_mint = Mint({"alg": "ES256", "kid": "e1"}, ec_signer("e1"), NOW_MS)


def changed(token: str, part: int, change: Callable[[str], str]) -> str:
    parts = token.split(".")
    parts[part] = change(parts[part])
    return ".".join(parts)


def spelled(header: str = '{"alg":"HS256"}') -> str:
    """A token with a header of these very characters."""
    return secret_mint(header=header.encode())


def sized(size: int) -> str:
    """The longest token that is no longer than this."""
    tokens = (secret_mint(claims={"x": "a" * (size * 3 // 4 - n)}) for n in range(200, 400))
    return max((token for token in tokens if len(token) <= size), key=len)


def with_claims(more: str) -> str:
    usual = f'"iss":"{ISSUER}","aud":"{AUDIENCE}","scope":"stats:read"'
    return secret_mint(claims=f"{{{usual},{more}}}".encode())


GOOD = secret_mint()
EXP = f'"exp":{NOW + 9}'
SUB = '"sub":"alice"'


def unsigned(algorithm: str) -> str:
    return secret_mint(header={"alg": algorithm}, sign=lambda _: b"").removesuffix(".") + "."


def claim(twin: object, attack: object, name: str) -> tuple[str, str]:
    return secret_mint(claims={name: twin}), secret_mint(claims={name: attack})


def member(twin: Json, attack: Json) -> tuple[str, str]:
    return secret_mint(header=twin), secret_mint(header=attack)


SECRET_ATTACKS: dict[str, tuple[str, str]] = {
    **{f"unsigned {word!r}": (GOOD, unsigned(word)) for word in ("none", "None", "nOnE", "NONE", "")},
    "none, but signed": member({}, {"alg": "none"}),
    "no algorithm": (GOOD, secret_mint(without=["alg"])),
    "an algorithm that is a list": member({}, {"alg": ["HS256"]}),
    "an algorithm in lower case": member({}, {"alg": "hs256"}),
    "HS384 with the right secret": (
        GOOD,
        secret_mint(header={"alg": "HS384"}, sign=hmac_signer(digest="sha384")),
    ),
    "HS512 with the right secret": (
        GOOD,
        secret_mint(header={"alg": "HS512"}, sign=hmac_signer(digest="sha512")),
    ),
    "another secret": (GOOD, secret_mint(sign=hmac_signer(b"x" * 32))),
    "an empty secret": (GOOD, secret_mint(sign=hmac_signer(b""))),
    "RS256 where there is a secret": (GOOD, rsa_mint()),
    "a signature cut short": (GOOD, secret_mint(sign=lambda data: hmac_signer()(data)[:16])),
    "a signature too long": (GOOD, secret_mint(sign=lambda data: hmac_signer()(data) + b"\0")),
    "no signature": (GOOD, GOOD.rpartition(".")[0] + "."),
    "two parts": (GOOD, GOOD.rpartition(".")[0]),
    "four parts": (GOOD, GOOD + ".e30"),
    "an empty header": (GOOD, changed(GOOD, 0, lambda _: "")),
    "empty claims": (GOOD, changed(GOOD, 1, lambda _: "")),
    "nothing but dots": (GOOD, ".."),
    "another's claims": (
        GOOD,
        changed(GOOD, 1, lambda _: secret_mint(claims={"sub": "mallory"}).split(".")[1]),
    ),
    "padding": (GOOD, GOOD + "="),
    "padding of the header": (
        secret_mint(header={"x": 1}),
        changed(secret_mint(header={"x": 1}), 0, lambda part: part + "=" * (-len(part) % 4 or 4)),
    ),
    "a signature's idle bits set": (
        GOOD,
        changed(GOOD, 2, lambda part: part[:-1] + chr(ord(part[-1]) + 1)),
    ),
    "the alphabet of plain base64": (GOOD, changed(GOOD, 2, lambda part: "+/" + part[2:])),
    "a space inside": (GOOD, changed(GOOD, 1, lambda part: part[:4] + " " + part[4:])),
    "a tab inside": (GOOD, changed(GOOD, 1, lambda part: part[:4] + "\t" + part[4:])),
    "two spaces before": (GOOD, " " + GOOD),
    "quotes around": (GOOD, f'"{GOOD}"'),
    "a comma behind": (GOOD, GOOD + ","),
    "another one behind": (GOOD, f"{GOOD}, Bearer {GOOD}"),
    "a header that is a list": (spelled(), spelled("[]")),
    "a header that is no JSON": (GOOD, spelled("HS256")),
    "a header nested without end": (GOOD, spelled("[" * 5000)),
    "a header in UTF-16": (GOOD, secret_mint(header='{"alg":"HS256"}'.encode("utf-16"))),
    "an algorithm given twice": (spelled(), spelled('{"alg":"none","alg":"HS256"}')),
    "crit": member({"x": 1}, {"crit": ["x"], "x": 1}),
    "crit that is empty": member({}, {"crit": []}),
    "crit of what the library knows": member({"b64": True}, {"crit": ["b64"], "b64": True}),
    "a payload that is not encoded": member({}, {"b64": False}),
    "a payload that is not encoded, critically": member({}, {"b64": False, "crit": ["b64"]}),
    "another type of token": member({"typ": "at+jwt"}, {"typ": "logout+jwt"}),
    "a type that is no text": member({"typ": "jwt"}, {"typ": 1}),
    "a kid that is a number": member({"kid": "1"}, {"kid": 1}),
    "a token in a token": (GOOD, secret_mint(header={"cty": "JWT"}, claims=GOOD.encode())),
    "claims that are a list": (GOOD, secret_mint(claims=b"[]")),
    "claims that are no JSON": (GOOD, secret_mint(claims=b"sub=alice")),
    "claims nested without end": (GOOD, secret_mint(claims=b"[" * 4000)),
    "claims in UTF-16": (GOOD, secret_mint(claims='{"sub":"alice"}'.encode("utf-16"))),
    "a subject given twice": (
        with_claims(f"{SUB},{EXP}"),
        with_claims(f'"sub":"bob",{SUB},{EXP}'),
    ),
    **{f"no {name}": (GOOD, secret_mint(without=[name])) for name in ("exp", "iss", "aud", "sub")},
    **{
        f"{name} that is null": (GOOD, secret_mint(claims={name: None}))
        for name in ("exp", "iss", "aud", "sub", "nbf", "iat", "scope")
    },
    "an expiry that is text": claim(NOW + 9, str(NOW + 9), "exp"),
    "an expiry that is true": claim(NOW + 9, True, "exp"),
    "an expiry that is a list": claim(NOW + 9, [NOW + 9], "exp"),
    "an expiry that never comes": (with_claims(f"{SUB},{EXP}"), with_claims(f'{SUB},"exp":1e999')),
    "an expiry that is infinite": (with_claims(f"{SUB},{EXP}"), with_claims(f'{SUB},"exp":Infinity')),
    "an expiry that is no number": (with_claims(f"{SUB},{EXP}"), with_claims(f'{SUB},"exp":NaN')),
    "an expiry of 5000 digits": (
        with_claims(f"{SUB},{EXP}"),
        with_claims(f'{SUB},"exp":{"9" * 5000}'),
    ),
    "an expiry of 100 digits": (with_claims(f"{SUB},{EXP}"), with_claims(f'{SUB},"exp":{"9" * 100}')),
    "expired": claim(NOW - 29, NOW - 30, "exp"),
    "expired by a fraction": claim(NOW - 29.5, NOW - 30.5, "exp"),
    "expired long ago": claim(NOW, 0, "exp"),
    "expired before time began": claim(NOW, -1e300, "exp"),
    "not valid yet": claim(NOW + 30, NOW + 31, "nbf"),
    "not valid for a fraction yet": claim(NOW + 29.5, NOW + 30.5, "nbf"),
    "a beginning that is no number": (
        with_claims(f'{SUB},{EXP},"nbf":0'),
        with_claims(f'{SUB},{EXP},"nbf":NaN'),
    ),
    "never valid": claim(NOW, 1e308, "nbf"),
    "a beginning that is text": claim(NOW, str(NOW), "nbf"),
    "made in the future": claim(NOW + 30, NOW + 31, "iat"),
    "made at a time that is text": claim(NOW, "now", "iat"),
    "another issuer": claim(ISSUER, "https://id.example.org", "iss"),
    "an issuer with a slash": claim(ISSUER, ISSUER + "/", "iss"),
    "an issuer in capitals": claim(ISSUER, ISSUER.upper(), "iss"),
    "a list of issuers": claim(ISSUER, [ISSUER], "iss"),
    "another audience": claim(AUDIENCE, "other", "aud"),
    "an audience that begins alike": claim(AUDIENCE, AUDIENCE + "2", "aud"),
    "a list of other audiences": claim(["other", AUDIENCE], ["other", "another"], "aud"),
    "an empty list of audiences": claim([AUDIENCE], [], "aud"),
    "a list of audiences and numbers": claim([AUDIENCE, "7"], [AUDIENCE, 7], "aud"),
    "an object of audiences": claim([AUDIENCE], {AUDIENCE: True}, "aud"),
    "a subject that is a number": claim("7", 7, "sub"),
    "a subject that is empty": claim("a", "", "sub"),
    "a subject of 129 characters": claim("a" * 128, "a" * 129, "sub"),
    "a subject of two lines": claim("a b", "a\nb", "sub"),
    "a subject with a NUL": claim("a b", "a\0b", "sub"),
    "a subject that ends in a new line": claim("a", "a\n", "sub"),
    "a subject that is half a character": claim("\U0001f600", "\ud83d", "sub"),
    "a scope that is a list": claim("stats:read", ["stats:read"], "scope"),
    "a name that is a number": claim("1", 1, "jti"),
    "more than 8 KiB": (sized(8192), sized(8194)),
    "20 kB": (GOOD, secret_mint(claims={"x": "a" * 15_000})),
}

R1_PUBLIC = rsa_key("r1").public_key()
PEM = R1_PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
DER = R1_PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
JWK = json.dumps(rsa_member("r1")).encode()
RSA_GOOD, EC_GOOD = rsa_mint(), ec_mint()
ATTACKER = "mallory"
CHAIN = [base64.b64encode(b"no certificate").decode()]


def confused(algorithm: str, secret: bytes) -> tuple[str, str]:
    """A public key used as a secret."""
    digest = algorithm.replace("HS", "sha")
    return RSA_GOOD, rsa_mint(header={"alg": algorithm}, sign=hmac_signer(secret, digest))


def embedded(**header: object) -> tuple[str, str]:
    """A header that brings along an attacker's key, and the same with the issuer's signature."""
    return rsa_mint(header=header), rsa_mint(header=header, sign=rsa_signer(ATTACKER))


def named(key_id: object) -> tuple[str, str]:
    return RSA_GOOD, rsa_mint(header={"kid": key_id})


def weak(r: int, s: int) -> tuple[str, str]:
    return EC_GOOD, ec_mint(sign=lambda _: r.to_bytes(32) + s.to_bytes(32))


ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

KEY_SET_ATTACKS: dict[str, tuple[str, str]] = {
    "the public key as a secret, PEM": confused("HS256", PEM),
    "the public key as a secret, PEM without its last line": confused("HS256", PEM.strip()),
    "the public key as a secret, DER": confused("HS256", DER),
    "the public key as a secret, JWK": confused("HS256", JWK),
    "the public key as a secret, HS384": confused("HS384", PEM),
    "the public key as a secret, HS512": confused("HS512", PEM),
    "an empty secret": confused("HS256", b""),
    "unsigned": (RSA_GOOD, rsa_mint(header={"alg": "none"}, sign=lambda _: b"").removesuffix(".") + "."),
    "an attacker's key": (RSA_GOOD, rsa_mint(sign=rsa_signer(ATTACKER))),
    "an attacker's curve key": (EC_GOOD, ec_mint(sign=ec_signer(ATTACKER))),
    "another key of the issuer": (
        rsa_mint(header={"kid": "r2"}, sign=rsa_signer("r2")),
        rsa_mint(header={"kid": "r2"}),
    ),
    "no kid": (RSA_GOOD, rsa_mint(without=["kid"])),
    "a kid that is null": named(None),
    "a kid that is a number": named(1),
    "a kid that is a list": named(["r1"]),
    "a kid that is empty": named(""),
    "a kid in capitals": named("R1"),
    "a kid that is a path": named("../../../../dev/null"),
    "a kid that is a path to the key": named("./r1"),
    "a kid that is SQL": named("r1' OR '1'='1"),
    "a kid that is a command": named("r1; cat /etc/passwd"),
    "a kid that is an address": named("http://127.0.0.1:1/keys"),
    "a kid with a NUL": named("r1\0"),
    "a kid that is half a character": named("\ud83d"),
    "a kid of 4 kB": named("r" * 4096),
    "jwk": embedded(jwk=rsa_member(ATTACKER)),
    "jwk under the issuer's name": embedded(jwk={**rsa_member(ATTACKER), "kid": "r1"}),
    "jku": embedded(jku="http://127.0.0.1:1/keys"),
    "x5u": embedded(x5u="file:///dev/stdin"),
    "x5c": embedded(x5c=CHAIN),
    "x5t": embedded(x5t=encode(b"0" * 20)),
    "all of them": embedded(
        jwk=rsa_member(ATTACKER), jku="http://127.0.0.1:1/keys", x5u="http://127.0.0.1:1/", x5c=CHAIN
    ),
    "a curve's key for RS256": (EC_GOOD, ec_mint(header={"alg": "RS256"})),
    "an RSA key for ES256": (RSA_GOOD, rsa_mint(header={"alg": "ES256"})),
    "RS256 named PS256": (RSA_GOOD, rsa_mint(header={"alg": "PS256"})),
    "PS256": (RSA_GOOD, rsa_mint(header={"alg": "PS256"}, sign=pss_signer("r1"))),
    "PS256 named RS256": (RSA_GOOD, rsa_mint(sign=pss_signer("r1"))),
    "RS512": (RSA_GOOD, rsa_mint(header={"alg": "RS512"})),
    "RS1": (RSA_GOOD, rsa_mint(header={"alg": "RS1"})),
    "EdDSA": (EC_GOOD, ec_mint(header={"alg": "EdDSA"})),
    "ES256K": (EC_GOOD, ec_mint(header={"alg": "ES256K"})),
    "ES384": (EC_GOOD, ec_mint(header={"alg": "ES384"})),
    "an RSA signature cut short": (RSA_GOOD, rsa_mint(sign=lambda data: rsa_signer("r1")(data)[:-1])),
    "an RSA signature too long": (RSA_GOOD, rsa_mint(sign=lambda data: b"\0" + rsa_signer("r1")(data))),
    "an RSA signature of zeros": (RSA_GOOD, rsa_mint(sign=lambda _: bytes(256))),
    "an RSA signature of one": (RSA_GOOD, rsa_mint(sign=lambda _: bytes(255) + b"\1")),
    "r and s are zero": weak(0, 0),
    "r is zero": weak(0, 1),
    "s is zero": weak(1, 0),
    "r and s are the order": weak(ORDER, ORDER),
    "r is the order": weak(ORDER, 1),
    "a curve's signature in DER": (
        EC_GOOD,
        ec_mint(sign=lambda data: ec_key("e1").sign(data, ECDSA(SHA256()))),
    ),
    "a curve's signature of 63 bytes": (EC_GOOD, ec_mint(sign=lambda data: ec_signer("e1")(data)[:-1])),
    "a curve's signature of 65 bytes": (
        EC_GOOD,
        ec_mint(sign=lambda data: ec_signer("e1")(data) + b"\0"),
    ),
    "a curve's signature twice": (EC_GOOD, ec_mint(sign=lambda data: ec_signer("e1")(data) * 2)),
    "another's claims": (
        EC_GOOD,
        changed(EC_GOOD, 1, lambda _: ec_mint(claims={"sub": "bob"}).split(".")[1]),
    ),
    "crit": (rsa_mint(header={"exp": 1}), rsa_mint(header={"crit": ["exp"], "exp": 1})),
    "expired": (ec_mint(claims={"exp": NOW - 29}), ec_mint(claims={"exp": NOW - 30})),
    "another audience": (rsa_mint(), rsa_mint(claims={"aud": "other"})),
    "another issuer": (rsa_mint(), rsa_mint(claims={"iss": "https://mallory.example"})),
}
