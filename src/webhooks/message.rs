//! Messages and their signatures, as Standard Webhooks defines them
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use crate::domain::event::Event;
use crate::time::WallTime;

/// A message. Each attempt to deliver it has the same id and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) body: Vec<u8>,
}

impl Message {
    /// The message for an event, with `body`. The time in the id distinguishes events of a database that was
    /// lost or restored from those of its successor.
    pub(super) fn of(event: &Event, body: Vec<u8>) -> Self {
        Self { id: format!("evt_{}_{}", event.revision, event.at.0), body }
    }

    /// Tells that events after `position` are missing. The receiver must read the state again.
    pub(super) fn reset(position: i64, now: WallTime) -> Self {
        Self { id: format!("reset_{position}_{}", now.0), body: br#"{"type":"reset"}"#.to_vec() }
    }

    /// The header `webhook-signature` for an attempt at `timestamp` (seconds since 1970).
    pub(super) fn signature(&self, key: &[u8], timestamp: i64) -> String {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
        context.update(format!("{}.{timestamp}.", self.id).as_bytes());
        context.update(&self.body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WebhookSecret;

    /// The test vector of the libraries of Standard Webhooks.
    #[test]
    fn the_test_vector_of_standard_webhooks_has_its_signature() {
        let secret = WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let message = Message {
            id: "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned(),
            body: br#"{"test": 2432232314}"#.to_vec(),
        };
        let signature = message.signature(secret.key(), 1_614_265_330);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
