//! `lockhouse serve`: puts the parts together, runs them, and takes them apart again.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::logging;
use crate::config::{Config, Loaded};
use crate::error::Error;
use crate::http::dispatch::App;
use crate::http::routes::ROUTES;
use crate::http::server::{READERS, Server};
use crate::metrics::Metrics;
use crate::service::Service;
use crate::store::{Options, Store};
use crate::sweeper;
use crate::time::Clock;

/// Reads beside those of the server's readers: the answers' thread, which reads histories, and one to spare.
const MORE_READERS: u32 = 2;
/// Signals that come within this are one.
const TOGETHER: Duration = Duration::from_millis(500);

/// Runs a server until a signal ends it.
pub(super) fn run(loaded: &Loaded) -> Result<(), Error> {
    let config = &loaded.config;
    let log = logging::start(config.log.level, config.log.format)
        .map_err(|error| Error::Internal(format!("cannot start the log: {error}")))?;
    std::panic::set_hook(Box::new(|panic| {
        log::error!("a thread panicked: {}", panic.to_string().replace('\n', " "));
    }));
    let outcome = run_logged(loaded);
    log.finish();
    outcome
}

fn run_logged(loaded: &Loaded) -> Result<(), Error> {
    let config = &loaded.config;
    for warning in &loaded.warnings {
        log::warn!("{warning}");
    }
    // Before anything is open: a signal that comes early is not lost.
    let mut signals = Signals::new([SIGTERM, SIGINT])
        .map_err(|error| Error::Internal(format!("cannot wait for signals: {error}")))?;
    let running = start(config, Clock::system())?;
    // Standard output may be closed; that is no reason not to serve.
    let _ = writeln!(io::stdout(), "lockhouse is listening on http://{}", running.address())
        .and_then(|()| io::stdout().flush());
    log::info!(
        "lockhouse {} is listening on http://{}, with {} and auth.mode = \"none\": whoever can reach this address is believed",
        env!("CARGO_PKG_VERSION"),
        running.address(),
        config.database.path.display(),
    );
    let signal = signals.forever().next();
    end_at_a_second(signals)?;
    log::info!("{}: stopping", if signal == Some(SIGINT) { "SIGINT" } else { "SIGTERM" });
    running.stop();
    log::info!("stopped");
    Ok(())
}

/// A second signal ends the process at once; not one that comes along with the first, to the whole group of processes.
fn end_at_a_second(mut signals: Signals) -> Result<(), Error> {
    let clock = Clock::system();
    Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                if clock.monotonic() > TOGETHER {
                    // Where the system does not end us, it was not asked to: nothing more can be done.
                    let _ = signal_hook::low_level::emulate_default_handler(signal);
                }
            }
        })
        .map(drop)
        .map_err(|error| Error::Internal(format!("cannot wait for signals: {error}")))
}

/// A server that runs, in this process.
pub struct Running {
    service: Arc<Service>,
    server: Server,
    sweeper: Option<JoinHandle<()>>,
}

/// Starts a server.
///
/// # Errors
/// [`Error::Internal`] with a sentence for the operator: the address is taken, the database cannot be used.
pub fn start(config: &Config, clock: Clock) -> Result<Running, Error> {
    let metrics = Arc::new(Metrics::default());
    let listen = config.server.listen;
    // The port first: whoever starts a second server by mistake is told of the address, and no file is touched.
    let listener = TcpListener::bind(listen).map_err(|error| {
        Error::Internal(format!(
            "cannot listen on {listen}: {error}; give another address with --listen, or --listen 127.0.0.1:0 for any free port"
        ))
    })?;
    let options = Options {
        path: config.database.path.clone(),
        busy_timeout: config.database.busy_timeout,
        max_size: config.database.max_size,
        restart_grace: config.locks.restart_grace,
        readers: READERS + MORE_READERS,
    };
    let store = Store::open(&options, clock.clone(), &metrics)?;
    let no_thread = |error: io::Error| Error::Internal(format!("cannot start the server: {error}"));
    let address = listener.local_addr().map_err(no_thread)?;
    store.announce(&format!("http://{address}"))?;
    let (service, woken) = Service::new(store, config, metrics);
    let sweeper = config
        .sweeper
        .interval
        .map(|interval| sweeper::start(&service, interval, woken))
        .transpose()
        .map_err(no_thread)?;
    let app = App {
        routes: ROUTES,
        service: Arc::clone(&service),
        auth: config.auth.mode,
        cors_origins: config.server.cors_origins.clone(),
    };
    let server = Server::start(listener, app, clock).map_err(no_thread)?;
    Ok(Running { service, server, sweeper })
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The use cases, for whoever runs in the same process.
    #[must_use]
    pub const fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Stops: no more requests, those that were taken are answered, the log is folded in, the file is closed.
    pub fn stop(self) {
        self.server.stop();
        self.service.stop_sweeping();
        if self.sweeper.is_some_and(|sweeper| sweeper.join().is_err()) {
            log::error!("the sweeper had panicked");
        }
        self.service.close();
    }
}
