//! Backup and restore as `docs/BACKUP.md` says, with PostgreSQL's own programs; and what is found, and mended, where a restore
//! has made somebody else the owner.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;
use uuid::Uuid;

use super::{another, assert_sound, doctor, empty, migrate, punchcard, punchcard_as, refused, remove};
use crate::support::{Bench, OWNER, as_role};

/// A folder with a `pg_dump` that is as new as the server: beside the server's own programs (which a link may stand for), or
/// on the PATH. The wheel that the newest version comes from may have none.
async fn programs(server: &Bench) -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> =
        std::env::var_os(local::programs::PROGRAMS).map(PathBuf::from).into_iter().collect();
    for major in (15..20).rev() {
        folders.push(format!("/usr/lib/postgresql/{major}/bin").into());
    }
    if let Ok(postgres) = local::postgres::Postgres::start(local::postgres::Options::default()) {
        folders.push(postgres.bin_dir().to_owned());
        folders.extend(
            postgres
                .bin_dir()
                .join("postgres")
                .canonicalize()
                .ok()
                .and_then(|it| it.parent().map(Path::to_owned)),
        );
    }
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let needed = server.rows("SELECT current_setting('server_version_num')::integer / 10000").await[0]
        .get::<_, i32>(0);
    let found = folders.into_iter().find(|folder| {
        let version = Command::new(folder.join("pg_dump")).arg("--version").output();
        let version =
            version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let major = version.split([' ', '.']).find_map(|word| word.parse::<i32>().ok());
        major.is_some_and(|major| major >= needed)
    });
    if found.is_none() {
        eprintln!("there is no pg_dump of version {needed} or newer: the pass on an older server has one");
    }
    found
}

fn run(program: &Path, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().expect("it runs");
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// The commands of the page, with what stands for the team's own names filled in.
fn page(heading: &str, fill: &[(&str, &str)]) -> Vec<String> {
    let page = include_str!("../../docs/BACKUP.md");
    let section = page.split(&format!("## {heading}\n")).nth(1).unwrap_or_else(|| panic!("no {heading}"));
    let fenced = section.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let commands = fenced.lines().map(|line| line.split(" # ").next().unwrap().trim().to_owned());
    commands.map(|line| fill.iter().fold(line, |line, (name, value)| line.replace(name, value))).collect()
}

/// Runs a command of the page, of PostgreSQL's or of ours.
fn follow(bin: &Path, database: &Bench, role: &str, line: &str) -> Result<String, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    if let [program @ ("pg_dump" | "pg_restore"), rest @ ..] = words.as_slice() {
        return run(&bin.join(program), rest).map(|()| String::new());
    }
    let at = words.iter().position(|word| *word == "punchcard").expect("a command of ours");
    let output = punchcard_as(database, role, &words[at + 1..]);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr) + &text(&output.stdout))
    }
}

/// A database with a past: credits, a job that has succeeded, one that was canceled, one that is queued, by a key.
async fn with_a_past(server: &Bench) -> (Bench, Uuid, String) {
    let database = empty(server, OWNER, "").await;
    database.sql(include_str!("../support/supabase.sql")).await;
    migrate(&database).await;
    let account = Uuid::new_v4();
    punchcard(&database, &["credits", "grant", &account.to_string(), "50", "--key", "k"]);
    let body = json!({ "kind": "qr.svg", "input": { "text": "t" } });
    assert_eq!(database.post(account, body.clone(), Some("first")).await.status, 202);
    assert_eq!(database.poller().invoke(&json!({})).await.unwrap()["succeeded"], 1);
    let canceled = database.post(account, body.clone(), None).await.body["id"].as_str().unwrap().to_owned();
    assert_eq!(database.act(account, &format!("/api/jobs/{canceled}/cancel")).await.status, 200);
    let queued = database.post(account, body, Some("the one that waits")).await;
    (database, account, queued.body["id"].as_str().unwrap().to_owned())
}

/// All that it had is there, the keys too, and what was queued runs.
async fn assert_goes_on(restored: &Bench, account: Uuid, queued: &str) {
    assert_sound(restored, "restored");
    assert_eq!(restored.balance(account).await, (48, 1));
    restored.assert_audit_is_clean().await;
    let again = json!({ "kind": "qr.svg", "input": { "text": "t" } });
    let again = restored.post(account, again, Some("the one that waits")).await;
    assert_eq!((again.status, again.body["id"].as_str()), (200, Some(queued)), "bought before the restore");
    assert_eq!(restored.poller().invoke(&json!({})).await.unwrap()["succeeded"], 1);
    assert_eq!(restored.job(account, queued).await["status"], "succeeded");
    let jobs = restored.get(account, "/api/jobs").await.body;
    assert_eq!(jobs["data"].as_array().map(Vec::len), Some(3), "{jobs}");
    assert_eq!(restored.balance(account).await, (48, 0));
    restored.assert_audit_is_clean().await;
}

