#!/usr/bin/env python3
"""Verify an export of Octopus's audit log (GET /api/v1/audit/export) without Octopus.

Prints the head of the chain as SEQ:HASH and exits with 0, or prints the first error and exits with 1."""
import argparse, hashlib, hmac, json, struct, sys
from datetime import datetime, timedelta, timezone

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def fail(seq, problem):
    sys.exit(f"broken at seq {seq}: {problem}")


def verify(entries, keys, current, start, anchor):
    seq, previous = start
    last, seen, changed = None, set(), False
    for entry in entries:
        seq += 1
        payload, key_id = entry["payload"] or "", entry["hash_key_id"]
        if entry["seq"] != seq:
            fail(seq, "an entry is missing or was inserted")
        if key_id not in keys:
            fail(seq, "it was signed with an unknown key")
        content = json.loads(payload)
        micros = (datetime.fromisoformat(content["timestamp"].replace("Z", "+00:00")) - EPOCH) // timedelta(microseconds=1)
        head = b"octopus-audit-v1\0" + struct.pack(">IQQ", key_id, seq, micros) + previous
        message = struct.pack(">I", len(payload.encode())) + payload.encode()
        previous = hmac.new(keys[key_id], head + message, hashlib.sha256).digest()
        if content["seq"] != seq or not hmac.compare_digest(previous.hex(), entry["hash"] or ""):
            fail(seq, "it was changed, moved or does not follow the previous entry")
        if content["action"] == "change_audit_key":
            if last not in (None, content["details"]["previous_key_id"]) or (changed and key_id in seen):
                fail(seq, "it is not a valid change of the audit key")
            changed = True
        elif changed and key_id != last:
            fail(seq, "it was signed with an earlier key after the key had changed")
        last = key_id
        seen.add(key_id)
        if anchor and anchor[0] == seq and anchor[1] != previous:
            fail(seq, "it is not the entry of the anchor")
    anchor and anchor[0] > seq and fail(seq + 1, "the log is truncated here: the anchor is later")
    if last not in (None, current) and anchor != (seq, previous):
        fail(seq, "the last entry was not signed with the current key")
    return f"{seq}:{previous.hex()}"


if __name__ == "__main__":
    anchor = lambda text: (int(text.split(":")[0]), bytes.fromhex(text.split(":")[1]))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("export", help="file with JSON lines")
    parser.add_argument("key", nargs="+", help="files with audit keys, the current one first")
    parser.add_argument("--anchor", type=anchor, help="SEQ:HASH printed by an earlier verification")
    parser.add_argument("--start", type=anchor, default=(0, bytes(32)), help="SEQ:HASH before the first entry")
    args = parser.parse_args()
    secrets = [part.strip() for path in args.key for part in open(path, "rb").read().split(b",")]
    ids = [int.from_bytes(hashlib.sha256(b"octopus-audit-key-id\0" + s).digest()[:4], "big") for s in secrets]
    lines = map(json.loads, open(args.export, encoding="utf-8"))
    print(verify(lines, dict(zip(ids, secrets)), ids[0], args.start, args.anchor))
