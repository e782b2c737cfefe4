#!/usr/bin/env python3
"""Writes strict-vectors.json: the strict protocol a second time, from its description and not from src.

    /usr/bin/python3 test/vectors/make-strict-vectors.py > test/vectors/strict-vectors.json

Needs Debian's python3-cryptography. Every key is made up, nothing here is random, and no line is shared with src: where
the two agree byte for byte, both read the description the same way.
"""

import base64
import hashlib
import hmac
import json
import struct
import sys
import uuid

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

DOM = b"AEGIS-SEAL/1\x00"


def H(data):
    return hashlib.sha256(data).digest()


def u32(value):
    return struct.pack("<I", value)


def u64(value):
    return struct.pack("<Q", value)


def LP(value):
    data = value.encode("utf-8") if isinstance(value, str) else value
    return u32(len(data)) + data


def ID(text):
    assert str(uuid.UUID(text)) == text, text
    return uuid.UUID(text).bytes


def b64u(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def raw_public(private):
    return private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


class Key:
    """An Ed25519 key drawn from a name."""

    def __init__(self, name):
        self.seed = H(b"aegis strict vectors: " + name.encode("ascii"))
        self.private = Ed25519PrivateKey.from_private_bytes(self.seed)
        self.public = raw_public(self.private)
        self.id = H(self.public)

    def sign(self, message):
        return self.private.sign(message)


KEYS = {name: Key(name) for name in ("node", "old-node", "root", "new-root", "command", "token", "caller", "operator")}
NODE, COMMAND, ROOT, TOKEN, CALLER = (KEYS[name] for name in ("node", "command", "root", "token", "caller"))
OPERATOR = KEYS["operator"]
DAEMON_SHARE = X25519PrivateKey.from_private_bytes(H(b"aegis strict vectors: daemon share"))
CONTROLLER_SHARE = X25519PrivateKey.from_private_bytes(H(b"aegis strict vectors: controller share"))

NODE_ID = "3f2b8c1e-5d4a-4e6f-8a9b-0c1d2e3f4a5b"
STREAM_ID = "9e107d9d-372b-4b68-a1b2-c3d4e5f60718"
COMMAND_ID = "c0ffee00-1234-4abc-9def-0123456789ab"
CONTROLLER_ID = "0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9"
TIME_MS = 1767225600123
MAX_SAFE = 2**53 - 1


# ---------------------------------------------------------------- protobuf, as much as the messages below need


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field, value):
    return b"" if value == 0 else varint(field << 3) + varint(value)


def data(field, value):
    return b"" if len(value) == 0 else varint(field << 3 | 2) + varint(len(value)) + value


def text(field, value):
    return data(field, value.encode("utf-8"))


def message(field, value):
    return varint(field << 3 | 2) + varint(len(value)) + value


def controller_key(key, use, state):
    return data(1, key.id) + number(2, use) + number(3, 1) + data(4, key.public) + number(5, state)


def keyset_bytes(version, root, command, token):
    keys = message(4, controller_key(command, 1, 1)) + message(4, controller_key(token, 2, 1))
    return data(1, ID(CONTROLLER_ID)) + number(2, version) + data(3, root.public) + keys + number(6, TIME_MS)


def signed_keyset(keyset, signature, new_root_signature=b""):
    return data(1, keyset) + data(2, signature) + data(3, new_root_signature)


# ---------------------------------------------------------------- statements

statements = []


def add(name, case, fields, statement, key):
    """`fields` is what a caller hands in; `statement` is what must be signed."""
    entry = {"name": name, "case": case, "fields": fields, "statement": statement.hex()}
    if key is not None:
        entry["signer"] = next(known for known, one in KEYS.items() if one is key)
        entry["signature"] = key.sign(statement).hex()
    statements.append(entry)
    return entry.get("signature")


def hexed(value):
    return {"hex": value.hex()}


