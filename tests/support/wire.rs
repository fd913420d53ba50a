//! A wire between a function and PostgreSQL that counts the statements on it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Forwards to the server of a URL. Counts what is executed, and what is prepared under a name.
pub struct Wire {
    pub url: String,
    executed: Arc<AtomicUsize>,
    named: Arc<AtomicUsize>,
}

impl Wire {
    pub async fn to(url: &str) -> Self {
        let (before, rest) = url.split_once('@').expect("user@host");
        let (server, database) = rest.split_once('/').expect("host/database");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("{before}@{}/{database}", listener.local_addr().expect("an address"));
        let wire = Self { url, executed: Arc::default(), named: Arc::default() };
        let (server, executed, named) =
            (server.to_owned(), Arc::clone(&wire.executed), Arc::clone(&wire.named));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let upstream = TcpStream::connect(&server).await.expect("PostgreSQL");
                let (from_client, mut to_client) = client.into_split();
                let (mut from_server, to_server) = upstream.into_split();
                tokio::spawn(async move { copy(&mut from_server, &mut to_client).await });
                tokio::spawn(count(from_client, to_server, Arc::clone(&executed), Arc::clone(&named)));
            }
        });
        wire
    }

    /// Statements executed since the last call.
    pub fn executed(&self) -> usize {
        self.executed.swap(0, Ordering::SeqCst)
    }

    /// Statements prepared under a name, ever.
    pub fn named(&self) -> usize {
        self.named.load(Ordering::SeqCst)
    }
}

/// Frontend messages: a start-up packet without a type, then a type byte and a length that counts itself.
async fn count(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    executed: Arc<AtomicUsize>,
    named: Arc<AtomicUsize>,
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
        to.write_u8(kind).await?;
        to.write_u32(length).await?;
        to.write_all(&body).await?;
    }
}
