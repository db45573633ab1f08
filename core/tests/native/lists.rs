//! Lists: chunks are asked for one by one, and guests come and go in between. Who is there all the time is on the list
//! exactly once.

use crate::common::entry;
use crate::pair::Pair;
use fencewire_core::{Answer, Ask, Event, ListEntry, Reply, Uuid};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A listing of guests of which `there(chunk)` are there when that chunk is asked for. Gives what the asker heard.
fn listed(there: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    let mut pair = Pair::new(&Ask::List);
    pair.run();
    let mut chunk = 0;
    loop {
        let events: Vec<Event> = pair.events.drain(..).collect();
        let asked = events.into_iter().find_map(|event| match event {
            Event::Asked(id, _) => Some(id),
            _ => None,
        });
        let Some(id) = asked else { break };
        assert!(chunk < 300, "a list without end");
        let guests = there(chunk);
        for number in guests {
            let uuid = Uuid::from_bytes([number; 16]);
            let listed = ListEntry { uuid, ..entry("a name of some length") };
            pair.listener.answer(id, Answer::Entry(listed), pair.now).expect("it was wanted");
            match pair.listener.poll() {
                Some(Event::EntryWanted(_)) => {}
                Some(Event::Withdrawn(_)) | None => break,
                other => panic!("{other:?}"),
            }
        }
        // Where the chunk is full this is too late, and nobody wants it.
        let _ = pair.listener.answer(id, Answer::EndOfList, pair.now);
        pair.run();
        chunk += 1;
    }
    let (last, entries) = pair.replies.split_last().expect("an end");
    assert_eq!(*last, Reply::EndOfList);
    let number = |reply: &Reply| match reply {
        Reply::Entry(entry) => entry.uuid.expect("a UUID").as_bytes()[0],
        other => panic!("{other:?}"),
    };
    entries.iter().map(number).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn who_is_there_all_the_time_is_listed_once_whoever_comes_and_goes(
        always in prop::collection::btree_set(any::<u8>(), 0..40),
        others in prop::collection::vec(prop::collection::btree_set(any::<u8>(), 0..40), 1..8),
    ) {
        let heard = listed(|chunk| {
            let now: BTreeSet<u8> = always.union(&others[chunk % others.len()]).copied().collect();
            now.into_iter().collect()
        });
        let once: BTreeSet<u8> = heard.iter().copied().collect();
        prop_assert_eq!(once.len(), heard.len(), "one is on it twice");
        prop_assert!(always.is_subset(&once));
        prop_assert!(heard.is_sorted());
    }

    /// An owner that does not keep to the order: it has an end all the same, and nobody is on it twice.
    #[test]
    fn an_owner_that_gives_its_guests_in_any_order_makes_no_list_without_end(
        guests in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let heard = listed(|_| guests.clone());
        prop_assert!(heard.is_sorted());
        let once: BTreeSet<u8> = heard.iter().copied().collect();
        prop_assert_eq!(once.len(), heard.len());
    }
}

#[test]
fn lists_that_shrink_to_nothing_and_grow_come_to_an_end() {
    assert_eq!(listed(|chunk| if chunk == 0 { (0..100).collect() } else { vec![] }).first(), Some(&0));
    assert_eq!(listed(|_| vec![]), []);
    let grown = listed(|chunk| (0..(20 * (chunk + 1)).min(200) as u8).collect());
    assert_eq!(grown, (0..200).collect::<Vec<u8>>());
}

#[test]
fn each_entry_is_wanted_once() {
    let mut pair = Pair::new(&Ask::List);
    let (id, _) = pair.asked();
    assert_eq!(pair.listener.poll(), None);
    pair.listener.answer(id, Answer::Entry(entry("vm1")), pair.now).expect("it is out");
    assert_eq!(pair.listener.poll(), Some(Event::EntryWanted(id)));
    assert_eq!(pair.listener.poll(), None);
}
