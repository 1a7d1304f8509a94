//! Opens the database on its engine.

use std::sync::Arc;

use super::engine::Engine;
use super::health::Health;
#[cfg(feature = "postgres")]
use super::postgres;
use super::sqlite::{self, Guard, Opened, Readers, Time};
use super::{Options, OtherServers};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::time::LeaseClock;

/// The connections that read.
#[derive(Debug)]
pub(super) enum Connections {
    Sqlite(Readers),
    #[cfg(feature = "postgres")]
    Postgres(postgres::Readers),
}

/// An open database, and the parts of it that each engine has.
pub(super) struct OpenStore {
    pub(super) engine: Box<dyn Engine>,
    pub(super) readers: Connections,
    pub(super) clock: Arc<LeaseClock>,
    pub(super) health: Arc<Health>,
    pub(super) guard: Option<Arc<Guard>>,
}

impl OpenStore {
    pub(super) fn open(
        options: &Options,
        metrics: &Arc<Metrics>,
        time: Time,
        others: &OtherServers,
    ) -> Result<Self, Error> {
        if let Some(url) = &options.url {
            return Self::open_postgres(url.as_str(), options, metrics, time, others);
        }
        let Opened { engine, readers, clock, health, guard } = sqlite::open(options, metrics, time)?;
        let readers = Connections::Sqlite(readers);
        Ok(Self { engine: Box::new(engine), readers, clock, health, guard: Some(guard) })
    }

    #[cfg(feature = "postgres")]
    fn open_postgres(
        url: &str,
        options: &Options,
        metrics: &Arc<Metrics>,
        time: Time,
        others: &OtherServers,
    ) -> Result<Self, Error> {
        let Time::Runs(clock) = time else {
            return Err(Error::Internal("a PostgreSQL database is checked by a running server".to_owned()));
        };
        let health = Arc::new(Health::new(clock.clone(), options.busy_timeout));
        let (engine, readers, clock) = postgres::open(url, options, metrics, clock, (others, &health))?;
        let readers = Connections::Postgres(readers);
        Ok(Self { engine: Box::new(engine), readers, clock, health, guard: None })
    }

    #[cfg(not(feature = "postgres"))]
    fn open_postgres(
        _: &str,
        _: &Options,
        _: &Arc<Metrics>,
        _: Time,
        _: &OtherServers,
    ) -> Result<Self, Error> {
        Err(no_postgres())
    }
}

#[cfg(not(feature = "postgres"))]
pub(super) fn no_postgres() -> Error {
    Error::Internal("this lockhouse was built without PostgreSQL: database.url cannot be used".to_owned())
}
