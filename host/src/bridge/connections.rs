//! Channels opened, read, written, closed and opened again. Bytes go to the core's `Listener`, whose events go to
//! [`super::requests`].

use super::channel::{Channel, RETRY, RETRY_MAX};
use super::queries::Listing;
use super::{Bridge, TAKE_TIME, Timer, WAKE};
use crate::channels::{Calls, ChannelSpec, Opened, PortType, Stream, is_qemu};
use crate::clock;
use crate::entropy::entropy;
use crate::guests::Requester;
use crate::policy::{By, Via};
use fencewire_core::listener::SETTLE;
use fencewire_core::{Answer, Details, Endpoint, Event, Listener, Millis, RequestId, Uuid};
use mio::Token;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::time::Duration;

/// Bytes read from one connection before the others have their turn.
const TURN: usize = 4_096;

/// One open connection of a channel.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) channel: usize,
    /// From where it was called, where there is more than one who can call.
    pub(super) from: Option<IpAddr>,
    pub(super) stream: Stream,
    /// Since when it is there, where its other end is the guest's own process's.
    pub(super) of_qemu: Option<Millis>,
    /// Made at the first byte: most channels are silent most of the time.
    listener: Option<Box<Listener>>,
    opened: Millis,
    scheduled: Option<Millis>,
    pub(super) listing: Option<Listing>,
    /// Since when a session of our own wire is established.
    pub(super) session: Option<Millis>,
    heard: bool,
    /// When its first byte was read, since it was opened or its guest was reset.
    first: Option<Millis>,
    /// When bytes were last written.
    said: Option<Millis>,
    /// What is read until the stream has no more for the first time was there before it was connected, or its guest was
    /// reset, and is discarded, however late this bridge comes to read it.
    old: bool,
    /// The other end has closed it; there may be bytes before that.
    ends: bool,
}

impl Connection {
    /// Nothing waits to be sent.
    pub(super) fn has_sent_all(&self) -> bool {
        self.listener.as_ref().is_none_or(|listener| listener.transmit().is_empty())
    }

    /// Nothing that was written lately waits to be taken. What nobody has taken for so long, nobody waits for.
    pub(super) fn is_all_taken(&self, now: Millis) -> bool {
        self.said.is_none_or(|said| now.since(said) >= TAKE_TIME) || self.stream.is_all_taken()
    }

    /// The listener; none while no byte has come.
    pub(super) fn listener(&mut self) -> Option<&mut Listener> {
        self.listener.as_deref_mut()
    }

    fn is_over(&self) -> bool {
        self.listener.as_ref().is_some_and(|listener| listener.is_over())
    }

    pub(super) fn is_proved(&self) -> bool {
        self.listener.as_ref().is_some_and(|listener| listener.is_proved())
    }

