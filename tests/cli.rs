//! `punchcard`, the operator's command.

mod access;
mod apply;
mod output;
mod paths;
mod slips;

use std::{
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use local::{
    postgres::{Options, Postgres},
    scripted::{Response, ScriptedServer},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Bench, OWNER, SIGNING_SECRET, as_role, binary, connect};

pub(crate) fn punchcard(bench: &Bench, args: &[&str]) -> Output {
    at(&as_role(&bench.url, OWNER), args)
}

/// The command with this database, and nothing else of the environment's.
pub(crate) fn at(url: &str, args: &[&str]) -> Output {
    let mut command = std::process::Command::new(binary("punchcard"));
    command.args(args).env("DATABASE_URL", url).env("SIGNING_SECRET", SIGNING_SECRET);
    command.env_remove("PGPASSWORD").env_remove("PG_CA_PEM").output().expect("it runs")
}

pub(crate) fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Bounds an account, or with the nil UUID all that have none of their own: unfinished jobs, their bytes, and enqueues a minute, each
/// a number or `none`.
pub(crate) fn limit(bench: &Bench, account: Uuid, [jobs, bytes, per_minute]: [&str; 3]) {
    let account = account.to_string();
    let mut args = vec!["limits", "set", "--unfinished-jobs", jobs, "--unfinished-bytes", bytes];
    args.extend(["--enqueues-per-minute", per_minute]);
    if account != Uuid::nil().to_string() {
        args.push(&account);
    }
    said(&punchcard(bench, &args));
}

/// One line on standard error, and nothing changed.
pub(crate) fn refused(output: &Output) -> String {
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.trim().lines().count(), 1, "{text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_grants_looks_and_audits() {
    let bench = Bench::new().await;
    let account = Uuid::new_v4().to_string();
    let grant = ["credits", "grant", &account, "50", "--key", "k", "--reason", "a present"];
    assert!(said(&punchcard(&bench, &grant)).contains(r#""available_after":50"#));
    assert!(said(&punchcard(&bench, &grant)).contains("nothing moved"));
    assert!(
        said(&punchcard(&bench, &["credits", "show", &account]))
            .starts_with(r#"{"available":50,"held":0,"expiring":[]}"#)
    );
    assert!(
        refused(&punchcard(&bench, &["credits", "grant", &account, "0", "--key", "z"]))
            .contains("invalid_amount")
    );
    assert_eq!(said(&punchcard(&bench, &["credits", "audit"])), "audit clean\n");
    bench.enqueue(account.parse().unwrap(), "qr.svg", 1).await;
    let listed = said(&punchcard(&bench, &["jobs", "list", &account, "--status", "queued"]));
    let id = listed.split('"').nth(3).unwrap().to_owned();
    assert!(said(&punchcard(&bench, &["jobs", "show", &id])).contains(&account));
    assert!(refused(&punchcard(&bench, &["jobs", "show", &account])).contains("no such job"));
    bench.sql("UPDATE punchcard.accounts SET available = available + 1").await;
    assert!(refused(&punchcard(&bench, &["credits", "audit"])).contains("findings"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tokens_of_a_name_are_valid_at_a_time() {
    let bench = Bench::new().await;
    let create = ["tokens", "create", "backend", "--scope", "enqueue", "--scope", "grant"];
    let first = said(&punchcard(&bench, &create));
    assert!(first.starts_with("pcs_") && first.trim().len() == 68);
    said(&punchcard(&bench, &create));
    assert!(refused(&punchcard(&bench, &create)).contains("revoke one first"));
    let listed = said(&punchcard(&bench, &["tokens", "list"]));
    assert_eq!((listed.lines().count(), listed.contains(first.trim())), (2, false));
    said(&punchcard(&bench, &["tokens", "revoke", "backend", "--slot", "1"]));
    said(&punchcard(&bench, &create));
    let both = refused(&punchcard(&bench, &["tokens", "revoke", "backend"]));
    assert!(both.contains("two tokens") && both.contains("--all"), "which of them? {both}");
    said(&punchcard(&bench, &["tokens", "revoke", "backend", "--all"]));
    assert_eq!(said(&punchcard(&bench, &["tokens", "list"])), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_were_not_heard_are_listed_and_sent_again() {
    let bench = Bench::new().await;
    let (account, other) = (bench.account(1).await, bench.account(0).await);
    let status = Arc::new(AtomicU16::new(500));
    let now = Arc::clone(&status);
    let server =
        ScriptedServer::start(move |_| Response::bytes(now.load(Ordering::SeqCst), "")).await.unwrap();
    let url = server.url("/hook?token=hidden");
    bench.sql(&format!("SELECT punchcard.set_webhook('{account}', '{url}')")).await;
    bench.enqueue(account, "qr.svg", 1).await;
    let failed = ["webhooks", "failed"];
    assert_eq!(said(&punchcard(&bench, &failed)), "");
    bench.poller().invoke(&json!({})).await.unwrap();
    let listed = said(&punchcard(&bench, &failed));
    let shown: Value = serde_json::from_str(&listed).expect("one line");
    assert_eq!((&shown["event"], &shown["attempt"]), (&json!("job.succeeded"), &json!(1)));
    assert_eq!(
        (&shown["url"], &shown["error"]),
        (&json!(server.url("/hook")), &json!("the receiver answered 500"))
    );
    assert!(shown["next_attempt_at"].is_string());
    let of =
        |account: &Uuid| said(&punchcard(&bench, &["webhooks", "failed", "--account", &account.to_string()]));
    assert_eq!((of(&account), of(&other)), (listed, String::new()));

    let resend = ["webhooks", "resend", shown["id"].as_str().unwrap()];
    assert_eq!(said(&punchcard(&bench, &resend)), "due\n");
    status.store(200, Ordering::SeqCst);
    bench.poller().invoke(&json!({})).await.unwrap();
    assert_eq!(said(&punchcard(&bench, &failed)), "");
    // What was heard is said again, too, if the operator says so: the receiver lost it.
    assert_eq!(said(&punchcard(&bench, &resend)), "due\n");
    bench.poller().invoke(&json!({})).await.unwrap();
    let ids: Vec<_> = server.requests().iter().map(|it| it.headers["webhook-id"].clone()).collect();
    assert_eq!((ids.len(), ids.iter().all(|id| *id == resend[2])), (3, true));
    let unknown = ["webhooks", "resend", "0193a5c0-7e00-7000-8000-000000000001"];
    assert!(refused(&punchcard(&bench, &unknown)).contains("no such message"));
    assert_eq!(bench.balance(account).await, (0, 0));
    bench.assert_audit_is_clean().await;
}

/// On a server of its own: roles and their passwords are the whole server's.
#[tokio::test(flavor = "multi_thread")]
async fn the_two_roles_are_made_log_in_and_are_all_that_migrating_and_running_need() {
    let postgres = Postgres::start_embedded(Options::default()).expect("a server");
    let run = |url: &str, args: &[&str]| {
        let mut command = std::process::Command::new(binary("punchcard"));
        command.args(args).env("DATABASE_URL", url).env_remove("PGPASSWORD").output().expect("it runs")
    };
    let admin = postgres.url("postgres");
    let urls = |text: &str| -> Vec<String> {
        text.split_whitespace().filter(|word| word.starts_with("postgres://")).map(str::to_owned).collect()
    };
    // As a careful administrator has it.
    let careful = "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC; CREATE ROLE stranger LOGIN PASSWORD 'p'";
    connect(&admin).await.batch_execute(careful).await.unwrap();
    let stranger = format!("postgres://stranger:p@127.0.0.1:{}/postgres", postgres.port());
    let output = run(&stranger, &["doctor"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.code() == Some(14) && text.contains("(may_not_connect;"), "{text}");
    let first = said(&run(&admin, &["roles"]));
    let shared = "temporary objects: everybody may create them";
    let told = first.lines().find(|line| line.starts_with(shared));
    assert!(told.is_some_and(|line| line.contains("--own-database takes that away")), "{first}");
    let made = urls(&first);
    let [migrator, app] = made.as_slice() else { panic!("{made:?}") };
    assert!(said(&run(migrator, &["migrate"])).contains("4 migrations and"), "no Supabase, no superuser");
    assert!(said(&run(app, &["doctor", "--grants"])).contains("nobody has more than is meant"));
    assert!(refused(&run(app, &["migrate"])).contains("migrate as punchcard_migrator, not as punchcard_app"));
    assert!(said(&run(app, &["doctor", "--grants"])).contains("punchcard_app may create temporary objects"));
    let own = said(&run(&admin, &["roles", "--own-database"]));
    assert!(own.contains("punchcard_migrator alone may create them") && !own.contains(shared), "{own}");
    assert!(!said(&run(app, &["doctor", "--grants"])).contains("temporary objects"));
    assert!(refused(&run(migrator, &["roles", "--own-database"])).contains("permission denied"));

    let again = said(&run(&admin, &["roles"]));
    assert!(urls(&again).is_empty() && again.matches("kept as it is").count() == 2, "{again}");
    assert!(!again.contains(shared), "it stays taken away: {again}");
    let rotated = urls(&said(&run(&admin, &["roles", "--rotate", "punchcard_app"])));
    assert_eq!(rotated.len(), 1);
    assert_eq!(run(app, &["doctor"]).status.code(), Some(15), "the old password");
    assert!(run(&rotated[0], &["doctor"]).status.success());
    assert!(run(migrator, &["migrate"]).status.success());
}
