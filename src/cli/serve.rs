//! `lockhouse serve`: puts the parts together, runs them, and takes them apart again.

use std::any::Any;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::api::EVENT_ENCODER;
use crate::api::dispatch::App;
use crate::api::exchange::{ASSERTED_NAME, ASSERTED_USER, WANTED};
use crate::api::operation::Route;
use crate::api::outbox::Outbox;
use crate::api::rate::RateLimit;
use crate::api::request_log::RequestLog;
use crate::api::routes::ROUTES;
use crate::api::workers::{self, Workers};
use crate::app::Service;
use crate::auth::{Auth, Means};
use crate::config::{self, AuthMode, Config, Loaded};
use crate::domain::Fence;
use crate::domain::waitlist::WaitlistLimits;
use crate::error::Error;
use crate::events::broadcaster;
use crate::metrics::Metrics;
use crate::ops::logging;
use crate::ops::sweeper;
use crate::server::internal_socket::InternalSocket;
use crate::server::listen::{Address, Bound};
use crate::server::tiny::RequestReceiver;
use crate::server::{Backend, Server};
use crate::store::{Options, Store, sqlite};
use crate::time::Clock;
use crate::web::Pages;

/// Every thread that reads from the store has a connection.
const READING_THREADS: u32 =
    workers::READING_THREADS + broadcaster::READING_THREADS + sweeper::READING_THREADS;
/// Credentials a second that are good for nothing and are looked up for one address.
const BAD_CREDENTIALS: u32 = 20;
/// How long a stop waits at least for requests that are being carried out, after the clients are disconnected.
const LEAST_PATIENCE: Duration = Duration::from_millis(100);
/// Files that must be able to be open at a time: those of the database and the threads, and some connections.
const FILES: u64 = 64;
/// Signals that come within this are one.
const TOGETHER: Duration = Duration::from_millis(500);

/// Runs a server until a signal ends it.
pub(super) fn run(loaded: &Loaded, fence_at_least: Option<Fence>) -> Result<(), Error> {
    let config = &loaded.config;
    let log = logging::start(config.log.level, config.log.format)
        .map_err(|error| Error::Internal(with_remedy(&format!("cannot start the log: {error}"))))?;
    let last_panic = Arc::new(Mutex::new(String::new()));
    std::panic::set_hook(Box::new({
        let last_panic = Arc::clone(&last_panic);
        move |panic| {
            log::error!("a thread panicked: {}", panic.to_string().replace('\n', " "));
            let mut last_panic = last_panic.lock().unwrap_or_else(PoisonError::into_inner);
            // The panics that follow from a lack of threads do not hide it.
            if !last_panic.contains(NO_THREAD) {
                *last_panic = words(panic.payload());
            }
        }
    }));
    // What panics here is mostly a library that got no thread: that is to be said, and the log to be written.
    let outcome = catch_unwind(AssertUnwindSafe(|| run_logged(loaded, fence_at_least)));
    log.finish();
    let panicked = || last_panic.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let failure = match outcome {
        Ok(Ok(End::InOrder)) => return Ok(()),
        Ok(Ok(End::BrokeDown)) => format!("the event loop broke down; the log says why. {}", panicked()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("the server broke down: {}", panicked()),
    };
    Err(Error::Internal(with_remedy(failure.trim_end())))
}

/// How a server ended.
enum End {
    /// A signal stopped it.
    InOrder,
    /// It stopped because it could serve nobody any more.
    BrokeDown,
}

/// What the system says when it gives no thread, whichever library asked for it.
const NO_THREAD: &str = "Resource temporarily unavailable";

/// Adds what to do when the system gives no thread.
fn with_remedy(failure: &str) -> String {
    if !failure.contains(NO_THREAD) {
        return failure.to_owned();
    }
    format!(
        "{failure}: the system gives no more threads; raise `ulimit -u`, `ulimit -v`, or TasksMax and MemoryMax in a systemd unit"
    )
}

/// What a panic says.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}

fn run_logged(loaded: &Loaded, fence_at_least: Option<Fence>) -> Result<End, Error> {
    let config = &loaded.config;
    for warning in &loaded.warnings {
        log::warn!("{warning}");
    }
    // Before anything is open: a signal that comes early is not lost.
    let signals = watch_signals()?;
    has_enough_files()?;
    if let Some(fence) = fence_at_least {
        sqlite::fence_at_least(&config.database.path, fence)?;
    }
    let running = start_on(config, Bound::handed_over()?, Clock::system(), ROUTES)?;
    let is_gone = Arc::new(AtomicBool::new(false));
    running.service().when_gone({
        let is_gone = Arc::clone(&is_gone);
        move || {
            is_gone.store(true, Ordering::SeqCst);
            let _ = signal_hook::low_level::raise(SIGTERM);
        }
    });
    // Standard output may be closed; that is no reason not to serve.
    for address in running.addresses() {
        let _ = writeln!(io::stdout(), "lockhouse is listening on {address}");
        log::info!(
            "lockhouse {} is listening on {address}, with {} and auth.mode = \"{}\"{}",
            env!("CARGO_PKG_VERSION"),
            config.database.path.display(),
            config.auth.mode.as_str(),
            if config.auth.mode == AuthMode::None {
                ": whoever can reach this address is believed"
            } else {
                ""
            },
        );
    }
    let _ = io::stdout().flush();
    if config.auth.mode != AuthMode::None
        && running.address().is_some_and(|address| !address.ip().is_loopback())
    {
        log::warn!(
            "there is no TLS here: who can read the network can read the tokens, unless a proxy in front adds it"
        );
    }
    let signal = match signals.recv() {
        Ok(SIGINT) => "SIGINT",
        Ok(SIGHUP) => "SIGHUP",
        Ok(_) | Err(_) => "SIGTERM",
    };
    // A second signal would end it at once.
    running.service().when_gone({
        let is_gone = Arc::clone(&is_gone);
        move || is_gone.store(true, Ordering::SeqCst)
    });
    log::info!("{signal}: stopping");
    let broke_down = running.broke_down();
    running.stop();
    log::info!("stopped");
    if is_gone.load(Ordering::SeqCst) {
        return Err(Error::Internal(format!(
            "the database {} was removed, moved, overwritten or replaced while the server ran; the log says more",
            config.database.path.display()
        )));
    }
    Ok(if broke_down { End::BrokeDown } else { End::InOrder })
}

/// Passes the first signal on. A second one ends the process at once; not one that comes along with the first, to the
/// whole group of processes. The thread for it is made here, at the start: at the end there may be none to be had.
fn watch_signals() -> Result<Receiver<i32>, Error> {
    let failed = |error: io::Error| Error::Internal(format!("cannot wait for signals: {error}"));
    let mut awaited = vec![SIGTERM, SIGINT];
    if !ignores_hangup() {
        awaited.push(SIGHUP);
    }
    let mut signals = Signals::new(awaited).map_err(failed)?;
    let (sender, receiver) = sync_channel(1);
    let clock = Clock::system();
    let watch = move || {
        let mut first_at = None;
        for signal in signals.forever() {
            let Some(first_at) = first_at else {
                first_at = Some(clock.monotonic());
                // Nobody may be waiting any more: then it ends by itself.
                let _ = sender.try_send(signal);
                continue;
            };
            if clock.monotonic().saturating_sub(first_at) > TOGETHER {
                // Where the system does not end us, it was not asked to: nothing more can be done.
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            }
        }
    };
    Builder::new().name("signals".to_owned()).spawn(watch).map(|_| receiver).map_err(failed)
}

/// A write beyond `ulimit -f` fails as on a full disk. Unless its signal is handled, it ends the process.
pub(super) fn outlive_file_size_limit() -> Result<(), Error> {
    signal_hook::flag::register(SIGXFSZ, Arc::default())
        .map(drop)
        .map_err(|error| Error::Internal(format!("cannot handle SIGXFSZ: {error}")))
}

/// Whether SIGHUP is ignored, as `nohup` arranges it: then it is to stay so.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & 1 == 1)
}

