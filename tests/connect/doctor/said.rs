//! What servers and poolers really send, and what is no server's answer.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{super::password::refusing, ask};

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
