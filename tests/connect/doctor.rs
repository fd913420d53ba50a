//! `punchcard doctor`, end to end: what servers and poolers really send, and faults that are really there.

use std::{process::Output, time::Duration};

use local::{
    lambda::Function,
    pgbouncer::{PgBouncer, PoolMode},
    postgres::{Options, Postgres},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{password::refusing, tls::Authority};
use crate::support::{
    APP, Bench, OWNER, as_role, binary, connect, environment,
    wire::{Mode, Wire},
};

struct Said {
    exit: i32,
    code: String,
    fix: String,
    all: Value,
}

/// What the doctor says of a connection string, as JSON.
async fn ask(url: &str, env: &[(&str, &str)]) -> Said {
    ask_more(url, &[], env).await
}

async fn ask_more(url: &str, more: &[&str], env: &[(&str, &str)]) -> Said {
    let mut command = tokio::process::Command::new(binary("punchcard"));
    command
        .args(["--database-url", url, "doctor", "--json"])
        .args(more)
        .env_remove("PGPASSWORD")
        .env_remove("PG_CA_PEM");
    let output: Output = command.envs(env.iter().copied()).output().await.expect("the doctor runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let all: Value = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    let last = all["steps"].as_array().and_then(|steps| steps.last()).cloned().unwrap_or_default();
    let word = |name: &str| last[name].as_str().unwrap_or_default().to_owned();
    Said { exit: output.status.code().unwrap_or(-1), code: word("code"), fix: word("fix"), all }
}

/// Rows of the doctor's table that a server says: its number, SQLSTATE and text, and the diagnosis.
const SAID: &[(u8, &str, &str, &str)] = &[
    (8, "XX000", "(EADDRNOTALLOWED) address not in tenant allow_list: {1, 2, 3, 4}", "address_not_allowed"),
    (9, "XX000", "(ESSLREQUIRED) SSL connection is required", "tls_required"),
    (
        9,
        "28000",
        "no pg_hba.conf entry for host \"1.2.3.4\", user \"u\", database \"d\", no encryption",
        "tls_required",
    ),
    (12, "08006", "(ESSLHANDSHAKE) TLS handshake failed", "tls_handshake"),
    (13, "XX000", "(ENOTFOUND) tenant/user postgres.abc not found", "unknown_tenant"),
    (13, "XX000", "Tenant or user not found", "unknown_tenant"),
    (
        14,
        "XX000",
        "(ENOIDENTIFIER) no tenant identifier provided (external_id or sni_hostname required)",
        "user_without_ref",
    ),
    (15, "28P01", "password authentication failed for user \"postgres\"", "wrong_password"),
    (
        16,
        "XX000",
        "(ECIRCUITBREAKER) too many authentication failures, new connections are temporarily blocked",
        "circuit_breaker",
    ),
    (17, "08006", "(EAUTHQUERY) authentication query failed", "pooler_cannot_authenticate"),
    (17, "XX000", "(EAUTHSECRETS) failed to retrieve secrets", "pooler_cannot_authenticate"),
    (
        18,
        "XX000",
        "(EMAXCONNSESSION) max clients reached in session mode - max clients are limited to pool_size: 15",
        "session_mode",
    ),
    (19, "XX000", "(EMAXCONN) max client connections reached, limit: 200", "pooler_full"),
    (19, "XX000", "Max client connections reached", "pooler_full"),
    (
        20,
        "XX000",
        "(ECHECKOUTTIMEOUT) unable to check out connection from the pool after 60000ms in Transaction mode",
        "pool_exhausted",
    ),
    (21, "XX000", "(EMAXPOOLSREACHED) max pools count reached", "pooler_routing"),
    (21, "XX000", "(EWORKERNOTFOUND) worker not found", "pooler_routing"),
    (
        22,
        "XX000",
        "(EDBHANDLEREXITED) connection to database closed. Check logs for more information",
        "pooler_lost_the_database",
    ),
    (22, "XX000", "(EPOOLTERMINATING) pool is terminating", "pooler_lost_the_database"),
    (23, "XX000", "(EBANNED) tenant is banned: abuse", "tenant_banned"),
    (24, "08P01", "(ESTARTUPPACKETTOOLARGE) startup packet too large", "startup_refused"),
    (
        24,
        "XX000",
        "(EINVALIDUSERINFO) Authentication error, reason: \"Invalid format for user or db_name\"",
        "startup_refused",
    ),
    (25, "26000", "prepared statement \"s0\" does not exist", "named_statements"),
    (25, "42P05", "prepared statement \"s0\" already exists", "named_statements"),
    (
        25,
        "XX000",
        "(EPSSIMPLEQUERY) prepared statements are not supported for simple queries",
        "named_statements",
    ),
    (26, "08P01", "unsupported startup parameter: options", "startup_parameter"),
    (27, "08P01", "query_wait_timeout", "pool_exhausted"),
    (28, "08P01", "no more connections allowed (max_client_conn)", "pooler_full"),
    (29, "08P01", "server login has been failing, try again later (server_login_retry)", "database_down"),
    (30, "08P01", "pooler is shutting down", "pooler_restarting"),
    (31, "08P01", "client_login_timeout", "pooler_timeout"),
    (31, "08P01", "idle_transaction_timeout", "pooler_timeout"),
    (32, "53300", "sorry, too many clients already", "server_full"),
    (
        32,
        "53300",
        "remaining connection slots are reserved for roles with the SUPERUSER attribute",
        "server_full",
    ),
    (33, "57P01", "terminating connection due to administrator command", "connection_ended"),
    (33, "57P02", "terminating connection because of crash of another server process", "connection_ended"),
    (33, "57P03", "the database system is starting up", "starting_up"),
    (34, "57014", "canceling statement due to statement timeout", "statement_timeout"),
    (35, "55P03", "canceling statement due to lock timeout", "lock_timeout"),
    (36, "25P03", "terminating connection due to idle-in-transaction timeout", "idle_in_transaction"),
    (37, "3D000", "database \"nope\" does not exist", "no_such_database"),
    (37, "28000", "role \"nobody\" does not exist", "role_refused"),
    (38, "42501", "permission denied for schema punchcard", "permission_denied"),
    (38, "42P01", "relation \"punchcard.migrations\" does not exist", "not_migrated"),
    (39, "25006", "cannot execute UPDATE in a read-only transaction", "read_only"),
    (40, "53100", "could not extend file \"base/5/16384\": No space left on device", "disk_full"),
    (
        44,
        "XX000",
        "endpoint ID is not specified. Either please upgrade the postgres client library (libpq) for SNI support",
        "no_sni",
    ),
    (46, "58000", "could not get connection from the pool - AllServersDown", "pool_exhausted"),
    (46, "58000", "No pool configured for database: \"d\", user: \"u\"", "unknown_tenant"),
    (47, "58000", "connection pool for user \"u\" and database \"d\" is down", "pool_exhausted"),
    (47, "57P05", "disconnecting idle client", "pooler_timeout"),
    (47, "57P01", "PgDog is shutting down", "connection_ended"),
    (47, "08004", "only TLS connections are allowed", "tls_required"),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_servers_and_poolers_say_is_diagnosed_with_one_password_at_most() {
    for (row, state, message, code) in SAID {
        let (port, count) = refusing(state, message).await;
        let said = ask(&format!("postgres://u:hush-hush@127.0.0.1:{port}/d"), &[]).await;
        assert_eq!(said.code, *code, "row {row}: {message}: {}", said.all);
        assert!(said.exit >= 10 && !said.fix.is_empty(), "row {row}: {}", said.all);
        assert!(
            said.all.to_string().contains(state) && !said.all.to_string().contains("hush-hush"),
            "row {row}"
        );
        // One to see whether anybody listens, one to connect.
        assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), 2, "row {row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_server_says_is_diagnosed_too() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let web_port = web.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = web.accept().await {
            let _ = client.read(&mut [0; 1024]).await;
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    for (row, url, code) in [
        (1, "postgres://u:p@127.0.0.1/d?sslmode=perhaps".to_owned(), "bad_sslmode"),
        (2, "postgres://u:p@127.0.0.1/d?frobnicate=1".to_owned(), "bad_connection_string"),
        (3, "postgres://u:p@ss@127.0.0.1/d".to_owned(), "unescaped_password"),
        (4, "postgres://u:p@db.nowhere.invalid/d".to_owned(), "unknown_host"),
        (6, format!("postgres://u:p@127.0.0.1:{free}/d"), "connection_refused"),
        (41, format!("postgres://u:p@127.0.0.1:{silent_port}/d"), "silence"),
        (42, format!("postgres://u:p@127.0.0.1:{web_port}/d"), "not_postgresql"),
    ] {
        let said = ask(&url, &[]).await;
        assert_eq!(said.code, code, "row {row}: {}", said.all);
        assert!(said.exit >= 10 && !said.fix.is_empty());
    }
    drop(silent);
}

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

    bench.sql("DELETE FROM punchcard.migrations WHERE name LIKE '0007%'").await;
    assert_eq!(ask(&direct, &[]).await.code, "not_migrated");
    bench.sql("INSERT INTO punchcard.migrations (name) VALUES ('0007_access')").await;
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
    let url =
        |user: &str| format!("postgres://{user}:{}@127.0.0.1:{port}/{database}", crate::support::PASSWORD);
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
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    wire.set(Mode::Through);
    let said = ask(&wire.url, &[]).await;
    assert_eq!(said.exit, 0, "{}", said.all);
}

/// What somebody did by hand, what the audit says of it, and what undoes it.
const OPENED: &[(&str, &str, &str)] = &[
    ("GRANT USAGE ON SCHEMA punchcard TO anon", "open_grant", "SELECT punchcard.grant_access()"),
    ("GRANT INSERT ON punchcard.ledger TO authenticated", "open_grant", "SELECT punchcard.grant_access()"),
    ("GRANT TRUNCATE ON punchcard_api.jobs TO anon", "open_grant", "SELECT punchcard.grant_access()"),
    ("GRANT SELECT (sha256) ON punchcard.service_tokens TO PUBLIC", "open_grant", "SELECT punchcard.grant_access()"),
    (
        "GRANT EXECUTE ON FUNCTION punchcard.increment_user_credits TO authenticated",
        "open_grant",
        "SELECT punchcard.grant_access()",
    ),
    (
        "DROP FUNCTION punchcard.balance; CREATE FUNCTION punchcard.balance(p_account_id uuid) RETURNS TABLE (available bigint, held bigint)
         LANGUAGE sql SECURITY DEFINER SET search_path = '' AS 'SELECT 1::bigint, 1::bigint'",
        "open_grant",
        "SELECT punchcard.grant_access()",
    ),
    (
        "ALTER TABLE punchcard.queue NO FORCE ROW LEVEL SECURITY",
        "open_rows",
        "ALTER TABLE punchcard.queue FORCE ROW LEVEL SECURITY",
    ),
    (
        "CREATE POLICY all_see ON punchcard.accounts FOR SELECT TO authenticated USING (true)",
        "open_rows",
        "DROP POLICY all_see ON punchcard.accounts",
    ),
    (
        "ALTER VIEW punchcard_api.credits RESET (security_invoker)",
        "open_view",
        "ALTER VIEW punchcard_api.credits SET (security_invoker = on)",
    ),
    (
        "ALTER FUNCTION punchcard.grant_credits RESET search_path",
        "open_search_path",
        "ALTER FUNCTION punchcard.grant_credits SET search_path = ''",
    ),
    (
        "CREATE FUNCTION public.top_up(a uuid) RETURNS void LANGUAGE sql SECURITY DEFINER
         AS $$ SELECT punchcard.grant_credits(a, 1000, 'k') $$",
        "open_function",
        "REVOKE EXECUTE ON FUNCTION public.top_up FROM PUBLIC, anon, authenticated",
    ),
    ("GRANT UPDATE ON punchcard.accounts TO punchcard_app", "open_grant", "SELECT punchcard.grant_access()"),
    ("GRANT SELECT ON punchcard.accounts TO service_role", "open_grant", "SELECT punchcard.grant_access()"),
    (
        "GRANT EXECUTE ON FUNCTION punchcard.increment_user_credits TO punchcard_app",
        "open_grant",
        "SELECT punchcard.grant_access()",
    ),
    (
        "GRANT CREATE ON SCHEMA punchcard TO punchcard_app",
        "too_mighty_role",
        "SELECT punchcard.grant_access()",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_of_grants_finds_what_was_opened_by_hand_and_nothing_else() {
    let bench = Bench::new().await;
    let url = as_role(&bench.direct_url, OWNER);
    let owner = connect(&url).await;
    let clean = ask_more(&url, &["--grants"], &[]).await;
    assert_eq!(clean.exit, 0, "under Supabase's default privileges: {}", clean.all);
    for (open, code, close) in OPENED {
        // As the superuser, whose own functions would not be the owner's to close.
        let by = if open.contains("public.") { &bench.admin } else { &owner };
        by.batch_execute(open).await.expect(open);
        let said = ask_more(&url, &["--grants"], &[]).await;
        assert_eq!((said.code.as_str(), said.exit), (*code, 19), "{open}: {}", said.all);
        by.batch_execute(close).await.expect(close);
    }
    let said = ask_more(&url, &["--grants"], &[]).await;
    assert_eq!(said.exit, 0, "all closed again: {}", said.all);
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_shapes_of_the_teams_own_credits_are_named() {
    let bench = Bench::new().await;
    bench
        .sql(
            "CREATE TABLE public.user_credits (user_id uuid PRIMARY KEY, credits integer NOT NULL);
             CREATE FUNCTION public.increment_user_credits(p_user_id uuid, p_amount integer)
                 RETURNS TABLE (balance integer, success boolean, message text) LANGUAGE plpgsql SECURITY DEFINER AS $$
             DECLARE now_has integer;
             BEGIN
                 SELECT credits INTO now_has FROM user_credits WHERE user_id = p_user_id;
                 UPDATE user_credits SET credits = GREATEST(0, now_has + p_amount) WHERE user_id = p_user_id;
                 RETURN QUERY SELECT now_has, true, NULL::text;
             EXCEPTION WHEN OTHERS THEN
                 RETURN QUERY SELECT 0, false, SQLERRM;
             END $$",
        )
        .await;
    let said = ask(&as_role(&bench.direct_url, APP), &[]).await;
    let text = said.all.to_string();
    assert_eq!(said.exit, 0, "warnings: {text}");
    for shape in ["mints", "no search_path", "swallows", "clamps", "without a lock", "may fall below zero"] {
        assert!(text.contains(shape), "{shape}: {text}");
    }
    bench
        .sql(
            "DROP FUNCTION public.increment_user_credits; ALTER TABLE public.user_credits ADD CHECK (credits >= 0);
             CREATE FUNCTION public.increment_user_credits(p_user_id uuid, p_amount integer) RETURNS void
                 LANGUAGE sql AS $$ UPDATE public.user_credits SET credits = credits + p_amount WHERE user_id = p_user_id $$",
        )
        .await;
    let mended = ask(&as_role(&bench.direct_url, APP), &[]).await.all.to_string();
    assert!(!mended.contains("broken_credit_shape"), "{mended}");

    // The one that credits are drawn from is looked at itself.
    bench
        .sql(&format!(
            "GRANT SELECT, UPDATE ON public.user_credits TO {OWNER}; INSERT INTO public.user_credits VALUES (gen_random_uuid(), 5);
             SELECT punchcard.use_credit_source('public.user_credits', 'user_id', 'credits')"
        ))
        .await;
    let sound = ask(&as_role(&bench.direct_url, APP), &[]).await;
    assert!(
        sound.exit == 0 && sound.all.to_string().contains("credits come from public.user_credits"),
        "{}",
        sound.all
    );
    bench.sql("REVOKE ALL ON public.user_credits FROM punchcard_migrator").await;
    let broken = ask(&as_role(&bench.direct_url, APP), &[]).await;
    assert_eq!((broken.code.as_str(), broken.exit), ("credit_source_failed", 20), "{}", broken.all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poller_examines_its_own_connection_where_that_is_allowed() {
    let bench = Bench::new().await;
    let refused = bench.poller().invoke(&json!({"doctor": true})).await.expect_err("it is off");
    assert!(refused.to_string().contains("AllowDoctor=true"), "{refused}");
    let allowed = [("ALLOW_DOCTOR", "true"), ("CONNECTIONS", "100+2+20"), ("POOLER_MAX_CLIENTS", "100")];
    let report = bench.poller_with(&allowed).invoke(&json!({"doctor": true})).await.expect("a report");
    let text = report.to_string();
    for found in
        ["nobody has more than is meant", "too_many_connections", "122 connections at once, of at most 100"]
    {
        assert!(text.contains(found), "{found}: {text}");
    }
    assert!(!text.contains(crate::support::PASSWORD), "{text}");
    let wrong = Function::new(binary("poller"), {
        let mut env = environment("postgres://u:hush-hush@127.0.0.1:1/d");
        env.push(("ALLOW_DOCTOR".into(), "true".into()));
        env
    });
    let report = wrong.invoke(&json!({"doctor": true})).await.expect("a report").to_string();
    assert!(report.contains("connection_refused") && !report.contains("hush-hush"), "{report}");
}
