//! What `punchcard` writes: to a reader who has heard enough, and as JSON to a program.

use std::{
    collections::HashSet,
    fmt,
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
    sync::Arc,
};

use local::scripted::{Response, ScriptedServer};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::json;
use uuid::Uuid;

use super::{at, punchcard, said};
use crate::support::{APP, Bench, OWNER, as_role, binary};

/// Runs it with a pipe that is closed after its first line; answers the line, the exit code, and what was said of it.
fn closed_after_a_line(bench: &Bench, args: &[&str]) -> (String, Option<i32>, String) {
    let mut command = Command::new(binary("punchcard"));
    command.args(args).env("DATABASE_URL", as_role(&bench.url, OWNER));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut reader = BufReader::with_capacity(16, child.stdout.take().unwrap());
    reader.read_line(&mut line).unwrap();
    drop(reader);
    let status = child.wait().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (line, status.code(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_heard_enough_is_not_told_that_the_pipe_is_closed() {
    let bench = Bench::new().await;
    let account = bench.account(50).await;
    bench.enqueue(account, "qr.svg", 50).await;
    let account = account.to_string();
    // More than a pipe keeps: the writer must meet its end.
    bench.sql(&format!("SELECT punchcard.enqueue('{account}', 'free', to_json(repeat('x', 60000))) FROM generate_series(1, 20)")).await;
    for args in [&["accounts", "export", &account][..], &["migrate", "--print-supabase"]] {
        let (line, exit, said) = closed_after_a_line(&bench, args);
        assert!(!line.is_empty());
        assert_eq!((exit, said.as_str()), (Some(141), ""), "{args:?}: as of a program that SIGPIPE ended");
    }
    // Standard error may be closed too.
    let mut command = Command::new("sh");
    let script = format!("exec 2>&-; exec {} jobs show {account}", binary("punchcard").display());
    command.args(["-c", &script]).env("DATABASE_URL", as_role(&bench.url, OWNER));
    assert_eq!(command.status().unwrap().code(), Some(1), "refused, and no panic");
    let full = format!("exec {} jobs list {account} >/dev/full", binary("punchcard").display());
    let mut command = Command::new("sh");
    let output =
        command.args(["-c", &full]).env("DATABASE_URL", as_role(&bench.url, OWNER)).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && text.contains("standard output: "), "{text}");
}

/// JSON of which no object has a key twice.
struct Strict;

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Strict;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, _: bool) -> Result<Strict, E> {
        Ok(Strict)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Strict, E> {
        Ok(Strict)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Strict, E> {
        Ok(Strict)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Strict, E> {
        Ok(Strict)
    }
    fn visit_str<E>(self, _: &str) -> Result<Strict, E> {
        Ok(Strict)
    }
    fn visit_unit<E>(self) -> Result<Strict, E> {
        Ok(Strict)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Strict, A::Error> {
        while items.next_element::<Strict>()?.is_some() {}
        Ok(Strict)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Strict, A::Error> {
        let mut keys = HashSet::new();
        while let Some((key, _)) = members.next_entry::<String, Strict>()? {
            if !keys.insert(key.clone()) {
                return Err(serde::de::Error::custom(format!("{key} stands in it twice")));
            }
        }
        Ok(Strict)
    }
}

/// Every line that is JSON, or is so behind a name; at least `least` of them.
fn assert_json(what: &[&str], text: &str, least: usize) {
    let mut found = 0;
    for line in text.lines().filter(|line| line.contains('{')) {
        let json = &line[line.find('{').unwrap()..];
        if let Err(error) = serde_json::from_str::<Strict>(json) {
            panic!("{what:?}: {error}: {line}");
        }
        found += 1;
    }
    assert!(found >= least, "{what:?}: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_object_of_any_json_output_has_a_member_twice() {
    assert!(serde_json::from_str::<Strict>(r#"{"a":[{"b":1,"b":2}]}"#).is_err(), "what the test looks by");
    let bench = Bench::new().await;
    let server = ScriptedServer::start(|_| Response::bytes(500, "")).await.unwrap();
    let server = Arc::new(server);
    let account = bench.account(50).await;
    bench.sql(&format!("SELECT punchcard.set_webhook('{account}', '{}')", server.url("/hook"))).await;
    bench.sql(&format!("SELECT punchcard.enqueue('{account}', 'qr.svg', '{{\"wrong\":1}}')")).await;
    bench.enqueue(account, "qr.svg", 1).await;
    bench.poller().invoke(&json!({})).await.unwrap();
    bench.enqueue(account, "unserved", 2).await;
    let id = |sql: &str| {
        let sql = sql.to_owned();
        let bench = &bench;
        async move { bench.rows(&sql).await[0].get::<_, Uuid>(0).to_string() }
    };
    let failed = id("SELECT id FROM punchcard.jobs_now WHERE status = 'failed'").await;
    let queued = id("SELECT id FROM punchcard.jobs_now WHERE status = 'queued'").await;
    let account = account.to_string();
    said(&punchcard(&bench, &["tokens", "create", "backend", "--scope", "enqueue"]));
    said(&punchcard(&bench, &["limits", "set", &account, "--unfinished-jobs", "100"]));
    for (args, least) in [
        (&["credits", "grant", &account, "5", "--key", "k"][..], 1),
        (&["credits", "show", &account], 5),
        (&["jobs", "list", &account], 4),
        (&["jobs", "show", &failed], 2),
        (&["jobs", "failed"], 1),
        (&["jobs", "redrive", "qr.svg", "--dry-run"], 1),
        (&["jobs", "cancel", &queued], 1),
        (&["limits", "show"], 1),
        (&["tokens", "list"], 1),
        (&["webhooks", "failed"], 1),
        (&["doctor", "--json", "--grants"], 1),
    ] {
        assert_json(args, &said(&punchcard(&bench, args)), least);
    }
    bench.sql("UPDATE punchcard.accounts SET available = available + 1").await;
    let audit = punchcard(&bench, &["credits", "audit"]);
    assert_json(&["credits", "audit"], &String::from_utf8(audit.stdout).unwrap(), 1);
    // A step that failed, one that warns, and one that never got there: each has its diagnosis beside it.
    bench.sql("REVOKE EXECUTE ON FUNCTION punchcard.settle FROM punchcard_app").await;
    let urls = [as_role(&bench.url, APP), bench.direct_url.clone(), "postgres://u:p@127.0.0.1:9/d".into()];
    for (url, diagnosed) in urls.iter().zip(["permission_denied", "too_mighty_role", "connection_refused"]) {
        let text = String::from_utf8(at(url, &["doctor", "--json"]).stdout).unwrap();
        assert!(text.contains(diagnosed), "{text}");
        assert_json(&["doctor", "--json"], &text, 1);
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        let steps = report["steps"].as_array().unwrap();
        assert!(steps.iter().all(|step| step["stage"].is_string()), "{report}");
        assert_eq!(steps[0]["stage"], json!("url"));
    }
}
