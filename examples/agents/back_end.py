"""A back end that refuses a save without the fence of the caller's lock, from people and agents alike.

GET /documents/ID, and PUT /documents/ID with Authorization and X-Lock-Fence. It asks the gate, and its database
compares fences: a save that was delayed is refused, too.
"""

import http.server
import os
import sqlite3
import urllib.error
import urllib.parse
import urllib.request

GATE = os.environ["LOCKHOUSE_URL"] + "/api/v1/gate"
DATABASE = sqlite3.connect(os.path.join(os.environ["DATA"], "documents.db"), isolation_level=None)
DATABASE.execute("CREATE TABLE IF NOT EXISTS documents (id TEXT PRIMARY KEY, text TEXT NOT NULL, fence INTEGER NOT NULL)")


def passes(headers, workspace, fence):
    query = urllib.parse.urlencode({"workspace_id": workspace, "fence": fence})
    request = urllib.request.Request(f"{GATE}?{query}", headers={"Authorization": headers.get("Authorization", "")})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status == 204
    except urllib.error.URLError:
        return False


class Documents(http.server.BaseHTTPRequestHandler):
    def answer(self, status, text=""):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        workspace = urllib.parse.unquote(self.path.removeprefix("/documents/"))
        row = DATABASE.execute("SELECT text FROM documents WHERE id = ?", [workspace]).fetchone()
        self.answer(200, row[0] if row else "")

    def do_PUT(self):
        workspace = urllib.parse.unquote(self.path.removeprefix("/documents/"))
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        fence = self.headers.get("X-Lock-Fence", "")
        if not fence.isdecimal() or not passes(self.headers, workspace, fence):
            return self.answer(409, "You do not have the lock.")
        saved = DATABASE.execute(
            "INSERT INTO documents VALUES (?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET text = ?2, fence = ?3 WHERE fence <= ?3",
            [workspace, text, int(fence)],
        )
        self.answer(204) if saved.rowcount else self.answer(409, "Somebody else has begun to edit.")


if __name__ == "__main__":
    server = http.server.HTTPServer(("127.0.0.1", int(os.environ.get("PORT", "3000"))), Documents)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
