//! One HTTPS request at a time, for targets, key sets and secrets. A host is resolved once, every address vetted,
//! and the vetted address connected to, so that no second look-up can smuggle in a private one (DNS rebinding).
//! No redirects, no decompression, a bounded answer, all within a deadline.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout_at,
};
use tokio_rustls::TlsConnector;

use crate::domain::Deadline;

/// Where a request may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allow {
    /// Public addresses, by HTTPS on port 443 or above 1023: whatever a caller or operator may name.
    PublicHttps,
    /// Anything, also plain HTTP on the loopback: what the deployment itself configures, and local use.
    Anything,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The URL, its port or its address is not allowed.
    #[error("{0}")]
    Forbidden(String),
    /// Connecting, TLS or the exchange itself failed.
    #[error("{0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// The answer is longer than allowed.
    #[error("the answer is longer than {0} bytes")]
    TooLarge(usize),
}

static TLS: LazyLock<TlsConnector> = LazyLock::new(|| TlsConnector::from(Arc::new(public_tls())));

/// TLS that trusts the web's certification authorities, and verifies always.
pub(crate) fn public_tls() -> rustls::ClientConfig {
    tls_trusting(rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
}

/// TLS that trusts these certification authorities, and verifies always.
pub(crate) fn tls_trusting(roots: rustls::RootCertStore) -> rustls::ClientConfig {
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring supports TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Sends a request and reads at most `limit` bytes of the answer; of one that is no success, only its head.
///
/// # Errors
/// [`HttpError`] says whether the target was refused, out of reach, too slow or too talkative.
pub async fn send(
    request: Request<Bytes>,
    allow: Allow,
    limit: usize,
    deadline: Deadline,
) -> Result<Response<Bytes>, HttpError> {
    let read = Read { limit, reasons: None };
    let answer = send_reading(request, allow, read, deadline, |_| true).await?;
    answer.ok_or_else(no_address)
}

/// The same, but of an answer of 400 or 422, too, the beginning is read, up to 16 KiB: why it was refused.
/// Where that cannot be had within two seconds there is none, and the answer is the same otherwise.
///
/// # Errors
/// As [`send`].
pub async fn send_and_hear_why(
    request: Request<Bytes>,
    allow: Allow,
    limit: usize,
    deadline: Deadline,
) -> Result<Response<Bytes>, HttpError> {
    let read = Read { limit, reasons: Some(deadline) };
    let answer = send_reading(request, allow, read, deadline, |_| true).await?;
    answer.ok_or_else(no_address)
}

/// As [`send`], to those addresses of the host that `admit` lets pass; it is asked of each vetted one just before that is
/// connected to, so that the last one that it was asked of is the one that is spoken to. `None`: it let none pass that could be
/// connected to.
///
/// # Errors
/// As [`send`].
pub async fn send_where(
    request: Request<Bytes>,
    allow: Allow,
    limit: usize,
    deadline: Deadline,
    admit: impl FnMut(SocketAddr) -> bool,
) -> Result<Option<Response<Bytes>>, HttpError> {
    send_reading(request, allow, Read { limit, reasons: None }, deadline, admit).await
}

/// The longest reason, in bytes, how long it is waited for, and how long before the deadline that ends.
const REASON_BYTES: usize = 16_384;
const REASON_BUDGET: Duration = Duration::from_secs(2);
const REASON_MARGIN: Duration = Duration::from_millis(200);

/// What is read of an answer.
#[derive(Clone, Copy)]
struct Read {
    /// Bytes of one that is a success, at most.
    limit: usize,
    /// By when all must be done, if reasons are read.
    reasons: Option<Deadline>,
}

fn no_address() -> HttpError {
    HttpError::Unreachable("the host has no address".into())
}

async fn send_reading(
    request: Request<Bytes>,
    allow: Allow,
    read: Read,
    deadline: Deadline,
    admit: impl FnMut(SocketAddr) -> bool,
) -> Result<Option<Response<Bytes>>, HttpError> {
    let exchange = exchange(request, allow, read, admit);
    timeout_at(deadline.instant(), exchange).await.unwrap_or(Err(HttpError::TimedOut))
}

async fn exchange(
    mut request: Request<Bytes>,
    allow: Allow,
    read: Read,
    admit: impl FnMut(SocketAddr) -> bool,
) -> Result<Option<Response<Bytes>>, HttpError> {
    let uri = request.uri().clone();
    let (host, port, tls) = destination(&uri, allow)?;
    let Some(stream) = connect(host, port, allow, admit).await? else { return Ok(None) };

    let authority = uri.authority().map_or_else(String::new, |authority| authority.as_str().to_owned());
    let path = uri.path_and_query().map_or_else(|| "/".to_owned(), |path| path.as_str().to_owned());
    let value = authority.parse().map_err(|_| HttpError::Forbidden("the URL's host is malformed".into()))?;
    request.headers_mut().insert(header::HOST, value);
    *request.uri_mut() =
        path.parse().map_err(|_| HttpError::Forbidden("the URL's path is malformed".into()))?;

    if tls {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| HttpError::Forbidden("the URL's host is malformed".into()))?;
        let stream = TLS.connect(name, stream).await.map_err(unreachable)?;
        exchange_over(stream, request, read).await.map(Some)
    } else {
        exchange_over(stream, request, read).await.map(Some)
    }
}

async fn exchange_over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Bytes>,
    Read { limit, reasons }: Read,
) -> Result<Response<Bytes>, HttpError> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(unreachable)?;
    // Polled beside the request rather than spawned: dropping this future drops the connection with it.
    let answer = async move {
        let response = sender.send_request(request.map(Full::new)).await.map_err(unreachable)?;
        let (parts, body) = response.into_parts();
        if !parts.status.is_success() {
            let gives_reasons = [StatusCode::BAD_REQUEST, StatusCode::UNPROCESSABLE_ENTITY];
            let reason = match reasons.filter(|_| gives_reasons.contains(&parts.status)) {
                Some(deadline) => {
                    beginning(body, deadline.earlier(REASON_MARGIN).within(REASON_BUDGET)).await
                }
                None => Bytes::new(),
            };
            return Ok(Response::from_parts(parts, reason));
        }
        let body = Limited::new(body, limit).collect().await.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                HttpError::TooLarge(limit)
            } else {
                HttpError::Unreachable(error.to_string())
            }
        })?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    };
    tokio::pin!(answer);
    let mut connection = std::pin::pin!(connection);
    let mut open = true;
    loop {
        tokio::select! {
            answer = &mut answer => return answer,
            _ = &mut connection, if open => open = false,
        }
    }
}

