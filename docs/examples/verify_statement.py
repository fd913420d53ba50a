"""Proves a statement of credits: python3 verify_statement.py PAGE.json... (in their order; several months one after the other).

Each page is an answer of GET /api/credits/statement?month=YYYY-MM. What holds: every entry is there, each continues the
balance before it, each job is held once and ends at most once, for what was held (an end whose hold is in a month that was
not given is taken at its word); the hashes are those of all entries.
"""
import hashlib, json, sys


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def check(condition, why):
    if not condition:
        sys.exit(f"not proved: {why}")


FIELDS = ["share", "entry", "kind", "available_delta", "held_delta", "available_after", "held_after", "job_id",
          "idempotency_key", "reason", "created_at"]
check(len(sys.argv) > 1, "give it the pages")
at, held, ended, month, number, last, account = {}, {}, set(), None, 0, {}, None
for page in (json.load(open(path)) for path in sys.argv[1:]):
    account = account or page["account_id"]
    check(page["account_id"] == account, f"it is of {account} and of {page['account_id']}")
    if page["month"] == month:
        last = {its["share"]: its for its in page["shares"]}  # of a month that goes on, where the last page says
    else:
        check(all(at[share] == (its["behind"], its["closing"]["available"], its["closing"]["held"])
                  for share, its in last.items()), f"{month} does not end as it says")
        if month:
            print(f"{month} is {final}; its hash: {digest}")
        month, last = page["month"], {its["share"]: its for its in page["shares"]}
        digest = sha256(f"punchcard statement\n{page['account_id']}\n{month}\n")
        for share, its in last.items():
            begin = (its["first"], its["opening"]["available"], its["opening"]["held"])
            check(at.setdefault(share, begin) == begin, f"{month} does not go on where the month before ended")
    final = "final" if page["is_final"] else "not final yet"
    for entry in page["data"]:
        number += 1
        (expected, available, holds), name = at[entry["share"]], f"entry {entry['entry']} of share {entry['share']}"
        available, holds = available + entry["available_delta"], holds + entry["held_delta"]
        check(entry["entry"] == expected, f"{name} comes where {expected} should")
        check((available, holds) == (entry["available_after"], entry["held_after"]), f"{name} does not continue the balance")
        at[entry["share"]] = (expected + 1, available, holds)
        check(entry["kind"] == "end" or entry["held_delta"] == (-entry["available_delta"] if entry["kind"] == "hold" else 0),
              f"{name} is no {entry['kind']}")
        if entry["kind"] == "hold":
            check(held.setdefault(entry["job_id"], entry) is entry, f"{name} holds a second time for its job")
        elif entry["kind"] == "end":
            check(entry["job_id"] not in ended, f"{name} ends its job a second time")
            ended.add(entry["job_id"])
            hold = held.get(entry["job_id"], {"held_delta": -entry["held_delta"]})  # of an earlier month
            check(hold["held_delta"] == -entry["held_delta"] and 0 <= entry["available_delta"] <= hold["held_delta"],
                  f"{name} ends another hold than there was")
        values = ("" if entry[field] is None else str(entry[field]) for field in FIELDS)
        digest = sha256(digest + "\n" + ",".join(values))
        check(digest == entry["hash"], f"{name} was changed: its hash is {digest}")
check(all(at[share] == (its["behind"], its["closing"]["available"], its["closing"]["held"]) for share, its in last.items()),
      f"{month} does not end as it says: is a page missing?")
print(f"{month} is {final}; its hash: {digest}")
print(f"proved: {number} entries, {len(held)} jobs held, {len(ended)} ended")
