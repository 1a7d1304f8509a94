//! `lockhouse serve`: starts the parts of the server, runs them and stops them.

use std::any::Any;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::process::{has_enough_files, watch_signals};
use crate::api::authorize::Authorizer;
use crate::api::dispatch::App;
use crate::api::exchange::{ASSERTED_NAME, ASSERTED_USER, WANTED};
use crate::api::operation::Route;
use crate::api::outbox::Outbox;
use crate::api::rate::RateLimit;
use crate::api::request_log::RequestLog;
use crate::api::routes::ROUTES;
use crate::api::workers::{self, Workers};
use crate::api::{EVENT_ENCODER, webhook_body};
use crate::app::Service;
use crate::auth::{Auth, AuthKeys};
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
use crate::store::{Options, Store};
use crate::time::Clock;
use crate::web::Pages;
use crate::webhooks;

/// The number of threads that read from the store, without webhooks. Each of them has a database connection.
const READING_THREADS: u32 =
    workers::READING_THREADS + broadcaster::READING_THREADS + sweeper::READING_THREADS;
/// The rate limit of look-ups of bad credentials for each client address (per second).
const BAD_CREDENTIALS_PER_SECOND: u32 = 20;
/// The rate limit of the same bad credentials from one address, for clients that repeat them by themselves.
const SAME_CREDENTIALS_PER_MINUTE: u32 = 10;
/// The minimum time that a stop waits for running requests, after it has disconnected the clients.
const MIN_STOP_WAIT: Duration = Duration::from_millis(100);
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Runs a server until a signal stops it.
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
            // Panics that follow from a lack of threads must not replace the message about it.
            if !last_panic.contains(NO_THREAD) {
                *last_panic = panic_message(panic.payload());
            }
        }
    }));
    // A panic here mostly means that a library got no thread. It is caught to report it and write the log.
    let outcome = catch_unwind(AssertUnwindSafe(|| run_logged(loaded, fence_at_least)));
    log.finish();
    let panicked = || last_panic.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let failure = match outcome {
        Ok(Ok(End::Clean)) => return Ok(()),
        Ok(Ok(End::BrokeDown)) => format!("the event loop broke down; the log says why. {}", panicked()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("the server broke down: {}", panicked()),
    };
    Err(Error::Internal(with_remedy(failure.trim_end())))
}

/// How the server stopped.
enum End {
    /// A signal stopped it.
    Clean,
    /// It stopped because of a defect that kept it from serving requests.
    BrokeDown,
}

/// The error text of the operating system when it refuses a thread. Every library passes it on.
const NO_THREAD: &str = "Resource temporarily unavailable";

/// Adds the remedy to a failure message if the operating system has refused a thread.
fn with_remedy(failure: &str) -> String {
    if !failure.contains(NO_THREAD) {
        return failure.to_owned();
    }
    format!(
        "{failure}: the system gives no more threads; raise `ulimit -u`, `ulimit -v`, or TasksMax and MemoryMax in a systemd unit"
    )
}

/// The message of a panic.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}

