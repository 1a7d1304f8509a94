//! What is said: requests that come, answers that go, refusals, and letters about what is held.

use super::access_log::Cut;
use super::client::{Asked, Came, Hold, Part, Pieces, State};
use super::event_loop::{EventLoop, shown};
use super::forward;
use super::parser::{After, Progress, Version};
use super::refusal::Refusal;
use super::socket::Written;
use super::upstream::{Answer, ClientKey, Flight, Lane};
use crate::api::deferred::Extent;
use crate::api::exchange::PutOff;
use crate::api::outbox::ResponseMessage;
use crate::api::render::Asked as Rendered;

/// Most steps with one client before the others get their turn.
const STEPS: usize = 16;

/// What follows a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// There may be more to do at once.
    Again,
    /// Nothing, until something happens.
    Done,
}

impl EventLoop {
    /// Does what can be done with what a client has sent.
    pub(super) fn work(&mut self, key: ClientKey) {
        for _ in 0..STEPS {
            if self.step(key) == Step::Done {
                return self.arm(key);
            }
        }
        self.busy.push(key);
        self.arm(key);
    }

    fn step(&mut self, key: ClientKey) -> Step {
        let Some(client) = self.clients.get_mut(key.slot).filter(|client| client.serial == key.serial) else {
            return Step::Done;
        };
        match client.state {
            // The next request has to wait until the answer to the one before was taken.
            State::Reading(Part::Nothing | Part::Head) if !client.output.is_empty() => return Step::Done,
            State::Reading(_) if !client.framer.is_empty() && !client.framer.waits_for_body() => {
                if let Some(step) = self.understand(key) {
                    return step;
                }
            }
            State::Held(_, hold) if client.hung_up && hold.put_off == PutOff::UntilItComes => {
                self.drop_client(key);
                return Step::Done;
            }
            State::Held(_, hold) if client.hung_up => self.behind.holds.doubt(hold.id),
            State::Reading(_)
            | State::Queued
            | State::Asked(_)
            | State::Held(..)
            | State::Leaving
            | State::Lingering(_) => {}
        }
        let Some(client) = self.clients.get_mut(key.slot) else { return Step::Done };
        match client.read(&mut self.scratch) {
            Came::Something => return Step::Again,
            Came::Broken => self.drop_client(key),
            Came::Nothing => {
                // Whoever has finished and is owed an answer gets it.
                if client.ended && matches!(client.state, State::Reading(_) | State::Lingering(_)) {
                    self.drop_client(key);
                }
            }
        }
        Step::Done
    }

    /// Makes of the bytes what they are. Returns nothing when more of them are needed.
    fn understand(&mut self, key: ClientKey) -> Option<Step> {
        let client = self.clients.get_mut(key.slot)?;
        let refusal = match client.framer.progress(&self.settings.limits) {
            Ok(Progress::Complete(request)) => {
                let head = &request.head;
                let lane = Lane::of(head.method);
                let Some(index) = self.upstream.pick(lane, self.now) else {
                    client.enter(State::Queued, self.now);
                    self.queue_up(key, lane);
                    return Some(Step::Again);
                };
                let asked =
                    Asked { version: head.version, after: head.after, is_head: head.method == "HEAD" };
                let address = forward::client_address(client.peer, head, &self.settings.trusted_proxies);
                let asserted: &[_] =
                    if self.behind.believes(client.peer) { &self.behind.asserted } else { &[] };
                let headers = forward::Wanted { wanted: self.behind.wanted, asserted };
                match self.upstream.send(index, key, address, &request, &headers, self.now) {
                    Ok(()) => {
                        client.framer.consume();
                        client.continued = false;
                        client.enter(State::Asked(asked), self.now);
                        return Some(Step::Again);
                    }
                    Err(refusal) => refusal,
                }
            }
            Ok(Progress::Body { expects_continue }) => {
                client.is_sending(Part::Body, self.now);
                if expects_continue && !client.continued {
                    client.continued = true;
                    client.output.end().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                    self.writes(key);
                }
                return None;
            }
            Ok(Progress::Head) => {
                client.is_sending(Part::Head, self.now);
                return None;
            }
            Ok(Progress::Nothing) => {
                client.is_sending(Part::Nothing, self.now);
                return None;
            }
            Err(refusal) => refusal,
        };
        self.refuse(key, refusal);
        Some(Step::Done)
    }