    fn flush(&mut self, now: Millis) -> io::Result<()> {
        let Some(listener) = &mut self.listener else {
            return Ok(());
        };
        while !listener.transmit().is_empty() {
            match self.stream.write(listener.transmit()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    self.said = Some(now);
                    listener.sent(sent, now);
                }
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// Answers a request, if it is still out, and sends as much of that as goes at once.
    pub(super) fn answer(&mut self, id: RequestId, answer: Answer<'_>, details: Details, now: Millis) {
        if let Some(listener) = self.listener() {
            // Gone: it was withdrawn meanwhile.
            let _ = listener.answer_with(id, answer, details, now);
        }
        // A fault shows itself again at the next turn.
        let _ = self.flush(now);
    }
}

impl Bridge {
    /// Opens a channel, or tries again later, for ever.
    pub(super) fn open_channel(&mut self, at: usize) {
        if self.stopping.is_some() || self.channels[at].may_not_be_opened() {
            return;
        }
        // Its own, and not that of a turn in which thousands are opened: from here on old bytes are told from new ones.
        let now = clock::now();
        let opened = self.channels[at].spec.open().and_then(|opened| match opened {
            Opened::Stream(stream) => self.connect(at, stream, None, now),
            Opened::Calls(calls) => self.listen_on(at, calls),
        });
        let channel = &mut self.channels[at];
        let Err(why) = opened else { return };
        let why = why.to_string();
        if channel.why.as_ref() != Some(&why) {
            tracing::warn!(channel = channel.name, why, "the channel cannot be opened; trying again until it can");
            channel.why = Some(why);
        }
        self.open_later(at, now);
    }

    pub(super) fn open_later(&mut self, at: usize, now: Millis) {
        let channel = &mut self.channels[at];
        let again = now.plus(channel.retry);
        channel.retry = Millis(channel.retry.0 * 2).min(RETRY_MAX);
        self.at(again, Timer::Open(at));
    }

    fn listen_on(&mut self, at: usize, mut calls: Calls) -> io::Result<()> {
        let token = self.token();
        calls.register(self.poll.registry(), Token(token))?;
        self.listeners.insert(token, at);
        let channel = &mut self.channels[at];
        channel.calls = Some(calls);
        channel.why = None;
        channel.seen.changed(clock::now());
        tracing::info!(channel = channel.name, guest = channel.spec.guest().map(tracing::field::display), "listening");
        Ok(())
    }

    pub(super) fn connect(
        &mut self,
        at: usize,
        mut stream: Stream,
        from: Option<IpAddr>,
        now: Millis,
    ) -> io::Result<()> {
        let channel = &self.channels[at];
        let listener = match &channel.spec {
            ChannelSpec::Guest(_) => None,
            ChannelSpec::Keyed(keyed) => {
                let mut listener = Box::new(Listener::of_packets(keyed.trust.trust().clone(), self.wires.time_to_act));
                listener.opened(&entropy()?, now);
                Some(listener)
            }
        };
        let program = stream.program();
        let is_of_qemu = program.as_deref().is_some_and(is_qemu);
        // What comes on a connection of its own was sent on it.
        let old = listener.is_none();
        let token = self.token();
        stream.register(self.poll.registry(), Token(token))?;
        let channel = &mut self.channels[at];
        channel.why = None;
        channel.ended = None;
        channel.open += 1;
        if channel.open == 1 {
            channel.seen.changed(now);
        }
        if from.is_some() {
            // Tokens count up.
            channel.callers.insert(token);
        }
        match from {
            // Anybody who can reach the port can fill the log with these.
            Some(from) => tracing::debug!(channel = channel.name, %from, "connected"),
            None => {
                let guest = channel.spec.guest().map(tracing::field::display);
                tracing::info!(channel = channel.name, guest, program, is_of_qemu, "connected");
            }
        }
        let (listing, scheduled) = (None, None);
        let connection = Connection {
            channel: at,
            from,
            stream,
            of_qemu: is_of_qemu.then_some(now),
            listener,
            opened: now,
            scheduled,
            listing,
            session: None,
            heard: false,
            first: None,
            said: None,
            old,
            ends: false,
        };
        self.connections.insert(token, connection);
        self.schedule(token);
        self.found_connected(at);
        Ok(())
    }

    /// Who asks on a connection of that channel, from that address, over our own wire or not; none where that guest is not
    /// known.
    pub(super) fn by(&self, channel: usize, from: Option<IpAddr>, is_native: bool) -> Option<By<'_>> {
        let channel = &self.channels[channel];
        match &channel.spec {
            ChannelSpec::Guest(own) => {
                let via = if is_native { Via::Native } else { Via::Classic(own.port) };
                Some(By::Guest(self.roster.member(&own.guest)?, via))
            }
            ChannelSpec::Keyed(keyed) => match Requester::holder(&channel.name, from?) {
                Requester::Holder(holder) => Some(By::Holder(holder, &keyed.group)),
                Requester::Guest(_) => None,
            },
        }
    }

    pub(super) fn from(&self, connection: usize) -> Option<IpAddr> {
        self.connections.get(&connection)?.from
    }

    fn token(&mut self) -> usize {
        let token = self.next_token;
        self.next_token += 1;
        token
    }

    /// Something can be read, written or accepted.
    pub(super) fn ready(&mut self, token: usize, ends: bool) {
        if let Some(connection) = self.connections.get_mut(&token) {
            connection.ends |= ends;
        }
        if let Some(channel) = self.listeners.get(&token).copied() {
            self.channels[channel].is_again = false;
            if self.accept_callers(channel) {
                self.call_again(channel);
            }
        } else if Token(token) != WAKE {
            self.turn(token);
        }
    }

    /// Writes what waits and reads what has come, up to a bound; the rest in a later turn.
    pub(super) fn turn(&mut self, token: usize) {
        let mut read = 0;
        loop {
            self.pump(token);
            let Some(connection) = self.connections.get_mut(&token) else { return };
            if read >= TURN {
                self.again.push_back(token);
                return;
            }
            match connection.stream.read(&mut self.buffer[..]) {
                Ok(0) => return self.close(token, "the other end closed it"),
                Ok(got) => {
                    connection.heard = true;
                    self.channels[connection.channel].seen.heard();
                    // A stream that gave less than was asked for has no more, and says so when it has; only its end
                    // may have been said already.
                    let drained = connection.stream.short_read_is_all() && !connection.ends && got < self.buffer.len();
                    read += got;
                    let first = *connection.first.get_or_insert_with(clock::now);
                    let (channel, is_old) = (&self.channels[connection.channel], connection.old);
                    connection.old &= !drained;
                    // Whoever that is asks again when it is known who it is.
                    let old = is_old || channel.doubted.is_some() || self.may_have_waited(channel, first);
                    self.take(token, got, old);
                    if drained {
                        return;
                    }
                }
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => {
                    connection.old = false;
                    return;
                }
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return self.close(token, &why.to_string()),
            }
        }
    }

    /// Whether what is read on a connection of that channel may have waited in the guest until somebody connected, and be
    /// dangerous. What a virtio port has kept comes all at once and before anything else, but when it comes is up to the
    /// guest: hours later, where it was suspended meanwhile.
    fn may_have_waited(&self, channel: &Channel, first: Millis) -> bool {
        let is_virtio = matches!(&channel.spec, ChannelSpec::Guest(own) if own.port == PortType::Virtio);
        is_virtio && self.policy.lets_classic_virtio_fence() && clock::now().since(first) < SETTLE
    }

    /// Gives what was read to the listener, and its events to whom they concern.
    fn take(&mut self, token: usize, got: usize, old: bool) {
        self.make_listener(token);
        let mut done = 0;
        while done < got {
            let now = clock::now();
            let Some(connection) = self.connections.get_mut(&token) else { return };
            // Nobody knows yet what may be answered there: whoever asks asks again.
            let Some(listener) = connection.listener.as_deref_mut() else { return };
            let bytes = &self.buffer[done..got];
            done += if old { listener.receive_old(bytes, now) } else { listener.receive(bytes, now) };
            self.pump(token);
        }
    }

    /// Makes the listener of a connection that has none, if it is known what may be answered there.
    fn make_listener(&mut self, token: usize) {
        let Some(connection) = self.connections.get(&token).filter(|connection| connection.listener.is_none()) else {
            return;
        };
        let guest = self.channels[connection.channel].spec.guest();
        let Some(accept) = self.wires.accept(guest.and_then(|guest| self.roster.member(guest))) else { return };
        let Ok(entropy) = entropy() else { return };
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let mut listener = Box::new(Listener::new(accept));
        listener.opened(&entropy, connection.opened);
        connection.listener = Some(listener);
    }

    /// What may be answered to guests has changed: their listeners are made anew. Nobody waits for a reply of the old ones.
    pub(super) fn listen_anew(&mut self) {
        let is_guests =
            |connection: &Connection| matches!(self.channels[connection.channel].spec, ChannelSpec::Guest(_));
        let tokens: Vec<usize> =
            self.connections.iter().filter(|(_, open)| is_guests(open)).map(|(token, _)| *token).collect();
        for token in tokens {
            if let Some(listener) = self.connections.get_mut(&token).and_then(Connection::listener) {
                listener.closed(clock::now());
                self.pump(token);
            }
            if let Some(connection) = self.connections.get_mut(&token) {
                connection.listener = None;
                connection.session = None;
                connection.scheduled = None;
            }
        }
    }

    /// Hands out a connection's events, sends what that gave, and sees to its timer.
    pub(super) fn pump(&mut self, token: usize) {
        loop {
            let Some(connection) = self.connections.get_mut(&token) else { return };
            let now = clock::now();
            if let Err(why) = connection.flush(now) {
                return self.close(token, &why.to_string());
            }
            let Some(event) = connection.listener().and_then(Listener::poll) else {
                break;
            };
            self.event(token, event, now);
        }
        if self.connections.get(&token).is_some_and(Connection::is_over) {
            return self.close(token, "all is said");
        }
        self.schedule(token);
    }

    fn event(&mut self, token: usize, event: Event, now: Millis) {
        match event {
            Event::Asked(id, request) => self.asked(token, id, request),
            Event::EntryWanted(id) => self.next_entry(token, id),
            Event::Withdrawn(id) => self.withdrawn(token, id),
            Event::Refused(refusal) => self.refused(token, refusal, now),
        }
    }

    fn schedule(&mut self, token: usize) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let Some(wake_at) = connection.listener.as_ref().and_then(|listener| listener.wake_at()) else { return };
        if connection.scheduled.is_none_or(|at| wake_at < at) {
            connection.scheduled = Some(wake_at);
            self.at(wake_at, Timer::Connection(token));
        }
    }