fn run_logged(loaded: &Loaded, fence_at_least: Option<Fence>) -> Result<End, Error> {
    let config = &loaded.config;
    for warning in &loaded.warnings {
        log::warn!("{warning}");
    }
    // Signals are watched before anything is opened, so that an early signal is not lost.
    let signals = watch_signals()?;
    has_enough_files()?;
    if let Some(fence) = fence_at_least {
        config.database.location().fence_at_least(fence)?;
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
    // The server also runs with a closed standard output.
    for address in running.addresses() {
        let _ = writeln!(io::stdout(), "lockhouse is listening on {address}");
        log::info!(
            "lockhouse {VERSION} is listening on {address}, with {} and auth.mode = \"{}\"{}",
            config.database.location(),
            config.auth.mode.as_str(),
            if config.auth.mode == AuthMode::None { ": every client is trusted" } else { "" },
        );
    }
    let _ = io::stdout().flush();
    let changed = config::changed(config);
    log::info!(
        "settings that differ from the defaults: {}",
        if changed.is_empty() { "none" } else { &changed }
    );
    if config.auth.mode != AuthMode::None
        && running.address().is_some_and(|address| !address.ip().is_loopback())
    {
        log::warn!(
            "connections have no TLS: without a proxy that adds it, tokens can be read on the network"
        );
    }
    let signal = match signals.recv() {
        Ok(SIGINT) => "SIGINT",
        Ok(SIGHUP) => "SIGHUP",
        Ok(_) | Err(_) => "SIGTERM",
    };
    // From here on, the callback must not raise a signal: a second signal would end the process at once.
    running.service().when_gone({
        let is_gone = Arc::clone(&is_gone);
        move || is_gone.store(true, Ordering::SeqCst)
    });
    log::info!("{signal}: stopping");
    let broke_down = running.broke_down();
    running.stop();
    log::info!("lockhouse {VERSION} has stopped");
    if is_gone.load(Ordering::SeqCst) {
        return Err(Error::Internal(format!(
            "the database {} was removed, moved, overwritten or replaced while the server ran; the log says more",
            config.database.path.display()
        )));
    }
    Ok(if broke_down { End::BrokeDown } else { End::Clean })
}

/// A server that runs in this process.
pub struct Running {
    server: Server,
    receiver: RequestReceiver,
    workers: Workers,
    service: Arc<Service>,
    sweeper: Option<JoinHandle<()>>,
    events: JoinHandle<()>,
    webhooks: Option<JoinHandle<()>>,
    _internal_socket: InternalSocket,
    grace: Duration,
    broke_down: Arc<AtomicBool>,
}

/// Starts a server on the address in the settings.
///
/// # Errors
/// [`Error::Internal`] with a sentence for the operator, such as an address in use or an unusable database.
pub fn start(config: &Config, clock: Clock) -> Result<Running, Error> {
    start_on(config, Vec::new(), clock, ROUTES)
}

/// Starts a server on the given listening sockets or, if there are none, on the address in the settings.
///
/// # Errors
/// The errors of [`start`].
pub fn start_on(
    config: &Config,
    mut bound: Vec<Bound>,
    clock: Clock,
    routes: &'static [Route],
) -> Result<Running, Error> {
    let metrics = Arc::new(Metrics::default());
    let keys = AuthKeys::new(&config.auth)?;
    // The address is bound first: a second server that is started by mistake fails here and touches no file.
    if bound.is_empty() {
        bound.push(Bound::at(&config.server.listen, config.server.socket_mode)?);
    }
    if config.auth.mode == AuthMode::None {
        check_loopback_only(&bound)?;
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
    let webhooks = service.start_webhooks(webhook_body)?;
    let app = App {
        routes,
        pages: Pages { console: config.server.console, demo: config.has_demo(), docs: config.server.docs },
        authorizer: Authorizer {
            service: Arc::clone(&service),
            auth: Auth::new(keys, &service),
            rate: config.limits.requests_per_second.map(RateLimit::new),
            bad_credentials: RateLimit::new(BAD_CREDENTIALS_PER_SECOND),
            same_credentials: RateLimit::per_minute(SAME_CREDENTIALS_PER_MINUTE),
            cors_origins: config.server.cors_origins.clone(),
        },
    };
    let (internal_socket, listener) = InternalSocket::create().map_err(cannot_start)?;
    let outbox = Arc::new(Outbox::new(service.broadcaster().stream_memory()));
    let run = clock.wall_micros();
    let log = RequestLog::new(Arc::clone(&metrics), clock);
    let (intake, workers) = workers::start(app, &outbox, log).map_err(cannot_start)?;
    let take = move |request, path| intake.take(request, path);
    let receiver = RequestReceiver::start(listener, Arc::clone(&outbox), run, take).map_err(cannot_start)?;
    let broke_down = Arc::new(AtomicBool::new(false));
    let backend = Backend {
        socket: internal_socket.path(),
        wanted: WANTED,
        identity_headers: identity_headers(&config.auth),
        identity_proxies: config.auth.proxy_addresses.clone(),
        outbox,
        allows_cors: !config.server.cors_origins.is_empty(),
        on_failure: {
            let broke_down = Arc::clone(&broke_down);
            Box::new(move || {
                broke_down.store(true, Ordering::SeqCst);
                // A server that cannot serve requests must not look alive, so it stops.
                let _ = signal_hook::low_level::raise(SIGTERM);
            })
        },
    };
    // The server's deadlines concern the network, not leases: in tests, too, it uses the machine's clock.
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
        webhooks,
        _internal_socket: internal_socket,
        grace,
        broke_down,
    })
}

