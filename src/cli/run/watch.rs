//! Follows the events of the workspace, so that a forced end is noticed at once.

use std::io::{BufRead, Read};
use std::sync::mpsc::Sender;
use std::thread::{Builder, park_timeout};
use std::time::Duration;

use super::super::client::ApiClient;
use super::session::{RunEvent, Session};

/// A stream without a byte for this long is broken: the server sends a line at least every 15 seconds.
const SILENCE: Duration = Duration::from_secs(40);
/// Without a stream, a heartbeat is sent this often.
const POLL: Duration = Duration::from_millis(500);
/// Heartbeats before the stream is tried again.
const POLLS: u32 = 6;
/// Longer lines are read in pieces.
const LINE_BYTES: u64 = 64 * 1024;

/// Starts to follow the events. Each of them causes a heartbeat, whose answer says whether the lease goes on.
pub(super) fn start(session: &Session) {
    let (api, workspace_id, sender) =
        (session.api.clone(), session.workspace_id.clone(), session.sender.clone());
    let watch = move || {
        while follow(&api, &workspace_id, &sender).is_some() {
            for _ in 0..POLLS {
                park_timeout(POLL);
                if sender.send(RunEvent::Changed).is_err() {
                    return;
                }
            }
        }
    };
    // Without this thread the heartbeats still notice the end, later.
    let _ = Builder::new().name("events".to_owned()).spawn(watch);
}

/// Follows one stream until it ends. `None` if nobody is interested any more.
fn follow(api: &ApiClient, workspace_id: &str, sender: &Sender<RunEvent>) -> Option<()> {
    let Ok(mut stream) = api.follow(workspace_id, SILENCE) else { return Some(()) };
    let mut line = Vec::new();
    let mut is_new = true;
    loop {
        line.clear();
        match (&mut stream).take(LINE_BYTES).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return Some(()),
            Ok(_) => {}
        }
        // The first line comes when the stream has begun. What happened before is not in it.
        if is_new || line.starts_with(b"event:") {
            sender.send(RunEvent::Changed).ok()?;
        }
        is_new = false;
    }
}
