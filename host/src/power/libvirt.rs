//! libvirt behind the [`Hypervisor`] trait.
//!
//! Each worker has a connection of its own: libvirtd serves five calls at once for a client, and a call that hangs
//! must not stand in another's way. The exception is libvirt's test driver, whose guests live in the connection.

use super::Order;
use super::hypervisor::{Guest, Hypervisor, HypervisorError, Sighting, Source, State, Tell, Watch};
use super::incarnation::{self, Incarnation};
use crate::discover::events;
use fencewire_core::Uuid;
use std::sync::{Arc, Mutex, PoisonError};
use virt::connect::Connect;
use virt::domain::Domain;
use virt::enumutil::Enum;
use virt::error::{Error, ErrorNumber};
use virt::sys;

/// Opens connections to one libvirt URI.
#[derive(Debug, Clone)]
pub struct LibvirtSource {
    uri: String,
    shared: Option<Arc<Mutex<Option<Arc<Libvirt>>>>>,
}

impl LibvirtSource {
    /// For a URI. Opens nothing yet.
    pub fn new(uri: &str) -> LibvirtSource {
        // Errors are returned by each call; without this, libvirt prints them to standard error as well.
        virt::error::clear_error_callback();
        let lives_in_connection = uri.starts_with("test:");
        LibvirtSource { uri: uri.to_owned(), shared: lives_in_connection.then(Arc::default) }
    }

    fn open(&self) -> Result<Arc<Libvirt>, HypervisorError> {
        match Connect::open(Some(&self.uri)) {
            Ok(connect) => Ok(Arc::new(Libvirt { connect, local: self.shared.is_some() })),
            Err(why) => Err(HypervisorError::Unreachable(format!("{}: {}", self.uri, why.message()))),
        }
    }

    /// A connection of one's own, or the one that there is where the guests live in it.
    fn libvirt(&self) -> Result<Arc<Libvirt>, HypervisorError> {
        let Some(shared) = &self.shared else {
            return self.open();
        };
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = &*shared {
            return Ok(open.clone());
        }
        let open = self.open()?;
        *shared = Some(open.clone());
        Ok(open)
    }
}

impl Source for LibvirtSource {
    fn connect(&self) -> Result<Arc<dyn Hypervisor>, HypervisorError> {
        Ok(self.libvirt()?)
    }

    fn watch(&self, tell: Tell) -> Option<Watch> {
        let source = self.clone();
        let open = move || match source.libvirt() {
            Ok(open) => Ok(open as Arc<dyn events::Connection>),
            Err(why) => Err(why.to_string()),
        };
        events::watch(Box::new(open), tell)
    }
}

/// One connection to libvirt.
#[derive(Debug)]
struct Libvirt {
    connect: Connect,
    /// In this process: there is nobody at its other end who could go away.
    local: bool,
}

impl Libvirt {
    fn domain(&self, guest: Uuid) -> Result<Domain, HypervisorError> {
        self.connect.lookup_domain_by_uuid_string(&guest.to_string()).map_err(|why| error(&why))
    }
}

impl events::Connection for Libvirt {
    fn handle(&self) -> sys::virConnectPtr {
        // SAFETY: it is closed when this is dropped, and not before.
        unsafe { self.connect.as_ptr() }
    }
}

impl Hypervisor for Libvirt {
    fn is_alive(&self) -> bool {
        // A connection whose libvirtd was restarted looks alive until it is used: ask something that goes there and back.
        self.local || (self.connect.is_alive().unwrap_or(false) && self.connect.lib_version().is_ok())
    }

    fn guests(&self) -> Result<Vec<Guest>, HypervisorError> {
        let domains = self.connect.list_all_domains(0).map_err(|why| error(&why))?;
        let mut guests = Vec::with_capacity(domains.len());
        for domain in domains {
            let uuid = domain.uuid_string().map_err(|why| error(&why))?;
            let uuid = Uuid::parse(uuid.as_bytes())
                .ok_or_else(|| HypervisorError::Failed(format!("libvirt gave {uuid:?} for a UUID")))?;
            let name = domain.name().map_err(|why| error(&why))?;
            match state(&domain) {
                Ok(state) => guests.push(Guest { uuid, name, state }),
                // It went away since the list was made.
                Err(HypervisorError::NoSuchGuest) => {}
                Err(why) => return Err(why),
            }
        }
        Ok(guests)
    }

