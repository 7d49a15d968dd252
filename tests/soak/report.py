"""The verdict: what was owed, what came, what was lost, and whether anything grows."""

import collections
import datetime

import vitals
from doors import CAPTIONS, TRANSCRIPTS
from ledger import ANSWERED

# Of what was asked at the broker, how much may have gone with it before it reached the daemon: more, and the daemon does not hear.
MAX_EXCUSED = 0.25
# A shorter run says nothing of growth: everything is still being filled.
LEAST_FOR_GROWTH_S = 600
GROWS = {True: "GROWS", False: "flat", None: "too short to tell"}


def judge(house, faults, missing, trouble, health, worked_s, options):
    ledger = house.ledger
    lost = [repr(owed) for owed in ledger.waiting()]
    at_broker, on_bus = missing
    doors = {}
    for door in sorted({*ledger.ended, *(owed.door for owed in ledger.waiting())}):
        outcomes = ledger.ended[door]
        refusals = {what: n for what, n in outcomes.items() if what.startswith("refused")}
        excuses = {what: n for what, n in outcomes.items() if what.startswith("excused")}
        doors[door] = {
            "owed": sum(outcomes.values()) + sum(owed.door == door for owed in ledger.waiting()),
            "answered": outcomes[ANSWERED],
            "refused": sum(refusals.values()),
            "refusals": refusals,
            "excused": sum(excuses.values()),
            "excuses": excuses,
            "lost": sum(owed.door == door for owed in ledger.waiting()),
            "repeated": ledger.repeated[door],
            "late": ledger.late[door],
        }
    # What the broker acknowledged and then took with it is not the daemon's loss, but it is told.
    by_broker = [one for one in at_broker if one in house.tap.acknowledged]
    by_daemon = [one for one in at_broker if one not in house.tap.acknowledged]
    bad = list(trouble)
    bad += [f"lost: {one}" for one in lost]
    bad += [f"lost: event {one} of {ledger.told_on_bus[one]} never came to the broker" for one in by_daemon]
    bad += [f"event {one} was told at the broker and not on the bus" for one in on_bus]
    if options.sabotage:
        bad += [f"lost after the broker had it: {one}" for one in by_broker]
    bad += ledger.wrong
    bad += [f"{job} was told to end {times} times" for job, times in house.monitor.finished.items() if times > 1]
    if (health.get("mqtt") or {}).get("dropped"):
        bad.append(f"the daemon dropped {health['mqtt']['dropped']} events that waited for the broker")
    for door, row in doors.items():
        if door != "bad talkers" and row["excused"] > MAX_EXCUSED * row["owed"] + 5:
            bad.append(f"{door}: {row['excused']} of {row['owed']} never reached the daemon")
    warm_up_s = max(60.0, worked_s / 10) if worked_s > 240 else worked_s / 4
    late = [one for one in house.samples if one["at"] <= worked_s]
    growth = vitals.growth(late, warm_up_s)
    if worked_s < LEAST_FOR_GROWTH_S:
        for row in growth.values():
            row["grows"] = None
    bad += [
        f"{name} grows: {row['per_hour']:.3g} ± {row['per_hour_error']:.2g} {row['unit']} an hour"
        for name, row in growth.items()
        if row["grows"]
    ]
    cpu = [one for one in late if one["at"] >= warm_up_s]
    cpu_s = (cpu[-1]["cpu_s"] - cpu[0]["cpu_s"]) if cpu else 0.0
    cpu_events = (cpu[-1]["events"] - cpu[0]["events"]) if cpu else 0
    varied = {" ".join(map(str, what)): dict(texts) for what, texts in ledger.texts.items() if len(texts) > 1}
    right, told = accuracy(ledger.texts)
    return {
        "verdict": "bad" if bad else "good",
        "wrong": bad,
        "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "seed": options.seed,
        "hours": worked_s / 3600,
        "warm_up_s": warm_up_s,
        "events": ledger.events,
        "events_per_s": ledger.events / worked_s,
        "cpu_ms_per_event": cpu_s * 1000 / cpu_events if cpu_events else None,
        "doors": doors,
        "events_at_both_doors": len(ledger.told_on_bus) - len(at_broker),
        "repeated_at_the_broker": ledger.repeated["events at the broker"],
        "lost_with_the_broker": len(by_broker),
        "lost": len(lost) + len(by_daemon),
        "strays": ledger.strays,
        "harness_late": house.alsa.torn,
        "harness_latest_ms": round(1000 * max((late_s for _, late_s in house.alsa.microphone.dry), default=0.0)),
        "texts_right": right,
        "texts": told,
        "texts_that_varied": varied,
        "faults": faults.done,
        "kills_in_flight": house.tap.flights,
        "connections": house.tap.connections,
        "connected_share": sum(one["connected"] for one in late) / max(1, len(late)),
        "growth": growth,
        "health": health,
        "marks": [mark for mark in faults.marks if mark[1] == "the broker is killed"],
        "samples": house.samples,
    }


