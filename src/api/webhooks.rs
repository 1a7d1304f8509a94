//! The webhooks, for administrators.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::{Count, Integer, Text};
use super::operation::{Answer, Call, Operation};
use super::problem::Problem;
use crate::app::Service;
use crate::time::{Ttl, WallTime};
use crate::webhooks::{WebhookState, WebhookStatus};

/// List the webhooks
///
/// In the order of the settings file. `lag` is the number of events that the receiver has not confirmed. `last_error`
/// stays after the receiver has come back. `url` has no path and no query.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListWebhooks {}

/// The webhooks.
#[derive(Serialize, JsonSchema)]
pub struct WebhookList<'a> {
    webhooks: Vec<WebhookOut<'a>>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Webhook")]
struct WebhookOut<'a> {
    name: &'a str,
    url: &'a str,
    /// `up_to_date`, `sending`, `failing`, or `elsewhere`: another server sends.
    state: WebhookState,
    /// The revision of the last event that the receiver has confirmed, or that it is not to get.
    position: i64,
    lag: Count,
    /// Failed attempts since the last confirmed event.
    failures: u32,
    failing_since: Option<WallTime>,
    /// Time until the next attempt. Null unless the last one failed.
    next_try_in_ms: Option<Count>,
    last_error: Option<&'a str>,
    last_error_at: Option<WallTime>,
    last_delivered_at: Option<WallTime>,
}

impl<'a> WebhookOut<'a> {
    fn of(status: &'a WebhookStatus) -> Self {
        Self {
            name: &status.name,
            url: &status.origin,
            state: status.state,
            position: status.position,
            lag: Integer(status.lag),
            failures: status.failures,
            failing_since: status.failing_since,
            next_try_in_ms: status.next_try_in.map(|left| Integer(Ttl::from_duration(left).as_millis())),
            last_error: status.last_error.as_ref().map(|(_, error)| error.as_str()),
            last_error_at: status.last_error.as_ref().map(|(at, _)| *at),
            last_delivered_at: status.last_delivered_at,
        }
    }
}

impl Operation for ListWebhooks {
    type Output = WebhookList<'static>;

    fn run(self, service: &Arc<Service>, _: &Call) -> Result<Answer, Problem> {
        let statuses = service.webhooks().statuses();
        Answer::now(&WebhookList { webhooks: statuses.iter().map(WebhookOut::of).collect() })
    }
}

/// Make the next attempt of a webhook at once
///
/// Instead of after the pause that follows a failed attempt. `tried` is false if there is no webhook of this name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TryWebhook {
    name: Text<64>,
}

/// Whether there is a webhook to try.
#[derive(Serialize, JsonSchema)]
pub struct Tried {
    tried: bool,
}

impl Operation for TryWebhook {
    type Output = Tried;

    fn run(self, service: &Arc<Service>, _: &Call) -> Result<Answer, Problem> {
        Answer::now(&Tried { tried: service.webhooks().try_now(&self.name.0) })
    }
}