fn dump_file() -> String {
    std::env::temp_dir().join(format!("punchcard-{}.dump", Uuid::new_v4().simple())).display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_by_the_owner_is_whole_and_goes_on_where_it_is_restored() {
    let server = Bench::new().await;
    let Some(bin) = programs(&server).await else { return };
    let (database, account, queued) = with_a_past(&server).await;
    let owner = as_role(&database.direct_url, OWNER);
    let file = dump_file();
    let without =
        run(&bin.join("pg_dump"), &["--schema=punchcard", "-Fc", "-f", &file, &owner]).expect_err("refused");
    assert!(without.contains("row-level security"), "why the page says what it says: {without}");

    for line in page("Backup", &[("$DATABASE_URL", &owner), ("punchcard.dump", &file)]) {
        follow(&bin, &database, OWNER, &line).expect(&line);
    }
    let restored = empty(&server, OWNER, "").await;
    restored.sql(include_str!("../support/supabase.sql")).await;
    let new = as_role(&restored.direct_url, OWNER);
    for line in page("Restore", &[("$NEW_DATABASE_URL", &new), ("punchcard.dump", &file)]) {
        // The roles are there: they are the server's.
        if !line.contains("punchcard roles") {
            follow(&bin, &restored, OWNER, &line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }
    assert_goes_on(&restored, account, &queued).await;
    std::fs::remove_file(file).unwrap();
    remove(&server, restored).await;
    remove(&server, database).await;
}

/// Every row is hidden from an owner whom no policy names: to see nothing is not to find nothing wrong.
async fn assert_found_and_mended(restored: &Bench, owner: &str, account: Uuid, queued: &str) {
    let audit = punchcard_as(restored, owner, &["credits", "audit"]);
    let said = String::from_utf8_lossy(&audit.stdout).into_owned();
    assert!(!audit.status.success() && said.contains(&format!("from {owner}, their owner")), "{said}");
    assert!(said.contains("run `punchcard migrate`"), "{said}");
    restored
        .sql(&format!(
            "CREATE TABLE IF NOT EXISTS public.jobs (id uuid, user_id uuid, status text, type text);
             GRANT SELECT, UPDATE ON public.jobs TO {owner}; GRANT USAGE ON SCHEMA public TO {owner}"
        ))
        .await;
    let import = ["import", "--from", "public.jobs", "--price", "1", "--dry-run"];
    let line = refused(&punchcard_as(restored, owner, &import));
    assert!(line.contains("row security may hide") && line.contains("punchcard migrate"), "{line}");
    let (said, exit) = doctor(restored, owner);
    assert!(exit == 18 && said.contains("their owner") && said.contains("(hidden_rows;"), "{said}");

    let output = punchcard_as(restored, owner, &["migrate"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        said, "grants and policies were lost, and are made anew\n0 migrations and 0 functions applied\n",
        "{output:?}"
    );
    let output = punchcard_as(restored, owner, &["migrate"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0 migrations and 0 functions applied\n", "once");
    assert_goes_on(restored, account, queued).await;
    let audit = punchcard_as(restored, owner, &["credits", "audit"]);
    assert_eq!(String::from_utf8_lossy(&audit.stdout), "audit clean\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_makes_another_role_the_owner_is_found_and_mended() {
    let server = Bench::new().await;
    let Some(bin) = programs(&server).await else { return };
    let (database, account, queued) = with_a_past(&server).await;
    let file = dump_file();
    // By a role that row security does not bind, as the page says too.
    run(
        &bin.join("pg_dump"),
        &["--schema=punchcard", "--schema=punchcard_api", "-Fc", "-f", &file, &database.direct_url],
    )
    .unwrap();
    for without in [&["--no-owner"][..], &["--no-owner", "--no-acl"]] {
        let owner = another(&server).await;
        let restored = empty(&server, &owner, "").await;
        restored.sql(include_str!("../support/supabase.sql")).await;
        restored.sql(&format!("GRANT USAGE ON SCHEMA auth TO {owner}")).await;
        let url = as_role(&restored.direct_url, &owner);
        run(&bin.join("pg_restore"), &[without, &["--exit-on-error", "-d", &url, &file]].concat())
            .expect("restored");
        assert_found_and_mended(&restored, &owner, account, &queued).await;
        remove(&server, restored).await;
        server.sql(&format!("DROP ROLE {owner}")).await;
    }
    std::fs::remove_file(file).unwrap();
    remove(&server, database).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_were_given_away_are_found_and_mended() {
    let server = Bench::new().await;
    let (first, second) = (another(&server).await, another(&server).await);
    let database = empty(&server, &first, "").await;
    let output = punchcard_as(&database, &first, &["migrate"]);
    assert!(output.status.success(), "{output:?}");
    let line = refused(&punchcard_as(&database, &second, &["migrate"]));
    assert!(line.contains(&format!("belongs to {first}: migrate as {first}")), "{line}");
    database.sql("INSERT INTO punchcard.kinds (name, price) VALUES ('qr.svg', 1)").await;
    let account = database.account(51).await;
    let body = json!({ "kind": "qr.svg", "input": { "text": "t" } });
    for key in ["a", "b"] {
        assert_eq!(database.post(account, body.clone(), Some(key)).await.status, 202);
        assert_eq!(database.poller().invoke(&json!({})).await.unwrap()["succeeded"], 1);
    }
    let queued = database.post(account, body, Some("the one that waits")).await;
    let queued = queued.body["id"].as_str().unwrap().to_owned();
    database.sql(&format!("REASSIGN OWNED BY {first} TO {second}")).await;
    // The functions see no kind any more, and say so; the rows are there.
    let refused = json!({ "kind": "qr.svg", "input": { "text": "t" } });
    assert_eq!(database.post(account, refused, None).await.body["code"], "unknown_kind");
    assert_found_and_mended(&database, &second, account, &queued).await;
    remove(&server, database).await;
    server.sql(&format!("DROP ROLE {first}; DROP ROLE {second}")).await;
}