def accuracy(texts):
    """How many of the held-out recordings and pictures were understood as they should be; how many were."""
    right = told = 0
    for what, found in texts.items():
        wanted = CAPTIONS.get(what[1]) or TRANSCRIPTS.get(what[1])
        told += sum(found.values())
        right += found[wanted]
    return right, told


def table(found):
    lines = [
        f"soak: {found['verdict'].upper()}",
        "",
        f"{found['events']} events in {found['hours']:.2f} h, {found['events_per_s']:.2f} a second"
        + (f", {found['cpu_ms_per_event']:.0f} ms of CPU for each" if found["cpu_ms_per_event"] else "")
        + f"; seed {found['seed']}",
        "",
        f"{'door':<22}{'owed':>8}{'answered':>10}{'refused':>9}{'excused':>9}{'lost':>6}{'repeated':>10}{'late':>6}",
    ]
    for door, row in found["doors"].items():
        lines.append(
            f"{door:<22}{row['owed']:>8}{row['answered']:>10}{row['refused']:>9}{row['excused']:>9}{row['lost']:>6}{row['repeated']:>10}{row['late']:>6}"
        )
    reasons = collections.Counter()
    for door, row in found["doors"].items():
        for what, n in {**row["refusals"], **row["excuses"]}.items():
            reasons[f"{door}: {what}"] += n
    lines += ["", "refused and excused, by reason"] + [f"{n:>8}  {what}" for what, n in sorted(reasons.items(), key=lambda one: -one[1])]
    lines += [
        "",
        f"events told on the bus and at the broker: {found['events_at_both_doors']}; at the broker once more, with the same id: "
        f"{found['repeated_at_the_broker']}; lost by the broker after it had them: {found['lost_with_the_broker']}",
        f"lost: {found['lost']}; strays: {found['strays']}; texts as they should be: {found['texts_right']} of {found['texts']}, "
        f"{len(found['texts_that_varied'])} clips and pictures got more than one text",
        f"sound torn because this program was late: {len(found['harness_late'])} times; at the most it was "
        f"{found['harness_latest_ms']} ms late",
        *(f"  {name}: the harness was late by {late_ms} ms: {outcome}" for name, late_ms, outcome in found["harness_late"]),
        "",
        "what was done to it: " + ", ".join(f"{what} {n}" for what, n in sorted(found["faults"].items(), key=lambda one: -one[1])),
        f"of the kills {found['kills_in_flight']} with an event on its way; {found['connections']} connections, which stood for "
        f"{found['connected_share']:.0%} of the time",
        "",
        f"{'after warm-up':<14}{'mean':>9}{'largest':>9}{'an hour':>12}{'± error':>10}{'1000 events':>13}{'± error':>10}",
    ]
    for name, row in found["growth"].items():
        lines.append(
            f"{name:<14}{row['mean']:>9.1f}{row['largest']:>9.1f}{row['per_hour']:>12.3f}{row['per_hour_error']:>10.3f}"
            f"{row['per_1000_events']:>13.4f}{row['per_1000_events_error']:>10.4f}  {row['unit']:<4}{GROWS[row['grows']]}"
        )
    if found["wrong"]:
        shown = found["wrong"][:40]
        lines += ["", "wrong", *(f"  {one}" for one in shown)]
        if len(found["wrong"]) > len(shown):
            lines.append(f"  … and {len(found['wrong']) - len(shown)} more in report.json")
    return "\n".join(lines) + "\n"
