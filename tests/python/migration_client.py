"""The Python migration client's way of reading Kafka, and its rules for every field.

Reads the topics with kafka-python 2.0.2 in group `g2` from the earliest offset. Each accepted record becomes one line
of JSON on stdout: topic, partition, offset, key, value. The first record that the client would refuse, or die of,
ends the process with status 3 and the reason on stderr. Ends well when its stdin is closed.

    migration_client.py BOOTSTRAP TOPIC...
"""

import json
import re
import sys
import threading
from datetime import datetime

from kafka import KafkaConsumer

GROUP = "g2"
INT_MAX = 2**31 - 1
LAST_UPDATE = re.compile(r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}\.0000000")
TIME_OF_PRODUCTION = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z")


class Refused(Exception):
    """A value that the migration client does not accept."""


def require(holds, why):
    if not holds:
        raise Refused(why)


def is_int(value, low=1, high=INT_MAX):
    # JSON's true is Python's 1.
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_date(value):
    try:
        datetime.fromisoformat(value.replace("Z", "+00:00"))
        return True
    except (AttributeError, ValueError):
        return False


def check_id(record):
    require(is_int(record.get("id")), "`id` must be an integer from 1 to 2147483647")


def check_material(record, deleted):
    check_id(record)
    if not deleted:
        name = record.get("name")
        require(isinstance(name, str) and len(name) <= 255, "`name` must be a string of at most 255 characters")


def check_part_information(record, deleted):
    check_id(record)
    if not deleted:
        require(is_number(record.get("timeToProduce")), "`timeToProduce` must be a number")


def check_machine(record, _deleted):
    check_id(record)


def check_supply_chain(record, deleted):
    require("materialIdODS" not in record, "`materialIdODS` is forbidden")
    require(is_int(record.get("machineId")), "`machineId` must be an integer of at least 1")
    require(is_int(record.get("partId")), "`partId` must be an integer of at least 1")
    time = record.get("timeOfProduction")
    require(
        isinstance(time, str) and TIME_OF_PRODUCTION.fullmatch(time) and is_date(time),
        "`timeOfProduction` must be YYYY-MM-DDTHH:MM:SS.mmmZ",
    )
    if not deleted:
        require(isinstance(record.get("var5"), bool), "`var5` must be a boolean")


def check_material_prices(record, _deleted):
    check_id(record)
    require("price" in record and "date" in record, "`price` and `date` must be there")
    material = record.get("material")
    require(isinstance(material, dict) and is_int(material.get("id")), "`material` must be an object with an `id`")


def check_sales(record, deleted):
    number, parts = record.get("contract_number"), record.get("parts")
    require(is_number(number) or (isinstance(number, str) and number.isdigit()), "`contract_number` must be numeric")
    require(isinstance(parts, list) and all(map(is_int, parts)), "`parts` must be integers")
    if not deleted:
        cash = record.get("cash")
        require(isinstance(record.get("client_name"), str), "`client_name` must be a string")
        require(is_date(record.get("date")), "`date` must be an ISO date")
        require(isinstance(cash, list) and all(map(is_number, cash)), "`cash` must be numbers")


CHECKS = {
    "material": check_material,
    "part_information": check_part_information,
    "machine": check_machine,
    "supply_chain": check_supply_chain,
    "material_prices": check_material_prices,
    "sales": check_sales,
}


def accept(topic, value):
    """The record's JSON object, or Refused."""
    require(value, "a tombstone or an empty value kills the client")
    try:
        record = json.loads(value.decode("utf-8"))
    except ValueError as error:
        raise Refused(f"no JSON in UTF-8: {error}") from error
    require(isinstance(record, dict), "the value must be one JSON object")
    deleted = record.get("isDeleted")
    require(isinstance(deleted, bool), "`isDeleted` must be a boolean")
    if not deleted:
        last_update = record.get("lastUpdate")
        require(
            isinstance(last_update, str)
            and LAST_UPDATE.fullmatch(last_update)
            and is_date(last_update[: len("YYYY-MM-DD HH:MM:SS")]),
            "`lastUpdate` must be YYYY-MM-DD HH:MM:SS.0000000",
        )
    CHECKS[topic](record, deleted)
    return record


def end_with_stdin(stopping):
    sys.stdin.read()
    stopping.set()


def main(bootstrap, topics):
    stopping = threading.Event()
    threading.Thread(target=end_with_stdin, args=(stopping,), daemon=True).start()
    consumer = KafkaConsumer(
        *topics, bootstrap_servers=bootstrap, group_id=GROUP, auto_offset_reset="earliest", consumer_timeout_ms=200
    )
    while not stopping.is_set():
        for message in consumer:
            place = f"{message.topic}[{message.partition}]@{message.offset}"
            try:
                record = accept(message.topic, message.value)
            except Refused as refused:
                print(f"{place}: {refused}: {message.value!r}", file=sys.stderr)
                sys.exit(3)
            key = None if message.key is None else message.key.decode("utf-8", "replace")
            line = {
                "topic": message.topic,
                "partition": message.partition,
                "offset": message.offset,
                "key": key,
                "value": record,
            }
            print(json.dumps(line), flush=False)
        sys.stdout.flush()
    consumer.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
