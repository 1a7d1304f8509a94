//! Answers requests: processes the messages that responders post to the event loop.

use super::access_log::CloseReason;
use super::client::{ClientKey, ConnectionState, RequestPart};
use super::event_loop::EventLoop;
use super::exchange::{Exchange, Phase, Pieces};
use super::parser::{After, Version};
use super::response::Framing;
use crate::api::exchange::Response;
use crate::api::outbox::ResponseMessage;

impl EventLoop {
    /// Queues the answer to a request, then lets the client send its next request.
    pub(super) fn respond(&mut self, key: ClientKey, response: &Response, exchange: Exchange) {
        let exchange = self.last_if_stopping(exchange);
        if let Some(client) = self.clients.get(key) {
            self.renderer.write(client.output.end(), response, &exchange, Framing::Length);
        }
        self.answered(key, exchange);
    }

    /// During a shutdown the connection is closed after each answer.
    fn last_if_stopping(&self, exchange: Exchange) -> Exchange {
        if self.stop_by.is_some() { Exchange { after: After::Close, ..exchange } } else { exchange }
    }

    fn answered(&mut self, key: ClientKey, exchange: Exchange) {
        let now = self.now;
        // The client's eviction rank changes, so eviction may succeed again.
        self.no_eviction_until = now;
        if let Some(client) = self.clients.get(key) {
            client.was_answered = true;
            let next = match exchange.after {
                After::KeepAlive => ConnectionState::Receiving(RequestPart::Nothing),
                After::Close => ConnectionState::Closing,
            };
            client.enter(next, now);
        }
        self.schedule_write(key);
    }

    /// Processes the messages from responders.
    pub(super) fn read_messages(&mut self) {
        for (id, message) in self.backend.outbox.collect() {
            // Ignore messages for requests that were abandoned.
            let Some(key) = self.requests.get(id).map(|pending| pending.client) else { continue };
            self.read_message(id, key, message);
            self.update_deadline(key);
        }
    }

    fn read_message(&mut self, id: u64, key: ClientKey, message: ResponseMessage) {
        let exchange = match self.clients.get(key).map(|client| &client.state) {
            Some(ConnectionState::Forwarded(exchange)) if exchange.id == id => *exchange,
            // The client is gone. Its request was in flight until this message.
            Some(_) | None => return self.end_request(id),
        };
        match message {
            ResponseMessage::Complete(response) => {
                self.end_request(id);
                self.respond(key, &response, exchange);
            }
            ResponseMessage::Head(response) => self.begin_stream(key, &response, exchange),
            ResponseMessage::Chunk(piece) => {
                if let Some(client) = self.clients.get(key) {
                    client.push_piece(piece);
                }
                self.schedule_write(key);
            }
            ResponseMessage::End => {
                self.end_request(id);
                self.end_stream(key, exchange);
            }
            ResponseMessage::Disconnect => self.close_early(key, CloseReason::Unread),
            ResponseMessage::Parked => {
                self.park(key, Exchange { phase: Phase::Parked, ..exchange });
                // The client may have hung up in the meantime, or the server may be stopping.
                self.serve_client(key);
                self.stop_parked(key);
            }
        }
    }

    fn park(&mut self, key: ClientKey, exchange: Exchange) {
        self.requests.park(exchange.id);
        self.access_log.parked(self.requests.parked());
        if let Some(client) = self.clients.get(key) {
            client.state = ConnectionState::Forwarded(exchange);
        }
    }

    fn begin_stream(&mut self, key: ClientKey, response: &Response, mut exchange: Exchange) {
        if exchange.version == Version::Http10 {
            exchange.after = After::Close;
        }
        exchange.phase = Phase::Streaming(Pieces::default());
        self.park(key, exchange);
        let Some(client) = self.clients.get(key) else { return };
        self.renderer.write(client.output.end(), response, &exchange, Framing::Pieces);
        self.schedule_write(key);
        if exchange.is_head {
            self.forget(exchange.id);
            return self.answered(key, exchange);
        }
        self.serve_client(key);
        self.stop_parked(key);
    }

    pub(super) fn end_stream(&mut self, key: ClientKey, exchange: Exchange) {
        let exchange = self.last_if_stopping(exchange);
        if let Some(client) = self.clients.get(key)
            && exchange.version == Version::Http11
        {
            client.output.end().extend_from_slice(b"0\r\n\r\n");
        }
        self.answered(key, exchange);
    }

    /// Removes a request that is complete.
    pub(super) fn end_request(&mut self, id: u64) {
        self.requests.remove(id);
        self.access_log.parked(self.requests.parked());
    }

    /// Abandons a request whose client is gone, and notifies the owner of its responder.
    pub(super) fn forget(&mut self, id: u64) {
        if let Some(pending) = self.requests.get(id) {
            let status = std::sync::Arc::clone(&pending.status);
            if self.requests.is_parked(id) {
                self.end_request(id);
            }
            status.hang_up();
        }
    }
}
