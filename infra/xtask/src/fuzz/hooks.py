"""What schemathesis cannot know: which jobs, kinds and accounts there are.

The pool (PUNCHCARD_POOL) is written anew every few seconds by `cargo xtask fuzz-api`. Valid requests are made ones that can
be granted, most of the time; invalid ones go out as they were made up.
"""

import json
import os
import random

import schemathesis

POOL = os.environ["PUNCHCARD_POOL"]
# The account of the user who calls, or "service".
IDENTITY = os.environ["PUNCHCARD_IDENTITY"]
CURSORS = {}


def pool():
    with open(POOL, encoding="utf-8") as file:
        return json.load(file)


def account(known):
    return random.choice(list(known["jobs"])) if IDENTITY == "service" else IDENTITY


def job_for(operation, known):
    """A job that the operation can be done to, if there is one."""
    jobs = known["jobs"].get(account(known), {})
    wanted = {"/cancel": "cancelable", "/retry": "retryable"}
    for end, name in wanted.items():
        if operation.endswith(end):
            return random.choice(jobs.get(name) or [None])
    return random.choice(jobs.get("any") or [None])


def vary_job(job, known):
    if not isinstance(job, dict):
        return
    if random.random() < 0.8:
        job["kind"] = random.choice(known["kinds"])
    point_here(job.get("webhook"), known)
    # RFC 3339's "offset not known", which is refused, and a leap second.
    if isinstance(job.get("run_at"), str):
        job["run_at"] = job["run_at"].replace("-00:00", "Z").replace(":60", ":59")
    # A policy whose parts do not go together is refused, as is a time beyond 30 days: seldom of interest.
    for name in ("retry", "run_at"):
        if random.random() < 0.5:
            job.pop(name, None)


def point_here(webhook, known):
    """Who is told is here, whoever was made up."""
    if isinstance(webhook, dict):
        webhook["url"] = known["receiver"]


def name_account(holder, known, may_be_left_out):
    """A user names no account; a service must, where the API cannot do without."""
    if not isinstance(holder, dict):
        return
    if IDENTITY != "service":
        holder.pop("account_id", None)
    elif not may_be_left_out or "account_id" in holder:
        holder["account_id"] = random.choice(known["accounts"])


def written_as_whole(value):
    """To JSON Schema 7.0 is a whole number; the API wants it written as one, as the document says in words."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [written_as_whole(item) for item in value]
    if isinstance(value, dict):
        # An input is the caller's own.
        return {name: item if name == "input" else written_as_whole(item) for name, item in value.items()}
    return value


def within_range(value):
    """A number beyond a double's range is refused wherever it stands, as RFC 8259 lets a reader."""
    if isinstance(value, int) and abs(value) > 10**300:
        return 0
    if isinstance(value, list):
        return [within_range(item) for item in value]
    if isinstance(value, dict):
        return {name: within_range(item) for name, item in value.items()}
    return value


def list_of(case):
    """Which list a cursor is of."""
    return (case.path, (case.path_parameters or {}).get("id"), (case.query or {}).get("account_id"))


@schemathesis.hook
def before_call(ctx, case, kwargs):
    # Without a token the answer is 401, whatever is asked for.
    if IDENTITY == "nobody" or case.meta is None or not case.meta.generation.mode.is_positive:
        return
    known = pool()
    method, path = case.method.upper(), case.path
    if "id" in (case.path_parameters or {}) and random.random() < 0.7:
        job = job_for(path, known)
        if job:
            case.path_parameters["id"] = job
    if "account_id" in (case.path_parameters or {}):
        # Whoever is erased is closed for good: it is never one that others buy for.
        wanted = known["accounts"] if path.endswith("/export") else known["leavers"]
        case.path_parameters["account_id"] = random.choice(wanted)
    if "token" in (case.path_parameters or {}) and random.random() < 0.8:
        tokens = known["jobs"].get(random.choice(list(known["jobs"])), {}).get("tokens")
        case.path_parameters["token"] = random.choice(tokens or ["x"])
    of_account = ("/api/jobs", "/api/jobs:batch", "/api/jobs:validate", "/api/credits", "/api/credits/ledger", "/api/credits/statement")
    if path in of_account or path.startswith("/api/webhook"):
        case.query = dict(case.query or {})
        name_account(case.query, known, may_be_left_out=False)
    if path == "/api/credits/grants" and IDENTITY == "service":
        case.query = dict(case.query or {}, account_id=random.choice(known["accounts"]))
    if path == "/api/jobs:retry" and case.query:
        name_account(case.query, known, may_be_left_out=True)
    if case.query and "wait" in case.query:
        # There is more to do than to wait.
        case.query["wait"] = min(case.query["wait"], 1) if isinstance(case.query["wait"], int) else 1
    if case.query and "cursor" in case.query:
        # A cursor is as it was given, by the same list of the same account or job, or there is none.
        seen = CURSORS.get(list_of(case))
        case.query.pop("cursor")
        if seen:
            case.query["cursor"] = seen
    if not isinstance(case.body, dict):
        return
    case.body = body = within_range(written_as_whole(case.body))
    if path == "/api/jobs":
        vary_job(body, known)
    elif path in ("/api/jobs:batch", "/api/jobs:validate"):
        for job in body.get("jobs") or []:
            vary_job(job, known)
    elif path == "/api/webhook":
        point_here(body, known)
    elif path == "/api/credits/grants" and IDENTITY == "service":
        # An account holds up to 10^18: so that grants go on being granted.
        body["amount"] = min(body.get("amount", 1), 1_000_000)
    elif path == "/api/jobs:retry":
        body.pop("cursor", None)
        # One of a kind and an account must be named.
        if random.random() < 0.7 or "account_id" not in (case.query or {}):
            body["kind"] = random.choice(known["kinds"])


@schemathesis.check
def each_problem_is_documented(ctx, response, case):
    """`code` is open in the schema: which codes an operation answers, its `x-problems` says."""
    # Of a method that a path does not have there is no operation.
    is_problem = response.headers["content-type"][0].startswith("application/problem+json")
    if is_problem and response.status_code != 405:
        known = case.operation.definition.raw["x-problems"].get(str(response.status_code), [])
        code = response.json()["code"]
        assert code in known, f"{case.method} {case.path} answers {response.status_code} {code}"


@schemathesis.hook
def after_call(ctx, case, response):
    if case.method.upper() == "GET" and response.status_code == 200 and case.path != "/api/openapi.json":
        # A statement may be CSV, and an export is lines.
        as_json = response.headers["content-type"][0].startswith("application/json;") or (
            response.headers["content-type"][0] == "application/json"
        )
        cursor = response.json().get("next_cursor") if as_json else None
        if cursor:
            CURSORS[list_of(case)] = cursor
