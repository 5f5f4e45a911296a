#!/usr/bin/env bash
# Installs what is missing for `make run`, `make up` or `make test`, and nothing else. Safe to repeat: a second run
# finds everything there and takes a fraction of a second.
#
#   scripts/setup.sh run     what the embedded default needs: Postgres, and a C++ compiler for librdkafka
#   scripts/setup.sh up      that, HAProxy, Java and Kafka's jars
#   scripts/setup.sh test    that, the test clients (mosquitto, Python), faketime, protoc
#
# Packages come by apt where that is possible (root, or sudo); elsewhere it says which to install and stops.
# Without Kafka's jars `test` goes on (what is left then runs on the embedded cluster), unless
# SHOPFLOOR_REQUIRE_REAL=1.
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1:?usage: scripts/setup.sh run|up|test}
venv=.run/venv
# Its own: half a hundred packages that the clients of the other one must not meet.
schemathesis=.run/schemathesis
missing=()

need() { # package, and the command that succeeds when it is there
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}
has_postgres() { [ -x /usr/lib/postgresql/15/bin/postgres ] || command -v postgres; }
has_haproxy() { command -v haproxy || [ -x /usr/sbin/haproxy ]; }
has_java() { java -version 2>&1 | grep -Eq 'version "(1[7-9]|[2-9][0-9])'; }
has_jars() { cmp -s scripts/kafka/pom.xml .run/kafka/lib/pom.xml; }
has_venv() { cmp -s tests/python/requirements.txt "$venv/requirements.txt"; }
has_schemathesis() { cmp -s tests/python/schemathesis.txt "$schemathesis/requirements.txt"; }
has_faketime() { compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1'; }
has_maven() { has_jars || command -v mvn; }
has_venv_module() { { has_venv && has_schemathesis; } || python3 -c 'import ensurepip, venv'; }

find_missing() {
    missing=()
    need gcc command -v cc
    need g++ command -v g++
    need make command -v make
    need postgresql-15 has_postgres
    if [ "$what" = run ]; then return; fi
    need haproxy has_haproxy
    need openjdk-17-jre-headless has_java
    need maven has_maven
    if [ "$what" = up ]; then return; fi
    need mosquitto-clients command -v mosquitto_pub
    need faketime has_faketime
    need protobuf-compiler command -v protoc
    need python3-venv has_venv_module
}

install_missing() {
    local as_root=()
    if [ "$(id -u)" != 0 ]; then
        as_root=(sudo)
        # Without a terminal nobody could type a password.
        if ! command -v sudo >/dev/null || { [ ! -t 0 ] && ! sudo -n true 2>/dev/null; }; then
            return 1
        fi
    fi
    command -v apt-get >/dev/null || return 1
    echo "setup: installing ${missing[*]}"
    # Debian starts a cluster of its own with the package; ours are private ones.
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        "${as_root[@]}" mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' | "${as_root[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
    fi
    "${as_root[@]}" apt-get update -q
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends \
        -o Dpkg::Options::=--force-confold "${missing[@]}"
}

packages() {
    find_missing
    if [ ${#missing[@]} = 0 ]; then return; fi
    if ! install_missing; then
        echo "setup: this needs packages that it may not install. On Debian 12, as root:" >&2
        echo "    apt-get install ${missing[*]}" >&2
        exit 1
    fi
    find_missing
    if [ ${#missing[@]} != 0 ]; then
        echo "setup: installed, and still not found: ${missing[*]}" >&2
        exit 1
    fi
}

kafka() {
    if scripts/kafka-jars.sh; then return; fi
    if [ "$what" = test ] && [ "${SHOPFLOOR_REQUIRE_REAL:-}" != 1 ]; then
        cat >&2 <<'END'
*************************************************************************************
* Apache Kafka's jars cannot be had here. The tests that want real Kafka DO NOT RUN; *
* the whole way is tested on the embedded cluster only, NOT on what production uses. *
* SHOPFLOOR_REQUIRE_REAL=1 makes this a failure.                                    *
*************************************************************************************
END
        return
    fi
    echo "setup: Apache Kafka's jars cannot be had: see Maven's message above" >&2
    exit 1
}

python() {
    if has_venv; then return; fi
    echo "setup: making $venv"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --requirement tests/python/requirements.txt
    if ! "$venv/bin/python" -c 'import kafka, paho.mqtt.client'; then
        echo "setup: kafka-python 2.0.2 does not work with $(python3 --version): put Python 3.9 to 3.11 first on PATH" >&2
        exit 1
    fi
    cp tests/python/requirements.txt "$venv/requirements.txt"
}

schemathesis() {
    if has_schemathesis; then return; fi
    echo "setup: making $schemathesis"
    rm -rf "$schemathesis"
    python3 -m venv "$schemathesis"
    "$schemathesis/bin/pip" install --quiet --requirement tests/python/schemathesis.txt
    cp tests/python/schemathesis.txt "$schemathesis/requirements.txt"
}

if ! command -v cargo >/dev/null; then
    echo "setup: cargo is not installed: https://rustup.rs says how" >&2
    exit 1
fi
case $what in run | up | test) ;; *) echo "usage: scripts/setup.sh run|up|test" >&2 && exit 2 ;; esac
packages
if [ "$what" != run ]; then kafka; fi
if [ "$what" = test ]; then
    python
    schemathesis
fi
