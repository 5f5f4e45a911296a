"""A third-party MQTT client that gets its own messages back: paho-mqtt, over TCP or WebSocket, plain or TLS.

Takes one JSON object: host, port, transport ("tcp", "websockets"), version ("311", "5"), topic; where wanted cafile,
certfile, keyfile, user, password. Publishes a message of each QoS and prints the payloads that came back, one a line.
Status 4 when CONNACK refuses, with the reason on stderr; 5 when no TLS connection comes about; 3 when not all came.

    paho_round_trip.py '{"host": "localhost", "port": 8080, "transport": "websockets", "version": "5", "topic": "t"}'
"""

import json
import queue
import ssl
import sys

import paho.mqtt.client as mqtt

DEADLINE_S = 30

options = json.loads(sys.argv[1])
client = mqtt.Client(
    mqtt.CallbackAPIVersion.VERSION2,
    protocol=mqtt.MQTTv5 if options["version"] == "5" else mqtt.MQTTv311,
    transport=options["transport"],
)
if "cafile" in options:
    client.tls_set(options["cafile"], options.get("certfile"), options.get("keyfile"))
if "user" in options:
    client.username_pw_set(options["user"], options.get("password"))
connected, subscribed, received = queue.Queue(), queue.Queue(), queue.Queue()
client.on_connect = lambda _client, _data, _flags, reason, _properties: connected.put(reason)
client.on_subscribe = lambda _client, _data, _mid, reasons, _properties: subscribed.put(reasons)
client.on_message = lambda _client, _data, message: received.put(message.payload.decode())


def await_next(events, what):
    try:
        return events.get(timeout=DEADLINE_S)
    except queue.Empty:
        print(f"{what} did not come within {DEADLINE_S} s", file=sys.stderr)
        sys.exit(3)


try:
    client.connect(options["host"], options["port"])
except ssl.SSLError as error:
    print(error, file=sys.stderr)
    sys.exit(5)
client.loop_start()
reason = await_next(connected, "CONNACK")
if reason.is_failure:
    print(reason, file=sys.stderr)
    sys.exit(4)
client.subscribe(options["topic"], qos=2)
reasons = await_next(subscribed, "SUBACK")
if any(reason.is_failure for reason in reasons):
    print(*reasons, file=sys.stderr)
    sys.exit(4)
for qos in range(3):
    client.publish(options["topic"], f"QoS {qos}", qos=qos)
    print(await_next(received, f"the message of QoS {qos}"))
client.disconnect()
client.loop_stop()
