//! Doing what was ordered: ask once, say what came, and the exit code. Not here: how the channel is found and opened
//! (see `find`, `channel`), and what is repeated when (the core's client).

use crate::channel::Channel;
use crate::find::find;
use crate::list::write_line;
use crate::metadata::{write_help, write_metadata, write_version};
use crate::options::{Given, INPUT_MAX, read_input};
use crate::order::{Job, Order};
use crate::system::{Errno, Exit, Path, System};
use crate::text::{Facts, Output, say, texts};
use crate::texts::Text;
use crate::trouble::{Broken, Told, Trouble};
use fencewire_core::driver::Driver;
use fencewire_core::words::ENTROPY_LEN;
use fencewire_core::{BadName, Client, Entropy, Millis, Power, Reply, Speak, Unspeakable};

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
        Job::Validate => _ = find(system, order.device, &mut Path::new())?,
        Job::Power(_) | Job::Status | Job::Monitor | Job::List | Job::ListStatus => return exchange(system, order),
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
    let mut client =
        client(order, system.random(), deadline).map_err(|bad| Trouble::bad_name(order.guest, bad).tell(system))?;

    let mut path = Path::new();
    let way = find(system, order.device, &mut path)?;
    if order.delay > Millis(0) {
        system.pause(order.delay);
    }
    let mut channel = Channel::new(system, begin, deadline);
    channel.open(&path, way, order.line).map_err(|errno| Trouble::channel(path.as_bytes(), errno).tell(system))?;
    if order.debug {
        let idle = if order.has_idle { Text::NoEffect } else { Text::Nothing };
        let facts =
            Facts { b: path.as_bytes(), texts: texts(idle, Text::Nothing), number: channel.dropped(), ..Facts::NONE };
        say(system, Text::Asking, &facts);
    }

    let mut output = Output::new(system);
    match converse(system, order, &mut client, &mut channel, &mut output) {
        Ok(Exit::Done) => finish(system, &mut output),
        Ok(exit) => Ok(exit),
        Err(broken) => Err(broken.tell(system, order, path.as_bytes(), channel.asked())),
    }
}

#[inline(never)]
fn client(order: &Order<'_>, random: u32, deadline: Millis) -> Result<Client, BadName> {
    // Odd: a name that loses a byte on the way then runs into a byte that is not 0, and is no name.
    let seqno = random | 1;
    Client::new(Speak::ClassicSerial { seqno }, &order.ask()?, deadline).map_err(|Unspeakable::Name(bad)| bad)
}

/// Asks, and puts what comes into `output`.
fn converse<S: System>(
    system: &S,
    order: &Order<'_>,
    client: &mut Client,
    channel: &mut Channel<'_, S>,
    output: &mut Output<'_, S>,
) -> Result<Exit, Broken> {
    let mut driver = Driver::open(client, channel, &Entropy([0; ENTROPY_LEN]));
    loop {
        return match driver.reply().map_err(Broken::Lost)? {
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
            Reply::Failed | Reply::NotDone(_) => Err(Broken::Failed),
            Reply::Denied => Err(Broken::Denied),
            Reply::TimedOut => Err(Broken::Lost(Errno::TIMEDOUT)),
            // What the serial wire cannot say is there for the compiler.
            Reply::Closed | Reply::Dropped | Reply::NotProved => Err(Broken::Lost(Errno::BADF)),
        };
    }
}

/// The words are fence_virt's, for people. The exit code is what counts, whether anybody reads them or not.
fn status<S: System>(system: &S, words: Text, exit: Exit) -> Exit {
    words.write(system);
    exit
}

#[cfg(test)]
mod tests;
