//! An HTTP server on 127.0.0.1 whose answers a test writes: a team's own HTTP target, a JWKS endpoint.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// What the server received.
#[derive(Debug, Clone)]
pub struct Request {
    /// The HTTP method.
    pub method: Method,
    /// The path with its query, as sent.
    pub path: String,
    /// All headers, names in lower case.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// What the server answers.
#[derive(Debug, Clone)]
pub struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Bytes,
    delay: Duration,
    hang_up: bool,
}

impl Response {
    /// `value` with `content-type: application/json`.
    pub fn json(status: u16, value: serde_json::Value) -> Response {
        Response::bytes(status, value.to_string()).header("content-type", "application/json")
    }

    /// Any body, without a content type.
    pub fn bytes(status: u16, body: impl Into<Bytes>) -> Response {
        Response {
            status: StatusCode::from_u16(status).expect("a test scripts a valid status"),
            headers: HeaderMap::new(),
            body: body.into(),
            delay: Duration::ZERO,
            hang_up: false,
        }
    }

    /// No answer: the connection is closed after the request was read.
    pub fn hang_up() -> Response {
        Response { hang_up: true, ..Response::bytes(500, Bytes::new()) }
    }

    /// Sets one header, in place of an earlier one of this name.
    pub fn header(mut self, name: &str, value: &str) -> Response {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a test scripts a valid header name");
        let value = HeaderValue::from_str(value).expect("a test scripts a valid header value");
        self.headers.insert(name, value);
        self
    }

    /// Waits for so long before it answers.
    pub fn delay(mut self, delay: Duration) -> Response {
        self.delay = delay;
        self
    }
}

/// A running server; dropping it closes the port and every connection.
#[derive(Debug)]
pub struct ScriptedServer {
    server: Server,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl ScriptedServer {
    /// Listens on a free port of 127.0.0.1 and answers each request by `handler`.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(
        handler: impl Fn(Request) -> Response + Send + Sync + 'static,
    ) -> std::io::Result<ScriptedServer> {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (received, handler) = (Arc::clone(&requests), Arc::new(handler));
        let server = Server::start(move |request: Request| {
            lock(&received).push(request.clone());
            let handler = Arc::clone(&handler);
            async move {
                let response = handler(request);
                tokio::time::sleep(response.delay).await;
                response
            }
        })
        .await?;
        Ok(ScriptedServer { server, requests })
    }

    /// `http://127.0.0.1:<port>` followed by `path`, which starts with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address)
    }

    /// All requests so far, in the order in which they came.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.requests).clone()
    }
}

/// The accept loop that this server and the Runtime API share; stops on drop.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    accepting: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start<H, F>(handle: H) -> std::io::Result<Server>
    where
        H: Fn(Request) -> F + Send + Sync + 'static,
        F: Future<Output = Response> + Send + 'static,
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        Ok(Server { address, accepting: tokio::spawn(accept(listener, Arc::new(handle))) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The connections live in this task's `JoinSet`: aborting it closes them too.
async fn accept<H, F>(listener: TcpListener, handle: Arc<H>)
where
    H: Fn(Request) -> F + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // Too many open files, say: later is better than never.
                Err(_) => { tokio::time::sleep(Duration::from_millis(10)).await; continue }
            },
            Some(_) = connections.join_next() => continue,
        };
        let handle = Arc::clone(&handle);
        let service = service_fn(move |request| answer(Arc::clone(&handle), request));
        // A connection that breaks off is the client's business.
        connections.spawn(async move {
            let _ = http1::Builder::new()
                .header_read_timeout(None)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// An error makes hyper close the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("hung up")]
struct HungUp;

async fn answer<H, F>(
    handle: Arc<H>,
    request: http::Request<Incoming>,
) -> Result<http::Response<Full<Bytes>>, HungUp>
where
    H: Fn(Request) -> F,
    F: Future<Output = Response>,
{
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| HungUp)?.to_bytes();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let response = handle(Request { method: parts.method, path, headers: parts.headers, body }).await;
    if response.hang_up {
        return Err(HungUp);
    }
    let mut answer = http::Response::new(Full::new(response.body));
    *answer.status_mut() = response.status;
    *answer.headers_mut() = response.headers;
    Ok(answer)
}

/// A panic of one test thread is that test's failure, not the next one's.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
