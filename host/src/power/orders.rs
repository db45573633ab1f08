//! Orders for the tests of this crate, come by as the bridge comes by them: a frame, a ledger, a policy.

use super::held::{Held, SeenOff};
use super::{Earlier, Order};
use crate::channels::PortType;
use crate::guests::Member;
use crate::policy::{Actions, By, Group, Policy, Via};
use fencewire_core::classic::serial;
use fencewire_core::{
    Accept, Admit, Ask, Endpoint, Entropy, Event, Ledger, Listener, Millis, PowerAction, Remembered, Request, Target,
    Uuid,
};
use std::sync::atomic::{AtomicU32, Ordering};

/// A guest's UUID.
pub(crate) const fn guest(number: u8) -> Uuid {
    Uuid::from_bytes([number; 16])
}

/// What a hypervisor says that was asked at that time; nothing is held of the guest.
pub(crate) fn seen_off(asked: u64) -> SeenOff {
    Held::NONE.confirm(Millis(asked), Millis(0)).expect("nothing is held")
}

/// A request that came at that time, unlike every other.
pub(crate) fn request(action: PowerAction, target: Uuid, received: Millis) -> Request {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let ask = Ask::Power(action, Target::Uuid(target));
    let frame = serial::encode_request(&ask, NEXT.fetch_add(1, Ordering::Relaxed)).expect("a UUID can be sent");
    let mut listener = Listener::new(Accept { settle: Millis(0), ..Accept::default() });
    listener.opened(&Entropy([0; 64]), received);
    assert_eq!(listener.receive(&frame, received), frame.len());
    match listener.poll() {
        Some(Event::Asked(_, request)) => request,
        other => panic!("no request: {other:?}"),
    }
}

/// A new order.
pub(crate) fn order(requester: Uuid, action: PowerAction, target: Uuid, received: Millis) -> Order {
    admit(&mut Ledger::<1>::new(), requester, &request(action, target, received))
}

/// An order that an earlier run of the program had begun.
pub(crate) fn resumed_order(requester: Uuid, action: PowerAction, target: Uuid, received: Millis) -> Order {
    let request = request(action, target, received);
    let mut ledger = Ledger::<1>::new();
    assert!(ledger.restore(request.key(), request.remember_until(), Remembered::Begun(received)));
    admit(&mut ledger, requester, &request)
}

fn admit(ledger: &mut Ledger<1>, requester: Uuid, request: &Request) -> Order {
    let Ask::Power(action, Target::Uuid(target)) = request.ask() else { panic!("no power request by UUID") };
    let Admit::Act(permit) = ledger.admit(request, request.received()) else { panic!("not admitted") };
    let group = Group {
        name: "all".to_owned(),
        members: [requester, *target].map(Member::Uuid).into(),
        actions: Actions::ALL,
        allow_self: true,
        budget_per_minute: 30,
        classic: true,
    };
    let policy = Policy::new(vec![group], false);
    let allowed =
        policy.power(By::Guest(requester, Via::Classic(PortType::Serial)), *action, Some(*target)).expect("allowed");
    let until = request.deadline();
    let earlier = permit.resumed().then_some(Earlier { incarnation: None, seen_off: None });
    Order { permit, allowed, remember_until: request.remember_until(), by_name: None, earlier, guard: None, until }
}