/// With too few files the database cannot be opened, which SQLite does not say in these words.
fn has_enough_files() -> Result<(), Error> {
    match rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        Some(limit) if limit < FILES => Err(Error::Internal(format!(
            "only {limit} files can be open at a time, and it takes at least {FILES}: raise the limit with `ulimit -n 1024`, or LimitNOFILE=1024 in a systemd unit; each connection takes one more"
        ))),
        Some(_) | None => Ok(()),
    }
}

/// A server that runs, in this process.
pub struct Running {
    server: Server,
    receiver: RequestReceiver,
    workers: Workers,
    service: Arc<Service>,
    sweeper: Option<JoinHandle<()>>,
    events: JoinHandle<()>,
    _internal_socket: InternalSocket,
    grace: Duration,
    broke_down: Arc<AtomicBool>,
}

/// Starts a server where the settings say.
///
/// # Errors
/// [`Error::Internal`] with a sentence for the operator: the address is taken, the database cannot be used.
pub fn start(config: &Config, clock: Clock) -> Result<Running, Error> {
    start_on(config, Vec::new(), clock, ROUTES)
}

/// Starts a server on sockets that listen already; where the settings say, if there are none.
///
/// # Errors
/// As [`start`].
pub fn start_on(
    config: &Config,
    mut bound: Vec<Bound>,
    clock: Clock,
    routes: &'static [Route],
) -> Result<Running, Error> {
    let metrics = Arc::new(Metrics::default());
    let means = Means::new(&config.auth)?;
    // The address first: whoever starts a second server by mistake is told of it, and no file is touched.
    if bound.is_empty() {
        bound.push(Bound::at(&config.server.listen, config.server.socket_mode)?);
    }
    if config.auth.mode == AuthMode::None {
        believes_nobody_afar(&bound)?;
    }
    let store = Store::open(&options(config), clock.clone(), &metrics)?;
    let cannot_start = |error: io::Error| Error::Internal(format!("cannot start the server: {error}"));
    let addresses: Vec<_> = bound.iter().map(|bound| bound.address().to_string()).collect();
    store.announce(&addresses.join(" "))?;
    let (service, woken) = Service::new(store, config, Arc::clone(&metrics));
    let sweeper = config
        .sweeper
        .interval
        .map(|interval| sweeper::start(&service, interval, woken))
        .transpose()
        .map_err(cannot_start)?;
    let events = service.start_events(EVENT_ENCODER).map_err(cannot_start)?;
    let app = App {
        routes,
        pages: Pages { console: config.server.console, demo: config.has_demo() },
        service: Arc::clone(&service),
        auth: Auth::new(means, &service),
        rate: config.limits.requests_per_second.map(RateLimit::new),
        strangers: RateLimit::new(BAD_CREDENTIALS),
        cors_origins: config.server.cors_origins.clone(),
    };
    let (internal_socket, listener) = InternalSocket::create().map_err(cannot_start)?;
    let outbox = Arc::new(Outbox::new(service.broadcaster().meter()));
    let run = clock.wall_micros();
    let log = RequestLog::new(Arc::clone(&metrics), clock);
    let (intake, workers) = workers::start(app, &outbox, log).map_err(cannot_start)?;
    let take = move |request, path| intake.take(request, path);
    let receiver = RequestReceiver::start(listener, Arc::clone(&outbox), run, take).map_err(cannot_start)?;
    let broke_down = Arc::new(AtomicBool::new(false));
    let backend = Backend {
        socket: internal_socket.path(),
        wanted: WANTED,
        asserted: asserted(&config.auth),
        asserted_by: config.auth.proxy_addresses.clone(),
        outbox,
        pages_may_call: !config.server.cors_origins.is_empty(),
        broken: {
            let broke_down = Arc::clone(&broke_down);
            Box::new(move || {
                broke_down.store(true, Ordering::SeqCst);
                // What serves nobody must not look alive.
                let _ = signal_hook::low_level::raise(SIGTERM);
            })
        },
    };
    // Its deadlines concern the network and not leases: they run on the machine's clock in tests too.
    let server =
        Server::start(bound, backend, &config.server, metrics, Clock::system()).map_err(cannot_start)?;
    let grace = config.server.shutdown_grace;
    Ok(Running {
        server,
        receiver,
        workers,
        service,
        sweeper,
        events,
        _internal_socket: internal_socket,
        grace,
        broke_down,
    })
}

