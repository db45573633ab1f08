//! Doing what was ordered: ask once, say what came, and the exit code. Not here: how the channel is found and opened
//! (see `find`, `channel`), and what is repeated when (the core's client).

use crate::channel::Channel;
use crate::find::find;
use crate::list::write_line;
use crate::metadata::{write_help, write_metadata, write_version};
use crate::options::{Given, INPUT_MAX, read_input};
use crate::order::{Job, Order};
use crate::secret::{Keys, native_keys, speak_native};
use crate::system::{Errno, Exit, Path, System};
use crate::text::{Facts, Output, say, texts};
use crate::texts::Text;
use crate::trouble::{Broken, Told, Trouble};
use fencewire_core::classic::packet::Fresh;
use fencewire_core::driver::Driver;
use fencewire_core::words::ENTROPY_LEN;
use fencewire_core::{Client, Endpoint, Entropy, Millis, Power, Reply, Signing, Speak, Unspeakable};

/// The whole agent. `arguments` gives those after the program's name, one by one.
pub fn run<'a, S: System>(system: &S, arguments: &mut dyn FnMut() -> Option<&'a [u8]>) -> Exit {
    let done = match arguments() {
        Some(first) => {
            let mut given = Given::new();
            let read = given.read_arguments(first, arguments);
            check(system, &given, read)
        }
        None => {
            let mut room = [0u8; INPUT_MAX];
            let mut given = Given::new();
            let read = read_input(system, &mut room)
                .map(|lines| given.read_lines(lines))
                .map_err(|errno| Trouble::stream(Text::Input, errno));
            check(system, &given, read)
        }
    };
    done.unwrap_or(Exit::Failed)
}

fn check<S: System>(system: &S, given: &Given<'_>, read: Result<(), Trouble<'_>>) -> Result<Exit, Told> {
    let mut order = Order::NEW;
    match read.and_then(|()| order.fill_in(given)) {
        Ok(()) => carry_out(system, &order),
        Err(trouble) => Err(trouble.tell(system)),
    }
}

#[inline(never)]
fn carry_out<S: System>(system: &S, order: &Order<'_>) -> Result<Exit, Told> {
    let mut output = Output::new(system);
    match order.job {
        Job::Help => write_help(&mut output),
        Job::Version => write_version(&mut output),
        Job::Metadata => write_metadata(&mut output),
        _ => return exchange(system, order),
    }
    finish(system, &mut output)
}

fn finish<S: System>(system: &S, output: &mut Output<'_, S>) -> Result<Exit, Told> {
    match output.finish() {
        Ok(()) => Ok(Exit::Done),
        Err(errno) => Err(Trouble::stream(Text::Output, errno).tell(system)),
    }
}

fn exchange<S: System>(system: &S, order: &Order<'_>) -> Result<Exit, Told> {
    let begin = system.now().plus(order.delay);
    let deadline = begin.plus(order.timeout);
    let mut path = Path::new();
    let way = find(system, order, &mut path)?;
    let mut entropy = Entropy([0; ENTROPY_LEN]);
    let mut keys = Keys::keyless();
    let is_native = native_keys(system, order, &mut keys)
        .map_err(|errno| Trouble::key(order.secret.unwrap_or_default(), errno).tell(system))?;
    let keys = is_native.then_some(&keys);
    let mut client = client(system, order, keys, &mut entropy, deadline).map_err(|trouble| trouble.tell(system))?;
    if order.job == Job::Validate {
        return Ok(Exit::Done);
    }

    if order.delay > Millis(0) {
        system.pause(order.delay);
    }
    let mut channel = Channel::new(system, begin, deadline);
    channel
        .open(&path, way, order, keys.is_some())
        .map_err(|errno| Trouble::channel(path.as_bytes(), errno, order.by_tcp).tell(system))?;
    if order.debug {
        let has_idle = order.has_idle || (order.secret.is_some() && keys.is_none());
        let idle = if has_idle { Text::NoEffect } else { Text::Nothing };
        let facts =
            Facts { b: path.as_bytes(), texts: texts(idle, Text::Nothing), number: channel.dropped(), ..Facts::NONE };
        say(system, Text::Asking, &facts);
    }

    let mut output = Output::new(system);
    match converse(system, order, &mut client, &mut channel, &entropy, &mut output) {
        Ok(Exit::Done) => finish(system, &mut output),
        Ok(exit) => Ok(exit),
        Err(broken) => Err(broken.tell(system, order, path.as_bytes(), channel.asked())),
    }
}

