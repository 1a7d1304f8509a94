//! The thread that sends the messages of one webhook. It has no access to the store, so at the stop nobody needs
//! to wait for a receiver that does not answer.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::Builder;
use std::time::Duration;

use rustls::crypto::ring::default_provider;
use ureq::http::StatusCode;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Timeout};

use super::message::Message;
use crate::config::{Webhook, WebhookSecret};
use crate::error::Error;
use crate::time::Clock;

/// How long the connection may take, with the look-up of the name.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// The body of an answer is read, for this time and up to this size, only to keep the connection.
const BODY_WITHIN: Duration = Duration::from_secs(1);
const MAX_BODY_BYTES: u64 = 16 * 1024;
/// Maximum size of the head of an answer.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// A connection that was not used for this time is closed. Many servers close theirs after 5 s.
const IDLE: Duration = Duration::from_secs(3);
const USER_AGENT: &str = concat!("lockhouse/", env!("CARGO_PKG_VERSION"));

/// The outcome of an attempt: the error is the end of a sentence, without anything from the answer's body.
pub(super) type Outcome = Result<(), String>;

/// The certificates that receivers are checked against.
#[derive(Clone)]
pub struct Trust(Arc<Vec<Certificate<'static>>>);

impl Trust {
    /// Those of this machine, if one of the webhooks needs them.
    ///
    /// # Errors
    /// [`Error::Internal`] with a sentence for the operator if there are none.
    pub fn of_this_machine(webhooks: &[Webhook]) -> Result<Self, Error> {
        if !webhooks.iter().any(|webhook| webhook.url.starts_with("https:")) {
            return Ok(Self(Arc::default()));
        }
        let found = rustls_native_certs::load_native_certs();
        let certificates: Vec<_> =
            found.certs.iter().map(|found| Certificate::from_der(found).to_owned()).collect();
        if certificates.is_empty() {
            let problem = "no certificates are found to check the receivers of webhooks with: install ca-certificates, or name a file of certificates in SSL_CERT_FILE";
            return Err(Error::Internal(problem.to_owned()));
        }
        Ok(Self(Arc::new(certificates)))
    }
}

/// The thread of a webhook. It ends after its attempt when this is dropped.
pub(super) struct Receiver {
    messages: SyncSender<Message>,
    agent: Agent,
}

impl Receiver {
    /// Starts the thread. `done` is called after each attempt.
    pub(super) fn start(
        webhook: &Webhook,
        trust: &Trust,
        clock: Clock,
        done: impl Fn(Outcome) + Send + 'static,
    ) -> io::Result<Self> {
        let agent = agent(webhook, trust);
        let (messages, to_send) = sync_channel::<Message>(1);
        let (webhook, sends) = (webhook.clone(), agent.clone());
        Builder::new().name(format!("webhook {}", webhook.name)).spawn(move || {
            for message in to_send {
                let attempt = || send(&sends, &webhook, &message, &clock);
                // A panic must not leave the message on its way forever. The panic hook logs the cause.
                let outcome = catch_unwind(AssertUnwindSafe(attempt));
                done(outcome.unwrap_or_else(|_| Err("sending has failed".to_owned())));
            }
        })?;
        Ok(Self { messages, agent })
    }

    /// Sends a message. Only one may be on its way.
    pub(super) fn send(&self, message: Message) {
        // Cannot fail: the thread ends only after this is dropped, and the last message is done.
        let _ = self.messages.try_send(message);
    }

    /// Closes the connections, so that an attempt fails at once.
    pub(super) fn hang_up(self) {
        self.agent.shutdown();
    }
}

fn agent(webhook: &Webhook, trust: &Trust) -> Agent {
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(default_provider()))
        .root_certs(RootCerts::Specific(Arc::clone(&trust.0)))
        .build();
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        // Only the operator's file says where events are sent: no proxy from the environment.
        .proxy(None)
        .tls_config(tls)
        .user_agent(USER_AGENT)
        .accept("")
        .timeout_global(Some(webhook.answer_within))
        .timeout_resolve(Some(CONNECT_WITHIN))
        .timeout_connect(Some(CONNECT_WITHIN))
        .timeout_recv_body(Some(BODY_WITHIN))
        .max_response_header_size(MAX_HEAD_BYTES)
        .input_buffer_size(MAX_HEAD_BYTES)
        .output_buffer_size(MAX_HEAD_BYTES)
        .max_idle_connections(1)
        .max_idle_age(IDLE);
    config.build().new_agent()
}

/// Makes one attempt.
fn send(agent: &Agent, webhook: &Webhook, message: &Message, clock: &Clock) -> Outcome {
    let timestamp = clock.wall().0 / 1_000;
    let key = webhook.secret.as_ref().map(WebhookSecret::key).unwrap_or_default();
    let request = agent
        .post(&webhook.url)
        .header("Content-Type", "application/json")
        .header("webhook-id", &message.id)
        .header("webhook-timestamp", timestamp.to_string())
        .header("webhook-signature", message.signature(key, timestamp));
    let mut response = request.send(&message.body[..]).map_err(|error| problem(&error, webhook))?;
    let status = response.status();
    let body = response.body_mut().as_reader();
    // The status has decided. What follows it does not matter, and is not kept.
    let _ = io::copy(&mut io::Read::take(body, MAX_BODY_BYTES), &mut io::sink());
    judge(status)
}

fn judge(status: StatusCode) -> Outcome {
    if status.is_success() {
        return Ok(());
    }
    let more = if status.is_redirection() { "; redirects are not followed" } else { "" };
    Err(format!("it answered {}{more}", status.as_u16()))
}

/// What has failed, without anything that the receiver has sent.
#[expect(clippy::wildcard_enum_match_arm, reason = "enums of libraries, which may grow")]
fn problem(error: &ureq::Error, webhook: &Webhook) -> String {
    match error {
        ureq::Error::Timeout(Timeout::Resolve) => "its name is not resolved in time".to_owned(),
        ureq::Error::Timeout(Timeout::Connect) => "it cannot be reached in time".to_owned(),
        ureq::Error::Timeout(_) => format!("it did not answer within {:?}", webhook.answer_within),
        ureq::Error::HostNotFound => "its name is unknown".to_owned(),
        ureq::Error::Io(error) => io_problem(error),
        ureq::Error::LargeResponseHeader(..) => "the head of its answer is too large".to_owned(),
        ureq::Error::Protocol(_) | ureq::Error::Http(_) => "its answer is not HTTP".to_owned(),
        ureq::Error::Rustls(error) => tls_problem(error),
        _ => "sending has failed".to_owned(),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "enums of libraries, which may grow")]
fn io_problem(error: &io::Error) -> String {
    if let Some(error) = error.get_ref().and_then(|error| error.downcast_ref()) {
        return tls_problem(error);
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "it refuses the connection".to_owned(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            "it closed the connection without an answer".to_owned()
        }
        _ => format!("it cannot be reached: {error}"),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "enums of libraries, which may grow")]
fn tls_problem(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(_) => "its certificate is not trusted".to_owned(),
        _ => "TLS has failed".to_owned(),
    }
}
