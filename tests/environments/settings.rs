//! Settings of a database and its roles under which all is as it is elsewhere.

use serde_json::{Value, json};
use shared::{db::STATEMENTS, domain::Timestamp};
use uuid::Uuid;

use super::{assert_sound, doctor, empty, migrate, punchcard, punchcard_as, refused, remove, set};
use crate::support::{APP, Bench, OWNER, as_role, bearer, connect, event};

/// A zone whose summer begins in ten days: the 30 days from now have an hour less than others.
fn shifting_zone() -> String {
    let day = |days| (time::OffsetDateTime::now_utc() + time::Duration::days(days)).ordinal().min(365);
    format!("TimeZone = 'AAA0BBB,J{}/0,J{}/0'", day(10), day(190))
}

/// Each of these was met in the wild, or is one of its kind: a name, and what is set for the whole database.
fn settings() -> Vec<(&'static str, Vec<String>)> {
    let of = |list: &[&str]| list.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    vec![
        (
            "strings",
            of(&["standard_conforming_strings = off", "backslash_quote = on", "escape_string_warning = on"]),
        ),
        (
            "forms",
            [
                of(&[
                    "bytea_output = escape",
                    "IntervalStyle = sql_standard",
                    "DateStyle = 'German, DMY'",
                    "extra_float_digits = -15",
                    "xmlbinary = hex",
                    "array_nulls = off",
                    "transform_null_equals = on",
                    "quote_all_identifiers = on",
                ]),
                vec![shifting_zone()],
            ]
            .concat(),
        ),
        (
            "isolation",
            of(&["default_transaction_isolation = serializable", "default_transaction_deferrable = on"]),
        ),
        ("repeatable read", of(&["default_transaction_isolation = 'repeatable read'"])),
        (
            "plans",
            of(&[
                "plan_cache_mode = force_generic_plan",
                "jit = on",
                "jit_above_cost = 0",
                "enable_nestloop = off",
                "enable_indexscan = off",
                "constraint_exclusion = on",
            ]),
        ),
        (
            "sessions",
            of(&[
                "row_security = off",
                "idle_in_transaction_session_timeout = '2s'",
                "client_min_messages = debug1",
                "check_function_bodies = off",
                "client_encoding = LATIN1",
                "password_encryption = md5",
                "default_table_access_method = odd",
            ]),
        ),
        (
            "PL/pgSQL",
            of(&[
                "plpgsql.variable_conflict = use_variable",
                "plpgsql.extra_errors = 'all'",
                "plpgsql.extra_warnings = 'all'",
                "plpgsql.print_strict_params = on",
            ]),
        ),
        // Names of PostgreSQL's own, in a schema that goes before it.
        ("a path", of(&["search_path = odd, public, pg_catalog"])),
    ]
}

