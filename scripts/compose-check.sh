#!/usr/bin/env bash
# Whether compose/ is valid, and whether it refuses to start without passwords.
set -euo pipefail
cd "$(dirname "$0")/../compose"

if ! docker compose version >/dev/null 2>&1; then
    echo "compose-check: skipped, this machine's docker has no compose plugin (apt-get install docker-compose-plugin)"
    exit 0
fi
# Valid with its passwords, refused without any one of them.
check() {
    local files=() secret
    while [[ $1 == *.yml ]]; do files+=(-f "$1"); shift; done
    for secret in "$@"; do export "$secret=checked"; done
    docker compose --env-file /dev/null "${files[@]}" config --quiet
    for secret in "$@"; do
        if env -u "$secret" docker compose --env-file /dev/null "${files[@]}" config --quiet 2>/dev/null; then
            echo "compose-check: ${files[*]} would start without $secret" >&2
            exit 1
        fi
    done
}
secrets=(POSTGRES_PASSWORD SHOPFLOOR_INTERNAL_TOKEN MQTT_USER MQTT_PASSWORD)
check docker-compose.yml "${secrets[@]}"
check docker-compose.yml identity.yml "${secrets[@]}" KEYCLOAK_ADMIN KEYCLOAK_PASSWORD SHOPFLOOR_SERVICE_SECRET
echo "compose-check: valid, and nothing starts without its passwords"
