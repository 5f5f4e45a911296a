"""A third-party MQTT publisher: paho-mqtt, 3.1.1 or 5, any QoS.

Publishes the lines of stdin to a topic and prints, one a line, the numbers (from 0) of those whose acknowledgement
came: PUBACK for QoS 1, PUBCOMP for QoS 2, handed to the socket for QoS 0. Status 3 when not all came in time.

    paho_publisher.py HOST PORT 311|5 QOS CLIENT_ID TOPIC
"""

import sys
import threading

import paho.mqtt.client as mqtt

DEADLINE_S = 120

host, port, version, qos, client_id, topic = sys.argv[1:]
payloads = [line.rstrip(b"\n") for line in sys.stdin.buffer]

client = mqtt.Client(
    mqtt.CallbackAPIVersion.VERSION2,
    client_id=client_id,
    protocol=mqtt.MQTTv5 if version == "5" else mqtt.MQTTv311,
)
connected, acknowledged, all_done = threading.Event(), {}, threading.Event()
lock = threading.Lock()


def on_connect(_client, _userdata, _flags, reason, _properties):
    if reason.is_failure:
        print(f"refused: {reason}", file=sys.stderr)
    else:
        connected.set()


def on_publish(_client, _userdata, mid, reason, _properties):
    with lock:
        acknowledged[mid] = not reason.is_failure
        if len(acknowledged) == len(payloads):
            all_done.set()


client.on_connect = on_connect
client.on_publish = on_publish
client.max_inflight_messages_set(100)
client.connect(host, int(port))
client.loop_start()
if not connected.wait(30):
    sys.exit("not connected within 30 s")
numbers = {}
for number, payload in enumerate(payloads):
    numbers[client.publish(topic, payload, qos=int(qos)).mid] = number
complete = all_done.wait(DEADLINE_S)
client.disconnect()
client.loop_stop()
with lock:
    for mid, number in numbers.items():
        if acknowledged.get(mid):
            print(number)
sys.exit(0 if complete else 3)
