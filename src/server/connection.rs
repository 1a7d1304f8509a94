//! Connection state transitions: receives requests, forwards them, writes the answers.

use super::access_log::CloseReason;
use super::client::{ClientKey, ConnectionState, ReadOutcome, RequestPart};
use super::event_loop::EventLoop;
use super::exchange::{Exchange, Phase};
use super::forward;
use super::parser::Progress;
use super::refusal::HttpRefusal;
use super::requests::Pending;
use super::socket::Written;

/// Maximum number of steps for one client per turn, so that other clients are served too.
const STEPS: usize = 16;

/// What to do after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NextStep {
    /// Take another step: there may be more to do.
    Again,
    /// Wait for an event.
    Done,
}

impl EventLoop {
    /// Processes the input of a client.
    pub(super) fn serve_client(&mut self, key: ClientKey) {
        for _ in 0..STEPS {
            if self.step(key) == NextStep::Done {
                return self.update_deadline(key);
            }
        }
        self.busy.push(key);
        self.update_deadline(key);
    }

    fn step(&mut self, key: ClientKey) -> NextStep {
        let Some(client) = self.clients.get(key) else { return NextStep::Done };
        match client.state {
            // The next request is parsed after the client has read this answer.
            ConnectionState::Receiving(RequestPart::Nothing | RequestPart::Head)
                if !client.output.is_empty() =>
            {
                return NextStep::Done;
            }
            ConnectionState::Receiving(_) if !client.framer.is_empty() && !client.framer.waits_for_body() => {
                if let Some(step) = self.parse(key) {
                    return step;
                }
            }
            ConnectionState::Forwarded(Exchange { phase: Phase::InFlight, id, .. }) if client.hung_up => {
                if let Some(pending) = self.requests.get(id) {
                    pending.status.half_close();
                }
            }
            ConnectionState::Forwarded(_) if client.hung_up => {
                self.drop_client(key);
                return NextStep::Done;
            }
            ConnectionState::Receiving(_)
            | ConnectionState::Queued
            | ConnectionState::Forwarded(_)
            | ConnectionState::Closing
            | ConnectionState::Lingering(_) => {}
        }
        let Some(client) = self.clients.get(key) else { return NextStep::Done };
        match client.read(&mut self.scratch) {
            ReadOutcome::Data => return NextStep::Again,
            ReadOutcome::Failed => self.drop_client(key),
            ReadOutcome::NoData => {
                // After the end of the input, a forwarded request is still answered.
                if client.ended
                    && matches!(client.state, ConnectionState::Receiving(_) | ConnectionState::Lingering(_))
                {
                    self.drop_client(key);
                }
            }
        }
        NextStep::Done
    }

    /// Parses the input. Forwards a complete request, or queues it until there is room. Returns `None` if more bytes are
    /// needed.
    fn parse(&mut self, key: ClientKey) -> Option<NextStep> {
        let has_room = self.has_room();
        let client = self.clients.get(key)?;
        let part = match client.framer.progress(&self.limits) {
            Ok(Progress::Complete(request)) if has_room => {
                let exchange = Exchange::new(self.next_id, &request.head);
                let address =
                    forward::client_address(client.peer, &request.head, &self.settings.trusted_proxies);
                let headers = self.backend.headers_of(client.peer);
                match self.forwarder.send(exchange.id, &request, &headers) {
                    Ok(bytes) => {
                        // Register the id before the bytes are written, so that the receiver can claim it.
                        let status = self.backend.outbox.register(exchange.id, address);
                        self.requests.insert(exchange.id, Pending { client: key, status, bytes });
                        self.next_id += 1;
                        client.framer.consume();
                        client.continued = false;
                        client.enter(ConnectionState::Forwarded(exchange), self.now);
                        return Some(NextStep::Again);
                    }
                    Err(refusal) => Err(refusal),
                }
            }
            Ok(Progress::Complete(_)) => {
                client.enter(ConnectionState::Queued, self.now);
                self.queue(key);
                return Some(NextStep::Again);
            }
            Ok(Progress::Body { expects_continue }) => {
                if expects_continue && !client.continued {
                    client.continued = true;
                    client.output.end().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                    self.schedule_write(key);
                }
                Ok(RequestPart::Body)
            }
            Ok(Progress::Head) => Ok(RequestPart::Head),
            Ok(Progress::Nothing) => Ok(RequestPart::Nothing),
            Err(refusal) => Err(refusal),
        };
        match part {
            Ok(part) => {
                let now = self.now;
                self.clients.get(key)?.set_part(part, now);
                None
            }
            Err(refusal) => {
                self.refuse(key, refusal);
                Some(NextStep::Done)
            }
        }
    }

    fn queue(&mut self, key: ClientKey) {
        if self.queue.len() > 2 * self.clients.len() {
            let clients = &self.clients;
            self.queue.retain(|key| clients.contains(*key));
        }
        self.queue.push_back(key);
    }

    /// Forwards queued requests while there is room.
    pub(super) fn serve_queue(&mut self) {
        while !self.queue.is_empty() && self.has_room() {
            let Some(key) = self.queue.pop_front() else { return };
            let now = self.now;
            if let Some(client) = self.clients.get(key)
                && client.state == ConnectionState::Queued
            {
                client.enter(ConnectionState::Receiving(RequestPart::Nothing), now);
                self.serve_client(key);
            }
        }
    }

    /// Schedules the output of a client to be written at the end of the round.
    pub(super) fn schedule_write(&mut self, key: ClientKey) {
        let now = self.now;
        // For a blocked client, the deadline must not move before the socket has room.
        if let Some(client) = self.clients.get(key)
            && !client.writes
            && !client.blocked
        {
            client.writes = true;
            client.moved = now;
            self.writers.push(key);
        }
    }

