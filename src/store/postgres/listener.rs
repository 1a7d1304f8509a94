//! The listener: tells the other nodes about commits by NOTIFY, and hears of theirs by LISTEN.
//!
//! One thread with a connection of its own. NOTIFY is not part of the transactions of use cases, because commits
//! with NOTIFY wait for each other. A lost notification costs time only: each node also looks once a second.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::node::Node;
use super::row::get;
use super::session::{Command, Session, parameters};
use super::waiters;
use crate::domain::UserId;
use crate::error::Error;
use crate::store::OtherServers;
use crate::time::{Timestamp, Ttl};

/// The name of the channel.
const CHANNEL: &str = "lockhouse";
/// Minimum time between two notifications of one node.
const PAUSE: Duration = Duration::from_millis(10);
/// How often a node looks although it has heard nothing.
const LOOK: Duration = Duration::from_secs(1);
/// The same, if notifications do not arrive.
const LOOK_OFTEN: Duration = Duration::from_millis(250);
/// How long a node waits to hear its own notification.
const HEARS_ITSELF: Duration = Duration::from_secs(2);
/// Pause after the database was away.
const RETRY: Duration = Duration::from_millis(500);
/// A lease of another node is ended by that node, or by this one after this time.
const AFTER_THE_OTHERS: Ttl = Ttl::from_millis(200);

/// The thread.
pub(super) struct Listener {
    node: Arc<Node>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    pub(super) fn start(node: &Arc<Node>, shared: &OtherServers) -> Result<Self, Error> {
        let (on_thread, shared) = (Arc::clone(node), shared.clone());
        let thread = Builder::new()
            .name("listener".to_owned())
            .spawn(move || ListenerThread { node: on_thread, shared, revision: 0, looked: 0 }.work())
            .map_err(|error| Error::Internal(format!("cannot start a thread: {error}")))?;
        Ok(Self { node: Arc::clone(node), thread: Some(thread) })
    }

    pub(super) fn stop(&mut self) {
        self.node.signals.is_stopping.store(true, Ordering::SeqCst);
        self.node.signals.notify_others();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread that listens to PostgreSQL has panicked");
        }
    }
}

struct ListenerThread {
    node: Arc<Node>,
    shared: OtherServers,
    /// The last revision that was seen.
    revision: i64,
    /// How often it has looked.
    looked: u64,
}

/// Dropped when the connection has ended.
struct WhileConnected(Arc<Node>);

impl Drop for WhileConnected {
    /// Wakes the thread. Its next look fails, and it connects again.
    fn drop(&mut self) {
        self.0.signals.notified.notify_one();
    }
}

impl ListenerThread {
    fn work(mut self) {
        while !self.is_stopping() {
            let looked = self.looked;
            if let Err(error) = self.listen() {
                log::debug!("the connection that listens is away: {error}");
                // A connection that the server has ended is replaced at once.
                if self.looked == looked {
                    std::thread::park_timeout(RETRY);
                }
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.node.signals.is_stopping.load(Ordering::SeqCst)
    }

    /// Listens until the connection is lost or the node stops.
    fn listen(&mut self) -> Result<(), Error> {
        let node = Arc::clone(&self.node);
        let connected = WhileConnected(Arc::clone(&node));
        let session = Session::listening(&node.address, node.deadline, move |from| {
            connected.0.signals.received(from, &connected.0.id);
        })?;
        session.script(&format!("LISTEN {CHANNEL}"))?;
        // What was notified before is found by looking.
        self.look(&session)?;
        let every = if self.hears_itself(&session)? { LOOK } else { LOOK_OFTEN };
        while !self.is_stopping() {
            let has_committed = session.wait(async {
                tokio::select! {
                    () = node.signals.committed.notified() => true,
                    () = node.signals.notified.notified() => false,
                    () = tokio::time::sleep(every) => false,
                }
            });
            if has_committed {
                self.notify(&session)?;
            }
            self.look(&session)?;
            session.wait(async { tokio::time::sleep(PAUSE).await });
        }
        Ok(())
    }

    fn notify(&self, session: &Session) -> Result<(), Error> {
        session.query("SELECT pg_notify($1, $2)", parameters![CHANNEL.to_owned(), self.node.id.clone()])?;
        Ok(())
    }

    fn hears_itself(&self, session: &Session) -> Result<bool, Error> {
        let signals = &self.node.signals;
        signals.hears_itself.store(false, Ordering::SeqCst);
        self.notify(session)?;
        let hearing = async {
            while !signals.hears_itself.load(Ordering::SeqCst) {
                tokio::time::sleep(PAUSE).await;
            }
        };
        let heard = session.wait(async { tokio::time::timeout(HEARS_ITSELF, hearing).await });
        if heard.is_err() {
            log::warn!(
                "notifications of PostgreSQL do not arrive: events of other servers come up to 250 ms late; connect to PostgreSQL itself, without a pooler"
            );
        }
        Ok(heard.is_ok())
    }

    /// Looks what other nodes have committed.
    fn look(&mut self, session: &Session) -> Result<(), Error> {
        let found = session.run(&[
            Command::new("SELECT last_revision, (SELECT min(check_at) FROM locks) FROM meta", Vec::new()),
            Command::new(
                "SELECT revision, parted FROM events WHERE revision > $1 AND type = 'workspace.deleted' AND parted IS NOT NULL",
                parameters![self.revision],
            ),
            waiters::outcomes(&self.node.id),
        ])?;
        let [meta, deletions, outcomes] = found.as_slice() else { return Err(Error::Busy) };
        let Some(meta) = meta.first() else { return Err(Error::Busy) };
        let (revision, due): (i64, Option<i64>) = (get(meta, 0)?, get(meta, 1)?);
        let deleted = deletions.iter().map(|row| {
            let members: Vec<String> = get(row, 1)?;
            Ok((get(row, 0)?, members.into_iter().map(UserId::trusted).collect::<HashSet<_>>()))
        });
        self.shared.notifier.deleted_members(deleted.collect::<Result<_, Error>>()?);
        let due = due.map(|due| Timestamp(due).plus(AFTER_THE_OTHERS));
        self.shared.notifier.committed(revision, due);
        self.revision = revision;
        self.looked += 1;
        let answered = waiters::answer(outcomes, &self.node.queue, self.node.clock.now())?;
        if !answered.is_empty() {
            session.query("DELETE FROM waiters WHERE place = ANY($1::bigint[])", parameters![answered])?;
        }
        Ok(())
    }
}
