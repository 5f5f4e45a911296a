#!/usr/bin/env bash
# Apache Kafka's jars by Maven into .run/kafka/lib. Does nothing when they are there.
set -euo pipefail
cd "$(dirname "$0")/.."

pom=scripts/kafka/pom.xml
lib=.run/kafka/lib
if cmp -s "$pom" "$lib/pom.xml"; then
    exit 0
fi
if ! command -v mvn >/dev/null; then
    echo "Kafka's jars: Maven is not installed (apt-get install maven)" >&2
    exit 1
fi
echo "Kafka's jars: getting them by Maven (about 80 MB, once)"
rm -rf "$lib.unfinished"
mkdir -p "$lib.unfinished"
mvn --quiet --batch-mode --file "$pom" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$PWD/$lib.unfinished"
# Last, and with the folder's name: a download that was cut off is begun again.
cp "$pom" "$lib.unfinished/pom.xml"
rm -rf "$lib"
mv "$lib.unfinished" "$lib"
