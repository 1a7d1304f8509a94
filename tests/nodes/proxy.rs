//! A proxy before PostgreSQL that stalls: connections stay open, and nothing passes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use lockhouse::config::Secret;

use crate::common::postgres::Cluster;

#[derive(Default)]
struct Gate {
    is_stalled: Mutex<bool>,
    moved: Condvar,
}

impl Gate {
    fn pass(&self) {
        let stalled = self.is_stalled.lock().unwrap();
        drop(self.moved.wait_while(stalled, |stalled| *stalled).unwrap());
    }
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
                let Ok(server) = UnixStream::connect(&socket) else { continue };
                client.set_nodelay(true).unwrap();
                let (from_client, to_client) = (client.try_clone().unwrap(), client);
                let (from_server, to_server) = (server.try_clone().unwrap(), server);
                let (there, back) = (Arc::clone(&gate), Arc::clone(&gate));
                std::thread::spawn(move || {
                    forward(from_client, &to_server, &there);
                    let _ = to_server.shutdown(std::net::Shutdown::Both);
                });
                std::thread::spawn(move || {
                    forward(from_server, &to_client, &back);
                    let _ = to_client.shutdown(std::net::Shutdown::Both);
                });
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
        *self.gate.is_stalled.lock().unwrap() = true;
    }

    pub fn go_on(&self) {
        *self.gate.is_stalled.lock().unwrap() = false;
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

fn forward(mut from: impl Read, mut to: impl Write, gate: &Gate) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(length) = from.read(&mut buffer) {
        gate.pass();
        if length == 0 || to.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}