/// What can be read of a body in time, at most `REASON_BYTES`; nothing of one that breaks off.
async fn beginning(mut body: Incoming, deadline: Deadline) -> Bytes {
    let read = async {
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                bytes.extend_from_slice(&data);
            }
            if bytes.len() >= REASON_BYTES {
                break;
            }
        }
        bytes.truncate(REASON_BYTES);
        Ok::<_, hyper::Error>(bytes.freeze())
    };
    timeout_at(deadline.instant(), read).await.ok().and_then(Result::ok).unwrap_or_default()
}

fn unreachable(error: impl std::fmt::Display) -> HttpError {
    HttpError::Unreachable(error.to_string())
}

/// Host, port and whether TLS is spoken, if the URL itself is allowed.
fn destination(uri: &Uri, allow: Allow) -> Result<(&str, u16, bool), HttpError> {
    let forbidden = |why: &str| Err(HttpError::Forbidden(why.to_owned()));
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") if allow == Allow::Anything => false,
        _ => return forbidden("only https URLs are allowed"),
    };
    let Some(authority) = uri.authority() else { return forbidden("the URL has no host") };
    if authority.as_str().contains('@') {
        return forbidden("a URL with user information is not allowed");
    }
    if authority.port_u16().is_none() && authority.as_str() != authority.host() {
        return forbidden("the URL's port is malformed");
    }
    let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
    if allow == Allow::PublicHttps && (name == "localhost" || name.ends_with(".localhost")) {
        return forbidden("localhost is not allowed"); // RFC 6761 §6.3, whatever a resolver says
    }
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    if allow == Allow::PublicHttps && port != 443 && port < 1024 {
        return forbidden("that port is not allowed");
    }
    Ok((authority.host().trim_start_matches('[').trim_end_matches(']'), port, tls))
}

/// Whether a URL may be a target at all; its addresses are vetted when it is called.
///
/// # Errors
/// [`HttpError::Forbidden`] says what is wrong with it.
pub fn vet_url(url: &str, allow: Allow) -> Result<(), HttpError> {
    let uri: Uri = url.parse().map_err(|_| HttpError::Forbidden("the URL is malformed".into()))?;
    let (host, _, _) = destination(&uri, allow)?;
    match host.parse::<IpAddr>() {
        Ok(address) if allow == Allow::PublicHttps && !is_public(address) => {
            Err(HttpError::Forbidden("the URL's address is not public".into()))
        }
        _ => Ok(()),
    }
}

