"""Produces the lines of stdin to a topic, one record each: `key TAB value`. Ends when all are acknowledged; a topic that
is made by the first record has no leader for a moment, so it retries.

produce.py BOOTSTRAP TOPIC
"""

import sys

from kafka import KafkaProducer

bootstrap, topic = sys.argv[1:]
producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", retries=50)
sent = []
for line in sys.stdin.buffer:
    key, value = line.rstrip(b"\n").split(b"\t", 1)
    sent.append(producer.send(topic, key=key, value=value))
for future in sent:
    future.get(30)