    pub(super) fn wake_connection(&mut self, token: usize, now: Millis) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        connection.scheduled = None;
        if let Some(listener) = connection.listener() {
            listener.wake(now);
        }
        self.pump(token);
    }

    pub(super) fn end(&mut self, token: usize, why: &str) -> Option<Connection> {
        let mut connection = self.connections.remove(&token)?;
        let _ = connection.stream.deregister(self.poll.registry());
        let channel = &mut self.channels[connection.channel];
        channel.open -= 1;
        if channel.open == 0 {
            channel.seen.changed(clock::now());
            channel.ended = Some(why.to_owned());
        }
        channel.callers.remove(&token);
        match connection.from {
            Some(from) if !connection.is_over() && !connection.is_proved() && channel.may_log_refusal(clock::now()) => {
                let hint = "it may have another key or another auth than channel.auth, or be no fence agent at all";
                tracing::warn!(channel = channel.name, %from, why, hint, "a caller went away before its proof");
            }
            Some(from) => tracing::debug!(channel = channel.name, %from, why, "connection ended"),
            None => {
                let guest = channel.spec.guest().map(tracing::field::display);
                tracing::info!(channel = channel.name, guest, why, "connection ended");
            }
        }
        self.connection_gone(token);
        Some(connection)
    }

    /// Ends a connection; its channel is opened again, or the next caller served.
    pub(super) fn close(&mut self, token: usize, why: &str) {
        let Some(connection) = self.end(token, why) else { return };
        let now = clock::now();
        let at = connection.channel;
        let channel = &mut self.channels[at];
        if channel.retired {
            return;
        }
        if channel.listens() {
            // Whoever waits was told of already, and is let in now that there is room.
            return self.call_again(at);
        }
        // One that is closed as soon as it is opened is not tried in a tight circle.
        if connection.heard || now.since(connection.opened) >= RETRY_MAX {
            channel.retry = RETRY;
        }
        if channel.place.is_some() {
            return self.found_closed(at);
        }
        self.open_later(at, now);
    }

    /// Closes a channel for good.
    pub(super) fn retire(&mut self, at: usize, why: &str) {
        let channel = &mut self.channels[at];
        channel.retired = true;
        tracing::info!(channel = channel.name, why, "this channel is closed for good");
        if channel.calls.take().is_some() {
            channel.spec.clean_up();
            self.listeners.retain(|_, channel| *channel != at);
        }
        let tokens: Vec<usize> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.channel == at)
            .map(|(token, _)| *token)
            .collect();
        for token in tokens {
            self.end(token, why);
        }
    }

    /// The guest was ended or started: nobody waits for a reply at its end of its channels, and what comes from there
    /// within the next moments may be from before.
    pub(super) fn guest_was_reset(&mut self, guest: Uuid, now: Millis) {
        let member = |channel: &Channel| channel.spec.guest().and_then(|member| self.roster.member(member));
        let its = |connection: &Connection| member(&self.channels[connection.channel]) == Some(guest);
        let tokens: Vec<usize> =
            self.connections.iter().filter(|(_, connection)| its(connection)).map(|(token, _)| *token).collect();
        for token in tokens {
            let Some(connection) = self.connections.get_mut(&token) else {
                continue;
            };
            connection.listing = None;
            connection.session = None;
            match connection.listener() {
                Some(listener) => listener.guest_was_reset(now),
                None => connection.opened = now,
            }
            (connection.old, connection.first) = (true, None);
            self.again.push_back(token);
            self.pump(token);
        }
    }
}

impl Drop for Bridge {
    /// Takes the sockets away that were made, so that callers are refused at once.
    fn drop(&mut self) {
        for channel in self.channels.iter().filter(|channel| channel.listens()) {
            channel.spec.clean_up();
        }
    }
}

// A turn reads into one buffer that all connections share.
const _: () = assert!(TURN <= 4_096 && Duration::from_secs(1).as_millis() as u64 == RETRY_MAX.0);
