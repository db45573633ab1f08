#!/usr/bin/env python3
"""The guest's end of Fencewire's native wire, written a second time, from docs/protocol.md alone.

It shares no line with core/: where both follow the document, they understand each other, and where they do not, the
document, or one of them, is wrong. It is the tests' and no agent for a cluster: it reads no standard input.

    fence_second.py (--socket PATH | --listen PATH) (--key FILE | --keyless) ACTION [TARGET]

It prints the outcome as one line of JSON. It exits with 0 when it is done, or the guest is on; with 2 when a status says
off; with 1 when it is not done, cannot be told, or there was no answer.
"""

import argparse
import collections
import hashlib
import hmac
import json
import os
import secrets
import select
import socket
import sys
import time
import uuid

HELLO, WELCOME, REQUEST, REPLY = 1, 2, 3, 4
VERSION = 1
LONGEST = 208
TAG = 16
ACTIONS = ["off", "reboot", "on", "status", "monitor", "list"]
RUNS = ["on", "off", "unknown"]
RESULTS = ["off", "rebooted", "off, and not started again", "on", "failed"]
REASONS = ["no such guest", "the hypervisor does not say", "may have happened, or may still happen", "time was up",
           "the asker is being fenced, or is off", "migrating or migrated", "could not be started", "busy",
           "could not be written down first", "replaced", "on more than one hypervisor", "forbidden meanwhile"]
FIRST_AGAIN, AGAIN, LOST = 0.3, 1.0, 3.0

# Frames.

def frame(payload):
    """00, the runs of the payload, 00."""
    runs = payload.split(b"\0")
    return b"\0" + b"".join(bytes([len(run) + 1]) + run for run in runs) + b"\0"

def unframe(body):
    """The payload of what stands between two zeros."""
    runs, at = [], 0
    while at < len(body):
        end = at + body[at]
        if end > len(body) or body[at] == 0xFF:
            raise ValueError("runs that do not fill the frame")
        runs.append(bytes(body[at + 1:end]))
        at = end
    payload = b"\0".join(runs)
    if not 1 <= len(payload) <= LONGEST:
        raise ValueError("a payload of %d bytes" % len(payload))
    return payload

class Deframer:
    """Cuts bytes, as they come, into payloads."""

    def __init__(self):
        self.body = None  # Before the first zero nothing is a frame.

    def feed(self, data):
        for byte in data:
            if byte and self.body is not None and len(self.body) <= LONGEST + 1:
                self.body.append(byte)
            elif not byte:
                body, self.body = self.body, bytearray()
                try:
                    if body:
                        yield unframe(body)
                except ValueError:
                    pass

# Bodies.

def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)

def option(value):
    return b"\0" if value is None else b"\1" + value

class Reader:
    """Takes a body apart, from its beginning."""

    def __init__(self, data):
        self.data = data

    def take(self, count):
        if count > len(self.data):
            raise ValueError("it ends too early")
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def u8(self):
        return self.take(1)[0]

    def varint(self, bits):
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            shift += 7
            if value >> bits:
                raise ValueError("a number that is too large")
            if byte < 0x80:
                return value

    def one_of(self, words):
        number = self.varint(32)
        if number >= len(words):
            raise ValueError("variant %d is not known" % number)
        return words[number]

    def boolean(self):
        return self.one_of([False, True])

    def option(self, read):
        return read() if self.boolean() else None

    def array(self):
        return self.take(16).hex()

def what(action, target, incarnation, after):
    body = varint(ACTIONS.index(action))
    if target is None:
        return body + (option(after) if action == "list" else b"")
    try:
        whom = b"\1" + uuid.UUID(target).bytes
    except ValueError:
        name = target.encode()
        whom = b"\0" + varint(len(name)) + name
    guarded = action in ("off", "reboot")
    return body + whom + (option(incarnation) if guarded else b"")

def said(body):
    """A Reply's Said and its entries."""
    kind = body.one_of(["accepted", "working", "done", "status", "alive", "list", "denied", "failed"])
    reply = {"said": kind}
    if kind == "done":
        reply["result"] = body.one_of(RESULTS)
        if reply["result"] == "failed":
            reply["reason"] = body.one_of(REASONS)
        reply.update(before=body.one_of(RUNS), now=body.one_of(RUNS), incarnation=body.option(body.array),
                     seen_off=body.boolean(), repeated=body.boolean())
    elif kind == "status":
        reply.update(runs=body.one_of(RUNS), incarnation=body.option(body.array))
    elif kind == "list":
        count, reply["more"] = body.u8(), body.boolean()
        reply["guests"] = []
        for _ in range(count):
            guest = {"uuid": str(uuid.UUID(bytes=body.take(16))), "runs": body.one_of(RUNS)}
            guest["name"] = body.take(body.varint(32)).decode()
            reply["guests"].append(guest)
    elif kind == "failed":
        reply["reason"] = body.one_of(REASONS)
    return reply

