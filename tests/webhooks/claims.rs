//! Servers that share a database: one of them sends each webhook.

use std::sync::Arc;
use std::time::Duration;

use lockhouse::api::webhook_body;
use lockhouse::app::locks;
use lockhouse::config::Config;
use lockhouse::domain::waitlist::WaitlistLimits;
use lockhouse::domain::{Acquire, UserId, WorkspaceId};
use lockhouse::metrics::Metrics;
use lockhouse::store::{Options, Store};
use lockhouse::time::{Clock, ManualClock, Ttl};
use lockhouse::webhooks::claim::{Claimant, claim};
use lockhouse::webhooks::{WebhookState, Webhooks};
use serde_json::json;

use super::common::postgres::new_database_if_asked;
use super::common::receiver::{Receiver, Reply};
use super::common::{NOON, eventually};
use super::webhook;

const LEASE: u64 = 9_000;

fn claimant(owner: &str) -> Claimant {
    Claimant { owner: owner.to_owned(), ttl: Some(Ttl::from_millis(9_000)) }
}

fn acquire(store: &Store, workspace: &str) {
    let request = Acquire::new(WorkspaceId::parse(workspace).unwrap(), UserId::parse("alice").unwrap());
    store.write(move |set| locks::acquire(set, &request, &Config::default().rules())).unwrap();
}

#[test]
fn one_of_the_servers_sends_until_it_stops_or_its_claim_ends() {
    let receiver = Receiver::start(Reply::Status(200));
    let directory = tempfile::tempdir().unwrap();
    let options = Options {
        path: directory.path().join("lockhouse.db"),
        url: new_database_if_asked(),
        busy_timeout: Duration::from_secs(5),
        max_size: None,
        restart_grace: Duration::ZERO,
        readers: 2,
        waiters: WaitlistLimits { per_workspace: 1, per_user: 1, total: 1 },
    };
    let manual = ManualClock::starting_at(NOON);
    let metrics = Arc::new(Metrics::default());
    let store = Arc::new(Store::open(&options, Clock::Manual(Arc::clone(&manual)), &metrics).unwrap());
    let server = |owner: &str| {
        let webhooks =
            Webhooks::new(Arc::clone(&store), vec![webhook("app", &receiver)], Arc::clone(&metrics));
        let thread = webhooks.start(claimant(owner), webhook_body).unwrap().unwrap();
        (webhooks, thread)
    };
    let (first, second) = (server("first"), server("second"));
    let state = |server: &Webhooks| server.statuses()[0].state;
    let pass = |milliseconds| manual.advance(Duration::from_millis(milliseconds));
    assert_eq!((state(&first.0), state(&second.0)), (WebhookState::UpToDate, WebhookState::Elsewhere));

    acquire(&store, "one");
    assert_eq!(receiver.wait_for(1).len(), 1);
    // The claim is renewed: after several leases it is still the first.
    for _ in 0..6 {
        let until = || store.read(|rows| rows.webhook("app")).unwrap().value.unwrap().until;
        let before = until();
        pass(LEASE / 3);
        eventually(|| until() > before);
    }
    acquire(&store, "two");
    receiver.wait_for(2);
    assert_eq!(state(&second.0), WebhookState::Elsewhere);

    // It stops, and the second goes on where it was.
    first.0.stop();
    first.1.join().unwrap();
    acquire(&store, "three");
    eventually(|| {
        pass(LEASE / 3);
        state(&second.0) == WebhookState::UpToDate
    });
    receiver.wait_for(3);

    // A third one has claimed it while the second was not there, and is killed.
    let stolen = store.write(|set| {
        let row = set.webhook("app")?.unwrap();
        set.put_webhook(&lockhouse::store::WebhookPosition { until: set.now(), ..row })?;
        claim(set, "app", &claimant("third"))
    });
    assert!(stolen.unwrap().value.is_some());
    // The second notices when it renews its claim. Then the claim of the third still holds.
    pass(LEASE / 3);
    eventually(|| state(&second.0) == WebhookState::Elsewhere);
    acquire(&store, "four");
    eventually(|| {
        pass(LEASE / 3);
        state(&second.0) == WebhookState::UpToDate
    });
    let revisions =
        || -> Vec<_> { receiver.received().iter().map(|one| one.json()["revision"].clone()).collect() };
    eventually(|| revisions().contains(&json!(4)));
    // A server that loses its claim before it has written down what it sent leaves that to the next.
    let mut found = revisions();
    found.dedup();
    assert_eq!(found, [1, 2, 3, 4]);
    second.0.stop();
    second.1.join().unwrap();
    store.close();
}
