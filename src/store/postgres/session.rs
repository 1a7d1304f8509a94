//! A connection to PostgreSQL that is used from ordinary threads.
//!
//! Commands are pipelined: they are sent together and answered together, so a group of commands costs one round
//! trip. Statements are prepared once per connection.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io::Cursor;
use std::time::Duration;

use futures_util::SinkExt as _;
use futures_util::future::join_all;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Row, Statement};

use super::address::{ServerAddress, causes};
use crate::error::Error;

/// How many turns the runtime needs to read what the server has sent in the meantime.
const TURNS: usize = 3;

/// How long connecting may take.
pub(super) const CONNECT: Duration = Duration::from_secs(5);

/// A parameter of a statement.
pub(super) type Parameter = Box<dyn ToSql + Sync + Send>;

/// A statement with its parameters.
pub(super) struct Command {
    sql: &'static str,
    parameters: Vec<Parameter>,
}

impl Command {
    pub(super) const fn new(sql: &'static str, parameters: Vec<Parameter>) -> Self {
        Self { sql, parameters }
    }
}

/// Makes a parameter.
pub(super) fn parameter(value: impl ToSql + Sync + Send + 'static) -> Parameter {
    Box::new(value)
}

/// Makes a list of parameters.
macro_rules! parameters {
    ($($value:expr),* $(,)?) => { vec![$($crate::store::postgres::session::parameter($value)),*] };
}
pub(super) use parameters;

/// How a command failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server refused it. The connection goes on.
    Refused(SqlState, String),
    /// The connection is lost, or must not be used any more. What was sent may have been carried out.
    Lost(String),
}

impl Failure {
    fn of(error: &tokio_postgres::Error) -> Self {
        let Some(state) = error.code().filter(|_| !error.is_closed()) else {
            return Self::Lost(causes(error));
        };
        let text = error.as_db_error().map_or_else(|| causes(error), |refused| refused.message().to_owned());
        let class = state.code().get(..2).unwrap_or_default();
        // The server goes away, fails over, or was made read-only; or the connection broke.
        if class == "08"
            || class == "57" && *state != SqlState::QUERY_CANCELED
            || [SqlState::READ_ONLY_SQL_TRANSACTION, SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT]
                .contains(state)
        {
            return Self::Lost(text);
        }
        Self::Refused(state.clone(), text)
    }

    /// What the server or the system said.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Refused(_, text) | Self::Lost(text) => text,
        }
    }

    /// Whether the same transaction may succeed when it is tried again.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Refused(state, _) => {
                [SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE].contains(state)
            }
            Self::Lost(_) => false,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(state, _) if state == SqlState::DISK_FULL => Self::StorageFull,
            Failure::Refused(state, text)
                if state == SqlState::LOCK_NOT_AVAILABLE || state == SqlState::QUERY_CANCELED =>
            {
                log::warn!("PostgreSQL did not answer in time: {text}");
                Self::Busy
            }
            Failure::Refused(state, text) => {
                Self::Internal(format!("PostgreSQL refused: {text} ({})", state.code()))
            }
            Failure::Lost(text) => {
                log::warn!("PostgreSQL is away: {text}");
                Self::Busy
            }
        }
    }
}

/// A connection.
pub(super) struct Session {
    runtime: Runtime,
    client: Client,
    statements: RefCell<HashMap<&'static str, Statement>>,
    /// How long a group of commands may take.
    deadline: Duration,
    is_lost: Cell<bool>,
}

impl Session {
    /// Connects.
    pub(super) fn connect(address: &ServerAddress, deadline: Duration) -> Result<Self, Failure> {
        Self::listening(address, deadline, |_| {})
    }

