//! `fencewired status`: what the daemon that runs says of itself.

use fencewired::config;
use fencewired::control::{ask, table};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

/// No status was to be had.
const NO_STATUS: u8 = 2;

/// Ends with 0 where all is served, with 1 where something is not, and with 2 where nobody says.
pub(crate) fn status(file: &Path, json: bool) -> ExitCode {
    let path = match config::control_socket(file) {
        Ok(path) => path,
        Err(why) => {
            eprintln!("{}: {why}", file.display());
            return ExitCode::from(NO_STATUS);
        }
    };
    match ask::status(&path) {
        Ok((text, snapshot)) => {
            let shown = if json { text } else { table::table(&snapshot) };
            // Whoever reads this may have seen enough.
            let _ = io::stdout().write_all(shown.as_bytes());
            if snapshot.all_served { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(why) => {
            eprintln!("fencewired: {}: {why}", path.display());
            ExitCode::from(NO_STATUS)
        }
    }
}
