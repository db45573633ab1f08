//! A program whose name begins as QEMU's does, and which the kernel takes for the one that listens on a socket of the
//! test's: it is given that as its standard input. For the rest the test does what a QEMU would.

use std::io::{self, Write as _};
use std::thread;

use rustix::net::listen;

fn main() -> io::Result<()> {
    listen(io::stdin(), 128)?;
    println!("listening");
    io::stdout().flush()?;
    loop {
        // It is killed when the test is done with it.
        thread::park();
    }
}