    fn queue_up(&mut self, key: ClientKey, lane: Lane) {
        let queue = self.queues.of(lane);
        if queue.len() > 2 * self.clients.len() {
            let clients = &self.clients;
            queue.retain(|key| clients.get(key.slot).is_some_and(|client| client.serial == key.serial));
        }
        queue.push_back(key);
    }

    /// Those for which there was no room go on, as far as there is now.
    fn serve_the_queues(&mut self) {
        for lane in Lane::ALL {
            while self.upstream.pick(lane, self.now).is_some()
                && let Some(key) = self.queues.of(lane).pop_front()
            {
                let now = self.now;
                if let Some(client) = self.client(key)
                    && client.state == State::Queued
                {
                    client.enter(State::Reading(Part::Nothing), now);
                    self.work(key);
                }
            }
        }
    }

    /// The client has something in its output.
    fn writes(&mut self, key: ClientKey) {
        let now = self.now;
        // One that takes nothing just now says when it does; until then its deadline stands.
        if let Some(client) = self.client(key)
            && !client.writes
            && !client.blocked
        {
            client.writes = true;
            client.moved = now;
            self.writers.push(key);
        }
    }

    /// Sends a client what it takes of its output.
    pub(super) fn write(&mut self, key: ClientKey) {
        let Some(client) = self.clients.get_mut(key.slot).filter(|client| client.serial == key.serial) else {
            return;
        };
        client.writes = false;
        let Ok(written) = client.output.write_to(&mut client.socket) else { return self.drop_client(key) };
        client.blocked = written != Written::All;
        if written != Written::Blocked(0) {
            client.moved = self.now;
        }
        if let State::Held(_, hold) = &mut client.state {
            let taken = hold.pieces.taken(written);
            self.behind.holds.delivered(hold.id, taken);
        }
        if written == Written::All {
            match client.state {
                State::Leaving => {
                    client.socket.finish();
                    client.framer.discard();
                    client.enter(State::Lingering(0), self.now);
                    client.readable = true;
                    self.busy.push(key);
                }
                // What it sent meanwhile has waited for this.
                State::Reading(_) if !client.framer.is_empty() || client.readable || client.ended => {
                    self.busy.push(key);
                }
                State::Reading(_)
                | State::Queued
                | State::Asked(_)
                | State::Held(..)
                | State::Lingering(_) => {}
            }
        }
        self.arm(key);
    }

    /// Refuses what a client has asked, or is asking, and ends the connection.
    pub(super) fn refuse(&mut self, key: ClientKey, refusal: Refusal) {
        self.refusals += 1;
        let request_id = format!("{:x}-r{:x}", self.run, self.refusals);
        let Some(client) = self.clients.get_mut(key.slot).filter(|client| client.serial == key.serial) else {
            return;
        };
        self.journal.refused(refusal, shown(client.peer), self.now);
        let is_head = match client.state {
            State::Asked(asked) | State::Held(asked, _) => asked.is_head,
            State::Reading(_) | State::Queued | State::Leaving | State::Lingering(_) => {
                client.framer.is_head()
            }
        };
        let response = refusal.problem().to_response(&request_id);
        // There is nothing in it that a page should not read, whosever page it is.
        let origin = self.behind.pages_may_call.then_some("*");
        let rendered = Rendered { request_id: &request_id, is_head, varies_by_origin: false, origin };
        let mut bytes = Vec::new();
        self.renderer.render(&mut bytes, "", &response, &rendered, Extent::Whole);
        let (status_line, rest) = split_status_line(&bytes);
        let asked = Asked { version: Version::Http11, after: After::Close, is_head };
        client.answer(status_line, rest, asked, "");
        client.framer.discard();
        client.enter(State::Leaving, self.now);
        self.writes(key);
        self.arm(key);
    }