#[inline(never)]
fn client<'a, S: System>(
    system: &S,
    order: &Order<'a>,
    keys: Option<&Keys>,
    entropy: &mut Entropy,
    deadline: Millis,
) -> Result<Client, Trouble<'a>> {
    // Odd: a name that loses a byte on the way then runs into a byte that is not 0, and is no name.
    let seqno = system.random() | 1;
    let mut speak = Speak::ClassicSerial { seqno };
    let key;
    if let Some(keys) = keys {
        speak = speak_native(system, keys, entropy).ok_or(Trouble::about(Text::NoEntropy, b""))?;
    } else if order.by_tcp {
        let mut fresh = Fresh { random: [0; 6], seqno };
        if !(system.entropy(&mut entropy.0) && system.entropy(&mut fresh.random)) {
            return Err(Trouble::about(Text::NoEntropy, b""));
        }
        let mut signing = Signing::Nothing;
        if let (Some(hash), Some(auth)) = (order.tcp.hash, order.tcp.auth) {
            key = order.tcp.key(system).map_err(|errno| Trouble::key(order.tcp.key_file, errno))?;
            signing = Signing::Key { key: &key, hash, auth };
        }
        speak = Speak::ClassicPacket { fresh, signing };
    }
    let ask = order.ask().map_err(|bad| Trouble::bad_name(order.guest, bad))?;
    Client::new(speak, &ask, deadline).map_err(|Unspeakable::Name(bad)| Trouble::bad_name(order.guest, bad))
}

/// Asks, and puts what comes into `output`.
fn converse<S: System>(
    system: &S,
    order: &Order<'_>,
    client: &mut Client,
    channel: &mut Channel<'_, S>,
    entropy: &Entropy,
    output: &mut Output<'_, S>,
) -> Result<Exit, Broken> {
    let mut driver = Driver::open(client, channel, entropy);
    loop {
        let reply = match driver.reply() {
            Ok(reply) => reply,
            // Ended by force: who does so before it has proved anything does not like what it was sent, as one who just
            // ends it then.
            Err(Errno::CONNRESET) => {
                driver.end().closed(Millis(0));
                match driver.end().poll() {
                    Some(Reply::Dropped) => Reply::Dropped,
                    _ => return Err(Broken::Lost(Errno::CONNRESET)),
                }
            }
            Err(errno) => return Err(Broken::Lost(errno)),
        };
        return match reply {
            Reply::Entry(entry) => {
                if !write_line(output, &entry, order.job == Job::ListStatus) {
                    say(system, Text::LeftOut, &Facts { a: entry.name(), ..Facts::NONE });
                }
                continue;
            }
            Reply::Done | Reply::EndOfList => Ok(Exit::Done),
            Reply::Power(Power::On) => Ok(status(system, Text::StatusOn, Exit::Done)),
            Reply::Power(Power::Off) => Ok(status(system, Text::StatusOff, Exit::Off)),
            Reply::Power(Power::Unknown) => Err(Broken::Unknown),
            Reply::Failed => Err(Broken::Failed),
            Reply::NotDone(failure) => Err(Broken::NotDone(failure)),
            Reply::Denied => Err(Broken::Denied),
            Reply::TimedOut => Err(Broken::Lost(Errno::TIMEDOUT)),
            Reply::Closed => Err(Broken::Lost(Errno::BADF)),
            Reply::Dropped => Err(Broken::Dropped),
            Reply::NotProved => Err(Broken::NotProved),
        };
    }
}

/// The words are fence_virt's, for people. The exit code is what counts, whether anybody reads them or not.
fn status<S: System>(system: &S, words: Text, exit: Exit) -> Exit {
    words.write(system);
    exit
}

#[cfg(test)]
mod tcp_tests;
#[cfg(test)]
mod tests;