    /// Connects. `hear` gets the payload of each notification that arrives while the session is in use.
    pub(super) fn listening(
        address: &ServerAddress,
        deadline: Duration,
        hear: impl Fn(&str) + Send + 'static,
    ) -> Result<Self, Failure> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::Lost(format!("no runtime: {error}")))?;
        let connecting = async {
            tokio::time::timeout(deadline.min(CONNECT), address.config.connect(address.tls.clone())).await
        };
        let (client, mut connection) = match runtime.block_on(connecting) {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return Err(Failure::of(&error)),
            Err(_) => return Err(Failure::Lost("it does not answer".to_owned())),
        };
        // It runs while this thread waits for the answers of commands.
        runtime.spawn(async move {
            while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
                match message {
                    Ok(AsyncMessage::Notification(notification)) => hear(notification.payload()),
                    Ok(AsyncMessage::Notice(notice)) => log::debug!("PostgreSQL says: {notice}"),
                    Ok(_) => {}
                    Err(error) => {
                        log::debug!("a connection to PostgreSQL has ended: {error}");
                        return;
                    }
                }
            }
        });
        Ok(Self { runtime, client, statements: RefCell::default(), deadline, is_lost: Cell::new(false) })
    }

    /// Whether the connection must be replaced. A connection that the server has closed is noticed.
    pub(super) fn is_lost(&self) -> bool {
        self.runtime.block_on(async {
            for _ in 0..TURNS {
                tokio::task::yield_now().await;
            }
        });
        self.is_lost.get() || self.client.is_closed()
    }

    /// Waits for `what`, and reads notifications meanwhile.
    pub(super) fn wait<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(what)
    }

    /// Carries out commands in one round trip. Returns the rows of each. On a failure the commands after the
    /// failed one were not carried out, if they are in one transaction.
    pub(super) fn run(&self, commands: &[Command]) -> Result<Vec<Vec<Row>>, Failure> {
        self.in_time(self.pipelined(commands))
    }

    /// Waits for an answer until the deadline. After that the session is lost.
    fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Failure> {
        let outcome = self.wait(async { tokio::time::timeout(self.deadline, answer).await });
        let outcome = outcome.map_or_else(
            |_| Err(Failure::Lost("it did not answer in time".to_owned())),
            |answer| answer.map_err(|error| Failure::of(&error)),
        );
        if matches!(outcome, Err(Failure::Lost(_))) {
            self.is_lost.set(true);
        }
        outcome
    }

    async fn pipelined(&self, commands: &[Command]) -> Result<Vec<Vec<Row>>, tokio_postgres::Error> {
        let unknown: Vec<_> = {
            let known = self.statements.borrow();
            commands.iter().map(|command| command.sql).filter(|sql| !known.contains_key(sql)).collect()
        };
        for prepared in
            join_all(unknown.into_iter().map(async |sql| (sql, self.client.prepare(sql).await))).await
        {
            let (sql, statement) = prepared;
            self.statements.borrow_mut().insert(sql, statement?);
        }
        let statements: Vec<_> = {
            let known = self.statements.borrow();
            commands.iter().filter_map(|command| known.get(command.sql).cloned()).collect()
        };
        let answers = commands.iter().zip(&statements).map(async |(command, statement)| {
            let parameters: Vec<&(dyn ToSql + Sync)> =
                command.parameters.iter().map(|value| -> &(dyn ToSql + Sync) { &**value }).collect();
            self.client.query(statement, &parameters).await
        });
        // Commands are sent in this order when they are first polled.
        join_all(answers).await.into_iter().collect()
    }

    /// Carries out one command.
    pub(super) fn query(&self, sql: &'static str, parameters: Vec<Parameter>) -> Result<Vec<Row>, Failure> {
        let mut rows = self.run(&[Command::new(sql, parameters)])?;
        Ok(rows.pop().unwrap_or_default())
    }

    /// Loads rows by the statement COPY. `feed` gives them to its argument. The deadline holds for each piece.
    pub(super) fn load(
        &self,
        copy: &str,
        feed: impl FnOnce(&mut dyn FnMut(Vec<u8>) -> Result<(), Error>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut sink = Box::pin(self.in_time(self.client.copy_in::<_, Cursor<Vec<u8>>>(copy))?);
        feed(&mut |piece| Ok(self.in_time(sink.send(Cursor::new(piece)))?))?;
        self.in_time(sink.as_mut().finish())?;
        Ok(())
    }

    /// Carries out statements without parameters, such as those that make the tables.
    pub(super) fn script(&self, sql: &str) -> Result<(), Failure> {
        self.in_time(self.client.batch_execute(sql))
    }
}