    /// A client has taken too long over what it does.
    pub(super) fn out_of_time(&mut self, key: ClientKey) {
        let Some(client) = self.client(key) else { return };
        if !client.output.is_empty() {
            return self.cut(key, Cut::Unread);
        }
        match client.state {
            State::Reading(Part::Nothing) => self.cut(key, Cut::Idle),
            State::Reading(Part::Head) => self.refuse(key, Refusal::HeadTimeout),
            State::Reading(Part::Body) => self.refuse(key, Refusal::BodyTimeout),
            State::Queued => self.refuse(key, Refusal::Queue),
            State::Leaving | State::Lingering(_) => self.drop_client(key),
            State::Asked(_) | State::Held(..) => {}
        }
    }

    /// Hears what has come on an inner connection.
    pub(super) fn hear(&mut self, index: usize) {
        let (mut input, outcome) = self.upstream.read(index, &mut self.scratch);
        let mut from = 0;
        let broken = loop {
            let rest = input.get(from..).unwrap_or_default();
            match self.upstream.next_answer(index, rest, self.now) {
                Ok(Some((answer, length, flight))) => {
                    from += length;
                    self.deliver(&answer, &flight);
                }
                Ok(None) => break outcome.err(),
                Err(broken) => break Some(broken),
            }
        };
        if let Some(broken) = broken {
            self.lose(index, broken.0);
        } else {
            input.drain(..from);
            input.shrink_to(super::event_loop::SCRATCH_BYTES);
            self.upstream.keep(index, input);
        }
        self.serve_the_queues();
    }

    fn deliver(&mut self, answer: &Answer<'_>, flight: &Flight) {
        let Some(key) = flight.client else { return };
        let now = self.now;
        let Some(client) = self.client(key) else {
            if answer.put_off.is_some() {
                self.forget_hold(flight.id);
            }
            return;
        };
        let State::Asked(asked) = client.state else { return };
        if let Some(put_off) = answer.put_off {
            let hold = Hold { id: flight.id, put_off, streams: false, pieces: Pieces::default() };
            client.enter(State::Held(asked, hold), now);
            self.held.insert(flight.id, key);
            self.waits(flight.id, put_off);
            for letter in self.early.remove(&flight.id).unwrap_or_default() {
                self.read_letter(key, letter);
            }
            // It may be gone already; or the server stops, and it has not been told.
            self.work(key);
            return self.tell_if_it_stops(key);
        }
        self.answer(key, answer.status_line, answer.rest, asked);
    }

    /// Answers a client's request, and goes on to the next.
    fn answer(&mut self, key: ClientKey, status_line: &[u8], rest: &[u8], asked: Asked) {
        let asked = self.asked(asked);
        if let Some(client) = self.client(key) {
            client.answer(status_line, rest, asked, "");
        }
        self.answered(key, asked);
    }

    /// During a stop, every answer is the last one.
    fn asked(&self, asked: Asked) -> Asked {
        if self.stop_by.is_some() { Asked { after: After::Close, ..asked } } else { asked }
    }

    fn answered(&mut self, key: ClientKey, asked: Asked) {
        let now = self.now;
        // This one could go, for another.
        self.no_room_until = now;
        if let Some(client) = self.client(key) {
            client.has_asked = true;
            let next = match asked.after {
                After::KeepAlive => State::Reading(Part::Nothing),
                After::Close => State::Leaving,
            };
            client.enter(next, now);
        }
        self.writes(key);
    }

    /// Closes an inner connection; what was asked over it is not answered any more.
    pub(super) fn lose(&mut self, index: usize, why: &str) {
        let flights = self.upstream.close(index, self.now);
        log::error!(
            "a connection to the server behind the door is closed: {why}; {} answers are lost",
            flights.iter().filter(|flight| flight.client.is_some()).count()
        );
        for flight in flights {
            self.forget_hold(flight.id);
            self.behind.holds.lost(flight.id);
            if let Some(key) = flight.client
                && self.client(key).is_some_and(|client| matches!(client.state, State::Asked(_)))
            {
                self.refuse(key, Refusal::Upstream);
            }
        }
    }

