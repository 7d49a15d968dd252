"""A fleet for the page: a real nats-server, and two boards that only tell how they are, in the words of NATS's own protocol."""

import json
import socket
import threading
import time

from stage import free_port, wait_until

CONFIG = """
[fleet]
enabled = true
url = "nats://127.0.0.1:{port}"
role = "both"
"""

# One that always has something to do, so that no job is sent to it; and one of a version to come.
CELLAR = {
    "protocol": 1, "version": "0.1.0", "node": "cellar", "session": "C1", "role": "worker", "model": "<b>gemma</b>", "sees": True,
    "hears": True, "busy": True, "done": 41, "failed": 2, "job_ms": 1234.5, "away": 0, "came_back": 0, "poison": 0,
}
ATTIC = {**CELLAR, "protocol": 99, "version": "9.0.0", "node": "attic", "session": "A1", "role": "both", "away": 3, "poison": 1}


class Fleet:
    def __init__(self, stage):
        self.port = free_port()
        config = stage.directory / "nats.conf"
        config.write_text(f'listen: "127.0.0.1:{self.port}"\njetstream {{ store_dir: "{stage.directory / "fleet"}" }}\n')
        with open(stage.directory / "nats.log", "wb") as log:
            stage.spawn(["nats-server", "-c", str(config)], stdout=log, stderr=log)
        wait_until("nats-server listens", self._connects)
        threading.Thread(target=self._tell, daemon=True).start()

    def _connects(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def _tell(self):
        """Every two seconds, as boards do."""
        with socket.create_connection(("127.0.0.1", self.port)) as server:
            server.sendall(b'CONNECT {"verbose":false}\r\n')
            try:
                while True:
                    for member in (CELLAR, ATTIC):
                        payload = json.dumps(member).encode()
                        server.sendall(b"PUB gemmad.home.member %d\r\n%s\r\nPONG\r\n" % (len(payload), payload))
                    time.sleep(2)
            except OSError:
                pass  # the server has ended with the stage
