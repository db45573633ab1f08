//! The five rules of what must never happen, through the wire, against a hypervisor that misbehaves on purpose.
//!
//! | file | rule |
//! |---|---|
//! | `rule1_no_false_success`, `rule1_moved_saved_gone`, `rule1_went_away`, `rule1_hangs`, `rule1_witness` | 1: "fenced" is said only of a guest that is off |
//! | `rule2_nothing_unasked`, `rule2_out_of_time` | 2: nobody is fenced whom nobody asked to fence |
//! | `rule3_never_twice`, `rule3_restarts` | 3: a repeated request is answered, and not done again |
//! | `rule4_no_guest_stops_another`, `rule4_callers` | 4: no guest delays another's fencing |
//! | `rule5_only_whom_one_may` | 5: nobody fences whom they may not |
//! | `holders` | 2, 3 and 5 where who asks is who proves a key |
//! | `shoot_out`, `lanes` | rules 2 to 4 where several fence at once |
//!
//! Which planted fault each of them notices: `FAULTS.md`.
//!
//! The first line of each test's doc names the rule and its cell. Where the sentence is "nothing happens", the test
//! looks at what the hypervisor was *told*, not only at what was answered; and it looks after something else was asked
//! and answered on the same way, so that what should not happen has had its chance.

mod common;
mod holders;
mod lanes;
mod reload;
mod rule1_hangs;
mod rule1_moved_saved_gone;
mod rule1_no_false_success;
mod rule1_went_away;
mod rule1_witness;
mod rule2_nothing_unasked;
mod rule2_out_of_time;
mod rule3_never_twice;
mod rule3_restarts;
mod rule4_callers;
mod rule4_no_guest_stops_another;
mod rule5_only_whom_one_may;
mod several_hypervisors;
mod shoot_out;
