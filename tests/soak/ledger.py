"""What was said, shown and asked, and what came of it: nothing here knows a socket, a process or a clock of its own.

A thing that the daemon owes an answer to is an `Owed`; it ends as "answered", as a refusal with a name, or with an excuse, which names
who else lost it. Whatever has not ended at the end of a run is lost. Events (of microphones and cameras) have ids, and are told on the
bus and at the broker: both must have told the same ones.
"""

import collections
import hashlib
import threading

ANSWERED = "answered"


class Owed:
    """Something that is owed exactly one answer."""

    def __init__(self, door, name, asked_at, due_at):
        self.door, self.name, self.asked_at, self.due_at = door, name, asked_at, due_at
        self.outcome = None  # ANSWERED, "refused: …", "excused: …"
        self.answer_id = None

    def __repr__(self):
        return f"{self.door} {self.name} ({self.outcome or 'open'})"


class Ledger:
    def __init__(self):
        self.changed = threading.Condition()
        self.open = {}  # (door, name): Owed
        self.ended = collections.defaultdict(collections.Counter)  # door: outcome: how many
        self.answers = {}  # (door, name): id of the answer, of those that may be answered again
        self.repeated = collections.Counter()  # door: the same answer, or the same event at the broker, once more
        self.wrong = []  # what must not be, in words
        self.withdrawn = set()  # (door, name) of what was given up
        self.late = collections.Counter()  # door: answers to what had been given up
        self.strays = 0
        self.told_on_bus = {}  # id: source
        self.told_at_broker = {}  # id: digest of the payload
        self.texts = {}  # what was heard or seen: how often each text was the answer
        self.events = 0  # answers and events, each once

    def owe(self, door, name, now, due_at=None):
        with self.changed:
            owed = self.open[door, name] = Owed(door, name, now, due_at or now)
            return owed

    def end(self, owed, outcome, answer_id=None):
        """The answer; another one for the same thing is wrong, unless it is the same once more."""
        with self.changed:
            if owed.outcome is not None:
                self.wrong.append(f"{owed} ended again, as {outcome}")
                return
            owed.outcome, owed.answer_id = outcome, answer_id
            self.open.pop((owed.door, owed.name), None)
            self.ended[owed.door][outcome] += 1
            if answer_id is not None:
                self.answers[owed.door, owed.name] = answer_id
            if not outcome.startswith("excused"):
                self.events += 1
            self.changed.notify_all()

    def withdraw(self, owed, why):
        """Nothing is owed: what was asked did not reach the daemon, as far as anybody can tell."""
        with self.changed:
            if owed.outcome is None:
                self.withdrawn.add((owed.door, owed.name))
                self.end(owed, f"excused: {why}")

    def answered(self, door, name, answer_id, outcome):
        """An answer came, known by the name of what was asked."""
        with self.changed:
            owed = self.open.get((door, name))
            if owed is not None:
                self.end(owed, outcome, answer_id)
            elif self.answers.get((door, name)) == answer_id:
                self.repeated[door] += 1
            elif (door, name) in self.answers:
                self.wrong.append(f"{door} {name} was answered by {self.answers[door, name]} and by {answer_id}")
            elif (door, name) in self.withdrawn:
                # It had reached the daemon after all; a second answer is found as any.
                self.answers[door, name] = answer_id
                self.late[door] += 1
            else:
                self.strays += 1
                self.wrong.append(f"{door} {name}: an answer that nobody waits for, {answer_id}")

    def on_bus(self, event_id, source):
        with self.changed:
            if event_id in self.told_on_bus:
                self.wrong.append(f"event {event_id} of {source} was told twice on the bus")
                return
            self.told_on_bus[event_id] = source
            self.changed.notify_all()

    def at_broker(self, event_id, payload):
        digest = hashlib.sha256(payload).digest()
        with self.changed:
            before = self.told_at_broker.setdefault(event_id, digest)
            if before is not digest:
                self.repeated["events at the broker"] += 1
                if before != digest:
                    self.wrong.append(f"event {event_id} came again with another payload")
            self.changed.notify_all()

    def heard(self, what, text):
        """What became of a clip or a picture: the same should always become the same."""
        with self.changed:
            self.texts.setdefault(what, collections.Counter())[text] += 1

    def stray(self, words):
        with self.changed:
            self.strays += 1
            self.wrong.append(words)

    def missing(self):
        """Ids that were told on the bus and not at the broker, and the other way round."""
        with self.changed:
            bus, broker = set(self.told_on_bus), set(self.told_at_broker)
        return sorted(bus - broker), sorted(broker - bus)

    def waiting(self):
        with self.changed:
            return list(self.open.values())
