"""The broker (a real mosquitto, which can be killed), somebody who watches it, and a tap between it and the daemon.

The tap hands every packet on and remembers which requests the daemon has acknowledged and which events the broker has: where one is
missing at the end, that tells whose loss it is. It also kills the broker at a packet of its choosing, so that something is in flight.
"""

import contextlib
import json
import os
import signal
import socket
import struct
import threading
import time

from stage import Trouble, free_port, wait_until

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ = 1, 2, 3, 4, 8, 9, 12


def string(text):
    data = text.encode() if isinstance(text, str) else text
    return struct.pack(">H", len(data)) + data


def packet(kind, flags, body):
    length, left = b"", len(body)
    while True:
        left, digit = left >> 7, left & 127
        length += bytes([digit | (128 if left else 0)])
        if not left:
            return bytes([kind << 4 | flags]) + length + body


def cut(buffer):
    """The whole packets at the start of a bytearray, which are taken out of it: (kind, flags, body, all bytes)."""
    while len(buffer) >= 2:
        length, at = 0, 1
        while True:
            if at >= len(buffer):
                return
            length |= (buffer[at] & 127) << 7 * (at - 1)
            at += 1
            if not buffer[at - 1] & 128:
                break
        if len(buffer) < at + length:
            return
        raw = bytes(buffer[: at + length])
        del buffer[: at + length]
        yield raw[0] >> 4, raw[0] & 15, raw[at:], raw


def published(flags, body):
    """Topic, packet identifier (0 with QoS 0) and payload of a PUBLISH."""
    (length,) = struct.unpack_from(">H", body)
    topic, rest = body[2 : 2 + length].decode(), body[2 + length :]
    if flags >> 1 & 3:
        return topic, struct.unpack_from(">H", rest)[0], rest[2:]
    return topic, 0, rest


