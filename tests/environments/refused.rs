//! What Punchcard cannot live in is refused by `punchcard migrate` in one line, and named by the doctor.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{doctor, empty, migrate, punchcard_as, refused, remove, set};
use crate::support::{APP, Bench, OWNER, as_role, binary};

#[tokio::test(flavor = "multi_thread")]
async fn encodings_that_are_not_unicode() {
    let server = Bench::new().await;
    for encoding in ["SQL_ASCII", "LATIN1"] {
        let options = format!("TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'");
        let database = empty(&server, OWNER, &options).await;
        let line = refused(&punchcard_as(&database, OWNER, &["migrate"]));
        assert!(line.contains(encoding) && line.contains("ENCODING 'UTF8'"), "{line}");
        let (said, exit) = doctor(&database, APP);
        assert!(exit == 17 && said.contains(encoding) && said.contains("(encoding;"), "{said}");
        remove(&server, database).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_no_writes() {
    let server = Bench::new().await;
    let database = empty(&server, OWNER, "").await;
    set(&database, "default_transaction_read_only = on").await;
    let line = refused(&punchcard_as(&database, OWNER, &["migrate"]));
    assert!(line.contains("takes no writes") && line.contains("default_transaction_read_only"), "{line}");
    let (said, exit) = doctor(&database, APP);
    assert!(
        exit == 17 && said.contains("default_transaction_read_only is on") && said.contains("(read_only;"),
        "{said}"
    );
    // Once it takes them again, all is well.
    database.sql(&format!("ALTER DATABASE {} RESET default_transaction_read_only", database.database)).await;
    migrate(&database).await;
    super::assert_sound(&database, "writable again");
    remove(&server, database).await;
}

/// A wire to the server on which its version is another: the four bytes of one number are those of the other.
async fn with_version(server: String, real: i32, said: i32) -> u16 {
    async fn pass(
        mut from: impl AsyncReadExt + Unpin,
        mut to: impl AsyncWriteExt + Unpin,
        swap: Option<[[u8; 4]; 2]>,
    ) {
        let mut buffer = vec![0; 65_536];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let bytes = &mut buffer[..length];
            if let Some([real, said]) = swap {
                for at in 0..length.saturating_sub(3) {
                    if bytes[at..at + 4] == real {
                        bytes[at..at + 4].copy_from_slice(&said);
                    }
                }
            }
            if to.write_all(bytes).await.is_err() {
                return;
            }
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = TcpStream::connect(&server).await.unwrap().into_split();
            tokio::spawn(pass(from_client, to_server, None));
            tokio::spawn(pass(from_server, to_client, Some([real.to_be_bytes(), said.to_be_bytes()])));
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_older_than_15() {
    let server = Bench::new().await;
    let database = empty(&server, OWNER, "").await;
    let rows = database.rows("SELECT current_setting('server_version_num')::integer").await;
    let host = database.direct_url.split_once('@').unwrap().1.split_once('/').unwrap().0.to_owned();
    let port = with_version(host.clone(), rows[0].get(0), 140_009).await;
    for (role, command) in [(OWNER, "migrate"), (APP, "doctor")] {
        let url = as_role(&database.direct_url, role).replace(&host, &format!("127.0.0.1:{port}"));
        let mut punchcard = tokio::process::Command::new(binary("punchcard"));
        let output = punchcard.arg(command).env("DATABASE_URL", url).output().await.unwrap();
        let line = "the server is PostgreSQL 14.9: Punchcard needs version 15 or newer";
        match command {
            "migrate" => assert_eq!(refused(&output), format!("punchcard: {line}")),
            _ => {
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                assert_eq!(output.status.code(), Some(17), "{said}");
                assert!(said.contains(line) && said.contains("(server_too_old;"), "{said}");
            }
        }
    }
    let made = database.rows("SELECT 1 FROM pg_namespace WHERE nspname = 'punchcard'").await;
    assert!(made.is_empty(), "nothing has changed");
    // What Supabase's tool applies looks for itself.
    let printed = shared::db::migrate::as_one_file(None).unwrap();
    let ask = "current_setting('server_version_num')::integer";
    assert_eq!(printed.matches(ask).count(), 1);
    let older = database.admin.batch_execute(&printed.replace(ask, "140009")).await.expect_err("refused");
    assert_eq!(older.as_db_error().unwrap().message(), "Punchcard needs PostgreSQL 15 or newer");
    remove(&server, database).await;
}
