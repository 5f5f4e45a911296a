"""Makes a topic of six partitions with settings of its own.

create_topic.py BOOTSTRAP TOPIC NAME=VALUE...
"""

import sys

from kafka.admin import KafkaAdminClient, NewTopic

bootstrap, topic, *settings = sys.argv[1:]
settings = dict(setting.split("=", 1) for setting in settings)
admin = KafkaAdminClient(bootstrap_servers=bootstrap)
answer = admin.create_topics([NewTopic(topic, 6, 1, topic_configs=settings)])
failed = [error for error in answer.topic_errors if error[1] != 0]
if failed:
    sys.exit(f"not created: {failed}")
admin.close()
