"""Forbids everybody to write to a topic, by an access rule.

deny_writing.py BOOTSTRAP TOPIC
"""

import sys

from kafka.admin import (
    ACL, ACLOperation, ACLPermissionType, KafkaAdminClient, ResourcePattern, ResourceType,
)

bootstrap, topic = sys.argv[1:]
admin = KafkaAdminClient(bootstrap_servers=bootstrap)
rule = ACL(
    "User:*", "*", ACLOperation.WRITE, ACLPermissionType.DENY, ResourcePattern(ResourceType.TOPIC, topic),
)
answer = admin.create_acls([rule])
if answer["failed"]:
    sys.exit(f"not set: {answer['failed']}")
admin.close()