CAPABILITIES = text(1, "linux") + text(2, "x86_64") + text(3, "shell") + text(1002, "web-1")
SEAL_HELLO = (
    message(1, varint(1))  # repeated uint32, packed
    + data(2, H(b"daemon nonce"))
    + data(3, raw_public(DAEMON_SHARE))
    + data(4, ID(CONTROLLER_ID))
    + number(5, 1)
    + data(6, CAPABILITIES)
    + text(7, "0.1.0")
    + number(8, TIME_MS)
)
KEYSET = keyset_bytes(1, ROOT, COMMAND, TOKEN)
KEYSET_SAID = DOM + b"\x50" + ID(CONTROLLER_ID) + u64(1) + H(KEYSET)
SIGNED_KEYSET = signed_keyset(KEYSET, ROOT.sign(KEYSET_SAID))
SEAL_ACCEPT = (
    number(1, 1)
    + data(2, H(b"server nonce"))
    + data(3, raw_public(CONTROLLER_SHARE))
    + data(4, ID(CONTROLLER_ID))
    + number(5, 1)
    + message(6, SIGNED_KEYSET)
    + number(7, TIME_MS)
    + message(8, number(1, 4 * 1024 * 1024 - 4 * 1024) + number(2, 4 * 1024 * 1024))
)

hello_said = DOM + b"\x01" + ID(NODE_ID) + ID(STREAM_ID) + H(SEAL_HELLO)
assert len(hello_said) == 78
hello_fields = {"nodeId": NODE_ID, "streamId": STREAM_ID, "sealHello": hexed(SEAL_HELLO)}
HELLO_SIGNATURE = add("hello", "a whole SealHello", hello_fields, hello_said, NODE)

session_said = DOM + b"\x02" + ID(NODE_ID) + ID(STREAM_ID) + H(SEAL_HELLO) + H(SEAL_ACCEPT)
SESSION_ID = H(session_said)
add("session", "Hello and ACCEPT", {**hello_fields, "acceptBody": hexed(SEAL_ACCEPT)}, session_said, None)

# Frames. One number each, one way each, one authentication each.
FRAMES = {
    "accept": (0x10, "c2d", "signature"),
    "command": (0x11, "c2d", "signature"),
    "credit": (0x12, "c2d", "mac"),
    "keysetFrame": (0x13, "c2d", "signature"),
    "goodbye": (0x14, "c2d", "signature"),
    "ack": (0x15, "c2d", "mac"),
    "confirm": (0x20, "d2c", "signature"),
    "heartbeat": (0x21, "d2c", "mac"),
    "progress": (0x22, "d2c", "mac"),
    "result": (0x23, "d2c", "mac"),
    "capabilities": (0x24, "d2c", "mac"),
}


def header(kind, seq, time_ms, body):
    out = DOM + bytes([kind]) + ID(NODE_ID) + SESSION_ID + u64(seq) + u64(time_ms) + H(body)
    assert len(out) == 110
    return out


for name, (kind, _, auth) in FRAMES.items():
    for case, seq, time_ms, body in (
        ("an ordinary one", 7, TIME_MS, b"a body of " + name.encode("ascii")),
        ("no body, number 0, time 0", 0, 0, b""),
        ("the largest numbers", MAX_SAFE, MAX_SAFE, bytes(range(256))),
    ):
        fields = {
            "nodeId": NODE_ID,
            "sessionId": hexed(SESSION_ID),
            "seq": seq,
            "timeMs": time_ms,
            "body": hexed(body),
        }
        add(name, case, fields, header(kind, seq, time_ms, body), None)

COMMAND_BODY = b"\x0a\x05a body of EdgeCommand"
RESULT = b"\x12\x24" + COMMAND_ID.encode("ascii")
add(
    "receipt",
    "a command and its result",
    {"nodeId": NODE_ID, "commandId": COMMAND_ID, "commandBody": hexed(COMMAND_BODY), "result": hexed(RESULT)},
    DOM + b"\x30" + ID(NODE_ID) + ID(COMMAND_ID) + H(COMMAND_BODY) + H(RESULT),
    NODE,
)


