#!/usr/bin/env bash
# A container stopped as an orchestrator stops it, and started again, still holds what it answered for.
# BASE_URL is the service's address, CONTAINER its container's name or id; the rest is found by `docker`.
set -euo pipefail
: "${BASE_URL:?the address of the service, such as http://127.0.0.1:8000}"
: "${CONTAINER:?the name or the id of its container}"

TRANSACTIONS=10
# Docker kills after ten seconds.
STOP_MS_MAX=9999
START_SECONDS_MAX=20
# A currency of its own, so that nobody else's transactions leave the window meanwhile.
CURRENCY=CHF

fail() {
    printf 'restart_check: %s\n' "$*" >&2
    exit 1
}

ask() {
    curl --silent --show-error --fail --noproxy '*' --max-time 5 "$@"
}

# The statistics without the instant they were taken at.
stats() {
    ask "$BASE_URL/stats?currency=$CURRENCY" | sed 's/"as_of":"[^"]*",//'
}

inspect() {
    docker inspect --format "$1" "$CONTAINER"
}

now_ms() {
    date +%s%3N
}

is_healthy() {
    [ "$(inspect '{{.State.Health.Status}}')" = healthy ]
}

# Counted from began_ms.
wait_until() {
    until "$@" 2>/dev/null; do
        [ "$(now_ms)" -lt "$((began_ms + START_SECONDS_MAX * 1000))" ] || fail "in vain: $*"
        sleep 0.02
    done
}

for _ in $(seq "$TRANSACTIONS"); do
    ask --output /dev/null --header 'Content-Type: application/json' "$BASE_URL/transactions" \
        --data "{\"amount\":0.10,\"currency\":\"$CURRENCY\",\"timestamp\":$(now_ms)}"
done
before=$(stats)
case $before in
    *"\"$CURRENCY\":{\"sum\":1.00,"*"\"count\":10}"*) ;;
    *) fail "ten times 0.10 $CURRENCY: $before" ;;
esac
echo "uid: $(docker exec "$CONTAINER" id -u)"

began_ms=$(now_ms)
docker stop -t 30 "$CONTAINER" >/dev/null
stop_ms=$(($(now_ms) - began_ms))
status=$(inspect '{{.State.ExitCode}}')
echo "stop: $stop_ms ms, exit status $status"
[ "$status" = 0 ] || fail 'the exit status is not 0'
[ "$stop_ms" -le "$STOP_MS_MAX" ] || fail 'it took too long to stop'

began_ms=$(now_ms)
docker start "$CONTAINER" >/dev/null
wait_until ask --output /dev/null "$BASE_URL/health"
echo "start: $(($(now_ms) - began_ms)) ms to the first answer"
after=$(stats)
[ "$after" = "$before" ] || fail "before the restart $before, after it $after"
echo "after the restart: $after"

wait_until is_healthy
echo "health check: passed $(($(now_ms) - began_ms)) ms after the start"

base=$(sed -n '/^FROM/{s/FROM \([^ ]*\).*/\1/p;q}' "$(dirname "$0")/../../Dockerfile")
size=$(docker image inspect --format '{{.Size}}' "$(inspect '{{.Image}}')")
# An engine that built the image need not have kept its base as an image of its own.
if base_size=$(docker image inspect --format '{{.Size}}' "$base" 2>/dev/null); then
    echo "image: $size bytes, $((size - base_size)) above $base"
else
    echo "image: $size bytes; $base is not here to compare with"
fi
echo 'restart_check: passed'