/// Looks up the host of a URL: whether it has none but public addresses. One that does not resolve by `deadline` passes: its
/// addresses are vetted whenever it is called, and this is to say so early.
///
/// # Errors
/// [`HttpError::Forbidden`] says what is wrong with it.
pub async fn vet_host(url: &str, deadline: Deadline) -> Result<(), HttpError> {
    let uri: Uri = url.parse().map_err(|_| HttpError::Forbidden("the URL is malformed".into()))?;
    let (host, port, _) = destination(&uri, Allow::PublicHttps)?;
    match timeout_at(deadline.instant(), tokio::net::lookup_host((host, port))).await {
        Ok(Ok(addresses)) => vet_addresses(&addresses.collect::<Vec<_>>()),
        Ok(Err(_)) | Err(_) => Ok(()),
    }
}

/// One private address among them is enough to refuse: a mixed answer is how rebinding begins.
fn vet_addresses(addresses: &[SocketAddr]) -> Result<(), HttpError> {
    if addresses.iter().all(|address| is_public(address.ip())) {
        return Ok(());
    }
    Err(HttpError::Forbidden("the host's address is not public".into()))
}

/// `None` if `admit` lets no address pass that can be connected to. It hears of an IPv4 address by that alone, however it was
/// written.
async fn connect(
    host: &str,
    port: u16,
    allow: Allow,
    mut admit: impl FnMut(SocketAddr) -> bool,
) -> Result<Option<TcpStream>, HttpError> {
    let addresses: Vec<SocketAddr> =
        tokio::net::lookup_host((host, port)).await.map_err(unreachable)?.collect();
    if allow == Allow::PublicHttps {
        vet_addresses(&addresses)?;
    }
    let mut last = Err(HttpError::Unreachable("the host has no address".into()));
    for address in addresses {
        if !admit(SocketAddr::new(address.ip().to_canonical(), address.port())) {
            last = Ok(None);
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok(Some(stream));
            }
            Err(error) if last.is_err() => last = Err(unreachable(error)),
            Err(_) => {}
        }
    }
    last
}

/// Whether an address lies in the public internet (IANA special-purpose registries, RFC 6890).
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))      // carrier-grade NAT
        || (a == 192 && b == 0 && c == 0)            // protocol assignments
        || (a == 192 && b == 88 && c == 99)          // 6to4 relay
        || (a == 198 && (b == 18 || b == 19)); // benchmarking
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    if let Some(v4) = address.to_ipv4_mapped() {
        return is_public_v4(v4);
    }
    // Global unicast is 2000::/3; of it, not documentation, Teredo and ORCHID, nor 6to4, which wraps any IPv4.
    (segments[0] & 0xe000) == 0x2000
        && segments[0] != 0x2002
        && !(segments[0] == 0x2001 && (segments[1] < 0x200 || segments[1] == 0x0db8))
        && (segments[0], segments[1] & 0xf000) != (0x3fff, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        let private = "127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 169.254.100.1 100.64.0.1 0.0.0.0 \
            224.0.0.1 255.255.255.255 192.0.0.1 198.18.0.1 ::1 :: fe80::1 fc00::1 ff02::1 ::ffff:169.254.169.254 \
            64:ff9b::a9fe:a9fe 2002:7f00:1:: 2001:db8::1 2001::1";
        for address in private.split_whitespace() {
            assert!(!is_public(address.parse().expect(address)), "{address}");
        }
        for address in ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1"] {
            assert!(is_public(address.parse().expect(address)), "{address}");
        }
    }

    #[test]
    fn a_target_is_public_https_without_user_information() {
        let bad = "http://example.com/ file:///etc/passwd https://u:p@example.com/ https://127.0.0.1/ \
            https://[::ffff:169.254.169.254]/ https://[::1]:8443/ https://example.com:22/ ftp://example.com/ nonsense \
            https://example.com:99999/ https://example.com:/ https://localhost/ https://LocalHost.:8443/ https://a.localhost/";
        for url in bad.split_whitespace() {
            assert!(vet_url(url, Allow::PublicHttps).is_err(), "{url}");
        }
        for url in ["https://example.com/jobs?x=1", "https://example.com:8443/"] {
            assert!(vet_url(url, Allow::PublicHttps).is_ok(), "{url}");
        }
        assert!(vet_url("http://127.0.0.1:9999/ok", Allow::Anything).is_ok());
    }

    #[tokio::test]
    async fn a_host_of_a_private_address_is_found_out_and_one_that_does_not_resolve_passes() {
        let soon = || Deadline::after(std::time::Duration::from_secs(5));
        for url in ["https://127.1/", "https://0x7f000001/", "https://2130706433/", "https://[::1]/"] {
            let said = vet_host(url, soon()).await;
            assert!(matches!(said, Err(HttpError::Forbidden(_))), "{url}: {said:?}");
        }
        vet_host("https://nowhere.invalid/", soon()).await.expect("it does not resolve");
        vet_host("https://1.1.1.1/", soon()).await.expect("public");
    }
}
