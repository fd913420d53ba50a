//! Faults that are really there, each until its fix.

use std::time::Duration;

use local::{
    pgbouncer::{PgBouncer, PoolMode},
    postgres::{Options, Postgres},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{super::tls::Authority, ask};
use crate::support::{
    APP, Bench, PASSWORD, as_role, binary, connect,
    wire::{Mode, Wire},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_database_passes_and_each_live_fault_is_found_until_its_fix() {
    let bench = Bench::new().await;
    let said = ask(&bench.url, &[]).await;
    assert_eq!(said.exit, 0, "{}", said.all);
    let text = said.all.to_string();
    // A pooler in session mode is, to its client, no other than the server.
    if std::env::var("PUNCHCARD_TEST_POOL_MODE").as_deref() == Ok("transaction") {
        assert!(text.contains("a transaction pooler"), "{text}");
        // Whether they survive is the pooler's version's to say.
        assert!(text.contains("statements with a name survive") || text.contains("do not survive"), "{text}");
    } else {
        assert!(text.contains("statements with a name work"), "{text}");
    }
    for found in ["SET LOCAL is honoured", "as punchcard_app; statement_timeout 15s", "the clocks are"] {
        assert!(text.contains(found), "{found}: {text}");
    }
    let direct = as_role(&bench.direct_url, APP);
    let (before, host) = direct.split_once('@').unwrap();
    let (server, _) = host.split_once('/').unwrap();

    let wrong = ask(&format!("postgres://punchcard_app:wrong@{host}"), &[]).await;
    assert_eq!((wrong.code.as_str(), wrong.exit), ("wrong_password", 15), "{}", wrong.all);
    let nowhere = ask(&format!("{before}@{server}/nowhere"), &[]).await;
    assert_eq!(nowhere.code, "no_such_database");
    let unencrypted = ask(&format!("{direct}?sslmode=require"), &[]).await;
    assert_eq!(unencrypted.code, "tls_unsupported", "{}", unencrypted.all);
    assert_eq!(ask(&direct, &[]).await.exit, 0, "mended");

    bench.sql("DELETE FROM punchcard.migrations WHERE name LIKE '0004%'").await;
    assert_eq!(ask(&direct, &[]).await.code, "not_migrated");
    bench.sql("INSERT INTO punchcard.migrations (name) VALUES ('0004_roles')").await;
    assert_eq!(ask(&direct, &[]).await.exit, 0);

    let mighty = ask(&bench.direct_url, &[]).await;
    assert!(mighty.exit == 0 && mighty.all.to_string().contains("too_mighty_role"), "{}", mighty.all);

    let role = format!("doctored_{}", uuid::Uuid::new_v4().simple());
    bench.sql(&format!("CREATE ROLE {role} LOGIN PASSWORD 'p' CONNECTION LIMIT 1")).await;
    let url = format!("postgres://{role}:p@{host}");
    assert_eq!(ask(&url, &[]).await.code, "server_full", "one connection is not enough to look");
    bench.sql(&format!("ALTER ROLE {role} CONNECTION LIMIT -1")).await;
    assert_eq!(ask(&url, &[]).await.code, "permission_denied");
    bench.sql(&format!("GRANT USAGE ON SCHEMA punchcard TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA punchcard TO {role}")).await;
    let denied = ask(&url, &[]).await;
    assert_eq!(denied.code, "permission_denied");
    assert!(denied.all.to_string().contains("punchcard.claim("), "it says which: {}", denied.all);
    bench.sql(&format!("GRANT punchcard_app TO {role}")).await;
    assert_eq!(ask(&url, &[]).await.exit, 0);
    bench.sql(&format!("ALTER ROLE {role} SET default_transaction_read_only = on")).await;
    assert_eq!(ask(&url, &[]).await.code, "read_only");
    bench.sql(&format!("ALTER ROLE {role} NOLOGIN")).await;
    assert_eq!(ask(&url, &[]).await.code, "role_refused");
    bench.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

/// A pooler of the test's own, and its console.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_is_paused_or_full_or_does_not_know_one_is_diagnosed_until_its_fix() {
    let postgres = Postgres::start_embedded(Options::default()).expect("a server");
    shared::db::migrate::apply(&postgres.url("postgres")).await.expect("migrations");
    let pooler = PgBouncer::start(&postgres, PoolMode::Transaction).expect("a pooler");
    let (url, console) = (pooler.url("postgres"), connect(&pooler.url("pgbouncer")).await);
    let told = |command: &'static str| async { console.simple_query(command).await.expect(command) };
    let sound = ask(&url, &[]).await;
    assert!(sound.exit == 0 && sound.all.to_string().contains("a transaction pooler"), "{}", sound.all);

    // From 1.21 on it can keep named statements, unless it is told not to.
    let old = console.simple_query("SET max_prepared_statements = 0").await.is_err();
    let named = ask(&url, &[]).await.all.to_string();
    assert!(named.contains("statements with a name do not survive"), "{old} {named}");
    let of_session = PgBouncer::start(&postgres, PoolMode::Session).expect("a pooler");
    let named = ask(&of_session.url("postgres"), &[]).await.all.to_string();
    assert!(
        named.contains("statements with a name work"),
        "session mode is the fix of whoever needs them: {named}"
    );

    told("PAUSE").await;
    let paused = ask(&url, &[]).await;
    assert!(paused.code == "silence" && paused.fix.contains("RESUME"), "{}", paused.all);
    told("RESUME").await;
    assert_eq!(ask(&url, &[]).await.exit, 0);

    told("SET max_client_conn = 2").await;
    assert_eq!(ask(&url, &[]).await.code, "pooler_full");
    told("SET max_client_conn = 100").await;
    assert_eq!(ask(&url, &[]).await.exit, 0);

    drop(postgres);
    let down = ask(&url, &[]).await;
    assert!(
        ["database_down", "connection_lost", "connection_ended", "silence"].contains(&down.code.as_str()),
        "{}",
        down.all
    );
}

/// Supavisor's way with users: the project's ref is behind the last dot, and the server never sees it.
async fn shared_pooler(server: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let server = server.clone();
            tokio::spawn(async move {
                let length = client.read_u32().await?;
                let mut startup = vec![0; length as usize - 4];
                client.read_exact(&mut startup).await?;
                let text = String::from_utf8_lossy(&startup).into_owned();
                let user = text.split('\0').skip_while(|word| *word != "user").nth(1).unwrap_or_default();
                let Some((role, _)) = user.rsplit_once('.') else {
                    let fields = "SFATAL\0VFATAL\0CXX000\0M(ENOIDENTIFIER) no tenant identifier provided\0\0";
                    client.write_u8(b'E').await?;
                    client.write_u32(4 + u32::try_from(fields.len()).unwrap()).await?;
                    return client.write_all(fields.as_bytes()).await;
                };
                let startup = text.replacen(user, role, 1).into_bytes();
                let mut upstream = tokio::net::TcpStream::connect(server).await?;
                upstream.write_u32(4 + u32::try_from(startup.len()).unwrap()).await?;
                upstream.write_all(&startup).await?;
                tokio::io::copy_bidirectional(&mut client, &mut upstream).await.map(drop)
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_the_projects_ref_is_diagnosed_until_it_has_one() {
    let bench = Bench::new().await;
    let direct = as_role(&bench.direct_url, APP);
    let (_, host) = direct.split_once('@').unwrap();
    let (server, database) = host.split_once('/').unwrap();
    let port = shared_pooler(server.to_owned()).await;
    let url = |user: &str| format!("postgres://{user}:{}@127.0.0.1:{port}/{database}", PASSWORD);
    let without = ask(&url(APP), &[]).await;
    assert_eq!(without.code, "user_without_ref", "{}", without.all);
    let with = ask(&url(&format!("{APP}.abcdefghijklmnop")), &[]).await;
    assert_eq!(with.exit, 0, "{}", with.all);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_diagnosed_and_the_fix_makes_the_next_run_pass() {
    let authority = Authority::new("ours");
    let day = Duration::from_secs(24 * 3_600);
    let now = time::OffsetDateTime::now_utc();
    for (name, until, code) in [
        ("127.0.0.1", now + 400 * day, "unknown_authority"),
        ("127.0.0.1", now + 20 * day, "certificate_expires_soon"),
        ("127.0.0.1", now - day, "certificate_expired"),
        ("localhost", now + 400 * day, "wrong_host_name"),
    ] {
        let (certificate, key) = authority.issue_until(name, until);
        let tls = Some((certificate.as_str(), key.as_str()));
        let postgres = Postgres::start_embedded(Options { tls, ..Options::default() }).expect("a server");
        shared::db::migrate::apply(&postgres.url("postgres")).await.expect("migrations");
        let url = format!("{}?sslmode=verify-full", postgres.url("postgres"));
        let file = std::env::temp_dir().join(format!("pc-ca-{}.pem", uuid::Uuid::new_v4().simple()));
        std::fs::write(&file, authority.pem()).unwrap();
        let path = file.display().to_string();
        if code == "unknown_authority" {
            let said = ask(&url, &[]).await;
            assert_eq!((said.code.as_str(), said.exit), (code, 13), "{}", said.all);
            let trusted = ask(&url, &[("PG_CA_PEM", &path)]).await;
            assert_eq!(trusted.exit, 0, "{}", trusted.all);
            assert!(
                trusted.all.to_string().contains("certificate of CN=ours, for 399 days"),
                "{}",
                trusted.all
            );
            // The operator's other commands trust what the doctor trusts.
            let mut audit = tokio::process::Command::new(binary("punchcard"));
            let audit = audit.args(["--database-url", &url, "credits", "audit"]).env("PG_CA_PEM", &path);
            let output = audit.output().await.unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        } else if code == "certificate_expires_soon" {
            let said = ask(&url, &[("PG_CA_PEM", &path)]).await;
            assert!(said.exit == 0 && said.all.to_string().contains(code), "{}", said.all);
        } else {
            let said = ask(&url, &[("PG_CA_PEM", &path)]).await;
            assert_eq!((said.code.as_str(), said.exit), (code, 13), "{}", said.all);
        }
        if code == "wrong_host_name" {
            let named = ask(&url.replace("127.0.0.1", "localhost"), &[("PG_CA_PEM", &path)]).await;
            assert_eq!(named.exit, 0, "by its name: {}", named.all);
        }
        std::fs::remove_file(file).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole_ends_within_its_budget_and_is_told_until_it_is_gone() {
    let bench = Bench::new().await;
    let wire = Wire::to(&bench.url).await;
    wire.set(Mode::BlackHole);
    let begin = std::time::Instant::now();
    assert_eq!(ask(&wire.url, &[]).await.code, "silence");
    assert!(begin.elapsed() < Duration::from_secs(40), "{:?}", begin.elapsed());
    wire.set(Mode::Through);
    let said = ask(&wire.url, &[]).await;
    assert_eq!(said.exit, 0, "{}", said.all);
}
