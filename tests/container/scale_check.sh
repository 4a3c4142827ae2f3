#!/usr/bin/env bash
# Three nodes of `docker compose --profile scale up`, which have just started and hold nothing yet, are one
# service to a client of nginx, and remain one while a node is killed and comes back. CONTAINER is the
# name or the id of any container of the project; the rest is found by `docker`.
set -euo pipefail
: "${CONTAINER:?the name or the id of a container of the project}"

POSTS=30
# More than one for each node, so that each is asked.
READS=12
WAIT_SECONDS_MAX=20

fail() {
    printf 'scale_check: %s\n' "$*" >&2
    exit 1
}

# The id of a service's container.
container() {
    docker ps --all --quiet --filter "label=com.docker.compose.project=$project" \
        --filter "label=com.docker.compose.service=$1"
}

ask() {
    curl --silent --show-error --noproxy '*' --max-time 5 --write-out '\n%{http_code}' "$@"
}

post_all() {
    for _ in $(seq "$POSTS"); do
        answer=$(ask --header 'Content-Type: application/json' "$url/transactions" \
            --data "{\"amount\":0.10,\"currency\":\"CHF\",\"timestamp\":$(date +%s%3N)}")
        [ "${answer##*$'\n'}" = 201 ] || fail "POST /transactions: $answer"
    done
}

# Whether whichever node is asked says that so many were counted, by so many nodes.
all_count() {
    for _ in $(seq "$READS"); do
        answer=$(ask "$url/stats?currency=CHF")
        [ "${answer##*$'\n'}" = 200 ] || fail "GET /stats: $answer"
        case $answer in
            *"\"count\":$1,"*"\"nodes\":$2,"*'"degraded":false'*) ;;
            *) return 1 ;;
        esac
    done
}

is_healthy() {
    [ "$(docker inspect --format '{{.State.Health.Status}}' "$1")" = healthy ]
}

wait_until() {
    local deadline=$((SECONDS + WAIT_SECONDS_MAX))
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || fail "in vain: $*; ${answer-}"
        sleep 0.1
    done
}

project=$(docker inspect --format '{{index .Config.Labels "com.docker.compose.project"}}' "$CONTAINER")
url=http://$(docker port "$(container nginx)" 8080)
node=$(container millrace-2)

post_all
wait_until all_count "$POSTS" 3
echo "three nodes: $answer"

docker kill "$node" >/dev/null
# Nothing is in flight, so nothing is lost.
post_all
for _ in $(seq "$READS"); do
    answer=$(ask "$url/stats")
    [ "${answer##*$'\n'}" = 200 ] || fail "GET /stats with a node killed: $answer"
done
echo "one killed: $answer"

docker start "$node" >/dev/null
wait_until is_healthy "$node"
wait_until all_count $((2 * POSTS)) 3
echo "three again: $answer"
answer=$(ask "$url/transactions?currency=CHF&page=1&page_size=1")
case $answer in
    *"\"total\":$((2 * POSTS)),"*) ;;
    *) fail "not all are found: $answer" ;;
esac

echo 'scale_check: passed'