    fn xml(&self, guest: Uuid) -> Result<String, HypervisorError> {
        self.domain(guest)?.xml_desc(0).map_err(|why| error(&why))
    }

    fn state(&self, guest: Uuid) -> Result<Guest, HypervisorError> {
        let domain = self.domain(guest)?;
        Ok(Guest { uuid: guest, name: domain.name().map_err(|why| error(&why))?, state: state(&domain)? })
    }

    fn look(&self, guest: Uuid) -> Result<Sighting, HypervisorError> {
        let domain = self.domain(guest)?;
        let name = domain.name().map_err(|why| error(&why))?;
        let state = state(&domain)?;
        // A driver that knows no managed save has no image; one that fails to say may have one.
        let saved = match domain.has_managed_save(0) {
            Ok(saved) => saved,
            Err(why) if is(&why, ErrorNumber::NoSupport) => false,
            Err(why) => return Err(error(&why)),
        };
        let persistent = domain.is_persistent().map_err(|why| error(&why))?;
        Ok(Sighting { name, state, job: job_runs(&domain)?, saved, persistent })
    }

    fn incarnation(&self, guest: Uuid) -> Result<Option<Incarnation>, HypervisorError> {
        let domain = self.domain(guest)?;
        match domain.metadata(ELEMENT, Some(incarnation::NAMESPACE), sys::VIR_DOMAIN_AFFECT_LIVE) {
            Ok(xml) => Ok(incarnation::from_xml(&xml)),
            // It has none, or does not run, or its driver has no metadata.
            Err(why)
                if is(&why, ErrorNumber::NoDomainMetadata)
                    || is(&why, ErrorNumber::OperationInvalid)
                    || is(&why, ErrorNumber::NoSupport) =>
            {
                Ok(None)
            }
            Err(why) => Err(error(&why)),
        }
    }

    fn mark(&self, guest: Uuid, incarnation: Incarnation) -> Result<(), HypervisorError> {
        let (xml, key) = (incarnation::to_xml(incarnation), Some(incarnation::PREFIX));
        let (namespace, flags) = (Some(incarnation::NAMESPACE), sys::VIR_DOMAIN_AFFECT_LIVE);
        self.domain(guest)?.set_metadata(ELEMENT, Some(&xml), key, namespace, flags).map_err(|why| error(&why))
    }

    fn destroy(&self, order: &Order) -> Result<(), HypervisorError> {
        self.domain(order.target())?.destroy().map_err(|why| error(&why))
    }

    fn start(&self, order: &Order) -> Result<(), HypervisorError> {
        let domain = self.domain(order.target())?;
        match domain.create_with_flags(sys::VIR_DOMAIN_START_FORCE_BOOT) {
            // A driver that does not know the flag knows no saved state either, unless it says so.
            Err(why) if is(&why, ErrorNumber::InvalidArg) && !domain.has_managed_save(0).unwrap_or(true) => {
                domain.create().map_err(|why| error(&why))
            }
            started => started.map_err(|why| error(&why)),
        }
    }

    fn abort_job(&self, order: &Order) -> Result<(), HypervisorError> {
        abort_job(&self.domain(order.target())?)
    }

    fn remove_saved(&self, order: &Order) -> Result<(), HypervisorError> {
        self.domain(order.target())?.managed_save_remove(0).map_err(|why| error(&why))
    }
}

/// Metadata that is an element of a namespace of its own.
const ELEMENT: i32 = sys::VIR_DOMAIN_METADATA_ELEMENT.cast_signed();

