"""Signs a webhook as LiveKit does, with the official Python server SDK.

usage: webhook.py KEY SECRET TTL_SECONDS BODY
"""

import base64
import datetime
import hashlib
import sys

from livekit import api

key, secret, ttl, body = sys.argv[1:]
digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
token = api.AccessToken(key, secret).with_ttl(datetime.timedelta(seconds=int(ttl))).with_sha256(digest)
print(token.to_jwt())