# Keys and tags.

def mac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()

def tag(key, data):
    return mac(key, data)[:TAG]

def hkdf(master, info):
    """HKDF-SHA256 for 32 bytes of output: one block."""
    return mac(mac(b"fencewire", master), info + b"\1")

Keys = collections.namedtuple("Keys", "guest generation ours theirs")

def keyless():
    master, guest, generation = b"fencewire without a key", bytes(16), 0
    info = guest + generation.to_bytes(4, "little")
    return Keys(guest, generation, hkdf(master, info + b">"), hkdf(master, info + b"<"))

def read_keys(path):
    with open(path, encoding="ascii") as file:
        lines = file.read().splitlines()
    if len(lines) != 5 or lines[0] != "fencewire-key-1":
        raise SystemExit("%s: is not a key file of fencewire" % path)
    return Keys(uuid.UUID(lines[1]).bytes, int(lines[2], 16), bytes.fromhex(lines[3]), bytes.fromhex(lines[4]))

class Session:
    """What a hello and its welcome make."""

    def __init__(self, keys, hello, payload):
        body = Reader(payload[1:-TAG])
        _, _, version = body.u8(), body.u8(), body.u8()
        self.instance, self.stamp = body.varint(64), body.varint(64)
        if len(body.data) != 16:
            raise ValueError("a welcome of another length")
        if not hmac.compare_digest(payload[-TAG:], tag(keys.theirs, hello + payload[:-TAG])):
            raise ValueError("a welcome with a wrong tag")
        if version != VERSION:
            raise ValueError("version %d" % version)
        transcript = hashlib.sha256(hello + payload).digest()
        self.name = transcript[:4]
        self.ours = mac(keys.ours, b"fencewire session" + transcript)
        self.theirs = mac(keys.theirs, b"fencewire session" + transcript)
        self.sent = self.heard = 0

    def request(self, body):
        self.sent += 1
        payload = bytes([REQUEST]) + self.name + varint(self.sent) + body
        return payload + tag(self.ours, payload)

    def reply(self, payload):
        """The body of a good reply in this session."""
        if payload[0] != REPLY or payload[1:5] != self.name:
            raise ValueError("no reply of this session")
        if not hmac.compare_digest(payload[-TAG:], tag(self.theirs, payload[:-TAG])):
            raise ValueError("a reply with a wrong tag")
        body = Reader(payload[5:-TAG])
        counter = body.varint(32)
        if counter <= self.heard:
            raise ValueError("a reply that came before")
        self.heard = counter
        return body

# The conversation.

class Channel:
    """Payloads to the host and back, across connections."""

    def __init__(self, connect_to, listen_at):
        self.path, self.listener, self.stream = connect_to, None, None
        if listen_at:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(listen_at)
            self.listener.listen()

    def open(self, end):
        """True when there is a connection, or one was made by then."""
        while self.stream is None and time.monotonic() < end:
            self.deframer = Deframer()
            try:
                if self.listener:
                    self.listener.settimeout(max(0.01, end - time.monotonic()))
                    self.stream = self.listener.accept()[0]
                else:
                    stream = socket.socket(socket.AF_UNIX)
                    stream.connect(self.path)
                    self.stream = stream
            except OSError:
                time.sleep(0.02)
        return self.stream is not None

    def send(self, payload):
        try:
            self.stream.sendall(frame(payload))
        except OSError:
            self.stream = None

    def payloads(self, until):
        """What comes by then; nothing, and no stream, when the other end has gone."""
        if not select.select([self.stream], [], [], max(0, until - time.monotonic()))[0]:
            return []
        try:
            data = self.stream.recv(4096)
        except OSError:
            data = b""
        if not data:
            self.stream = None
        return self.deframer.feed(data)

