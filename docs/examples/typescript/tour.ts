// A tour of the API: every call is typed by `schema.d.ts`, and each answer is checked.
// API=… JWT=… SERVICE_TOKEN=… ACCOUNT=… npm run tour      (the JWT is that of the account)
import { randomUUID } from "node:crypto";
import createClient from "openapi-fetch";
import type { paths } from "./schema";

const setting = (name: string): string => process.env[name] ?? fail(`set ${name}`);
const as = (token: string) =>
  createClient<paths>({ baseUrl: setting("API"), headers: { authorization: `Bearer ${token}` } });
const [user, service, account] = [as(setting("JWT")), as(setting("SERVICE_TOKEN")), setting("ACCOUNT")];

function fail(why: string): never {
  throw new Error(why);
}

function check(what: string, holds: boolean): void {
  if (!holds) fail(what);
  console.log("ok:", what);
}

/** What was answered, or why not. */
async function ok<T>(call: Promise<{ data?: T; error?: { code: string; detail: string } }>): Promise<T> {
  const { data, error } = await call;
  return data ?? fail(error ? `${error.code}: ${error.detail}` : "no answer");
}

const balance = () => ok(user.GET("/api/credits"));
const order = randomUUID();
const inAnHour = new Date(Date.now() - 3_600_000).toISOString();

// Credits come from a payment, once for each key.
const payment = { params: { query: { account_id: account }, header: { "Idempotency-Key": `payment-${order}` } }, body: { amount: 100 } };
const first = await ok(service.POST("/api/credits/grants", payment));
check("a grant counts once", (await ok(service.POST("/api/credits/grants", payment))).id === first.id);
const before = await balance();

// What there is, and what it costs.
const kind = (await ok(user.GET("/api/kinds"))).data.find((kind) => kind.name === "qr.svg") ?? fail("no qr.svg");
const wanted = {
  kind: "qr.svg", input: { text: "hello" }, tags: ["tour"], metadata: { order },
  run_at: new Date(Date.now() + 86_400_000).toISOString(),
};
const cost = await ok(user.POST("/api/jobs:validate", { body: { jobs: [wanted, wanted] } }));
check("two cost twice the price", cost.price === 2 * kind.price && cost.available_after === before.available - cost.price);

// Bought once, whatever is sent twice.
const job = await ok(user.POST("/api/jobs", { params: { header: { "Idempotency-Key": order } }, body: wanted }));
const replay = await user.POST("/api/jobs", { params: { header: { "Idempotency-Key": `"${order}"` } }, body: wanted });
check("a key in quotes is the same key", replay.data?.id === job.id && replay.response.headers.get("idempotent-replayed") === "true");
check("an answer has an id", replay.response.headers.has("request-id"));
const batch = await ok(user.POST("/api/jobs:batch", { body: { jobs: [wanted, wanted] } }));
check("it is charged once each", (await balance()).held === before.held + 3 * kind.price && batch.jobs.length === 2);
const shown = await ok(user.GET("/api/jobs/{id}", { params: { path: { id: job.id }, query: { wait: 0 } } }));
check("it is queued", shown.status === "queued");

// Found by every filter, in pages.
const list = (cursor?: string) =>
  ok(user.GET("/api/jobs", { params: { query: {
    label: ["tour", `order=${order}`], status: ["queued", "running"], kind: "qr.svg", created_after: inAnHour, limit: 2,
    include: ["input"], ...(cursor ? { cursor } : {}),
  } } }));
const page = await list();
check("a page has two of three", page.data.length === 2 && page.limit === 2 && page.data[0]?.input !== undefined);
const rest = await list(page.next_cursor ?? fail("no cursor"));
check("and the next the third", rest.data[0]?.id === job.id && rest.next_cursor === null);

// Canceled, retried, and what happened meanwhile.
const path = { params: { path: { id: job.id } } };
const canceled = await ok(user.POST("/api/jobs/{id}/cancel", path));
check("it is canceled for nothing", canceled.status === "canceled" && canceled.credits.released === kind.price);
const retried = await ok(user.POST("/api/jobs/{id}/retry", path));
check("a retry is a new job", retried.retry_of === job.id);
const again = await user.POST("/api/jobs/{id}/retry", path);
check("once", again.error?.code === "already_retried" && again.error.retried_as === retried.id);
const events = await ok(user.GET("/api/jobs/{id}/events", path));
check("its events are told", events.data.map((event) => event.type).join() === "job.queued,job.canceled");
check("it never ran", (await ok(user.GET("/api/jobs/{id}/runs", path))).data.length === 0);
check("nobody was to be told", (await ok(user.GET("/api/jobs/{id}/deliveries", path))).data.length === 0);
const bulk = { params: { query: { account_id: account, validate_only: true } }, body: { kind: "qr.svg" } };
check("what a bulk retry would take is counted", (await ok(service.POST("/api/jobs:retry", bulk))).data.length === 0);

// Webhooks.
const webhook = await ok(user.PUT("/api/webhook", { body: { url: "https://example.com/punchcard" } }));
check("a webhook has a secret", webhook.secret?.startsWith("whsec_") === true);
check("it is shown", (await ok(user.GET("/api/webhook"))).url === webhook.url);
check("and rotated", (await ok(user.POST("/api/webhook/rotate-secret"))).previous_secret === webhook.secret);
check("and deleted", (await user.DELETE("/api/webhook")).response.status === 204);

// What goes wrong is typed, and says where.
const wrong = await user.POST("/api/jobs", { body: { kind: "no.such", priority: 99 } });
check("a problem says where it is", wrong.error?.errors?.[0]?.pointer === "#/priority");

// The books.
const entries = await ok(user.GET("/api/credits/ledger", { params: { query: { limit: 5 } } }));
check("each movement is an entry", entries.data.length === 5);
const month = new Date().toISOString().slice(0, 7);
const statement = await ok(user.GET("/api/credits/statement", { params: { query: { month } } }));
check("and the month adds up",
  typeof statement !== "string" && statement.shares[0]?.closing.available === (await balance()).available);
for (const { id } of [retried, ...batch.jobs]) await ok(user.POST("/api/jobs/{id}/cancel", { params: { path: { id } } }));
check("nothing is held at the end", (await balance()).held === before.held);
