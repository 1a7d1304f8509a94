//! The threads that run requests.
//!
//! The thread that receives requests does no slow work: it neither reads from the store nor checks
//! signatures. It hands writes to the writer, reads to several reading threads, and credentials that are not
//! in memory to one more thread. All these queues are bounded.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select_biased};

use super::authorize::Identity;
use super::dispatch::App;
use super::exchange::Request;
use super::outbox::{Outbox, ReturnPath};
use super::request_log::RequestLog;
use super::responder::Responder;
use super::router::Matched;
use crate::auth::{AuthError, CacheMiss, Lookup};
use crate::error::Error;
use crate::store::origin::Origin;

/// The number of threads that run reads.
pub const READERS: u32 = 4;
/// The number of threads here that read from the store: the readers, and the one that looks up credentials.
pub const READING_THREADS: u32 = READERS + 1;
/// The limit of requests in each queue. Further requests are answered with 503.
const QUEUE: usize = 1024;

/// A received request on its way through the threads.
struct Received {
    request: Request,
    matched: Matched,
    /// The caller, as far as identified.
    identity: Identity,
    responder: Responder,
}

/// Both ends of a queue.
type WorkQueue = (Sender<Received>, Receiver<Received>);

/// The entry for received requests. Used by the receiving thread; the workers end after it is dropped.
pub struct Intake {
    app: Arc<App>,
    log: Arc<RequestLog>,
    lookups: Sender<Received>,
    reads: Sender<Received>,
    _running: mpsc::Sender<()>,
}

/// The running threads.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    /// Disconnected after the intake and the threads have ended.
    ended: mpsc::Receiver<()>,
}

/// Starts the threads that run requests with `app`.
///
/// # Errors
/// When the system gives no thread.
pub fn start(app: App, outbox: &Arc<Outbox>, log: RequestLog) -> io::Result<(Intake, Workers)> {
    let (app, log) = (Arc::new(app), Arc::new(log));
    let (reads, to_read) = bounded(QUEUE);
    let (lookups, to_look_up) = bounded(QUEUE);
    let later: WorkQueue = bounded(QUEUE);
    let (running, ended) = mpsc::channel::<()>();
    let mut threads = Vec::new();
    let looks_up = (Arc::clone(&app), reads.clone(), running.clone());
    threads.push(Builder::new().name("credentials".to_owned()).spawn(move || {
        let (app, reads, _running) = looks_up;
        look_up(&app, &to_look_up, &reads);
    })?);
    for number in 0..READERS {
        let reader = (Arc::clone(&app), Arc::clone(outbox), to_read.clone(), later.clone(), running.clone());
        threads.push(Builder::new().name(format!("reads {number}")).spawn(move || {
            let (app, outbox, to_read, later, _running) = reader;
            read(&app, &outbox, &to_read, &later);
        })?);
    }
    let intake = Intake { app, log, lookups, reads, _running: running };
    Ok((intake, Workers { threads, ended }))
}

impl Workers {
    /// Waits until these threads have ended, for at most `patience`.
    ///
    /// By then each received request has been run, or handed to the thread that answers it. The receiving
    /// thread must be stopped first.
    pub fn stop(self, patience: Duration) {
        if self.ended.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            log::error!("a request that takes very long is left behind");
            return;
        }
        for thread in self.threads {
            if thread.join().is_err() {
                log::error!("a thread of the server had panicked");
            }
        }
    }
}

impl Intake {
    /// Accepts a received request.
    pub fn take(&self, request: Request, path: ReturnPath) {
        let responder = Responder::new(path, &request, self.app.cors_headers(&request), &self.log);
        catch_panic(|| self.begin(request, responder));
    }

    /// Finds the operation and the caller of a request, and the thread that runs it.
    fn begin(&self, mut request: Request, mut responder: Responder) {
        let matched = self.app.find(&request);
        if let Matched::Route(route, _) = &matched {
            responder.set_operation(route.name, route.log_level);
        }
        if let Err(problem) = self.app.drop_body(&mut request, &matched) {
            return responder.refuse(&problem);
        }
        let identity = self.app.authorizer.identify(&request, &matched, Lookup::CacheOnly);
        let Some(Err(AuthError::NotCached(before))) = identity else {
            return serve(&self.app, Received { request, matched, identity, responder }, &self.reads);
        };
        if before == CacheMiss::Unknown
            && let Err(problem) = self.app.authorizer.may_look_up(&request)
        {
            return responder.refuse(&problem);
        }
        enqueue(Received { request, matched, identity, responder }, &self.lookups);
    }
}

/// Runs a request whose caller is known, or hands it to the readers if it takes long.
fn serve(app: &App, received: Received, reads: &Sender<Received>) {
    if received.matched.takes_time() { enqueue(received, reads) } else { handle(app, received) }
}

/// Looks up callers who are not in memory. These requests delay each other, and no other requests.
fn look_up(app: &App, unknown: &Receiver<Received>, reads: &Sender<Received>) {
    for Received { request, matched, responder, .. } in unknown {
        if !responder.client().is_gone() {
            catch_panic(|| {
                let identity = app.authorizer.look_up(&request, &matched);
                serve(app, Received { request, matched, identity, responder }, reads);
            });
        }
    }
}

/// Runs reads. Requests whose client may be gone come last.
fn read(app: &App, outbox: &Outbox, reads: &Receiver<Received>, later: &WorkQueue) {
    while let Some(received) = next_read(reads, &later.1) {
        outbox.wait_for_room();
        if received.responder.client().is_half_closed()
            && !received.responder.client().is_gone()
            && !reads.is_empty()
        {
            enqueue(received, &later.0);
        } else if !received.responder.client().is_gone() {
            handle(app, received);
        }
    }
}

fn handle(app: &App, Received { request, matched, identity, responder }: Received) {
    let trace_id = request.trace.as_ref().map(|trace| trace.trace_id.as_str());
    let origin = Origin::request(&request.id, trace_id);
    catch_panic(|| origin.run(|| app.handle(&request, matched, identity, responder)));
}

/// Runs `work`. A panic fails only this request.
///
/// The panic hook logs the cause, and the responder answers 500.
fn catch_panic(work: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(work));
}

/// Queues a request for another thread, or refuses it with 503 if the queue is full.
fn enqueue(received: Received, queue: &Sender<Received>) {
    if let Err(unsent) = queue.try_send(received) {
        let Received { responder, .. } = unsent.into_inner();
        responder.refuse(&Error::Busy.into());
    }
}

/// The next request to run. `None` when there are no more.
fn next_read(reads: &Receiver<Received>, later: &Receiver<Received>) -> Option<Received> {
    select_biased! {
        recv(reads) -> received => received.ok().or_else(|| later.try_recv().ok()),
        recv(later) -> received => received.ok(),
    }
}
