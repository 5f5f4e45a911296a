#!/usr/bin/env bash
# Prints where `make run` and `make up` keep their data: .run/up, unless Postgres could not reach that.
# Postgres refuses to run as root, so root runs it as another user, who may not pass /root or a private home.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" = 0 ] && ! runuser -u nobody -- test -x "$PWD" 2>/dev/null; then
    elsewhere=/var/lib/shopfloor/$(basename "$PWD")-$(cksum <<<"$PWD" | cut -d' ' -f1)
    echo "data goes to $elsewhere: Postgres's user cannot reach $PWD" >&2
    echo "$elsewhere"
else
    echo .run/up
fi
