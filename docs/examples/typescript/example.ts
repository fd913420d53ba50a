// Buys a job, waits for it, and says what came of it. Every path, parameter, status and problem is typed by `schema.d.ts`,
// which is generated from the API's own description: what the API does not know does not compile.
import { randomUUID } from "node:crypto";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema";

type Job = components["schemas"]["Job"];

function setting(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`set ${name}`);
  return value;
}

const api = createClient<paths>({
  baseUrl: setting("API"),
  headers: { authorization: `Bearer ${setting("JWT")}` },
});

/** Buys one QR code. With the same key it is bought once, however often this is called. */
async function buy(text: string, key: string): Promise<Job | undefined> {
  const { data, error, response } = await api.POST("/api/jobs", {
    params: { header: { "Idempotency-Key": key } },
    body: { kind: "qr.svg", input: { text }, tags: ["example"] },
  });
  if (data) {
    console.log(response.status === 200 ? "bought before:" : "bought:", data.id, "for", data.credits.price);
    return data;
  }
  switch (error.code) {
    case "insufficient_credits": // 402
      console.error(`it costs ${error.required}, and there are ${error.available} credits`);
      return undefined;
    case "unknown_kind": // 422
    case "idempotency_mismatch": // 422: the key was used for something else
    case "invalid_metadata":
    case "invalid_tags":
      console.error(`refused: ${error.detail}`);
      return undefined;
    case "too_many_jobs": // 429
    case "unavailable": // 503: the same call again, with the same key, is safe
      console.error(`later, in ${response.headers.get("retry-after")} seconds`);
      return undefined;
    default:
      throw new Error(`${error.status} ${error.code}: ${error.detail} (request ${error.request_id})`);
  }
}

/** Waits until the job is final: each answer comes as soon as it is, or after 25 seconds. */
async function finished(job: Job): Promise<Job> {
  while (job.status === "queued" || job.status === "running") {
    const { data, error, response } = await api.GET("/api/jobs/{id}", {
      params: { path: { id: job.id }, query: { wait: 25 } },
    });
    if (error) throw new Error(`${error.status} ${error.code}: ${error.detail}`);
    job = data;
    const pause = Number(response.headers.get("retry-after") ?? 0);
    await new Promise((wake) => setTimeout(wake, pause * 1_000));
  }
  return job;
}

const key = process.argv[2] ?? `example-${randomUUID()}`;
const bought = await buy("https://example.com", key);
if (bought) {
  const job = await finished(bought);
  console.log(job.status, job.error ? `${job.error.code}: ${job.error.message}` : JSON.stringify(job.output).slice(0, 60));
  console.log("credits:", job.credits);
} else {
  process.exitCode = 1;
}
