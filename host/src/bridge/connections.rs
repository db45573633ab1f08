//! Channels opened, read, written, closed and opened again. Bytes go to the core's `Listener`, whose events go to
//! [`super::requests`].

use super::requests::Listing;
use super::{Bridge, Timer, WAKE, name_of};
use crate::channels::{self, ChannelKind, ChannelSpec, Stream};
use crate::clock;
use fencewire_core::words::ENTROPY_LEN;
use fencewire_core::{Accept, Answer, Endpoint, Entropy, Event, Listener, Millis, Refusal, RequestId, Uuid};
use mio::net::UnixListener;
use mio::{Interest, Token};
use std::io::{self, Read, Write};
use std::time::Duration;

/// Between two tries to open a channel: at first, and at most.
const RETRY: Millis = Millis(50);
const RETRY_MAX: Millis = Millis(1_000);

/// Connections at a time on a channel that listens. More wait until one goes.
const CALLERS: usize = 4;

/// Bytes read from one connection before the others have their turn.
const TURN: usize = 4_096;

/// Refusals of one connection that are logged in a minute.
const REFUSALS_LOGGED: u32 = 20;

/// A channel and the state of opening it.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) spec: ChannelSpec,
    pub(super) name: String,
    retry: Millis,
    /// Why it could not be opened last; said once in the log.
    why: Option<String>,
    listener: Option<UnixListener>,
    open: usize,
}

impl Channel {
    pub(super) fn new(spec: ChannelSpec) -> Channel {
        Channel { name: name_of(&spec), spec, retry: RETRY, why: None, listener: None, open: 0 }
    }
}

/// One open connection of a channel.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) channel: usize,
    stream: Stream,
    /// Made at the first byte: most channels are silent most of the time.
    listener: Option<Box<Listener>>,
    opened: Millis,
    scheduled: Option<Millis>,
    pub(super) listing: Option<Listing>,
    heard: bool,
    /// What is read until the stream has no more for the first time was there before it was connected, or its guest was
    /// reset, and is discarded, however late this bridge comes to read it.
    old: bool,
    /// The other end has closed it; there may be bytes before that.
    ends: bool,
    refusals: (Millis, u32),
}

impl Connection {
    /// Nothing waits to be sent.
    pub(super) fn has_sent_all(&self) -> bool {
        self.listener.as_ref().is_none_or(|listener| listener.transmit().is_empty())
    }

    /// The listener; none while no byte has come.
    pub(super) fn listener(&mut self) -> Option<&mut Listener> {
        self.listener.as_deref_mut()
    }

    fn listen(&mut self, accept: Accept) -> &mut Listener {
        let opened = self.opened;
        self.listener.get_or_insert_with(|| {
            let mut listener = Box::new(Listener::new(accept));
            listener.opened(&Entropy([0; ENTROPY_LEN]), opened);
            listener
        })
    }

