"""A model hub with one repository, for a board that reaches no other machine.

tests/hub/server.rs plays the whole hub, with its redirects and faults, against gemmad and the hub's own client; this is the part of it that
a pull without trouble asks for.
"""
import contextlib
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "b0a2" * 10


class Hub:
    """Serves the files of a folder as the repository NAME, at one commit."""

    def __init__(self, name, folder):
        files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "README.md"}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *arguments: Answer(name, files, *arguments))
        self.port = self.server.server_port

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, name, files, *arguments):
        self.name, self.files = name, files
        super().__init__(*arguments)

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        if path in (f"/api/models/{self.name}/revision/main", f"/api/models/{self.name}/revision/{COMMIT}"):
            return self.give(200, json.dumps(self.listing()).encode(), {"Content-Type": "application/json"})
        file = path.removeprefix(f"/{self.name}/resolve/{COMMIT}/")
        if file == path or file not in self.files:
            return self.give(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        return self.give_file(self.files[file])

    do_HEAD = do_GET

    def listing(self):
        files = [{"rfilename": name, "size": len(contents),
                  "lfs": {"sha256": hashlib.sha256(contents).hexdigest(), "size": len(contents), "pointerSize": 130}}
                 for name, contents in sorted(self.files.items())]
        return {"id": self.name, "modelId": self.name, "sha": COMMIT, "private": False, "gated": False, "disabled": False,
                "tags": [], "cardData": {"license": "apache-2.0"}, "siblings": files}

    def give_file(self, contents):
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(contents).hexdigest()}"', "Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range", "").removeprefix("bytes=")
        if not wanted:
            return self.give(200, contents, headers)
        first, last = wanted.split("-")
        end = min(int(last) + 1, len(contents)) if last else len(contents)
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(contents)}"
        return self.give(206, contents[int(first):end], headers)

    def give(self, status, body, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            with contextlib.suppress(OSError):  # a client that goes away is the client's business
                self.wfile.write(body)

    def log_message(self, *_):
        pass
