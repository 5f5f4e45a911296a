"""The rules must refuse what the migration client refuses: a test that accepts everything proves nothing."""

import json
import unittest

from migration_client import Refused, accept

STAMP = {"isDeleted": False, "lastUpdate": "2023-12-10 00:00:01.0000000"}
UNIT = {"machineId": 1, "partId": 4, "var5": False, "timeOfProduction": "2023-12-10T00:00:00.000Z", **STAMP}
ACCEPTED = {
    "supply_chain": UNIT,
    "material": {"id": 1, "name": "iron", **STAMP},
    "part_information": {"id": 1, "timeToProduce": 3.5, **STAMP},
    "machine": {"id": 50, **STAMP},
    "material_prices": {"id": 1, "price": "9.91", "date": "01-01-2010", "material": {"id": 1}, **STAMP},
    "sales": {"contract_number": 1, "client_name": "a", "date": "2023-12-10", "cash": [1.5], "parts": [1], **STAMP},
}
MISSING = object()
REFUSED = [
    ("supply_chain", "isDeleted", MISSING),
    ("supply_chain", "isDeleted", "false"),
    ("supply_chain", "lastUpdate", MISSING),
    ("supply_chain", "lastUpdate", "2023-12-10T00:00:01.0000000"),
    ("supply_chain", "lastUpdate", "2023-13-10 00:00:01.0000000"),
    ("supply_chain", "machineId", 0),
    ("supply_chain", "machineId", True),
    ("supply_chain", "partId", "4"),
    ("supply_chain", "var5", 0),
    ("supply_chain", "var5", MISSING),
    ("supply_chain", "timeOfProduction", 1702166400),
    ("supply_chain", "timeOfProduction", "2023-12-10 00:00:00.000Z"),
    ("supply_chain", "timeOfProduction", "2023-02-30T00:00:00.000Z"),
    ("supply_chain", "materialIdODS", 1),
    ("material", "id", 2**31),
    ("material", "name", "x" * 256),
    ("material", "name", MISSING),
    ("part_information", "timeToProduce", "3"),
    ("machine", "id", MISSING),
    ("material_prices", "material", 1),
    ("sales", "cash", ["1"]),
]


class Rules(unittest.TestCase):
    def test_what_the_client_takes_is_accepted(self):
        for topic, record in ACCEPTED.items():
            with self.subTest(topic):
                self.assertEqual(accept(topic, json.dumps(record).encode()), record)

    def test_each_broken_field_is_refused(self):
        for topic, field, value in REFUSED:
            record = {**ACCEPTED[topic], field: value}
            if value is MISSING:
                del record[field]
            with self.subTest(f"{topic}.{field}={value}"), self.assertRaises(Refused):
                accept(topic, json.dumps(record).encode())

    def test_what_kills_the_client_is_refused(self):
        for value in [None, b"", b"{", b"7", b"[]", b"\xff{}"]:
            with self.subTest(value), self.assertRaises(Refused):
                accept("supply_chain", value)

    def test_a_delete_needs_the_key_only(self):
        key = {name: UNIT[name] for name in ["machineId", "partId", "timeOfProduction"]}
        accept("supply_chain", json.dumps({**key, "isDeleted": True}).encode())
        with self.assertRaises(Refused):
            accept("supply_chain", json.dumps({**key, "partId": None, "isDeleted": True}).encode())


if __name__ == "__main__":
    unittest.main()