/// The crate's own `Domain::state` returns success, with a state of -1, for a call that failed.
fn state(domain: &Domain) -> Result<State, HypervisorError> {
    let (mut state, mut reason) = (-1, -1);
    // SAFETY: the pointer is the live domain's, for as long as `domain` is borrowed; libvirt writes two integers.
    let result = unsafe { sys::virDomainGetState(domain.as_ptr(), &raw mut state, &raw mut reason, 0) };
    if result < 0 {
        return Err(error(&Error::last_error()));
    }
    Ok(match (state.cast_unsigned(), reason.cast_unsigned()) {
        (sys::VIR_DOMAIN_RUNNING | sys::VIR_DOMAIN_BLOCKED | sys::VIR_DOMAIN_SHUTDOWN, _) => State::Running,
        (
            sys::VIR_DOMAIN_PAUSED,
            sys::VIR_DOMAIN_PAUSED_MIGRATION | sys::VIR_DOMAIN_PAUSED_POSTCOPY | sys::VIR_DOMAIN_PAUSED_POSTCOPY_FAILED,
        ) => State::Migrating,
        (sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_UNKNOWN | sys::VIR_DOMAIN_PAUSED_STARTING_UP) => {
            State::Underway
        }
        (sys::VIR_DOMAIN_PAUSED | sys::VIR_DOMAIN_PMSUSPENDED, _) => State::Paused,
        (sys::VIR_DOMAIN_SHUTOFF, sys::VIR_DOMAIN_SHUTOFF_MIGRATED) => State::OffMigrated,
        (sys::VIR_DOMAIN_SHUTOFF, _) => State::Off,
        (sys::VIR_DOMAIN_CRASHED, _) => State::Crashed,
        _ => State::NoState,
    })
}

/// The crate has no call for this.
fn abort_job(domain: &Domain) -> Result<(), HypervisorError> {
    // SAFETY: the pointer is the live domain's, for as long as `domain` is borrowed.
    match unsafe { sys::virDomainAbortJob(domain.as_ptr()) } {
        0 => Ok(()),
        _ => Err(error(&Error::last_error())),
    }
}

fn job_runs(domain: &Domain) -> Result<bool, HypervisorError> {
    if is_occupied(domain) {
        return Ok(false);
    }
    match domain.job_info() {
        Ok(job) => Ok(job.r#type != sys::VIR_DOMAIN_JOB_NONE.cast_signed()),
        // Drivers without jobs, and guests that do not run, have none.
        Err(why) if is(&why, ErrorNumber::NoSupport) || is(&why, ErrorNumber::OperationInvalid) => Ok(false),
        Err(why) => Err(error(&why)),
    }
}

/// Whether libvirt is in a call to the guest that belongs to no job. To ask for the job would be to wait for the end of
/// that call, half a minute if the guest hangs; and while one is known of, there is no job.
fn is_occupied(domain: &Domain) -> bool {
    let mut info = sys::virDomainControlInfo { state: 0, details: 0, stateTime: 0 };
    // SAFETY: the pointer is the live domain's, for as long as `domain` is borrowed; libvirt writes one structure.
    let result = unsafe { sys::virDomainGetControlInfo(domain.as_ptr(), &raw mut info, 0) };
    // A driver that does not say, or a guest that does not run, is asked for its job.
    result == 0
        && match info.state {
            sys::VIR_DOMAIN_CONTROL_OCCUPIED => true,
            sys::VIR_DOMAIN_CONTROL_ERROR => info.details == sys::VIR_DOMAIN_CONTROL_ERROR_REASON_INTERNAL,
            _ => false,
        }
}

fn is(why: &Error, number: ErrorNumber) -> bool {
    why.code() == Enum::Known(number)
}

fn error(why: &Error) -> HypervisorError {
    let message = why.message().to_owned();
    match why.code() {
        Enum::Known(ErrorNumber::NoDomain) => HypervisorError::NoSuchGuest,
        Enum::Known(
            ErrorNumber::Rpc
            | ErrorNumber::NoConnect
            | ErrorNumber::InvalidConn
            | ErrorNumber::SystemError
            | ErrorNumber::GnutlsError,
        ) => HypervisorError::Unreachable(message),
        _ => HypervisorError::Failed(message),
    }
}