/// How the settings say that the store is opened.
pub(super) fn options(config: &Config) -> Options {
    Options {
        path: config.database.path.clone(),
        busy_timeout: config.database.busy_timeout,
        max_size: config.database.max_size,
        restart_grace: config.locks.restart_grace,
        readers: READING_THREADS,
        waiters: WaitlistLimits {
            per_workspace: config.limits.waiters_per_workspace,
            per_user: config.limits.waiters_per_user,
            in_all: config.limits.waiters,
        },
    }
}

/// The headers in which a proxy says who the user is, where it is to.
fn asserted(auth: &config::AuthConfig) -> Vec<(String, &'static str)> {
    match auth.mode {
        AuthMode::Proxy => vec![
            (auth.proxy_user_header.clone(), ASSERTED_USER),
            (auth.proxy_name_header.clone(), ASSERTED_NAME),
        ],
        AuthMode::None | AuthMode::Token | AuthMode::Jwt => Vec::new(),
    }
}

/// With `auth.mode = "none"`, whoever can reach the server is believed: no socket may be reached from other machines,
/// wherever it comes from.
fn believes_nobody_afar(bound: &[Bound]) -> Result<(), Error> {
    for bound in bound {
        if let Address::Tcp(address) = bound.address()
            && !address.ip().is_loopback()
        {
            return Err(Error::Internal(format!(
                "cannot serve on {address}: auth.mode = \"none\" believes everybody, so it goes with loopback or a Unix socket only"
            )));
        }
    }
    Ok(())
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        self.server.addresses()
    }

    /// The address it listens on, if that is one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.addresses().iter().find_map(|address| match address {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        })
    }

    /// Whether it serves nobody any more, because of a defect.
    #[must_use]
    pub fn broke_down(&self) -> bool {
        self.broke_down.load(Ordering::SeqCst)
    }

    /// The use cases, for whoever runs in the same process.
    #[must_use]
    pub const fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Stops: no more requests, those that were taken are answered, the log is folded in, the file is closed.
    pub fn stop(self) {
        let clock = Clock::system();
        self.server.stop(self.grace);
        self.receiver.stop();
        self.workers.stop(self.grace.saturating_sub(clock.monotonic()).max(LEAST_PATIENCE));
        self.service.broadcaster().stop();
        if self.events.join().is_err() {
            log::error!("the thread that tells the events had panicked");
        }
        self.service.stop_sweeping();
        if self.sweeper.is_some_and(|sweeper| sweeper.join().is_err()) {
            log::error!("the sweeper had panicked");
        }
        self.service.close();
    }
}