/// What is there before the migrations, in each of them.
const BEFORE: &str = "CREATE SCHEMA odd;
    CREATE FUNCTION odd.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT pg_catalog.now() - interval ''100 days''';
    CREATE FUNCTION odd.length(text) RETURNS integer LANGUAGE sql AS 'SELECT 1000000';
    CREATE DOMAIN odd.text AS pg_catalog.text CHECK (pg_catalog.length(VALUE) < 1);
    CREATE DOMAIN odd.jsonb AS pg_catalog.jsonb CHECK (false);
    GRANT USAGE ON SCHEMA odd TO PUBLIC;
    CREATE FUNCTION public.watch() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM pg_catalog.count(*) FROM pg_catalog.pg_event_trigger_ddl_commands(); END $$;
    CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION public.watch();
    CREATE ACCESS METHOD odd TYPE TABLE HANDLER heap_tableam_handler;
    CREATE TABLE public.user_credits (user_id uuid PRIMARY KEY, credits integer NOT NULL CHECK (credits >= 0));
    CREATE FUNCTION public.increment_user_credits(p_user_id uuid, p_amount integer, p_why pg_catalog.text) RETURNS void
        LANGUAGE sql AS $$ UPDATE public.user_credits SET credits = credits + p_amount WHERE user_id = p_user_id $$;
    CREATE TABLE public.old_jobs (id bigint PRIMARY KEY, user_id uuid, status pg_catalog.text, type pg_catalog.text,
                                  payload pg_catalog.jsonb, created_at timestamptz DEFAULT pg_catalog.now())";

struct Caller<'a> {
    database: &'a Bench,
    account: Uuid,
    what: &'a str,
}

impl Caller<'_> {
    /// A request that is answered with this status.
    async fn ask(
        &self,
        status: u64,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: Option<Value>,
    ) -> Value {
        let token = bearer(self.account);
        let mut headers = vec![("authorization", token.as_str()), ("content-type", "application/json")];
        headers.extend(key.map(|key| ("idempotency-key", key)));
        let body = body.map(|body| body.to_string());
        let answer = self.database.request(event(method, path, &headers, body.as_deref())).await;
        assert_eq!(answer.status, status, "{}: {method} {path}: {}", self.what, answer.body);
        answer.body
    }
}

/// The life of some jobs, and of the credits that pay for them; each statement of the functions is sent.
async fn live(database: &Bench, what: &str) {
    let account = Uuid::new_v4();
    let caller = Caller { database, account, what };
    let id = account.to_string();
    punchcard(database, &["credits", "grant", &id, "50", "--key", "k", "--reason", "it's a\\present"]);
    let in_a_month = time::OffsetDateTime::now_utc() + time::Duration::days(30) - time::Duration::minutes(10);
    let in_a_month = Timestamp(in_a_month).to_string();
    let job = json!({
        "kind": "qr.svg", "input": { "text": "a\\b 'c' ü" }, "run_at": "2026-01-02T03:04:05.678Z", "tags": ["b", "A"],
        "metadata": { "order": "\\7" }, "retry": { "max_attempts": 2, "jitter": 0.25 },
        "webhook": { "url": "http://127.0.0.1:9/", "events": ["job.failed"] }
    });
    let bought = caller.ask(202, "POST", "/api/jobs", Some("it's \\x20"), Some(job.clone())).await;
    let again = caller.ask(200, "POST", "/api/jobs", Some("it's \\x20"), Some(job)).await;
    assert_eq!(again["id"], bought["id"], "{what}");
    let nul = json!({ "kind": "qr.svg", "input": { "text": "\0" } });
    assert_eq!(
        caller.ask(422, "POST", "/api/jobs", None, Some(nul)).await["code"],
        "nul_character",
        "{what}"
    );
    let backslash = json!({ "kind": "qr.svg", "input": { "text": "\\u0000 is no NUL" } });
    caller.ask(202, "POST", "/api/jobs", None, Some(backslash)).await;
    let batch = json!({ "jobs": [
        { "kind": "unserved", "input": { "text": "\\" }, "tags": ["A"] }, { "kind": "qr.svg", "input": { "text": "x" } },
    ] });
    let first = caller.ask(202, "POST", "/api/jobs:batch", Some("batch"), Some(batch.clone())).await;
    let second = caller.ask(200, "POST", "/api/jobs:batch", Some("batch"), Some(batch)).await;
    assert_eq!(first["jobs"][0]["id"], second["jobs"][0]["id"], "{what}");
    let unserved = first["jobs"][0]["id"].as_str().unwrap().to_owned();
    let month = json!({ "kind": "unserved", "input": {}, "run_at": in_a_month });
    let month = caller.ask(202, "POST", "/api/jobs", None, Some(month)).await;
    let month = month["id"].as_str().unwrap().to_owned();
    let hook = json!({ "url": "http://127.0.0.1:9/hook", "events": ["job.canceled"] });
    caller.ask(200, "PUT", "/api/webhook", None, Some(hook)).await;
    caller.ask(200, "POST", &format!("/api/jobs/{month}/cancel"), None, None).await;
    caller.ask(202, "POST", &format!("/api/jobs/{month}/retry"), None, None).await;
    caller.ask(200, "POST", &format!("/api/jobs/{unserved}/cancel"), None, None).await;

    let done = database.poller().invoke(&json!({})).await.expect("a tick");
    assert_eq!(done["succeeded"], 3, "{what}: {done}");
    let id_of_job = bought["id"].as_str().unwrap();
    let shown = caller.ask(200, "GET", &format!("/api/jobs/{id_of_job}"), None, None).await;
    assert_eq!(
        (&shown["status"], &shown["tags"]),
        (&json!("succeeded"), &json!(["A", "b"])),
        "{what}: {shown}"
    );
    assert_eq!(
        (&shown["input"]["text"], &shown["metadata"]["order"]),
        (&json!("a\\b 'c' ü"), &json!("\\7")),
        "{what}"
    );
    for path in ["events", "runs", "deliveries"] {
        caller.ask(200, "GET", &format!("/api/jobs/{id_of_job}/{path}"), None, None).await;
    }
    let found = caller.ask(200, "GET", "/api/jobs?label=A&kind=qr.svg&status=succeeded", None, None).await;
    assert_eq!(found["data"].as_array().map(Vec::len), Some(1), "{what}: {found}");
    assert_eq!(
        caller.ask(200, "GET", "/api/credits", None, None).await,
        json!({"available": 42, "held": 5, "expiring": []}),
        "{what}"
    );
    let ledger = caller.ask(200, "GET", "/api/credits/ledger", None, None).await;
    assert_eq!(
        ledger["data"].as_array().unwrap().last().unwrap()["reason"],
        "it's a\\present",
        "{what}: {ledger}"
    );

    // The operator's.
    for args in [
        vec!["jobs", "list", &id],
        vec!["jobs", "show", id_of_job],
        vec!["jobs", "failed"],
        vec!["credits", "show", &id],
        vec!["credits", "spread", &id, "--shares", "3"],
        vec!["credits", "spread", &id, "--shares", "1"],
        vec!["credits", "refund", id_of_job, "--reason", "a \\ b"],
        vec!["webhooks", "failed"],
        vec!["kinds", "secret", "qr.svg"],
        vec!["tokens", "create", "backend", "--scope", "grant"],
        vec!["tokens", "list"],
        vec!["tokens", "revoke", "backend"],
        vec!["jobs", "redrive", "qr.svg", "--dry-run"],
    ] {
        punchcard(database, &args);
    }
    let team = Uuid::new_v4();
    database.sql(&format!("INSERT INTO public.user_credits VALUES ('{team}', 5)")).await;
    let source = [
        "credits",
        "source",
        "use",
        "public.user_credits",
        "--function",
        "public.increment_user_credits",
        "--set",
        "p_why=it's \\ ours",
        "--force",
    ];
    let two_unknown = [&source[..], &["--set", "x=1", "--set", "y=2"]].concat();
    let line = refused(&punchcard_as(database, OWNER, &two_unknown));
    assert!(line.contains("has no argument"), "{what}: {line}");
    punchcard(database, &source);
    // The same again: nothing of it has changed, so nothing is asked.
    punchcard(database, &source[..source.len() - 1]);
    let of_team = Caller { account: team, ..caller };
    of_team.ask(202, "POST", "/api/jobs", None, Some(json!({ "kind": "unserved", "input": {} }))).await;
    let left: i64 = database
        .count(&format!("SELECT credits::bigint FROM public.user_credits WHERE user_id = '{team}'"))
        .await;
    assert_eq!(left, 0, "{what}: drawn");
    punchcard(database, &["credits", "source", "drop", "--force"]);
    database.sql(&format!("INSERT INTO public.old_jobs (id, user_id, status, type, payload)
                           VALUES (1, '{team}', 'queued', 'qr.svg', '{{\"text\":\"o\"}}'), (2, '{team}', 'done', 'old', '{{}}')")).await;
    let imported =
        punchcard(database, &["import", "--from", "public.old_jobs", "--price", "1", "--pause", "0"]);
    assert!(imported.contains("imported: 1 as history, 1 to be run"), "{what}: {imported}");

    assert_eq!(punchcard(database, &["credits", "audit"]), "audit clean\n", "{what}");
    database.assert_audit_is_clean().await;
    assert_sound(database, what);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_set_the_life_of_a_job_is_the_same() {
    let server = Bench::new().await;
    for (what, settings) in settings() {
        let database = empty(&server, OWNER, "").await;
        prepare(&database).await;
        for setting in &settings {
            set(&database, setting).await;
        }
        migrate(&database).await;
        // Another may keep no unique index, or take no update.
        let elsewhere = "SELECT count(*) FROM pg_class c JOIN pg_am a ON a.oid = c.relam
            WHERE c.relnamespace = 'punchcard'::regnamespace AND c.relkind = 'r' AND a.amname <> 'heap'";
        assert_eq!(database.count(elsewhere).await, 0, "{what}");
        // What statements there are is read under it, too.
        let url = as_role(&database.direct_url, OWNER);
        let owner = connect(&url).await;
        for (name, sql) in STATEMENTS {
            let prepared =
                owner.batch_execute(&format!("PREPARE statement AS {sql}; DEALLOCATE statement")).await;
            assert!(prepared.is_ok(), "{what}: {name}: {prepared:?}");
        }
        live(&database, what).await;
        remove(&server, database).await;
    }
}

async fn prepare(database: &Bench) {
    database.sql(BEFORE).await;
    let grants = format!(
        "GRANT SELECT, UPDATE ON public.user_credits, public.old_jobs TO {OWNER}; GRANT USAGE ON SCHEMA public TO {OWNER}"
    );
    database.sql(&grants).await;
}

/// Letters are compared and turned into others by the rules of a language: in Turkish, I is no capital i.
#[tokio::test(flavor = "multi_thread")]
async fn in_a_turkish_database_too() {
    let server = Bench::new().await;
    let icu = server.rows("SELECT 1 FROM pg_collation WHERE collprovider = 'i' LIMIT 1").await;
    if icu.is_empty() {
        eprintln!("this server was built without ICU");
        return;
    }
    let turkish = "TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'tr-TR' LOCALE 'C'";
    let database = empty(&server, OWNER, turkish).await;
    prepare(&database).await;
    migrate(&database).await;
    // What the doctor knows by its words is there in capitals.
    database
        .sql(
            "CREATE TABLE public.credits_log (user_id uuid, credits integer CHECK (credits >= 0));
             CREATE FUNCTION public.add_credits(a uuid) RETURNS void LANGUAGE plpgsql AS $$
             BEGIN INSERT INTO public.CREDITS_LOG VALUES (a, 1); EXCEPTION WHEN OTHERS THEN NULL; END $$",
        )
        .await;
    let (said, _) = doctor(&database, APP);
    assert!(said.contains("add_credits: swallows errors"), "{said}");
    live(&database, "Turkish").await;
    remove(&server, database).await;
}
