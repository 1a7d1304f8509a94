//! A proxy before PostgreSQL. It stalls: connections stay open, and nothing passes. Or it cuts a connection at a commit.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use lockhouse::config::Secret;

use super::postgres::Cluster;

/// What happens to the next commit of a transaction that names a workspace.
#[derive(Clone)]
pub struct Cut {
    pub workspace: String,
    /// Whether PostgreSQL gets it, so that only the answer is lost.
    pub is_carried_out: bool,
    /// Whether connections are refused then, until [`Proxy::go_on`].
    pub is_away_then: bool,
}

#[derive(Default)]
struct State {
    is_stalled: bool,
    is_away: bool,
    cut: Option<Cut>,
    /// The workspace whose transactions are counted, and the fewest round trips of one.
    counted: Option<(String, usize)>,
}

#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    moved: Condvar,
}

impl Gate {
    fn pass(&self) {
        let stalled = self.state.lock().unwrap();
        drop(self.moved.wait_while(stalled, |state| state.is_stalled).unwrap());
    }

    /// Whether the connection is cut here, before the message.
    fn cuts_before(&self, commit: &Commit) -> bool {
        self.cuts(commit, false)
    }

    fn cuts_after(&self, commit: &Commit, answer: &[u8]) -> bool {
        let is_committed = contains(answer, b"COMMIT\0");
        if let Some((workspace, least)) = &mut self.state.lock().unwrap().counted
            && is_committed
            && commit.is_of(workspace)
        {
            *least = (*least).min(commit.round_trips);
        }
        is_committed && self.cuts(commit, true)
    }

    fn cuts(&self, commit: &Commit, is_carried_out: bool) -> bool {
        let mut state = self.state.lock().unwrap();
        let cuts = state
            .cut
            .as_ref()
            .is_some_and(|cut| cut.is_carried_out == is_carried_out && commit.is_of(&cut.workspace));
        if cuts {
            let cut = state.cut.take();
            state.is_away = cut.is_some_and(|cut| cut.is_away_then);
        }
        cuts
    }
}

/// What one connection has sent.
#[derive(Default)]
struct Commit {
    /// The name of the prepared statement COMMIT, between zeros, as the message has it that carries it out.
    statement: Vec<u8>,
    /// What was sent since the last transaction.
    sent: Vec<u8>,
    /// How often something was sent after an answer, since the last transaction.
    round_trips: usize,
    is_answered: bool,
}

impl Commit {
    fn sends(&mut self, bytes: &[u8]) {
        self.round_trips += usize::from(std::mem::take(&mut self.is_answered));
        self.sent.extend_from_slice(bytes);
        let text = b"\0COMMIT\0";
        if let Some(at) = self.sent.windows(text.len()).position(|window| window == text) {
            let name = self.sent[..at].iter().rposition(|byte| !byte.is_ascii_alphanumeric()).unwrap() + 1;
            self.statement = [b"\0", &self.sent[name..=at]].concat();
        }
    }

    fn is_of(&self, workspace: &str) -> bool {
        !self.statement.is_empty()
            && contains(&self.sent, &self.statement)
            && contains(&self.sent, workspace.as_bytes())
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The proxy. Its threads end with the connections.
pub struct Proxy {
    port: u16,
    gate: Arc<Gate>,
    is_over: Arc<AtomicBool>,
}

impl Proxy {
    pub fn before(cluster: &Cluster) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (gate, is_over) = (Arc::new(Gate::default()), Arc::new(AtomicBool::new(false)));
        let proxy = Self { port, gate: Arc::clone(&gate), is_over: Arc::clone(&is_over) };
        let socket: PathBuf = cluster.directory().join(".s.PGSQL.5432");
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                if gate.state.lock().unwrap().is_away {
                    continue;
                }
                let Ok(server) = UnixStream::connect(&socket) else { continue };
                client.set_nodelay(true).unwrap();
                connect(client, server, &gate);
            }
        });
        proxy
    }

    pub fn url(&self, database: &str) -> Secret {
        Secret::from(
            format!("postgres://lockhouse@127.0.0.1:{}/{database}?sslmode=disable", self.port).as_str(),
        )
    }

    pub fn stall(&self) {
        self.gate.state.lock().unwrap().is_stalled = true;
    }

    /// Cuts one connection at the next commit that `cut` describes.
    pub fn cut(&self, cut: Cut) {
        self.gate.state.lock().unwrap().cut = Some(cut);
    }

    /// Whether that has happened.
    pub fn has_cut(&self) -> bool {
        self.gate.state.lock().unwrap().cut.is_none()
    }

    /// Runs `work`. Returns the fewest round trips of a transaction that names `workspace`.
    pub fn round_trips(&self, workspace: &str, work: impl FnOnce()) -> usize {
        self.gate.state.lock().unwrap().counted = Some((workspace.to_owned(), usize::MAX));
        work();
        self.gate.state.lock().unwrap().counted.take().unwrap().1
    }

    pub fn go_on(&self) {
        let mut state = self.gate.state.lock().unwrap();
        (state.is_stalled, state.is_away) = (false, false);
        drop(state);
        self.gate.moved.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.go_on();
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn connect(client: TcpStream, server: UnixStream, gate: &Arc<Gate>) {
    let (from_client, to_client) = (client.try_clone().unwrap(), client);
    let (from_server, to_server) = (server.try_clone().unwrap(), server);
    let commit = Arc::new(Mutex::new(Commit::default()));
    let (sending, gate_there, gate_back) = (Arc::clone(&commit), Arc::clone(gate), Arc::clone(gate));
    std::thread::spawn(move || {
        forward(&from_client, &to_server, &gate_there, |bytes| {
            let mut commit = sending.lock().unwrap();
            commit.sends(bytes);
            gate_there.cuts_before(&commit)
        });
        let _ = (to_server.shutdown(Shutdown::Both), from_client.shutdown(Shutdown::Both));
    });
    std::thread::spawn(move || {
        forward(&from_server, &to_client, &gate_back, |bytes| {
            let mut commit = commit.lock().unwrap();
            let cuts = gate_back.cuts_after(&commit, bytes);
            commit.is_answered = true;
            if contains(bytes, b"COMMIT\0") || contains(bytes, b"ROLLBACK\0") {
                commit.sent.clear();
                commit.round_trips = 0;
            }
            cuts
        });
        let _ = (to_client.shutdown(Shutdown::Both), from_server.shutdown(Shutdown::Both));
    });
}

/// Passes on what comes, until the connection ends or `cuts`.
fn forward(mut from: impl Read, mut to: impl Write, gate: &Gate, mut cuts: impl FnMut(&[u8]) -> bool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(length) = from.read(&mut buffer) {
        gate.pass();
        if length == 0 || cuts(&buffer[..length]) || to.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}
