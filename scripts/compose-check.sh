#!/usr/bin/env bash
# Whether compose/ is valid, and whether it refuses to start without passwords.
set -euo pipefail
cd "$(dirname "$0")/../compose"

if ! docker compose version >/dev/null 2>&1; then
    echo "compose-check: skipped, this machine's docker has no compose plugin (apt-get install docker-compose-plugin)"
    exit 0
fi
secrets=(POSTGRES_PASSWORD SHOPFLOOR_INTERNAL_TOKEN MQTT_USER MQTT_PASSWORD)
for secret in "${secrets[@]}"; do export "$secret=checked"; done
docker compose --env-file /dev/null config --quiet
for secret in "${secrets[@]}"; do
    if env -u "$secret" docker compose --env-file /dev/null config --quiet 2>/dev/null; then
        echo "compose-check: it would start without $secret" >&2
        exit 1
    fi
done
echo "compose-check: valid, and nothing starts without its passwords"
