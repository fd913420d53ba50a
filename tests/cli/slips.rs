//! Slips of an operator: an argument too few or misspelt, another database, an empty variable. Each is told in one line, and
//! changes nothing.

use std::process::{Command, Output};

use serde_json::json;
use shared::signing::kind_secret;
use uuid::Uuid;

use super::{at, punchcard, refused, said};
use crate::support::{Bench, OWNER, SIGNING_SECRET, as_role, binary};

#[tokio::test(flavor = "multi_thread")]
async fn only_the_caps_that_are_named_change_and_none_lifts_one() {
    let bench = Bench::new().await;
    let account = Uuid::new_v4().to_string();
    let set = |args: &[&str]| said(&punchcard(&bench, &[&["limits", "set"], args].concat()));
    let all = set(&["--unfinished-jobs", "5", "--unfinished-bytes", "1000", "--enqueues-per-minute", "60"]);
    assert_eq!(
        all,
        "all others: {\"unfinished_jobs\":5,\"unfinished_bytes\":1000,\"enqueues_per_minute\":60}\n"
    );
    let one = set(&["--unfinished-bytes", "2000"]);
    assert!(
        one.contains(r#"{"unfinished_jobs":5,"unfinished_bytes":2000,"enqueues_per_minute":60}"#),
        "{one}"
    );
    let lifted = set(&["--enqueues-per-minute", "none"]);
    assert!(
        lifted.contains(r#"{"unfinished_jobs":5,"unfinished_bytes":2000,"enqueues_per_minute":null}"#),
        "{lifted}"
    );
    // An account's first limits of its own: what it does not name is what held for it until now.
    let own = set(&[&account, "--unfinished-jobs", "7"]);
    assert_eq!(
        own,
        format!(
            "{account}: {{\"unfinished_jobs\":7,\"unfinished_bytes\":2000,\"enqueues_per_minute\":null}}\n"
        )
    );
    assert!(set(&["--unfinished-bytes", "3000"]).contains("3000"));
    let own = set(&[&account, "--enqueues-per-minute", "9"]);
    assert!(
        own.contains(r#"{"unfinished_jobs":7,"unfinished_bytes":2000,"enqueues_per_minute":9}"#),
        "{own}"
    );

    let before = said(&punchcard(&bench, &["limits", "show"]));
    for (args, why) in
        [(&["limits", "set"][..], "name a limit"), (&["limits", "set", &account], "name a limit")]
    {
        assert!(refused(&punchcard(&bench, args)).contains(why), "{args:?}");
    }
    for value in ["-1", "many", "3.5", "99999999999"] {
        let output = punchcard(&bench, &["limits", "set", &format!("--unfinished-jobs={value}")]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && text.contains("a whole number from 0 to 2147483647, or none"),
            "{text}"
        );
    }
    assert_eq!(said(&punchcard(&bench, &["limits", "show"])), before);
    // And they hold: the account's seventh job passes, the eighth does not.
    let account: Uuid = account.parse().unwrap();
    bench.enqueue(account, "free", 7).await;
    assert_eq!(bench.post(account, json!({ "kind": "free" }), None).await.status, 429);
}

fn with_signing_secret(bench: &Bench, secret: &str, args: &[&str]) -> Output {
    let mut command = Command::new(binary("punchcard"));
    command.args(args).env("DATABASE_URL", as_role(&bench.url, OWNER)).env("SIGNING_SECRET", secret);
    command.output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_no_function_would_sign_with_gives_none() {
    let bench = Bench::new().await;
    for (secret, why) in [
        ("", "SIGNING_SECRET is empty"),
        ("  \n", "SIGNING_SECRET is empty"),
        ("short", "fewer than 32 bytes"),
    ] {
        for args in [&["kinds", "secret", "qr.svg"][..], &["kinds", "secret", "qr.svg", "--version", "2"]] {
            let output = with_signing_secret(&bench, secret, args);
            assert!(
                refused(&output).contains(why),
                "{secret:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            assert!(output.stdout.is_empty());
        }
    }
    // As the functions read it: what is around it is no part of it.
    let spaced =
        said(&with_signing_secret(&bench, &format!(" {SIGNING_SECRET}\n"), &["kinds", "secret", "qr.svg"]));
    assert_eq!(spaced.trim(), kind_secret(SIGNING_SECRET, "qr.svg", 1));
    assert!(
        refused(&punchcard(&bench, &["kinds", "secret", "qr.svgg"])).contains("there is no kind qr.svgg")
    );
    assert!(
        refused(&punchcard(&bench, &["kinds", "secret", "QR", "--version", "1"]))
            .contains("the name of a kind")
    );
    assert!(!punchcard(&bench, &["kinds", "secret", "qr.svg", "--version", "0"]).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_is_set_and_empty_is_not_set() {
    let bench = Bench::new().await;
    let run = |url: &str| {
        let mut command = Command::new(binary("punchcard"));
        command.args(["limits", "show"]).env("DATABASE_URL", url).env("PGPASSWORD", "").env("PG_CA_PEM", " ");
        command.output().unwrap()
    };
    for empty in ["", "  "] {
        assert!(refused(&run(empty)).contains("set DATABASE_URL or --database-url"));
    }
    assert!(run(&as_role(&bench.url, OWNER)).status.success(), "an empty PGPASSWORD and PG_CA_PEM are none");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_revoked_if_there_is_one_and_only_the_one_that_is_meant() {
    let bench = Bench::new().await;
    let run = |args: &[&str]| punchcard(&bench, &[&["tokens"], args].concat());
    assert!(refused(&run(&["revoke", "backend"])).contains("there is no token of backend"));
    let create = ["create", "backend", "--scope", "enqueue"];
    said(&run(&create));
    assert!(refused(&run(&["revoke", "backend", "--slot", "2"])).contains("no token in slot 2"));
    assert!(!run(&["revoke", "backend", "--slot", "3"]).status.success());
    said(&run(&create));
    let both = refused(&run(&["revoke", "backend"]));
    assert!(both.contains("slots 1 (of ") && both.contains("and 2 (of "), "{both}");
    assert_eq!(said(&run(&["list"])).lines().count(), 2, "nothing was revoked");
    said(&run(&["revoke", "backend", "--slot", "1"]));
    said(&run(&["revoke", "backend"]));
    assert_eq!(said(&run(&["list"])), "");
    for name in ["", "Back end", &"x".repeat(65)] {
        assert!(
            refused(&run(&["create", name, "--scope", "enqueue"])).contains("the name of a token is"),
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_misspelt_finds_no_jobs_and_says_so() {
    let bench = Bench::new().await;
    let none = Uuid::new_v4().to_string();
    for (args, why) in [
        (&["jobs", "redrive", "qr.svgg"][..], "there is no kind qr.svgg"),
        (&["jobs", "redrive", "qr.svgg", "--dry-run"], "there is no kind qr.svgg"),
        (&["jobs", "failed", "--kind", "qr.svgg"], "there is no kind qr.svgg"),
        (&["jobs", "show", &none], "there is no such job"),
        (&["jobs", "cancel", &none], "not_found: There is nothing here."),
        (&["jobs", "retry", &none], "not_found: There is nothing here."),
        (&["credits", "refund", &none], "not_found: There is no such job."),
        (&["webhooks", "resend", &none], "there is no such message"),
        (&["credits", "grant", &none, "5", "--key", ""], "idempotency_key_required"),
        (&["credits", "spread", &none, "--shares", "2"], "unknown_account"),
        (&["credits", "source", "use", "public.nothing"], "There is no table public.nothing"),
        (&["credits", "source", "use", "public.nothing", "--set", "a"], "--set wants NAME=VALUE"),
        (
            &["credits", "source", "use", "public.nothing", "--set", "a=1", "--set", "a=2"],
            "says twice what a is",
        ),
        (&["migrate", "--print-supabase", "--after", "0042"], "there is no migration 0042"),
    ] {
        let line = refused(&punchcard(&bench, args));
        assert!(line.contains(why), "{args:?}: {line}");
    }
    // A time without its offset would be read in whatever zone the database has.
    for args in [
        ["--from", "yesterday"],
        ["--from", "2026-11-24T10:00:00"],
        ["--until", "2026-11-24"],
        ["--per-second", "0"],
        ["--per-second", "NaN"],
        ["--limit", "0"],
    ] {
        let output = punchcard(&bench, &[&["jobs", "redrive", "qr.svg"][..], &args].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && text.contains(args[1]), "{args:?}: {text}");
    }
    said(&punchcard(&bench, &["jobs", "redrive", "qr.svg", "--from", "2026-11-24T10:00:00+01:00"]));
    bench.assert_audit_is_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_database_is_told_in_one_line_by_every_command() {
    let bench = Bench::new().await;
    let name = format!("{}_bare", bench.database);
    bench.sql(&format!("CREATE DATABASE {name} OWNER {OWNER}")).await;
    let url = format!("{}/{name}", bench.direct_url.rsplit_once('/').unwrap().0);
    let url = as_role(&url, OWNER);
    let id = Uuid::new_v4().to_string();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/kinds.toml");
    for args in [
        &["apply", file][..],
        &["apply", file, "--dry-run"],
        &["limits", "show"],
        &["limits", "set", "--unfinished-jobs", "5"],
        &["credits", "audit"],
        &["credits", "grant", &id, "5", "--key", "k"],
        &["credits", "show", &id],
        &["credits", "refund", &id],
        &["credits", "source", "show"],
        &["credits", "source", "use", "public.x"],
        &["credits", "source", "drop"],
        &["jobs", "list", &id],
        &["jobs", "show", &id],
        &["jobs", "cancel", &id],
        &["jobs", "retry", &id],
        &["jobs", "failed"],
        &["jobs", "redrive", "qr.svg"],
        &["kinds", "secret", "qr.svg"],
        &["tokens", "list"],
        &["tokens", "create", "a", "--scope", "grant"],
        &["tokens", "revoke", "a"],
        &["webhooks", "failed"],
        &["webhooks", "resend", &id],
        &["import", "--from", "public.x"],
    ] {
        let line = refused(&at(&url, args));
        assert!(line.contains("punchcard migrate"), "{args:?}: {line}");
        assert!(!line.contains("SELECT") && !line.contains("INSERT"), "{args:?}: {line}");
    }
    bench.sql(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credit_source_is_not_dropped_while_its_credits_are_here_unless_so_said() {
    let bench = Bench::new().await;
    let run = |args: &[&str]| punchcard(&bench, &[&["credits", "source"], args].concat());
    assert!(said(&run(&["drop"])).contains("there is no source"));
    let account = Uuid::new_v4();
    bench
        .sql(&format!(
            "CREATE TABLE public.user_credits (user_id uuid PRIMARY KEY, credits integer NOT NULL CHECK (credits >= 0));
             GRANT SELECT, UPDATE ON public.user_credits TO {OWNER};
             INSERT INTO public.user_credits VALUES ('{account}', 20)"
        ))
        .await;
    said(&run(&["use", "public.user_credits"]));
    bench.enqueue(account, "qr.svg", 2).await;
    let line = refused(&run(&["drop"]));
    assert!(
        line.contains("2 held credits were drawn from public.user_credits") && line.contains("--force"),
        "{line}"
    );
    assert!(said(&run(&["show"])).contains("public.user_credits"), "it is in force still");
    let done = said(&run(&["drop", "--force"]));
    assert!(
        done.contains("stay in Punchcard's accounts") && done.contains("credits come from grants"),
        "{done}"
    );
    assert_eq!(said(&run(&["show"])), "credits come from grants\n");
    bench.drain().await;
    bench.assert_audit_is_clean().await;
}
