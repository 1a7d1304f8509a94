"""All calls to Lockhouse. The token has the scope `service`: it may act for every user."""

import os

from lockhouse import Client

LOCKHOUSE = os.environ.get("LOCKHOUSE", "http://127.0.0.1:7311")
client = Client(LOCKHOUSE, token=os.environ["LOCKHOUSE_TOKEN"])


def token_for(user_id, name):
    """A token for this user's browser, for fifteen minutes. Others see the name."""
    return client.create_token(user_id=user_id, name=name, ttl=900).token


def has_lock(user_id, workspace_id, fence):
    return client.as_user(user_id).gate(workspace_id, fence)