    /// Writes as much output as the socket accepts.
    pub(super) fn write(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get(key) else { return };
        client.writes = false;
        let Ok(written) = client.output.write_to(&mut client.socket) else { return self.drop_client(key) };
        client.blocked = written != Written::All;
        if written != Written::Blocked(0) {
            client.moved = self.now;
        }
        match &mut client.state {
            ConnectionState::Forwarded(Exchange { phase: Phase::Streaming(pieces), id, .. }) => {
                let taken = pieces.taken(written);
                if let Some(pending) = self.requests.get(*id) {
                    pending.status.delivered(taken);
                }
            }
            ConnectionState::Closing if written == Written::All => {
                client.socket.finish();
                client.framer.discard();
                client.enter(ConnectionState::Lingering(0), self.now);
                client.readable = true;
                self.busy.push(key);
            }
            // Input that arrived during the write can be processed now.
            ConnectionState::Receiving(_)
                if written == Written::All
                    && (!client.framer.is_empty() || client.readable || client.ended) =>
            {
                self.busy.push(key);
            }
            ConnectionState::Receiving(_)
            | ConnectionState::Queued
            | ConnectionState::Forwarded(_)
            | ConnectionState::Closing
            | ConnectionState::Lingering(_) => {}
        }
        self.update_deadline(key);
    }

    /// Refuses a request. The connection is closed after the answer.
    pub(super) fn refuse(&mut self, key: ClientKey, refusal: HttpRefusal) {
        let Some(client) = self.clients.get(key) else { return };
        self.access_log.refused(refusal, client.peer, self.now);
        let is_head = match client.state {
            ConnectionState::Forwarded(exchange) => exchange.is_head,
            ConnectionState::Receiving(_)
            | ConnectionState::Queued
            | ConnectionState::Closing
            | ConnectionState::Lingering(_) => client.framer.is_head(),
        };
        client.framer.discard();
        self.refusals += 1;
        let request_id = format!("{:x}-r{:x}", self.run, self.refusals);
        let mut response = refusal.problem().to_response(&request_id).with("X-Request-Id", request_id);
        if self.backend.allows_cors {
            // A refusal holds nothing confidential, so any origin may read it.
            response.headers.push(("Access-Control-Allow-Origin", "*".to_owned()));
            response.headers.push(("Access-Control-Expose-Headers", "Retry-After, X-Request-Id".to_owned()));
        }
        self.respond(key, &response, Exchange::last(is_head));
        self.update_deadline(key);
    }

    /// Handles an expired deadline of a client.
    pub(super) fn time_out(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get(key) else { return };
        if !client.output.is_empty() {
            return self.close_early(key, CloseReason::Unread);
        }
        match client.state {
            ConnectionState::Receiving(RequestPart::Nothing) => self.close_early(key, CloseReason::Idle),
            ConnectionState::Receiving(RequestPart::Head) => self.refuse(key, HttpRefusal::HeadTimeout),
            ConnectionState::Receiving(RequestPart::Body) => self.refuse(key, HttpRefusal::BodyTimeout),
            ConnectionState::Queued => self.refuse(key, HttpRefusal::Queue),
            ConnectionState::Closing | ConnectionState::Lingering(_) => self.drop_client(key),
            ConnectionState::Forwarded(_) => {}
        }
    }

    /// Checks the internal connection, on which nothing may be received.
    pub(super) fn check_forwarder(&mut self) {
        if let Err(fault) = self.forwarder.check() {
            self.lose_forwarder(&fault);
        }
    }

    /// Closes the internal connection after a failure. Requests that were not received yet are withdrawn and answered
    /// with 503. The others are answered as usual.
    pub(super) fn lose_forwarder(&mut self, fault: &std::io::Error) {
        self.forwarder.close(self.now);
        let outbox = std::sync::Arc::clone(&self.backend.outbox);
        let lost = self.requests.take_if(|id| outbox.withdraw(id));
        log::error!("the internal connection failed: {fault}; {} requests were lost", lost.len());
        for Pending { client, .. } in lost {
            self.refuse(client, HttpRefusal::Lost);
        }
    }

    /// Ends a parked request if the server is stopping.
    pub(super) fn stop_parked(&mut self, key: ClientKey) {
        if self.stop_by.is_some() {
            self.stop_client(key);
        }
    }

    /// Ends a client's connection for the shutdown, unless its request is in flight.
    pub(super) fn stop_client(&mut self, key: ClientKey) {
        self.serve_client(key);
        let now = self.now;
        let Some(client) = self.clients.get(key) else { return };
        match client.state {
            ConnectionState::Receiving(RequestPart::Nothing) if client.output.is_empty() => {
                self.drop_client(key);
            }
            ConnectionState::Receiving(RequestPart::Nothing) => client.enter(ConnectionState::Closing, now),
            ConnectionState::Receiving(RequestPart::Head | RequestPart::Body) => {
                self.refuse(key, HttpRefusal::Stopping);
            }
            ConnectionState::Forwarded(exchange) => match exchange.phase {
                Phase::InFlight => {}
                Phase::Parked => {
                    self.forget(exchange.id);
                    self.refuse(key, HttpRefusal::Stopping);
                }
                Phase::Streaming(_) => {
                    self.forget(exchange.id);
                    self.end_stream(key, exchange);
                }
            },
            ConnectionState::Queued | ConnectionState::Closing | ConnectionState::Lingering(_) => {}
        }
        self.update_deadline(key);
    }
}
