//! Receives requests with `tiny_http`, but does not answer with it. The only module that uses that crate.
//!
//! `tiny_http` listens on the internal Unix socket ([`super::internal_socket`]), so its input is complete, well-formed and
//! bounded. The writer of each request is dropped unused. That sends nothing and keeps the connection open. The answer is
//! a message to the event loop. `tiny_http` reads bodies over 1,024 bytes lazily, and an unread body blocks the requests
//! behind it. So each body is read first, completely.

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Builder;

use super::forward::ID_HEADER;
use crate::api::exchange::{ASSERTED_NAME, ASSERTED_USER, Headers, Request, Trace};
use crate::api::outbox::{Outbox, ReturnPath};

/// Maximum length of a request id from the caller (bytes).
const REQUEST_ID_BYTES: usize = 128;

/// Receives requests in a thread, until it is stopped.
pub struct RequestReceiver {
    http: Arc<tiny_http::Server>,
    stopping: Arc<AtomicBool>,
}

impl RequestReceiver {
    /// Receives requests on `listener`, and calls `take` with each request that is registered in `outbox`. `take` must
    /// not block. `run` is the prefix of the request ids.
    ///
    /// # Errors
    /// When a thread cannot be created.
    pub fn start(
        listener: UnixListener,
        outbox: Arc<Outbox>,
        run: i64,
        take: impl Fn(Request, ReturnPath) + Send + 'static,
    ) -> io::Result<Self> {
        let http = tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?;
        let (http, stopping) = (Arc::new(http), Arc::new(AtomicBool::new(false)));
        let receiver = Self { http: Arc::clone(&http), stopping: Arc::clone(&stopping) };
        Builder::new().name("requests".to_owned()).spawn(move || {
            while let Some(incoming) = next(&http, &stopping) {
                if let Some((request, return_path)) = receive(incoming, &outbox, run) {
                    take(request, return_path);
                }
            }
        })?;
        Ok(receiver)
    }

    /// Stops after the requests that have already arrived.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.http.unblock();
    }
}

/// The next request; `None` after [`RequestReceiver::stop`].
fn next(http: &tiny_http::Server, stopping: &AtomicBool) -> Option<tiny_http::Request> {
    loop {
        if stopping.load(Ordering::SeqCst) {
            return http.try_recv().ok().flatten();
        }
        match http.recv() {
            Ok(request) => return Some(request),
            Err(_) if stopping.load(Ordering::SeqCst) => {}
            Err(error) => log::error!("cannot accept internal connections: {error}"),
        }
    }
}

/// Reads a complete request, drops its writer, and claims its id.
fn receive(
    mut incoming: tiny_http::Request,
    outbox: &Arc<Outbox>,
    run: i64,
) -> Option<(Request, ReturnPath)> {
    let length = incoming.body_length().unwrap_or_default();
    let mut body = Vec::with_capacity(length);
    let is_whole = incoming.as_reader().read_to_end(&mut body).is_ok() && body.len() == length;
    let (mut headers, mut request_id) = (Headers::default(), None);
    let (mut id, mut traces) = (None, Vec::new());
    for header in incoming.headers() {
        let value = header.value.as_str();
        match header.field.as_str().as_str() {
            ID_HEADER => id = id.or(u64::from_str_radix(value, 16).ok()),
            "X-Request-Id" => request_id = valid_request_id(value),
            "Traceparent" => traces.push(value),
            name => keep(&mut headers, name, value),
        }
    }
    let url = incoming.url();
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let mut request = Request {
        id: String::new(),
        method: incoming.method().as_str().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body,
        client: None,
        // Several values are ambiguous, so none is used.
        trace: if let [value] = traces[..] { Trace::parse(value) } else { None },
    };
    drop(incoming.into_writer());
    // An incomplete request was withdrawn when its connection failed.
    let Some(return_path) = id.filter(|_| is_whole).and_then(|id| outbox.claim(id)) else {
        log::warn!(
            "dropped a request on the internal socket: it is incomplete, or the event loop did not send it"
        );
        return None;
    };
    request.id = request_id.unwrap_or_else(|| format!("{run:x}-{:x}", return_path.id()));
    request.client = return_path.client().address();
    Some((request, return_path))
}

fn keep(headers: &mut Headers, name: &str, value: &str) {
    let (name, place, is_once) = match name {
        "Accept" => ("Accept", &mut headers.accept, false),
        "Authorization" => ("Authorization", &mut headers.authorization, true),
        "Content-Type" => ("Content-Type", &mut headers.content_type, false),
        "Host" => ("Host", &mut headers.host, false),
        "Last-Event-ID" => ("Last-Event-ID", &mut headers.last_event_id, true),
        "Origin" => ("Origin", &mut headers.origin, true),
        "X-Lock-Fence" => ("X-Lock-Fence", &mut headers.lock_fence, true),
        "X-Lock-Workspace" => ("X-Lock-Workspace", &mut headers.lock_workspace, true),
        ASSERTED_USER => ("the header with the user", &mut headers.asserted_user, true),
        ASSERTED_NAME => ("the header with the name", &mut headers.asserted_name, true),
        "X-User-Id" => ("X-User-Id", &mut headers.user_id, true),
        "X-User-Name" => ("X-User-Name", &mut headers.user_name, true),
        _ => return,
    };
    if place.replace(value.to_owned()).is_some() && is_once {
        headers.twice = Some(name);
    }
}

/// The request id, if it is safe to repeat in a header and in the log.
fn valid_request_id(id: &str) -> Option<String> {
    let is_plausible = (1..=REQUEST_ID_BYTES).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte));
    is_plausible.then(|| id.to_owned())
}
