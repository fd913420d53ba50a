//! A wire between a function and PostgreSQL that counts the statements on it, and can be slow or cut.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// What befalls the answer to a statement.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// It comes late.
    Late(Duration),
    /// An error with this SQLSTATE comes in its place, and the end of the connection, as a pooler has it.
    Instead(&'static str),
    /// It is lost with the connection: the statement was executed, and its client does not know.
    Cut,
}

/// Forwards to the server of a URL. Counts what is executed, and what is prepared under a name.
pub struct Wire {
    pub url: String,
    executed: Arc<AtomicUsize>,
    named: Arc<AtomicUsize>,
    rows: Arc<AtomicUsize>,
    fault: Arc<Mutex<Planned>>,
}

/// The fault that the next statement of that name arms, and the one that awaits its answer.
#[derive(Default)]
struct Planned {
    on: Option<(&'static str, Fault)>,
    armed: Option<Fault>,
}

impl Wire {
    pub async fn to(url: &str) -> Self {
        let (before, rest) = url.split_once('@').expect("user@host");
        let (server, database) = rest.split_once('/').expect("host/database");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("{before}@{}/{database}", listener.local_addr().expect("an address"));
        let wire = Self {
            url,
            executed: Arc::default(),
            named: Arc::default(),
            rows: Arc::default(),
            fault: Arc::default(),
        };
        let server = server.to_owned();
        let (executed, named) = (Arc::clone(&wire.executed), Arc::clone(&wire.named));
        let (rows, fault) = (Arc::clone(&wire.rows), Arc::clone(&wire.fault));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let upstream = TcpStream::connect(&server).await.expect("PostgreSQL");
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = upstream.into_split();
                let (executed, named) = (Arc::clone(&executed), Arc::clone(&named));
                let (rows, fault) = (Arc::clone(&rows), Arc::clone(&fault));
                tokio::spawn(async move {
                    tokio::select! {
                        _ = answer(from_server, to_client, &rows, &fault) => {}
                        _ = count(from_client, to_server, &executed, &named, &fault) => {}
                    }
                });
            }
        });
        wire
    }

    /// Statements executed since the last call.
    pub fn executed(&self) -> usize {
        self.executed.swap(0, Ordering::SeqCst)
    }

    /// Bytes of the rows answered since the last call.
    pub fn rows(&self) -> usize {
        self.rows.swap(0, Ordering::SeqCst)
    }

    /// Statements prepared under a name, ever.
    pub fn named(&self) -> usize {
        self.named.load(Ordering::SeqCst)
    }

    /// Plans what befalls the answer to the next statement with this header, such as `-- claim`.
    pub fn fault(&self, on: &'static str, fault: Fault) {
        self.fault.lock().unwrap().on = Some((on, fault));
    }
}

/// Backend messages: a type byte and a length that counts itself. An end of either direction ends both.
async fn answer(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    rows: &AtomicUsize,
    fault: &Mutex<Planned>,
) -> std::io::Result<()> {
    loop {
        let kind = from.read_u8().await?;
        let length = from.read_u32().await?;
        let mut message = vec![0; length as usize - 4];
        from.read_exact(&mut message).await?;
        if kind == b'D' {
            rows.fetch_add(message.len(), Ordering::SeqCst);
        }
        let armed = fault.lock().unwrap().armed.take();
        match armed {
            Some(Fault::Late(delay)) => tokio::time::sleep(delay).await,
            Some(Fault::Cut) => return Ok(()),
            Some(Fault::Instead(code)) => {
                let fields = format!("SFATAL\0VFATAL\0C{code}\0Mserver conn crashed?\0\0");
                to.write_u8(b'E').await?;
                to.write_u32(4 + u32::try_from(fields.len()).unwrap()).await?;
                return to.write_all(fields.as_bytes()).await;
            }
            None => {}
        }
        to.write_u8(kind).await?;
        to.write_u32(length).await?;
        to.write_all(&message).await?;
    }
}

/// Frontend messages: a start-up packet without a type, then a type byte and a length that counts itself.
async fn count(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    executed: &AtomicUsize,
    named: &AtomicUsize,
    fault: &Mutex<Planned>,
) -> std::io::Result<()> {
    let length = from.read_u32().await?;
    let mut startup = vec![0; length as usize - 4];
    from.read_exact(&mut startup).await?;
    to.write_u32(length).await?;
    to.write_all(&startup).await?;
    loop {
        let kind = from.read_u8().await?;
        let length = from.read_u32().await?;
        let mut body = vec![0; length as usize - 4];
        from.read_exact(&mut body).await?;
        match kind {
            b'E' | b'Q' => executed.fetch_add(1, Ordering::SeqCst),
            b'P' if body.first() != Some(&0) => named.fetch_add(1, Ordering::SeqCst),
            _ => 0,
        };
        if kind == b'P' {
            let mut fault = fault.lock().unwrap();
            if let Some((_, due)) = fault.on.take_if(|(on, _)| String::from_utf8_lossy(&body).contains(*on)) {
                fault.armed = Some(due);
            }
        }
        to.write_u8(kind).await?;
        to.write_u32(length).await?;
        to.write_all(&body).await?;
    }
}