    fn flush(&mut self, now: Millis) -> io::Result<()> {
        let Some(listener) = &mut self.listener else {
            return Ok(());
        };
        while !listener.transmit().is_empty() {
            match self.stream.write(listener.transmit()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => listener.sent(sent, now),
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// Answers a request, if it is still out, and sends as much of that as goes at once.
    pub(super) fn answer(&mut self, id: RequestId, answer: Answer<'_>, now: Millis) {
        if let Some(listener) = self.listener() {
            // Gone: it was withdrawn meanwhile.
            let _ = listener.answer(id, answer, now);
        }
        // A fault shows itself again at the next turn.
        let _ = self.flush(now);
    }

    /// Whether to speak of a refusal: not where too many were spoken of lately.
    fn may_log_refusal(&mut self, now: Millis) -> bool {
        let (since, count) = &mut self.refusals;
        if now.since(*since) >= Millis(60_000) {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        if *count == REFUSALS_LOGGED {
            tracing::warn!("more like the following on this channel are not logged for a minute");
        }
        *count <= REFUSALS_LOGGED
    }
}

impl Bridge {
    /// Opens a channel, or tries again later, for ever.
    pub(super) fn open_channel(&mut self, at: usize) {
        if self.stopping.is_some() {
            return;
        }
        // Its own, and not that of a turn in which thousands are opened: from here on old bytes are told from new ones.
        let now = clock::now();
        let channel = &mut self.channels[at];
        let opened = match channel.spec.kind {
            ChannelKind::UnixListen { mode } => self.listen_on(at, mode),
            _ => channel.spec.open().and_then(|stream| self.connect(at, stream, now)),
        };
        let channel = &mut self.channels[at];
        let Err(why) = opened else { return };
        let why = why.to_string();
        if channel.why.as_ref() != Some(&why) {
            tracing::warn!(channel = channel.name, why, "the channel cannot be opened; trying again until it can");
            channel.why = Some(why);
        }
        self.open_later(at, now);
    }

    fn open_later(&mut self, at: usize, now: Millis) {
        let channel = &mut self.channels[at];
        let again = now.plus(channel.retry);
        channel.retry = Millis(channel.retry.0 * 2).min(RETRY_MAX);
        self.at(again, Timer::Open(at));
    }

    fn listen_on(&mut self, at: usize, mode: u32) -> io::Result<()> {
        let mut listener = channels::listen(&self.channels[at].spec.path, mode)?;
        let token = self.token();
        self.poll.registry().register(&mut listener, Token(token), Interest::READABLE)?;
        self.listeners.insert(token, at);
        let channel = &mut self.channels[at];
        channel.listener = Some(listener);
        channel.why = None;
        tracing::info!(channel = channel.name, guest = %channel.spec.guest, "listening");
        Ok(())
    }

    fn connect(&mut self, at: usize, mut stream: Stream, now: Millis) -> io::Result<()> {
        let token = self.token();
        stream.register(self.poll.registry(), Token(token))?;
        let channel = &mut self.channels[at];
        channel.why = None;
        channel.open += 1;
        tracing::info!(channel = channel.name, guest = %channel.spec.guest, "connected");
        let connection = Connection {
            channel: at,
            stream,
            listener: None,
            opened: now,
            scheduled: None,
            listing: None,
            heard: false,
            old: true,
            ends: false,
            refusals: (now, 0),
        };
        self.connections.insert(token, connection);
        Ok(())
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
            self.accept_callers(channel);
        } else if Token(token) != WAKE {
            self.turn(token);
        }
    }

    fn accept_callers(&mut self, at: usize) {
        while self.channels[at].open < CALLERS && self.stopping.is_none() {
            let Some(listener) = &self.channels[at].listener else { return };
            match listener.accept() {
                Ok((stream, _)) => {
                    if let Err(why) = self.connect(at, Stream::Unix(stream), clock::now()) {
                        tracing::warn!(channel = self.channels[at].name, %why, "a caller could not be served");
                    }
                }
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => return,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => {
                    // Out of descriptors, say: those that go free them.
                    tracing::warn!(channel = self.channels[at].name, %why, "a caller could not be accepted");
                    return;
                }
            }
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
                    // A stream that gave less than was asked for has no more, and says so when it has; only its end
                    // may have been said already.
                    let is_stream = matches!(connection.stream, Stream::Unix(_));
                    let drained = is_stream && !connection.ends && got < self.buffer.len();
                    read += got;
                    let old = connection.old;
                    connection.old &= !drained;
                    if !old {
                        self.take(token, got);
                    }
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

    /// Gives what was read to the listener, and its events to whom they concern.
    fn take(&mut self, token: usize, got: usize) {
        let mut done = 0;
        while done < got {
            let now = clock::now();
            let Some(connection) = self.connections.get_mut(&token) else { return };
            done += connection.listen(self.accept).receive(&self.buffer[done..got], now);
            self.pump(token);
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

    fn refused(&mut self, token: usize, refusal: Refusal, now: Millis) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        if !connection.may_log_refusal(now) {
            return;
        }
        let channel = &self.channels[connection.channel];
        let (name, guest) = (&channel.name, &channel.spec.guest);
        match refusal {
            Refusal::Noise(bytes) => tracing::warn!(channel = name, %guest, bytes, "bytes that belong to no frame"),
            Refusal::Torn(bytes) => tracing::warn!(channel = name, %guest, bytes, "a frame stopped before its end"),
            Refusal::Malformed(why) => {
                tracing::warn!(channel = name, %guest, %why, "a frame that says nothing: answered with \"failed\"");
            }
            Refusal::TooMany => {
                tracing::warn!(channel = name, %guest, "more requests at once than are held: one dropped");
            }
            Refusal::Superseded => {
                tracing::warn!(channel = name, %guest, "a request that nobody waits for was dropped");
            }
            Refusal::Unproved(_) | Refusal::WrongProof | Refusal::Reflection | Refusal::TooSlow => {
                tracing::warn!(channel = name, %guest, ?refusal, "not heard");
            }
            Refusal::ReplyNotRead => tracing::warn!(channel = name, %guest, "nobody read the reply: dropped"),
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

    /// Ends a connection; its channel is opened again.
    pub(super) fn close(&mut self, token: usize, why: &str) {
        let Some(mut connection) = self.connections.remove(&token) else { return };
        let now = clock::now();
        let _ = connection.stream.deregister(self.poll.registry());
        let at = connection.channel;
        let channel = &mut self.channels[at];
        channel.open -= 1;
        tracing::info!(channel = channel.name, guest = %channel.spec.guest, why, "connection ended");
        self.connection_gone(token);
        let channel = &mut self.channels[at];
        if channel.listener.is_some() {
            return self.accept_callers(at);
        }
        // One that is closed as soon as it is opened is not tried in a tight circle.
        if connection.heard || now.since(connection.opened) >= RETRY_MAX {
            channel.retry = RETRY;
        }
        self.open_later(at, now);
    }

    /// The guest was ended or started: nobody waits for a reply at its end of its channels, and what comes from there
    /// within the next moments may be from before.
    pub(super) fn guest_was_reset(&mut self, guest: Uuid, now: Millis) {
        let its =
            |connection: &Connection| self.roster.member(&self.channels[connection.channel].spec.guest) == Some(guest);
        let tokens: Vec<usize> =
            self.connections.iter().filter(|(_, connection)| its(connection)).map(|(token, _)| *token).collect();
        for token in tokens {
            let Some(connection) = self.connections.get_mut(&token) else {
                continue;
            };
            connection.listing = None;
            match connection.listener() {
                Some(listener) => listener.guest_was_reset(now),
                None => connection.opened = now,
            }
            connection.old = true;
            self.again.push_back(token);
            self.pump(token);
        }
    }
}

impl Drop for Bridge {
    /// Takes the sockets away that were made, so that callers are refused at once.
    fn drop(&mut self) {
        for channel in &self.channels {
            if channel.listener.is_some() {
                let _ = std::fs::remove_file(&channel.spec.path);
            }
        }
    }
}

// A turn reads into one buffer that all connections share.
const _: () = assert!(TURN <= 4_096 && Duration::from_secs(1).as_millis() as u64 == RETRY_MAX.0);
