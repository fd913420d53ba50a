//! The Runtime API that a process asks for events and gives its answers to.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Method;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::{MAX_RESPONSE_BYTES, REGION, Settings, fresh_id, since_epoch};
use crate::scripted::{Request, Response, lock};

const API: &str = "/2018-06-01/runtime";

/// One event on its way to the process.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) body: Bytes,
    pub(super) started: oneshot::Sender<()>,
    pub(super) reply: oneshot::Sender<Answer>,
}

#[derive(Debug)]
pub(super) enum Answer {
    Response(Bytes),
    Error(Bytes),
    InitError(Bytes),
}

#[derive(Debug)]
pub(super) struct RuntimeApi {
    settings: Arc<Settings>,
    queue: tokio::sync::Mutex<mpsc::UnboundedReceiver<Event>>,
    current: Mutex<Option<(String, oneshot::Sender<Answer>)>>,
}

impl RuntimeApi {
    pub(super) fn new(settings: &Arc<Settings>, queue: mpsc::UnboundedReceiver<Event>) -> RuntimeApi {
        let queue = tokio::sync::Mutex::new(queue);
        RuntimeApi { settings: Arc::clone(settings), queue, current: Mutex::default() }
    }

    pub(super) async fn answer(self: Arc<Self>, request: Request) -> Response {
        let path = request.path.strip_prefix(API).unwrap_or(&request.path);
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (request.method, parts.as_slice()) {
            (Method::GET, ["invocation", "next"]) => self.next().await,
            (Method::POST, ["invocation", id, "response"]) => self.settle(id, Answer::Response(request.body)),
            (Method::POST, ["invocation", id, "error"]) => self.settle(id, Answer::Error(request.body)),
            (Method::POST, ["init", "error"] | ["runtime", "init", "error"]) => {
                self.refuse(request.body).await
            }
            _ => Response::json(404, json!({ "errorType": "NotFound", "errorMessage": "no such path" })),
        }
    }

    /// Waits for the next event, as long as it takes.
    async fn next(&self) -> Response {
        let Some(event) = self.queue.lock().await.recv().await else {
            return Response::hang_up();
        };
        let deadline = since_epoch() + self.settings.timeout;
        let function = &self.settings.name;
        let response = Response::bytes(200, event.body)
            .header("content-type", "application/json")
            .header("lambda-runtime-aws-request-id", &event.id)
            .header("lambda-runtime-deadline-ms", &deadline.as_millis().to_string())
            .header(
                "lambda-runtime-invoked-function-arn",
                &format!("arn:aws:lambda:{REGION}:000000000000:function:{function}"),
            )
            .header("lambda-runtime-trace-id", &trace_id());
        *lock(&self.current) = Some((event.id, event.reply));
        let _ = event.started.send(());
        response
    }

    /// A response that is too large fails the invocation; the process hears of it, and goes on.
    fn settle(&self, id: &str, mut answer: Answer) -> Response {
        let said = format!(
            "Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes)."
        );
        let too_large = matches!(&answer, Answer::Response(body) if body.len() > MAX_RESPONSE_BYTES);
        if too_large {
            let error = json!({ "errorType": "Function.ResponseSizeTooLarge", "errorMessage": said });
            answer = Answer::Error(error.to_string().into());
        }
        match lock(&self.current).take_if(|(current, _)| current == id) {
            Some((_, reply)) if too_large => {
                let _ = reply.send(answer);
                Response::json(413, json!({ "errorType": "RequestEntityTooLarge", "errorMessage": said }))
            }
            Some((_, reply)) => {
                let _ = reply.send(answer);
                Response::json(202, json!({ "status": "OK" }))
            }
            None => Response::json(
                400,
                json!({ "errorType": "InvalidRequestID", "errorMessage": "no such invocation" }),
            ),
        }
    }

    /// The process says that it cannot start: its first event fails with that.
    async fn refuse(&self, body: Bytes) -> Response {
        if let Some(event) = self.queue.lock().await.recv().await {
            let _ = event.reply.send(Answer::InitError(body));
        }
        Response::json(202, json!({ "status": "OK" }))
    }
}

fn trace_id() -> String {
    let id = fresh_id().simple().to_string();
    format!("Root=1-{:08x}-{};Parent={};Sampled=0", since_epoch().as_secs(), &id[..24], &id[16..])
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, time::Duration};

    use super::*;

    #[tokio::test]
    async fn a_response_that_is_too_large_fails_the_invocation_and_the_process_hears_of_it() {
        let settings = Arc::new(Settings {
            name: "test".into(),
            binary: PathBuf::new(),
            env: Vec::new(),
            timeout: Duration::from_secs(1),
            kill_at_timeout: true,
            memory: None,
            log: PathBuf::new(),
        });
        for (bytes, status) in [(MAX_RESPONSE_BYTES, 202), (MAX_RESPONSE_BYTES + 1, 413)] {
            let (events, queue) = mpsc::unbounded_channel();
            let api = Arc::new(RuntimeApi::new(&settings, queue));
            let (started, _start) = oneshot::channel();
            let (reply, answer) = oneshot::channel();
            events.send(Event { id: "1".into(), body: Bytes::new(), started, reply }).expect("a queue");
            let ask = |method, path: &str, body: Vec<u8>| Request {
                method,
                path: format!("{API}/invocation/{path}"),
                headers: http::HeaderMap::new(),
                body: body.into(),
            };
            Arc::clone(&api).answer(ask(Method::GET, "next", Vec::new())).await;
            let heard = api.answer(ask(Method::POST, "1/response", vec![b' '; bytes])).await;
            assert_eq!(heard.status, status, "{bytes}");
            let failed = matches!(answer.await.expect("an answer"), Answer::Error(body)
                if String::from_utf8_lossy(&body).contains("Function.ResponseSizeTooLarge"));
            assert_eq!(failed, status == 413, "{bytes}");
        }
    }
}
