#!/usr/bin/env bash
# What a client sees of a container that has just started and holds nothing yet, at BASE_URL.
set -euo pipefail
: "${BASE_URL:?the address of the service, such as http://127.0.0.1:8000}"

TRANSACTIONS=10

fail() {
    printf 'check: %s\n' "$*" >&2
    exit 1
}

# The answer's body, and its status on a line of its own.
ask() {
    curl --silent --show-error --noproxy '*' --max-time 5 --write-out '\n%{http_code}' "$@"
}

# $1: a JSON value for "amount".
post() {
    ask --header 'Content-Type: application/json' "$BASE_URL/transactions" \
        --data "{\"amount\":$1,\"currency\":\"EUR\",\"timestamp\":$(date +%s%3N)}"
}

expect_status() {
    local wanted=$1 answer=$2 what=$3
    [ "${answer##*$'\n'}" = "$wanted" ] || fail "$what: expected $wanted, got: $answer"
}

answer=$(ask "$BASE_URL/readyz")
expect_status 200 "$answer" 'GET /readyz'

answer=$(ask "$BASE_URL/stats")
case $answer in
    *'"count":0,'*) ;;
    *) fail "the service is not empty: $answer" ;;
esac

for _ in $(seq "$TRANSACTIONS"); do
    answer=$(post 0.10)
    expect_status 201 "$answer" 'POST /transactions'
done

# Compared as text: parsed, an inexact sum such as 0.9999999999999999 might pass for 1.
answer=$(ask "$BASE_URL/stats")
expect_status 200 "$answer" 'GET /stats'
case $answer in
    *'"EUR":{"sum":1.00,"avg":0.10,"max":0.10,"min":0.10,"count":10}'*) ;;
    *) fail "ten times 0.10 EUR: $answer" ;;
esac

answer=$(post '"ten"')
expect_status 422 "$answer" 'POST /transactions with a wrong amount'
case $answer in
    *'"pointer":"/amount"'*) ;;
    *) fail "the problem does not point at the field: $answer" ;;
esac

answer=$(ask --dump-header - --header 'X-Request-ID: container-check' "$BASE_URL/health")
grep -qi $'^x-request-id: container-check\r$' <<<"$answer" || fail "X-Request-ID is not echoed: $answer"

echo 'check: passed'
