"""The soak's own judgement, tried on things of which the answer is known: python3 tests/soak/check.py"""

import pathlib
import random
import statistics
import sys
import tempfile
import threading
import time
import types
import unittest
from unittest import mock

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[2] / "demo")]

import mqtt  # noqa: E402
import vitals  # noqa: E402
from doors import AlsaMicrophone, CLIPS  # noqa: E402
from ledger import ANSWERED, Ledger  # noqa: E402
from stage import Microphone, wait_until  # noqa: E402


def samples(leak_per_hour, seed, hours=3.0):
    """As an allocator looks: a level that wanders, a sawtooth of towers that come and go, and a leak."""
    chance, found, level = random.Random(seed), [], 0.0
    for n in range(int(hours * 720)):
        at = n * 5.0
        level = 0.99 * level + chance.gauss(0, 0.05)
        held = 15 + level + (n // 60 % 2) * 0.5 + leak_per_hour * at / 3600
        row = {"at": at, "events": n * 25, **dict.fromkeys((name for name, _, _ in vitals.SERIES), 9.0)}
        found.append({**row, "anonymous": held})
    return found


class Growth(unittest.TestCase):
    def test_a_line_is_what_the_standard_library_says(self):
        chance = random.Random(3)
        points = [(x, 2 * x + chance.gauss(0, 1)) for x in range(50)]
        slope, error = vitals.line(points)
        fitted = statistics.linear_regression(*zip(*points))
        self.assertAlmostEqual(slope, fitted.slope)
        # Textbook: s / (spread of x * sqrt(n - 1)), with n - 2 degrees of freedom.
        rest = sum((y - fitted.slope * x - fitted.intercept) ** 2 for x, y in points)
        wanted = (rest / 48 / (statistics.variance(x for x, _ in points) * 49)) ** 0.5
        self.assertAlmostEqual(error, wanted)

    def test_a_leak_is_found_and_noise_is_none(self):
        for seed in range(10):
            grows = vitals.growth(samples(0, seed), 1080)["anonymous"]["grows"]
            self.assertFalse(grows, seed)
            leaks = vitals.growth(samples(2.0, seed), 1080)["anonymous"]
            self.assertTrue(leaks["grows"], (seed, leaks))
            self.assertLess(abs(leaks["per_hour"] - 2.0), 5 * leaks["per_hour_error"], leaks)

    def test_what_stays_the_same_does_not_grow(self):
        row = vitals.growth(samples(0, 1), 1080)["descriptors"]
        self.assertEqual((row["per_hour"], row["grows"]), (0.0, False))


class Accounts(unittest.TestCase):
    def setUp(self):
        self.ledger = Ledger()
        self.owed = self.ledger.owe("mqtt", "q1", 0.0)

    def test_the_same_answer_again_is_counted_and_another_one_is_wrong(self):
        self.ledger.answered("mqtt", "q1", "a", ANSWERED)
        self.ledger.answered("mqtt", "q1", "a", ANSWERED)
        self.assertEqual((self.ledger.repeated["mqtt"], self.ledger.wrong, self.ledger.events), (1, [], 1))
        self.ledger.answered("mqtt", "q1", "b", ANSWERED)
        self.assertIn("answered by a and by b", self.ledger.wrong[0])

    def test_what_nobody_asked_is_a_stray_and_what_does_not_come_stays_owed(self):
        self.ledger.answered("mqtt", "q2", "a", ANSWERED)
        self.assertEqual((self.ledger.strays, len(self.ledger.wrong)), (1, 1))
        self.assertEqual(self.ledger.waiting(), [self.owed])

    def test_an_answer_to_what_was_given_up_is_late_and_a_second_one_is_wrong(self):
        self.ledger.withdraw(self.owed, "the broker died")
        self.ledger.answered("mqtt", "q1", "a", ANSWERED)
        self.assertEqual((self.ledger.late["mqtt"], self.ledger.wrong, self.ledger.events), (1, [], 0))
        self.ledger.answered("mqtt", "q1", "b", ANSWERED)
        self.assertEqual(len(self.ledger.wrong), 1)

    def test_an_event_must_be_told_at_both_doors_and_come_again_as_it_was(self):
        for one in ("1", "2"):
            self.ledger.on_bus(one, "kitchen")
        for one, payload in (("1", b"x"), ("1", b"x"), ("3", b"y")):
            self.ledger.at_broker(one, payload)
        self.assertEqual(self.ledger.missing(), (["2"], ["3"]))
        self.assertEqual((self.ledger.repeated["events at the broker"], self.ledger.wrong), (1, []))
        self.ledger.at_broker("1", b"z")
        self.ledger.on_bus("1", "kitchen")
        self.assertEqual(len(self.ledger.wrong), 2)


class Packets(unittest.TestCase):
    def test_packets_are_cut_wherever_they_arrive(self):
        # MQTT 3.1.1, 2.2.3: 321 bytes are the length 0xc1 0x02.
        long = mqtt.packet(mqtt.PUBLISH, 2, mqtt.string("a/b") + b"\0\7" + bytes(314))
        self.assertEqual(long[:3], b"\x32\xc1\x02")
        stream, buffer, found = long + mqtt.packet(mqtt.PUBACK, 0, b"\0\7"), bytearray(), []
        for byte in stream:
            buffer.append(byte)
            found += mqtt.cut(buffer)
        self.assertEqual([kind for kind, *_ in found], [mqtt.PUBLISH, mqtt.PUBACK])
        self.assertEqual(mqtt.published(*found[0][1:3]), ("a/b", 7, bytes(314)))
        self.assertEqual(b"".join(raw for *_, raw in found), stream)


class Feeder(unittest.TestCase):
    """The pipe that ALSA's `file` plugin reads."""

    def test_a_feeder_that_is_late_tells_and_one_that_is_not_does_not(self):
        with tempfile.TemporaryDirectory() as directory:
            fed = Microphone(pathlib.Path(directory), "x", ahead_s=2.0)
            ended = threading.Event()

            def read():
                with open(fed.pipe, "rb", buffering=0) as pipe:
                    while not ended.is_set() and pipe.read(8192):
                        ended.wait(0.256)

            reader = threading.Thread(target=read)
            reader.start()
            try:
                ended.wait(0.6)
                self.assertEqual(fed.dry, [])
                with fed.lock:
                    ended.wait(3)
                wait_until("it says so", lambda: fed.dry, 10)
                self.assertGreater(fed.dry[0][1], 1.5)
            finally:
                ended.set()
                fed.stop()
                reader.join()


class Parlour(unittest.TestCase):
    """Whoever speaks at the microphone that is paced by real time; the daemon is played here."""

    def door(self, heard):
        def say(_):
            heard(door)

        microphone = types.SimpleNamespace(dry=[], say=say)
        stage = types.SimpleNamespace(microphone=lambda *_: microphone)
        caller = types.SimpleNamespace(get=lambda *_: "online")
        door = AlsaMicrophone(types.SimpleNamespace(seed=1, ledger=Ledger(), stage=stage, caller=caller, patience_s=0.1), "parlour")
        return door

    def work(self, door):
        short = dict.fromkeys(CLIPS, [0] * 160)
        with mock.patch.dict("doors.CLIPS", short), mock.patch.multiple(AlsaMicrophone, AHEAD_S=0.0, TORN_S=-2.0):
            door.work()

    def test_what_is_refused_while_it_is_spoken_is_spoken_to_its_end(self):
        door = self.door(lambda door: door.said("Rejected", {"id": "1", "event_type": "rejected", "reason": "too many speak"}))
        self.work(door)
        self.assertIn("too many speak", door.current.outcome)
        self.assertGreaterEqual(time.monotonic(), door.current.due_at)

    def test_what_came_of_torn_sound_is_told_and_what_came_of_nothing_is_owed(self):
        door = self.door(lambda door: door.microphone.dry.append((time.monotonic(), 2.5)))
        self.work(door)
        self.assertEqual((door.torn, door.ledger.waiting()), ([("parlour-1", 2500, "excused: torn, for this program was late")], []))
        # One more event of it is no stray.
        door.said("Transcript", {"id": "1"})
        self.assertEqual((len(door.torn), door.ledger.strays, door.ledger.wrong), (2, 0, []))
        # The daemon that takes sound before its time is no reason.
        for dry in ([], [0.3]):
            door = self.door(lambda door: door.microphone.dry.extend((time.monotonic(), late_s) for late_s in dry))
            self.work(door)
            self.assertEqual((door.torn, door.ledger.waiting()), ([], [door.current]))


if __name__ == "__main__":
    unittest.main()