class Guest:
    def __init__(self, channel, keys, timeout, lose):
        self.channel, self.keys, self.lose = channel, keys, lose
        self.end = time.monotonic() + timeout
        self.session, self.sessions, self.accepted, self.working = None, 0, 0, 0
        self.instance, self.deadline = None, None

    def handshake(self, switches):
        """A session, or none when the time is up, or it is another host's: it may have been done already."""
        nonce = secrets.token_bytes(16)
        hello = bytes([HELLO, VERSION, VERSION]) + varint(self.keys.generation) + self.keys.guest + nonce
        hello += tag(self.keys.ours, hello)
        pause = FIRST_AGAIN
        while time.monotonic() < self.end:
            if not self.channel.open(self.end):
                break
            self.channel.send(hello)
            again = min(self.end, time.monotonic() + pause)
            pause = AGAIN
            while self.channel.stream and time.monotonic() < again:
                for payload in self.channel.payloads(again):
                    if payload[0] != WELCOME:
                        continue
                    try:
                        self.session = Session(self.keys, hello, payload)
                    except ValueError as why:
                        print("fence_second: dropped: %s" % why, file=sys.stderr)
                        continue
                    if switches and self.instance not in (None, self.session.instance):
                        self.session = None
                        return False
                    self.sessions += 1
                    self.set_deadline(self.session.stamp)
                    return True
        return False

    def set_deadline(self, stamp):
        """On the host's clock, and never later than was said before on the same clock."""
        deadline = stamp + int(max(0, self.end - time.monotonic()) * 1000)
        same = self.instance == self.session.instance
        self.deadline = min(deadline, self.deadline) if same else deadline
        self.instance = self.session.instance

    def ask(self, number, body):
        """The final reply to that request, or none when the time is up."""
        while self.session or self.handshake(switches=body[0] < ACTIONS.index("status")):
            reply = self.ask_in_session(number, varint(number) + varint(self.deadline) + body)
            if reply:
                return reply
            self.session = None
        return None

    def ask_in_session(self, number, request):
        accepted, pause, heard = False, FIRST_AGAIN, time.monotonic()
        again = heard
        while self.channel.stream and time.monotonic() < min(self.end, heard + LOST):
            if not accepted and time.monotonic() >= again:
                self.channel.send(self.session.request(request))
                again, pause = time.monotonic() + pause, AGAIN
                continue
            until = min(self.end, heard + LOST) if accepted else min(self.end, heard + LOST, again)
            for payload in self.channel.payloads(until):
                try:
                    body = self.session.reply(payload)
                    if body.varint(64) != number:
                        continue
                    reply = said(body)
                except ValueError as why:
                    print("fence_second: dropped: %s" % why, file=sys.stderr)
                    continue
                heard = time.monotonic()
                if reply["said"] in ("accepted", "working"):
                    accepted = True
                    self.accepted += reply["said"] == "accepted"
                    self.working += reply["said"] == "working"
                elif self.lose > 0:
                    self.lose -= 1
                else:
                    return reply
        return None

def run(options):
    keys = keyless() if options.keyless else read_keys(options.key)
    guest = Guest(Channel(options.socket, options.listen), keys, options.timeout, options.lose)
    number = int(options.id, 16) if options.id else secrets.randbits(64)
    incarnation = bytes.fromhex(options.incarnation) if options.incarnation else None
    guests, after = [], None
    while True:
        reply = guest.ask(number, what(options.action, options.target, incarnation, after))
        if reply is None or reply["said"] != "list":
            break
        guests += reply["guests"]
        if not reply["more"]:
            break
        after, number = uuid.UUID(guests[-1]["uuid"]).bytes, secrets.randbits(64)
    outcome = dict(reply or {"said": "nothing"}, sessions=guest.sessions, accepted=guest.accepted, working=guest.working)
    if outcome["said"] == "list":
        outcome["guests"] = guests
    return outcome

def exit_code(outcome):
    if outcome["said"] == "status":
        return {"on": 0, "off": 2}.get(outcome["runs"], 1)
    return 0 if outcome["said"] in ("alive", "list") or outcome.get("result", "failed") != "failed" else 1

def main():
    parser = argparse.ArgumentParser(description="the guest's end of Fencewire's native wire, for its tests")
    where, who = parser.add_mutually_exclusive_group(required=True), parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--socket", metavar="PATH", help="connect to this unix socket")
    where.add_argument("--listen", metavar="PATH", help="listen there, as QEMU does")
    who.add_argument("--key", metavar="FILE", help="what `fencewired enroll` wrote")
    who.add_argument("--keyless", action="store_true", help="with the key that everybody has")
    parser.add_argument("--timeout", type=float, default=20, metavar="SECONDS")
    parser.add_argument("--id", metavar="HEX", help="the request's id; else a random one")
    parser.add_argument("--incarnation", metavar="HEX", help="for off and reboot: touch no other run of the guest")
    parser.add_argument("--lose", type=int, default=0, metavar="N", help="act as if the first N final replies were lost")
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("target", nargs="?")
    options = parser.parse_args()
    if (options.target is None) != (options.action in ("monitor", "list")):
        parser.error("monitor and list have no target, everything else has one")
    outcome = run(options)
    if options.listen:
        os.unlink(options.listen)
    print(json.dumps(outcome))
    return exit_code(outcome)

if __name__ == "__main__":
    sys.exit(main())