# ---------------------------------------------------------------- tokens


def jwt(typ, claims):
    def part(value):
        return b64u(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8"))

    signed = part({"alg": "EdDSA", "typ": typ, "kid": b64u(TOKEN.id)}) + "." + part(claims)
    return signed + "." + b64u(TOKEN.sign(signed.encode("ascii")))


def confirmation(key):
    return {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": b64u(key.public)}}


IAT = TIME_MS // 1000
CLAIMS = {
    "enrollment": {
        "tid": "acme",
        "sub": "web-1",
        "jti": "5f0c9a54-0000-4000-8000-000000000001",
        "exp": IAT + 900,
        "nbf": IAT - 60,
        "aud": "edge-enrollment",
        "iss": CONTROLLER_ID,
        "cep": "https://controller.example:50056",
        "pin": {"0": "spki-sha256:" + b64u(H(b"leaf")), "1": "spki-sha256:" + b64u(H(b"authority"))},
        "crk": b64u(ROOT.id),
        "seal": "strict",
        "nid": NODE_ID,
    },
    "node": {
        "sub": NODE_ID,
        "role": "edge",
        "tid": "acme",
        "cep": "https://controller.example:50056",
        "cap_hash": H(b"capabilities").hex(),
        "iss": CONTROLLER_ID,
        "aud": "aegis-controller",
        "jti": "5f0c9a54-0000-4000-8000-000000000002",
        "iat": IAT,
        "exp": IAT + 30 * 86400,
        "cnf": confirmation(NODE),
    },
    "user": {
        "iss": CONTROLLER_ID,
        "aud": "aegis-edge",
        "sub": "søren@acme.example",
        "tid": "acme",
        "scp": "default",
        "scopes": {"0": "fleet.invoke"},
        "jti": "5f0c9a54-0000-4000-8000-000000000003",
        "iat": IAT,
        "exp": IAT + 300,
        "via": "cli",
        "cnf": confirmation(CALLER),
    },
}
TYPES = {"enrollment": "aegis-enroll+jwt", "node": "aegis-node+jwt", "user": "aegis-user+jwt"}


def listed(claims):
    """The file has objects where a claim has a list, so that a formatter leaves it alone."""
    return {key: list(value.values()) if key in ("pin", "scopes") else value for key, value in claims.items()}


TOKENS = {kind: jwt(TYPES[kind], listed(claims)) for kind, claims in CLAIMS.items()}

# ---------------------------------------------------------------- users


def user(case, tenant, context, tool, args, deadline_ms, operator):
    token = TOKENS["user"].encode("ascii")
    fields = {
        "nodeId": NODE_ID,
        "commandId": COMMAND_ID,
        "userToken": hexed(token),
        "tenant": tenant,
        "context": context,
        "tool": tool,
        "argsJson": hexed(args),
        "deadlineMs": deadline_ms,
        "operator": hexed(operator),
    }
    said = DOM + b"\x40" + ID(NODE_ID) + ID(COMMAND_ID) + H(token) + LP(tenant) + LP(context) + LP(tool)
    add("user", case, fields, said + H(args) + u64(deadline_ms) + H(operator), CALLER)


user("an ordinary call", "acme", "default", "cmd.run", b'{"command":"uptime"}', 30_000, b"")
user("no deadline, no arguments", "acme", "default", "host.info", b"{}", 0, b"")
user("other alphabets and an operator's proof", "açme", "préprod", "fs.läs", '{"sti":"/tmp/å"}'.encode(), 1, b"\x0a\x20")
user("names that would run together without lengths", "a", "bc", "d", b"{}", MAX_SAFE, b"")
user("the same letters, cut elsewhere", "ab", "c", "d", b"{}", MAX_SAFE, b"")

# ---------------------------------------------------------------- operators

CHALLENGE = H(b"a host's challenge")
STATEMENT_ID = H(b"a statement id")[:16]


def operator(case, challenge, statement_id, tenant, context, tool, args, deadline_ms, issued_ms, note):
    fields = {
        "nodeId": NODE_ID,
        "challenge": hexed(challenge),
        "statementId": hexed(statement_id),
        "tenant": tenant,
        "context": context,
        "tool": tool,
        "argsJson": hexed(args),
        "deadlineMs": deadline_ms,
        "issuedMs": issued_ms,
        "note": note,
    }
    said = DOM + b"\x41" + ID(NODE_ID) + challenge + statement_id + LP(tenant) + LP(context) + LP(tool)
    said += H(args) + u64(deadline_ms) + u64(issued_ms) + LP(note)
    signature = bytes.fromhex(add("operator", case, fields, said, OPERATOR))
    proof = data(1, OPERATOR.id) + data(2, challenge) + data(3, statement_id) + number(4, issued_ms)
    return proof + text(5, note) + data(6, signature) + number(7, 1)


ARGS = b'{"command":"systemctl","args":["restart","web"]}'
OPERATOR_PROOF = operator(
    "an ordinary call", CHALLENGE, STATEMENT_ID, "acme", "ops", "cmd.run", ARGS, 60_000, TIME_MS, "ticket 4711"
)
operator("no deadline, no time, no note", CHALLENGE, bytes(16), "acme", "default", "host.info", b"{}", 0, 0, "")
operator("other alphabets", CHALLENGE, STATEMENT_ID, "a\u00e7me", "pr\u00e9prod", "fs.l\u00e4s", b"{}", 1, MAX_SAFE, "f\u00f6r \u00e5r")
operator("names that would run together without lengths", CHALLENGE, STATEMENT_ID, "a", "bc", "d", b"{}", 1, 1, "")
operator("the same letters, cut elsewhere", CHALLENGE, STATEMENT_ID, "ab", "c", "d", b"{}", 1, 1, "")


def challenge_of(case, tenant, host_name, contexts):
    fields = {
        "nodeId": NODE_ID,
        "challenge": hexed(CHALLENGE),
        "tenant": tenant,
        "hostName": host_name,
        "nodePublicKey": hexed(NODE.public),
    }
    said = DOM + b"\x31" + ID(NODE_ID) + CHALLENGE + LP(tenant) + LP(host_name) + H(NODE.public)
    signature = bytes.fromhex(add("operatorChallenge", case, fields, said, NODE))
    listed_contexts = b"".join(text(5, context) for context in contexts)
    return data(1, CHALLENGE) + text(2, host_name) + data(3, signature) + data(4, NODE.public) + listed_contexts


OPERATOR_CHALLENGE = challenge_of("a host and its name", "acme", "web-1", ["ops", "deploy"])
challenge_of("a name of another alphabet", "acme", "\u691c\u8a3c-1", [])
challenge_of("tenant and name, cut elsewhere", "acmew", "eb-1", [])

# ---------------------------------------------------------------- audit

AUDIT_DETAIL = '{"command_id":"' + COMMAND_ID + '","note":"na\u00efve"}'
AUDIT_ROW = DOM + b"\x61" + bytes(32) + u64(1) + u64(TIME_MS) + LP("dispatch") + LP("acme") + LP("ann") + LP(NODE_ID)
AUDIT_ROW += LP(AUDIT_DETAIL) + LP("")
add(
    "auditRow",
    "the first row",
    {
        "previous": hexed(bytes(32)),
        "row": 1,
        "timeMs": TIME_MS,
        "kind": "dispatch",
        "tenant": "acme",
        "principal": "ann",
        "node": NODE_ID,
        "detail": AUDIT_DETAIL,
        "receipt": "",
    },
    AUDIT_ROW,
    None,
)
add(
    "checkpoint",
    "of that row",
    {"controllerId": CONTROLLER_ID, "lastRow": 1, "head": hexed(H(AUDIT_ROW)), "timeMs": TIME_MS + 1},
    DOM + b"\x60" + ID(CONTROLLER_ID) + u64(1) + H(AUDIT_ROW) + u64(TIME_MS + 1),
    COMMAND,
)

# ---------------------------------------------------------------- keysets, enrollment, refusals

add("keyset", "version 1", {"controllerId": CONTROLLER_ID, "version": 1, "keyset": hexed(KEYSET)}, KEYSET_SAID, ROOT)

NEXT_KEYSET = keyset_bytes(2, KEYS["new-root"], COMMAND, TOKEN)
NEXT_SAID = DOM + b"\x50" + ID(CONTROLLER_ID) + u64(2) + H(NEXT_KEYSET)
NEXT_SIGNED = signed_keyset(NEXT_KEYSET, ROOT.sign(NEXT_SAID), KEYS["new-root"].sign(NEXT_SAID))
add("keyset", "another root", {"controllerId": CONTROLLER_ID, "version": 2, "keyset": hexed(NEXT_KEYSET)}, NEXT_SAID, ROOT)

NONCE = H(b"enrollment nonce")
NODE_TOKEN = TOKENS["node"].encode("ascii")
add(
    "enrollGrant",
    "a host is let in",
    {
        "nodeId": NODE_ID,
        "nodePublicKey": hexed(NODE.public),
        "nonce": hexed(NONCE),
        "nodeToken": hexed(NODE_TOKEN),
        "keyset": hexed(KEYSET),
    },
    DOM + b"\x51" + ID(NODE_ID) + H(NODE.public) + H(NONCE) + H(NODE_TOKEN) + H(KEYSET),
    COMMAND,
)
ENROLLMENT_TOKEN = TOKENS["enrollment"].encode("ascii")
for case, root_key_id in (("a root was pinned", ROOT.id), ("no root was pinned", bytes(32))):
    add(
        "enrollProof",
        case,
        {
            "nodeId": NODE_ID,
            "nodePublicKey": hexed(NODE.public),
            "enrollmentToken": hexed(ENROLLMENT_TOKEN),
            "nonce": hexed(NONCE),
            "rootKeyId": hexed(root_key_id),
        },
        DOM + b"\x53" + ID(NODE_ID) + H(NODE.public) + H(ENROLLMENT_TOKEN) + NONCE + root_key_id,
        NODE,
    )
add(
    "rekeyProof",
    "a key for a key",
    {
        "nodeId": NODE_ID,
        "oldPublicKey": hexed(KEYS["old-node"].public),
        "newPublicKey": hexed(NODE.public),
        "nonce": hexed(NONCE),
    },
    DOM + b"\x54" + ID(NODE_ID) + H(KEYS["old-node"].public) + H(NODE.public) + NONCE,
    KEYS["old-node"],
)
ROTATION = (
    b"\x0a\x24" + NODE_ID.encode("ascii") + b"\x12\x20" + NODE.public + b"\x1a\x20" + H(b"rotation nonce")
)
for case, overlap_until_ms in (("a new key", 1_767_226_200_000), ("the same key", 0)):
    add(
        "rotateGrant",
        case,
        {
            "nodeId": NODE_ID,
            "rotation": hexed(ROTATION),
            "nodeToken": hexed(NODE_TOKEN),
            "overlapUntilMs": overlap_until_ms,
        },
        DOM + b"\x52" + ID(NODE_ID) + H(ROTATION) + H(NODE_TOKEN) + u64(overlap_until_ms),
        COMMAND,
    )
for case, reason, retry_after_ms in (("revoked", 4, 900_000), ("at once", 2**32 - 1, 0)):
    add(
        "refusal",
        case,
        {"nodeId": NODE_ID, "sealHello": hexed(SEAL_HELLO), "reason": reason, "retryAfterMs": retry_after_ms},
        DOM + b"\x55" + ID(NODE_ID) + H(SEAL_HELLO) + u32(reason) + u64(retry_after_ms),
        COMMAND,
    )

# ---------------------------------------------------------------- a session: its keys, and one frame of each kind

X = DAEMON_SHARE.exchange(CONTROLLER_SHARE.public_key())
assert X == CONTROLLER_SHARE.exchange(DAEMON_SHARE.public_key())


def derive(info):
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=SESSION_ID, info=info).derive(X)


SESSION_KEYS = {"d2c": derive(b"AEGIS-SEAL/1 d2c"), "c2d": derive(b"AEGIS-SEAL/1 c2d")}

BODIES = {
    "accept": SEAL_ACCEPT,
    "command": COMMAND_BODY,
    "credit": text(1, COMMAND_ID) + number(2, 262_144),
    "keysetFrame": NEXT_SIGNED,
    "goodbye": number(1, 1) + number(2, 60_000) + text(3, "back soon"),
    "ack": text(1, COMMAND_ID),
    "confirm": number(1, 1) + number(3, 2),
    "heartbeat": number(2, 3) + number(1000, 1) + number(1001, 1),
    "progress": text(2, COMMAND_ID) + data(3, b"hello\n"),
    "result": data(1, RESULT),
    "capabilities": CAPABILITIES,
}
counters = {"c2d": 0, "d2c": 0}
frames = []
for name, body in BODIES.items():
    kind, direction, auth = FRAMES[name]
    seq = counters[direction]
    counters[direction] += 1
    time_ms = TIME_MS + 10 * seq
    said = header(kind, seq, time_ms, body)
    if auth == "mac":
        proof = hmac.new(SESSION_KEYS[direction], said, hashlib.sha256).digest()
    else:
        proof = (COMMAND if direction == "c2d" else NODE).sign(said)
    sealed = number(1, kind) + number(2, seq) + number(3, time_ms) + data(4, body) + data(5, proof)
    frames.append(
        {
            "name": name,
            "direction": direction,
            "kind": kind,
            "seq": seq,
            "timeMs": time_ms,
            "body": body.hex(),
            "auth": proof.hex(),
            "message": message(1000, sealed).hex(),
        }
    )

# ---------------------------------------------------------------- the progress chain

chain = bytes(32)
links = []
for body in (b"first", b"", b"third of them"):
    chain = H(chain + H(body))
    links.append({"body": body.hex(), "value": chain.hex()})

json.dump(
    {
        "note": "Written by make-strict-vectors.py. All keys are made up. Bytes are hexadecimal.",
        "keys": {
            name: {"seed": key.seed.hex(), "public": key.public.hex(), "keyId": key.id.hex()}
            for name, key in KEYS.items()
        },
        "nodeId": NODE_ID,
        "streamId": STREAM_ID,
        "commandId": COMMAND_ID,
        "controllerId": CONTROLLER_ID,
        "timeMs": TIME_MS,
        "statements": statements,
        "session": {
            "sealHello": SEAL_HELLO.hex(),
            "helloSignature": HELLO_SIGNATURE,
            "acceptBody": SEAL_ACCEPT.hex(),
            "daemonSharePrivate": H(b"aegis strict vectors: daemon share").hex(),
            "daemonShare": raw_public(DAEMON_SHARE).hex(),
            "controllerSharePrivate": H(b"aegis strict vectors: controller share").hex(),
            "controllerShare": raw_public(CONTROLLER_SHARE).hex(),
            "sessionId": SESSION_ID.hex(),
            "toController": SESSION_KEYS["d2c"].hex(),
            "toDaemon": SESSION_KEYS["c2d"].hex(),
            "capabilities": CAPABILITIES.hex(),
        },
        "frames": frames,
        "progressChain": links,
        "operator": {
            "challenge": OPERATOR_CHALLENGE.hex(),
            "proof": OPERATOR_PROOF.hex(),
            "argsJson": ARGS.decode("ascii"),
        },
        "keysets": {"first": SIGNED_KEYSET.hex(), "next": NEXT_SIGNED.hex()},
        "tokens": {kind: {"claims": CLAIMS[kind], "token": token} for kind, token in TOKENS.items()},
    },
    sys.stdout,
    indent=2,
    ensure_ascii=False,
)
sys.stdout.write("\n")
