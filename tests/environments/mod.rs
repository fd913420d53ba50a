//! Databases as others have set them up: each setting works, or is refused by `punchcard migrate` and named by the doctor.

mod hidden;
mod isolation;
mod refused;
mod restore;
mod settings;

use std::{io::Write, process::Output};

use uuid::Uuid;

use crate::support::{APP, Bench, OWNER, PASSWORD, SIGNING_SECRET, as_role, binary};

/// The operator's command, as a role of this database.
fn punchcard_as(database: &Bench, role: &str, args: &[&str]) -> Output {
    let mut command = std::process::Command::new(binary("punchcard"));
    let url = as_role(&database.direct_url, role);
    command
        .args(args)
        .env("DATABASE_URL", url)
        .env("SIGNING_SECRET", SIGNING_SECRET)
        .output()
        .expect("it runs")
}

/// The same as the owner; what it says, if it goes well.
fn punchcard(database: &Bench, args: &[&str]) -> String {
    let output = punchcard_as(database, OWNER, args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{args:?}: {}{}", text(&output.stderr), text(&output.stdout));
    text(&output.stdout)
}

/// One line on standard error.
fn refused(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    assert!(!output.status.success() && text.lines().count() == 1, "{text}");
    text
}

/// An empty database beside that of `server`, which has the roles; removed when it is dropped by [`remove`].
async fn empty(server: &Bench, owner: &str, options: &str) -> Bench {
    let name = format!("{}_{}", &server.database[..12], Uuid::new_v4().simple());
    server.sql(&format!("CREATE DATABASE {name} OWNER {owner} {options}")).await;
    let beside = |url: &str| format!("{}/{name}", url.rsplit_once('/').unwrap().0);
    let (url, direct_url) = (beside(&server.url), beside(&server.direct_url));
    Bench::of(url, name, direct_url).await
}

/// Sets something for all sessions of a database that begin from now on.
async fn set(database: &Bench, setting: &str) {
    database.sql(&format!("ALTER DATABASE {} SET {setting}", database.database)).await;
}

/// Migrates and offers the kinds that the tests buy.
async fn migrate(database: &Bench) {
    let applied = punchcard(database, &["migrate"]);
    assert!(applied.contains("4 migrations and"), "{applied}");
    offer(database);
}

fn offer(database: &Bench) {
    let file = std::env::temp_dir().join(format!("kinds-{}.toml", Uuid::new_v4()));
    let kinds = "[kinds.\"qr.svg\"]\nprice = 1\n[kinds.unserved]\nprice = 5\nmax_attempts = 1\n";
    std::fs::File::create(&file).unwrap().write_all(kinds.as_bytes()).unwrap();
    punchcard(database, &["apply", file.to_str().unwrap()]);
    std::fs::remove_file(file).unwrap();
}

async fn remove(server: &Bench, database: Bench) {
    drop(database.api);
    drop(database.admin);
    server.sql(&format!("DROP DATABASE {} WITH (FORCE)", database.database)).await;
}

/// What the doctor says to the functions' role, grants and all; and its exit code.
fn doctor(database: &Bench, role: &str) -> (String, i32) {
    let output = punchcard_as(database, role, &["doctor", "--grants"]);
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code().unwrap_or(-1))
}

/// It finds nothing to mend, as the functions' role.
fn assert_sound(database: &Bench, what: &str) {
    let (said, exit) = doctor(database, APP);
    assert_eq!(exit, 0, "{what}: {said}");
}

/// A role of the test's own, with the password of all.
async fn another(server: &Bench) -> String {
    let name = format!("role_{}", Uuid::new_v4().simple());
    server.sql(&format!("CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")).await;
    name
}