class Broker:
    """mosquitto at a port that stays, as often as it is killed."""

    def __init__(self, stage):
        self.stage, self.port, self.child = stage, free_port(), None
        self.config = stage.directory / "soak-mosquitto.conf"
        self.killed = 0
        self.config.write_text(
            # Without a limit it keeps nothing back from its subscribers, which would be lost with it.
            f"listener {self.port} 127.0.0.1\npersistence false\nallow_anonymous true\nmax_inflight_messages 0\nmax_queued_messages 0\n"
            + ("user root\n" if os.geteuid() == 0 else "")
        )
        if ":/usr/sbin" not in os.environ["PATH"]:
            os.environ["PATH"] += ":/usr/sbin"

    def start(self):
        with open(self.stage.directory / "mosquitto.log", "ab") as log:
            self.child = self.stage.spawn(["mosquitto", "-c", str(self.config)], stdout=log, stderr=log)

        def listens():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return True

        wait_until("the broker listens", listens)

    def kill(self):
        """SIGKILL: what it had in memory is gone."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGKILL)
            self.child.wait()
            self.stage.children.remove(self.child)
            self.killed += 1


class Watcher:
    """A client of the broker that comes back as soon as it can; hears everything below the node, and asks."""

    def __init__(self, port, topic, on_message):
        self.port, self.topic, self.on_message = port, topic, on_message
        self.subscribed = threading.Event()
        self.lock, self.socket, self.next_id = threading.Lock(), None, 0
        self.ended = False
        threading.Thread(target=self._run, daemon=True).start()
        threading.Thread(target=self._ping, daemon=True).start()

    def publish(self, topic, payload):
        """With QoS 1; whether it left."""
        with self.lock:
            if self.socket is None or not self.subscribed.is_set():
                return False
            self.next_id = self.next_id % 65_535 + 1
            body = string(topic) + struct.pack(">H", self.next_id) + payload
            try:
                self.socket.sendall(packet(PUBLISH, 2, body))
                return True
            except OSError:
                return False

    def _run(self):
        while not self.ended:
            try:
                self._connected(socket.create_connection(("127.0.0.1", self.port), 5))
            except OSError:
                pass
            self.subscribed.clear()
            with self.lock:
                self.socket = None
            time.sleep(0.05)

    def _connected(self, connection):
        with connection:
            connection.settimeout(90)
            connection.sendall(packet(CONNECT, 0, string("MQTT") + b"\x04\x02" + struct.pack(">H", 60) + string("soak-watcher")))
            buffer = bytearray()
            while data := connection.recv(1 << 16):
                buffer += data
                for kind, flags, body, _ in cut(buffer):
                    if kind == CONNACK:
                        with self.lock:
                            self.socket = connection
                            connection.sendall(packet(SUBSCRIBE, 2, b"\x00\x01" + string(self.topic) + b"\x01"))
                    elif kind == SUBACK:
                        self.subscribed.set()
                    elif kind == PUBLISH:
                        topic, number, payload = published(flags, body)
                        if number:
                            with self.lock:
                                connection.sendall(packet(PUBACK, 0, struct.pack(">H", number)))
                        self.on_message(topic, payload, bool(flags & 1))

    def _ping(self):
        while not self.ended:
            time.sleep(20)
            with self.lock, contextlib.suppress(OSError):
                if self.socket is not None:
                    self.socket.sendall(packet(PINGREQ, 0, b""))


class Tap:
    """Between the daemon and the broker."""

    def __init__(self, broker, watcher, sabotage=None):
        self.broker, self.watcher, self.sabotage = broker, watcher, sabotage
        self.taken = set()  # transactions of requests that the daemon acknowledged
        self.acknowledged = set()  # ids of events and answers that the broker acknowledged
        self.connections = 0
        self.closed = 0  # rises when a connection ends
        self.listening = False  # the daemon is connected and has subscribed
        self.flights = 0  # how often the broker was killed with something in flight
        self.events = 0
        self.lock = threading.Lock()
        self.kill_at = None  # None, or when: "before" or "after" the next event is handed on, or "unacknowledged"
        self.killed = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def kill_in_flight(self, when, patience_s):
        """Kills the broker at the next event from the daemon, or at the next acknowledgement of one; whether that came in time."""
        self.killed.clear()
        self.kill_at = when
        came = self.killed.wait(patience_s)
        self.kill_at = None
        return came

    def _accept(self):
        while True:
            daemon, _ = self.listener.accept()
            # Nobody else hears what the broker has before somebody has subscribed: it keeps nothing.
            if not self.watcher.subscribed.is_set():
                daemon.close()
                continue
            try:
                broker = socket.create_connection(("127.0.0.1", self.broker.port), 5)
            except OSError:
                daemon.close()
                continue
            broker.settimeout(None)
            self.connections += 1
            requests, reports = {}, {}  # packet identifier: transaction, or id
            up = (daemon, broker, lambda *it: self._up(requests, reports, daemon, *it))
            down = (broker, daemon, lambda *it: self._down(requests, reports, *it))
            for way in (up, down):
                threading.Thread(target=self._pump, args=way, daemon=True).start()

    def _pump(self, source, target, look):
        buffer = bytearray()
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                buffer += data
                for kind, flags, body, raw in cut(buffer):
                    raw = look(kind, flags, body, raw)
                    if raw:
                        target.sendall(raw)
                        if self.kill_at == "after" and kind == PUBLISH and self._is_event(flags, body):
                            self._kill()
        self.listening = False
        self.closed += 1
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _is_event(self, flags, body):
        return published(flags, body)[0].endswith("/event")

    def _kill(self):
        self.kill_at = None
        self.broker.kill()
        self.flights += 1
        self.killed.set()

    def _up(self, requests, reports, daemon, kind, flags, body, raw):
        """From the daemon."""
        if kind == PUBACK:
            transaction = requests.pop(struct.unpack(">H", body[:2])[0], None)
            if transaction is not None:
                with self.lock:
                    self.taken.add(transaction)
        elif kind == PUBLISH:
            topic, number, payload = published(flags, body)
            if number and (topic.endswith("/event") or "/response/" in topic):
                report = json.loads(payload)
                name = report.get("transaction") or report["id"] if "/response/" in topic else report["id"]
                reports[number] = name, topic.endswith("/event")
                if topic.endswith("/event"):
                    self.events += 1
                    if self.kill_at == "before":
                        self._kill()
                    elif self.sabotage and self.events % 25 == 0:
                        return self._spoil(topic, number, report, reports, daemon, raw)
        return raw

    def _spoil(self, topic, number, report, reports, daemon, raw):
        """What no daemon may do, so that it is seen whether it would be found."""
        if self.sabotage == "lose":
            # Nobody acknowledges it but us.
            del reports[number]
            daemon.sendall(packet(PUBACK, 0, struct.pack(">H", number)))
            return b""
        report["id"] = "0" + report["id"][:-1]
        return raw + packet(PUBLISH, 0, string(topic) + json.dumps(report).encode())

    def _down(self, requests, reports, kind, flags, body, raw):
        """From the broker."""
        if kind == SUBACK:
            self.listening = True
        elif kind == PUBACK:
            name, is_event = reports.pop(struct.unpack(">H", body[:2])[0], (None, False))
            if is_event and self.kill_at == "unacknowledged":
                # The broker has it and has told its subscribers; the daemon does not know, and must send it again.
                self._kill()
                return b""
            if name is not None:
                with self.lock:
                    self.acknowledged.add(name)
        elif kind == PUBLISH:
            _, number, payload = published(flags, body)
            with contextlib.suppress(ValueError, AttributeError):
                transaction = json.loads(payload).get("transaction")
                if transaction and number:
                    requests[number] = transaction
        return raw
