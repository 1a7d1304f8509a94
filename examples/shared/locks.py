import json, os
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

LOCKHOUSE = os.environ.get("LOCKHOUSE", "http://127.0.0.1:7311")


def ask(path, body=None, **headers):
    headers["Authorization"] = "Bearer " + os.environ["LOCKHOUSE_TOKEN"]
    headers["Content-Type"] = "application/json"
    data = json.dumps(body).encode() if body else None
    with urlopen(Request(LOCKHOUSE + "/api/v1" + path, data, headers), timeout=5) as answer:
        return json.loads(answer.read() or "null")


def token_for(user_id, name):
    """A token for this user's browser, for fifteen minutes. Others see the name."""
    return ask("/tokens", {"user_id": user_id, "name": name, "ttl_ms": 900_000})["token"]


def has_lock(user_id, workspace_id, fence):
    query = f"/gate?workspace_id={quote(workspace_id, safe='')}&fence={fence}"
    try:
        ask(query, **{"X-User-Id": quote(user_id, safe="")})
        return True
    except HTTPError as refusal:
        if refusal.code == 403:
            return False
        raise
