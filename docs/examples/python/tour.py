"""A tour of the API by a client that was generated from its description: every call is typed, and checked here.

    pip install openapi-python-client==0.29.1
    openapi-python-client generate --path ../../../functions/api/openapi.json --meta none --config config.yml \
        --output-path punchcard_client --overwrite
    API=http://… JWT=… SERVICE_TOKEN=… ACCOUNT=… python3 tour.py      # the JWT is that of the account
"""
import datetime
import os
import uuid

from punchcard_client import AuthenticatedClient
from punchcard_client.api.credits_ import get_credits, get_statement, grant_credits, list_ledger
from punchcard_client.api.jobs import (cancel_job, create_batch, create_job, get_job, list_events, list_jobs, list_kinds,
                                       list_runs, retry_job, retry_jobs, validate_jobs)
from punchcard_client.api.webhooks import (delete_webhook, get_webhook, list_deliveries, rotate_secret, set_webhook)
from punchcard_client.models import (CreateBatch, CreateJob, CreateJobMetadataType0, GrantCredits, ListJobsIncludeItem,
                                     Problem, RetryJobs, Status, WantedWebhook)

account = uuid.UUID(os.environ["ACCOUNT"])
user = AuthenticatedClient(base_url=os.environ["API"], token=os.environ["JWT"])
service = AuthenticatedClient(base_url=os.environ["API"], token=os.environ["SERVICE_TOKEN"])
now = datetime.datetime.now(datetime.timezone.utc)
order = uuid.uuid4().hex


def check(what, holds):
    assert holds, what
    print("ok:", what)


# Credits come from a payment, once for each key.
key = f"payment-{order}"
first = grant_credits.sync(client=service, account_id=account, idempotency_key=key, body=GrantCredits(amount=100))
again = grant_credits.sync(client=service, account_id=account, idempotency_key=key, body=GrantCredits(amount=100))
check("a grant counts once", first.id == again.id)
before = get_credits.sync(client=user)

# What there is, and what it costs.
kinds = list_kinds.sync(client=user)
kind = next(kind for kind in kinds.data if kind.name == "qr.svg")
wanted = CreateJob(kind="qr.svg", tags=["tour"], metadata=CreateJobMetadataType0.from_dict({"order": order}),
                   input_={"text": "hello"}, run_at=(now + datetime.timedelta(days=1)).isoformat())
cost = validate_jobs.sync(client=user, body=CreateBatch(jobs=[wanted, wanted]))
check("two cost twice the price", (cost.price, cost.available_after)
      == (2 * kind.price, before.available - 2 * kind.price))

# Bought once, whatever is sent twice.
job = create_job.sync(client=user, idempotency_key=order, body=wanted)
replay = create_job.sync_detailed(client=user, idempotency_key=f'"{order}"', body=wanted)
check("a key in quotes is the same key", replay.parsed.id == job.id and replay.headers["idempotent-replayed"] == "true")
check("an answer has an id", bool(replay.headers["request-id"]))
batch = create_batch.sync(client=user, body=CreateBatch(jobs=[wanted, wanted]))
check("a batch is all or none", len(batch.jobs) == 2)
check("it is charged once each", get_credits.sync(client=user).held == before.held + 3 * kind.price)
shown = get_job.sync(client=user, id=job.id, wait=0)
check("it is queued", shown.status == Status.QUEUED and shown.input_ == {"text": "hello"})

# Found by every filter, in pages.
found = list_jobs.sync(client=user, label=["tour", f"order={order}"], status=[Status.QUEUED, Status.RUNNING], kind="qr.svg",
                       created_after=now - datetime.timedelta(hours=1), include=[ListJobsIncludeItem.INPUT], limit=2)
check("a page has two of three", len(found.data) == 2 and found.limit == 2 and found.data[0].input_ == {"text": "hello"})
rest = list_jobs.sync(client=user, label=["tour", f"order={order}"], status=[Status.QUEUED, Status.RUNNING], kind="qr.svg",
                      created_after=now - datetime.timedelta(hours=1), limit=2, cursor=found.next_cursor)
check("and the next the third", [job.id for job in rest.data] == [job.id] and rest.next_cursor is None)
check("lists are light", "input" not in rest.data[0].to_dict())

# Canceled, retried, and what happened meanwhile.
canceled = cancel_job.sync(client=user, id=job.id)
check("it is canceled for nothing", canceled.status == Status.CANCELED and canceled.credits_.released == kind.price)
retried = retry_job.sync(client=user, id=job.id)
check("a retry is a new job", retried.retry_of == job.id)
again = retry_job.sync(client=user, id=job.id)
check("once", isinstance(again, Problem) and again.code == "already_retried" and again.retried_as == retried.id)
check("its events are told", [event.type_ for event in list_events.sync(client=user, id=job.id).data]
      == ["job.queued", "job.canceled"])
check("it never ran", list_runs.sync(client=user, id=job.id).data == [])
check("nobody was to be told", list_deliveries.sync(client=user, id=job.id).data == [])
dead = retry_jobs.sync(client=service, account_id=account, validate_only=True, body=RetryJobs(kind="qr.svg"))
check("what a bulk retry would take is counted", dead.data == [])

# Webhooks.
webhook = set_webhook.sync(client=user, body=WantedWebhook(url="https://example.com/punchcard"))
check("a webhook has a secret", webhook.secret.startswith("whsec_") and get_webhook.sync(client=user).url == webhook.url)
check("which is rotated", rotate_secret.sync(client=user).previous_secret == webhook.secret)
check("and deleted", delete_webhook.sync_detailed(client=user).status_code == 204)

# What goes wrong is typed, and says where.
wrong = create_job.sync(client=user, body=CreateJob(kind="no.such", priority=99))
check("a problem says where it is", isinstance(wrong, Problem) and
      [(error.code, error.pointer) for error in wrong.errors] == [("invalid_priority", "#/priority")])

# The books.
entries = list_ledger.sync(client=user, limit=5)
check("each movement is an entry", {entry.kind for entry in entries.data} <= {"hold", "release", "grant", "capture"})
statement = get_statement.sync(client=user, month=now.strftime("%Y-%m"))
check("and the month adds up", statement.shares[0].closing.available == get_credits.sync(client=user).available)
for job in [retried, *batch.jobs]:
    cancel_job.sync(client=user, id=job.id)
check("nothing is held at the end", get_credits.sync(client=user).held == before.held)