    /// Nobody waits for the holder of this ticket any more.
    pub(super) fn forget_hold(&mut self, id: u64) {
        self.end_hold(id);
        self.early.remove(&id);
        self.behind.holds.gone(id);
    }

    /// The request is not held any more.
    fn end_hold(&mut self, id: u64) {
        self.held.remove(&id);
        self.waiting.remove(&id);
        self.journal.held(self.waiting.len());
    }

    /// The request waits until what it waits for has come, if that is so.
    fn waits(&mut self, id: u64, put_off: PutOff) {
        if put_off == PutOff::UntilItComes {
            self.waiting.insert(id);
            self.journal.held(self.waiting.len());
        }
    }

    /// Reads what the holders of tickets have written.
    pub(super) fn read_letters(&mut self) {
        for (id, letter) in self.behind.holds.collect() {
            match self.held.get(&id).copied() {
                Some(key) => self.read_letter(key, letter),
                // It is faster than the word that there is something to wait for.
                None if self.upstream.is_on_its_way(id) => self.early.entry(id).or_default().push(letter),
                None => self.behind.holds.gone(id),
            }
        }
    }

    fn read_letter(&mut self, key: ClientKey, letter: ResponseMessage) {
        let Some(client) = self.client(key) else { return };
        let State::Held(mut asked, mut hold) = client.state else { return };
        match letter {
            ResponseMessage::Whole(bytes) => {
                self.end_hold(hold.id);
                let (status_line, rest) = split_status_line(&bytes);
                self.answer(key, status_line, rest, asked);
            }
            ResponseMessage::Begin(bytes) => {
                let framing = match asked.version {
                    Version::Http11 => "Transfer-Encoding: chunked\r\n",
                    Version::Http10 => {
                        asked.after = After::Close;
                        ""
                    }
                };
                hold.streams = true;
                client.state = State::Held(asked, hold);
                let (status_line, rest) = split_status_line(&bytes);
                client.answer(status_line, rest, asked, framing);
                if asked.is_head {
                    self.forget_hold(hold.id);
                    self.answered(key, asked);
                }
                self.writes(key);
            }
            ResponseMessage::StreamChunk(piece) => {
                client.piece(piece, asked);
                self.writes(key);
            }
            ResponseMessage::End => {
                self.end_hold(hold.id);
                self.end_stream(key, asked);
            }
            ResponseMessage::Cut => return self.cut(key, Cut::Unread),
            ResponseMessage::Waits => {
                hold.put_off = PutOff::UntilItComes;
                client.state = State::Held(asked, hold);
                self.waits(hold.id, PutOff::UntilItComes);
                self.work(key);
                self.tell_if_it_stops(key);
            }
        }
        self.arm(key);
    }

    fn end_stream(&mut self, key: ClientKey, asked: Asked) {
        let asked = self.asked(asked);
        if let Some(client) = self.client(key)
            && asked.version == Version::Http11
        {
            client.output.end().extend_from_slice(b"0\r\n\r\n");
        }
        self.answered(key, asked);
    }

    fn tell_if_it_stops(&mut self, key: ClientKey) {
        if self.stop_by.is_some() {
            self.stop_client(key);
        }
    }

    /// What becomes of a client when the server stops.
    pub(super) fn stop_client(&mut self, key: ClientKey) {
        self.work(key);
        let now = self.now;
        let Some(client) = self.client(key) else { return };
        match client.state {
            State::Reading(Part::Nothing) if client.output.is_empty() => self.drop_client(key),
            State::Reading(Part::Nothing) => client.enter(State::Leaving, now),
            State::Reading(Part::Head | Part::Body) => self.refuse(key, Refusal::Stopping),
            State::Held(asked, hold) if hold.put_off == PutOff::UntilItComes => {
                self.forget_hold(hold.id);
                if hold.streams {
                    self.end_stream(key, asked);
                } else {
                    self.refuse(key, Refusal::Stopping);
                }
            }
            State::Queued | State::Asked(_) | State::Held(..) | State::Leaving | State::Lingering(_) => {}
        }
        self.arm(key);
    }
}

/// The status line with its end, and what follows.
fn split_status_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |position| position + 1);
    bytes.split_at(end)
}
