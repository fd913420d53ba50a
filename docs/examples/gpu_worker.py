"""A GPU worker behind Punchcard, of Python's standard library alone: docs/GPU_WORKER.md explains it.

    SECRET=$(punchcard kinds secret picture.draw) PORT=8000 python3 gpu_worker.py
"""

import base64
import hashlib
import hmac
import json
import os
import queue
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = base64.b64decode(os.environ["SECRET"].removeprefix("whsec_"))
WAITING = queue.Queue(maxsize=int(os.environ.get("MOST_WAITING", "100")))
URLS = {}  # job id -> where to call back: of the job's latest run
CANCELED = set()


def draw(job, progress):
    """The work: minutes on a GPU. `progress` says whether it is still wanted."""
    steps = int(job["input"].get("steps", 3))
    for step in range(steps):
        time.sleep(float(os.environ.get("STEP_SECONDS", "1")))
        if not progress(100 * (step + 1) // steps, f"step {step + 1} of {steps}"):
            return None
    return {"url": f"https://pictures.example.com/{job['id']}.png"}


def genuine(headers, body):
    """Standard Webhooks: signed by our secret, and not more than five minutes ago."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    mine = b"v1," + base64.b64encode(hmac.digest(SECRET, signed, hashlib.sha256))
    theirs = (headers["webhook-signature"] or "").encode().split(b" ")
    fresh = abs(time.time() - int(headers["webhook-timestamp"] or 0)) < 300
    return fresh and any(hmac.compare_digest(mine, signature) for signature in theirs)


def call_back(url, said):
    """Says it until it is heard. A 409 means that nobody waits for it any more."""
    for pause in (1, 5, 25, 125, 0):
        request = urllib.request.Request(
            url, json.dumps(said).encode(), {"content-type": "application/json"}, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:
                return {"cancel_requested": True}
        except OSError:
            pass
        time.sleep(pause)
    return {"cancel_requested": False}


def work():
    while True:
        job = WAITING.get()
        job_id = job["id"]

        def progress(percent, message):
            said = {"status": "running", "progress": {"percent": percent, "message": message}}
            return job_id not in CANCELED and not call_back(URLS[job_id], said)["cancel_requested"]

        try:
            output = draw(job, progress)
            said = {"status": "succeeded", "output": output}
        except Exception as error:  # whatever it was, another attempt may do better
            output, said = error, {"status": "failed", "error": {"message": str(error), "retryable": True}}
        # Before it is said: if the job comes again after that, it is to be done again.
        url = URLS.pop(job_id)
        CANCELED.discard(job_id)
        if output is not None:
            call_back(url, said)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"] or 0))
        if not genuine(self.headers, body):
            return self.answer(401)
        job = json.loads(body)
        if self.path == "/cancel":
            if job["id"] in URLS:
                CANCELED.add(job["id"])
            return self.answer(204)
        # The same job may come again: it is drawn once, and the last URL is the one that is waited at.
        known, URLS[job["id"]] = job["id"] in URLS, job["callback_url"]
        if not known:
            try:
                WAITING.put_nowait(job)
            except queue.Full:
                del URLS[job["id"]]
                return self.answer(503, {"retry-after": "30"})
        self.answer(202)

    def answer(self, status, headers=()):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    threading.Thread(target=work, daemon=True).start()
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8000"))), Handler)
    print(f"listens at {server.server_address[1]}", flush=True)
    server.serve_forever()
