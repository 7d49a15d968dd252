"""A caller on the bus that stays connected, by libdbus: one call a line of standard input, one answer a line of standard output.

A call is {"path", "interface", "method", "args"}. An argument is a string, a number, a list of [signature, value], or a dictionary
for a{sv} whose values are [signature, value]; the signature h takes [kind, ...]: ["memfd", base64, sealed], ["file", path],
["pipe", base64, closed]. Answers are {"ok": value} or {"error": name, "message": text}; descriptors are answered as their base64 and
seals. {"burst": n, ...} sends the call n times without waiting for replies, then answers "sent".
"""

import base64
import fcntl
import json
import os
import sys

import dbus
import dbus.bus
import dbus.lowlevel

WRITE_SEALS = 0x0002 | 0x0004 | 0x0008  # F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE
F_ADD_SEALS, F_GET_SEALS = 1033, 1034
pipes = []


def descriptor(kind, *rest):
    if kind == "file":
        return dbus.types.UnixFd(os.open(rest[0], os.O_RDONLY))
    data = base64.b64decode(rest[0])
    if kind == "memfd":
        fd = os.memfd_create("test", os.MFD_ALLOW_SEALING)
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(data)
        if rest[1]:
            fcntl.fcntl(fd, F_ADD_SEALS, WRITE_SEALS)
        return dbus.types.UnixFd(fd)
    read, write = os.pipe()
    os.write(write, data)
    if rest[1]:
        os.close(write)
    else:
        pipes.append(write)
    return dbus.types.UnixFd(read)


def typed(signature, value):
    if signature == "h":
        return descriptor(*value)
    if signature == "as":
        return dbus.Array(value, signature="s", variant_level=1)
    types = {"s": dbus.String, "u": dbus.UInt32, "t": dbus.UInt64, "i": dbus.Int32, "d": dbus.Double, "b": dbus.Boolean}
    return types[signature](value, variant_level=1)


def argument(value):
    if isinstance(value, dict):
        options = {name: typed(*pair) for name, pair in value.items()}
        return dbus.Dictionary(options, signature="sv")
    if isinstance(value, list):
        return typed(*value)
    return value


def plain(value):
    if isinstance(value, dbus.types.UnixFd):
        fd = value.take()
        with os.fdopen(fd, "rb") as file:
            seals = fcntl.fcntl(fd, F_GET_SEALS)
            return {"seals": seals, "base64": base64.b64encode(file.read()).decode()}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dbus.Boolean):
        return bool(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        return int(value)
    return None if value is None else str(value)


def message(call):
    made = dbus.lowlevel.MethodCallMessage("org.gemmad1", call["path"], call["interface"], call["method"])
    made.append(*[argument(value) for value in call["args"]])
    return made


connection = dbus.bus.BusConnection(sys.argv[1])
print(json.dumps({"ok": connection.get_unique_name()}), flush=True)
for line in sys.stdin:
    call = json.loads(line)
    try:
        if "burst" in call:
            for _ in range(call["burst"]):
                connection.send_message(message(call))
            connection.flush()
            answer = {"ok": "sent"}
        else:
            reply = connection.send_message_with_reply_and_block(message(call), 30)
            values = reply.get_args_list()
            answer = {"ok": plain(values[0] if values else None)}
    except dbus.exceptions.DBusException as error:
        answer = {"error": error.get_dbus_name(), "message": error.get_dbus_message()}
    print(json.dumps(answer), flush=True)
