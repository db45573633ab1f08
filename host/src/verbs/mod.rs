//! What `fencewired` can be told to do, a file for each verb. Not here: the command line.
//!
//! Each gives the text for standard error where it fails.

pub(crate) mod attach;
pub(crate) mod check;
pub(crate) mod keys;
pub(crate) mod serve;
pub(crate) mod status;

use fencewired::config::{self, Config, Findings, HypervisorConfig};
use fencewired::power::hypervisor::{Guest, HypervisorError, Source};
use fencewired::power::libvirt::LibvirtSource;
use std::path::Path;

/// A configuration and what there is to say of it; or all that as the error.
pub(crate) fn load(file: &Path) -> Result<(Config, Findings), String> {
    let loaded = config::load(file);
    match loaded.config {
        Some(config) => Ok((config, loaded.findings)),
        None => Err(loaded.findings.to_string()),
    }
}

pub(crate) fn guests_of(config: &HypervisorConfig) -> Result<Vec<Guest>, HypervisorError> {
    LibvirtSource::new(&config.uri).connect()?.guests()
}