/// The options of the store, from the settings.
pub(super) fn options(config: &Config) -> Options {
    Options {
        path: config.database.path.clone(),
        url: config.database.url.clone(),
        busy_timeout: config.database.busy_timeout,
        max_size: config.database.max_size,
        restart_grace: config.locks.restart_grace,
        readers: READING_THREADS + if config.webhooks.is_empty() { 0 } else { webhooks::READING_THREADS },
        waiters: WaitlistLimits {
            per_workspace: config.limits.waiters_per_workspace,
            per_user: config.limits.waiters_per_user,
            total: config.limits.waiters,
        },
    }
}

/// The headers in which a trusted proxy names the user, each with the header that replaces it internally.
///
/// Empty unless `auth.mode` is `"proxy"`.
fn identity_headers(auth: &config::AuthConfig) -> Vec<(String, &'static str)> {
    match auth.mode {
        AuthMode::Proxy => vec![
            (auth.proxy_user_header.clone(), ASSERTED_USER),
            (auth.proxy_name_header.clone(), ASSERTED_NAME),
        ],
        AuthMode::None | AuthMode::Token | AuthMode::Jwt => Vec::new(),
    }
}

/// Checks that with `auth.mode = "none"` no socket is reachable from other machines.
///
/// In this mode the server trusts every client. The check covers all sockets, also those from systemd.
fn check_loopback_only(bound: &[Bound]) -> Result<(), Error> {
    for bound in bound {
        if let Address::Tcp(address) = bound.address()
            && !address.ip().is_loopback()
        {
            return Err(Error::Internal(format!(
                "cannot serve on {address}: auth.mode = \"none\" trusts every client, so it needs a loopback address or a Unix socket"
            )));
        }
    }
    Ok(())
}

impl Running {
    /// The addresses on which the server listens.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        self.server.addresses()
    }

    /// The TCP address on which the server listens, if there is one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.addresses().iter().find_map(|address| match address {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        })
    }

    /// Whether the server has stopped serving requests because of a defect.
    #[must_use]
    pub fn broke_down(&self) -> bool {
        self.broke_down.load(Ordering::SeqCst)
    }

    /// The use cases, for code in the same process.
    #[must_use]
    pub const fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Stops the server.
    ///
    /// It accepts no more requests, answers those that it has accepted, folds the write-ahead log into the
    /// database and closes the file.
    pub fn stop(self) {
        let clock = Clock::system();
        self.service.leave();
        self.server.stop(self.grace);
        self.receiver.stop();
        self.workers.stop(self.grace.saturating_sub(clock.monotonic()).max(MIN_STOP_WAIT));
        self.service.broadcaster().stop();
        if self.events.join().is_err() {
            log::error!("the event thread has panicked");
        }
        self.service.webhooks().stop();
        if self.webhooks.is_some_and(|webhooks| webhooks.join().is_err()) {
            log::error!("the thread of the webhooks has panicked");
        }
        self.service.stop_sweeping();
        if self.sweeper.is_some_and(|sweeper| sweeper.join().is_err()) {
            log::error!("the sweeper has panicked");
        }
        self.service.close();
    }
}
