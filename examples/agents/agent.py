"""A scripted agent: AGENT WORKSPACE FILE TEXT. It does what a coding agent does, without a model.

It starts `lockhouse mcp`, acquires the lock of the workspace, asks the hook before it writes the file, saves the text in
the back end with its fence, and releases the lock.
"""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request


class Tools:
    """The tools of `lockhouse mcp`, on lines of JSON."""

    def __init__(self, name):
        program = os.environ.get("LOCKHOUSE_BIN", "lockhouse")
        self.server = subprocess.Popen([program, "mcp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.number = 0
        self.request("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": name, "version": "1"}})
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def send(self, message):
        self.server.stdin.write(json.dumps(message) + "\n")
        self.server.stdin.flush()

    def request(self, method, params):
        self.number += 1
        self.send({"jsonrpc": "2.0", "id": self.number, "method": method, "params": params})
        while True:
            message = json.loads(self.server.stdout.readline())
            if message.get("id") == self.number:
                return message["result"]
            print("notification:", message["params"]["data"]["text"])

    def call(self, name, **arguments):
        result = self.request("tools/call", {"name": name, "arguments": arguments})
        print(f"{name}:", result["content"][0]["text"])
        return result["structuredContent"]

    def close(self):
        self.server.stdin.close()
        self.server.wait()


def write(file, text):
    """Writes the file, if the hook lets it pass."""
    call = {"tool_name": "Write", "tool_input": {"file_path": file, "content": text}, "cwd": os.getcwd()}
    hook = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hook")
    asked = subprocess.run([hook], input=json.dumps(call), text=True, stderr=subprocess.PIPE)
    if asked.returncode == 0:
        with open(file, "w") as out:
            out.write(text)
    print(f"write {file}:", asked.stderr.strip() or "written")


def save(workspace, fence, text):
    """Saves in the back end."""
    headers = {"Authorization": "Bearer " + os.environ["LOCKHOUSE_TOKEN"], "X-Lock-Fence": str(fence)}
    url = f"{os.environ['BACK_END']}/documents/{workspace}"
    request = urllib.request.Request(url, text.encode(), headers, method="PUT")
    try:
        with urllib.request.urlopen(request) as response:
            print("save:", response.status)
    except urllib.error.HTTPError as error:
        print("save:", error.code, error.read().decode())


def main(name, workspace, text):
    tools = Tools(name)
    write(workspace, text)
    acquired = tools.call("lock_acquire", workspace=workspace, note="an example")
    # A careless agent tries it in any case.
    write(workspace, text)
    save(workspace, acquired["fence"], text)
    if acquired["acquired"]:
        print("holds it", flush=True)
        # Here a person may take over.
        sys.stdin.readline()
        write(workspace, text + " And more.")
        save(workspace, acquired["fence"], text + " And more.")
        tools.call("lock_release", workspace=workspace)
    tools.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
