//! The part of the way that no driver shows: names, addresses, and the certificate of who answers.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use x509_cert::{Certificate as X509, der::Decode};

/// What an SSLRequest is (PostgreSQL's protocol, "SSL Session Encryption").
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Names and addresses, as this machine or a test has them.
pub(super) trait Network: Sync {
    /// The addresses of a name.
    fn resolve(&self, host: &str, port: u16) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;
    /// Whether somebody listens there.
    fn reach(&self, address: SocketAddr) -> impl Future<Output = io::Result<()>> + Send;
}

/// This machine's.
pub(super) struct System;

impl Network for System {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }

    async fn reach(&self, address: SocketAddr) -> io::Result<()> {
        TcpStream::connect(address).await.map(drop)
    }
}

/// What a server shows of itself.
pub(super) struct Certificate {
    pub(super) issuer: String,
    /// How long it is still valid.
    pub(super) left: Duration,
}

/// Agrees on TLS as the driver does, and reads the certificate that was verified. `None` where the server's answer is
/// for the driver to read, or the certificate cannot be.
pub(super) async fn certificate(
    host: &str,
    tls: ClientConfig,
    address: SocketAddr,
) -> io::Result<Option<Certificate>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&SSL_REQUEST).await?;
    match stream.read_u8().await? {
        b'S' => {}
        b'N' => return Err(io::Error::other("server does not support TLS")),
        _ => return Ok(None),
    }
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    Ok(shown.and_then(|der| X509::from_der(der).ok()).map(|x509| {
        let end = x509.tbs_certificate.validity.not_after.to_unix_duration();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Certificate { issuer: x509.tbs_certificate.issuer.to_string(), left: end.saturating_sub(now) }
    }))
}
