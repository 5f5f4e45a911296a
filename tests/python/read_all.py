"""Every record that a topic holds now, as a line of JSON: value (text) and headers. Joins no group.

read_all.py BOOTSTRAP TOPIC
"""

import json
import sys

from kafka import KafkaConsumer, TopicPartition

bootstrap, topic = sys.argv[1:]
consumer = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or []]
consumer.assign(partitions)
ends = consumer.end_offsets(partitions)
while any(consumer.position(partition) < ends[partition] for partition in partitions):
    for records in consumer.poll(timeout_ms=1000).values():
        for record in records:
            headers = {name: value.decode("utf-8", "replace") for name, value in record.headers}
            print(json.dumps({"value": record.value.decode("utf-8", "replace"), "headers": headers}))
consumer.close()
